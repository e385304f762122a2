"""Training: from candidates with teacher scores to a student."""

from retrodistill.training.trainer import TrainSettings, train_student

__all__ = ["TrainSettings", "train_student"]
