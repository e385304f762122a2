"""A collection of a million documents: seconds to build and to open, memory, and look-ups.

    python benchmarks/bench_collection.py > benchmarks/results/collection_MACHINE_YYYYMM.jsonl

The texts are made up (60 words each, seed 0). Opening is measured in a fresh process; look-ups are
of 1,000 random ids in one call. One JSON line.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from retrodistill.base.manifest import library_versions

DOCS = int(os.environ.get("DOCS", "1000000"))


def write(folder: Path) -> None:
    """Write the BEIR folder."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(20_000)]
    (folder / "qrels").mkdir()
    with (folder / "corpus.jsonl").open("w") as stream:
        for number in range(DOCS):
            row = {"_id": f"doc-{number}", "title": "", "text": " ".join(rng.choices(words, k=60))}
            stream.write(json.dumps(row) + "\n")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "what"}\n')
    (folder / "qrels" / "test.tsv").write_text("q\tdoc-0\t1\n")


def opened(folder: str) -> None:
    """Open the collection, look ids up, and print what it took."""
    from retrodistill.data.datasets import load_collection

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    start = time.perf_counter()
    docs = load_collection(f"beir:{folder}").docs
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    ids = [f"doc-{number}" for number in random.Random(1).sample(range(len(docs)), 1000)]
    docs.rows(ids[:1])
    start = time.perf_counter()
    docs.rows(ids)
    lookup = (time.perf_counter() - start) / len(ids)
    start = time.perf_counter()
    docs.full_texts(docs.rows(ids))
    taken = (time.perf_counter() - start) / len(ids)
    row = {"docs": len(docs), "open_s": round(seconds, 3), "lookup_us": round(1e6 * lookup, 1)}
    row |= {
        "text_us": round(1e6 * taken, 1),
        "rss_before_mb": round(before),
        "rss_open_mb": round(after),
    }
    row["rss_peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    print(json.dumps(row))


def main() -> None:
    """Build once, then open in another process."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "data"
        folder.mkdir()
        write(folder)
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        environment = os.environ | {"RETRODISTILL_CACHE": f"{scratch}/cache"}
        load = "from retrodistill.data.datasets import load_collection; "
        load += f"load_collection('beir:{folder}')"
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", load], env=environment, check=True)
        build = time.perf_counter() - start
        call = f"{code} from bench_collection import opened; opened({str(folder)!r})"
        done = subprocess.run(
            [sys.executable, "-c", call],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        row = {"build_s": round(build, 1), **json.loads(done.stdout), **library_versions()}
        print(json.dumps(row))


if __name__ == "__main__":
    main()
