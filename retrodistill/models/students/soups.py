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

    The models are one architecture, best trained from the same start: the mean of weights that were
    drawn apart is meaningless. Settings and prompts are the first model's. `load`
    reads one of `models`, a folder or a hub id; no more than two models are held at a time.

    Raises:
        ConfigError: no models, or two of them differ in more than the values of their weights;
            the message names the first difference.

    Source: Wortsman et al. 2022, arXiv:2203.05482, the uniform soup.

    """
    import torch

    if not models:
        raise ConfigError("a soup needs at least one model, but got none.")
    device = torch.device("cpu")
    mean = load(str(models[0]), device)
    sums = {
        name: weight.double() for name, weight in mean.state_dict().items() if _averaged(weight)
    }
    for path in models[1:]:
        model = load(str(path), device)
        for fact, expected, actual in _facts(mean, model):
            if expected != actual:
                raise ConfigError(
                    f"the average of {models[0]} and {path} means nothing. {fact}: {expected!r} in "
                    f"the first, {actual!r} in the second. Average models of one training."
                )
        weights = model.state_dict()
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
    for index, (first_value, second_value) in enumerate(zip(first, second, strict=True)):
        yield f"module {index}", type(first_value).__name__, type(second_value).__name__
    weights = first.state_dict(), second.state_dict()
    for name in dict.fromkeys([*weights[0], *weights[1]]):
        values = [model_weights.get(name) for model_weights in weights]
        shapes = [None if value is None else tuple(value.shape) for value in values]
        yield f"the shape of {name}", shapes[0], shapes[1]
        if not (values[0] is None or values[1] is None or _averaged(values[0])):
            yield f"whether {name} is as in the first", True, torch.equal(values[0], values[1])
    for index, (first_value, second_value) in enumerate(zip(first, second, strict=True)):
        yield f"module {index}", repr(first_value), repr(second_value)
    first_settings, second_settings = _settings(first), _settings(second)
    for name in dict.fromkeys([*first_settings, *second_settings]):
        yield f"the setting {name}", first_settings.get(name), second_settings.get(name)
    yield "the vocabulary", *(_differing(first.tokenizer, second.tokenizer))
    if hasattr(first, "prompts"):
        yield "the prompts", side_prompts(first), side_prompts(second)


def _settings(model: Any) -> dict[str, Any]:
    """Return the settings of a model's transformers config that shape what it computes."""
    config = model.transformers_model.config.to_dict()
    return {name: value for name, value in config.items() if name not in FORGOTTEN}


def _differing(first: Any, second: Any) -> tuple[Any, Any]:
    """Return the first entry that differs between two vocabularies; None twice if none does."""
    entries = [sorted(tokenizer.get_vocab().items()) for tokenizer in (first, second)]
    if len(entries[0]) != len(entries[1]):
        return len(entries[0]), len(entries[1])
    pairs = zip(*entries, strict=True)
    return next(((a, b) for a, b in pairs if a != b), (None, None))
