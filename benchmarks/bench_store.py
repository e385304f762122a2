"""Two million pairs through plan and store: pairs a second, and the memory that it takes.

    python benchmarks/bench_store.py > benchmarks/results/store_MACHINE_YYYYMM.jsonl

A stub teacher answers at once, so what is measured is everything else: the keys of the texts, the
plan, the shards, the texts for the teacher, the commits. The collection is made up (20,000 queries,
200,000 documents of 60 words, 100 random candidates a query; seed 0). Each size runs in a process
of its own; `again` is the same command on the full store. One JSON line a size.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.base.types import Pairs

QUERIES, DOCS, DEPTH = 20_000, 200_000, 100


class Stub:
    """A teacher that takes no time."""

    fingerprint = "stub"
    scale = "logit"
    unit = "document"

    def score(self, pairs: Pairs) -> np.ndarray:
        """Return the difference of the row numbers."""
        return (pairs.query_rows - pairs.doc_rows).astype(np.float32)


def write(folder: Path) -> None:
    """Write the BEIR folder."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(20_000)]
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as stream:
        for number in range(DOCS):
            row = {"_id": f"d{number}", "title": "", "text": " ".join(rng.choices(words, k=60))}
            stream.write(json.dumps(row) + "\n")
    with (folder / "queries.jsonl").open("w") as stream:
        for number in range(QUERIES):
            row = {"_id": f"q{number}", "text": " ".join(rng.choices(words, k=6))}
            stream.write(json.dumps(row) + "\n")
    (folder / "qrels" / "train.tsv").write_text("q0\td0\t1\n")


def made_candidates(queries: int) -> rd.Run:
    """Return DEPTH random documents for each query."""
    rng = np.random.default_rng(0)
    docs = np.concatenate([rng.choice(DOCS, DEPTH, replace=False) for _ in range(queries)])
    names = pa.array([f"d{number}" for number in range(DOCS)])
    query_names = pa.array([f"q{number}" for number in range(queries)])
    query_ids = query_names.take(np.repeat(np.arange(queries), DEPTH))
    scores = np.tile(np.arange(DEPTH, 0, -1, np.float32), queries)
    return rd.Run.from_columns(query_ids, names.take(docs), scores)


def measure(folder: str, out: str, queries: int) -> None:
    """Fill a store, fill it again, read it, and print what it took."""
    collection = rd.load_collection(f"beir:{folder}")
    candidates = made_candidates(queries)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    row = {"pairs": len(candidates), "rss_before_mb": round(before)}
    for name in ("fill", "again"):
        start = time.perf_counter()
        store = rd.score_candidates(collection, candidates, Stub(), Path(out), shard_pairs=16_384)
        row[f"{name}_pairs_s"] = round(len(candidates) / (time.perf_counter() - start))
        row[f"{name}_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    start = time.perf_counter()
    assert len(store.run()) == len(candidates)
    row["read_pairs_s"] = round(len(candidates) / (time.perf_counter() - start))
    row["mb"] = round(sum(path.stat().st_size for path in store.shards) / 1e6, 1)
    print(json.dumps(row | library_versions()), flush=True)


def main() -> None:
    """Build the collection once, and measure each size in a fresh process."""
    if len(sys.argv) > 1:
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        write(folder)
        rd.load_collection(f"beir:{folder}")
        for queries in (QUERIES // 20, QUERIES // 4, QUERIES):
            out = str(Path(scratch) / f"store-{queries}")
            subprocess.run([sys.executable, __file__, str(folder), out, str(queries)], check=True)


if __name__ == "__main__":
    main()
