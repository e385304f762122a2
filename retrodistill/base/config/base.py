"""What all settings share: checks of numbers, and the way into a manifest."""

import dataclasses
from pathlib import Path
from typing import Literal

from retrodistill.base.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["cpu", "cuda"]
Executor = Literal["local", "processes", "ray"]
"""Who does a long job: this process, several of this machine, or the tasks of a Ray cluster."""


def at_least(config: object, low: float, *names: str) -> None:
    """Raise ConfigError unless each of these fields is at least `low`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= low:  # NaN too
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} must be at least {low:g}, but it is {value}.")


def below_one(config: object, *names: str) -> None:
    """Raise ConfigError unless each of these fields is below 1."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value < 1:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} must be below 1, but it is {value}.")


def check_workers(executor: Executor, workers: int | None) -> None:
    """Raise ConfigError for a number of workers where only one process works, or below 1."""
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers must be at least 1, but it is {workers}.")
    if executor == "local" and workers is not None:
        raise ConfigError("--workers needs --executor processes or ray.")


def as_dict(config: object) -> dict[str, object]:
    """Return a config as plain values, paths as strings, for manifests and --print-config."""
    plain: dict[str, object] = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if isinstance(value, tuple):
            value = [str(part) if isinstance(part, Path) else part for part in value]
        plain[item.name.rstrip("_")] = str(value) if isinstance(value, Path) else value
    return plain
