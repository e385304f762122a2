"""Late interaction: one vector for each token of a text, from a sentence-transformers model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log
from retrodistill.base.manifest import digest
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
    from sentence_transformers import MultiVectorEncoder


def load_late_interaction(
    model: str, device: "torch.device", *, new_projection: bool = False
) -> "MultiVectorEncoder":
    """Return a late-interaction model with float32 weights, from a folder or a hub id.

    Native, PyLate and Stanford ColBERT layouts are read. Only safetensors weights are, and no
    code that comes with a model is run. With `new_projection`, a model that has no projection of
    token vectors, such as a plain BERT or a bi-encoder, gets a random one to train.

    Raises:
        ConfigError: there is no such model, or it has no projection of token vectors and is to
            be used as it is.

    """
    import torch
    from sentence_transformers import MultiVectorEncoder

    model = model_path(model)
    with loading(model):
        loaded: MultiVectorEncoder = MultiVectorEncoder(
            model,
            device=str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
        kind = saved_settings(model, "config_sentence_transformers.json").get("model_type")
        layouts = saved_settings(model, "config.json").get("architectures") or ()
        modules = [module["type"] for module in saved_settings(model, "modules.json")]
    native = kind in ("MultiVectorEncoder", "ColBERT") or "HF_ColBERT" in layouts
    has_projection = native or any(name.endswith("Dense") for name in modules)
    if not has_projection and new_projection:
        width = loaded.get_embedding_dimension()
        log.info(
            f"{model} has no projection of token vectors: a new one to {width} dimensions is "
            "trained."
        )
    elif not has_projection:
        raise ConfigError(
            f"model {model!r} is not a late-interaction model: it was saved without a projection "
            "of token vectors. Give a ColBERT-style model, or use the teacher bi-encoder."
        )
    refuse_new_weights(model, loaded, lacking="complete body", remedy="Use another model.")
    return loaded


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """A batch of texts as token vectors."""

    positions: NDArray[np.int64]
    """Position of each text among all that were given, shape (n,)."""

    vectors: "torch.Tensor"
    """Float32, shape (n, tokens, dimension); rows outside the mask have no meaning."""

    mask: "torch.Tensor"
    """Which tokens count, shape (n, tokens)."""


class LateInteractionEncoder:
    """A late-interaction model that gives token vectors, batch by batch.

    The limits, prompts and number types are those of `Towers`. Each text is encoded as often as it
    is given. A model in memory is used where it is, in evaluation mode.

    Raises:
        ConfigError: the model cannot be loaded, or is not a late-interaction model.

    """

    fingerprint: str
    """Hash of all that shapes a token vector or its use."""

    def __init__(
        self,
        model: "str | MultiVectorEncoder",
        *,
        max_tokens: int | None = None,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        self.model = (
            load_late_interaction(model, pick_device()) if isinstance(model, str) else model
        )
        self._towers = Towers(
            self.model, max_tokens=max_tokens, batch_tokens=batch_tokens, precision=precision
        )
        self.averaged: bool = self.model.similarity_fn_name == "meanmaxsim"
        """Whether a score is divided by the number of the query's tokens."""
        self.fingerprint = digest(self._towers.fingerprint, str(self.averaged))
        if isinstance(model, str):
            with explained(model):  # its modules may not fit together
                for probe in (self.encode_queries(["a"]), self.encode_docs(["a"])):
                    list(probe)

    def encode_queries(self, texts: Sequence[str]) -> Iterator[TokenVectors]:
        """Yield the token vectors of all texts, with expansion tokens where the model has such."""
        return self._encode(texts, "query")

    def encode_docs(self, texts: Sequence[str]) -> Iterator[TokenVectors]:
        """Yield the token vectors of all texts, tokens to be skipped masked."""
        return self._encode(texts, "document")

    def _encode(self, texts: Sequence[str], side: Side) -> Iterator[TokenVectors]:
        for positions, features in self._towers.outputs(texts, side):
            yield TokenVectors(
                positions, features["token_embeddings"], features["attention_mask"].bool()
            )
