"""Losses beside a base model: numbers by hand, and what they would silently become."""

import math

import pytest
import torch
from fakes.batch import batch, value

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.base_models import delta_kl, gcse
from retrodistill.objectives.losses.contrastive import contrastive
from retrodistill.objectives.objective import bind, parse_objective


def row(*scores: float) -> torch.Tensor:
    return torch.tensor([scores], dtype=torch.float64)


BOTH = torch.ones(1, 2, dtype=torch.bool)
FIRST = torch.tensor([[True, False]])


def test_gcse_by_hand() -> None:
    """A hard negative of 2 below its base score of 3: G = exp(-1/2), so its logit is 0.7869.

    The positive has 1: ln(1 + exp(-0.2131)) = 0.5923.
    """
    scores = row(1.0, 2.0)
    one = {"temperature": 1.0, "teacher_temperature": 1.0, "width": 1.0}
    loss = gcse(scores, row(0.0, 3.0), BOTH, FIRST, BOTH, **one)
    logit = 2 * (1 - math.exp(-0.5))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(logit - 1)))
    assert loss.item() == pytest.approx(0.5923, abs=1e-4)


def test_gcse_is_contrastive_where_the_student_is_above_its_base_or_far_from_it() -> None:
    """A decay that is everywhere, also of other queries' documents, or nowhere: plain InfoNCE."""
    signals = batch()
    scores, candidates, labels, mask = (
        signals[name] for name in ("batch_scores", "batch_candidates", "batch_labels", "batch_mask")
    )
    plain = contrastive(scores, candidates, labels, mask).item()
    for base in (scores - 1, scores + 100):
        assert gcse(scores, base, candidates, labels, mask).item() == pytest.approx(plain)
    near = gcse(scores, scores, candidates, labels, mask).item()
    assert near < plain - 0.01
    elsewhere = torch.zeros_like(candidates)
    assert gcse(scores, scores, elsewhere, labels, mask).item() == pytest.approx(plain)
    with pytest.raises(ConfigError, match="width must be above 0"):
        gcse(scores, scores, candidates, labels, mask, width=0.0)


def test_delta_kl_by_hand() -> None:
    """The teacher's logits grew by ln 3: the target is (3/4, 1/4) whatever its base said.

    From a start of equal scores, KL([3/4, 1/4] || [1/2, 1/2]) = ln 2 - 0.5623.
    """
    none = row(0.0, 0.0)
    teacher, base = row(5 + math.log(3), 1.0), row(5.0, 1.0)
    expected = math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert delta_kl(none, teacher, base, none, BOTH).item() == pytest.approx(expected)
    learned = row(2 + math.log(3), 1.0)
    loss = delta_kl(learned, teacher, base, row(2.0, 1.0), BOTH)
    assert loss.item() == pytest.approx(0.0, abs=1e-9)


def test_delta_kl_is_not_the_kl_to_the_teacher() -> None:
    """A base that is not subtracted: listwise-kl under another name."""
    signals = batch()
    signals["old.scores"], signals["start.scores"] = signals["base_scores"], signals["start_scores"]
    terms = parse_objective("delta-kl(base_scores=old.scores,start_scores=start.scores)")
    loss = bind(terms)(signals)["delta-kl"].item()
    assert loss == pytest.approx(value("delta-kl", signals).item())
    assert loss != pytest.approx(value("listwise-kl", signals).item(), rel=0.05)
