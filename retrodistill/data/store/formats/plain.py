"""`trec`, `jsonl`, `parquet`: the formats that a run itself reads and writes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.store.formats.records import Imported, OnConflict, Relevant
from retrodistill.data.store.formats.texts import TextCollection
from retrodistill.data.store.runs import Run

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class RunFormat:
    """A format that `Run.read` recognises by the file's name."""

    writer: Callable[[Run, Path], None]
    suffix: str = ""
    """Suffix of such a file; if empty, any but the other formats'."""

    texts: bool = False

    def read(
        self, path: Path, collection: TextCollection | None, on_conflict: OnConflict
    ) -> Imported:
        """Return a file's scores; a pair has one row there, so none can differ.

        Raises:
            ConfigError: the file has the name of another format.
            DataError: it is malformed, or holds no scores.

        """
        self._check(path)
        run = Run.read(path)
        if not len(run):
            raise DataError(f"{path} holds no scores. Is it the right file?")
        return Imported(run, {})

    def write(
        self, path: Path, run: Run, relevant: Relevant | None, collection: TextCollection | None
    ) -> None:
        """Write a run's scores, whole or not at all."""
        self._check(path)
        self.writer(run, path)

    def _check(self, path: Path) -> None:
        suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
        if suffix != self.suffix and (self.suffix or suffix in SUFFIXES):
            ending = f"end in {self.suffix}" if self.suffix else f"not end in {suffix}"
            raise ConfigError(f"the name of a file of this format must {ending}, but it is {path}.")


TREC = RunFormat(Run.to_trec)
JSONL = RunFormat(Run.to_jsonl, ".jsonl")
PARQUET = RunFormat(Run.to_parquet, ".parquet")
