"""How an encoder reads texts: limit, batches, number type."""

from dataclasses import asdict, dataclass
from typing import Any

from retrodistill.base.config import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Settings of an encoder that is made from a model in memory."""

    max_tokens: int | None = None
    """Longest document, in tokens (None: the model's own limit)."""

    batch_tokens: int = 4096
    """Padded tokens of one pass through the encoder."""

    precision: Precision = "auto"
    """Number type of the encoder's body."""

    def options(self) -> dict[str, Any]:
        """Return the settings as keyword arguments of an encoder."""
        return asdict(self)


DEFAULT = Reading()
