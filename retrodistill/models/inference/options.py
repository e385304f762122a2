"""Settings that all models share: lengths, batches and number type."""

from dataclasses import dataclass

from retrodistill.base.config import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOptions:
    """Settings that every teacher with a model of its own shares."""

    max_tokens: int = 256
    """Longest input, in tokens."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass."""

    precision: Precision = "auto"
    """Number type of the model's body."""


DEFAULTS = ModelOptions()
