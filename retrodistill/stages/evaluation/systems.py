"""What `evaluate` and `report` begin with: the systems' runs and the judgements."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrodistill.base.config.evaluate import MeasureSettings
from retrodistill.base.types import Qrels
from retrodistill.data.datasets import load_collection
from retrodistill.data.qrels import made_by_machine, read_qrels
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation import Evaluation, evaluate_with_unseen

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Systems:
    """Runs of systems, and the judgements to measure them against."""

    settings: MeasureSettings
    paths: Mapping[str, Path]
    """System -> where its run was read."""

    runs: Mapping[str, Run]
    qrels: Qrels
    collection: "Collection | None"
    """None where the judgements are a file."""

    @property
    def source(self) -> str:
        """Where the judgements are from: the collection as it was typed, or the file."""
        return str(self.settings.data or self.settings.qrels)

    @property
    def about(self) -> str:
        """What the judgements are, for a title."""
        if self.collection is None:
            return str(self.settings.qrels)
        return f"{self.collection.name} ({self.settings.split})"

    @property
    def caution(self) -> str:
        """What a reader must know of judgements that no human made; else nothing."""
        if self.collection is None:
            return made_by_machine(self.settings.qrels or Path())
        return self.collection.made_by_machine(self.settings.split)

    def evaluate(self) -> Evaluation:
        """Measure the systems, also on the queries that training has not seen."""
        evaluation = evaluate_with_unseen(self.collection, self.qrels, self.runs, self.settings)
        return evaluation.with_caution(self.caution)


def read_systems(settings: MeasureSettings, paths: Mapping[str, Path]) -> Systems:
    """Read the judgements that the settings name, and the run of each system.

    Raises:
        ConfigError: there is no such collection or split.
        DataError: a file is malformed.

    """
    if settings.data is not None:
        collection = load_collection(settings.data)
        qrels = collection.qrels(settings.split)
    else:
        collection = None
        qrels = read_qrels(settings.qrels or Path())
    return Systems(
        settings=settings,
        paths=paths,
        runs={name: Run.read(path) for name, path in paths.items()},
        qrels=qrels,
        collection=collection,
    )
