"""Teachers: strong rankers behind `retrodistill.base.types.Teacher`."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError, did_you_mean
from retrodistill.base.registry import TEACHERS
from retrodistill.data.store.lineage import spec_lineage

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

COMMON = ("max_tokens", "batch_tokens", "precision")
"""Settings of teachers that have a flag of their own."""


def load_teacher(
    spec: str,
    collection: "Collection",
    *,
    options: Sequence[str] = (),
    **settings: Any,
) -> Any:
    """Return the teacher that `cross-encoder:MODEL`, `bm25` or `my_lab.teachers:Haiku` names.

    `settings` are what the commands set for every teacher (`max_tokens`, `batch_tokens`,
    `precision`), and are passed to those that have them; `options` are a teacher's own, each
    written `name=value`.

    Raises:
        ConfigError: the name or an option is unknown, or the model cannot be loaded.

    """
    part, argument = TEACHERS.split(spec)
    parameters = inspect.signature(part).parameters.values()
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {parameter.name for parameter in parameters}
    passed = {name: value for name, value in settings.items() if any_name or name in named}
    teacher = part(argument, collection, **passed, **read_options(spec, options))
    with suppress(AttributeError):  # slots: it stays unrecorded
        teacher.lineage = spec_lineage(spec)
    return teacher


def takes(spec: str, setting: str) -> bool:
    """Tell whether the teacher that `spec` names has a setting.

    Raises:
        ConfigError: the name is unknown.

    """
    return setting in inspect.signature(TEACHERS.split(spec)[0]).parameters


def read_options(spec: str, options: Sequence[str]) -> dict[str, Any]:
    """Return the values of a teacher's own settings, each written `name=value`.

    Raises:
        ConfigError: the teacher or a setting is unknown, or a value is not of its type.

    """
    parameters = inspect.signature(TEACHERS.split(spec)[0]).parameters.values()
    defaults = {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in COMMON
    }
    return _read_options(spec, options, defaults)


def _read_options(spec: str, options: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `name=value` texts, in the types of the defaults."""
    read: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or name not in defaults:
            hint = did_you_mean(name, defaults)
            known = ", ".join(defaults) or "none"
            raise ConfigError(
                f"--option {option!r}: teacher {spec!r} takes name=value, of the names: "
                f"{known}.{hint}"
            )
        kind = type(defaults[name])
        try:
            read[name] = {"true": True, "false": False}[text] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise ConfigError(
                f"--option {option!r}: {name} must be of type {kind.__name__}, "
                f"as {defaults[name]!r} is."
            ) from None
    return read
