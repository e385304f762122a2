"""An index of a million vectors in less memory than the vectors take: what each kind peaks at.

    python benchmarks/bench_memory.py --documents 1000000 --limit 2GB \\
        > benchmarks/results/memory_MACHINE_YYYYMM.jsonl

A collection of made-up documents is written, and an encoder that draws a document's vector (384
dimensions, one of 2,000 centres and noise) from a hash of its text stands for a model, so that a
million vectors take minutes. All else is what `embed` does: parts of vectors in the cache, a sample
to learn from, part after part into the index, save, load, search. Each kind runs in a process of
its own. `peak_gb` is the process's highest resident set, mapped files included; `check` is what
the estimate of --memory said beforehand.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config.search import parse_bytes
from retrodistill.base.manifest import library_versions
from retrodistill.base.registry import INDEXES

DIMENSION, CENTRES, QUERIES, K = 384, 2_000, 100, 10


class DrawnEncoder:
    """Vectors that are a function of the text alone."""

    fingerprint = "drawn" * 8
    dimension = DIMENSION
    normalised = True

    def __init__(self) -> None:
        self.centres = np.random.default_rng(0).standard_normal((CENTRES, DIMENSION), np.float32)

    def encode_docs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        hashes = np.array([zlib.crc32(text.encode()) for text in texts])
        noise = np.random.default_rng(int(hashes[0])).standard_normal(
            (len(texts), DIMENSION), np.float32
        )
        vectors = self.centres[hashes % CENTRES] + 0.7 * noise
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_queries = encode_docs


def peak_gb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


def one_kind(kind: str, folder: Path, limit: int) -> None:
    """Make, save, load and search one index; print a line."""
    from retrodistill.base.errors import ConfigError
    from retrodistill.data.datasets import load_collection
    from retrodistill.models.indexes import index_kind, new_index
    from retrodistill.stages.indexing.build_index import Vectors, check_memory, fill, needed_bytes

    docs = load_collection(f"beir:{folder / 'data'}").docs
    line = {"kind": kind, "documents": len(docs), "limit_gb": limit / 1e9}
    line["estimate_gb"] = round(needed_bytes(kind, len(docs), DIMENSION) / 1e9, 2)
    try:
        check_memory(kind, len(docs), DIMENSION, limit)
    except ConfigError as error:
        print(json.dumps(line | {"refused": str(error)}), flush=True)
        return
    encoder = DrawnEncoder()
    began = time.perf_counter()
    index = new_index(kind, DIMENSION)
    fill(index, Vectors.of(encoder, docs, DIMENSION), docs)
    out = folder / kind
    out.mkdir()
    index.save(out)
    line["build_seconds"] = round(time.perf_counter() - began, 1)
    del index
    index = index_kind(kind).load(out)
    queries = encoder.encode_docs([f"query {row}" for row in range(QUERIES)])
    began = time.perf_counter()
    found = index.search(queries, K)[0]
    line["ms_a_query_in_batch"] = round(1e3 * (time.perf_counter() - began) / QUERIES, 2)
    line["peak_gb"] = round(peak_gb(), 2)
    truth = folder / "truth.json"
    if kind == "exact":
        truth.write_text(json.dumps(found))
    best = json.loads(truth.read_text())
    line[f"recall@{K}"] = round(
        float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, best, strict=True)])), 4
    )
    size = sum(path.stat().st_size for path in out.iterdir())
    line["bytes_per_vector"] = round(size / len(docs), 1)
    print(json.dumps(line | library_versions()), flush=True)


def main() -> None:
    """Write the collection, and start a process for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--limit", default="2GB")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        one_kind(options.kind, options.folder, parse_bytes(options.limit))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        (data / "qrels").mkdir(parents=True)
        with (data / "corpus.jsonl").open("w") as corpus:
            for row in range(options.documents):
                corpus.write(json.dumps({"_id": f"d{row}", "title": "", "text": f"t {row}"}) + "\n")
        (data / "queries.jsonl").write_text('{"_id": "q", "text": "t"}\n')
        (data / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
        for kind in [name for name in INDEXES if name not in ("faiss", "milvus")]:
            words = ["--kind", kind, "--folder", name, "--limit", options.limit]
            subprocess.run(
                [sys.executable, __file__, *words],
                check=True,
                env=os.environ | {"RETRODISTILL_CACHE": f"{name}/cache"},
            )


if __name__ == "__main__":
    main()
