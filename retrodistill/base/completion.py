"""Completion scripts of shells, made from the config dataclasses and the registries."""

import argparse
from collections.abc import Mapping, Sequence

from retrodistill.base import registry
from retrodistill.base.command import build_parser
from retrodistill.base.errors import ConfigError, MissingExtra, did_you_mean

SHELLS = ("bash", "zsh", "fish")

PARTS: Mapping[str, registry.Registry] = {
    "data": registry.COLLECTIONS,
    "retriever": registry.RETRIEVERS,
    "teacher": registry.TEACHERS,
    "judge": registry.TEACHERS,
    "student_kind": registry.STUDENT_KINDS,
    "objective": registry.LOSSES,
    "format": registry.FORMATS,
    "index": registry.INDEXES,
}
"""Field of a config, where it is a text -> the table with names of its value."""

WITH_ARGUMENT = frozenset({"data"})
"""Fields whose every name is followed by a colon and an argument."""


def completion_script(shell: str, verbs: Mapping[str, tuple[type, str]]) -> str:
    """Return the script that completes verbs, flags, choices, names of parts, and paths.

    `verbs` are the config class of each verb, and the line that says what it does.

    Raises:
        ConfigError: there is no completion for this shell.
        MissingExtra: shtab is not installed.

    """
    if shell not in SHELLS:
        raise ConfigError(
            f"unknown shell {shell!r}.{did_you_mean(shell, SHELLS)} Known: {', '.join(SHELLS)}."
        )
    try:
        import shtab
    except ImportError as error:
        raise MissingExtra(
            "completion needs the package shtab: pip install 'retrodistill[completion]'."
        ) from error
    parser = argparse.ArgumentParser(prog="retrodistill")
    commands = parser.add_subparsers()
    for verb, (config_class, about) in verbs.items():
        flags = build_parser(config_class, verb, about)
        _suggest(flags._actions)
        command = commands.add_parser(verb, help=about, parents=[flags], add_help=False)
        command.description = about
    script: str = shtab.complete(parser, shell=shell)
    return script


def _suggest(actions: Sequence[argparse.Action]) -> None:
    """Give each action the values, or the kind of path, that a shell may suggest."""
    import shtab

    for action in actions:
        if action.dest in PARTS and action.type is str:
            colon = ":" if action.dest in WITH_ARGUMENT else ""
            action.choices = [f"{name}{colon}" for name in PARTS[action.dest]]
        elif action.metavar in ("RUN", "STORE", "FOLDER", "MODEL"):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in ("FILE", "FILE.yaml", "PATH"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
