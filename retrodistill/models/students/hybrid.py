"""One body with three heads: a vector, weights of words, and a vector for each token.

Saved, each head is a model of its own in the library's format: the folder itself is the dense one,
`sparse` and `multi-vector` below it are the others.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.models.inference import explained, model_path, pick_device
from retrodistill.models.students.dense import load_bi_encoder
from retrodistill.models.students.heads import (
    lexical_pooling,
    new_multi_vector_head,
    new_sparse_head,
)
from retrodistill.models.students.late_interaction import TokenVectors, load_late_interaction
from retrodistill.models.students.maxsim import QueryTokens, maxsim
from retrodistill.models.students.sparse import load_sparse_encoder
from retrodistill.models.students.towers import Side, Towers, is_normalised
from retrodistill.objectives.labels import HEADS

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder

DENSE, SPARSE, MULTI = HEADS

HEAD_WEIGHTS = {DENSE: 1.0, SPARSE: 0.3, MULTI: 1.0}
"""Weights of the heads' scores in their sum, those of BGE-M3."""


class HybridModel(nn.Module):
    """A bi-encoder, and two more heads that read the token vectors of its transformer.

    Whatever is asked of it as a model (prompts, tokenizer, limits, modules) is the bi-encoder's.
    """

    def __init__(
        self, dense: "SentenceTransformer", sparse: Sequence[nn.Module], multi: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.dense = dense
        self.tails = nn.ModuleDict({SPARSE: nn.ModuleList(sparse), MULTI: nn.ModuleList(multi)})
        """The modules of each other head, after the transformer."""

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.dense)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "dense":  # a copy that is being made
                raise
            return getattr(self.dense, name)

    @property
    def prompts(self) -> dict[str, str | None]:
        """The prompts of queries and documents, which all heads share."""
        return self.dense.prompts

    @prompts.setter
    def prompts(self, prompts: dict[str, str | None]) -> None:
        self.dense.prompts = prompts

    def sparse_encoder(self) -> "SparseEncoder":
        """Return the sparse head as a model, which shares its weights."""
        from sentence_transformers import SparseEncoder

        return SparseEncoder(modules=self._modules_of(SPARSE), **self._settings())

    def multi_vector_encoder(self) -> "MultiVectorEncoder":
        """Return the multi-vector head as a model, which shares its weights."""
        from sentence_transformers import MultiVectorEncoder

        return MultiVectorEncoder(
            modules=self._modules_of(MULTI), similarity_fn_name="meanmaxsim", **self._settings()
        )

    def save(self, folder: str, *, safe_serialization: bool = True) -> None:
        """Write the dense model into a folder, and the others into its subfolders."""
        models = {"": self.dense, SPARSE: self.sparse_encoder(), MULTI: self.multi_vector_encoder()}
        for name, model in models.items():
            model.save(
                str(Path(folder, name)),
                create_model_card=False,
                safe_serialization=safe_serialization,
            )

    def heads(self, features: dict[str, Any], side: Side) -> tuple[Tensor, Tensor, Tensor]:
        """Return what each head makes of the token vectors in the features of texts.

        Vectors (n, D), weights of words (n, V) and token vectors (n, T, d), which are zero where a
        token does not count.
        """
        dense = _through(list(self.dense)[1:], features, side)["sentence_embedding"]
        return dense, *self.other_heads(features, side)

    def other_heads(self, features: dict[str, Any], side: Side) -> tuple[Tensor, Tensor]:
        """Return the weights of words (n, V) and the token vectors (n, T, d)."""
        sparse: Any = self.tails[SPARSE]
        pooling = lexical_pooling(list(sparse))
        assert pooling is not None, "the sparse head is not one of `new_sparse_head`"
        weights = pooling(features)["sentence_embedding"]
        outputs = _through(self.tails[MULTI], features, side)  # type: ignore[arg-type]
        return weights, outputs["token_embeddings"] * outputs["attention_mask"].bool()[..., None]

    def _modules_of(self, head: str) -> list[nn.Module]:
        return [self.dense[0], *self.tails[head]]  # type: ignore[misc]

    def _settings(self) -> dict[str, Any]:
        return {
            "prompts": dict(self.dense.prompts),
            "default_prompt_name": self.dense.default_prompt_name,
            "device": str(self.dense.device),
        }


def load_hybrid(model: str, device: torch.device) -> HybridModel:
    """Return a hybrid student from its folder, or one with new heads from that of a bi-encoder.

    Raises:
        ConfigError: there is no such bi-encoder, its sides are different models, or a head in its
            folder belongs to another body.

    """
    from sentence_transformers.base.modules import Normalize, Transformer

    dense = load_bi_encoder(model, device)
    body = dense[0]
    if not isinstance(body, Transformer):
        raise ConfigError(f"{model} has two towers, but the heads of a hybrid student share one.")
    if not is_normalised(dense):
        dense.append(Normalize())
    folder = Path(model_path(model))
    new = []
    tails: dict[str, list[nn.Module]] = {}
    loaders: dict[str, Callable[..., Any]] = {
        SPARSE: load_sparse_encoder,
        MULTI: load_late_interaction,
    }
    for head, load in loaders.items():
        if (folder / head).is_dir():
            saved = load(str(folder / head), device)
            _check_head(folder / head, saved, body)
            tails[head] = list(saved)[1:]
        else:
            new.append(head)
            tails[head] = new_sparse_head(body) if head == SPARSE else new_multi_vector_head(body)
    if new:
        log.info(
            f"{model} has no {' and no '.join(new)} head: new ones are trained, a random "
            "projection of token vectors and about equal weights of words."
        )
    return HybridModel(dense, tails[SPARSE], tails[MULTI]).to(device)


class HybridEncoder:
    """A hybrid student whose heads are read together, in one pass of its body.

    Raises:
        ConfigError: the model cannot be loaded, or has no saved heads.

    """

    fingerprint: str
    """Hash of all that shapes a score."""

    def __init__(
        self,
        model: str | HybridModel,
        *,
        max_tokens: int | None = None,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        if isinstance(model, str):
            folder = Path(model_path(model))
            if not all((folder / head).is_dir() for head in (SPARSE, MULTI)):
                raise ConfigError(
                    f"{model} is not a hybrid student: it lacks the folders {SPARSE} and {MULTI}. "
                    "Train one with --student-kind hybrid."
                )
        self.model = load_hybrid(model, pick_device()) if isinstance(model, str) else model
        self._towers = Towers(
            self.model, max_tokens=max_tokens, batch_tokens=batch_tokens, precision=precision
        )
        self.fingerprint = self._towers.fingerprint
        if isinstance(model, str):
            with explained(model):
                self.scorer(["a"])(["a"])

    def scorer(self, queries: Sequence[str]) -> Callable[[Sequence[str]], NDArray[np.float32]]:
        """Return what scores documents' texts for these queries, by the sum of the heads."""
        dense, sparse, multi = self._queries(queries)
        asked = sparse.any(0).nonzero().flatten()  # words that some query has
        sparse = sparse[:, asked]

        def score(texts: Sequence[str]) -> NDArray[np.float32]:
            scores = np.empty((len(queries), len(texts)), np.float32)
            for rows, vectors, words, tokens in self._encode(texts, "document"):
                pairs = np.full(len(rows), len(queries))
                every = np.tile(np.arange(len(queries)), len(rows))
                best = maxsim(multi, every, tokens, pairs).reshape(len(rows), len(queries)).T
                scores[:, rows] = (
                    HEAD_WEIGHTS[DENSE] * (dense @ vectors.T).cpu().numpy()
                    + HEAD_WEIGHTS[SPARSE] * (sparse @ words[:, asked].T).cpu().numpy()
                    + HEAD_WEIGHTS[MULTI] * best / np.maximum(multi.counts, 1)[:, None]
                )
            return scores

        return score

    def _queries(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, QueryTokens]:
        rows, dense, sparse, tokens = zip(*self._encode(texts, "query"), strict=True)
        order = torch.from_numpy(np.argsort(np.concatenate(rows)))
        multi = QueryTokens.of(tokens, len(texts))
        return torch.cat(dense)[order], torch.cat(sparse)[order], multi

    def _encode(
        self, texts: Sequence[str], side: Side
    ) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor, TokenVectors]]:
        """Yield positions of texts, their vectors, weights of words and token vectors."""
        if isinstance(texts, str):
            raise DataError(f"expected a list of texts, but got one string: {texts[:40]!r}.")
        for rows, features in self._towers.outputs(texts, side):
            with torch.inference_mode():
                words, tokens = self.model.other_heads(features, side)
            counting = tokens.any(-1)
            yield rows, features["sentence_embedding"], words, TokenVectors(rows, tokens, counting)


def _through(modules: Sequence[nn.Module], features: dict[str, Any], side: Side) -> dict[str, Any]:
    features = dict(features)
    for module in modules:
        takes_side = "task" in getattr(module, "forward_kwargs", ())
        features = module(features, **({"task": side} if takes_side else {}))
    return features


def _check_head(folder: Path, head: Any, body: Any) -> None:
    """Raise ConfigError unless a saved head reads the token vectors of this body."""
    weights, expected = head[0].state_dict(), body.state_dict()
    same = weights.keys() == expected.keys() and all(
        torch.equal(weights[name], expected[name]) for name in weights
    )
    if not same:
        raise ConfigError(
            f"{folder} is the head of another body than {folder.parent}: train on from a folder "
            "whose heads were saved together, or remove it, and a new head is trained."
        )
