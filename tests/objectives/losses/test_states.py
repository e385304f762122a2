"""Losses on tokens' states: numbers by hand, and references."""

import math

import pytest
import torch
from fakes.batch import batch, value

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.states import attention_relations, hidden_mse


def test_hidden_mse_by_hand() -> None:
    """A text of one token off by (1, 3): 5. One of two tokens off by (2, 0) and 0: 1. Mean 3."""
    teacher = torch.zeros(1, 2, 2, 2)
    student = torch.tensor([[[[1.0, 3.0], [9.0, 9.0]], [[2.0, 0.0], [0.0, 0.0]]]])
    mask = torch.tensor([[True, False], [True, True]])
    assert hidden_mse(student, teacher, mask).item() == 3.0


def test_relations_by_hand() -> None:
    """Two tokens whose products are 0, so that they relate by 1/2, against ln 3 and 0: 3/4, 1/4.

    The first token costs 3/4 ln(3/2) + 1/4 ln(1/2); the second, with products of 0 on both sides,
    nothing: mean half of that, in each of three equal parts.
    """
    root = math.sqrt(math.log(3))
    student = torch.tensor([[0.0], [0.0]]).expand(3, 1, 2, 1)
    teacher = torch.tensor([[root], [0.0]]).expand(3, 1, 2, 1)
    mask = torch.ones(1, 2, dtype=torch.bool)
    expected = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    actual = attention_relations(student, teacher, mask, heads=1)
    assert actual.item() == pytest.approx(expected, rel=1e-6)


def test_relations_against_a_plain_loop() -> None:
    """Heads cut across tokens, or a softmax over padding."""
    signals = batch()
    total, count = 0.0, 0
    for part in range(3):
        for text, mask in enumerate(signals["token_mask"]):
            rows = []
            for head in range(4):
                logs = [
                    (own := vectors[part, text, mask, 2 * head : 2 * head + 2])
                    .matmul(own.T)
                    .div(math.sqrt(2))
                    .log_softmax(-1)
                    for vectors in (
                        signals["attention_vectors"],
                        signals["teacher_attention_vectors"],
                    )
                ]
                kl = torch.nn.functional.kl_div(*logs, log_target=True, reduction="none")
                rows.append(kl.sum(-1).mean())
            total, count = total + torch.stack(rows).mean(), count + 1
    actual = value("attention-relations", signals)
    assert attention_relations(
        signals["attention_vectors"],
        signals["teacher_attention_vectors"],
        signals["token_mask"],
        heads=4,
    ).item() == pytest.approx((total / count).item())
    assert actual.item() != pytest.approx((total / count).item())


def test_a_teacher_of_another_width_needs_no_projection() -> None:
    """Relations that need equal widths, or heads that are cut unevenly."""
    signals = batch()
    wide = signals["teacher_attention_vectors"].repeat_interleave(2, -1)
    args = signals["attention_vectors"], wide, signals["token_mask"]
    assert attention_relations(*args, heads=4).isfinite()
    with pytest.raises(ConfigError, match="the student's width 8 is not a multiple of heads=3"):
        attention_relations(*args, heads=3)
