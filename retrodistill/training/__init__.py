"""Training: from candidates with teacher scores to a student."""

from retrodistill.config import TrainSettings
from retrodistill.training.trainer import train_student

__all__ = ["TrainSettings", "train_student"]
