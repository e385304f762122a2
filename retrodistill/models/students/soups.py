"""Model soups: the average of the weights of several models."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError
from retrodistill.models.inference.fingerprints import FORGOTTEN
from retrodistill.models.students.dense import load_bi_encoder
from retrodistill.models.students.towers import side_prompts

if TYPE_CHECKING:
    import torch

Load = Callable[[str, "torch.device"], Any]


def soup(models: Sequence[str | Path], *, load: Load = load_bi_encoder) -> Any:
    """Return the model whose every weight is the mean of that weight in several models.

    The models are one architecture, best trained from the same start: weights that were drawn
    apart have no mean that means something. Settings and prompts are the first model's. `load`
    reads one of `models`, a folder or a hub id; no more than two models are held at a time.

    Raises:
        ConfigError: no models, or two of them differ in more than the values of their weights:
            the first difference is named.

    Source: Wortsman et al. 2022, arXiv:2203.05482, the uniform soup.

    """
    import torch

    if not models:
        raise ConfigError("a soup needs at least one model, but got none.")
    device = torch.device("cpu")
    mean = load(str(models[0]), device)
    sums = {name: part.double() for name, part in mean.state_dict().items() if _averaged(part)}
    for path in models[1:]:
        other = load(str(path), device)
        for what, first, found in _facts(mean, other):
            if first != found:
                raise ConfigError(
                    f"the average of {models[0]} and {path} means nothing. {what}: {first!r} in "
                    f"the first, {found!r} in the second. Average models of one training."
                )
        weights = other.state_dict()
        sums = {name: total + weights[name] for name, total in sums.items()}
    means = {name: (total / len(models)).float() for name, total in sums.items()}
    mean.load_state_dict(mean.state_dict() | means)
    return mean


def _averaged(weights: "torch.Tensor") -> bool:
    return weights.is_floating_point()


def _facts(first: Any, second: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield what must be equal: its name, and its value in both models."""
    import torch

    yield "the kind of model", type(first).__name__, type(second).__name__
    yield "the number of modules", len(first), len(second)
    for place, (one, other) in enumerate(zip(first, second, strict=True)):
        yield f"module {place}", type(one).__name__, type(other).__name__
    weights, others = first.state_dict(), second.state_dict()
    for name in dict.fromkeys([*weights, *others]):
        one, other = weights.get(name), others.get(name)
        shapes = [None if part is None else tuple(part.shape) for part in (one, other)]
        yield f"the shape of {name}", shapes[0], shapes[1]
        if one is not None and other is not None and not _averaged(one):
            yield f"whether {name} is as in the first", True, torch.equal(one, other)
    for place, (one, other) in enumerate(zip(first, second, strict=True)):
        yield f"module {place}", repr(one), repr(other)
    settings, others = (_settings(model) for model in (first, second))
    for name in dict.fromkeys([*settings, *others]):
        yield f"the setting {name}", settings.get(name), others.get(name)
    yield "the vocabulary", *(_differing(first.tokenizer, second.tokenizer))
    if hasattr(first, "prompts"):
        yield "the prompts", side_prompts(first), side_prompts(second)


def _settings(model: Any) -> dict[str, Any]:
    """Return what a model's transformers config says it computes."""
    config = model.transformers_model.config.to_dict()
    return {name: value for name, value in config.items() if name not in FORGOTTEN}


def _differing(first: Any, second: Any) -> tuple[Any, Any]:
    """Return the first entry that differs between two vocabularies; None twice if none does."""
    one, other = (sorted(tokenizer.get_vocab().items()) for tokenizer in (first, second))
    pairs = zip(one, other, strict=False)
    found = next(((a, b) for a, b in pairs if a != b), (None, None))
    return found if len(one) == len(other) else (len(one), len(other))
