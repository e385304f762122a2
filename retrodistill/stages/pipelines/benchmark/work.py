"""A system at work on one dataset: what it needs, what it leaves behind, how it answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from retrodistill.base.types import Doc
from retrodistill.data.store.runs import Run
from retrodistill.stages.pipelines.benchmark.plan import Dataset, System

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

Own = TypeVar("Own", bound=System)

Answer = Callable[[Doc], Mapping[str, float]]
"""From a query to document ids with their scores, best first."""


@dataclass(frozen=True)
class Place:
    """A dataset with its systems, and the folder where all that is made for them lies."""

    out: Path
    name: str
    dataset: Dataset
    collection: "Collection"
    systems: Mapping[str, System]
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
class Made:
    """What a system leaves behind: its run, what this was made from, and what it costs."""

    run: Run
    inputs: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the command that would write the run."""

    docs_per_second: float
    index_bytes: int


class AtWork(ABC, Generic[Own]):
    """A system on a dataset."""

    def __init__(self, name: str, place: Place, system: Own) -> None:
        self.name = name
        self.place = place
        self.system = system

    @abstractmethod
    def inputs(self) -> dict[str, str]:
        """Return fingerprints of what the system is made of, without doing its work."""

    @abstractmethod
    def make(self) -> Made:
        """Do all work of the dataset."""

    @abstractmethod
    def answer(self) -> Answer:
        """Return what answers a single query, when all is made."""
