"""The plan of a benchmark: datasets and systems, from a YAML file."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from retrodistill.base.config import EmbedConfig, Precision, ScoreConfig
from retrodistill.base.config.base import at_least
from retrodistill.base.config.reading import read_yaml, settings_of, shown
from retrodistill.base.errors import ConfigError, did_you_mean
from retrodistill.base.registry import RETRIEVERS

T = TypeVar("T")

NAME = re.compile(r"\w[\w .+=@-]*")
"""Names are folders too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkDataset:
    """A collection, and which of its queries are asked."""

    data: str
    split: str = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class LexicalSettings:
    """A retriever of the registry but `dense`, which has its own settings."""

    retriever: str
    """bm25, lucene, sparse:MODEL, late-interaction:MODEL, or a retriever of your own."""

    max_tokens: int | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        kind, _, model = self.retriever.partition(":")
        if kind == "dense":
            raise ConfigError(f"for a dense model write `model: {model or 'MODEL'}`.")
        RETRIEVERS.split(self.retriever)
        argument = RETRIEVERS.argument(kind)
        if argument == "MODEL" and not model:
            raise ConfigError(f"retriever {kind} needs a model: {kind}:MODEL.")
        if kind in RETRIEVERS and not argument and model:
            raise ConfigError(f"retriever {kind} takes no argument, but got {model!r}.")
        at_least(self, 4, "max_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseSettings:
    """A system of vectors: the settings are those of `embed`."""

    model: str
    index: str = "flat"
    recall: float | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    batch_tokens: int = 4096
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        self.embedding(BenchmarkDataset(data=""), Path())

    def embedding(self, dataset: BenchmarkDataset, out: Path) -> EmbedConfig:
        """Return the settings of the `embed` that makes this system's index.

        Raises:
            ConfigError: one is out of range.

        """
        return EmbedConfig(data=dataset.data, out=out, overwrite=True, **asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankedSettings:
    """A second stage over another system: the settings of its teacher are those of `score`."""

    rerank: str
    """The teacher, as in cross-encoder:MODEL."""

    of: str
    """The first stage: a system above this one in the plan."""

    depth: int = 100
    """Documents of each list that the teacher reorders."""

    option: tuple[str, ...] = ()
    max_tokens: int = 256
    batch_tokens: int = 4096
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        at_least(self, 1, "depth")
        ScoreConfig(data="", candidates=Path(), teacher=self.rerank, out=Path(), **self.teaching())

    def teaching(self) -> dict[str, Any]:
        """Return the settings of the teacher."""
        names = ("option", "max_tokens", "batch_tokens", "precision")
        return {name: getattr(self, name) for name in names}


SystemSettings: TypeAlias = LexicalSettings | DenseSettings | RerankedSettings

KINDS: Mapping[str, type[SystemSettings]] = {
    "retriever": LexicalSettings,
    "model": DenseSettings,
    "rerank": RerankedSettings,
}
"""The key that says what a system is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkPlan:
    """Datasets and systems by their names, in the order of the table."""

    datasets: Mapping[str, BenchmarkDataset]
    systems: Mapping[str, SystemSettings]


def read_plan(plan: Path | str | Mapping[str, Any]) -> BenchmarkPlan:
    """Return the plan of a YAML file, or of what such a file holds.

    Raises:
        ConfigError: the file, a key or a value is malformed; the message names all three.

    """
    where = "the plan" if isinstance(plan, Mapping) else str(plan)
    content = plan if isinstance(plan, Mapping) else read_yaml(Path(plan), where)
    for key in content:
        if key not in ("datasets", "systems"):
            hint = did_you_mean(str(key), ("datasets", "systems"))
            raise ConfigError(f"{where}: unknown key {key!r}.{hint} Known: datasets, systems.")
    datasets = _by_name(content, "datasets", where, _dataset)
    systems = _by_name(content, "systems", where, _system)
    above: list[str] = []
    for name, system in systems.items():
        if isinstance(system, RerankedSettings) and system.of not in above:
            hint = did_you_mean(system.of, above)
            raise ConfigError(
                f"{where}: system {name!r} reranks {system.of!r}, which is not a system above it."
                f"{hint} Systems above it: {', '.join(above) or 'none'}."
            )
        above.append(name)
    return BenchmarkPlan(datasets=datasets, systems=systems)


def _by_name(
    content: Mapping[Any, Any], key: str, where: str, read: Callable[[Any, str], T]
) -> dict[str, T]:
    """Return the entries below a key by their names."""
    entries = content.get(key)
    if not isinstance(entries, Mapping) or not entries:
        raise ConfigError(f"{where} needs `{key}`: a name and its settings, once or more.")
    by_name: dict[str, T] = {}
    for name, entry in entries.items():
        name = str(name)
        entry_where = f"{where}: {key.removesuffix('s')} {name!r}"
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{entry_where}: a name has letters, digits and . + = @ _ - and spaces."
            )
        if name in by_name:  # 1 and "1" are two keys of YAML, but one folder
            raise ConfigError(f"{entry_where} already exists. Take another name.")
        by_name[name] = read(entry, entry_where)
    return by_name


def _dataset(entry: Any, where: str) -> BenchmarkDataset:
    content = {"data": entry} if isinstance(entry, str) else _settings(entry, where)
    return settings_of(BenchmarkDataset, content, where)


def _system(entry: Any, where: str) -> SystemSettings:
    settings = _settings(entry, where)
    kinds = [kind for kind in KINDS if kind in settings]
    if len(kinds) != 1:
        hints = filter(None, (did_you_mean(str(name), KINDS) for name in settings))
        raise ConfigError(
            f"{where} needs one of {', '.join(KINDS)}, but it has {', '.join(map(str, settings))}."
            + ("" if kinds else next(hints, ""))
        )
    return settings_of(KINDS[kinds[0]], settings, where)


def _settings(entry: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} must hold `setting: value` lines, not {shown(entry)}.")
    return entry
