"""The stores of scores and of preferences: one teacher's numbers, keyed by the texts."""

import pyarrow as pa

from retrodistill.data.store.columns import widened
from retrodistill.data.store.form import PREFERENCES, SCORES
from retrodistill.data.store.keyed import KeyedStore
from retrodistill.data.store.runs import Run
from retrodistill.data.store.shards import current_rows


class ScoreStore(KeyedStore):
    """A folder of raw scores of pairs (query, document)."""

    form = SCORES

    def run(self) -> Run:
        """Return all scores as one run."""
        return Run.read(self.folder)


class PreferenceStore(KeyedStore):
    """A folder of preferences between two documents for a query, the edges of a graph."""

    form = PREFERENCES

    def edges(self) -> pa.Table:
        """Return query_id, doc_id, other_id and log_p of each stored preference.

        `log_p` is the log probability, in nats, that `doc_id` is better than `other_id`.

        Raises:
            DataError: there is no shard yet, or one is damaged.

        """
        table = current_rows(self.folder, self.form)
        columns = [widened(table[name]) for name in self.form.ids]
        return pa.table([*columns, table[self.form.value]], [*self.form.ids, self.form.value])
