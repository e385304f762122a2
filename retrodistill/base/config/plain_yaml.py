"""YAML without surprises: mappings, lists, texts, numbers, true, false and null, nothing else.

Dates, octal and sexagesimal numbers, and numbers with underscores stay the texts that were
written: `out: 2024-13-45` names a folder. What PyYAML writes is read back as it was.
"""

import re
from collections.abc import Hashable
from typing import Any, NoReturn

import yaml

from retrodistill.base.errors import ConfigError

DEEPEST = 50
"""Levels of nesting: settings need four."""

PLAIN = {
    "null": re.compile(r"(?:~|null|Null|NULL|)$"),
    "bool": yaml.SafeLoader.yaml_implicit_resolvers["y"][0][1],
    "int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"),
    "float": re.compile(
        r"(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
"""Texts without quotes that mean something else: a part of what PyYAML takes for it."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, of plain types only."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self.where = where
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node; PyYAML calls itself once a level."""
        self.depth += 1
        if self.depth > DEEPEST:
            self._refuse(f"nested deeper than {DEEPEST} levels", self.peek_event())  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Return what a node means; `!!int abc` means nothing."""
        if node.tag not in self.yaml_constructors:
            self._refuse(f"values of the type {node.tag} are not read", node)
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()
        except (ValueError, LookupError):
            kind = node.tag.rpartition(":")[2]
            self._refuse(f"{node.value[:40]!r} is not of type {kind}", node)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping whose keys are single values, each there once."""
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse("a key must be a single value", key_node)
            key = self.construct_object(key_node)
            if key in lines:
                self._refuse(f"duplicate key {key!r}, first on line {lines[key]}", key_node)
            lines[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def _refuse(self, problem: str, at: Any) -> NoReturn:
        raise ConfigError(f"{self.where}, line {at.start_mark.line + 1}: {problem}.")


_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {None: [(_TAG + name, PLAIN[name]) for name in PLAIN]}
_Loader.yaml_constructors = {
    _TAG + name: yaml.SafeLoader.yaml_constructors[_TAG + name]
    for name in (*PLAIN, "str", "seq", "map")
}


def parse_yaml(text: str, where: str) -> Any:
    """Return what a YAML text holds; `where` begins the errors.

    Raises:
        ConfigError: it is not YAML, or not of plain types; the line is named.

    """
    try:
        return _Loader(text, where).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}," if mark else ""
        raise ConfigError(
            f"{where}{place} is not YAML: {error.problem or error.context}."
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{where}, line {line}, is not YAML: {error.reason}.") from error
