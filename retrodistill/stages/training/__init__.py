"""Training: from candidates with teacher scores to a student."""

from typing import TYPE_CHECKING, Any

from retrodistill.base.config import TrainSettings

if TYPE_CHECKING:
    from retrodistill.stages.training.trainer import train_student

__all__ = ["TrainSettings", "train_student"]


def __getattr__(name: str) -> Any:
    """Import the trainer, and torch with it, when it is first asked for."""
    if name == "train_student":
        from retrodistill.stages.training.trainer import train_student

        return train_student
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
