"""What is to be measured: the datasets and the systems of a YAML file."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from retrodistill.base.config import EmbedConfig, Precision, ScoreConfig
from retrodistill.base.config.base import at_least
from retrodistill.base.config.reading import read_yaml, settings_of, shown
from retrodistill.base.errors import ConfigError, did_you_mean

T = TypeVar("T")

NAME = re.compile(r"\w[\w .+=@-]*")
"""Names are folders too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A collection, and which of its queries are asked."""

    data: str
    split: str = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """A system that compares words, with an inverted index in memory."""

    retriever: str
    """bm25 or sparse:MODEL."""

    max_tokens: int | None = None
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        kind, _, model = self.retriever.partition(":")
        if kind == "dense":
            raise ConfigError(f"for a dense model write `model: {model or 'MODEL'}`.")
        if kind not in ("bm25", "sparse") or (kind == "sparse") != bool(model):
            hint = did_you_mean(kind, ("bm25", "sparse"))
            raise ConfigError(
                f"retriever must be bm25 or sparse:MODEL, but it is {self.retriever!r}.{hint}"
            )
        at_least(self, 4, "max_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """A system of vectors: the settings are those of `embed`."""

    model: str
    index: str = "flat"
    recall: float | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    batch_tokens: int = 4096
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        self.embedding(Dataset(data=""), Path())

    def embedding(self, dataset: Dataset, out: Path) -> EmbedConfig:
        """Return the settings of the `embed` that makes this system's index.

        Raises:
            ConfigError: one is out of range.

        """
        return EmbedConfig(data=dataset.data, out=out, overwrite=True, **asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reranked:
    """A second stage over another system: the settings of its teacher are those of `score`."""

    rerank: str
    """The teacher, as in cross-encoder:MODEL."""

    of: str
    """The first stage: a system that stands above this one."""

    depth: int = 100
    """Documents of each list that are put in the teacher's order."""

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


System: TypeAlias = Words | Dense | Reranked

KINDS: Mapping[str, type[System]] = {"retriever": Words, "model": Dense, "rerank": Reranked}
"""The key that says what a system is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Datasets and systems by their names, in the order of the table."""

    datasets: Mapping[str, Dataset]
    systems: Mapping[str, System]


def read_plan(plan: Path | str | Mapping[str, Any]) -> Plan:
    """Return the plan of a YAML file, or of what such a file holds.

    Raises:
        ConfigError: the file, a key or a value is not in order; all three are named.

    """
    where = "the plan" if isinstance(plan, Mapping) else str(plan)
    content = plan if isinstance(plan, Mapping) else read_yaml(Path(plan), where)
    for key in content:
        if key not in ("datasets", "systems"):
            hint = did_you_mean(str(key), ("datasets", "systems"))
            raise ConfigError(f"{where}: unknown key {key!r}.{hint} Known: datasets, systems.")
    datasets = _named(content, "datasets", where, _dataset)
    systems = _named(content, "systems", where, _system)
    known: list[str] = []
    for name, system in systems.items():
        if isinstance(system, Reranked) and system.of not in known:
            hint = did_you_mean(system.of, known)
            raise ConfigError(
                f"{where}: system {name!r} reranks {system.of!r}, which is no system above it."
                f"{hint} There are: {', '.join(known) or 'none'}."
            )
        known.append(name)
    return Plan(datasets=datasets, systems=systems)


def _named(
    content: Mapping[Any, Any], key: str, where: str, read: Callable[[Any, str], T]
) -> dict[str, T]:
    """Return the parts below a key by their names."""
    parts = content.get(key)
    if not isinstance(parts, Mapping) or not parts:
        raise ConfigError(f"{where} needs `{key}`: a name and its settings, once or more.")
    found: dict[str, T] = {}
    for name, part in parts.items():
        name = str(name)
        place = f"{where}: {key.removesuffix('s')} {name!r}"
        if not NAME.fullmatch(name):
            raise ConfigError(f"{place}: a name has letters, digits and . + = @ _ - and spaces.")
        if name in found:  # 1 and "1" are two keys of YAML, but one folder
            raise ConfigError(f"{place} already exists. Take another name.")
        found[name] = read(part, place)
    return found


def _dataset(part: Any, where: str) -> Dataset:
    return settings_of(
        Dataset, {"data": part} if isinstance(part, str) else _keys(part, where), where
    )


def _system(part: Any, where: str) -> System:
    keys = _keys(part, where)
    kinds = [kind for kind in KINDS if kind in keys]
    if len(kinds) != 1:
        near = filter(None, (did_you_mean(str(key), KINDS) for key in keys))
        raise ConfigError(
            f"{where} needs one of {', '.join(KINDS)}, but it has {', '.join(map(str, keys))}."
            + ("" if kinds else next(near, ""))
        )
    return settings_of(KINDS[kinds[0]], keys, where)


def _keys(part: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(part, Mapping):
        raise ConfigError(f"{where} must hold `setting: value` lines, not {shown(part)}.")
    return part
