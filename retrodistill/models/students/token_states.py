"""What a body makes of each token: hidden states of layers, and an attention layer's vectors."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from retrodistill.base.errors import ConfigError
from retrodistill.models.inference.unpadded import padded_layers
from retrodistill.models.students.layers import layer_stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = frozenset({"token_ids", "token_types", "token_mask"})
STATES = frozenset({"student_states"})
ATTENTION = frozenset({"attention_vectors"})

MAPS = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
)
"""Ends of the names of an attention layer's three linear maps, in transformers' models."""

Chunks = Sequence[dict[str, Any]]
Read = Callable[[dict[str, Any]], Tensor]


class Captured:
    """Outputs of parts of a body in its last forward pass."""

    def __init__(self, layers: Sequence[int], attention: int | None) -> None:
        self._layers, self._attention = layers, attention
        self.hidden: dict[int, Tensor] = {}
        self.maps: dict[int, Tensor] = {}

    def states(self) -> Tensor:
        """Return the hidden states of the layers, (K, X, W, D); none of no layers."""
        states = [self.hidden[layer].float() for layer in self._layers]
        return torch.stack(states) if states else torch.zeros(0)

    def attention(self) -> Tensor:
        """Return the queries, keys and values of the attention layer, (3, X, W, D), if asked."""
        if self._attention is None:
            return torch.zeros(0)
        return torch.stack([self.maps[number].float() for number in range(3)])


@contextmanager
def captured(
    body: "PreTrainedModel", layers: Sequence[int], attention: int | None
) -> Iterator[Captured]:
    """Capture what a body computes within the block.

    Layer 0 is what the first layer reads, the embeddings; layer n is what the n-th one gives, of
    which `attention` is the number too.

    Raises:
        ConfigError: the attention layer has no three linear maps of one width.

    """
    result, stack = Captured(layers, attention), layer_stack(body)
    hooks: list[Any] = []

    def embeddings(module: nn.Module, args: Any, options: Any) -> None:
        result.hidden[0] = args[0] if args else options["hidden_states"]

    def keep(store: dict[int, Tensor], number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            store[number] = output[0] if isinstance(output, tuple) else output

        return hook

    with ExitStack() as undo:
        undo.enter_context(padded_layers())
        if 0 in layers:
            hooks.append(stack[0].register_forward_pre_hook(embeddings, with_kwargs=True))
        hooks += [
            stack[layer - 1].register_forward_hook(keep(result.hidden, layer))
            for layer in {*layers} - {0}
        ]
        if attention is not None:
            hooks += [
                module.register_forward_hook(keep(result.maps, number))
                for number, module in enumerate(attention_maps(stack[attention - 1]))
            ]
        for hook in hooks:
            undo.callback(hook.remove)
        yield result


def attention_maps(layer: nn.Module) -> list[nn.Module]:
    """Return the linear maps of a layer that make the queries, keys and values.

    Raises:
        ConfigError: they are not apart in this architecture.

    """
    named = dict(layer.named_modules())
    for names in MAPS:
        ends = [[weight for name, weight in named.items() if _ends(name, end)] for end in names]
        if all(len(parts) == 1 for parts in ends):
            return [parts[0] for parts in ends]
    raise ConfigError(
        f"attention-relations needs queries, keys and values apart, which {type(layer).__name__} "
        "does not have. Take hidden-mse alone."
    )


class TokenReader(nn.Module):
    """Reads, beside a student's scores or vectors, what its body makes of each token.

    `layers` are those whose states are given, `attention` the layer whose attention is (None:
    neither). `projection` takes states into the teacher's width; it is learned, and not saved with
    the student.
    """

    def __init__(
        self,
        body: "PreTrainedModel",
        layers: Sequence[int],
        attention: int | None,
        projection: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self._body = (body,)
        """In a tuple: its weights are the task's already."""
        self._layers, self._attention = tuple(layers), attention
        self.projection = projection
        self._read: list[tuple[dict[str, Any], Tensor, Tensor]] = []

    @property
    def weights(self) -> list[Tensor]:
        """The weights of the body that are trained."""
        return [weight for weight in self._body[0].parameters() if weight.requires_grad]

    def reading(self, read: Read) -> Callable[[dict[str, Any]], tuple[Tensor, Tensor, Tensor]]:
        """Return `read` with states and attention beside its own output."""

        def read_all(features: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
            with captured(self._body[0], self._layers, self._attention) as capture:
                output = read(features)
            return output, capture.states(), capture.attention()

        return read_all

    def keep(self, chunks: Chunks, outputs: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
        """Keep states and attention of chunks for `signals`; return the outputs beside them."""
        for chunk, (_, states, attention) in zip(chunks, outputs, strict=True):
            self._read.append((chunk["features"], states, attention))
        return [output for output, _, _ in outputs]

    def clear(self) -> None:
        """Forget what was read, at the end of a forward pass."""
        self._read = []

    def signals(self) -> dict[str, Tensor]:
        """Return the signals of all texts that were read in this forward pass, chunk by chunk."""
        features = [features for features, _, _ in self._read]
        ids = [chunk["input_ids"] for chunk in features]
        types = [chunk.get("token_type_ids", 0 * chunk["input_ids"]) for chunk in features]
        masks = [chunk["attention_mask"].bool() for chunk in features]
        signals = {
            "token_ids": _stacked(ids),
            "token_types": _stacked(types),
            "token_mask": _stacked(masks),
        }
        if self._layers:
            states = _stacked([states.movedim(0, -2) for _, states, _ in self._read])
            states = states.movedim(-2, 0)
            signals["student_states"] = self.projection(states) if self.projection else states
        if self._attention is not None:
            vectors = _stacked([vectors.movedim(0, -2) for _, _, vectors in self._read])
            signals["attention_vectors"] = vectors.movedim(-2, 0)
        return signals


def matched_layers(student: int, teacher: int, chosen: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Return which layer of a student matches which of a teacher, by their numbers of layers.

    By default the embeddings and all layers of the student, evenly spread: m with m T / S, rounded.
    `chosen` are layers of the teacher, matched in order with the student's last ones.

    Raises:
        ConfigError: chosen layers are too many, not ascending, or not there.

    """
    if not chosen:
        return [(layer, round(layer * teacher / student)) for layer in range(student + 1)]
    ascending = list(chosen) == sorted(set(chosen))
    if len(chosen) > student + 1 or not ascending or not 0 <= chosen[0] <= chosen[-1] <= teacher:
        raise ConfigError(
            f"--states-layers {','.join(map(str, chosen))}: name at most {student + 1} layers of "
            f"the teacher, ascending, from 0 (its embeddings) to {teacher}."
        )
    return list(zip(range(student + 1 - len(chosen), student + 1), chosen, strict=True))


def _stacked(chunks: Sequence[Tensor]) -> Tensor:
    """Return chunks (X, W, ...) as one tensor, each filled up at its end to the longest W."""
    width = max(chunk.shape[1] for chunk in chunks)
    return torch.cat(
        [pad(chunk, (*(0, 0) * (chunk.ndim - 2), 0, width - chunk.shape[1])) for chunk in chunks]
    )


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
