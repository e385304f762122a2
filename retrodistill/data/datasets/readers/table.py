"""Tables (.jsonl, .csv, .tsv, .parquet): one document a row."""

from collections.abc import Iterator, Sequence
from typing import Any

from retrodistill.data.datasets.passages import TextSection
from retrodistill.data.datasets.readers.base import Document, SkippedFileError, SourceFile
from retrodistill.data.datasets.tables import ID, TEXT, TITLE, column, needed, table_rows

ROLES = {"id": ID, "title": TITLE, "text": TEXT}


def read(file: SourceFile) -> Iterator[Document]:
    """Yield the document of each row with a text.

    The columns of id, title and text are guessed from common names and logged, unless given.

    Raises:
        DataError: the file is damaged, or no column of the text is found.
        SkippedFileError: no row has a text.

    """
    names: tuple[str, ...] = ()
    chosen: dict[str, str | None] = {}
    rows = empty = 0
    for number, (_, record) in enumerate(table_rows(file.path), start=1):
        if tuple(record) != names:
            names = tuple(record)
            chosen = _columns(file, names)
        text = _shown(record.get(chosen["text"] or ""))
        if not text.strip():
            empty += 1
            continue
        rows += 1
        id = _shown(record.get(chosen["id"] or "")).strip()
        used = set(chosen.values())
        yield Document(
            " ".join(_shown(record.get(chosen["title"] or "")).split()),
            [TextSection("", text)],
            row=id or str(number),
            fields={name: value for name, value in record.items() if name not in used},
        )
    if empty:
        file.say(f"{file.name}: {empty:,} rows without a text skipped.")
    if not rows:
        raise SkippedFileError("without text")


def _columns(file: SourceFile, names: Sequence[str]) -> dict[str, str | None]:
    chosen = {
        role: column(names, guesses, file.columns.get(role), role=role, path=file.path)
        for role, guesses in ROLES.items()
    }
    hint = "Name it: docs:PATH,text=COLUMN (and title=, id=)."
    needed(chosen["text"], names, role="text of a document", path=file.path, hint=hint)
    guessed = {role: name for role, name in chosen.items() if role not in file.columns}
    if guessed:
        parts = [f"{role} from {name or 'nothing'}" for role, name in guessed.items()]
        file.say(f"columns: {', '.join(parts)} (as in {file.name}).")
    return chosen


def _shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return str(value)
