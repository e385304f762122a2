"""The files of a folder of documents, and what becomes of those that cannot be read."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from retrodistill.base.errors import did_you_mean
from retrodistill.base.logging import log
from retrodistill.base.registry import READERS
from retrodistill.data.datasets.readers import SourceFile
from retrodistill.data.datasets.tables import kind_of

MAN = re.compile(r"\.[1-9][a-z]*")
NAMED = 3
"""File names in a message."""


@dataclass(slots=True)
class Tally:
    """What was read, and what was not and why: counted, and the first files named."""

    files: int = 0
    documents: int = 0
    passages: int = 0
    reasons: dict[str, list[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    """Suffixes of files that no reader is for."""
    said: list[str] = field(default_factory=list)

    def note(self, reason: str, name: str) -> None:
        """Count a file under a reason."""
        self.reasons.setdefault(reason, []).append(name)

    def once(self, message: str) -> None:
        """Keep a message for the log, once."""
        if message not in self.said:
            self.said.append(message)

    def problems(self) -> list[str]:
        """Return a phrase for each reason, with its count and the first files."""
        phrases = []
        for reason, names in sorted(self.reasons.items(), key=lambda item: -len(item[1])):
            first = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            phrases.append(f"{len(names):,} {reason} ({first})")
        if self.others:
            kinds = [f"{suffix} {count:,}" for suffix, count in self.others.most_common(5)]
            more = ", ..." if len(self.others) > 5 else ""
            phrases.append(f"{self.others.total():,} of other kinds ({', '.join(kinds)}{more})")
        return phrases

    def log(self, name: str, tokens: int) -> None:
        """Log what was read, and what was not."""
        log.info(
            f"{name}: {self.documents:,} documents in {self.files:,} files, {self.passages:,} "
            f"passages of up to about {tokens} tokens."
        )
        for message in self.said:
            log.info(message)
        if problems := self.problems():
            log.info(f"files not read, or not as they are: {'; '.join(problems)}.")


def list_files(place: Path, columns: Mapping[str, str], tally: Tally) -> list[SourceFile]:
    """Return the files to read below a folder, sorted by name; or the one file.

    Hidden files and folders are passed over. A linked folder is not entered, so that there are no
    loops, and a file that several names lead to is read once, under the name that is no link.
    """

    def source(path: Path, name: str) -> SourceFile:
        name = os.fsencode(name).decode("utf-8", "replace").replace(os.sep, "/")
        return SourceFile(path, name, columns, lambda reason: tally.note(reason, name), tally.once)

    if place.is_file():
        return [source(place, place.name)]
    files = []
    seen: set[tuple[int, int]] = set()
    for path in sorted(_walk(place, tally), key=lambda path: (path.is_symlink(), str(path))):
        name = str(path.relative_to(place))
        try:
            state = path.stat()
        except OSError:
            tally.note("broken links", name)
            continue
        if not stat.S_ISREG(state.st_mode) or (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        if reader_name(path) is None:
            tally.others[kind_of(path)] += 1
            continue
        files.append(source(path, name))
    return sorted(files, key=lambda file: file.name)


def reader_name(path: Path) -> str | None:
    """Return the name of the reader of a kind of file, or None."""
    kind = kind_of(path)
    return kind if kind in READERS else ".man" if MAN.fullmatch(kind) else None


def _walk(place: Path, tally: Tally) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        tally.note("unreadable folders", str(error.filename))

    for folder, folders, names in os.walk(place, onerror=unreadable):
        for name in folders:
            if (Path(folder) / name).is_symlink():
                tally.note("linked folders", name)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def near_names(place: Path) -> str:
    """Return the sentence that asks for the name nearest to that of a path that does not exist."""
    parent = place.absolute().parent
    return did_you_mean(place.name, os.listdir(parent)) if parent.is_dir() else ""
