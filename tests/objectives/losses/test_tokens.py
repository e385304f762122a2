"""The graph of a text's tokens: numbers by hand, and what it must not depend on."""

import pytest
import torch
from fakes.batch import batch, value
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.objectives.losses.tokens import token_graph


def test_token_graph_by_hand() -> None:
    """Cosines of 0, 0.6 and 0.8 against 1, 0.6 and 0.6: (1 + 0 + 0.04) / 3.

    A second text of two tokens, -1 against 1: 4. A third of a single token has no pair. The mean
    over both texts, where the mean over all pairs would be (1 + 0.04 + 4) / 4.
    """
    student = torch.tensor(
        [
            [[1.0, 0.0], [0.0, 3.0], [0.6, 0.8]],
            [[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]],
            [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
        ]
    )
    teacher = torch.tensor(
        [
            [[1.0, 0.0], [2.0, 0.0], [0.6, 0.8]],
            [[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]],
            [[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]],
        ]
    )
    scored = torch.tensor([[True] * 3, [True, True, False], [True, False, False]])
    expected = ((1 + 0 + 0.04) / 3 + 4) / 2
    assert token_graph(student, teacher, scored).item() == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_a_rotated_scaled_or_wider_teacher_has_the_same_graph(seed: int, scale: float) -> None:
    """Hidden states compared number by number, which need a projection and one orientation."""
    signals = batch(seed)
    generator = torch.Generator().manual_seed(seed)
    wide = torch.linalg.qr(torch.randn(7, 3, generator=generator, dtype=torch.float64))[0]
    own = signals["token_vectors"]
    moved = scale * own @ wide.T
    assert moved.shape[-1] == 7
    assert token_graph(own, moved, signals["scored_tokens"]).item() == pytest.approx(0, abs=1e-9)
    before = value("token-graph", signals).item()
    other = signals["teacher_token_vectors"] @ wide.T
    after = token_graph(own, other, signals["scored_tokens"]).item()
    assert after == pytest.approx(before)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_the_order_of_tokens_does_not_count(seed: int, order: list[int]) -> None:
    """A graph whose nodes are places in the text, so that padding on the left is another one."""
    signals = batch(seed)
    before = value("token-graph", signals).item()
    for name in ("token_vectors", "teacher_token_vectors", "scored_tokens"):
        signals[name] = signals[name][:, order]
    assert value("token-graph", signals).item() == pytest.approx(before)
    assert 0 <= before <= 4


def test_tokens_that_are_not_scored_are_no_nodes() -> None:
    """Punctuation that MaxSim skips, or padding, which all look alike and make a graph of one."""
    signals = batch()
    before = value("token-graph", signals).item()
    signals["token_mask"][:] = True
    assert value("token-graph", signals).item() == before
    signals["scored_tokens"][0, 1] = True
    assert value("token-graph", signals).item() != pytest.approx(before)


def test_equal_maxsim_is_not_an_equal_graph() -> None:
    """A KL of MaxSim by another name: scores are equal here, the graph is not.

    The document's two tokens are equal in the teacher and 90 degrees apart in the student; the
    query's one token is as far from the nearest of them in both.
    """
    query = torch.tensor([[1.0, 0.0]])
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]] * 2)
    assert (query @ student.T).amax(-1).sum() == (query @ teacher.T).amax(-1).sum()
    scored = torch.ones(1, 2, dtype=torch.bool)
    assert token_graph(student[None], teacher[None], scored).item() == 1.0
