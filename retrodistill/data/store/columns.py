"""Columns of ids, in an Arrow type wide enough for them.

A `string` array counts its bytes in 32 bits, so that it ends at 2 GB: 50 million ids of 43 bytes.
Arrow splits such a column into chunks, but what joins or reorders them raises. So a column that
is about to become one array is `string` as long as it fits, and `large_string` beyond.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

LIMIT = (1 << 31) - 1
"""Bytes that one `string` array can hold."""


def widened(column: pa.ChunkedArray, copies: int = 1) -> pa.ChunkedArray:
    """Return a column of strings in a type of which one array holds it, `copies` times over."""
    if not pa.types.is_large_string(column.type):
        column = column.cast(pa.string())
        if copies * (pc.sum(pc.binary_length(column)).as_py() or 0) > LIMIT:
            column = column.cast(pa.large_string())
    return column


def joined(column: pa.ChunkedArray) -> pa.Array:
    """Return a column of strings as one array."""
    if column.num_chunks == 0:
        return pa.array([], column.type)
    return widened(column).combine_chunks()


def coded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a column as numbers in order of first appearance, with their dictionary."""
    return joined(column).dictionary_encode()


def codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a number for each distinct value of a column, in order of first appearance."""
    numbers: NDArray[np.int64] = coded(column).indices.to_numpy().astype(np.int64)
    return numbers


def narrow(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the few rows of a slice in a schema of `string` columns.

    Arrow refuses to cast a slice whose bytes lie beyond 2 GB of what it was cut from.
    """
    columns = [
        pa.array(column.to_pylist(), pa.string())
        if pa.types.is_large_string(column.type)
        else column.cast(field.type)
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.table(columns, schema=schema)
