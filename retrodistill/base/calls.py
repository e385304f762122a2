"""Parse `name(key=value, ...)`, as objectives and metrics are written, and `LABEL=TEACHER`."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from retrodistill.base.errors import ConfigError, did_you_mean

NAME = r"[\w:.-]+"
"""A registered name, or a path to code such as `my_lab.losses:focal`."""

_LABEL = re.compile(r"([A-Za-z][\w-]*)=(?=.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Call:
    """A name and its settings, as text."""

    kind: str
    """What is named, for messages: loss, metric."""

    name: str
    settings: dict[str, str]

    def check_keys(self, known: Iterable[str]) -> None:
        """Refuse a setting that is not among the known ones.

        Raises:
            ConfigError: a setting is unknown; the nearest known one is named.

        """
        known = list(known)
        for key in self.settings:
            if key not in known:
                raise ConfigError(
                    f"{self.kind} {self.name!r} has no setting {key!r}.{did_you_mean(key, known)} "
                    f"It has: {', '.join(known) or 'none'}."
                )


def parse_call(text: str, kind: str, *, example: str, name: str = NAME) -> Call:
    """Return the name and the settings of `name` or `name(key=value, ...)`.

    Whitespace around names, keys and values is ignored; `name` is the pattern of valid names.

    Raises:
        ConfigError: the text has another form, or a key is given twice.

    """
    match = re.fullmatch(rf"\s*({name})\s*(?:\(([^()]*)\))?\s*", text)
    if match is None:
        raise ConfigError(
            f"{kind} {text.strip()!r} is not understood. Write name(key=value, ...), as in "
            f"`{example}`."
        )
    settings: dict[str, str] = {}
    for piece in filter(None, (piece.strip() for piece in (match[2] or "").split(","))):
        key, _, value = (side.strip() for side in piece.partition("="))
        if not (key and value):
            raise ConfigError(f"{kind} {match[1]!r}: setting {piece!r} must read key=value.")
        if key in settings:
            raise ConfigError(f"{kind} {match[1]!r}: setting {key!r} is given twice.")
        settings[key] = value
    return Call(kind, match[1], settings)


def split_label(text: str) -> tuple[str | None, str]:
    """Return the label, if there is one, and what it names: `previous=bi-encoder:MODEL`.

    The path of a file or a folder that exists has no label, whatever it holds.
    """
    match = None if os.path.exists(text) else _LABEL.match(text)
    return (match[1], text[match.end() :]) if match else (None, text)
