"""Read lines and JSON records of files, gzipped or not, with line numbers for messages."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from retrodistill.base.errors import DataError

Parsed = TypeVar("Parsed")

DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)
"""Exceptions from reading a damaged archive."""


def opened(path: Path) -> BinaryIO:
    """Open a file for reading bytes, decompressed if its name ends in .gz."""
    gzipped = path.suffix.lower() == ".gz"
    return cast(BinaryIO, gzip.open(path)) if gzipped else path.open("rb")


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1.

    Raises:
        DataError: the archive is damaged.

    """
    number = 0
    try:
        with opened(path) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except DAMAGE as error:
        raise DataError(
            f"{path}: damaged after line {number} ({error}). Download or compress the file again."
        ) from None


def read_records(path: Path, parse: Callable[[Any], Parsed]) -> Iterator[Parsed]:
    """Yield the records of a .jsonl or .jsonl.gz file, in order; blank lines are skipped.

    Raises:
        DataError: a line is malformed; file and line are named.

    """
    return (record for _, record in numbered_records(path, parse))


def numbered_records(path: Path, parse: Callable[[Any], Parsed]) -> Iterator[tuple[int, Parsed]]:
    """Yield the records of a .jsonl or .jsonl.gz file with their line numbers.

    Raises:
        DataError: a line is malformed; file and line are named.

    """
    for number, line in numbered_lines(path):
        try:
            yield number, parse(json.loads(line))
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not JSON in UTF-8: {error}.") from None


def record_location(path: Path, row: int) -> str:
    """Return `file:line` of a record, by reading the file up to it."""
    for index, (number, _) in enumerate(numbered_lines(path)):
        if index == row:
            return f"{path}:{number}"
    raise AssertionError((path, row))
