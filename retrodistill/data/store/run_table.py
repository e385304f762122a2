"""The table of a run: checked, each pair once, in ranked order."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.data.store.columns import coded, widened

COLUMNS = ("query_id", "doc_id", "score")

Strings: TypeAlias = Sequence[str] | NDArray[Any] | pa.Array | pa.ChunkedArray
Scores: TypeAlias = Sequence[float] | NDArray[Any] | pa.Array | pa.ChunkedArray


def ranked_table(
    query_ids: Strings, doc_ids: Strings, scores: Scores, *, where: Callable[[int], str]
) -> pa.Table:
    """Return the checked table in ranked order; `where` names the place that a row came from."""
    lengths = {len(query_ids), len(doc_ids), len(scores)}
    if len(lengths) > 1:
        raise DataError(
            f"a run needs one document and one score a row, but got {len(query_ids)} query ids, "
            f"{len(doc_ids)} document ids and {len(scores)} scores."
        )
    queries, docs = _strings(query_ids, "query_id", where), _strings(doc_ids, "doc_id", where)
    values = _floats(scores, where)
    codes = coded(queries).indices
    _check_pairs_once(codes, queries, docs, where)
    keys = pa.table({"query": codes, "score": values, "doc": docs})
    order = pc.sort_indices(
        keys, sort_keys=[("query", "ascending"), ("score", "descending"), ("doc", "descending")]
    )
    return pa.table([queries, docs, values], names=COLUMNS).take(order).combine_chunks()


def _strings(values: Strings, name: str, where: Callable[[int], str]) -> pa.ChunkedArray:
    """Return ids as one string column without gaps; columns of whole numbers are taken."""
    try:
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            values = pa.array(values, None if isinstance(values, np.ndarray) else pa.string())
        if not isinstance(values, pa.ChunkedArray):
            values = pa.chunked_array([values])
        if not _is_id_type(values.type):
            raise pa.ArrowTypeError(f"ids cannot be of type {values.type}")
        column = widened(values)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise DataError(f"{name} must be strings ({where(0)}): {error}.") from error
    bad = pc.index(pc.equal(pc.fill_null(column, ""), ""), True).as_py()
    if bad >= 0:
        raise DataError(f"{where(bad)}: {name} is empty. Give each row an id.")
    return column


def _is_id_type(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_id_type(kind.value_type)
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "integer", "null")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def _floats(values: Scores, where: Callable[[int], str]) -> pa.Array:
    """Return scores as float32, without NaN and infinity, and with one zero."""
    try:
        numbers = _numbers(values)
        with np.errstate(over="ignore"):
            scores = numbers.astype(np.float32) + np.float32(0)  # -0 becomes 0: a tie
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"scores must be numbers ({where(0)}): {error}.") from error
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise DataError(
            f"{where(int(bad[0]))}: score is {scores[bad[0]]} ({len(bad)} of {len(scores)}), "
            "but must be a finite float32. Repair or drop what gave it."
        )
    return pa.array(scores)


def _numbers(values: Scores) -> NDArray[Any]:
    """Return scores as an array of real numbers, or raise TypeError."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        kind = values.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise TypeError(f"they are of type {kind}")
        return np.asarray(values.to_numpy(), None if len(values) else np.float32)
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "iufO":  # objects: whole numbers beyond 64 bits
        raise TypeError(f"they are of type {numbers.dtype}")
    return numbers


def _check_pairs_once(
    codes: pa.Array, queries: pa.ChunkedArray, docs: pa.ChunkedArray, where: Callable[[int], str]
) -> None:
    """Raise DataError if a (query, document) pair has two rows."""
    if len(codes) < 2:
        return
    pairs = pa.table({"query": codes, "doc": docs})
    order = pc.sort_indices(pairs, sort_keys=[("query", "ascending"), ("doc", "ascending")])
    pairs = pairs.take(order)
    same = pc.and_(
        *(
            pc.equal(pairs[name].slice(1), pairs[name].slice(0, len(codes) - 1))
            for name in ("query", "doc")
        )
    )
    duplicate = pc.index(same, True).as_py()
    if duplicate >= 0:
        earlier, later = sorted(order.slice(duplicate, 2).to_pylist())
        raise DataError(
            f"{where(later)}: query {queries[later].as_py()!r} has document "
            f"{docs[later].as_py()!r} a second time (first: {where(earlier)}). Keep one of them."
        )
