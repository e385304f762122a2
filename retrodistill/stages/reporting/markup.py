"""HTML and SVG as nested calls: what is not markup already is escaped where it is put in."""

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

VOID = frozenset({"br", "link", "meta"})
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that no page may hold."""


class Html(str):
    """A string that is markup already."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
Attribute: TypeAlias = "str | float | bool | None"


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """Return an element; `class_` is the attribute class, `data_value` is data-value.

    An attribute of None or False is left away, and one of True stands alone.
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{clean(_plain(value))}"')
    opening = f"<{' '.join(words)}>"
    return Html(opening if name in VOID else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Html:
    """Return children one behind the other, those that are not markup escaped."""
    return Html("".join(_rendered(child) for child in children))


def clean(text: str) -> str:
    """Return text escaped, for an element or an attribute."""
    return escape(printable(text))


def printable(text: str) -> str:
    """Return text with a sign in the place of each character that no page may hold."""
    return CONTROL.sub("\ufffd", text)


def _rendered(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    return clean(child) if isinstance(child, str) else join(child)


def _plain(value: str | float) -> str:
    """Return an attribute's text; a coordinate has two decimals at most."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
