"""The record of a text in the BEIR layout: `_id`, `title`, `text`."""

from collections.abc import Mapping
from typing import Any

from retrodistill.errors import DataError
from retrodistill.types import Doc


def doc_from(record: Any) -> Doc:
    """Return the document or query of a record.

    The id may be under `_id` or `id`, and be a whole number; a missing title is empty.

    Raises:
        DataError: a key is missing, a value is of the wrong type, or the id is empty.

    """
    if not isinstance(record, Mapping):
        raise DataError(f"expected an object with _id and text, but it is {_shown(record)}.")
    id = record.get("_id", record.get("id"))
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    text, title = record.get("text"), record.get("title")
    title = "" if title is None else title
    if not isinstance(id, str) or not isinstance(text, str) or not isinstance(title, str):
        raise DataError(_what_is_wrong(record))
    if not id.strip():
        raise DataError("the _id is empty. Give each text an id of its own.")
    return Doc(id, title, text)


def query_from(record: Any) -> Doc:
    """Return the query of a record; it has no title, and an empty text is an error."""
    query = doc_from(record)
    if not query.text.strip():
        raise DataError(f"query {query.id!r} has no text. Give it one, or remove the line.")
    return Doc(query.id, "", query.text)


def _what_is_wrong(record: Mapping[str, Any]) -> str:
    keys = ", ".join(map(str, record)) or "none"
    if "_id" not in record and "id" not in record:
        return f"the key _id is missing (keys: {keys}). Give each text an id."
    if "text" not in record:
        return (
            f"the key text is missing (keys: {keys}). An empty text is written as an empty string."
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
