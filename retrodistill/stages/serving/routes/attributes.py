"""What `/indexes` says of an index: its size, its ways to search, and its attributes."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.data.filters.columns import STRINGS, TIME

if TYPE_CHECKING:
    from retrodistill.stages.serving.served import ServedIndex

VALUES = 20
"""Most frequent values of an attribute that are listed."""

TYPES = {
    pa.bool_(): "bool",
    pa.int64(): "int",
    pa.float64(): "float",
    pa.string(): "str",
    TIME: "date",
    STRINGS: "list of str",
    pa.null(): "null",
}


def described(index: "ServedIndex", reranker: bool) -> dict[str, Any]:
    """Return an entry of `/indexes`."""
    live = index.live
    manifest = live.searcher.manifest
    assert manifest is not None
    details = manifest.details
    attributes = live.attributes
    table = pa.table({}) if attributes is None else attributes.table
    return {
        "name": index.name,
        "kind": details.get("index") or details.get("retriever"),
        "documents": len(live),
        "dimension": index.dimension,
        "model": _shown(details.get("model")),
        "collection": details.get("collection"),
        "methods": index.methods,
        "reranker": reranker and live.has_texts,
        "sets": True,
        "texts": live.has_texts,
        "writable": not live.refusal,
        "attributes": {name: _column(table[name]) for name in table.column_names},
        "examples": index.examples,
    }


def _shown(model: str | None) -> str | None:
    """Return a model's name: of a path, which is nobody's business, the last part."""
    return Path(model).name if model and Path(model).is_absolute() else model


def _column(column: pa.ChunkedArray) -> dict[str, Any]:
    """Return the type of an attribute, and its values or its range."""
    about: dict[str, Any] = {"type": TYPES[column.type]}
    if column.type in (pa.int64(), pa.float64(), TIME) and column.null_count < len(column):
        limits = pc.min_max(column).as_py()
        about |= {"least": _plain(limits["min"]), "greatest": _plain(limits["max"])}
    if column.type in (pa.int64(), pa.string(), pa.bool_(), STRINGS):
        values = pc.list_flatten(column) if column.type == STRINGS else column
        counts = pc.value_counts(values.drop_null()).to_pylist()
        counts.sort(key=lambda entry: (-entry["counts"], str(entry["values"])))
        about |= {
            "values": [
                {"value": entry["values"], "documents": entry["counts"]}
                for entry in counts[:VALUES]
            ],
            "distinct": len(counts),
        }
    return about


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
