"""Teachers: strong rankers behind `retrodistill.base.types.Teacher`."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError, did_you_mean
from retrodistill.base.registry import TEACHERS
from retrodistill.data.store.lineage import spec_lineage
from retrodistill.models.inference.options import ModelOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

COMMON = tuple(item.name for item in fields(ModelOptions))
"""Settings of teachers that have a flag of their own."""


def load_teacher(
    spec: str,
    collection: "Collection",
    *,
    options: Sequence[str] = (),
    **settings: Any,
) -> Any:
    """Return the teacher that `cross-encoder:MODEL`, `bm25` or `my_lab.teachers:Haiku` names.

    A teacher is called with its argument, and with what its parameters name of the following:
    `collection`; `options`, the `settings` that the commands have for every model (`max_tokens`,
    `batch_tokens`, `precision`), or each of them by its own name. `options` of this function are
    the settings of this teacher alone, each written `name=value`.

    Raises:
        ConfigError: the name or an option is unknown, or the model cannot be loaded.

    """
    part, argument = TEACHERS.split(spec)
    common = ModelOptions(**{name: settings[name] for name in COMMON if name in settings})
    available = {"collection": collection, "options": common, **settings}
    parameters = inspect.signature(part).parameters.values()
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters} | (settings.keys() if any_name else set())
    passed = {name: value for name, value in available.items() if name in names}
    teacher = part(argument, **passed, **read_options(spec, options))
    with suppress(AttributeError):  # slots: it stays unrecorded
        teacher.lineage = spec_lineage(spec)
    return teacher


def takes(spec: str, setting: str) -> bool:
    """Tell whether the teacher that `spec` names has a setting.

    Raises:
        ConfigError: the name is unknown.

    """
    names = inspect.signature(TEACHERS.split(spec)[0]).parameters
    return setting in names or (setting in COMMON and "options" in names)


def read_options(spec: str, options: Sequence[str]) -> dict[str, Any]:
    """Return the values of a teacher's own settings, each written `name=value`.

    Raises:
        ConfigError: the teacher or a setting is unknown, or a value is not of its type.

    """
    return read_part_options(TEACHERS.split(spec)[0], spec, options)


def read_part_options(part: Any, spec: str, options: Sequence[str]) -> dict[str, Any]:
    """Return the values of the own settings of what `spec` stands for, each `name=value`."""
    parameters = inspect.signature(part).parameters.values()
    defaults = {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in COMMON
    }
    return parse_options(f"teacher {spec!r}", options, defaults)


def parse_options(
    owner: str, options: Sequence[str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of `name=value` texts, in the types of the defaults.

    `owner` is whose settings they are, for messages.

    Raises:
        ConfigError: a setting is unknown, or a value is not of its type.

    """
    values: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or name not in defaults:
            hint = did_you_mean(name, defaults)
            names = ", ".join(defaults) or "none"
            raise ConfigError(
                f"--option {option!r}: {owner} takes name=value, of the names: {names}.{hint}"
            )
        kind = type(defaults[name])
        try:
            values[name] = {"true": True, "false": False}[text] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise ConfigError(
                f"--option {option!r}: {name} must be of type {kind.__name__}, "
                f"as {defaults[name]!r} is."
            ) from None
    return values
