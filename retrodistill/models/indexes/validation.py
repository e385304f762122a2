"""What every index asks of what comes to it: shapes, finite numbers, new ids."""

from collections.abc import Container, Sequence

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError

Vectors = NDArray[np.float32]


def check_dimension(dimension: int) -> None:
    """Raise ConfigError unless the number of dimensions is at least 1."""
    if dimension < 1:
        raise ConfigError(f"an index needs a dimension of at least 1, but got {dimension}.")


def matrix_of(vectors: Vectors, dimension: int, whose: str) -> Vectors:
    """Return the vectors as a contiguous float32 matrix of the right width.

    Raises:
        DataError: their shape is another one.

    """
    matrix = np.asarray(vectors)
    if matrix.ndim != 2 or matrix.shape[1] != dimension:
        raise DataError(
            f"vectors of shape (n, {dimension}) were wanted for {whose}, but they have "
            f"shape {matrix.shape}. Use the model that the index was made with."
        )
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(matrix, dtype=np.float32)


def checked_documents(
    ids: Sequence[str], vectors: Vectors, dimension: int, known: Container[str]
) -> Vectors:
    """Return the vectors of new documents, whose ids are none of the known ones.

    Raises:
        DataError: a wrong shape, NaN or infinity, an id that is empty, a duplicate or not a string.

    """
    matrix = matrix_of(vectors, dimension, f"{len(ids)} ids")
    if len(matrix) != len(ids):
        raise DataError(f"{len(ids)} ids came with {len(matrix)} vectors: give one each.")
    bad = _first_bad_row(matrix)
    if bad is not None:
        raise DataError(
            f"the vector of id {ids[bad]!r} holds NaN or infinity. "
            "Check the model that made it; nothing was added."
        )
    new: set[str] = set()
    for row, name in enumerate(ids):
        if not isinstance(name, str) or not name:
            raise DataError(f"id {name!r} in row {row} must be a string that is not empty.")
        if name in new or name in known:
            raise DataError(f"id {name!r} in row {row} is a duplicate; nothing was added.")
        new.add(name)
    return matrix


def checked_queries(vectors: Vectors, k: int, dimension: int) -> Vectors:
    """Return the vectors of queries for the best `k` documents.

    Raises:
        DataError: a wrong shape, NaN or infinity.
        ConfigError: `k` is below 1.

    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, but it is {k}.")
    matrix = matrix_of(vectors, dimension, "the queries")
    bad = _first_bad_row(matrix)
    if bad is not None:
        raise DataError(f"query vector {bad} holds NaN or infinity. Check the model.")
    return matrix


def checked_deletions(ids: Sequence[str], known: Container[str]) -> Sequence[str]:
    """Return the ids to delete, after a look that all are known.

    Raises:
        DataError: one is not.

    """
    unknown = [name for name in ids if name not in known]
    if unknown:
        raise DataError(
            f"{len(unknown)} ids are not in the index, such as {unknown[0]!r}: nothing was deleted."
        )
    return ids


def check_attributes(rows: int | None, ids: int, *, others: bool | None) -> None:
    """Raise DataError unless every document of an index comes with attributes, or none does.

    `rows` is the number of rows of attributes (None: no attributes); `others`: whether the
    documents before have some (None: there are none before).
    """
    if rows is not None and rows != ids:
        raise DataError(f"{ids} ids came with {rows} rows of attributes.")
    if ids and others is not None and (rows is not None) != others:
        raise DataError(
            "either every document comes with attributes or none does; nothing was added."
        )


def no_attributes(condition: object) -> ConfigError:
    """Return the error of a condition on documents without attributes."""
    return ConfigError(
        f"the index has no attributes, so that nothing is known of {condition}. "
        "Embed with --attributes."
    )


def _first_bad_row(matrix: Vectors) -> int | None:
    """Return the first row with NaN or infinity, or None."""
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    return int(bad[0]) if len(bad) else None
