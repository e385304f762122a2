"""Checks of a score store: how complete it is, and whether its scores can be reproduced."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from retrodistill.base.errors import DataError
from retrodistill.base.progress import duration
from retrodistill.base.types import Teacher, reads_of
from retrodistill.data.store.columns import codes
from retrodistill.data.store.form import SCORES
from retrodistill.data.store.scores import ScoreStore
from retrodistill.data.store.shards import current_rows, shard_seconds
from retrodistill.data.store.text_keys import text_keys
from retrodistill.stages.scoring.candidates import pairs_of

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


@dataclass(frozen=True, slots=True)
class Verification:
    """How far recomputed scores differ from the stored ones."""

    pairs: int
    largest: float
    """Largest absolute difference."""

    worst: tuple[str, str]
    """Query and document with the largest difference."""

    spread: float
    """Standard deviation of the sample's stored scores, to compare the difference with."""

    def line(self) -> str:
        """Return the result as a sentence."""
        worst = f" (query {self.worst[0]!r}, document {self.worst[1]!r})" if self.largest else ""
        return (
            f"{self.pairs:,} pairs scored again: largest difference {self.largest:g}{worst}; "
            f"the scores' standard deviation is {self.spread:g}."
        )


def verify_scores(
    collection: "Collection",
    teacher: Teacher,
    out: Path,
    *,
    sample: int,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
) -> Verification:
    """Score a sample of the stored pairs again, and compare.

    A teacher that scores lists gets whole lists, so the sample may be larger than `sample`.

    Raises:
        DataError: the store is missing or empty, or its scores are of another teacher or of
            other texts.

    """
    store = ScoreStore.open(out)
    store.check_teacher(teacher.fingerprint, config or {})
    table = current_rows(out, SCORES, lists=store.lists)
    rng = np.random.default_rng(seed)
    # Sample rows, or whole lists of about as many rows.
    if teacher.unit == "list":
        queries = codes(table["query_id"])
        sizes = np.bincount(queries)
        order = rng.permutation(len(sizes))
        taken = order[: 1 + int(np.searchsorted(np.cumsum(sizes[order]), sample))]
        chosen = np.isin(queries, taken)
    else:
        chosen = rng.permutation(len(table)) < sample
    table = table.filter(pa.array(chosen))
    # The texts must be those that were scored.
    keys = text_keys(collection, reads=reads_of(teacher), strict=False)(table)
    changed = int((keys != table["key"].to_numpy()).sum())
    if changed:
        raise DataError(
            f"{changed:,} of {len(table):,} sampled pairs were scored with other texts than "
            f"{collection.name} has now. Run `retrodistill.score` on this collection first."
        )
    # Score again, and compare.
    stored = table["score"].to_numpy().astype(np.float64)
    gaps = np.abs(teacher.score(pairs_of(collection, table)) - stored)
    worst = int(np.argmax(gaps))
    pair = (table["query_id"][worst].as_py(), table["doc_id"][worst].as_py())
    return Verification(len(table), float(gaps[worst]), pair, float(stored.std()))


@dataclass(frozen=True, slots=True)
class Status:
    """How complete a store is, and what it has cost."""

    pairs: int
    """Pairs that have a score."""

    shards: int
    megabytes: float
    seconds: float
    """Time that teachers took, summed over processes."""

    pairs_left: int
    """Pairs of started plans that have no score yet."""

    def lines(self) -> list[str]:
        """Return the status as sentences."""
        cost = f" in {duration(self.seconds)} of teacher time" if self.seconds else ""
        sentences = [
            f"{self.pairs:,} pairs scored{cost}; {self.shards:,} shards, {self.megabytes:,.1f} MB."
        ]
        if self.pairs_left:
            rate = self.pairs / self.seconds if self.seconds else 0.0
            time_left = (
                f": about {duration(self.pairs_left / rate)} of teacher time" if rate else ""
            )
            sentences.append(f"{self.pairs_left:,} planned pairs are left{time_left}.")
        return sentences


def status(out: Path) -> Status:
    """Return how complete the score store in a folder is.

    Raises:
        DataError: it is not a score store, or a file of it is damaged.

    """
    store = ScoreStore.open(out)
    paths = store.shards
    return Status(
        pairs=len(current_rows(out, store.form, lists=store.lists)) if paths else 0,
        shards=len(paths),
        megabytes=sum(path.stat().st_size for path in paths) / 1e6,
        seconds=sum(shard_seconds(path) for path in paths),
        pairs_left=store.rows_left(),
    )
