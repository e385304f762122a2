"""The record of a training beside its checkpoints: settings and inputs that a resume must share."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrodistill.base.config import TrainSettings, as_dict
from retrodistill.base.errors import ConfigError
from retrodistill.base.files import write_atomically
from retrodistill.base.manifest import FILE as MANIFEST
from retrodistill.base.manifest import digest_files
from retrodistill.models.students.processes import is_main, world_size

FILE = "training.json"
FREE = ("save_steps", "tracker")
"""Settings that may differ on a resume: they do not change the weights."""


def training_record(
    settings: TrainSettings, student: str, split: str, fingerprints: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything that the weights of a training depend on, as plain values."""
    names = {item.name for item in dataclasses.fields(TrainSettings)} - set(FREE)
    values = as_dict(settings)
    record = {name: values[name] for name in sorted(names)}
    for name, model in (("student", student), ("doc_student", settings.doc_student)):
        folder = Path(model or "")
        record[name] = digest_files(folder, "*.safetensors") if model and folder.is_dir() else model
    record |= {"split": split, "processes": world_size(), **fingerprints}
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def checkpoint_folder(out: Path) -> Path:
    """Return the folder of a student's checkpoints, which is removed when it is trained."""
    return out.with_name(f"{out.name}.checkpoints")


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint: the Trainer writes trainer_state.json last."""

    def whole(path: Path) -> bool:
        try:
            return bool(json.loads((path / "trainer_state.json").read_text()))
        except (OSError, ValueError):
            return False

    newest = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1]))
    return next((path for path in newest if whole(path)), None)


def remove_old_checkpoints(out: Path) -> None:
    """Remove the checkpoints of a student that was finished after them.

    They are there if its training was killed before it could remove them itself.
    """
    states = checkpoint_folder(out).glob("checkpoint-*/trainer_state.json")
    newest = max((path.stat().st_mtime_ns for path in states), default=None)
    manifest = out / MANIFEST
    if newest is not None and manifest.exists() and manifest.stat().st_mtime_ns > newest:
        shutil.rmtree(checkpoint_folder(out), ignore_errors=True)


def check_resumes(out: Path, record: Mapping[str, Any]) -> None:
    """Check that the checkpoints of a student, if it has any, are those of this training.

    Raises:
        ConfigError: they are of a training with other settings, inputs or another student.

    """
    checkpoints = checkpoint_folder(out)
    if last_checkpoint(checkpoints) is None:
        return
    try:
        stored = dict(json.loads((checkpoints / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"--resume: {checkpoints} does not record what its checkpoints were trained with "
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


def start_checkpoints(out: Path, record: Mapping[str, Any], *, resume: bool, save: bool) -> None:
    """Empty the folder of checkpoints, unless one is resumed from; with `save`, write a record."""
    checkpoints = checkpoint_folder(out)
    if not is_main() or (resume and last_checkpoint(checkpoints) is not None):
        return
    shutil.rmtree(checkpoints, ignore_errors=True)
    if save:
        write_atomically(checkpoints / FILE, json.dumps(record, indent=2).encode())


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:13]}..."
