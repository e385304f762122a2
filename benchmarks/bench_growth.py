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
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path

from stand_ins import (
    ASKED,
    DEPTH,
    Encoder,
    Judge,
    SavedEncoder,
    Teacher,
    made_run,
    made_texts,
    write,
)

import retrodistill as rd
from retrodistill.base.manifest import library_versions

SIZES = "10000,100000"

Work = Callable[[], object]


def by_documents(folder: Path, scratch: Path, stack: ExitStack) -> dict[str, Callable[[], Work]]:
    """Return what grows with documents: name -> what prepares it and gives the work.

    The stack closes what a work leaves open.
    """

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

    def generate() -> Work:
        collection, settings = loaded(), rd.GenerateSettings(writer=("stand_ins:Writer",))
        return lambda: rd.generate_queries(collection, settings).write(scratch / "queries")

    def start() -> Work:
        from fakes.serving import running

        rd.embed_collection(loaded(), SavedEncoder(scratch / "tiny"), out=scratch / "index")
        settings = rd.ServeSettings(index=(str(scratch / "index"),), precision="float32")

        def work() -> object:
            server = stack.enter_context(running(settings))
            with server.app.state.service.serving() as served:
                served.indexes["index"].lexical.warm()
            return server

        return work

    def serve(method: str) -> Work:
        server, queries = start()(), list(made_texts(ASKED, 6))
        return lambda: [server.ask("/search", query=query, method=method) for query in queries]

    def distil() -> Work:
        from retrodistill.base.config import DistilConfig
        from retrodistill.data.store.vectors import vector_files
        from retrodistill.stages.pipelines.distil import distil

        encoder = SavedEncoder(scratch / "tiny")
        list(vector_files(encoder, loaded().docs))
        config = DistilConfig(
            data=f"beir:{folder}",
            student=str(encoder.path),
            out=scratch / "app",
            split="few",
            steps=2,
            max_tokens=encoder.max_tokens,
            precision="float32",
        )
        return lambda: distil(config)

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
        "generate": generate,
        "serve, start": start,
        "serve, 200 searches": lambda: serve("dense"),
        "serve, 200 hybrid searches": lambda: serve("hybrid"),
        "distil, 100 queries": distil,
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

    def audit() -> Work:
        first_stage, teachers = made(), {"one": Teacher(), "other": Judge()}
        collection.qrels("train")
        return lambda: rd.audit_teachers(collection, "train", first_stage, teachers)

    def judge() -> Work:
        runs = {"one": made()}
        settings = rd.JudgeSettings(judge="stand_ins:Judge", quantiles="0.5,0.9", depth=DEPTH)
        return lambda: rd.judge_runs(collection, runs, settings, scratch / "judged", split="train")

    def report() -> Work:
        from retrodistill.base.config import ReportConfig
        from retrodistill.report import report

        paths = {name: scratch / name for name in ("one", "other", "teacher")}
        for seed, path in enumerate(paths.values()):
            made(seed=seed).write(path)
        config = ReportConfig(
            data=f"beir:{folder}",
            split="train",
            run=(paths["one"], paths["other"]),
            teacher=paths["teacher"],
            out=scratch / "report",
        )

        def work() -> None:
            with redirect_stdout(io.StringIO()):
                report(config)

        return work

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
        "report of two and a teacher": report,
        "audit, 100 queries": audit,
        "judge": judge,
    }


def measure(folder: Path, unit: str, size: int, name: str) -> None:
    """Do one work, and print what it took."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch, ExitStack() as stack:
        os.environ["RETRODISTILL_CACHE"] = str(
            Path(scratch) / "cache" if name == "load, first time" else folder / "cache"
        )
        places = folder / "data", Path(scratch)
        is_document = unit == "documents"
        works = by_documents(*places, stack) if is_document else by_pairs(*places, size)
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
            names = by_documents(Path(folder), Path(folder), ExitStack())
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
