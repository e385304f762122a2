"""Result cards as YAML files, checked when they are read."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from retrodistill.base.config.evaluate import EvaluationSettings
from retrodistill.base.config.reading import read_yaml, required, settings_of, shown
from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically
from retrodistill.stages.pipelines.reproduce.content import FORMAT, Card, Judged, Measured, Texts
from retrodistill.stages.reporting.chain import Input, Step

ABOUT = """\
# What it takes to get these numbers again:
#   python -m retrodistill.evaluate --reproduce THIS_FILE
# Paths are as they were given, from the folder in which the commands ran.
"""

NEXT_LINE = "\x85"
"""Character that PyYAML writes as it is, and then reads as a blank."""

Part = TypeVar("Part")


def write_card(card: Card, path: Path) -> None:
    """Write a card as YAML, whole or not at all."""
    write_atomically(path, to_yaml(card).encode())


def to_yaml(card: Card) -> str:
    """Return a card's text. What is empty in a step is left away."""
    import yaml

    content = dataclasses.asdict(card)
    content["runs"] = [_said(Measured, own) for own in content["runs"]]
    content["chain"] = [
        _said(Step, step | {"inputs": [_said(Input, own) for own in step["inputs"]]})
        for step in content["chain"]
    ]
    dump: Callable[..., Any] = partial(yaml.safe_dump, content, sort_keys=False, width=10_000)
    text: str = dump(allow_unicode=True)
    return ABOUT + str(dump() if NEXT_LINE in text else text)


def read_card(path: Path) -> Card:
    """Return the card in a file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has a setting that there is not.
        DataError: it is no card, or one of another format.

    """
    where = f"card {path}"
    content = read_yaml(path, where)
    if content.get("format", FORMAT) != FORMAT:
        raise DataError(
            f"{where} has format {shown(content['format'])}, but this version reads {FORMAT}. "
            "Use the version that wrote it."
        )
    card, texts = _part(Card, content, where), content.get("collection")
    steps = [_part(Step, own, f"{where}, chain {n}") for n, own in enumerate(card.chain, 1)]
    return dataclasses.replace(
        card,
        runs=[_part(Measured, own, f"{where}, runs {n}") for n, own in enumerate(card.runs, 1)],
        settings=settings_of(EvaluationSettings, card.settings, f"{where}, settings").measuring(),
        judgements=_part(Judged, card.judgements, f"{where}, judgements"),
        collection=None if texts is None else _part(Texts, texts, f"{where}, collection"),
        chain=[
            dataclasses.replace(
                step,
                inputs=[_part(Input, own, f"{where}, {step.artifact}") for own in step.inputs],
            )
            for step in steps
        ],
    )


def _part(kind: type[Part], content: Any, where: str) -> Part:
    """Return a part of a card, with each of its values of the type that it should have."""
    if not isinstance(content, dict):
        raise DataError(f"{where} must hold `name: value` lines, but it is {shown(content)}.")
    hints = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    absent = [name for name, item in fields.items() if required(item) and name not in content]
    unknown = [str(name) for name in content if name not in fields]
    if absent or unknown:
        said = f"lacks {', '.join(absent)}" if absent else f"has no use for {', '.join(unknown)}"
        raise DataError(f"{where} {said}. Take the file as `evaluate --card` wrote it.")
    for name, value in content.items():
        wanted = get_origin(hints[name]) or hints[name]
        if isinstance(wanted, type) and wanted in (str, int, Sequence, Mapping):
            if not isinstance(value, wanted) or (wanted is Sequence and isinstance(value, str)):
                raise DataError(f"{where}: {name} must not be {shown(value)}.")
    for name, value in (content["measures"] if kind is Measured else {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"{where}: {name} must be a number, but it is {shown(value)}.")
    return kind(**content)


def _said(kind: type, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without what is empty and may be left away."""
    needed = {item.name for item in dataclasses.fields(kind) if required(item)}
    return {name: value for name, value in row.items() if value or name in needed}
