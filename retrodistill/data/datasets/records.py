"""Records of texts in the BEIR layout: `_id`, `title`, `text`, and further fields."""

from collections.abc import Collection, Mapping
from typing import Any

from retrodistill.base.errors import DataError
from retrodistill.base.types import Doc
from retrodistill.data.datasets.tables import TEXT


def doc_from(record: Any) -> Doc:
    """Return the document or query of a record.

    The id may be under `_id` or `id`, and be a whole number; a missing title is empty.

    Raises:
        DataError: a key is missing, a value is of the wrong type, or the id is empty.

    """
    if not isinstance(record, Mapping):
        raise DataError(f"expected an object with _id and text, but it is {_shown(record)}.")
    id = id_of(record)
    text, title = record.get("text"), record.get("title")
    title = "" if title is None else title
    if not isinstance(id, str) or not isinstance(text, str) or not isinstance(title, str):
        raise DataError(_what_is_wrong(record))
    if not id.strip():
        raise DataError("the _id is empty. Give each text a unique id.")
    return Doc(id, title, text)


def id_of(record: Mapping[str, Any]) -> Any:
    """Return the value of `_id` or `id`; a whole number as a string."""
    id = record.get("_id", record.get("id"))
    return str(id) if isinstance(id, int) and not isinstance(id, bool) else id


def fields_from(
    record: Any, *, but: Collection[str] = ("title", "text")
) -> tuple[str, dict[str, Any]]:
    """Return the id of a record, and its fields other than id, title and text.

    Fields of the object `metadata` count as fields of the record. The names of nested fields are
    joined by a dot: `{"author": {"name": ...}}` gives `author.name`.

    Raises:
        DataError: the id is missing, or two fields have the same name.

    """
    id = id_of(record) if isinstance(record, Mapping) else None
    if not isinstance(id, str) or not id.strip():
        raise DataError(f"expected an object with an _id, but it is {_shown(record)}.")
    key = "_id" if "_id" in record else "id"
    outer = {name: value for name, value in record.items() if name != key and name not in but}
    metadata = outer.pop("metadata", None)
    fields: dict[str, Any] = {}
    if metadata is not None:
        inner = metadata if isinstance(metadata, Mapping) else {"metadata": metadata}
        _flatten("", inner, fields)
    _flatten("", outer, fields)
    return id, fields


def _flatten(prefix: str, record: Mapping[str, Any], fields: dict[str, Any]) -> None:
    for name, value in record.items():
        if isinstance(value, Mapping):
            _flatten(f"{prefix}{name}.", value, fields)
        elif fields.setdefault(f"{prefix}{name}", value) != value:
            raise DataError(f"duplicate field {prefix}{name}. Rename one of the two.")


def query_from(record: Any) -> Doc:
    """Return the query of a record, without a title; an empty text is an error."""
    query = doc_from(record)
    if not query.text.strip():
        raise DataError(f"query {query.id!r} has no text. Give it one, or remove the line.")
    return Doc(query.id, "", query.text)


def _what_is_wrong(record: Mapping[str, Any]) -> str:
    keys = ", ".join(map(str, record)) or "none"
    if "_id" not in record and "id" not in record:
        return f"the key _id is missing (keys: {keys}). Give each text an id."
    if "text" not in record:
        candidate = next((name for name in TEXT if name in record), None)
        hint = f" docs:FILE,text={candidate} reads such a file." if candidate else ""
        return (
            f"the key text is missing (keys: {keys}). An empty text is written as an empty "
            f"string.{hint}"
        )
    id_key = "_id" if "_id" in record else "id"
    for key in (id_key, "text", "title"):
        value = record.get(key)
        whole = key == id_key and isinstance(value, int) and not isinstance(value, bool)
        if not isinstance(value, str) and not whole and not (key == "title" and value is None):
            return f"{key} must be a string, but it is {_shown(value)}."
    raise AssertionError(record)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
