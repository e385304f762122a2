"""Late interaction: one vector for each token of a text, from a sentence-transformers model."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrodistill.config import Precision
from retrodistill.errors import ConfigError
from retrodistill.inference import (
    body_autocast,
    body_dtype,
    loading,
    pick_device,
    token_batches,
)
from retrodistill.manifest import digest
from retrodistill.students.dense import fingerprint, side_prompts

if TYPE_CHECKING:
    import torch
    from sentence_transformers import MultiVectorEncoder

WINDOW = 2048
"""Texts that are tokenised, and sorted by length, at a time."""

Side = Literal["query", "document"]
"""A text's part in a search, which a model may treat differently."""


def load_late_interaction(model: str, device: "torch.device") -> "MultiVectorEncoder":
    """Return a late-interaction model with float32 weights, from a folder or a hub id.

    Native, PyLate and Stanford ColBERT layouts are read. Only safetensors weights are, and no
    code that comes with a model is run.

    Raises:
        ConfigError: there is no such model, or it was saved without a projection of token
            vectors, so that the library would draw one at random.

    """
    import torch
    from sentence_transformers import MultiVectorEncoder

    with loading(model):
        refuse_pickled_modules(model)
        loaded: MultiVectorEncoder = MultiVectorEncoder(
            model,
            device=str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    kind = saved_settings(model, "config_sentence_transformers.json").get("model_type")
    layouts = saved_settings(model, "config.json").get("architectures") or ()
    modules = [part["type"] for part in saved_settings(model, "modules.json")]
    native = kind in ("MultiVectorEncoder", "ColBERT") or "HF_ColBERT" in layouts
    if not native and not any(name.endswith("Dense") for name in modules):
        raise ConfigError(
            f"model {model!r} is no late-interaction model: it was saved without a projection of "
            "token vectors. Give a ColBERT-style model, or use the teacher bi-encoder."
        )
    return loaded


def saved_settings(model: str, file: str) -> Any:
    """Return a JSON file that was saved with a model; an empty dict if there is none."""
    from sentence_transformers.util import load_file_path

    path = load_file_path(model, file)
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}


def refuse_pickled_modules(model: str) -> None:
    """Raise ConfigError if the weights of a module behind the transformer are only in a pickle."""
    from sentence_transformers.util import load_file_path

    for folder in filter(None, (part["path"] for part in saved_settings(model, "modules.json"))):
        if load_file_path(model, "model.safetensors", subfolder=folder):
            continue
        if load_file_path(model, "pytorch_model.bin", subfolder=folder):
            raise ConfigError(f"the weights of its module {folder} are only in a pickle")


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


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """A batch of texts as token vectors."""

    places: NDArray[np.int64]
    """Where each text stood, shape (n,)."""

    vectors: "torch.Tensor"
    """Float32, shape (n, tokens, dimension); rows outside the mask mean nothing."""

    mask: "torch.Tensor"
    """Which tokens count, shape (n, tokens)."""


class LateInteractionEncoder:
    """A late-interaction model that gives token vectors, batch by batch.

    The limits, prompts and number types are those of `Sides`. Each text is encoded as often as it
    is given.

    Raises:
        ConfigError: the model cannot be loaded, or is no late-interaction model.

    """

    fingerprint: str
    """Hash of all that shapes a token vector or its use."""

    def __init__(
        self,
        model: str,
        *,
        max_tokens: int | None = None,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        self.model = load_late_interaction(model, pick_device())
        self._sides = Sides(
            self.model, max_tokens=max_tokens, batch_tokens=batch_tokens, precision=precision
        )
        self.averaged: bool = self.model.similarity_fn_name == "meanmaxsim"
        """Whether a score is divided by the number of the query's tokens."""
        self.fingerprint = digest(self._sides.fingerprint, str(self.averaged))

    def encode_queries(self, texts: Sequence[str]) -> Iterator[TokenVectors]:
        """Yield the token vectors of all texts, with expansion tokens where the model has such."""
        return self._encode(texts, "query")

    def encode_docs(self, texts: Sequence[str]) -> Iterator[TokenVectors]:
        """Yield the token vectors of all texts, tokens to be skipped masked."""
        return self._encode(texts, "document")

    def _encode(self, texts: Sequence[str], side: Side) -> Iterator[TokenVectors]:
        for places, features in self._sides.outputs(texts, side):
            yield TokenVectors(
                places, features["token_embeddings"], features["attention_mask"].bool()
            )
