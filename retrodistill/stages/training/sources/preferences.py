"""A pairwise teacher's preferences between the candidates of a batch."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.logging import log
from retrodistill.data.store.form import PREFERENCES
from retrodistill.data.store.lineage import Lineage, own_lineage
from retrodistill.data.store.scores import PreferenceStore
from retrodistill.stages.training.sources import SignalSource
from retrodistill.stages.training.sources.texts import check_keys

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from retrodistill.base.config import TrainSettings
    from retrodistill.data.datasets import Collection, Texts
    from retrodistill.models.students.batches import BatchRows, TrainingExample
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.candidate_lists import QueryCandidates
    from retrodistill.stages.training.material import Material
    from retrodistill.stages.training.sampling import Floats, Rows


class PreferenceSource(SignalSource):
    """The preferences of a store."""

    name = "preferences"
    about = "preferences"
    gives = frozenset({"preferences", "preference_mask"})

    def __init__(self, store: PreferenceStore) -> None:
        self.store = store
        self._preferences: Preferences | None = None

    @classmethod
    def wraps(cls, value: object) -> bool:
        """Tell whether this is a store of preferences."""
        return isinstance(value, PreferenceStore)

    @classmethod
    def open(cls, name: str, settings: "TrainSettings") -> Self:
        """Return the preferences of a store's folder."""
        return cls(PreferenceStore.open(Path(name)))

    @property
    def fingerprint(self) -> str:
        """Hash of the preferences."""
        return self.store.manifest.fingerprint

    @property
    def lineage(self) -> Lineage:
        """What the pairwise teacher was trained on."""
        return own_lineage(self.store)

    def check_texts(self, collection: "Collection") -> None:
        """Check that the preferences are between texts that the collection has."""
        check_keys(collection, self.store.folder, PREFERENCES, self.store.edges())

    def prepare(
        self, material: "Material", terms: "Sequence[LossTerm]", settings: "TrainSettings"
    ) -> None:
        """Check that candidates of a query were compared."""
        if material.lists is not None:
            self._preferences = Preferences(self.store, material.collection)
            self._preferences.check(material.lists)

    def of(self, batch: "BatchRows", student: "dict[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return `preferences` and `preference_mask` of the lists, both (B, N, N), padded."""
        if self._preferences is None or not batch.examples:
            return {}
        return self._preferences(batch.examples)


class Preferences:
    """Preferences of a store by rows of a collection; called with the examples of a batch.

    Raises:
        DataError: the store has an id that the collection does not hold.

    """

    def __init__(self, store: "PreferenceStore", collection: "Collection") -> None:
        edges = store.edges()
        self._width = len(collection.docs)
        queries = _rows(collection.queries, edges["query_id"])
        keys = _rows(collection.docs, edges["doc_id"]) * self._width
        keys += _rows(collection.docs, edges["other_id"])
        # A pair of documents is one number; pairs are sorted by query, then by that number.
        order = np.lexsort((keys, queries))
        self._keys = keys[order]
        self._log_p = edges["log_p"].to_numpy()[order].astype(np.float64)
        self._queries, starts = np.unique(queries[order], return_index=True)
        self._bounds = np.append(starts, len(order))
        self._logged = False

    def check(self, candidates: "Iterable[QueryCandidates]") -> None:
        """Raise DataError if no two candidates of any query were compared."""
        for query in candidates:
            docs = np.concatenate([query.positives, query.pool])
            if self.between(query.query, docs)[1].any():
                return
        raise DataError(
            "--preferences compare no two candidates of any query, so there is nothing to learn "
            "from them. Compare those of --scores: `retrodistill.score --preferences "
            "--candidates RUN --teacher pairwise:MODEL`."
        )

    def __call__(self, examples: "Sequence[TrainingExample]") -> "dict[str, Tensor]":
        """Return `preferences` and `preference_mask`, both (B, N, N), padded.

        Where only one direction of a pair was stored, the other is log(1 - p). Logs the first
        batch without any compared pair.
        """
        import torch

        width = max(len(example.docs) for example in examples)
        values = np.zeros((len(examples), width, width), np.float32)
        compared = np.zeros(values.shape, np.bool_)
        for row, example in enumerate(examples):
            listed = slice(len(example.docs))
            values[row, listed, listed], compared[row, listed, listed] = self.between(
                example.query, example.docs
            )
        if not (compared.any() or self._logged):
            self._logged = True
            log.info(
                f"a batch of {len(examples)} queries holds no compared pair: preference-kl is 0 "
                "there. A larger --batch-size, or more compared pairs, avoid that (logged once)."
            )
        return {
            "preferences": torch.from_numpy(values),
            "preference_mask": torch.from_numpy(compared),
        }

    def between(self, query: int, docs: "Rows") -> tuple["Floats", NDArray[np.bool_]]:
        """Return log p(row is better than column), in nats, and where it is known."""
        index = int(np.searchsorted(self._queries, query))
        if index == len(self._queries) or self._queries[index] != query:
            return np.zeros((len(docs), len(docs))), np.zeros((len(docs), len(docs)), np.bool_)
        span = slice(self._bounds[index], self._bounds[index + 1])
        keys, log_p = self._keys[span], self._log_p[span]
        # (N, N): which ordered pairs are stored, and their log-probabilities
        requested = docs[:, None] * self._width + docs
        positions = np.searchsorted(keys, requested).clip(max=len(keys) - 1)
        stored = keys[positions] == requested
        values = np.where(stored, log_p[positions], 0.0)
        values = np.where(stored.T & ~stored, _log_other(values.T), values)
        return values, stored | stored.T


def _rows(texts: "Texts", ids: "pa.ChunkedArray") -> "Rows":
    """Return the row of each id of a column; each distinct one is looked up once."""
    codes = ids.combine_chunks().dictionary_encode()
    rows: Rows = texts.rows(codes.dictionary.to_pylist())[codes.indices.to_numpy()]
    return rows


def _log_other(log_p: "Floats") -> "Floats":
    """Return log(1 - p); of a p of 1, the logarithm of the least float32."""
    floor = np.finfo(np.float32).tiny
    complement: Floats = np.log(np.maximum(-np.expm1(log_p), floor))
    return complement
