"""Models whose queries and documents take different ways: prompts, limits and batches of each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Precision
from retrodistill.base.manifest import digest
from retrodistill.models.inference import body_dtype, positions, reserved, run_model, token_batches
from retrodistill.models.students.dense import fingerprint, side_prompts
from retrodistill.models.students.routes import SIDES, side_modules
from retrodistill.models.students.routes import Side as Side

WINDOW = 2048
"""Texts that are tokenised, and sorted by length, at a time."""


class Sides:
    """A sentence-transformers model whose queries and documents take different ways through it.

    Texts get their side's prompt, are tokenised, expanded and masked by the library itself, as in
    its `encode_query` and `encode_document`. The transformer runs in `precision`, what follows it
    in float32. `max_tokens` cuts the end of longer documents, in tokens with the special ones, if
    that is less than the model's own limit; queries are cut at the model's own limit only.
    `swap` may give a faster equal of a module. `settings` go to the modules that know them.

    Threads may ask for outputs at the same time.
    """

    fingerprint: str
    """Hash of the weights, the modules' settings, tokenizer, prompts, limits and number type."""

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
        self.doc_tokens = _doc_limit(side_modules(model, "document")[0], max_tokens)
        self._settings = settings
        parts = [part for part in model.modules() if hasattr(part, "config_keys")]
        shaping = [part.get_config_dict() for part in parts]
        shaping += [
            dict(zip(SIDES, side_prompts(model), strict=True)),
            self.doc_tokens,
            self.dtype,
            settings,
        ]
        self.fingerprint = digest(fingerprint(model), repr(shaping))

    def outputs(
        self, texts: Sequence[str], side: Side
    ) -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
        """Yield places of texts and what the model gives for them, longest texts first.

        A batch has at most `batch_tokens` padded tokens (a longer text is a batch of its own).
        """
        import torch

        limit = self.doc_tokens if side == "document" else None
        modules = [self._swap(module) for module in side_modules(self.model, side)]
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            batches = side_batches(
                self.model, window, side, max_tokens=limit, batch_tokens=self.batch_tokens
            )
            for places, features in batches:
                moved = {
                    name: value.to(self.model.device) if torch.is_tensor(value) else value
                    for name, value in features.items()
                }
                with torch.inference_mode():
                    found = run_model(modules, moved, self.dtype, task=side, **self._settings)
                yield start + places, found


def side_batches(
    model: Any, texts: Sequence[str], side: Side, *, max_tokens: int | None, batch_tokens: int
) -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
    """Yield places of texts and their padded features, longest texts first.

    The library itself puts the side's prompt before a text, tokenises, cuts and expands it.
    `max_tokens` is the longest text, special tokens included (default: the model's own limit).
    """
    import torch

    prompt = side_prompts(model)[SIDES.index(side)] or None
    limit = {} if max_tokens is None else {"max_length": max_tokens}
    with reserved(side_modules(model, side)[0].tokenizer):
        features = model.preprocess(list(texts), prompt=prompt, task=side, **limit)
    read = features["attention_mask"].bool()
    if "query_expansion_positions" in features:
        read = read | features["query_expansion_positions"]
    for places in token_batches(read.sum(1).numpy(), batch_tokens):
        rows = torch.from_numpy(places)
        columns = read[rows].any(0)
        yield (
            places,
            {
                name: value[rows][:, columns] if torch.is_tensor(value) else value
                for name, value in features.items()
            },
        )


def _doc_limit(first: Any, max_tokens: int | None) -> int:
    """Return the longest document, in tokens: the least of what is asked for and can be read."""
    limits = (
        max_tokens,
        getattr(first, "document_length", None) or getattr(first, "max_seq_length", None),
        positions(first.model) if hasattr(first, "model") else None,
    )
    return min(limit for limit in limits if limit)
