"""Files of lines, gzipped or not: read with line numbers for messages, written whole or not at all.

JSON Lines are read record by record.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

from retrodistill.base.errors import DataError
from retrodistill.base.files import new_file

Parsed = TypeVar("Parsed")

DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)
"""Exceptions from reading a damaged archive."""


def opened(path: Path) -> BinaryIO:
    """Open a file for reading bytes, decompressed if its name ends in .gz."""
    gzipped = path.suffix.lower() == ".gz"
    return cast(BinaryIO, gzip.open(path)) if gzipped else path.open("rb")


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield (line number from 1, line without its end) for each line that is not blank.

    Lines are bytes and end at `\n` alone, so that an id may hold any other character, and a
    byte order mark at the start is dropped.

    Raises:
        DataError: there is no such file, or it is damaged.

    """
    number = 0
    try:
        with opened(path) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    text = line.rstrip(b"\r\n")
                    yield number, text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text
    except (OSError, EOFError, zlib.error) as error:
        place = f"{path} after line {number}" if number else str(path)
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {place}: {reason}. Check the path and the file.") from error


def first_line(path: Path) -> bytes:
    """Return the first line that is not blank, or nothing of an empty file."""
    return next((line for _, line in numbered_lines(path)), b"")


def decoded(place: str, *fields: bytes) -> list[str]:
    """Return the fields as text.

    Raises:
        DataError: one is not UTF-8; the message starts with `place`.

    """
    try:
        return [field.decode() for field in fields]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{place}: {error.object!r} is not UTF-8. Convert the file to UTF-8."
        ) from error


def read_records(path: Path, parse: Callable[[Any], Parsed]) -> Iterator[Parsed]:
    """Yield the records of a .jsonl or .jsonl.gz file, in order; blank lines are skipped.

    Raises:
        DataError: a line is malformed; file and line are named.

    """
    return (record for _, record in numbered_records(path, parse))


def numbered_records(path: Path, parse: Callable[[Any], Parsed]) -> Iterator[tuple[int, Parsed]]:
    """Yield the records of a .jsonl or .jsonl.gz file as `read_records` does, with line numbers.

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
    """Return `file:line` of a record; the file is read up to it."""
    for index, (number, _) in enumerate(numbered_lines(path)):
        if index == row:
            return f"{path}:{number}"
    raise AssertionError((path, row))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    r"""Write lines, each ended by `\n`, whole or not at all; gzipped if named `.gz`."""
    with new_file(path) as aside, _open_to_write(aside) as stream:
        stream.writelines(f"{line}\n" for line in lines)


def _open_to_write(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "wt", encoding="utf-8", newline="\n")
    return path.open("w", encoding="utf-8", newline="\n")
