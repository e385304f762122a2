"""Serving over HTTP: this server beside a plain one, infinity, and the library called directly.

    python benchmarks/bench_serving.py --index quickstart/index [--reranker FOLDER] \\
        [--infinity VENV/bin/infinity_emb] > benchmarks/results/serving_MACHINE_YYYYMM.jsonl

Each server is a process of its own on 127.0.0.1, and all serve the model of the index; only one has
load at a time. Workloads: `query` (a query a request), `batch` (32 documents a request), `rerank`
(a query with 20 documents), `search` (a query to ten documents; beside `Searcher.search` in one
thread), and `overload` (queries at twice the rate that 64 clients reached). Rounds alternate
between the systems; a line has medians over rounds, and the ratio of its requests/s to the plain
server's and to the library's in the same rounds. `library` has the texts in batches of 64, without
HTTP: what the machine can do. Peers read the model in float32; ours in --precision, and `ours
float32` is ours without bfloat16. Clients take part of the same processor.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.models.students.dense import DenseEncoder

HERE = Path(__file__).parent
CLIENTS = {"query": (1, 8, 64), "batch": (1, 8), "rerank": (1, 8), "search": (1, 8, 64)}
TEXTS = {"query": 1, "batch": 32, "rerank": 20, "search": 1}
PATHS = {
    "query": "/v1/embeddings",
    "batch": "/v1/embeddings",
    "rerank": "/rerank",
    "search": "/search",
}
FIRST_PORT = 18200


def main() -> None:
    """Start the servers, load them in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--index", required=True, type=Path)
    parser.add_argument("--reranker", help="folder of a cross-encoder")
    parser.add_argument("--infinity", help="its command, in an environment of its own")
    parser.add_argument("--infinity-model", help="the model in a form that infinity reads")
    parser.add_argument("--infinity-reranker", help="the reranker in a form that infinity reads")
    parser.add_argument("--data", default="builtin:pydocs", help="collection of the texts")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--queue", default="4096", help="texts that may wait in ours")
    parser.add_argument("--only", help="workloads, separated by commas")
    parser.add_argument("--soak", type=float, help="instead: seconds of 64 clients, and memory")
    options = parser.parse_args()
    workloads = options.only.split(",") if options.only else [*CLIENTS, "overload"]
    collection = rd.load_collection(options.data)
    queries = [query.text for query in collection.queries][:2000]
    docs = collection.docs.full_texts(range(min(2000, len(collection.docs))))
    bodies = _bodies(queries, docs)
    with ExitStack() as stack:
        running = {name: stack.enter_context(server) for name, server in _servers(options)}
        urls = {name: url for name, (url, _) in running.items()}
        if options.soak:
            _soak(*running["ours"], bodies["query"], options.soak)
            return
        direct = _library(options, queries, docs)
        for workload in workloads:
            if workload == "overload":
                _overload(urls["ours"], bodies["query"], options)
                continue
            for clients in CLIENTS[workload]:
                _compare(workload, clients, urls, direct, bodies, options)


def _bodies(queries: list[str], docs: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the requests of each workload."""
    groups = [docs[start : start + 32] for start in range(0, len(docs) - 31, 32)]
    return {
        "query": [{"model": "model", "input": query} for query in queries],
        "batch": [{"model": "model", "input": group} for group in groups],
        "rerank": [
            {"model": "reranker", "query": query, "documents": group[:20]}
            for query, group in zip(
                queries, groups * (1 + len(queries) // len(groups)), strict=False
            )
        ],
        "search": [{"query": query, "k": 10} for query in queries],
    }


def _servers(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Yield name and running server, each of which answers with its URL."""
    ours = [sys.executable, "-m", "retrodistill.serve", "--index", f"model={options.index}"]
    ours += ["--queue", options.queue]
    if options.reranker:
        ours += ["--reranker", f"reranker=cross-encoder:{options.reranker}"]
    model = str(options.index / "model")
    rerank = [options.reranker] if options.reranker else []
    for name, precision in (("ours", options.precision), ("ours float32", "float32")):
        yield name, _process([*ours, "--precision", precision, "--port", "PORT"], "/readyz")
    plain = [sys.executable, str(HERE / "peers" / "plain_server.py"), model, "PORT", *rerank]
    yield "plain", _process(plain, "/docs")
    if options.infinity:
        command = [options.infinity, "v2", "--host", "127.0.0.1", "--port", "PORT"]
        reranker = options.infinity_reranker or options.reranker
        named = ((options.infinity_model or model, "model"), (reranker, "reranker"))
        for folder, served in named[: 1 + len(rerank)]:
            command += ["--model-id", folder, "--served-model-name", served]
            command += ["--engine", "torch", "--device", "cpu", "--no-bettertransformer"]
        yield "infinity", _process(command, "/health")


@contextmanager
def _process(command: list[str], ready: str) -> Iterator[tuple[str, int]]:
    """Run a server; give its URL and process number when it is ready."""
    global FIRST_PORT
    FIRST_PORT += 1
    url = f"http://127.0.0.1:{FIRST_PORT}"
    words = [str(FIRST_PORT) if word == "PORT" else word for word in command]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(words, stdout=sys.stderr, stderr=sys.stderr, env=environment) as process:
        try:
            for _ in range(240):
                time.sleep(0.5)
                if process.poll() is not None:
                    raise SystemExit(f"{words[0]} ended with {process.returncode}")
                try:
                    urllib.request.urlopen(url + ready, timeout=5).read()
                    break
                except OSError:
                    continue
            yield url, process.pid
        finally:
            process.terminate()
            process.wait()


def _library(
    options: argparse.Namespace, queries: list[str], docs: list[str]
) -> dict[str, Callable[[float], float]]:
    """Return for each workload the requests/s of the library, measured for some seconds."""
    encoder = DenseEncoder(options.index / "model", precision=options.precision)
    searcher = rd.Searcher.open(options.index, precision=options.precision)
    calls: dict[str, Callable[[int], int]] = {
        "query": lambda turn: len(encoder.encode_queries(_part(queries, turn, 64))),
        "batch": lambda turn: len(encoder.encode_docs(_part(docs, turn, 64))) / 32,
        "search": lambda turn: len(searcher.search_many(_part(queries, turn, 1), 10)),
    }
    if options.reranker:
        from retrodistill.base.types import Doc, Pairs
        from retrodistill.models.teachers import load_teacher

        teacher = load_teacher(
            f"cross-encoder:{options.reranker}", None, precision=options.precision
        )

        def rerank(turn: int) -> float:
            texts = [Doc("", "", text) for text in _part(docs, turn, 64)]
            query = Doc("", "", queries[turn % len(queries)])
            return len(teacher.score(Pairs.of([query] * len(texts), texts))) / 20

        calls["rerank"] = rerank

    def rate(call: Callable[[int], float]) -> Callable[[float], float]:
        def measured(seconds: float) -> float:
            began, done, turn = time.perf_counter(), 0.0, 0
            while time.perf_counter() - began < seconds:
                done += call(turn)
                turn += 1
            return done / (time.perf_counter() - began)

        return measured

    return {name: rate(call) for name, call in calls.items()}


def _part(texts: list[str], turn: int, size: int) -> list[str]:
    start = turn * size % max(1, len(texts) - size)
    return texts[start : start + size]


def _compare(
    workload: str,
    clients: int,
    urls: dict[str, str],
    direct: dict[str, Callable[[float], float]],
    bodies: dict[str, list[dict[str, Any]]],
    options: argparse.Namespace,
) -> None:
    """Load each system in turns, and print a line for each."""
    if workload == "rerank" and not options.reranker:
        return
    names = [name for name in urls if workload != "search" or name.startswith("ours")]
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    library = []
    for _ in range(options.rounds):
        for name in names:
            path = PATHS[workload]
            if name == "infinity":
                path = path.removeprefix("/v1")
            rounds[name].append(
                _loaded(urls[name], path, bodies[workload], clients, options.seconds)
            )
        library.append(direct[workload](options.seconds))
    limit = statistics.median(library)
    plain = (
        statistics.median(run["per_second"] for run in rounds.get("plain", []))
        if ("plain" in rounds)
        else None
    )
    for name in names:
        middle = {
            key: statistics.median(run[key] for run in rounds[name])
            for key in ("per_second", "p50_ms", "p99_ms")
        }
        _print(
            workload=workload,
            clients=clients,
            system=name,
            texts_per_second=middle["per_second"] * TEXTS[workload],
            **middle,
            failed=sum(
                count
                for run in rounds[name]
                for status, count in run["statuses"].items()
                if str(status) != "200"
            ),
            to_plain=middle["per_second"] / plain if plain else None,
            to_library=middle["per_second"] / limit,
        )
    _print(workload=workload, clients=clients, system="library", per_second=limit)


def _overload(url: str, bodies: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Find what 64 clients reach, send twice as much, and print how long an answer takes."""
    capacity = _loaded(url, "/v1/embeddings", bodies, 64, options.seconds)["per_second"]
    run = _loaded(url, "/v1/embeddings", bodies, 4096, 2 * options.seconds, rate=2 * capacity)
    keys = ("per_second", "p50_ms", "p99_ms", "statuses")
    about = {"rate": 2 * capacity, "queue": int(options.queue)}
    _print(workload="overload", system="ours", **about, **{key: run[key] for key in keys})


def _soak(url: str, process: int, bodies: list[dict[str, Any]], seconds: float) -> None:
    """Saturate this server, and print its memory and speed in each tenth of the time."""
    for part in range(10):
        run = _loaded(url, "/v1/embeddings", bodies, 64, seconds / 10)
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        memory = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        keys = ("per_second", "p50_ms", "p99_ms", "statuses")
        _print(
            workload="soak",
            system="ours",
            part=part,
            resident_mb=int(memory.split()[1]) / 1024,
            **{key: run[key] for key in keys},
        )


def _loaded(
    url: str,
    path: str,
    bodies: list[dict[str, Any]],
    clients: int,
    seconds: float,
    rate: float | None = None,
) -> dict[str, Any]:
    """Return what a load in a process of its own measured."""
    plan = {"url": url + path, "bodies": bodies, "clients": clients, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, str(HERE / "load.py")],
        input=json.dumps(plan | {"rate": rate}),
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _print(**line: Any) -> None:
    rounded = {
        key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()
    }
    about = {"machine": platform.processor() or platform.machine(), "cpus": os.cpu_count()}
    print(json.dumps(rounded | about | {"versions": library_versions()}), flush=True)


if __name__ == "__main__":
    main()
