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
from retrodistill.base.logging import log_to_stderr

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
    stage: Callable[[Config], None],
    *,
    verb: str,
    about: str,
    words: Sequence[str] | None = None,
    shows: Mapping[str, tuple[str, Callable[[], None]]] | None = None,
    beneath: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> int:
    """Read the command line, run a stage, and return the exit status.

    `shows` are further flags that print something instead: their help, and what prints it.
    `beneath` returns settings that hold unless the given ones say otherwise (a recipe's).

    0 is done, 1 a full or broken disk, 2 a mistake of the user (messages without a traceback), 130
    an interrupt, 143 a request to end (SIGTERM); any other exception goes on to Python, which
    prints its traceback and exits with 1.
    """
    try:
        words = sys.argv[1:] if words is None else words
        for flag, (_, show) in (shows or {}).items():
            if flag in words:
                show()
                return 0
        texts = {flag: text for flag, (text, _) in (shows or {}).items()}
        with _ended_by_signals():
            config = parse(config_class, words, verb, about, texts, beneath)
            if config is not None:
                stage(config)
    except RetrodistillError as error:
        return _ended(verb, str(error), 2)
    except OSError as error:
        if error.errno in NO_SPACE:
            return _ended(
                verb,
                f"no space left to write ({error}); {KEPT}. Make room and run the same command "
                "again.",
                1,
            )
        if error.filename is None and not isinstance(error, OF_PATHS):
            raise
        paths = [str(name) for name in (error.filename, error.filename2) if name is not None]
        what = f"{' -> '.join(paths)}: {error.strerror}" if paths else str(error)
        if error.errno in BROKEN:
            return _ended(verb, f"{what}. Check the disk or its server; {KEPT}.", 1)
        return _ended(verb, f"{what}. Check the path, its owner and its permissions.", 2)
    except KeyboardInterrupt:
        return _ended(verb, f"interrupted; {KEPT}.", 128 + signal.SIGINT)
    except Terminated as end:
        name = signal.Signals(end.number).name
        return _ended(verb, f"ended by {name}; {KEPT}.", 128 + end.number)
    return 0


def _ended(verb: str, message: str, status: int) -> int:
    print(f"retrodistill.{verb}: {message}", file=sys.stderr)
    return status


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Raise Terminated in the block at a signal that would end the process without a word.

    Only in the main thread, and not where a signal is ignored (as nohup does) or handled already.
    """

    def end(number: int, frame: object) -> NoReturn:
        raise Terminated(number)

    main = threading.current_thread() is threading.main_thread()
    ours = [one for one in ENDING if main and signal.getsignal(one) is signal.SIG_DFL]
    for one in ours:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in ours:
            signal.signal(one, signal.SIG_DFL)


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
    parser = _parser(config_class, fields, verb, about)
    for flag, text in (shows or {}).items():
        parser.add_argument(flag, action="store_true", help=text)
    if any(word in ("-h", "--help") for word in words):
        parser.print_help()
        return None
    known, unknown = parser.parse_known_intermixed_args(words)
    log_to_stderr(quiet=known.quiet, as_json=known.log_json)
    if unknown:
        raise ConfigError(unknown_setting(unknown[0].split("=")[0], map(_flag, fields)))
    where = f"--config {known.config}"
    settings = by_field(read_yaml(known.config, where), config_class, where) if known.config else {}
    settings |= {name: getattr(known, name) for name in fields if hasattr(known, name)}
    if beneath:
        settings = {**beneath(settings), **settings}
    absent = [name for name in fields if name not in settings and required(fields[name])]
    if absent:
        flags = ", ".join(_flag(name) for name in absent)
        raise ConfigError(f"needs {flags}. See --help.")
    config = config_class(**as_declared(settings, config_class))
    if known.print_config:
        import yaml

        print(yaml.safe_dump(as_dict(config), sort_keys=False, allow_unicode=True), end="")
        return None
    return config


def _parser(
    config_class: type, fields: Mapping[str, dataclasses.Field[Any]], verb: str, about: str
) -> _Parser:
    parser = _Parser(
        prog=f"python -m retrodistill.{verb}",
        description=textwrap.dedent(about),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    hints, texts = get_type_hints(config_class), _help_texts(config_class)
    for name, item in sorted(fields.items(), key=lambda pair: not required(pair[1])):
        default = "" if required(item) or item.default in (None, ()) else f" [{item.default}]"
        text = (texts.get(name, "") + default).replace("%", "%%")
        if item.metadata.get("positional"):
            parser.add_argument(name, nargs="*", help=text)
            continue
        hint, many = plain(hints[name])
        options: dict[str, Any] = {"help": text}
        if hint is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(hint) is Literal:
            options["choices"] = get_args(hint)
        else:
            options |= {"type": hint, "metavar": getattr(hint, "__name__", "value").upper()}
        if many:
            options["action"] = "append"
        if many and hint is int:
            options |= {"type": str, "metavar": "INT,INT"}
        parser.add_argument(_flag(name), dest=name, **options)
    parser.add_argument(
        "--config",
        default=None,
        type=Path,
        metavar="FILE.yaml",
        help="Settings to start from; flags override them.",
    )
    parser.add_argument(
        "--print-config",
        default=False,
        action="store_true",
        help="Print the settings as YAML and stop.",
    )
    parser.add_argument(
        "--quiet", default=False, action="store_true", help="Log warnings and errors only."
    )
    parser.add_argument(
        "--log-json", default=False, action="store_true", help="Log one JSON object a line."
    )
    parser.add_argument("-h", "--help", action="store_true", help="Show this and stop.")
    return parser


def _flag(name: str) -> str:
    return "--" + key(name).replace("_", "-")


def _help_texts(config_class: type) -> dict[str, str]:
    """Return the string that stands below each field of a dataclass and of its bases."""
    texts = {}
    for part in config_class.__mro__[-2::-1]:
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body  # type: ignore[attr-defined]
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                if isinstance(field.target, ast.Name) and isinstance(below.value, ast.Constant):
                    texts[field.target.id] = " ".join(str(below.value.value).split())
    return texts
