"""Result cards as YAML files, validated when they are read."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from retrodistill.base.config.evaluate import EvaluationSettings
from retrodistill.base.config.reading import read_yaml, required, settings_of, shown
from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically
from retrodistill.stages.pipelines.reproduce.card import (
    FORMAT,
    Card,
    CardCollection,
    CardJudgements,
    CardRun,
)
from retrodistill.stages.reporting.chain import Input, Origin

ABOUT = """\
# What it takes to get these numbers again:
#   python -m retrodistill.reproduce THIS_FILE
# Paths are as they were typed, relative to the folder in which the commands ran.
"""

NEXT_LINE = "\x85"
"""Character that PyYAML writes as it is, and then reads as a blank."""

Record = TypeVar("Record")


def write_card(card: Card, path: Path) -> None:
    """Write a card as YAML, whole or not at all."""
    write_atomically(path, to_yaml(card).encode())


def to_yaml(card: Card) -> str:
    """Return a card's text, without the empty optional fields of its chain."""
    import yaml

    content = dataclasses.asdict(card)
    content["runs"] = [_without_empty(CardRun, run) for run in content["runs"]]
    content["chain"] = [
        _without_empty(
            Origin,
            origin | {"inputs": [_without_empty(Input, source) for source in origin["inputs"]]},
        )
        for origin in content["chain"]
    ]
    dump: Callable[..., Any] = partial(yaml.safe_dump, content, sort_keys=False, width=10_000)
    text: str = dump(allow_unicode=True)
    return ABOUT + str(dump() if NEXT_LINE in text else text)


def read_card(path: Path) -> Card:
    """Return the card in a file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has an unknown setting.
        DataError: it is not a card, or has another format.

    """
    where = f"card {path}"
    content = read_yaml(path, where)
    if content.get("format", FORMAT) != FORMAT:
        raise DataError(
            f"{where} has format {shown(content['format'])}, but this version reads {FORMAT}. "
            "Use the version that wrote it."
        )
    card, collection = _record(Card, content, where), content.get("collection")
    origins = [_record(Origin, row, f"{where}, chain {n}") for n, row in enumerate(card.chain, 1)]
    return dataclasses.replace(
        card,
        runs=[_record(CardRun, row, f"{where}, runs {n}") for n, row in enumerate(card.runs, 1)],
        settings=settings_of(EvaluationSettings, card.settings, f"{where}, settings").measuring(),
        judgements=_record(CardJudgements, card.judgements, f"{where}, judgements"),
        collection=None
        if collection is None
        else _record(CardCollection, collection, f"{where}, collection"),
        chain=[
            dataclasses.replace(
                origin,
                inputs=[
                    _record(Input, row, f"{where}, {origin.artifact}") for row in origin.inputs
                ],
            )
            for origin in origins
        ],
    )


def _record(kind: type[Record], content: Any, where: str) -> Record:
    """Return a dataclass of a card, with each of its values of the declared type."""
    if not isinstance(content, dict):
        raise DataError(f"{where} must hold `name: value` lines, but it is {shown(content)}.")
    hints = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    absent = [name for name, item in fields.items() if required(item) and name not in content]
    unknown = [str(name) for name in content if name not in fields]
    if absent or unknown:
        problem = f"lacks {', '.join(absent)}" if absent else f"has unknown {', '.join(unknown)}"
        raise DataError(f"{where} {problem}. Use the file as `evaluate --card` wrote it.")
    for name, value in content.items():
        declared = get_origin(hints[name]) or hints[name]
        if isinstance(declared, type) and declared in (str, int, Sequence, Mapping):
            if not isinstance(value, declared) or (declared is Sequence and isinstance(value, str)):
                raise DataError(f"{where}: {name} must not be {shown(value)}.")
    for name, value in (content["measures"] if kind is CardRun else {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{where}: {name} must be a number, but it is {shown(value)}.")
    return kind(**content)


def _without_empty(kind: type, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without its empty optional fields."""
    mandatory = {item.name for item in dataclasses.fields(kind) if required(item)}
    return {name: value for name, value in row.items() if value or name in mandatory}
