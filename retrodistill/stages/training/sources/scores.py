"""A teacher's scores of each query's candidates, from a score store or a run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.calls import split_label
from retrodistill.base.errors import DataError
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest
from retrodistill.data.store.form import SCORES
from retrodistill.data.store.lineage import Lineage
from retrodistill.data.store.runs import Run
from retrodistill.stages.training.sources import SignalSource
from retrodistill.stages.training.sources.texts import REMEDY, check_keys

if TYPE_CHECKING:
    from torch import Tensor

    from retrodistill.base.config import TrainSettings
    from retrodistill.data.datasets import Collection
    from retrodistill.models.students.batches import BatchRows
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.material import Material


class ScoreSource(SignalSource):
    """The scores of a run, which also lists each query's candidates."""

    name = "scores"
    about = "teacher scores"
    gives = frozenset({"teacher_scores", "log_weights"})
    opens_late = True

    def __init__(self, run: Run | Path) -> None:
        self._run = run
        self._perplexities: dict[str, float] = {}

    @property
    def run(self) -> Run:
        """The scores, read when they are first asked for."""
        if not isinstance(self._run, Run):
            self._run = Run.read(self._run)
        return self._run

    @classmethod
    def wraps(cls, value: object) -> bool:
        """Tell whether this is a run."""
        return isinstance(value, Run)

    @classmethod
    def open(cls, name: str, settings: "TrainSettings") -> "ScoreSource":
        """Return the scores of a store's or a run's folder, or of a file; with or without label."""
        from retrodistill.stages.training.sources.labelled_scores import LabelledScores

        label, path = split_label(name)
        return ScoreSource(Path(path)) if label is None else LabelledScores(Path(path), label=label)

    @property
    def fingerprint(self) -> str:
        """Hash of the scores."""
        return self.run.fingerprint

    @property
    def lineage(self) -> Lineage:
        """What the teacher was trained on."""
        return self.run.lineage

    @property
    def teachers(self) -> Sequence[str]:
        """Names of the teachers, if the run was read from a folder that records them."""
        from retrodistill.stages.training.card import teachers_of

        return () if self.run.origin is None else teachers_of(self.run.origin)

    @property
    def details(self) -> Mapping[str, Any]:
        """Median perplexity of the teacher's lists, by loss."""
        return {"teacher_perplexity": self._perplexities}

    def check_texts(self, collection: "Collection") -> None:
        """Check that the scores were made from the texts that the collection has.

        A score store keeps a key of the texts of each row, and the folder of a run the
        collection's fingerprint; other files have neither, which is logged. Runs that were made
        in memory are not checked.

        Raises:
            DataError: they were made from other texts.

        """
        origin = self.run.origin
        if origin is None:
            return
        manifest = Manifest.read(origin) if origin.is_dir() else None
        if manifest is not None and manifest.kind == SCORES.kind:
            lists = manifest.details.get("unit") == "list"
            check_keys(collection, origin, SCORES, self.run.table, lists=lists)
        elif manifest is None or "collection" not in manifest.inputs:
            log.warning(
                f"{origin} does not record which texts its ids name: that they are those of "
                f"{collection.name} cannot be checked."
            )
        elif manifest.inputs["collection"] != collection.fingerprint:
            raise DataError(
                f"{origin} was made from another collection than {collection.name}, or from "
                f"an earlier state of it, so its ids may name other texts. {REMEDY}"
            )

    def prepare(
        self, material: "Material", terms: "Sequence[LossTerm]", settings: "TrainSettings"
    ) -> None:
        """Log what the scores of the queries to train on can teach the objective."""
        from retrodistill.stages.training.checks import check_teacher

        queries = material.collection.queries.ids(material.queries)
        scores = self.run.select(queries)
        self._perplexities = check_teacher(terms, scores, depth=settings.pool + 1)

    def of(self, batch: "BatchRows", student: "dict[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return `teacher_scores` and `log_weights` of the lists, (B, N), padded."""
        import torch

        if not batch.examples:
            return {}
        width = max(len(example.docs) for example in batch.examples)
        scores, log_weights = np.zeros((2, len(batch.examples), width), np.float32)
        for row, example in enumerate(batch.examples):
            count = len(example.docs)
            scores[row, :count] = example.teacher_scores
            log_weights[row, :count] = example.log_weights
        return {
            "teacher_scores": torch.from_numpy(scores),
            "log_weights": torch.from_numpy(log_weights),
        }


def scores_of(sources: Iterable[SignalSource]) -> Run | None:
    """Return the run of candidates and teacher scores, if there is one among the sources."""
    named = (source for source in sources if isinstance(source, ScoreSource))
    return next((source.run for source in named if source.name == ScoreSource.name), None)
