"""A system on one dataset: what it needs, what it leaves behind, how it answers a query."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from retrodistill.base.types import Doc
from retrodistill.data.store.runs import Run
from retrodistill.stages.pipelines.benchmark.plan import BenchmarkDataset, SystemSettings

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

Settings = TypeVar("Settings", bound=SystemSettings)

Answer = Callable[[Doc], Mapping[str, float]]
"""From a query to document ids with their scores, best first."""


@dataclass(frozen=True)
class Workspace:
    """A dataset with the systems to measure on it, and the folder of their artifacts."""

    out: Path
    name: str
    """Of the dataset."""

    dataset: BenchmarkDataset
    collection: "Collection"
    systems: Mapping[str, SystemSettings]
    k: int

    def folder(self, kind: str, name: str) -> Path:
        """Return the folder of an artifact of this dataset."""
        return self.out / kind / self.name / name

    @cached_property
    def queries(self) -> Sequence[Doc]:
        """The queries of the split."""
        queries = self.collection.queries
        return [queries.get(id) for id in self.collection.query_ids(self.dataset.split)]


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemResult:
    """What a system leaves behind: its run, and what that costs."""

    run: Run
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of what the run was made from, beside the collection."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the command that would write the run."""

    docs_per_second: float
    index_bytes: int


class System(ABC, Generic[Settings]):
    """A system on a dataset."""

    def __init__(self, name: str, workspace: Workspace, settings: Settings) -> None:
        self.name = name
        self.workspace = workspace
        self.settings = settings

    @property
    def index_folder(self) -> Path | None:
        """The index folder that `make` writes, if it writes one."""
        return None

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Return fingerprints of what the system is made of, without doing its work."""

    @abstractmethod
    def make(self) -> SystemResult:
        """Do all work of the dataset."""

    @abstractmethod
    def answer(self) -> Answer:
        """Return what answers a single query, after `make`."""
