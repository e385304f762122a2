"""Seconds of whole processes that score pairs: `score` against a plain script.

    python benchmarks/bench_process.py --data ../shared/data/medquad --model MS_MARCO \\
        > benchmarks/results/process_MACHINE_YYYYMM.jsonl

The pairs are the first BM25 candidates of some test queries, PAIRS in all, at most 256 tokens each.
Each measurement is a process, start-up and loading included; the ways take turns, ROUNDS times,
and the line has their medians:

    default   CrossEncoder.predict as it comes: float32, batches of 32
    plain     the same in bfloat16, in batches of 16
    ours      python -m retrodistill.score, into a new folder
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAX_TOKENS, DEPTH = 256, 20
WAYS = ("default", "plain", "ours")


def predict(texts: Path, model: str, way: str) -> None:
    """Score pairs of a JSON file as a plain script does."""
    import numpy as np
    import torch
    from sentence_transformers import CrossEncoder

    pairs = [tuple(pair) for pair in json.loads(texts.read_text())]
    encoder = CrossEncoder(model, device="cpu", max_length=MAX_TOKENS)
    fast = way == "plain"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
        scores = encoder.predict(pairs, batch_size=16 if fast else 32, show_progress_bar=False)
    np.save(texts.with_suffix(".npy"), scores)


def main() -> None:
    """Let the ways take turns, and print a line of medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--model", required=True, help="cross-encoder")
    parser.add_argument("--pairs", type=int, default=3240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        predict(Path(options.one[0]), options.model, options.one[1])
        return
    import rows  # not above: the plain script does not load this package

    import retrodistill as rd

    collection = rd.load_collection(f"beir:{options.data}")
    run = rd.mine_candidates(collection, "test", settings=rd.MineSettings(depth=DEPTH))
    run = run.select(run.query_ids[: options.pairs // DEPTH])
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        candidates, texts = Path(folder) / "candidates", Path(folder) / "texts.json"
        run.write(candidates)
        pairs = [
            (collection.queries.get(query).full_text, collection.docs.get(doc).full_text)
            for query, docs, _ in run.lists()
            for doc in docs
        ]
        texts.write_text(json.dumps(pairs))
        for number in range(options.rounds):
            for way in WAYS:
                words = [__file__, "--data", str(options.data), "--model", options.model]
                words += ["--one", str(texts), way]
                if way == "ours":
                    words = ["-m", "retrodistill.score", "--data", f"beir:{options.data}"]
                    words += ["--candidates", str(candidates)]
                    words += ["--teacher", f"cross-encoder:{options.model}"]
                    words += ["--max-tokens", str(MAX_TOKENS), "--out", f"{folder}/{number}"]
                began = time.perf_counter()
                subprocess.run([sys.executable, *words], check=True, capture_output=True)
                times[way].append(time.perf_counter() - began)
    ratios = {
        f"ratio_to_{way}": round(
            statistics.median(a / b for a, b in zip(times[way], times["ours"], strict=True)), 3
        )
        for way in WAYS[:2]
    }
    seconds = {f"{way}_s": round(statistics.median(own), 2) for way, own in times.items()}
    line = {"data": options.data.name, "model": Path(options.model).name, "pairs": len(pairs)}
    print(json.dumps(line | seconds | ratios | {"rounds": options.rounds} | rows.machine()))


if __name__ == "__main__":
    main()
