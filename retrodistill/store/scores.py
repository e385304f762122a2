"""The score store: teacher scores in Parquet shards, written once, never lost.

A folder with

    manifest.json           the teacher's and the collection's fingerprints, the scale
    plans/ID.arrow          the pairs that one command had to score, in order
    shards/ID-NUMBER.parquet  query_id, doc_id, score: one stretch of a plan

A shard appears whole or not at all (written aside, flushed, renamed). The plan is written before
the first shard, so a command that was killed finds the same stretches again, skips those that
are there, and ends with the table that it would have had. A later command with other candidates
plans only the pairs that are in no shard yet.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrodistill.errors import DataError
from retrodistill.manifest import FILE, Manifest, digest, write_atomically
from retrodistill.store.runs import Run

PAIR = pa.schema([("query_id", pa.string()), ("doc_id", pa.string())])


@dataclass(frozen=True, slots=True)
class Shard:
    """A stretch of a plan that is still to be scored."""

    path: Path
    pairs: pa.Table
    """Columns query_id and doc_id."""


class ScoreStore:
    """A folder of scores of one teacher over one collection.

    Raises:
        DataError: the folder holds scores of another teacher or collection.

    """

    def __init__(
        self,
        folder: Path,
        *,
        inputs: Mapping[str, str],
        config: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        if (self.folder / FILE).exists():
            self.manifest = Manifest.read(self.folder, kind="scores")
            _check_same(self.folder, self.manifest.inputs, inputs)
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise DataError(f"{folder} is not empty and is no score store. Give another --out.")
        self.manifest = Manifest(
            kind="scores",
            fingerprint=digest(*(f"{role}={value}" for role, value in sorted(inputs.items()))),
            inputs=inputs,
            config=config or {},
            details=details or {},
        )
        self.manifest.write(self.folder)

    @property
    def shards(self) -> list[Path]:
        """Finished shards, in a fixed order."""
        return sorted((self.folder / "shards").glob("*.parquet"))

    def run(self) -> Run:
        """Return all scores as one run."""
        return Run.read(self.folder)

    def missing(self, candidates: Run, *, shard_pairs: int) -> list[Shard]:
        """Return the shards that are to be scored, so that every candidate has a score."""
        plan_id = digest(candidates.fingerprint, str(shard_pairs))[:16]
        path = self.folder / "plans" / f"{plan_id}.arrow"
        pairs = candidates.table.select(["query_id", "doc_id"]).cast(PAIR)
        others = [shard for shard in self.shards if not shard.name.startswith(plan_id)]
        if not path.exists():
            write_atomically(path, _to_arrow(_without(pairs, others)))
        plan = _from_arrow(path)
        shards = []
        for number, start in enumerate(range(0, len(plan), shard_pairs)):
            shard = self.folder / "shards" / f"{plan_id}-{number:06d}.parquet"
            if not shard.exists():
                # Another plan may have scored some of these since this one was made.
                left = _without(plan.slice(start, shard_pairs), others)
                if len(left):
                    shards.append(Shard(shard, left))
        return shards

    def commit(self, shard: Shard, scores: NDArray[np.float32]) -> None:
        """Write a shard's scores, whole or not at all.

        Raises:
            DataError: a score is NaN or infinite; the first such pair is named.

        """
        scores = np.asarray(scores)
        if scores.shape != (len(shard.pairs),) or scores.dtype != np.float32:
            raise DataError(
                f"the teacher must give {len(shard.pairs)} float32 scores, one a pair, but gave "
                f"{scores.dtype} of shape {scores.shape}."
            )
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            pair = shard.pairs.slice(int(bad[0]), 1).to_pylist()[0]
            raise DataError(
                f"the teacher's score of query {pair['query_id']!r} and document "
                f"{pair['doc_id']!r} is {scores[bad[0]]} ({len(bad):,} such scores in this shard). "
                "Nothing of the shard was stored. Try --precision float32, or another teacher."
            )
        table = shard.pairs.append_column("score", pa.array(scores, pa.float32()))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        write_atomically(shard.path, sink.getvalue().to_pybytes())


def _check_same(folder: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for role, value in wanted.items():
        if found.get(role) != value:
            raise DataError(
                f"{folder} holds scores of another {role} "
                f"({str(found.get(role))[:12]}..., not {value[:12]}...). Give another --out."
            )


def _without(pairs: pa.Table, shards: list[Path]) -> pa.Table:
    """Return the pairs that stand in none of the shards, in their order."""
    if not shards or not len(pairs):
        return pairs.combine_chunks()
    stored = pa.concat_tables(pq.read_table(path, columns=PAIR.names) for path in shards)
    known = set(_keys(stored))
    return pairs.filter(pa.array([key not in known for key in _keys(pairs)], pa.bool_()))


def _keys(pairs: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(pairs["query_id"].to_pylist(), pairs["doc_id"].to_pylist(), strict=True)


def _to_arrow(pairs: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, pairs.schema) as writer:
        writer.write_table(pairs)
    return bytes(sink.getvalue().to_pybytes())


def _from_arrow(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is damaged ({error}). Delete this file and try again.") from error
