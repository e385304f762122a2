"""The loss over layers, and the cross-entropy of a list: numbers by hand, and their neighbours."""

import math

import pytest
import torch

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contrastive import contrastive, listwise_ce
from retrodistill.objectives.losses.layers import followed_layers, layer_kl
from retrodistill.objectives.losses.live import batch_kl

LN3 = math.log(3.0)
LABELS = torch.tensor([[True, False]])
REAL = torch.tensor([[True, True]])


def scores(*layers: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([[layer] for layer in layers], dtype=torch.float64)


def test_layer_kl_by_hand() -> None:
    """Two followed layers, (3/4, 1/4) and (1/4, 3/4), against a flat student.

    Both diverge by k = 3/4 ln(3/2) + 1/4 ln(1/2); the label's cross-entropies are ln(4/3) and
    ln 4, so at a layer temperature of 1 the weights are 3/4 and 1/4, and the value is k.
    """
    teacher = scores((LN3, 0.0), (0.0, LN3), (9.0, 0.0))
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    flat = scores((0.0, 0.0), (0.0, 0.0), (0.0, 5.0))
    loss = layer_kl(flat, teacher, LABELS, REAL, layer_temperature=1.0)
    assert loss.item() == pytest.approx(divergence)
    # Where the student has the first layer already, the second's weight of 1/4 remains.
    near = scores((LN3, 0.0), (0.0, 0.0), (0.0, 5.0))
    loss = layer_kl(near, teacher, LABELS, REAL, layer_temperature=1.0)
    assert loss.item() == pytest.approx(divergence / 4)


def test_a_large_layer_temperature_weighs_layers_alike() -> None:
    """Weights that are multiplied by the temperature, or a softmax of the cross-entropy itself."""
    teacher = scores((LN3, 0.0), (0.0, LN3), (9.0, 0.0))
    near = scores((LN3, 0.0), (0.0, 0.0), (0.0, 5.0))
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    loss = layer_kl(near, teacher, LABELS, REAL, layer_temperature=1e9)
    assert loss.item() == pytest.approx(divergence / 2)


def test_the_weights_send_no_gradient_into_the_teacher() -> None:
    """A joint teacher that learns to make the layer that its student follows look good."""
    teacher = scores((LN3, 0.0), (0.0, 1.0), (9.0, 0.0)).requires_grad_()
    student = scores((0.0, 0.2), (0.5, 0.0), (0.0, 5.0))
    layer_kl(student, teacher, LABELS, REAL, layer_temperature=1.0).backward()
    nll = [math.log1p(math.exp(-LN3)), math.log1p(math.exp(1.0))]
    weights = torch.tensor(nll, dtype=torch.float64).neg().softmax(0)
    again = teacher.detach().clone().requires_grad_()
    expected = sum(
        weight * batch_kl(ours, theirs, student_temperature=1.0, teacher_temperature=1.0)
        for weight, ours, theirs in zip(weights, student[:2], again[:2], strict=True)
    )
    expected.backward()
    torch.testing.assert_close(teacher.grad, again.grad)
    assert not teacher.grad[2].any()


def test_the_last_layer_has_a_loss_of_its_own() -> None:
    """The model's own scores counted twice, with a layer's weight."""
    teacher = scores((LN3, 0.0), (0.0, LN3))
    values = {
        layer_kl(scores((0.0, 1.0), last), teacher, LABELS, REAL).item()
        for last in ((0.0, 0.0), (5.0, 0.0))
    }
    assert len(values) == 1


@pytest.mark.parametrize(
    ("layers", "teacher_layers", "followed"),
    [
        (3, 6, [1, 3]),
        (6, 12, [1, 3, 5, 7, 9]),
        (6, 6, [0, 1, 2, 3, 4]),
        (3, 4, [0, 2]),
        (4, 3, [0, 1, 1]),
        (6, 2, [0, 0, 0, 0, 0]),
    ],
)
def test_a_layer_follows_the_one_at_its_depth(
    layers: int, teacher_layers: int, followed: list[int]
) -> None:
    """A teacher's first layers for all of a shallow student's, or its last layer."""
    assert followed_layers(layers, teacher_layers) == followed


def test_a_model_of_one_layer_has_none_to_compare() -> None:
    """The softmax of no layer: NaN for the whole objective."""
    with pytest.raises(ConfigError, match="models of two layers and more"):
        layer_kl(scores((0.0, 1.0)), scores((0.0, 1.0), (1.0, 0.0)), LABELS, REAL)
    two = scores((0.0, 1.0), (1.0, 0.0))
    with pytest.raises(ConfigError, match="layer_temperature must be above 0"):
        layer_kl(two, two, LABELS, REAL, layer_temperature=0.0)


def test_a_query_without_a_label_does_not_count() -> None:
    """Its divergence averaged in, under weights that it has no part in."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    labels = torch.zeros(2, 4, dtype=torch.bool)
    labels[0, 1] = True
    real = torch.ones_like(labels)
    whole = layer_kl(student, teacher, labels, real)
    first = layer_kl(student[:, :1], teacher[:, :1], labels[:1], real[:1])
    assert whole.item() == pytest.approx(first.item())


def test_listwise_ce_by_hand() -> None:
    """Scores ln 3, 0, 0 with padding: -ln(3/5); a doubtful one is no negative: -ln(3/4)."""
    listed = torch.tensor([[LN3, 0.0, 0.0, 7.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    labels = torch.tensor([[True, False, False, False]])
    assert listwise_ce(listed, mask, labels, mask).item() == pytest.approx(-math.log(3 / 5))
    trusted = torch.tensor([[True, True, False, False]])
    assert listwise_ce(listed, mask, labels, trusted).item() == pytest.approx(-math.log(3 / 4))
    halved = listwise_ce(listed / 2, mask, labels, mask, temperature=0.5)
    assert halved.item() == pytest.approx(-math.log(3 / 5))


def test_two_positives_do_not_compete() -> None:
    """A cross-entropy that lowers the second positive as a negative of the first."""
    listed = torch.tensor([[LN3, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.bool)
    labels = torch.tensor([[True, True, False]])
    expected = (-math.log(3 / 4) - math.log(1 / 2)) / 2
    assert listwise_ce(listed, mask, labels, mask).item() == pytest.approx(expected)


def test_listwise_ce_is_not_contrastive() -> None:
    """In-batch negatives, which a cross-encoder would have to read with every query."""
    torch.manual_seed(0)
    batch = torch.randn(2, 4, dtype=torch.float64)
    listed = torch.stack([batch[0, :2], batch[1, 2:]])
    ones, labels = torch.ones(2, 2, dtype=torch.bool), torch.tensor([[True, False]] * 2)
    candidates = torch.tensor([[True, True, False, False], [False, False, True, True]])
    positives = torch.tensor([[True, False, False, False], [False, False, True, False]])
    own = listwise_ce(listed, ones, labels, ones).item()
    everything = torch.ones_like(candidates)
    whole = contrastive(batch, candidates, positives, everything, temperature=1.0).item()
    assert own != pytest.approx(whole, rel=0.05)
    assert own == pytest.approx(
        contrastive(batch, candidates, positives, candidates, temperature=1.0).item()
    )
