"""Bi-encoders: one vector for a text, from a sentence-transformers model."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.config import Precision
from retrodistill.errors import ConfigError, DataError
from retrodistill.inference import (
    Tokens,
    body_dtype,
    loading,
    model_digest,
    padded,
    pick_device,
    run_model,
    token_batches,
    tokenize,
    without_bars,
)
from retrodistill.manifest import digest
from retrodistill.progress import bar
from retrodistill.students.kinds import check_bi_encoder
from retrodistill.students.routes import (
    SIDES,
    Side,
    embedding_dimension,
    is_normalised,
    side_modules,
)

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

WINDOW = 16_384
"""Texts that are tokenised, and sorted by length, at a time."""

BAR_FROM = 512
"""Fewer texts than this are encoded without a progress bar."""


def load_bi_encoder(model: str, device: "torch.device") -> "SentenceTransformer":
    """Return a bi-encoder with float32 weights, from a folder or a hub id.

    Only safetensors weights are read, and no code that comes with a model is run. A folder of a
    bare transformer gets mean pooling.

    Raises:
        ConfigError: there is no such model, or it is no text encoder on a transformer, or it
            makes sparse or several vectors for a text, or scores of pairs.

    """
    import torch
    from sentence_transformers import SentenceTransformer

    with loading(model):
        check_bi_encoder(model)
        loaded = SentenceTransformer(
            model,
            device=str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    _check(loaded)
    return loaded


def side_prompts(model: "SentenceTransformer") -> tuple[str, str]:
    """Return what the model puts before a query and before a document, as its library would."""
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name or "", "")
    names = ("document", "passage", "corpus")
    doc = next((prompts[name] for name in names if name in prompts), default)
    return prompts.get("query", default) or "", doc or ""


class DenseEncoder:
    """A sentence-transformers model as an `Encoder`, with the vectors that its library gives.

    Each distinct text is tokenised and encoded once, in batches of `batch_tokens` padded tokens
    of similar length. The body runs in `precision`; pooling, what follows it, and the vectors are
    float32. `max_tokens` cuts the end of longer texts (default: the model's own limit). A model
    that is given as an object is used where it is, and left as it was. Queries and documents may
    take two ways through it, as in `retrodistill.students.forms.two_towers`.

    Raises:
        ConfigError: the model cannot be loaded, or `max_tokens` is more than it can read.

    """

    fingerprint: str
    """Hash of the weights, settings, vocabulary, prompts, `max_tokens` and number type."""

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
        self._ways = {side: _way(self.model, side) for side in SIDES}
        self._prompts = dict(zip(SIDES, side_prompts(self.model), strict=True))
        self._tokens = _limits(self.model, max_tokens)
        self.fingerprint = digest(
            fingerprint(self.model),
            json.dumps([*self._prompts.values(), *self._tokens.values(), str(self.dtype)]),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the path that it was loaded from, with its settings."""
        if not self._loaded:
            raise ConfigError(
                "workers load the encoder themselves, but this one was given as an object. Save "
                "it, and give the folder."
            )
        path = str(Path(self.name).absolute()) if Path(self.name).is_dir() else self.name
        settings: dict[str, Any] = {
            "max_tokens": self.max_tokens,
            "batch_tokens": self.batch_tokens,
            "precision": str(self.dtype).removeprefix("torch."),
        }
        return partial(DenseEncoder, path, **settings), ()

    @property
    def normalised(self) -> bool:
        """Whether all vectors have length 1, so that inner products are cosines."""
        return is_normalised(self.model)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimension)."""
        return self._encode(texts, "query")

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimension)."""
        return self._encode(texts, "document")

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return how many tokens the model reads of each document, after the cut."""
        rows = self._tokenized(texts, "document")
        return np.array([len(row["input_ids"]) for row in rows], np.int64)

    def save(self, folder: Path) -> None:
        """Write the model into a folder, in sentence-transformers format."""
        with without_bars():
            self.model.save(str(folder), safe_serialization=True)

    def _encode(self, texts: Sequence[str], side: Side) -> NDArray[np.float32]:
        import torch

        if isinstance(texts, str):
            raise DataError(f"a list of texts was wanted, but one string came: {texts[:40]!r}.")
        places: dict[str, int] = {}
        rows = np.array([places.setdefault(text, len(places)) for text in texts], np.int64)
        distinct = list(places)
        vectors = np.empty((len(distinct), self.dimension), np.float32)
        many = len(distinct) >= BAR_FROM
        shown = bar("encoding", len(distinct)) if many else nullcontext(_ignore)
        with shown as advance, evaluating(self.model), torch.inference_mode():
            for start in range(0, len(distinct), WINDOW):
                window = distinct[start : start + WINDOW]
                for batch, found in self._batches(window, side):
                    vectors[start + batch] = found[:, : self.dimension].float().cpu().numpy()
                    advance(len(batch))
        return vectors if len(distinct) == len(texts) else vectors[rows]

    def _batches(
        self, texts: Sequence[str], side: Side
    ) -> Iterator[tuple[NDArray[np.int64], "torch.Tensor"]]:
        """Yield places of texts and their vectors, longest texts first."""
        way, prompt, device = self._ways[side], self._prompts[side], self.model.device
        tokens = self._tokenized(texts, side)
        lengths = [len(row["input_ids"]) for row in tokens]
        # Some poolings leave the prompt out, and need to know how long it is.
        beside = {"prompt_length": _prompt_length(way[0].tokenizer, prompt)} if prompt else {}
        for batch in token_batches(lengths, self.batch_tokens):
            features = padded(way[0].tokenizer, [tokens[row] for row in batch], device) | beside
            yield batch, run_model(way, features, self.dtype)["sentence_embedding"]

    def _tokenized(self, texts: Sequence[str], side: Side) -> list[Tokens]:
        """Return the tokens of a side's texts, behind its prompt and cut at its limit."""
        prompted = [self._prompts[side] + text for text in texts]
        return tokenize(self._ways[side][0].tokenizer, prompted, max_tokens=self._tokens[side])


def fingerprint(model: "SentenceTransformer | CrossEncoder") -> str:
    """Return a hash of a model's weights, its modules' settings and its vocabulary.

    It is the same wherever the model lies and on whatever device it is.
    """
    from sentence_transformers.base.modules import Transformer

    whole = model_digest(repr(model), _config(model), model.tokenizer, model)
    bodies = [part for part in model.modules() if isinstance(part, Transformer)]
    if len(bodies) < 2:
        return whole
    return digest(
        whole, *(model_digest(repr(part), part.config, part.tokenizer, part) for part in bodies)
    )


@contextmanager
def evaluating(model: "torch.nn.Module") -> Iterator[None]:
    """Switch dropout off in the block, and back on where it was on."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _check(model: "SentenceTransformer") -> None:
    """Raise ConfigError unless both sides are transformers that read text, of one dimension."""
    from sentence_transformers.base.modules import Transformer

    ways = {side: side_modules(model, side) for side in SIDES}
    for first, *_ in ways.values():
        if not isinstance(first, Transformer) or "text" not in first.modalities:
            raise ConfigError(
                f"a bi-encoder must start with a transformer that reads text, but this one starts "
                f"with {type(first).__name__}. Use another model."
            )
    query, doc = (embedding_dimension(way) for way in ways.values())
    if query != doc:
        raise ConfigError(
            f"queries have {query} dimensions and documents {doc}, but they are compared with each "
            "other. Give a model whose routes end in equally many."
        )


def _way(model: "SentenceTransformer", side: Side) -> "torch.nn.Sequential":
    """Return what a side's texts pass, as one module that shares the model's parts."""
    from torch.nn import Sequential

    return Sequential(*side_modules(model, side))


def _limits(model: "SentenceTransformer", max_tokens: int | None) -> dict[Side, int]:
    """Return the longest query and the longest document, in tokens.

    Raises:
        ConfigError: `max_tokens` is more than the model has positions for.

    """
    limits: dict[Side, int] = {}
    for side in SIDES:
        body = side_modules(model, side)[0]
        positions = getattr(body.config, "max_position_embeddings", None) or 1 << 20
        if max_tokens is not None and max_tokens > positions:
            raise ConfigError(
                f"--max-tokens {max_tokens} is more than this model can read: {positions} tokens."
            )
        side_length = body.query_length if side == "query" else body.document_length
        own = side_length or min(body.max_seq_length or positions, positions)
        limits[side] = own if max_tokens is None else max_tokens
    return limits


def _config(model: "SentenceTransformer | CrossEncoder") -> Any:
    """Return the settings of the transformer in a model."""
    assert model.transformers_model is not None
    return model.transformers_model.config


def _prompt_length(tokenizer: Any, prompt: str) -> int:
    """Return the tokens of a prompt, with a first special token and without a last one."""
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def _ignore(amount: float) -> None:
    """Move no bar."""
