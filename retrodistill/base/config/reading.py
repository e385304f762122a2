"""From YAML and words to the settings of a dataclass, with every mistake named."""

import dataclasses
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from retrodistill.base.errors import ConfigError, did_you_mean

Config = TypeVar("Config")

FEW = 10
"""Settings that a message lists; of more, it names the nearest one."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel = 2
shown = _short.repr
"""A value as errors show it: a text of YAML aliases can stand for more than fits a memory."""


def read_yaml(path: Path, where: str) -> dict[Any, Any]:
    """Return the keys and values of a YAML file; `where` is what errors call it.

    Raises:
        ConfigError: it cannot be read, is not YAML, has a key twice, or holds anything but
            mappings, lists, texts, numbers, true, false and null.

    """
    from retrodistill.base.config.plain_yaml import parse_yaml

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{where}, line {line} is not UTF-8 text.") from error
    content = parse_yaml(text, where)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must hold `setting: value` lines.")
    return content


def settings_of(config_class: type[Config], content: Mapping[Any, Any], where: str) -> Config:
    """Return the dataclass of a mapping as YAML gives it; `where` begins the errors.

    Raises:
        ConfigError: a key is unknown (the nearest is named) or missing, or a value does not fit.

    """
    settings = by_field(content, config_class, where)
    absent = [
        key(item.name)
        for item in dataclasses.fields(config_class)  # type: ignore[arg-type]
        if required(item) and item.name not in settings
    ]
    if absent:
        raise ConfigError(f"{where} needs {', '.join(absent)}.")
    try:
        return config_class(**as_declared(settings, config_class))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def by_field(content: Mapping[Any, Any], config_class: type, where: str) -> dict[str, Any]:
    """Return values by the names of a dataclass's fields; `max-tokens` is `max_tokens`.

    Raises:
        ConfigError: there is no such field.

    """
    names = {key(item.name): item.name for item in dataclasses.fields(config_class)}
    settings = {str(name).replace("-", "_"): value for name, value in content.items()}
    for name in settings:
        if name not in names:
            raise ConfigError(f"{where}: {unknown_setting(name, names)}")
    return {names[name]: value for name, value in settings.items()}


def as_declared(settings: Mapping[str, Any], config_class: type) -> dict[str, Any]:
    """Return values from the command line or YAML in the types of a dataclass's fields.

    Raises:
        ConfigError: a value is not of its field's type.

    """
    hints = get_type_hints(config_class)
    return {name: _as_declared(value, hints[name], name) for name, value in settings.items()}


def key(name: str) -> str:
    """Return a field as a YAML key: `import_` is a word of Python's, `import` is ours."""
    return name.rstrip("_")


def required(item: dataclasses.Field[Any]) -> bool:
    """Tell whether a field has no default."""
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def plain(hint: Any) -> tuple[Any, bool]:
    """Return a field's type without None and tuple, and whether it may be given many times."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    return hint, False


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """Return the sentence about a name that is none of the known ones: the nearest, or a few."""
    known = list(known)
    names = f" Known: {', '.join(known)}." if len(known) <= FEW else " See --help."
    return f"unknown setting {name!r}.{did_you_mean(name, known) or names}"


def _as_declared(value: Any, hint: Any, name: str) -> Any:
    kind, many = plain(hint)
    if value is None and type(None) in get_args(hint):
        return None
    if get_origin(kind) is Mapping:
        if not isinstance(value, dict):
            raise ConfigError(f"{name} must hold `setting: value` lines, but it is {shown(value)}.")
        return value
    if many:
        parts = value if isinstance(value, list) else [value]
        if kind is int:  # 0,2,5 as well as one by one
            split = (part.split(",") if isinstance(part, str) else [part] for part in parts)
            parts = [number for numbers in split for number in numbers]
        return tuple(_as_declared(part, kind, name) for part in parts)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{name} must be one of {get_args(kind)}, but it is {shown(value)}.")
        return value
    wrong = isinstance(value, bool) != (kind is bool) or isinstance(value, (list, dict))
    if wrong or value is None:
        raise ConfigError(f"{name} must be of type {kind.__name__}, but it is {shown(value)}.")
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ConfigError(f"{name} must be a whole number, but it is {value!r}.")
    if kind in (str, Path) and isinstance(value, float):  # 1.10 has become 1.1
        raise ConfigError(f"{name} must be a text, but it is the number {value!r}: quote it.")
    if kind is Path and "\0" in str(value):
        raise ConfigError(f"{name} must not hold a null character.")
    try:
        return kind(str(value) if kind is Path else value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(
            f"{name} must be of type {kind.__name__}, but it is {shown(value)}."
        ) from None
