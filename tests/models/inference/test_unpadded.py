"""Layers without padding give what the padded batch gives: forwards, backwards, in every model."""

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retrodistill.models.inference import unpadded as module
from retrodistill.models.inference.attention import ARCHITECTURES
from retrodistill.models.inference.batches import Features, on_device
from retrodistill.models.inference.threads import thread
from retrodistill.models.inference.unpadded import padded_layers, unpadded

LENGTHS = (40, 3, 17, 40, 2, 29, 11, 5, 40, 8, 19, 23, 31, 4)
SMALL: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
DISTIL = {"vocab_size": 120, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}


@pytest.fixture(autouse=True)
def any_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the smallest padding be enough."""
    monkeypatch.setattr(module, "CPU_PADDING", 0.0)


def body_of(kind: str, head: str = "AutoModel") -> Any:
    """Return a model with random weights of a type."""
    import transformers

    torch.manual_seed(0)
    distil = kind == "distilbert"
    settings = {**DISTIL, "dropout": 0.0, "attention_dropout": 0.0} if distil else SMALL
    config = transformers.AutoConfig.for_model(kind, **settings)
    return getattr(transformers, head).from_config(config).eval()


def batch(*, left: bool = False) -> dict[str, Tensor]:
    """Return token ids and a mask of texts of many lengths."""
    ids = torch.ones(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        place = slice(-length, None) if left else slice(length)
        ids[row, place] = torch.arange(length) % 90 + 5
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def states(body: nn.Module, features: dict[str, Tensor], *, packed: bool) -> Tensor:
    """Return the last states of the real tokens."""
    if packed:
        with unpadded(body, features, torch.float32):
            assert thread.row is not None
            found: Tensor = body(**features).last_hidden_state
    else:
        found = body(**features).last_hidden_state
    return found[features["attention_mask"].bool()]


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
@pytest.mark.parametrize("left", [False, True])
def test_states_are_those_of_the_padded_batch(kind: str, left: bool) -> None:
    """Texts that look at each other, or a token at another one's place."""
    body, features = body_of(kind), batch(left=left)
    with torch.no_grad():
        padded = states(body, features, packed=False)
        torch.testing.assert_close(states(body, features, packed=True), padded)


def test_each_text_is_read_alone() -> None:
    """Agreement by chance: a change in one text must leave the others as they are."""
    body, features = body_of("bert"), batch()
    changed = {**features, "input_ids": features["input_ids"].clone()}
    changed["input_ids"][0, :40] = 7
    with torch.no_grad():
        before, after = (states(body, each, packed=True) for each in (features, changed))
    assert not torch.allclose(before[:40], after[:40])
    torch.testing.assert_close(before[40:], after[40:], rtol=0, atol=0)


def test_gradients_are_those_of_the_padded_batch() -> None:
    """A training whose padding, or whose first layer, gets another gradient."""
    body, features = body_of("bert"), batch()
    found = []
    for packed in (False, True):
        body.zero_grad()
        states(body, features, packed=packed).square().sum().backward()
        found.append(
            {name: p.grad.clone() for name, p in body.named_parameters() if p.grad is not None}
        )
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "xlm-roberta"])
def test_heads_see_the_padded_batch(kind: str) -> None:
    """A classifier that reads the first token of the first text for all of them."""
    body, features = body_of(kind, "AutoModelForSequenceClassification"), batch()
    with torch.no_grad():
        padded = body(**features).logits
        with unpadded(body, features, torch.float32):
            logits = body(**features).logits
    assert len(padded.unique(dim=0)) > 1
    torch.testing.assert_close(logits, padded)


@pytest.mark.parametrize("layers", [(0, 1), (1, 2), (0, 2)])
def test_a_cut_copy_of_a_used_body_works(layers: tuple[int, ...]) -> None:
    """A student that is cut out of a teacher which was read before: layers bring hooks along."""
    body, features = body_of("bert"), batch()
    with torch.no_grad():
        states(body, features, packed=True)
        small = copy.deepcopy(body)
        kept = [small.encoder.layer[layer] for layer in layers]
        small.encoder.layer = nn.ModuleList(kept)
        padded = states(small, features, packed=False)
        torch.testing.assert_close(states(small, features, packed=True), padded)


def test_states_between_layers_are_padded_where_they_are_looked_at() -> None:
    """Layer vectors pooled over the wrong tokens, without an error."""
    body, features = body_of("bert"), batch()
    with torch.no_grad():
        with padded_layers(), unpadded(body, features, torch.float32):
            assert thread.row is None
        body.config.output_hidden_states = True
        with unpadded(body, features, torch.float32):
            found = body(**features).hidden_states
    assert {state.shape for state in found} == {(len(LENGTHS), max(LENGTHS), 32)}


def _decoder() -> tuple[nn.Module, dict[str, Tensor]]:
    body = body_of("bert")
    body.config.is_decoder = True
    return body, batch()


def _eager() -> tuple[nn.Module, dict[str, Tensor]]:
    body = body_of("bert")
    body.config._attn_implementation = "eager"
    return body, batch()


def _checkpointed() -> tuple[nn.Module, dict[str, Tensor]]:
    body = body_of("bert")
    body.encoder.layer[0].gradient_checkpointing = True  # as transformers switches it on
    return body, batch()


def _without_padding() -> tuple[nn.Module, dict[str, Tensor]]:
    features = batch()
    return body_of("bert"), {**features, "attention_mask": torch.ones_like(features["input_ids"])}


def _short() -> tuple[nn.Module, dict[str, Tensor]]:
    return body_of("bert"), {name: rows[:4] for name, rows in batch().items()}


@pytest.mark.parametrize("case", [_decoder, _eager, _checkpointed, _without_padding, _short])
def test_what_cannot_or_need_not_stays_padded(
    case: Callable[[], tuple[nn.Module, dict[str, Tensor]]],
) -> None:
    """A model whose attention is another one, run as if it were not."""
    body, features = case()
    with unpadded(body, features, torch.float32):
        assert thread.row is None


def test_other_threads_and_later_calls_are_padded() -> None:
    """A server's second thread that reads its batch by the first one's lengths."""
    body, features = body_of("bert"), batch()
    found: list[Tensor] = []
    with torch.no_grad():
        padded = states(body, features, packed=False)
        with unpadded(body, features, torch.float32):
            other = threading.Thread(
                target=lambda: found.append(states(body, features, packed=False))
            )
            other.start()
            other.join()
        torch.testing.assert_close(found[0], padded)
        torch.testing.assert_close(states(body, features, packed=False), padded)


def test_a_saved_body_is_the_same(tmp_path: Path) -> None:
    """Traces of it in a model's files."""
    body, features = body_of("bert"), batch()
    body.save_pretrained(tmp_path / "before")
    with torch.no_grad():
        states(body, features, packed=True)
    body.save_pretrained(tmp_path / "after")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_the_kernel_of_variable_lengths_agrees(kind: str) -> None:
    """A GPU whose kernel scales or cuts in another way than PyTorch's attention."""
    body = body_of(kind).to("cuda")
    features = {name: rows.to("cuda") for name, rows in batch().items()}
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
        padded = body(**features).last_hidden_state
        with unpadded(body, features, torch.bfloat16):
            assert thread.row is not None
            found = body(**features).last_hidden_state
    real = features["attention_mask"].bool()
    torch.testing.assert_close(found[real].float(), padded[real].float(), atol=0.05, rtol=0.05)


def test_a_device_is_not_asked_for_a_mask_that_the_host_knows() -> None:
    """A GPU that stands still before each batch, until its mask has come back."""
    body, features = body_of("bert"), Features(batch())
    features.host_mask = features["attention_mask"].clone()
    features["attention_mask"] = features["attention_mask"].to("meta")  # holds no numbers
    with unpadded(body, features, torch.float32):
        row = thread.row
    assert row is not None
    assert row.lengths == list(LENGTHS)
    with (
        pytest.raises(NotImplementedError, match="meta"),
        unpadded(body, dict(features), torch.float32),
    ):
        pass


def test_batches_bring_their_mask_along() -> None:
    """A batch whose mask on the host is another one's."""
    tensors = batch()
    features = on_device(tensors, torch.device("meta"))
    assert {each.device.type for each in features.values()} == {"meta"}
    assert features.host_mask is tensors["attention_mask"]
    joined = features.joined({"prompt_length": 2})
    assert joined["prompt_length"] == 2
    assert joined.host_mask is features.host_mask
