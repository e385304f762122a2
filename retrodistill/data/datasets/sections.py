"""The file and the heading of each passage, for collections whose passages are parts of files."""

from retrodistill.base.errors import DataError
from retrodistill.data.datasets.texts import Texts


def files_of(docs: Texts) -> list[str]:
    """Return the file of each passage of `docs:`, or the document's own id where it is whole."""
    ids = docs.ids()
    parents = _attribute(docs, "parent")
    if parents is None:
        return ids
    return [
        parent if parent is not None and id.startswith(f"{parent}#") else id
        for id, parent in zip(ids, parents, strict=True)
    ]


def headings_of(docs: Texts) -> list[str]:
    """Return the heading above each passage; empty where there is none."""
    headings = _attribute(docs, "heading")
    return [""] * len(docs) if headings is None else [heading or "" for heading in headings]


def _attribute(docs: Texts, name: str) -> list[str | None] | None:
    """Return a text attribute of all documents; None if the collection has no such attribute."""
    try:
        column = docs.attributes([name])[name]
    except DataError:  # the collection has no attributes, or others
        return None
    values: list[str | None] = column.to_pylist()
    return values if all(value is None or isinstance(value, str) for value in values) else None
