"""Sparse encoders: a weight for each word of a vocabulary, from a sentence-transformers model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError
from retrodistill.models.inference import (
    explained,
    loading,
    model_path,
    pick_device,
    refuse_new_weights,
    saved_settings,
)
from retrodistill.models.students.towers import Side, Towers

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_array
    from sentence_transformers import SparseEncoder

NUMBERS_AT_ONCE = 1 << 26
"""Numbers in a batch's matrix of tokens by vocabulary: 256 MB in float32."""


def load_sparse_encoder(model: str, device: "torch.device") -> "SparseEncoder":
    """Return a sparse encoder with float32 weights, from a folder or a hub id.

    A folder of a bare masked language model gets SPLADE's max pooling. Only safetensors weights
    are read, and no code that comes with a model is run.

    Raises:
        ConfigError: there is no such model, or it does not make sparse vectors or lacks weights, so
            that the library would add a random layer.

    """
    import torch
    from sentence_transformers import SparseEncoder

    model = model_path(model)
    with loading(model):
        loaded: SparseEncoder = SparseEncoder(
            model,
            device=str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
        kind = saved_settings(model, "config_sentence_transformers.json").get("model_type")
        layouts = saved_settings(model, "config.json").get("architectures") or ()
    if kind != "SparseEncoder" and not any(name.endswith("ForMaskedLM") for name in layouts):
        raise ConfigError(
            f"model {model!r} does not make sparse vectors: it is neither a SparseEncoder nor a "
            "masked language model. Give a SPLADE-style model, or use the teacher bi-encoder."
        )
    refuse_new_weights(
        model, loaded, lacking="complete language model", remedy="Use another model."
    )
    return loaded


class SparseTextEncoder:
    """A SPLADE-style model that gives the rows of a sparse matrix: texts by vocabulary.

    The limits, prompts and number types are those of `Towers`. Each text is encoded as often as it
    is given. A batch has at most NUMBERS_AT_ONCE numbers between transformer and pooling, however
    large `batch_tokens` is. A model in memory is used where it is, in evaluation mode.

    Raises:
        ConfigError: the model cannot be loaded, or does not make sparse vectors.

    """

    fingerprint: str
    """Hash of all that shapes a vector."""

    def __init__(
        self,
        model: "str | SparseEncoder",
        *,
        max_tokens: int | None = None,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        self.model = load_sparse_encoder(model, pick_device()) if isinstance(model, str) else model
        self._kept = self.model.max_active_dims
        most = NUMBERS_AT_ONCE // len(self.model.tokenizer)
        self._towers = Towers(
            self.model,
            max_tokens=max_tokens,
            batch_tokens=min(batch_tokens, most),
            precision=precision,
            swap=_faster,
            max_active_dims=self._kept,
        )
        self.fingerprint = self._towers.fingerprint
        if isinstance(model, str):
            with explained(model):  # its modules may not fit together
                self.encode_queries(["a"])
                self.encode_docs(["a"])

    def encode_queries(self, texts: Sequence[str]) -> "csr_array":
        """Return float32 vectors of shape (len(texts), vocabulary) of one or more texts."""
        return self._encode(texts, "query")

    def encode_docs(self, texts: Sequence[str]) -> "csr_array":
        """Return float32 vectors of shape (len(texts), vocabulary) of one or more texts."""
        return self._encode(texts, "document")

    def _encode(self, texts: Sequence[str], side: Side) -> "csr_array":
        from scipy.sparse import csr_array, vstack
        from sentence_transformers.util import select_max_active_dims

        positions, rows = [], []
        for batch, features in self._towers.outputs(texts, side):
            vectors = features["sentence_embedding"]
            if self._kept is not None:
                vectors = select_max_active_dims(vectors, self._kept)
            positions.append(batch)
            rows.append(csr_array(vectors.float().cpu().numpy()))
        return vstack(rows, format="csr")[np.argsort(np.concatenate(positions))]


def _faster(modules: list[Any]) -> list[Any]:
    """Return modules that give the same vectors for less work, where there are such."""
    from retrodistill.models.students.heads import lexical_pooling

    body, *tail = modules
    pooling = lexical_pooling(tail)
    return [body, pooling] if pooling else [body, *map(_pooled_first, tail)]


def _pooled_first(module: Any) -> Any:
    """Return SPLADE's max pooling with the logarithm taken after it; other modules as they are.

    The logarithm is monotonic: of each word's maximum alone it gives the same vector as of all
    tokens' numbers, at a fraction of the cost.
    """
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    if not isinstance(module, SpladePooling) or module.pooling_strategy != "max":
        return module

    def pool(features: dict[str, Any]) -> dict[str, Any]:
        outside = ~features["attention_mask"].bool()[..., None]
        highest = features["token_embeddings"].masked_fill_(outside, 0.0).amax(1)
        vectors = highest.relu_().log1p_()
        if module.activation_function == "log1p_relu":
            vectors = vectors.log1p_()
        return features | {"sentence_embedding": vectors}

    return pool
