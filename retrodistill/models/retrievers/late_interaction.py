"""Exact MaxSim over the token vectors of all documents: a ColBERT student as a first stage."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.progress import bar
from retrodistill.base.types import RetrieverOptions
from retrodistill.models.retrievers.encoded import EncodedRetriever
from retrodistill.models.students.maxsim import QueryTokens, maxsim

if TYPE_CHECKING:
    import torch

    from retrodistill.data.datasets import Texts
    from retrodistill.models.students.late_interaction import LateInteractionEncoder, TokenVectors

TOKENS, COUNTS = "tokens.f32", "counts.npy"
"""Files: the vectors of all tokens that count, one after another, and how many a document has."""

DOCS_AT_ONCE = 512
"""Documents that are encoded, and later compared, at once."""

QUERIES_AT_ONCE = 256
"""Queries that are compared with a block of documents at once."""


class LateInteractionRetriever(EncodedRetriever):
    """The documents of highest MaxSim, of all documents: exact, for small collections.

    Token vectors lie in a file and are read block by block, so that memory stays bounded; the time
    of a query grows with the collection. For a large one, let another first stage find candidates
    and rerank them: `score --teacher late-interaction:MODEL`, then `fuse --method rerank`.
    """

    name = "late-interaction"

    @staticmethod
    def _encoder_class() -> "type[LateInteractionEncoder]":
        from retrodistill.models.students.late_interaction import LateInteractionEncoder

        return LateInteractionEncoder

    @classmethod
    def open(cls, folder: Path, model: str, options: RetrieverOptions) -> Self:
        """Return the retriever that was saved in a folder, with its model.

        Raises:
            DataError: a file is damaged.

        """
        retriever = cls(model, None, options)
        retriever._tokens = _TokenFile.read(folder)
        return retriever

    @cached_property
    def _tokens(self) -> "_TokenFile":
        folder = tempfile.mkdtemp(prefix="retrodistill-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return self._written(Path(folder))

    @property
    def nbytes(self) -> int:
        """Bytes of the file of token vectors."""
        return int(self._tokens.ends[-1]) * self._tokens.dimension * 4

    def save(self, folder: Path) -> None:
        """Encode the documents into a folder, and search there from now on."""
        self._tokens = self._written(folder)

    def _written(self, folder: Path) -> "_TokenFile":
        return _TokenFile.write(self.encoder, self._docs, folder)

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's best documents, and all equal to the last."""
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            yield from self._top(queries[start : start + QUERIES_AT_ONCE], k)

    def _top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        import torch

        empty = np.empty(0, np.int64), np.empty(0, np.float32)
        best = [empty] * len(queries)
        with torch.inference_mode():
            tokens = QueryTokens.of(self.encoder.encode_queries(queries), len(queries))
            for start in range(0, len(self._tokens.counts), DOCS_AT_ONCE):
                docs = self._tokens.block(start, self.encoder.model.device)
                rows = np.arange(len(docs.positions)) + start
                # (documents, queries): every document of the block with every query
                every = np.tile(np.arange(len(queries)), len(rows))
                pairs = np.full(len(rows), len(queries))
                scores = maxsim(tokens, every, docs, pairs).reshape(len(rows), len(queries))
                if self.encoder.averaged:
                    scores /= np.maximum(tokens.counts, 1)
                for query, values in enumerate(scores.T.astype(np.float32)):
                    best[query] = keep_best(*best[query], rows, values, k)
        for rows, values in best:
            order = np.argsort(-values, kind="stable")
            yield rows[order], values[order]


def keep_best(
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    new_rows: NDArray[np.int64],
    new_scores: NDArray[np.float32],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the `k` best of both, and all that equal the last of them."""
    rows, scores = np.concatenate([rows, new_rows]), np.concatenate([scores, new_scores])
    if len(scores) <= k:
        return rows, scores
    reached = scores >= np.partition(scores, -k)[-k]
    return rows[reached], scores[reached]


@dataclass(frozen=True, eq=False, slots=True)
class _TokenFile:
    """The vectors of all tokens that count, one after another in a file."""

    path: Path
    counts: NDArray[np.int64]
    """The number of tokens of each document."""

    ends: NDArray[np.int64]
    """Where the tokens of each document end."""

    dimension: int

    @classmethod
    def write(cls, encoder: "LateInteractionEncoder", docs: "Texts", folder: Path) -> Self:
        """Encode the documents into a folder."""
        counts, dimension = np.zeros(len(docs), np.int64), 0
        with (folder / TOKENS).open("wb") as stream, bar("encoding", len(docs)) as advance:
            for start in range(0, len(docs), DOCS_AT_ONCE):
                rows = np.arange(start, min(start + DOCS_AT_ONCE, len(docs)))
                vectors: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(rows)
                for batch in encoder.encode_docs(docs.full_texts(rows)):
                    for position, tokens, mask in zip(
                        batch.positions, batch.vectors, batch.mask, strict=True
                    ):
                        vectors[position] = tokens[mask].float().cpu().numpy()
                counts[rows] = [len(each) for each in vectors]
                dimension = vectors[0].shape[1]
                stream.write(np.concatenate(vectors).tobytes())
                advance(len(rows))
        np.save(folder / COUNTS, counts)
        return cls(folder / TOKENS, counts, np.cumsum(counts), dimension)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open the file in a folder.

        Raises:
            DataError: it is missing or damaged.

        """
        path = folder / TOKENS
        try:
            counts: NDArray[np.int64] = np.load(folder / COUNTS)
            total, size = int(counts.sum()), path.stat().st_size
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} cannot be read ({error}). Embed again.") from error
        if total == 0 or size % (4 * total):
            raise DataError(f"{path} is damaged: {size:,} bytes for {total:,} tokens. Embed again.")
        return cls(path, counts, np.cumsum(counts), size // (4 * total))

    def block(self, start: int, device: "torch.device") -> "TokenVectors":
        """Return the token vectors of DOCS_AT_ONCE documents, padded."""
        import torch

        from retrodistill.models.students.late_interaction import TokenVectors

        counts = self.counts[start : start + DOCS_AT_ONCE]
        before = int(self.ends[start] - counts[0])
        flat = np.fromfile(
            self.path,
            np.float32,
            count=int(counts.sum()) * self.dimension,
            offset=before * self.dimension * 4,
        ).reshape(-1, self.dimension)
        # (documents, tokens): which of the padded positions are tokens
        real = np.arange(max(1, counts.max())) < counts[:, None]
        padded = np.zeros((*real.shape, self.dimension), np.float32)
        padded[real] = flat
        return TokenVectors(
            np.arange(len(counts)),
            torch.from_numpy(padded).to(device),
            torch.from_numpy(real).to(device),
        )
