"""`beir:PATH`: a folder in the BEIR layout.

    corpus.jsonl    {"_id": "d1", "title": "...", "text": "...", "metadata": {...}}, one a line
    queries.jsonl   {"_id": "q1", "text": "..."}
    qrels/*.tsv     query-id, corpus-id, score, tab-separated; one file a split

Only corpus.jsonl must exist. Both .jsonl files may be gzipped (`.jsonl.gz`). Judgements may lack
the header, and may have TREC's four columns (query, iteration, document, grade).
Other fields of a line, and those of its `metadata`, become the text's attributes. Files such as
`queries.german.jsonl` and `corpus.german.jsonl` are a view, other texts of the same ids (`views`).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Doc
from retrodistill.data.datasets.cache import cached_texts, file_key
from retrodistill.data.datasets.collection import Collection
from retrodistill.data.datasets.records import doc_from, fields_from, query_from
from retrodistill.data.datasets.texts import TextSource, no_texts
from retrodistill.data.lines import read_records, record_location
from retrodistill.data.qrels import read_qrels


def load(path: str) -> Collection:
    """Return the collection in a folder.

    Raises:
        ConfigError: the folder does not exist.
        DataError: a file is missing or malformed; file and line are named.

    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"beir:{path}: there is no such folder ({folder.absolute()}).")
    corpus, queries = _texts_file(folder, "corpus"), _texts_file(folder, "queries")
    if corpus is None:
        raise DataError(
            f"{folder} has no corpus.jsonl (nor corpus.jsonl.gz). The BEIR layout needs it; "
            f"documents of other kinds are read by docs:{path}."
        )
    docs, asked = cached_texts(
        folder.resolve().name,
        docs=_source(corpus, doc_from),
        queries=no_texts() if queries is None else _source(queries, query_from),
        key=["beir", *file_key(corpus), *(file_key(queries) if queries else ())],
    )
    splits = sorted((folder / "qrels").glob("*.tsv"))
    return Collection(
        folder.resolve().name,
        docs=docs,
        queries=asked,
        qrels_files={file.stem: file for file in splits},
        judgements={file.stem: partial(read_qrels, file, allow_empty=True) for file in splits},
        folder=folder,
    )


def _texts_file(folder: Path, name: str) -> Path | None:
    files = (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz")
    return next((file for file in files if file.is_file()), None)


def _source(path: Path, parse: Callable[[Any], Doc]) -> TextSource:
    return TextSource(
        partial(read_records, path, parse),
        partial(record_location, path),
        partial(read_records, path, fields_from),
    )
