"""Bi-encoders: one vector for a text, from a sentence-transformers model."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import digest
from retrodistill.base.progress import bar
from retrodistill.data.store.lineage import Lineage, model_lineage
from retrodistill.models.inference import (
    Tokens,
    body_dtype,
    casts_kept,
    explained,
    is_rendered,
    loading,
    model_path,
    padded,
    pick_device,
    positions,
    prompt_length,
    refuse_new_weights,
    rendered,
    reserved,
    run_model,
    token_batches,
    tokenize,
    without_bars,
)
from retrodistill.models.students.kinds import check_bi_encoder
from retrodistill.models.students.towers import (
    SIDES,
    Side,
    embedding_dimension,
    fingerprint,
    is_normalised,
    side_fingerprint,
    side_length,
    side_modules,
    side_prompts,
)

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

WINDOW = 16_384
"""Texts that are tokenised, and sorted by length, at a time."""

ROUND = 8
"""Rows and tokens of a batch of `encode_tokens` are multiples of this."""

BAR_FROM = 512
"""Fewer texts than this are encoded without a progress bar."""

_evaluated: "WeakKeyDictionary[Any, tuple[int, list[Any]]]" = WeakKeyDictionary()
"""Open blocks of `evaluating` of each model, and its modules that go back to training mode."""
_switching = Lock()


def load_bi_encoder(model: str, device: "torch.device") -> "SentenceTransformer":
    """Return a bi-encoder with float32 weights, from a folder or a hub id.

    Only safetensors weights are read, and no code that comes with a model is run. A folder of a
    bare transformer gets mean pooling.

    Raises:
        ConfigError: there is no such model, it lacks weights, it does not encode text by a
            transformer, or it gives a text a sparse or several vectors, or scores pairs.

    """
    import torch
    from sentence_transformers import SentenceTransformer

    model = model_path(model)
    with loading(model):
        check_bi_encoder(model)
        loaded = SentenceTransformer(
            model,
            device=str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
        _check(loaded)
        _check_lengths(loaded)
    refuse_new_weights(model, loaded, lacking="complete body", remedy="Use another model.")
    return loaded


class DenseEncoder:
    """A sentence-transformers model as an `Encoder`, whose vectors are those of its library.

    Each distinct text is tokenised and encoded once, in batches of `batch_tokens` padded tokens
    of similar length. The body runs in `precision`; pooling, what follows it, and the vectors are
    float32. `max_tokens` cuts the end of longer texts (default: the model's own limit). A model
    in memory is used where it is, and stays as it is. Queries and documents may
    run through different modules, as in `towers.two_towers`. Prompts and chat templates are
    those of its library.

    Threads may encode at the same time; vectors are those of a single thread.

    Raises:
        ConfigError: the model cannot be loaded, or `max_tokens` is more than it has positions for.

    """

    fingerprint: str
    """Hash of the weights, settings, tokenizer, prompts, `max_tokens` and number type."""

    dimension: int

    def __init__(
        self,
        model: "str | Path | SentenceTransformer",
        *,
        max_tokens: int | None = None,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        if isinstance(model, (str, Path)):
            self.model = load_bi_encoder(str(model), pick_device())
        else:
            _check(model)
            self.model = model
        self._loaded = isinstance(model, (str, Path))
        self.name = str(model) if self._loaded else type(model).__name__
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens
        self.dtype = body_dtype(precision, self.model.device)
        self.dimension = int(self.model.get_embedding_dimension() or 0)
        self._routes = {side: _route(self.model, side) for side in SIDES}
        self._prompts = dict(zip(SIDES, side_prompts(self.model), strict=True))
        self._tokens = text_limits(self.model, max_tokens)
        self._prompt_features = {side: self._prompt_length(side) for side in SIDES}
        self.fingerprint = digest(
            fingerprint(self.model),
            json.dumps([*self._prompts.values(), *self._tokens.values(), str(self.dtype)]),
        )
        if self._loaded:
            with explained(self.name):  # its modules may not fit together
                for side in SIDES:
                    self._encode(["a"], side)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the path that the model was loaded from, with the settings."""
        if not self._loaded:
            raise ConfigError(
                "workers load the encoder themselves, but this model is in memory only. Save it, "
                "and give the folder."
            )
        path = str(Path(self.name).absolute()) if Path(self.name).is_dir() else self.name
        settings: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "batch_tokens": self.batch_tokens,
            "precision": str(self.dtype).removeprefix("torch."),
        }
        return partial(DenseEncoder, path, **settings), ()

    @property
    def lineage(self) -> Lineage:
        """What the model was trained on, as far as it is recorded."""
        return model_lineage(self.name)

    @property
    def doc_fingerprint(self) -> str:
        """Hash of all that shapes a document's vector, and of nothing that queries alone read.

        A model and a Router whose document route is a copy of it share it, so that the vectors
        and indexes of one are those of the other.
        """
        return self.doc_fingerprint_in(str(self.dtype))

    def doc_fingerprint_in(self, dtype: str) -> str:
        """Return what `doc_fingerprint` is where the body runs in a number type."""
        limits = [self._prompts["document"], self._tokens["document"], self.dimension]
        dtype = dtype.removeprefix("torch.")
        return digest("document", self._doc_side, json.dumps([*limits, dtype]))

    @cached_property
    def _doc_side(self) -> str:
        return side_fingerprint(self.model, "document")

    @property
    def normalised(self) -> bool:
        """Whether all vectors have length 1, so that inner products are cosines."""
        return is_normalised(self.model)

    @property
    def docs_normalised(self) -> bool:
        """Whether documents' vectors have length 1, whatever the queries' have."""
        return is_normalised(self.model, "document")

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimension)."""
        return self._encode(texts, "query")

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimension)."""
        return self._encode(texts, "document")

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return how many tokens the model reads of each document, after the cut."""
        rows, _ = self.tokenized(texts, "document")
        return np.array([len(row["input_ids"]) for row in rows], np.int64)

    def tokenized(self, texts: Sequence[str], side: Side) -> tuple[list[Tokens], dict[str, Any]]:
        """Return the tokens of a side's texts, prompted and cut, and what a batch needs beside.

        For callers that make their own batches: tokens of several calls may share one.
        """
        body, prompt, limit = self._routes[side][0], self._prompts[side], self._tokens[side]
        if is_rendered(body):
            return rendered(body, texts, prompt=prompt, max_tokens=limit, task=side)
        rows = tokenize(body.tokenizer, [prompt + text for text in texts], max_tokens=limit)
        return rows, self._prompt_features[side]

    def encode_tokens(
        self, rows: Sequence[Tokens], beside: dict[str, Any], side: Side
    ) -> NDArray[np.float32]:
        """Return vectors of shape (len(rows), dimension) by one forward pass over a batch.

        Its rows and its length are multiples of ROUND, where that is possible: processors compile
        a kernel for each shape, and keep it, and batches of many callers have ever new shapes.
        """
        count = len(rows)
        if count > ROUND:
            rows = [*rows, *[rows[-1]] * (-count % ROUND)]
        longest = max(len(row["input_ids"]) for row in rows)
        fits = longest + -longest % ROUND <= self.max_length(side)
        with self.encoding():
            return self._forward(rows, beside, side, multiple=ROUND if fits else None)[:count]

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Prepare the model once for all that this thread encodes in the block."""
        with evaluating(self.model), casts_kept(self.dtype, self.model.device):
            yield

    def max_length(self, side: Side) -> int:
        """Return the longest query or document that is read whole, in tokens."""
        return self._tokens[side]

    def count_whole(self, texts: Sequence[str], side: Side) -> list[int]:
        """Return how many tokens each text of a side has, with its prompt and without a cut."""
        tokenizer: Any = self._routes[side][0].tokenizer
        prompt = self._prompts[side]
        with reserved(tokenizer):
            rows = tokenizer([prompt + text for text in texts], verbose=False)["input_ids"]
        return [len(row) for row in rows]

    def save(self, folder: Path) -> None:
        """Write the model into a folder, in sentence-transformers format.

        The files do not depend on what was encoded before.
        """
        for module in self.model.modules():
            _forget_lengths(getattr(module, "tokenizer", None))
        with without_bars():
            self.model.save(str(folder), safe_serialization=True)

    def _encode(self, texts: Sequence[str], side: Side) -> NDArray[np.float32]:
        if isinstance(texts, str):
            raise DataError(f"expected a list of texts, but got one string: {texts[:40]!r}.")
        positions: dict[str, int] = {}
        rows = np.array([positions.setdefault(text, len(positions)) for text in texts], np.int64)
        distinct = list(positions)
        vectors = np.empty((len(distinct), self.dimension), np.float32)
        shows_bar = len(distinct) >= BAR_FROM
        shown = bar("encoding", len(distinct)) if shows_bar else nullcontext(_ignore)
        with shown as advance, self.encoding():
            for start in range(0, len(distinct), WINDOW):
                window = distinct[start : start + WINDOW]
                for batch, batch_vectors in self._batches(window, side):
                    vectors[start + batch] = batch_vectors
                    advance(len(batch))
        return vectors if len(distinct) == len(texts) else vectors[rows]

    def _batches(
        self, texts: Sequence[str], side: Side
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield positions of texts and their vectors, longest texts first."""
        tokens, beside = self.tokenized(texts, side)
        lengths = [len(row["input_ids"]) for row in tokens]
        for batch in token_batches(lengths, self.batch_tokens):
            yield batch, self._forward([tokens[row] for row in batch], beside, side)

    def _forward(
        self,
        rows: Sequence[Tokens],
        beside: dict[str, Any],
        side: Side,
        *,
        multiple: int | None = None,
    ) -> NDArray[np.float32]:
        """Return the vectors of a batch, inside `evaluating` and without gradients."""
        route = self._routes[side]
        batch = padded(route[0].tokenizer, rows, self.model.device, multiple=multiple)
        features = batch.joined(beside)
        vectors = run_model(route, features, self.dtype)["sentence_embedding"]
        array: NDArray[np.float32] = vectors[:, : self.dimension].float().cpu().numpy()
        return array

    def _prompt_length(self, side: Side) -> dict[str, int]:
        """Return the length of a prompt, for poolings that exclude it."""
        prompt, body = self._prompts[side], self._routes[side][0]
        return {"prompt_length": prompt_length(body.tokenizer, prompt)} if prompt else {}


def _forget_lengths(tokenizer: Any) -> None:
    """Reset the truncation and padding of a tokenizer's last call, which it would save."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        with reserved(tokenizer):
            backend.no_truncation()
            backend.no_padding()


@contextmanager
def evaluating(model: "torch.nn.Module") -> Iterator[None]:
    """Switch dropout off in the block, and back on where it was on after the last block.

    Blocks may overlap, in one thread or in several.
    """
    with _switching:
        blocks, training = _evaluated.get(model, (0, []))
        if not blocks:
            training = [module for module in model.modules() if module.training]
            model.eval()
        _evaluated[model] = blocks + 1, training
    try:
        yield
    finally:
        with _switching:
            blocks, training = _evaluated.pop(model)
            if blocks > 1:
                _evaluated[model] = blocks - 1, training
            else:
                for module in training:
                    module.training = True


def _check(model: "SentenceTransformer") -> None:
    """Raise ConfigError unless both sides are transformers for text with one dimension."""
    from sentence_transformers.base.modules import Transformer

    routes = {side: side_modules(model, side) for side in SIDES}
    for body, *_ in routes.values():
        if not isinstance(body, Transformer) or "text" not in body.modalities:
            raise ConfigError(
                f"a bi-encoder must start with a transformer that reads text, but this one starts "
                f"with {type(body).__name__}. Use another model."
            )
    query, doc = (embedding_dimension(route) for route in routes.values())
    if query != doc:
        raise ConfigError(
            f"queries have {query} dimensions and documents {doc}, but they are compared with each "
            "other. Give a model whose routes end in the same dimension."
        )


def _check_lengths(model: "SentenceTransformer") -> None:
    """Raise ValueError if a Normalize reads a feature that no module writes."""
    from sentence_transformers.base.modules import Normalize

    for module in model.modules():
        if isinstance(module, Normalize):
            for name in (module.module_input_name, module.module_output_name):
                if name not in ("sentence_embedding", "token_embeddings"):
                    raise ValueError(f"its Normalize is for {name!r}, which no module has")


def _route(model: "SentenceTransformer", side: Side) -> "torch.nn.Sequential":
    """Return a side's modules as one, sharing their weights."""
    from torch.nn import Sequential

    return Sequential(*side_modules(model, side))


def text_limits(model: "SentenceTransformer", max_tokens: int | None = None) -> dict[Side, int]:
    """Return the longest query and the longest document, in tokens.

    `max_tokens` may raise or lower the model's general limit, but not raise a limit that the
    model sets for one side. A query tower with fewer positions cuts its queries there.

    Raises:
        ConfigError: `max_tokens` is more than the model has positions for in a document.

    """
    limits: dict[Side, int] = {}
    for side in SIDES:
        body = side_modules(model, side)[0]
        longest = positions(body.model) or 1 << 20
        if side == "document" and max_tokens is not None and max_tokens > longest:
            raise ConfigError(
                f"--max-tokens {max_tokens} is more than this model can read: {longest} tokens."
            )
        if length := side_length(model, side):
            limits[side] = min(length, max_tokens or length, longest)
        else:
            limits[side] = min(max_tokens or body.max_seq_length or longest, longest)
    return limits


def _ignore(amount: float) -> None:
    """Ignore progress."""
