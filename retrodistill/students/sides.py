"""Models whose queries and documents take different ways: prompts, limits and batches of each."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrodistill.config import Precision
from retrodistill.inference import body_autocast, body_dtype, token_batches
from retrodistill.manifest import digest
from retrodistill.students.dense import fingerprint, side_prompts

if TYPE_CHECKING:
    pass

WINDOW = 2048
"""Texts that are tokenised, and sorted by length, at a time."""

Side = Literal["query", "document"]
"""A text's part in a search, which a model may treat differently."""


class Sides:
    """A sentence-transformers model whose queries and documents take different ways through it.

    Texts get their side's prompt, are tokenised, expanded and masked by the library itself, as in
    its `encode_query` and `encode_document`. The transformer runs in `precision`, what follows it
    in float32. `max_tokens` cuts the end of longer documents, in tokens with the special ones, if
    that is less than the model's own limit; queries are cut at the model's own limit only.
    `swap` may give a faster equal of a module. `settings` go to the modules that know them.
    """

    fingerprint: str
    """Hash of the weights, the modules' settings, vocabulary, prompts, limits and number type."""

    def __init__(
        self,
        model: Any,
        *,
        max_tokens: int | None = None,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
        swap: Callable[[Any], Any] = lambda module: module,
        **settings: Any,
    ) -> None:
        self.model = model.eval()
        self._swap = swap
        self.dtype = body_dtype(precision, model.device)
        self.batch_tokens = batch_tokens
        query_prompt, doc_prompt = side_prompts(model)
        self._prompts: dict[Side, str] = {"query": query_prompt, "document": doc_prompt}
        self.doc_tokens = _doc_limit(self._modules("document")[0], max_tokens)
        self._settings = settings
        parts = [part for part in model.modules() if hasattr(part, "config_keys")]
        shaping = [part.get_config_dict() for part in parts]
        shaping += [self._prompts, self.doc_tokens, self.dtype, settings]
        self.fingerprint = digest(fingerprint(model), repr(shaping))

    def outputs(
        self, texts: Sequence[str], side: Side
    ) -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
        """Yield places of texts and what the model gives for them, longest texts first.

        A batch has at most `batch_tokens` padded tokens (a longer text is a batch of its own).
        """
        import torch

        limit = {"max_length": self.doc_tokens} if side == "document" else {}
        prompt = self._prompts[side] or None
        for start in range(0, len(texts), WINDOW):
            window = list(texts[start : start + WINDOW])
            features = self.model.preprocess(window, prompt=prompt, task=side, **limit)
            read = features["attention_mask"].bool()
            if "query_expansion_positions" in features:
                read = read | features["query_expansion_positions"]
            for batch in token_batches(read.sum(1).numpy(), self.batch_tokens):
                rows = torch.from_numpy(batch)
                columns = read[rows].any(0)
                part = {
                    name: value[rows][:, columns] if torch.is_tensor(value) else value
                    for name, value in features.items()
                }
                yield start + batch, self._run(part, side)

    def _run(self, features: dict[str, Any], side: Side) -> dict[str, Any]:
        """Return a batch's features after all modules of a side."""
        import torch

        device = self.model.device
        body, *rest = self._modules(side)
        known = {"task": side, **self._settings}
        with torch.inference_mode():
            features = {
                name: value.to(device) if torch.is_tensor(value) else value
                for name, value in features.items()
            }
            with body_autocast(self.dtype, device):
                features = body(features)
            features = {
                name: value.float() if getattr(value, "dtype", None) == self.dtype else value
                for name, value in features.items()
            }
            for module in rest:
                wanted = getattr(module, "forward_kwargs", ())
                features = module(features, **{k: v for k, v in known.items() if k in wanted})
        return features

    def _modules(self, side: Side) -> list[Any]:
        """Return the modules that a text of a side passes, in order."""
        first, *rest = self.model
        routes = dict(getattr(first, "sub_modules", {}))  # of a Router
        return [self._swap(module) for module in (*routes.get(side, [first]), *rest)]


def _doc_limit(first: Any, max_tokens: int | None) -> int:
    """Return the longest document, in tokens: the least of what is asked for and can be read."""
    config = getattr(first, "config", None)
    limits = (
        max_tokens,
        getattr(first, "document_length", None) or getattr(first, "max_seq_length", None),
        getattr(config, "max_position_embeddings", None),
    )
    return min(limit for limit in limits if limit)
