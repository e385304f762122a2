"""List the files of a folder of documents, and count those that cannot be read."""

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
"""Number of file names that a message lists."""


@dataclass(slots=True)
class Tally:
    """Counts of what was read and of what was skipped and why, with the first file names."""

    files: int = 0
    documents: int = 0
    passages: int = 0
    reasons: dict[str, list[str]] = field(default_factory=dict)
    other_kinds: Counter[str] = field(default_factory=Counter)
    """Suffixes of the files without a reader."""
    messages: list[str] = field(default_factory=list)

    def note(self, reason: str, name: str) -> None:
        """Count a file under a reason."""
        self.reasons.setdefault(reason, []).append(name)

    def once(self, message: str) -> None:
        """Add a message for the log, once."""
        if message not in self.messages:
            self.messages.append(message)

    def problems(self) -> list[str]:
        """Return a phrase for each reason, with its count and the first file names."""
        phrases = []
        for reason, names in sorted(self.reasons.items(), key=lambda item: -len(item[1])):
            examples = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            phrases.append(f"{len(names):,} {reason} ({examples})")
        if self.other_kinds:
            kinds = [f"{suffix} {count:,}" for suffix, count in self.other_kinds.most_common(5)]
            more = ", ..." if len(self.other_kinds) > 5 else ""
            phrases.append(
                f"{self.other_kinds.total():,} of other kinds ({', '.join(kinds)}{more})"
            )
        return phrases

    def log(self, name: str, tokens: int) -> None:
        """Log what was read and what was skipped."""
        log.info(
            f"{name}: {self.documents:,} documents in {self.files:,} files, {self.passages:,} "
            f"passages of up to about {tokens} tokens."
        )
        for message in self.messages:
            log.info(message)
        if problems := self.problems():
            log.info(f"files skipped or converted: {'; '.join(problems)}.")


def list_files(root: Path, columns: Mapping[str, str], tally: Tally) -> list[SourceFile]:
    """Return the files to read in a folder and its subfolders, sorted by name; or the single file.

    Hidden files and folders are skipped. Symbolic links to folders are not followed, which could
    loop, and a file with several names is read once, under the name that is not a link.
    """

    def source(path: Path, name: str) -> SourceFile:
        name = os.fsencode(name).decode("utf-8", "replace").replace(os.sep, "/")
        return SourceFile(path, name, columns, lambda reason: tally.note(reason, name), tally.once)

    if root.is_file():
        return [source(root, root.name)]
    files = []
    seen: set[tuple[int, int]] = set()
    for path in sorted(_walk(root, tally), key=lambda path: (path.is_symlink(), str(path))):
        name = str(path.relative_to(root))
        try:
            state = path.stat()
        except OSError:
            tally.note("broken links", name)
            continue
        if not stat.S_ISREG(state.st_mode) or (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        if reader_name(path) is None:
            tally.other_kinds[kind_of(path)] += 1
            continue
        files.append(source(path, name))
    return sorted(files, key=lambda file: file.name)


def reader_name(path: Path) -> str | None:
    """Return the name of the reader for a file, or None."""
    kind = kind_of(path)
    return kind if kind in READERS else ".man" if MAN.fullmatch(kind) else None


def _walk(root: Path, tally: Tally) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        tally.note("unreadable folders", str(error.filename))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        for name in folders:
            if (Path(folder) / name).is_symlink():
                tally.note("linked folders", name)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def near_names(path: Path) -> str:
    """Return a "Did you mean" sentence with the nearest existing name, for a missing path."""
    parent = path.absolute().parent
    return did_you_mean(path.name, os.listdir(parent)) if parent.is_dir() else ""
