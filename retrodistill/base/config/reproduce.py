"""Settings of `reproduce`."""

from dataclasses import dataclass, field
from pathlib import Path

from retrodistill.base.config.base import at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ReproduceConfig:
    """Settings of `python -m retrodistill.reproduce`."""

    card: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """The result card (YAML) whose numbers to reproduce."""

    data: str | None = None
    """Where the card's collection lies now, if elsewhere."""

    qrels: Path | None = None
    """Where the card's judgement file lies now, if elsewhere."""

    out: Path | None = None
    """Folder to make in what does not lie where the card says. What is finished there is kept."""

    from_scratch: bool = False
    """Make the whole chain of the card again, not only what is missing."""

    trust_custom_code: bool = False
    """Run code that the card names by a path, as in my_lab.losses:focal."""

    tolerance: float | None = None
    """Largest difference of a mean that counts as equal (default: 0, and 0.005 for runs that were
    made again and came out otherwise)."""

    def __post_init__(self) -> None:
        at_least(self, 0, "tolerance")
        if len(self.card) != 1:
            raise ConfigError(
                f"needs one card, a file of `evaluate --card`, but got {len(self.card)}. "
                "See --help."
            )
        if self.data is not None and self.qrels is not None:
            raise ConfigError("give either --data or --qrels.")
        if self.from_scratch and self.out is None:
            raise ConfigError("--from-scratch needs --out, a folder to make the chain again in.")

    @property
    def card_path(self) -> Path:
        """The card's file."""
        return Path(self.card[0])
