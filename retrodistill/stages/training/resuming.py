"""What a training's checkpoints belong to: a resume under other settings would be another one."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import TrainSettings, as_dict
from retrodistill.base.errors import ConfigError
from retrodistill.base.files import write_atomically
from retrodistill.base.manifest import digest_files
from retrodistill.stages.training.processes import world_size

if TYPE_CHECKING:
    from retrodistill.stages.training.sources import Sources

FILE = "training.json"
FREE = ("save_steps", "tracker")
"""Settings that may differ: they do not change the weights."""


def training_record(settings: TrainSettings, sources: "Sources", student: str) -> dict[str, Any]:
    """Return everything that the weights of a training depend on, as plain values."""
    names = {item.name for item in dataclasses.fields(TrainSettings)} - set(FREE)
    values = as_dict(settings)
    record = {name: values[name] for name in sorted(names)}
    for name, model in (("student", student), ("doc_student", settings.doc_student)):
        folder = Path(model or "")
        record[name] = digest_files(folder, "*.safetensors") if model and folder.is_dir() else model
    record |= {"split": sources.split, "processes": world_size(), **sources.fingerprints()}
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def write_record(checkpoints: Path, record: dict[str, Any]) -> None:
    """Write the record of a training that begins, beside its checkpoints."""
    write_atomically(checkpoints / FILE, json.dumps(record, indent=2).encode())


def check_record(checkpoints: Path, record: dict[str, Any]) -> None:
    """Check that the checkpoints are those of this training.

    Raises:
        ConfigError: they are of one with other settings, inputs or another student.

    """
    try:
        stored = dict(json.loads((checkpoints / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"--resume: {checkpoints} does not say what its checkpoints were trained with "
            f"({error}). Train from scratch, without --resume."
        ) from None
    names = sorted(name for name in {*stored, *record} if stored.get(name) != record.get(name))
    if names:
        changes = ", ".join(
            f"{name} {_shown(stored.get(name))} (now {_shown(record.get(name))})" for name in names
        )
        raise ConfigError(
            f"--resume: the checkpoints in {checkpoints} are of a training with other settings: "
            f"{changes}. Give the same ones, or train from scratch, without --resume."
        )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:13]}..."
