"""Losses of meta-learning: numbers by hand."""

import torch

from retrodistill.objectives.losses.transfers import transfer_mse


def test_transfer_mse_by_hand() -> None:
    """(0.5 - 2)^2 = 2.25; a gradient of 2 * (0.5 - 2) = -3 into the student, 3 into the teacher."""
    student, teacher = (torch.tensor(value, requires_grad=True) for value in (0.5, 2.0))
    value = transfer_mse(student, teacher)
    value.backward()
    assert value.item() == 2.25
    assert student.grad is not None
    assert teacher.grad is not None
    assert (student.grad.item(), teacher.grad.item()) == (-3.0, 3.0)
