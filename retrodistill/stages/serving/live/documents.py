"""Documents that are put into an index while it is served, and whether they fit it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.data.filters.columns import KINDS, STRINGS, TIME, unknown

INT64 = range(-(2**63), 2**63)
INFERRED = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    datetime: TIME,
    date: TIME,
    list: STRINGS,
    tuple: STRINGS,
}
"""Type of a value -> type of a column that has none yet."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document with its further fields, by the names of the index's attributes."""

    id: str
    title: str = ""
    text: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_text(self) -> str:
        """Title and text joined by one space: what every model and BM25 read."""
        return f"{self.title} {self.text}".strip()


def check_documents(docs: Sequence[Document]) -> None:
    """Raise DataError unless each document has an id of its own, and a title or a text."""
    seen: set[str] = set()
    for position, doc in enumerate(docs):
        check_id(doc.id, position)
        if doc.id in seen:
            raise DataError(
                f"document {doc.id!r} is in the request twice; nothing was changed. "
                "Which of the two is meant? Send it once."
            )
        seen.add(doc.id)
        for name, value in (("title", doc.title), ("text", doc.text)):
            if not isinstance(value, str):
                raise DataError(
                    f"document {doc.id!r}: its {name} must be a string, but it is "
                    f"{_shown(value)}. Nothing was changed."
                )
            _check_unicode(value, f"document {doc.id!r}: its {name}")
        if not doc.full_text:
            raise DataError(
                f"document {doc.id!r} has neither a title nor a text, so that nothing could find "
                "it. Nothing was changed."
            )


def check_id(id: object, position: int) -> None:
    """Raise DataError unless an id is a string with something in it."""
    if not isinstance(id, str) or not id.strip():
        raise DataError(
            f"id {_shown(id)} at position {position} must be a string that is not empty. "
            "Nothing was changed."
        )
    _check_unicode(id, f"id {id!r} at position {position}")


def attribute_rows(docs: Sequence[Document], schema: pa.Schema | None) -> pa.Table | None:
    """Return a row of attributes for each document, in the columns of an index.

    A field that a document lacks is missing there. Times are given as ISO 8601.

    Raises:
        DataError: a field that the index lacks, or a value that its column does not hold.

    """
    for doc in docs:
        for name in doc.fields:
            _check_name(doc, name, schema)
    if schema is None:
        return None
    columns = {}
    for name, kind in _columns(docs, schema):
        values = []
        for doc in docs:
            try:
                values.append(_value(doc.fields.get(name), kind))
            except ValueError as error:
                raise DataError(
                    f"document {doc.id!r}: field {name!r} {error} Nothing was changed."
                ) from None
        columns[name] = pa.array(values, kind)
    return pa.table(columns)


def fitting_fields(
    docs: Sequence[Document], schema: pa.Schema | None
) -> tuple[list[Document], dict[str, int]]:
    """Return the documents with those fields that fit an index, and how many of each do not."""
    kinds = dict(_columns(docs, schema)) if schema is not None else {}
    misfits: Counter[str] = Counter()
    fitted = []
    for doc in docs:
        fields = {}
        for name, value in doc.fields.items():
            try:
                _value(value, kinds[name])
            except (KeyError, ValueError):
                misfits[name] += 1
            else:
                fields[name] = value
        fitted.append(Document(doc.id, doc.title, doc.text, fields))
    return fitted, dict(misfits)


def _columns(docs: Sequence[Document], schema: pa.Schema) -> Iterable[tuple[str, pa.DataType]]:
    """Yield each column's name and type; for one without any value, the type of the new ones."""
    for column in schema:
        kind = column.type
        if kind == pa.null():
            values = (doc.fields.get(column.name) for doc in docs)
            types = [type(value) for value in values if value is not None]
            mixed = float if set(types) == {int, float} else next(iter(types), None)
            kind = INFERRED.get(mixed, kind) if mixed is not None else kind
        yield column.name, kind


def _check_name(doc: Document, name: object, schema: pa.Schema | None) -> None:
    if schema is None:
        raise DataError(
            f"document {doc.id!r} has a field {name!r}, but this index has no attributes. Embed "
            "the collection with --attributes, or omit the fields. Nothing was changed."
        )
    if name not in schema.names:
        raise DataError(
            f"document {doc.id!r} has a field {name!r}, but {unknown(str(name), schema.names)} "
            "Nothing was changed."
        )


def _value(value: Any, kind: pa.DataType) -> Any:
    """Return a field's value as a column of this type holds it.

    Raises:
        ValueError: the column does not hold such a value; the message follows the field's name.

    """
    if value is None:
        return None
    fits: object = None
    if kind == pa.bool_():
        fits = value if isinstance(value, bool) else None
    elif kind == pa.int64():
        fits = value if _is_whole(value) and value in INT64 else None
    elif kind == pa.float64():
        fits = _number(value)
    elif kind == pa.string():
        fits = value if isinstance(value, str) and _is_unicode(value) else None
    elif kind == TIME:
        fits = _moment(value)
    elif kind == STRINGS and isinstance(value, list | tuple):
        fits = list(value) if all(isinstance(v, str) and _is_unicode(v) for v in value) else None
    if fits is None:
        expected = KINDS[kind] if kind != pa.null() else "no objects"
        advice = " Write a time as 2024-05-31 or 2024-05-31T12:00:00." if kind == TIME else ""
        raise ValueError(f"is {_shown(value)}, but the index holds {expected} there.{advice}")
    return fits


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    if not (_is_whole(value) or isinstance(value, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _moment(value: Any) -> datetime | None:
    """Return a time in UTC; a date is its midnight, a time without a zone is in UTC."""
    if isinstance(value, date):
        value = value.isoformat()
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_unicode(text: str, whose: str) -> None:
    if not _is_unicode(text):
        raise DataError(
            f"{whose} holds half of a surrogate pair, which UTF-8 cannot write. Nothing was "
            "changed."
        )


def _shown(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
