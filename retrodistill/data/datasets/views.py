"""Views of a collection: other texts for the same ids, such as a translation or a rewrite.

    queries.german.jsonl   {"_id": "q1", "text": "..."}, one a line: the view `german`
    corpus.german.jsonl    {"_id": "d1", "title": "...", "text": "..."}

A name is looked for beside the files of a collection in the BEIR layout. Any collection takes a
path: a folder with queries.jsonl, corpus.jsonl or both, or a file of queries with their ids. What
a view lacks, queries or documents, has the collection's own texts. Texts are matched by id, never
by position.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError, did_you_mean
from retrodistill.base.logging import log
from retrodistill.base.types import Doc
from retrodistill.data.datasets.cache import cached_view, file_key
from retrodistill.data.datasets.queries import numbered_queries
from retrodistill.data.datasets.records import doc_from, query_from
from retrodistill.data.datasets.tables import SUFFIXES, kind_of
from retrodistill.data.datasets.texts import Texts, TextSource, no_texts, write_texts
from retrodistill.data.lines import read_records, record_location

NAMED = 3
"""Number of ids that a message lists."""

BATCH = 16_384


@dataclass(frozen=True, slots=True)
class ViewFiles:
    """The files of a view, one or both."""

    queries: Path | None
    docs: Path | None


def find_view(view: str, folder: Path | None) -> ViewFiles:
    """Return the files of a view, by its name in a collection's folder or by a path.

    Raises:
        ConfigError: there is no such view.

    """
    named = ViewFiles(None, None) if folder is None else _files(folder, f".{view}")
    if named.queries or named.docs:
        return named
    path = Path(view).expanduser()
    if path.is_file() and kind_of(path) in SUFFIXES:
        return ViewFiles(path, None)
    files = _files(path, "")
    if files.queries or files.docs:
        return files
    raise ConfigError(_what_is_wrong(view, path, folder))


def view_of(base: Texts, file: Path, *, side: str, name: str) -> Texts:
    """Return a file's texts of the ids of `base`, row by row in the same order.

    `side` is `queries` or `docs`. Further ids of the file are skipped; their number is logged.
    Attributes are those of `base`.

    Raises:
        DataError: the file is malformed, repeats an id, or lacks an id of `base`.

    """
    whole = base.source or no_texts()
    return cached_view(
        name,
        side,
        TextSource(
            partial(_aligned, base, _source(file, side), file),
            whole.locate,
            whole.fields,
        ),
        key=["view", side, *file_key(file), base.fingerprint],
    )


def _files(folder: Path, infix: str) -> ViewFiles:
    return ViewFiles(*(_file(folder, f"{stem}{infix}.jsonl") for stem in ("queries", "corpus")))


def _file(folder: Path, name: str) -> Path | None:
    files = (folder / name, folder / f"{name}.gz")
    return next((file for file in files if file.is_file()), None)


def _known(folder: Path) -> list[str]:
    """Return the names of the views in a folder."""
    files = [file for stem in ("queries", "corpus") for file in folder.glob(f"{stem}.*.jsonl*")]
    names = {file.name.removesuffix(".gz").split(".", 1)[1] for file in files}
    return sorted(name.removesuffix(".jsonl") for name in names)


def _what_is_wrong(view: str, path: Path, folder: Path | None) -> str:
    if path.is_dir():
        return f"view {view}: the folder has neither queries.jsonl nor corpus.jsonl."
    if path.is_file():
        return f"view {view}: a file of queries must be one of {', '.join(SUFFIXES)}."
    by_path = (
        "a path: a folder with queries.jsonl or corpus.jsonl, or a file of queries with their ids"
    )
    if folder is None:
        return f"there is no view {view!r}: for this collection give {by_path}."
    names = _known(folder)
    return (
        f"there is no view {view!r}.{did_you_mean(view, names)} {folder} has: "
        f"{', '.join(names) or 'none'}. A view is a file queries.NAME.jsonl or corpus.NAME.jsonl "
        f"there, or {by_path}."
    )


def _source(file: Path, side: str) -> TextSource:
    if kind_of(file) != ".jsonl":
        return TextSource(partial(_table_queries, file), lambda row: f"{file}, row {row + 1}")
    parse = query_from if side == "queries" else doc_from
    return TextSource(partial(read_records, file, parse), partial(record_location, file))


def _table_queries(file: Path) -> Iterator[Doc]:
    for location, id, text in numbered_queries(file, {}):
        if id is None or not text.strip():
            lacks = "id" if id is None else "text"
            raise DataError(
                f"{location}: a query of a view needs an id and a text, but has no {lacks}."
            )
        yield Doc(id, "", text)


def _aligned(base: Texts, source: TextSource, file: Path) -> Iterator[Doc]:
    """Yield the source's texts in the order of the ids of `base`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as aside:
        stem = Path(aside) / "texts"
        texts = Texts(stem, name=str(file), fingerprint=write_texts(stem, source))
        rows = _rows(base, texts, file)
        if further := len(texts) - len(rows):
            log.info(f"{file}: {further:,} texts have ids that {base.name} lack; they are skipped.")
        for start in range(0, len(rows), BATCH):
            yield from texts.take(rows[start : start + BATCH])


def _rows(base: Texts, texts: Texts, file: Path) -> NDArray[np.int64]:
    """Return the row in `texts` of each id of `base`."""
    rows = np.empty(len(base), np.int64)
    for start in range(0, len(base), BATCH):
        span = np.arange(start, min(start + BATCH, len(base)))
        rows[span] = texts.find(base.ids(span))
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        examples = ", ".join(map(repr, base.ids(missing[:NAMED])))
        more = ", ..." if len(missing) > NAMED else ""
        raise DataError(
            f"{file} has no text for {len(missing):,} of {len(base):,} ids of {base.name}: "
            f"{examples}{more}. A view must have a text for each of them."
        )
    return rows
