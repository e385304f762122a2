"""What all settings share: checks of numbers, and the way into a manifest."""

import dataclasses
from pathlib import Path
from typing import Literal

from retrodistill.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]


def at_least(config: object, low: float, *names: str) -> None:
    """Raise ConfigError unless each of these fields is at least `low`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= low:  # NaN too
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} must be at least {low:g}, but it is {value}.")


def as_dict(config: object) -> dict[str, object]:
    """Return a config as plain values, paths as strings, for manifests and --print-config."""
    plain: dict[str, object] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if isinstance(value, tuple):
            value = [str(part) if isinstance(part, Path) else part for part in value]
        plain[item.name.rstrip("_")] = str(value) if isinstance(value, Path) else value
    return plain
