"""Options after a collection's id or a file's name: `docs:notes,tokens=300,queries=log.txt`."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from retrodistill.base.errors import ConfigError, did_you_mean

OPTION = re.compile(r"(?P<path>.*),(?P<name>[A-Za-z_-]+)=(?P<value>[^,]*)", re.DOTALL)


def take_options(text: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """Return a text without the options of these names, and their values; others stay in the text.

    Raises:
        ConfigError: an option is given twice, or without a value.

    """
    remaining, options = _split_options(text)
    values: dict[str, str] = {}
    for name, value in options:
        if name not in names:
            remaining += f",{name}={value}"
        elif not value:
            raise ConfigError(f"the option {name}= of {text!r} needs a value.")
        elif name in values:
            raise ConfigError(f"the option {name}= is given twice in {text!r}.")
        else:
            values[name] = value
    return remaining, values


def path_options(text: str, names: Sequence[str], *, where: str) -> tuple[Path, dict[str, str]]:
    """Return the path before the options, and their values; `where` starts error messages.

    Raises:
        ConfigError: an option is unknown, given twice, or without a value.

    """
    whole = Path(text).expanduser()
    if whole.exists():  # a file name that looks like options
        return whole, {}
    remaining, values = take_options(text, names)
    path, unknown = _split_options(remaining)
    if unknown:
        name = unknown[0][0]
        raise ConfigError(
            f"{where}: unknown option {name!r}.{did_you_mean(name, names)} "
            f"Known: {', '.join(names)}."
        )
    return Path(path).expanduser(), values


def _split_options(text: str) -> tuple[str, list[tuple[str, str]]]:
    options: list[tuple[str, str]] = []
    while match := OPTION.fullmatch(text):
        options.insert(0, (match["name"], match["value"]))
        text = match["path"]
    return text, options
