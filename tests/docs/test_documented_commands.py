"""What README, the pages and the verbs' docstrings tell a reader to type."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrodistill.__main__ import VERBS
from retrodistill.base import config as configs
from retrodistill.base.command import build_parser
from retrodistill.base.config.reading import as_declared

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "generated" not in page.parts and "_build" not in page.parts]
COMMAND = re.compile(r"^\s*(?:python -m retrodistill\.|retrodistill )(\w+)\b(.*)$")
SHOWS = frozenset({"--list", "--help", "--version"})
"""Flags that print something instead of running."""


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the verb and the words of each line that is a command."""
    for line in text.replace("\\\n", " ").splitlines():
        match = COMMAND.match(line)
        if match and match[1] in VERBS and "..." not in line:
            words = shlex.split(match[2].partition("  #")[0])
            yield match[1], words


def sources() -> Iterator[tuple[str, str, list[str]]]:
    """Yield where each command of the documentation stands, its verb, and its words."""
    for page in PAGES:
        for verb, words in commands(page.read_text(encoding="utf-8")):
            yield str(page.relative_to(ROOT)), verb, words
    for verb in VERBS:
        tree = ast.parse((ROOT / "retrodistill" / f"{verb}.py").read_text(encoding="utf-8"))
        for name, words in commands(ast.get_docstring(tree) or ""):
            yield f"retrodistill/{verb}.py", name, words


@pytest.mark.parametrize(
    ("where", "verb", "words"), list(sources()), ids=lambda value: str(value)[:60] if value else ""
)
def test_every_command_is_one(where: str, verb: str, words: list[str]) -> None:
    """A page with last year's flags: the first thing that a newcomer types is an error."""
    if SHOWS & {*words}:
        return
    config_class = getattr(configs, f"{verb.capitalize()}Config")
    parser = build_parser(config_class, verb, "About.")
    parsed, unknown = parser.parse_known_intermixed_args(words)
    assert not unknown, where
    settings = {
        name: value
        for name, value in vars(parsed).items()
        if name not in ("config", "print_config", "quiet", "log_json", "help")
    }
    if parsed.config is None:
        config_class(**as_declared(settings, config_class))


def test_there_are_commands() -> None:
    """A pattern that matches nothing would pass every page."""
    pages = [where for where, _, _ in sources()]
    assert len(pages) > 50
    assert {"README.md", "docs/guide.md", "docs/teachers.md"} <= {*pages}
