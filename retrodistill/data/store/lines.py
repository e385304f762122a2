"""Text files as numbered lines, gzipped or not: streamed in, and written whole or not at all."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from retrodistill.base.errors import DataError
from retrodistill.base.files import new_file


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield (line number from 1, line without its end) for each line that is not blank.

    Lines are bytes and end at `\n` alone, so that an id may hold any other character, and a
    byte order mark at the start is dropped.

    Raises:
        DataError: there is no such file, or it is damaged.

    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                text = line.rstrip(b"\r\n")
                if number == 1:
                    text = text.removeprefix(b"\xef\xbb\xbf")
                if text.strip():
                    yield number, text
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


def write_lines(path: Path, lines: Iterable[str]) -> None:
    r"""Write lines, each ended by `\n`, whole or not at all; gzipped if named `.gz`."""
    with new_file(path) as aside, _open_to_write(aside) as stream:
        stream.writelines(f"{line}\n" for line in lines)


def _open_to_write(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "wt", encoding="utf-8", newline="\n")
    return path.open("w", encoding="utf-8", newline="\n")
