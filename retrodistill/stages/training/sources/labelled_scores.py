"""A further teacher's scores of the candidates that the unlabelled run lists, by its label."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrodistill.base.errors import DataError
from retrodistill.data.store.runs import Run
from retrodistill.stages.training.sources.scores import ScoreSource

if TYPE_CHECKING:
    from torch import Tensor

    from retrodistill.base.config import TrainSettings
    from retrodistill.models.students.batches import BatchRows
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.candidate_lists import CandidateLists
    from retrodistill.stages.training.material import Material
    from retrodistill.stages.training.sampling import Rows


class LabelledScores(ScoreSource):
    """The scores `LABEL.scores` of another teacher, `--scores LABEL=STORE`.

    It lists no candidates: those are the unlabelled run's, and each has to be scored here too.
    """

    def __init__(self, run: Run | Path, *, label: str) -> None:
        super().__init__(run)
        self.label = label
        self.name = f"scores-{label}"
        self.about = f"the scores {label}"
        self.gives = frozenset({f"{label}.scores"})

    @property
    def teachers(self) -> Sequence[str]:
        """Names of the teachers, each with the label."""
        return tuple(f"{self.label}={name}" for name in super().teachers)

    @property
    def details(self) -> dict[str, object]:
        """Nothing: the perplexities of the manifest are those of the unlabelled run."""
        return {}

    def prepare(
        self, material: "Material", terms: "Sequence[LossTerm]", settings: "TrainSettings"
    ) -> None:
        """Check that each candidate that can be drawn has a score, and what the scores can teach.

        Raises:
            DataError: a candidate has no score here.

        """
        from retrodistill.stages.training.checks import check_teacher

        scores = self.run.select(material.collection.queries.ids(material.queries))
        # A pair of a query and a document is one number; pairs are sorted by it.
        width = self._width = len(material.collection.docs)
        queries = material.collection.queries.rows(list(scores.query_ids))
        owners = np.repeat(queries, scores.list_sizes)
        doc_ids = scores.table["doc_id"].combine_chunks().dictionary_encode()
        docs = material.collection.docs.rows(doc_ids.dictionary.to_pylist())
        keys = owners * width + docs[doc_ids.indices.to_numpy()]
        order = np.argsort(keys)
        self._keys = keys[order]
        self._scores = scores.table["score"].to_numpy()[order]
        if material.lists is not None:
            self._check(material, material.lists)
        check_teacher(terms, scores, depth=settings.pool + 1, signal=f"{self.label}.scores")

    def of(self, batch: "BatchRows", student: "dict[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return `LABEL.scores` of the lists, (B, N), padded."""
        import torch

        if not batch.examples:
            return {}
        width = max(len(example.docs) for example in batch.examples)
        scores = np.zeros((len(batch.examples), width), np.float32)
        for row, example in enumerate(batch.examples):
            keys = example.query * self._width + example.docs
            scores[row, : len(keys)] = self._scores[np.searchsorted(self._keys, keys)]
        return {f"{self.label}.scores": torch.from_numpy(scores)}

    def _check(self, material: "Material", lists: "CandidateLists") -> None:
        """Raise DataError if a candidate of the lists has no score."""
        keys = np.concatenate(
            [
                np.repeat(lists.queries, np.diff(ragged.bounds)) * self._width + ragged.values
                for ragged in (lists.positives, lists.pool)
            ]
        )
        absent: Rows = keys[~np.isin(keys, self._keys)]
        if not len(absent):
            return
        query, doc = divmod(int(absent[0]), self._width)
        collection = material.collection
        raise DataError(
            f"--scores {self.label}={self.run.origin or 'RUN'} scores {len(keys) - len(absent):,} "
            f"of the {len(keys):,} candidates of --scores, and not query "
            f"{collection.queries[query].id!r} with document {collection.docs[doc].id!r}. Score "
            "the same candidates with this teacher: retrodistill score --candidates RUN, where "
            "RUN is that of --scores."
        )
