"""Settings of `export`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from retrodistill.base.config.base import at_least
from retrodistill.base.errors import ConfigError

Format = Literal["onnx", "openvino"]
Numbers = Literal["float32", "bfloat16", "int8", "int8-static"]

OFFERED: Mapping[str, tuple[str, ...]] = {
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8-static"),
}
"""Format -> the precisions in which it is written."""

LIMITS: Mapping[str, tuple[float, float]] = {
    "float32": (0.9999, 0.0),
    "bfloat16": (0.999, 1.1),
    "int8": (0.95, 1.1),
    "int8-static": (0.95, 1.1),
}
"""Precision -> default of --min-cosine and of --min-speedup; float32 is not exported for speed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Settings of `python -m retrodistill.export`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "graph": "format",
        "measuring": "split",
        "gate": "min_cosine",
        "output": "weights",
    }

    model: str
    """Student or other dense or cross-encoder model: a folder, a hub id or packaged:NAME."""

    data: str
    """Collection to measure and calibrate with, as `embed` reads it."""

    out: Path
    """Folder to write, only if the gate passes."""

    format: Format = "onnx"
    """onnx (ONNX Runtime) or openvino."""

    precision: Numbers = "float32"
    """Numbers of the graph: float32; onnx also int8 (weights, and activations as they come);
    openvino also bfloat16 and int8-static (calibrated on documents)."""

    calibration: int = 128
    """Documents that int8-static is calibrated on."""

    split: str = "dev"
    """Split of --data whose queries are measured."""

    max_queries: int = 500
    """Queries that are measured, drawn at random if the split has more."""

    max_docs: int = 1000
    """Documents that are encoded: the queries' relevant ones, and others drawn at random; for a
    cross-encoder, pairs that are scored."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass, of both models."""

    seed: int = 0
    """Seed of what is drawn at random."""

    min_cosine: float | None = None
    """Lowest cosine of a text's vector to that of the float32 model, over all texts; of a
    cross-encoder, Pearson's r of its scores (default: 0.9999 float32, 0.999 bfloat16, 0.95
    int8)."""

    max_loss: float = 0.01
    """Highest loss of nDCG@10, in absolute terms."""

    min_speedup: float | None = None
    """Lowest speed, in times that of the float32 model in PyTorch (default: 0 for float32, else
    1.1)."""

    weights: bool = True
    """Write the safetensors weights too, so that PyTorch loads the folder as well."""

    push: str | None = None
    """Repository of the hub to push the folder to, as in ORGANISATION/NAME."""

    private: bool = True
    """Make the repository private if --push makes it."""

    overwrite: bool = False
    """Replace what is at --out."""

    def __post_init__(self) -> None:
        at_least(self, 1, "calibration", "max_docs", "max_queries", "batch_tokens")
        at_least(self, 0, "seed", "max_loss", "min_speedup")
        at_least(self, -1, "min_cosine")
        if self.precision not in OFFERED[self.format]:
            offered = ", ".join(OFFERED[self.format])
            raise ConfigError(
                f"--format {self.format} is written in {offered}, but --precision is "
                f"{self.precision}."
            )

    @property
    def lowest_cosine(self) -> float:
        """The cosine that the gate requires."""
        return LIMITS[self.precision][0] if self.min_cosine is None else self.min_cosine

    @property
    def lowest_speedup(self) -> float:
        """The speed that the gate requires."""
        return LIMITS[self.precision][1] if self.min_speedup is None else self.min_speedup
