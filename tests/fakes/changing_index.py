"""A process that changes an index until it is killed, and what its changes must come to.

python changing_index.py SRC FOLDER CHANGES START makes change START, START + 1, ... and writes a
line with the number of each when it is acknowledged. FOLDER `-` is a small index in memory, whose
process starts in a second.
"""

import random
import sys
from pathlib import Path

import numpy as np

IDS = [f"d{number}" for number in range(40)]
DIMENSION = 32


def change(number: int) -> tuple[dict[str, str], list[str]]:
    """Return the texts that a change puts, or the ids that it deletes; it is never empty."""
    rng = random.Random(number)
    ids = [f"new{number}", *rng.sample(IDS, rng.randint(1, 12))]
    if number % 3 == 2:
        return {}, [f"new{number - 1}", *ids[1:]]
    return {id: f"text {number} " + "word " * rng.randint(0, 400) for id in ids}, []


def state_after(count: int) -> dict[str, str]:
    """Return id -> text of the changed documents after the first changes."""
    state: dict[str, str] = {}
    for number in range(count):
        texts, deleted = change(number)
        state |= texts
        for id in deleted:
            state.pop(id, None)
    return state


def vector(text: str) -> np.ndarray:
    """Return a vector that only this text has."""
    return np.random.default_rng(len(text) + hash_of(text)).random(DIMENSION, np.float32)


def hash_of(text: str) -> int:
    """Return a number of a text that is the same in every process."""
    return int.from_bytes(text.encode()[:20], "big") % 2**32


class WordEncoder:
    """Vectors of `vector`, without a model."""

    fingerprint = "words"
    dimension = DIMENSION

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        """Return the vectors."""
        return np.stack([vector(text) for text in texts])

    encode_docs = encode_queries


def opened(folder: str, changes: Path):
    """Return the LiveIndex of a folder, or one of a few vectors in memory."""
    from retrodistill.base.manifest import Manifest
    from retrodistill.models.indexes import new_index
    from retrodistill.stages.searching import Searcher
    from retrodistill.stages.serving.live import index as live_index

    if folder != "-":
        return live_index.LiveIndex.open(
            Path(folder), name="ix", changes=changes, precision="float32"
        )
    index = new_index("exact", DIMENSION)
    index.add(["base"], np.ones((1, DIMENSION), np.float32))
    manifest = Manifest(kind="index", fingerprint="small")
    settings = live_index._Settings(
        folder=Path(folder),
        name="ix",
        changes=changes,
        data=None,
        precision="auto",
        query_model=None,
    )
    searcher = Searcher(WordEncoder(), index, manifest=manifest)
    log = live_index.ChangeLog.open(changes / "ix", live_index._origin(searcher))
    return live_index.LiveIndex._caught_up(searcher, settings, log, {})


def main() -> None:
    """Make changes until the process is killed."""
    from retrodistill.stages.serving.live.documents import Document

    folder, changes, start = sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    live = opened(folder, changes)
    print("open", flush=True)
    for number in range(start, 1_000_000):
        texts, deleted = change(number)
        if texts:
            docs = [Document(id, "", text) for id, text in texts.items()]
            live.put(docs, np.stack([vector(doc.full_text) for doc in docs]))
        else:
            live.delete(deleted)
        print(number, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    main()
