"""From a config dataclass to a command line, and from an error to an exit status.

The dataclasses of `retrodistill.base.config` are the one description of every flag; argparse, with
YAML underneath, reads them. Argparse was preferred to a larger library because `--help` must
answer at once and because flags repeat plainly here (`--run a --run b`).
"""

import argparse
import ast
import dataclasses
import errno
import inspect
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from retrodistill.base.config import as_dict
from retrodistill.base.config.reading import (
    as_declared,
    by_field,
    key,
    plain,
    read_yaml,
    required,
    unknown_setting,
)
from retrodistill.base.errors import ConfigError, RetrodistillError
from retrodistill.base.files import NO_SPACE
from retrodistill.base.logging import log, log_to_stderr

Config = TypeVar("Config")

OF_PATHS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""System errors about a path, with or without its name apart (Arrow has it in the message)."""

BROKEN = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO)
"""System errors of a disk or a server, for which the user can do nothing in the command."""

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command as an interrupt does: with its workers, and nothing half-written."""

KEPT = "what was finished is kept"


class Terminated(BaseException):
    """The system, a scheduler or a container asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises where argparse would exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. See --help.")


def run(
    config_class: type[Config],
    stage: Callable[[Config], int | None],
    *,
    verb: str,
    about: str,
    words: Sequence[str] | None = None,
    shows: Mapping[str, tuple[str, Callable[[], None]]] | None = None,
    beneath: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> int:
    """Read the command line, run a stage, and return the exit status.

    A stage that ran to its end may return a status of its own.
    `shows` are further flags that print something instead: their help, and what prints it.
    `beneath` returns settings that hold unless the given ones say otherwise (a recipe's).

    0 is done, 1 a full or broken disk, 2 a mistake of the user (messages without a traceback), 130
    an interrupt, 143 a request to end (SIGTERM); any other exception goes on to Python, which
    prints its traceback and exits with 1.
    """
    words = sys.argv[1:] if words is None else words
    log_to_stderr(quiet="--quiet" in words, as_json="--log-json" in words)
    status = None
    try:
        for flag, (_, show) in (shows or {}).items():
            if flag in words:
                show()
                sys.stdout.flush()
                return 0
        texts = {flag: text for flag, (text, _) in (shows or {}).items()}
        with _ended_by_signals():
            config = parse(config_class, words, verb, about, texts, beneath)
            if config is not None:
                status = stage(config)
            sys.stdout.flush()
    except RetrodistillError as error:
        return _ended(verb, str(error), 2)
    except BrokenPipeError as error:
        if error.filename is not None:
            raise
        return reader_gone()
    except OSError as error:
        return _failed_file(verb, error)
    except KeyboardInterrupt:
        return _ended(verb, f"interrupted; {KEPT}.", 128 + signal.SIGINT)
    except Terminated as end:
        name = signal.Signals(end.number).name
        return _ended(verb, f"ended by {name}; {KEPT}.", 128 + end.number)
    return status or 0


def _failed_file(verb: str, error: OSError) -> int:
    """Log an error of a path or a disk; raise it again if it is neither."""
    if error.errno in NO_SPACE:
        return _ended(
            verb,
            f"no space left to write ({error}); {KEPT}. Make room and run the same command again.",
            1,
        )
    if error.filename is None and not isinstance(error, OF_PATHS):
        raise error
    paths = [str(name) for name in (error.filename, error.filename2) if name is not None]
    failure = f"{' -> '.join(paths)}: {error.strerror}" if paths else str(error)
    if error.errno in BROKEN:
        return _ended(verb, f"{failure}. Check the disk or its server; {KEPT}.", 1)
    return _ended(verb, f"{failure}. Check the path, its owner and its permissions.", 2)


def reader_gone() -> int:
    """End quietly, as other commands do, when `| head` has read enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
    return 128 + signal.SIGPIPE


def _ended(verb: str, message: str, status: int) -> int:
    log.error(f"retrodistill.{verb}: {message}")
    return status


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Raise Terminated in the block at a signal that would end the process without a word.

    Only in the main thread, and not where a signal is ignored (as nohup does) or handled already.
    """

    def end(number: int, frame: object) -> NoReturn:
        raise Terminated(number)

    main = threading.current_thread() is threading.main_thread()
    handled = [number for number in ENDING if main and signal.getsignal(number) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def parse(
    config_class: type[Config],
    words: Sequence[str],
    verb: str,
    about: str,
    shows: Mapping[str, str] | None = None,
    beneath: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Config | None:
    """Return the settings from `--config FILE.yaml` with the flags on top.

    `shows` are flags beside the settings, with their help; they do nothing here. `beneath` is as
    `run` says.

    Returns None when the words only asked for help or for `--print-config`, which is then done.

    Raises:
        ConfigError: a setting is unknown (the nearest is named), missing, or out of range.

    """
    fields = {item.name: item for item in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    parser = build_parser(config_class, verb, about, shows)
    if any(word in ("-h", "--help") for word in words):
        parser.print_help()
        return None
    parsed, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise ConfigError(unknown_setting(unknown[0].split("=")[0], map(_flag, fields)))
    where = f"--config {parsed.config}"
    settings = (
        by_field(read_yaml(parsed.config, where), config_class, where) if parsed.config else {}
    )
    settings |= {name: getattr(parsed, name) for name in fields if hasattr(parsed, name)}
    if beneath:
        settings = {**beneath(settings), **settings}
    absent = [name for name in fields if name not in settings and required(fields[name])]
    if absent:
        flags = ", ".join(_flag(name) for name in absent)
        raise ConfigError(f"needs {flags}. See --help.")
    config = config_class(**as_declared(settings, config_class))
    if parsed.print_config:
        import yaml

        print(yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True), end="")
        return None
    return config


def build_parser(
    config_class: type, verb: str, about: str, prints: Mapping[str, str] | None = None
) -> argparse.ArgumentParser:
    """Return the parser of a verb's flags: required ones first, then group by group.

    `prints` are flags beside the settings, with their help.
    """
    fields = {item.name: item for item in dataclasses.fields(config_class)}
    flags = [name for name, item in fields.items() if required(item)]
    hints = get_type_hints(config_class)
    needed = " ".join(f"{_flag(name)} {metavar(name, hints[name])}" for name in flags)
    parser = _Parser(
        prog=f"retrodistill {verb}",
        usage=" ".join(filter(None, (f"retrodistill {verb}", needed, "[options]"))),
        description=textwrap.dedent(about),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    texts = help_texts(config_class)
    for title, names in groups(config_class).items():
        group = parser.add_argument_group(title)
        for name in names:
            _add_flag(group, fields[name], hints[name], texts.get(name, ""))
    group = parser.add_argument_group("general")
    for flag, text in (prints or {}).items():
        group.add_argument(flag, action="store_true", help=text)
    group.add_argument(
        "--config",
        default=None,
        type=Path,
        metavar="FILE.yaml",
        help="Settings to start from; flags override them.",
    )
    for flag, text in GENERAL.items():
        group.add_argument(flag, default=False, action="store_true", help=text)
    group.add_argument("-h", "--help", action="store_true", help="Show this and stop.")
    return parser


GENERAL = {
    "--print-config": "Print the settings as YAML and stop.",
    "--quiet": "Log warnings and errors only; show no progress.",
    "--log-json": "Log one JSON object a line.",
}
"""Flags without a value that every verb has."""


def groups(config_class: type) -> dict[str, list[str]]:
    """Return the titles of a config's groups, each with its fields; required ones first.

    A config class has `GROUPS`, the title of each group with its first field; the groups of a base
    class come before its own, as its fields do. A field that only a --config file can set
    (`metadata={"file_only": True}`) has no flag and no group.
    """
    fields = {item.name: item for item in dataclasses.fields(config_class)}
    titles: dict[str, str] = {}
    for part in reversed(config_class.__mro__):
        titles |= {start: title for title, start in vars(part).get("GROUPS", {}).items()}
    grouped: dict[str, list[str]] = {"required": []}
    title = "settings"
    for name, item in fields.items():
        title = titles.get(name, title)
        if item.metadata.get("file_only"):
            continue
        grouped.setdefault("required" if required(item) else title, []).append(name)
    return {title: names for title, names in grouped.items() if names}


METAVARS = {
    "data": "COLLECTION",
    "queries": "FILE",
    "split": "SPLIT",
    "student": "MODEL",
    "doc_student": "MODEL",
    "model": "MODEL",
    "query_model": "MODEL",
    "against": "MODEL",
    "endpoint": "URL",
    "vectors": "MODEL",
    "teacher": "TEACHER",
    "comparer": "TEACHER",
    "judge": "TEACHER",
    "rubric": "FILE",
    "grades": "X,X",
    "quantiles": "X,X",
    "retriever": "RETRIEVER",
    "first_retriever": "RETRIEVER",
    "set_": "NAME=VALUE",
    "writer": "WRITER",
    "ranker": "TEACHER",
    "prompts": "FOLDER",
    "objective": "OBJECTIVE",
    "recipe": "RECIPE",
    "stage": "STAGE",
    "candidates": "RUN",
    "run": "RUN",
    "tune": "RUN",
    "scores": "STORE",
    "preferences": "STORE",
    "out": "FOLDER",
    "json": "FILE",
    "card": "FILE",
    "qrels": "FILE",
    "import_": "FILE",
    "export": "FILE",
    "push": "REPOSITORY",
    "workload": "FILE",
    "plan": "FILE",
    "memory": "SIZE",
    "where": "CONDITION",
}
"""Field -> what its value is, where the type alone does not say it."""


def metavar(name: str, declared: Any) -> str:
    """Return what `--help` shows for the value of a field of a declared type."""
    hint, many = plain(declared)
    if name in METAVARS and hint in (str, Path):
        return METAVARS[name]
    if many and hint is int:
        return "N,N"
    return {int: "N", float: "X", str: "TEXT", Path: "PATH"}.get(hint, "VALUE")


def _add_flag(
    group: argparse._ArgumentGroup, item: dataclasses.Field[Any], declared: Any, text: str
) -> None:
    default = "" if required(item) or item.default in (None, ()) else f" [{item.default}]"
    text = (text + default).replace("%", "%%")
    if item.metadata.get("positional"):
        group.add_argument(item.name, nargs="*", help=text)
        return
    hint, many = plain(declared)
    options: dict[str, Any] = {"help": text}
    if hint is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif get_origin(hint) is Literal:
        options["choices"] = get_args(hint)
    else:
        options |= {"type": hint, "metavar": metavar(item.name, declared)}
    if many:
        options["action"] = "append"
    if many and hint is int:
        options["type"] = str
    group.add_argument(_flag(item.name), dest=item.name, **options)


def _flag(name: str) -> str:
    return "--" + key(name).replace("_", "-")


def help_texts(config_class: type) -> dict[str, str]:
    """Return the string that stands below each field of a dataclass and of its bases."""
    texts = {}
    for part in config_class.__mro__[-2::-1]:
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body  # type: ignore[attr-defined]
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                if isinstance(field.target, ast.Name) and isinstance(below.value, ast.Constant):
                    texts[field.target.id] = " ".join(str(below.value.value).split())
    return texts
