"""From a config dataclass to a command line, and from an error to an exit status.

The dataclasses of `retrodistill.config` are the one description of every flag; argparse, with
YAML underneath, reads them. Argparse was preferred to a larger library because `--help` must
answer at once and because flags repeat plainly here (`--run a --run b`).
"""

import argparse
import ast
import dataclasses
import errno
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from retrodistill.config import as_dict
from retrodistill.errors import ConfigError, RetrodistillError, did_you_mean
from retrodistill.recipes import load_recipe

Config = TypeVar("Config")

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""System errors of a full disk, an exceeded quota, and a file over the limit."""


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
) -> int:
    """Read the command line, run a stage, and return the exit status.

    0 is done, 1 a full disk, 2 a mistake of the user (messages without a traceback), 130 an
    interrupt; any other exception goes on to Python, which prints its traceback and exits with 1.
    """
    try:
        config = parse(config_class, sys.argv[1:] if words is None else words, verb, about)
        if config is not None:
            stage(config)
    except RetrodistillError as error:
        print(f"retrodistill.{verb}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        print(
            f"retrodistill.{verb}: no space left to write ({error}). What was finished is kept: "
            "make room and run the same command again.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"retrodistill.{verb}: interrupted; what was finished is kept.", file=sys.stderr)
        return 130
    return 0


def parse(config_class: type[Config], words: Sequence[str], verb: str, about: str) -> Config | None:
    """Return the settings from `--config FILE.yaml` with the flags on top.

    Returns None when the words only asked for help or for `--print-config`, which is then done.

    Raises:
        ConfigError: a setting is unknown (the nearest is named), missing, or out of range.

    """
    fields = {item.name: item for item in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    parser = _parser(config_class, fields, verb, about)
    if any(word in ("-h", "--help") for word in words):
        parser.print_help()
        return None
    known, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise ConfigError(_unknown(unknown[0].split("=")[0], fields, flag=True))
    settings = {**_read_yaml(known.config, config_class, fields)} if known.config else {}
    settings |= {name: getattr(known, name) for name in fields if hasattr(known, name)}
    if "recipe" in fields and settings.get("recipe"):
        settings = {**load_recipe(str(settings["recipe"])).settings, **settings}
    absent = [name for name in fields if name not in settings and _required(fields[name])]
    if absent:
        flags = ", ".join(_flag(name) for name in absent)
        raise ConfigError(f"needs {flags}. See --help.")
    hints = get_type_hints(config_class)
    config = config_class(**{n: _as_declared(v, hints[n], n) for n, v in settings.items()})
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
    for name, item in sorted(fields.items(), key=lambda pair: not _required(pair[1])):
        default = "" if _required(item) or item.default in (None, ()) else f" [{item.default}]"
        text = (texts.get(name, "") + default).replace("%", "%%")
        if item.metadata.get("positional"):
            parser.add_argument(name, nargs="*", help=text)
            continue
        hint, many = _plain(hints[name])
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
    parser.add_argument("--config", default=None, type=Path, metavar="FILE.yaml",
                        help="Settings to start from; flags override them.")  # fmt: skip
    parser.add_argument("--print-config", default=False, action="store_true",
                        help="Print the settings as YAML and stop.")  # fmt: skip
    parser.add_argument("-h", "--help", action="store_true", help="Show this and stop.")
    return parser


def _key(name: str) -> str:
    """Return a field as a YAML key: `import_` is a word of Python's, `import` is ours."""
    return name.rstrip("_")


def _flag(name: str) -> str:
    return "--" + _key(name).replace("_", "-")


def _required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _plain(hint: Any) -> tuple[Any, bool]:
    """Return a field's type without None and tuple, and whether it may be given many times."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return hint, False


def _as_declared(value: Any, hint: Any, name: str) -> Any:
    """Return a value from the command line or YAML in its field's type."""
    plain, many = _plain(hint)
    if value is None and type(None) in get_args(hint):
        return None
    if many:
        parts = value if isinstance(value, list) else [value]
        if plain is int:  # 0,2,5 as well as one by one
            parts = [number for part in parts for number in str(part).split(",")]
        return tuple(_as_declared(part, plain, name) for part in parts)
    if get_origin(plain) is Literal:
        if value not in get_args(plain):
            raise ConfigError(f"{name} must be one of {get_args(plain)}, but it is {value!r}.")
        return value
    wrong = isinstance(value, bool) != (plain is bool) or isinstance(value, (list, dict))
    if wrong or value is None:
        raise ConfigError(f"{name} must be of type {plain.__name__}, but it is {value!r}.")
    if plain is int and isinstance(value, float) and not value.is_integer():
        raise ConfigError(f"{name} must be a whole number, but it is {value!r}.")
    try:
        return plain(str(value) if plain is Path else value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{name} must be of type {plain.__name__}, but it is {value!r}."
        ) from None


def _read_yaml(
    path: Path, config_class: type, fields: Mapping[str, dataclasses.Field[Any]]
) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config {path} must hold `setting: value` lines.")
    names = {_key(name): name for name in fields}
    settings = {str(key).replace("-", "_"): value for key, value in content.items()}
    for key in settings:
        if key not in names:
            raise ConfigError(f"--config {path}: " + _unknown(key, fields, flag=False))
    return {names[key]: value for key, value in settings.items()}


def _unknown(name: str, fields: Mapping[str, Any], *, flag: bool) -> str:
    known = [_flag(field) if flag else _key(field) for field in fields]
    hint = did_you_mean(name, known)
    return f"unknown setting {name!r}.{hint} Known: {', '.join(known)}."


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
