"""`sbert-scores`: JSON `{query: {document: score}}`, of ids, as in sentence-transformers' examples.

One object, or several one after another (JSON Lines). The file is parsed query by query, since
its scores may not fit in memory as Python numbers.

The published original of this form is a pickle, which is refused: reading one runs the code that
it holds.

Source: copies of the example `train_bi-encoder_mnrl.py` of UKPLab/sentence-transformers, which
reads `cross-encoder-ms-marco-MiniLM-L-6-v2-scores.pkl.gz`.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrodistill.base.errors import DataError
from retrodistill.data.lines import write_lines
from retrodistill.data.store.formats.gathering import RecordFormat
from retrodistill.data.store.formats.lists import ranked
from retrodistill.data.store.formats.records import Relevant, ScoreRecord
from retrodistill.data.store.formats.texts import TextCollection
from retrodistill.data.store.runs import Run

BLOCK = 1 << 20
"""Bytes read at a time."""

DECODER = json.JSONDecoder(object_pairs_hook=tuple)
"""An object becomes its pairs, so that a duplicate key is not lost."""

FORM = "`{query: {document: score}}`"


def blocks(path: Path) -> Iterator[bytes]:
    """Yield a file's content, gzipped or not.

    Raises:
        DataError: there is no such file, or it is damaged.

    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            while block := stream.read(BLOCK):
                yield block
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {reason}. Check the path and the file.") from error


def refuse_pickle(path: Path) -> None:
    """Raise DataError if a file is a pickle, by its name or its first byte."""
    if {".pkl", ".pickle"} & set(path.suffixes) or next(blocks(path), b"")[:1] == b"\x80":
        opened = (
            f"gzip.open({str(path)!r})" if path.suffix == ".gz" else f"open({str(path)!r}, 'rb')"
        )
        raise DataError(
            f"{path} is a pickle: reading one runs the code that it holds, so it is refused. If "
            "you trust its source, convert it to JSON yourself:\n  "
            f'python -c "import gzip, json, pickle; json.dump(pickle.load({opened}), '
            "open('scores.json', 'w'), default=float)\"\n"
            "and read scores.json."
        )


class _JSONStream:
    """A position in a stream of JSON, of which only what is being parsed is in memory."""

    def __init__(self, path: Path) -> None:
        self.line = 1
        self._path = path
        self._texts = codecs.iterdecode(blocks(path), "utf-8-sig")
        self._text = ""
        self._at = 0

    def peek(self) -> str:
        """Return the next character that is not blank, or nothing at the end."""
        while True:
            while self._at < len(self._text):
                if not (character := self._text[self._at]).isspace():
                    return character
                self._move(self._at + 1)
            if not self._read():
                return ""

    def take(self, character: str) -> None:
        """Skip this character.

        Raises:
            DataError: the next one is another.

        """
        if self.peek() != character:
            raise self._error(f"{character!r} was expected")
        self._move(self._at + 1)

    def value(self, opening: str) -> Any:
        """Return the string or object that starts here, and move behind it."""
        if self.peek() != opening:
            raise self._error(f"{opening!r} was expected")
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                cut_off = isinstance(error, json.JSONDecodeError) and (
                    error.msg.startswith("Unterminated string")
                    or error.pos >= len(self._text) - 16  # an escape or a number, cut off
                )
                if not cut_off or not self._read():
                    raise self._error(str(error)) from error
            else:
                self._move(end)
                return value

    def _read(self) -> bool:
        """Double the text that is not parsed yet; tell whether the file had more."""
        texts = [self._text[self._at :]]
        size = 0
        try:
            while size <= len(texts[0]) and (text := next(self._texts, "")):
                texts.append(text)
                size += len(text)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self._path}: it is not UTF-8 ({error}). Convert it to UTF-8."
            ) from error
        self._text, self._at = "".join(texts), 0
        return size > 0

    def _move(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _error(self, reason: str) -> DataError:
        excerpt = self._text[self._at : self._at + 60]
        return DataError(
            f"{self._path}:{self.line}: the file must be {FORM} in JSON, but {reason}: {excerpt!r}."
        )


def records(path: Path) -> Iterator[ScoreRecord]:
    """Yield each query."""
    refuse_pickle(path)
    parser = _JSONStream(path)
    while parser.peek():
        parser.take("{")
        closing = parser.peek() == "}"
        while not closing:
            number, query = parser.line, parser.value('"')
            parser.take(":")
            pairs = parser.value("{")
            yield ScoreRecord(
                number, query, [doc for doc, _ in pairs], [score for _, score in pairs]
            )
            if closing := parser.peek() != ",":
                break
            parser.take(",")
        parser.take("}")


def write(
    path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
) -> None:
    """Write a line a query: each an object if the file is named `.jsonl`, else all one object."""
    entries = (
        (json.dumps(query, ensure_ascii=False), dict(zip(docs, scores, strict=True)))
        for _, query, docs, scores, _ in ranked(run)
    )
    lines = (f"{query}: {json.dumps(docs, ensure_ascii=False)}" for query, docs in entries)
    if ".jsonl" in path.suffixes[-2:]:
        write_lines(path, (f"{{{line}}}" for line in lines))
    else:
        write_lines(path, _one_object(lines))


def _one_object(lines: Iterator[str]) -> Iterator[str]:
    opening = "{"
    for line in lines:
        yield f"{opening}{line}"
        opening = ","
    yield "{}" if opening == "{" else "}"


FORMAT = RecordFormat(records, write)
