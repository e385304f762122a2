"""Attention by products is PyTorch's attention, forwards and backwards, block by block."""

import multiprocessing
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from retrodistill.models.inference import products as module
from retrodistill.models.inference.products import attention_by_products, padded_products

LENGTHS = [3, 5, 5, 5, 2, 1]
HEADS, WIDTH = 2, 4


def states(dtype: torch.dtype = torch.float64, tokens: int = sum(LENGTHS)) -> list[Tensor]:
    """Return a query, a key and a value (N, H, D)."""
    torch.manual_seed(0)
    return [torch.randn(tokens, HEADS, WIDTH, dtype=dtype, requires_grad=True) for _ in range(3)]


def masks() -> dict[str, Tensor | None]:
    real = torch.ones(3, 1, 1, 10, dtype=torch.bool)
    real[0, ..., 6:] = False
    real[2, ..., 1:] = False
    added = torch.zeros(3, 1, 1, 10).masked_fill(~real, -1e9)
    ahead = torch.ones(10, 10, dtype=torch.bool).tril().expand(3, 1, 10, 10)
    repeated = real.expand(-1, -1, 10, -1)
    return {"none": None, "one": real, "added": added, "repeated": repeated, "rows": ahead}


@pytest.mark.parametrize("mask", ["none", "one", "added", "repeated", "rows"])
@pytest.mark.parametrize("scale", [None, 0.1])
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_padded_batches(
    mask: str, scale: float | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgotten scale, padding that is looked at, a mask of other texts in the second block."""
    monkeypatch.setattr(module, "BLOCK", block)
    torch.manual_seed(0)
    heads = [torch.randn(3, 4, 10, 8, requires_grad=True) for _ in range(3)]
    expected = scaled_dot_product_attention(*heads, attn_mask=masks()[mask], scale=scale)
    found = padded_products(*heads, masks()[mask], 0.0, scale).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    above = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, heads, above), torch.autograd.grad(expected, heads, above)
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_gradients_are_those_of_the_function(
    dropout: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backward pass whose dropout drops other weights than the forward pass did."""
    monkeypatch.setattr(module, "BLOCK", block)

    def attend(*heads: Tensor) -> Tensor:
        torch.manual_seed(1)
        return attention_by_products(*heads, LENGTHS, dropout=dropout)

    assert torch.autograd.gradcheck(attend, states())


def test_each_text_is_read_alone() -> None:
    """Texts of one block that look at each other."""
    heads = [each.detach() for each in states()]
    whole = attention_by_products(*heads, LENGTHS)
    start = 0
    for length in LENGTHS:
        own = [each[start : start + length] for each in heads]
        torch.testing.assert_close(
            whole[start : start + length], attention_by_products(*own, [length])
        )
        start += length


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_drops_as_many_as_it_says_and_keeps_the_mean(probability: float) -> None:
    """A dropout of another probability, or that makes states smaller on the average."""
    tokens, texts = 64, 40
    weights = torch.zeros(tokens * texts, 1, tokens)
    eye = torch.eye(tokens).repeat(texts, 1)[:, None]
    torch.manual_seed(0)
    found = attention_by_products(weights, weights, eye, [tokens] * texts, dropout=probability)
    dropped = float((found == 0).float().mean())
    assert abs(dropped - probability) < 0.005
    assert abs(float(found.mean()) * tokens - 1) < 0.01


@pytest.mark.parametrize("inference", [False, True])
def test_workers_leave_threads_and_modes_as_they_are(inference: bool) -> None:
    """A process that computes on one core from the first batch on, or tensors nobody may change."""
    before = torch.get_num_threads()
    heads = [each.detach() for each in states()]
    try:
        torch.set_num_threads(3)
        with torch.inference_mode(inference):
            found = attention_by_products(*heads, LENGTHS)
        seen: list[int] = []
        late = Thread(target=lambda: seen.append(torch.get_num_threads()))
        late.start()
        late.join()
        assert [torch.get_num_threads(), *seen] == [3, 3]
    finally:
        torch.set_num_threads(before)
    assert found.is_inference() == inference
    torch.testing.assert_close(found, attention_by_products(*heads, LENGTHS))


def _in_fork(heads: list[Tensor], answers: Any) -> None:
    answers.put(attention_by_products(*heads, LENGTHS).tolist())


def test_forks_have_workers_of_their_own() -> None:
    """A forked process that waits for ever for threads that only its parent has."""
    heads = [each.detach() for each in states()]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        whole = attention_by_products(*heads, LENGTHS)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        child = context.Process(target=_in_fork, args=(heads, answers))
        child.start()
        assert answers.get(timeout=60) == whole.tolist()
        child.join()
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_block_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention that is uninitialised memory, because a worker ran out of memory."""

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module.Block, "weights", full)
    with pytest.raises(MemoryError):
        attention_by_products(*states(), LENGTHS)


def test_dropout_follows_torch_s_seed() -> None:
    """A run that cannot be repeated, or each layer of which drops the same weights."""
    heads = states()

    def attend() -> Tensor:
        return attention_by_products(*heads, LENGTHS, dropout=0.3)

    torch.manual_seed(5)
    first, second = attend(), attend()
    torch.manual_seed(5)
    torch.testing.assert_close(attend(), first, rtol=0, atol=0)
    assert not torch.equal(first, second)


def test_nothing_of_the_size_of_the_weights_is_kept() -> None:
    """Memory that grows with the square of the lengths between the two passes."""
    tokens = 512
    heads = states(torch.float32, tokens)
    kept = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        attention_by_products(*heads, [tokens], dropout=0.1)
    assert kept == 4 * tokens * HEADS * WIDTH


def test_second_derivatives_are_refused() -> None:
    """A gradient of a gradient that silently leaves attention out."""
    heads: Any = states()
    found = attention_by_products(*heads, LENGTHS).square().sum()
    (gradient,) = torch.autograd.grad(found, heads[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
