"""How time and memory grow with documents and pairs: every stage, at sizes ten times apart.

    python benchmarks/bench_growth.py > benchmarks/results/growth_MACHINE_YYYYMM.jsonl
    python benchmarks/bench_growth.py --sizes 10000,100000,1000000 --only score,evaluate
    python benchmarks/tables.py --growth benchmarks/results/growth_MACHINE_YYYYMM.jsonl

Texts are made up (55 words of a skewed vocabulary; seed 0); teacher, encoder and candidates are
stand-ins that take next to no time, so that what is measured is everything but the models. A size
is a number of documents, or of candidate pairs: 100 for each query. Each line is a process of its
own: `seconds` are the processor's, of one thread, so that a busy machine changes them little; `mb`
is the most memory beyond what the process held before, mapped files included. Needs Linux.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.base.types import Pairs

DEPTH, WORDS, DIMENSION, ASKED = 100, 55, 64, 200
SIZES = "10000,100000"

Work = Callable[[], object]


class Teacher:
    """A teacher that answers at once."""

    fingerprint = "stand-in"
    scale = "logit"
    unit = "document"

    def score(self, pairs: Pairs) -> np.ndarray:
        """Return a number of each pair."""
        return ((pairs.query_rows * 31 + pairs.doc_rows * 17) % 1009).astype(np.float32)


class Encoder:
    """An encoder whose vectors are hashes of texts."""

    fingerprint = doc_fingerprint = "stand-in"
    name, dtype, max_tokens = "stand-in", "float32", 512
    dimension = DIMENSION
    normalised = docs_normalised = True

    def encode_docs(self, texts: list[str]) -> np.ndarray:
        """Return a unit vector of each text."""
        raw = b"".join(hashlib.blake2b(text.encode(), digest_size=64).digest() for text in texts)
        vectors = np.frombuffer(raw, np.int8).reshape(-1, DIMENSION).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_queries = encode_docs

    def count_tokens(self, texts: list[str]) -> np.ndarray:
        """Return their numbers of words."""
        return np.array([len(text.split()) for text in texts])

    def save(self, folder: Path) -> None:
        """Write nothing."""


def made_texts(count: int, words: int) -> Iterator[str]:
    """Yield texts whose words are as unequally frequent as a language's."""
    rng = np.random.default_rng(0)
    names = np.array([f"word{number:x}" for number in range(50_000)], object)
    for _ in range(count):
        yield " ".join(names[(rng.pareto(1.1, words) * 10).astype(int) % len(names)])


def write(folder: Path, docs: int, queries: int) -> None:
    """Write a BEIR folder whose every query has one relevant document."""
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as stream:
        for number, text in enumerate(made_texts(docs, WORDS)):
            row = {"_id": f"doc{number:08d}", "title": "", "text": text, "part": number * 7 % 100}
            stream.write(json.dumps(row) + "\n")
    with (folder / "queries.jsonl").open("w") as stream:
        for number, text in enumerate(made_texts(queries, 6)):
            stream.write(json.dumps({"_id": f"query{number:07d}", "text": text}) + "\n")
    judged = (
        f"query{number:07d}\tdoc{_docs_of(number, docs)[3]:08d}\t1\n" for number in range(queries)
    )
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))


def _docs_of(query: int, docs: int) -> np.ndarray:
    return (query * 97 + np.arange(DEPTH) * 13) % docs


def made_run(queries: int, docs: int, seed: int = 0) -> rd.Run:
    """Return DEPTH documents for each query."""
    rng = np.random.default_rng(seed)
    found = np.concatenate([_docs_of(query, docs) for query in range(queries)])
    doc_names = pa.array([f"doc{number:08d}" for number in range(docs)])
    query_names = pa.array([f"query{number:07d}" for number in range(queries)])
    owners = np.repeat(np.arange(queries), DEPTH)
    scores = rng.random(len(found), np.float32)
    return rd.Run.from_columns(query_names.take(owners), doc_names.take(found), scores)


def by_documents(folder: Path, scratch: Path) -> dict[str, Callable[[], Work]]:
    """Return what grows with documents: name -> what prepares it and gives the work."""

    def loaded() -> rd.Collection:
        return rd.load_collection(f"beir:{folder}")

    def embed(index: str, *, workload: bool = False) -> Work:
        collection = loaded()
        settings = rd.IndexSettings(index=index)
        parts = {"attributes": collection.docs.attributes(["part"])} if workload else {}
        asked = [f"part = {number}" for number in range(0, 100, 5)] if workload else []
        return lambda: rd.embed_collection(
            collection, Encoder(), out=scratch / "index", settings=settings, workload=asked, **parts
        )

    def mine() -> Work:
        collection = loaded()
        asked = collection.query_ids("train")[:ASKED]
        from retrodistill.base.types import RetrieverOptions
        from retrodistill.models.retrievers import load_retriever, retrieved_run

        retriever = load_retriever("bm25", collection.docs, RetrieverOptions())
        return lambda: retrieved_run(retriever, collection, asked, k=DEPTH, name="bm25")

    def search(index: str) -> Work:
        embed(index)()
        from retrodistill.models.indexes import index_kind

        queries = Encoder().encode_queries(list(made_texts(ASKED, 6)))

        def work() -> object:
            return index_kind(index).load(scratch / "index" / "index").search(queries, 10)

        return work

    def leakage() -> Work:
        from retrodistill.stages.evaluation.leakage import nearest

        texts = list(made_texts(len(loaded().docs), 12))
        return lambda: nearest(texts[::2], texts[1::2])

    return {
        "load, first time": lambda: loaded,
        "load, again": lambda: (loaded(), loaded)[1],
        "mine bm25, 200 queries": mine,
        "embed exact": lambda: embed("exact"),
        "embed flat": lambda: embed("flat"),
        "embed ivf": lambda: embed("ivf"),
        "embed sq8, workload": lambda: embed("sq8", workload=True),
        "search exact, 200 queries": lambda: search("exact"),
        "search ivf, 200 queries": lambda: search("ivf"),
        "leakage": leakage,
    }


def by_pairs(folder: Path, scratch: Path, pairs: int) -> dict[str, Callable[[], Work]]:
    """Return what grows with pairs."""
    collection = rd.load_collection(f"beir:{folder}")
    made = partial(made_run, pairs // DEPTH, len(collection.docs))

    def score(*, again: bool = False) -> Work:
        candidates = made()
        work = partial(rd.score_candidates, collection, candidates, Teacher(), scratch / "scores")
        if again:
            work()
        return work

    def evaluate() -> Work:
        run, qrels = made(), collection.qrels("train")
        return lambda: rd.evaluate_runs(qrels, {"one": run}, metrics="ndcg@10,recall@100")

    def compare() -> Work:
        runs, qrels = {"one": made(), "other": made(seed=1)}, collection.qrels("train")
        return lambda: rd.evaluate_runs(qrels, runs, metrics="ndcg@10")

    def two(function: Callable[[rd.Run, rd.Run], object]) -> Work:
        return partial(function, made(), made(seed=1))

    def gather() -> Work:
        from retrodistill.stages.training.candidates import gather
        from retrodistill.stages.training.examples import Schedule

        run = made()
        collection.qrels("train")

        def work() -> object:
            lists = gather(collection, "train", run, pool=DEPTH)
            schedule = Schedule(lists, length=2_000, per_query=8, seed=0)
            return [schedule[position] for position in range(2_000)]

        return work

    def written() -> Work:
        run = made()
        return lambda: (run.write(scratch / "run"), rd.Run.read(scratch / "run"))

    def convert() -> Work:
        run = made()
        return lambda: (run.to_trec(scratch / "run.trec"), rd.Run.read(scratch / "run.trec"))

    return {
        "run": lambda: made,
        "run, written and read": written,
        "convert to and from TREC": convert,
        "score": score,
        "score, again": lambda: score(again=True),
        "train, candidates and 2,000 examples": gather,
        "fuse": lambda: two(lambda one, other: rd.fuse_runs([one, other])),
        "fuse rerank": lambda: two(
            lambda one, other: rd.fuse_runs([one, other.top(50)], method="rerank")
        ),
        "fidelity": lambda: two(rd.fidelity),
        "evaluate": evaluate,
        "evaluate two, t-test": compare,
    }


def measure(folder: Path, unit: str, size: int, name: str) -> None:
    """Do one work, and print what it took."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        os.environ["RETRODISTILL_CACHE"] = str(
            Path(scratch) / "cache" if name == "load, first time" else folder / "cache"
        )
        places = folder / "data", Path(scratch)
        works = by_documents(*places) if unit == "documents" else by_pairs(*places, size)
        work = works[name]()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from here
        before = _memory("VmRSS")
        start = time.process_time()
        result = work()
        row = {
            "work": name,
            "unit": unit,
            "size": size,
            "seconds": round(time.process_time() - start, 3),
            "mb": round(_memory("VmHWM") - before, 1),
            "mb_before": round(before, 1),
        }
        del result
    print(json.dumps(row | library_versions()), flush=True)


def _memory(name: str) -> float:
    """Return megabytes of Linux's account: VmRSS are those of now, VmHWM the most of all."""
    status = Path("/proc/self/status").read_text().split(f"{name}:")[1]
    return int(status.split()[0]) * 1024 / 1e6


def main() -> None:
    """Make a folder for each size, and measure each work in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--only", default="", help="works whose names begin so, comma-separated")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, unit, size, name = options.one
        measure(Path(folder), unit, int(size), name)
        return
    starts = tuple(options.only.split(","))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for size in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            names = by_documents(Path(folder), Path(folder))
            os.environ["RETRODISTILL_CACHE"] = environment["RETRODISTILL_CACHE"] = f"{folder}/cache"
            write(Path(folder) / "data", size, max(ASKED, size // DEPTH))
            works = [("documents", name) for name in names]
            works += [("pairs", name) for name in by_pairs(Path(folder) / "data", Path(folder), 0)]
            for unit, name in works:
                if name.startswith(starts):
                    one = ["--one", folder, unit, str(size), name]
                    subprocess.run([sys.executable, __file__, *one], check=True, env=environment)


if __name__ == "__main__":
    main()
