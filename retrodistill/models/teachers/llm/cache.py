"""Cache of paid answers: a question is a hash, an answer a row of SQLite."""

import sqlite3
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock

from retrodistill.base.errors import ConfigError
from retrodistill.base.files import write_once
from retrodistill.models.teachers.llm.answers import Answer

BUSY = 60.0
"""Longest wait for another process that is writing, in seconds."""


class AnswerCache:
    """Answers by the hash of their question, shared by threads and processes of one machine.

    An answer is on the disk when `put` returns, so a kill loses none. Texts of questions and
    credentials are not kept.

    Raises:
        ConfigError: the file cannot be read or written.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        with self._explained():
            if not path.exists():
                write_once(path, _empty_database())
            self._database = sqlite3.connect(
                path, timeout=BUSY, isolation_level=None, check_same_thread=False
            )
            weakref.finalize(self, self._database.close)
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("SELECT key FROM answers LIMIT 1")  # is it readable?

    def get(self, key: str) -> Answer | None:
        """Return the cached answer to a question, or None."""
        with self._explained(), self._lock:
            row = self._database.execute(
                "SELECT answer FROM answers WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Answer.load(row[0])

    def put(self, key: str, answer: Answer) -> None:
        """Keep the answer to a question."""
        with self._explained(), self._lock:
            self._database.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer.dump())
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"the answers of language models cannot be kept in {self.path}: {error}. Make "
                "room there, set RETRODISTILL_CACHE to a folder on a local disk, or delete the "
                "file if it is damaged (its answers must then be paid again)."
            ) from error


def _empty_database() -> bytes:
    """Return the file that all start from: a switch to WAL fails where several open it at once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        return path.read_bytes()
