"""Where a batch's signals come from beside its lists: a teacher's scores, preferences, vectors.

A source is one class and one line of `SIGNAL_SOURCES`; `train --NAME` opens it if the settings
have a field of that name. `train_student` takes a source of your own as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import SIGNAL_SOURCES
from retrodistill.data.store.lineage import Lineage

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from transformers import TrainerCallback

    from retrodistill.base.config import TrainConfig, TrainSettings
    from retrodistill.data.datasets import Collection
    from retrodistill.models.students.batches import BatchRows
    from retrodistill.models.students.tasks import Task
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.material import Material


class SignalSource(ABC):
    """Gives signals of every batch, stored ones before the forward pass or live ones in it."""

    name: str
    """Its role, as in the flag `--scores`; a training has one source of a name."""

    about: str
    """Noun for messages: `teacher scores`."""

    gives: frozenset[str]
    """Names of its signals, of `objective.SIGNALS`."""

    example: str = "batch-kl"
    """A loss that learns from it if it is live, for messages."""

    live: bool = False
    """Whether signals are computed in the forward pass, where the student's own are known."""

    opens_late: bool = False
    """Whether `open` notes the name alone, and reads what it names when it is first asked for."""

    dimension: int | None = None
    """Size of the vectors that it gives, if it gives vectors."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that its signals depend on."""

    @property
    def lineage(self) -> Lineage:
        """What the models behind the signals were trained on, as far as it is recorded."""
        return Lineage()

    @property
    def teachers(self) -> Sequence[str]:
        """Names of the teachers behind it, for the model card."""
        return ()

    @property
    def details(self) -> Mapping[str, Any]:
        """Entries for the details of the student's manifest, once it is prepared."""
        return {}

    @classmethod
    def wraps(cls, value: object) -> bool:
        """Tell whether the source can be made from a value, by calling the class with it."""
        return False

    @classmethod  # noqa: B027
    def check(cls, name: str, settings: "TrainSettings") -> None:
        """Check whether what a flag names fits the settings, before anything is loaded.

        Raises:
            ConfigError: it cannot be used in this training.

        """

    @classmethod
    def open(cls, name: str, settings: "TrainSettings") -> Self:
        """Return the source that a flag names: a folder, a file or a model."""
        raise NotImplementedError

    def check_texts(self, collection: "Collection") -> None:  # noqa: B027
        """Check that it was made from the collection's texts, as far as it records them.

        Raises:
            DataError: it was made from other texts.

        """

    def prepare(  # noqa: B027
        self, material: "Material", terms: "Sequence[LossTerm]", settings: "TrainSettings"
    ) -> None:
        """Look at what will be trained on, before any heavy work.

        Raises:
            DataError: the objective cannot learn from this source.

        """

    def attach(self, task: "Task") -> None:  # noqa: B027
        """Look at the task that will be trained, before its first step."""

    def callback(self, checkpoint: "Path | None") -> "TrainerCallback | None":
        """Return what is to be called after each step; `checkpoint` is resumed from, if one is."""
        return None

    @abstractmethod
    def of(self, batch: "BatchRows", student: "dict[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return the signals of a batch; a live source is given the student's own signals."""


def named_sources(config: "TrainConfig") -> "list[SignalSource | type[SignalSource]]":
    """Return the sources that the flags of a training name, unopened: what they give, no more.

    Raises:
        ConfigError: a source cannot be used in this training.

    """
    sources: list[SignalSource | type[SignalSource]] = []
    for name, value in _flags(config):
        source: type[SignalSource] = SIGNAL_SOURCES[name]
        source.check(value, config)
        sources.append(source.open(value, config) if source.opens_late else source)
    _refuse_twice(sources)
    return sources


def open_sources(config: "TrainConfig") -> list[SignalSource]:
    """Return the sources that the flags of a training name."""
    return [SIGNAL_SOURCES[name].open(value, config) for name, value in _flags(config)]


def _flags(config: "TrainConfig") -> Iterator[tuple[str, str]]:
    """Yield each source's name with each of its values on the command line."""
    for name in SIGNAL_SOURCES:
        value = getattr(config, name.replace("-", "_"), None)
        for each in value if isinstance(value, tuple) else (value,):
            if each:
                yield name, str(each)


def as_sources(values: Iterable[object]) -> tuple[SignalSource, ...]:
    """Return sources, with a run, a preference store or an encoder wrapped as what it is.

    None is skipped.

    Raises:
        ConfigError: a value is none of these, or two are of the same role.

    """
    sources = tuple(_wrapped(value) for value in values if value is not None)
    _refuse_twice(sources)
    return sources


def _refuse_twice(sources: "Sequence[SignalSource | type[SignalSource]]") -> None:
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two sources of {name} are given, but a training has one at most. Further "
                "teachers have labels: --scores LABEL=STORE, --teacher LABEL=TEACHER."
            )
    labelled = [signal for source in sources for signal in source.gives if "." in signal]
    for signal in labelled:
        if labelled.count(signal) > 1:
            raise ConfigError(
                f"two sources of {signal} are given: give another label to one of them."
            )


def _wrapped(value: object) -> SignalSource:
    if isinstance(value, SignalSource):
        return value
    for name in SIGNAL_SOURCES:
        source: type[SignalSource] = SIGNAL_SOURCES[name]
        if source.wraps(value):
            return source(value)  # type: ignore[call-arg]
    abouts = ", ".join(SIGNAL_SOURCES[name].about for name in SIGNAL_SOURCES)
    raise ConfigError(
        f"a {type(value).__name__} is not a source of signals. Give {abouts}, or a SignalSource."
    )
