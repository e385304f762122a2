"""Every exception a user can meet.

RetrodistillError
+- ConfigError      a setting is unknown, missing, or out of range
+- DataError        a file, id or tensor does not have the promised form
+- MissingExtra     an optional dependency is not installed
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class RetrodistillError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(RetrodistillError, ValueError):
    """A setting is unknown, missing, or out of range."""


class DataError(RetrodistillError, ValueError):
    """A file, id or tensor does not have the promised form."""


class MissingExtra(RetrodistillError, ImportError):
    """An optional dependency is not installed."""


def did_you_mean(name: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """Return the sentence that asks for the known name nearest to an unknown one, if one is near.

    It starts with a space, so that it can follow any other sentence; else it is empty. Case and
    hyphens do not count. `aliases` are other words for known names.
    """
    spelled = {_letters(other): known_name for other, known_name in (aliases or {}).items()}
    spelled |= {_letters(known_name): known_name for known_name in known}
    near = get_close_matches(_letters(name), spelled, n=1)
    return f" Did you mean {spelled[near[0]]!r}?" if near else ""


def _letters(name: str) -> str:
    """Return a name's letters and digits in lower case, or the name where it has none."""
    return "".join(filter(str.isalnum, name.casefold())) or name
