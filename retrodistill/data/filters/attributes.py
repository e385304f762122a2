"""Attributes of documents (metadata): typed columns, and which rows match a condition.

`columns` holds the types, `matching` evaluates conditions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically
from retrodistill.data.filters.columns import KINDS, cast, examples, typed, unknown
from retrodistill.data.filters.expressions import Expression
from retrodistill.data.filters.matching import evaluated

MERGED = 65_536
"""Rows up to which neighbouring chunks of a column become one."""


class Attributes:
    """Typed columns, one row a vector; see `columns` for the types. Immutable.

    A missing value is None, or NaN in a column of numbers. It matches neither a comparison nor its
    negation, as in SQL: where the year is missing, neither `year > 2020` nor `not year > 2020`
    holds, and `year > 2020 or year is missing` includes it. An empty list is not missing: it
    contains nothing.

    Make one with `from_table` or `from_columns`, which check the columns.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        """The columns, each of a type of `columns`."""

    @classmethod
    def from_table(cls, table: pa.Table) -> "Attributes":
        """Return the attributes in an Arrow table, each column in a type of `columns`.

        Raises:
            DataError: a column of another type, or two of the same name.

        """
        names = table.column_names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names:
            raise DataError(
                f"attributes need distinct names that are not empty, but {(twice or [''])[0]!r} "
                "is empty or repeated. Rename a column."
            )
        columns = [typed(name, table[name]) for name in names]
        return cls(pa.table(dict(zip(names, columns, strict=True))) if names else table)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> "Attributes":
        """Return the attributes in columns of equal length, with None where a value is missing.

        Raises:
            DataError: values of different types in one column, or columns of different lengths.

        """
        arrays = {}
        for name, values in columns.items():
            try:
                arrays[name] = pa.array(values)
            except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
                raise DataError(
                    f"column {name!r} cannot be stored: {error}. Values of a column must be of one "
                    "type: convert them."
                ) from error
        lengths = {name: len(values) for name, values in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns must be equally long, but their lengths are {lengths}.")
        return cls.from_table(pa.table(arrays))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        columns = (f"{field.name}: {KINDS[field.type]}" for field in self.table.schema)
        return f"Attributes({len(self)} rows; {', '.join(columns)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Attributes) and bool(self.table.equals(other.table))

    __hash__ = None  # type: ignore[assignment]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.table.column_names)

    def append(self, other: "Attributes") -> "Attributes":
        """Return these rows, followed by the rows of `other`.

        Where `other` lacks a column, its rows have a missing value. Whole numbers are accepted in
        a column of numbers, rounded beyond 2^53, and a column without any value fits every type.

        Raises:
            DataError: `other` has a column that these rows lack (a misspelt name would hide its
                values otherwise), or a column of another type.

        """
        for name in other.names:
            if name not in self.names:
                raise DataError(
                    f"the new rows have a column {name!r}, but {unknown(name, self.names)} Rename "
                    "it, or add this column to the existing rows, with None for missing values."
                )
        columns = {}
        for name in self.names:
            mine, empty = self.table[name], pa.chunked_array([pa.nulls(len(other))])
            theirs = other.table[name] if name in other.names else empty
            types = {mine.type, theirs.type} - {pa.null()}
            if types == {pa.int64(), pa.float64()} and mine.type == pa.float64():
                types = {pa.float64()}
            if len(types) > 1:
                raise DataError(
                    f"column {name!r} holds {KINDS[mine.type]}{examples(mine)}, but in the new "
                    f"rows {KINDS[theirs.type]}{examples(theirs)}. Convert them."
                )
            target = types.pop() if types else pa.null()
            before = mine.chunks if mine.type == target else mine.cast(target).chunks
            columns[name] = pa.chunked_array(
                _few([*before, *cast(theirs, target).chunks]), type=target
            )
        return Attributes(pa.table(columns)) if columns else self

    def take(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> "Attributes":
        """Return the requested rows, in the requested order.

        Raises:
            IndexError: a row is out of range.

        """
        positions = np.asarray(rows, dtype=np.int64)
        if len(positions) and not (positions.min() >= 0 and positions.max() < len(self)):
            raise IndexError(f"rows {positions.min()} to {positions.max()} of {len(self)}")
        return Attributes(self.table.take(pa.array(positions)))

    def matching(self, expression: Expression) -> NDArray[np.bool_]:
        """Return for each row whether it matches a condition.

        Raises:
            ConfigError: the condition names an unknown column, compares a column with a value of
                another type, or uses < or > on a type without order.

        """
        matches = evaluated(expression, self.table)
        return np.asarray(pc.fill_null(matches, False).to_numpy(), dtype=np.bool_)

    def estimate(self, expression: Expression) -> float:
        """Return the share of rows that match a condition, by counting; 0 if there are no rows."""
        return float(self.matching(expression).mean()) if len(self) else 0.0

    def write(self, path: Path) -> None:
        """Write one Arrow file, atomically."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        write_atomically(Path(path), sink.getvalue())

    @classmethod
    def read(cls, path: Path) -> "Attributes":
        """Open a file that `write` wrote; the columns stay on disk until they are used.

        Raises:
            DataError: the file does not exist or is damaged.

        """
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as opened:
                table = opened.read_all()
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{path} cannot be read as attributes ({error}). Write them again."
            ) from error
        return cls.from_table(table)


def _few(chunks: list[pa.Array]) -> list[pa.Array]:
    """Join the last chunks while the later is as large as the one before, up to MERGED rows.

    So rows that come one by one are copied a few times each, and do not end in a chunk each.
    """
    chunks = [chunk for chunk in chunks if len(chunk)]
    while len(chunks) > 1:
        before, last = chunks[-2:]
        if len(before) > len(last) or len(before) + len(last) > MERGED:
            break
        chunks[-2:] = [pa.concat_arrays([before, last])]
    return chunks
