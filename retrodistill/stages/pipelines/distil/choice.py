"""Which student is the result, by the queries that decide; the untouched model where none pays."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodistill.base.files import new_folder
from retrodistill.base.manifest import FILE, Manifest, digest_files, model_files

METRIC = "ndcg@10"
METRICS = "ndcg@10,mrr@10,recall@100"

CUT_SHARE = 0.98
"""Share of the untouched model's quality that a student of fewer layers has to keep."""


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


def choose(means: Mapping[str, float], trained: Sequence[str], *, is_cut: bool) -> Choice:
    """Return the best trained student if it pays, else the untouched model.

    `means` are those of METRIC, by system. A student of all layers must not be below the untouched
    model; one of fewer layers may lose 1 - CUT_SHARE of its quality. Of equal students the later
    one is chosen.
    """
    best = max(reversed(trained), key=lambda name: means[name])
    least = means["untouched"] * (CUT_SHARE if is_cut else 1.0)
    return Choice(
        name=best if means[best] >= least else "untouched",
        values={name: means[name] for name in ("untouched", *trained)},
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
