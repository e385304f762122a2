"""The first dimensions of an encoder's vectors, as Matryoshka training makes them useful."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.base.types import Encoder, doc_fingerprint_of


def shortened(
    vectors: NDArray[np.float32], dimension: int, *, normalised: bool
) -> NDArray[np.float32]:
    """Return the first dimensions of vectors, of length 1 again where the whole ones were.

    Source: Kusupati et al. 2022, arXiv:2205.13147.
    """
    first = np.ascontiguousarray(vectors[:, :dimension])
    if not normalised:
        return first
    lengths = np.linalg.norm(first, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(
        first, lengths, out=np.zeros_like(first), where=lengths > 0
    )
    return unit


class Truncated:
    """An encoder that gives only the first dimensions of another one.

    Raises:
        ConfigError: the dimension exceeds the encoder's.

    """

    def __init__(self, encoder: Encoder, dimension: int, *, normalised: bool) -> None:
        if not 1 <= dimension <= encoder.dimension:
            raise ConfigError(
                f"--dimensions must be from 1 to the model's {encoder.dimension}, "
                f"but it is {dimension}."
            )
        self.encoder = encoder
        self.dimension = dimension
        self.normalised = normalised
        self.fingerprint = digest(encoder.fingerprint, str(dimension))
        self._docs = str([dimension, normalised])

    @property
    def doc_fingerprint(self) -> str:
        """Hash of all that shapes a document's vector."""
        return digest(doc_fingerprint_of(self.encoder), self._docs)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimension)."""
        whole = self.encoder.encode_queries(texts)
        return shortened(whole, self.dimension, normalised=self.normalised)

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (len(texts), dimension)."""
        whole = self.encoder.encode_docs(texts)
        return shortened(whole, self.dimension, normalised=self.normalised)
