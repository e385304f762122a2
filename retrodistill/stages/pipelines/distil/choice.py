"""Which student is the result, by the queries that decide; the untouched model where none pays."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodistill.base.files import new_folder
from retrodistill.base.manifest import FILE, Manifest, digest_files, model_files

METRIC = "ndcg@10"
METRICS = "ndcg@10,mrr@10,recall@100"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A chosen model and why."""

    name: str
    """Name of the student; `untouched` where no student is better."""

    values: Mapping[str, float]
    """Mean of METRIC of each candidate."""

    @property
    def paid(self) -> bool:
        """Return whether a trained student is the result."""
        return self.name != "untouched"


def choose(means: Mapping[str, float], trained: tuple[str, ...], reference: str) -> Choice:
    """Return the best trained student if it is not below `reference`, else the untouched model.

    The reference is the untouched model, or where the student has fewer layers, the cut one that
    was trained without scores. `means` are those of METRIC.
    """
    values = {name: means[name] for name in dict.fromkeys(("untouched", reference, *trained))}
    best = max(reversed(trained), key=lambda name: means[name])
    return Choice(
        name=best if means[best] >= means[reference] else "untouched",
        values=values,
    )


def adopt(model: str, out: Path, *, details: Mapping[str, Any]) -> None:
    """Make `out` the folder of the chosen model: a copy, with its own manifest if it has one."""
    from retrodistill.models.inference import model_path

    path = Path(model_path(model))
    if (path / FILE).is_file():
        with new_folder(out, overwrite=True) as folder:
            shutil.copytree(path, folder, dirs_exist_ok=True)
        return
    from retrodistill.models.students.dense import DenseEncoder

    with new_folder(out, overwrite=True) as folder:
        DenseEncoder(model).save(folder)
        Manifest(
            kind="student",
            fingerprint=digest_files(folder, "*.safetensors"),
            config={"student": model},
            details=dict(details),
            files=model_files(folder),
        ).write(folder)
