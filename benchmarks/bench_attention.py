"""Attention on a CPU: products a few texts at a time, against PyTorch's own kernels.

    python benchmarks/bench_attention.py > benchmarks/results/attention_MACHINE_YYYYMM.jsonl

Batches of about TOKENS random tokens in heads as all-MiniLM-L6-v2 has them, with one token of
padding in each text. Both ways take turns, ROUNDS times; a line has the medians in milliseconds
and `ratio`, the median of the rounds' ratios, of PyTorch's time over ours:

    inference   a forward pass
    training    a forward and a backward pass
    dropout     the same with dropout, for which PyTorch has no kernel on a CPU

`kept_mb` is what each keeps from the forward to the backward pass.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import rows
import torch
from bench_scoring import take_turns
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from retrodistill.models.inference.products import padded_products

TOKENS, HEADS, WIDTH, DROPOUT = 8192, 12, 32, 0.1


def kept_mb(call: Callable[[], Any]) -> float:
    """Return the megabytes of the tensors that a call keeps for its gradients."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        attended = call()
    del attended
    return round(sum(sizes.values()) / 1e6, 1)


def measure(dtype: torch.dtype, length: int, use: str, rounds: int) -> dict[str, Any]:
    """Return the row of one number type, length and use."""
    texts = TOKENS // length
    trains, dropout = use != "inference", DROPOUT if use == "dropout" else 0.0
    query, key, value = (
        torch.randn(texts, length, HEADS, WIDTH).to(dtype).transpose(1, 2).requires_grad_(trains)
        for _ in range(3)
    )
    mask = torch.ones(texts, 1, 1, length, dtype=torch.bool)
    mask[..., -1] = False
    mask = mask.expand(-1, -1, length, -1)

    def ours() -> Tensor:
        return padded_products(query, key, value, mask, dropout, None)

    def theirs() -> Tensor:
        heads = scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout)
        return heads.transpose(1, 2).contiguous()

    def run(kernel: Callable[[], Tensor]) -> None:
        attended = kernel()
        if trains:
            torch.autograd.grad(attended, (query, key, value), torch.ones_like(attended))

    ways = {"pytorch": lambda: run(theirs), "ours": lambda: run(ours)}
    take_turns(ways, 1)
    with torch.set_grad_enabled(trains):
        times, _ = take_turns(ways, rounds)
    ratios = [a / b for a, b in zip(times["pytorch"], times["ours"], strict=True)]
    memory = {"kept_mb": {"pytorch": kept_mb(theirs), "ours": kept_mb(ours)}} if trains else {}
    return {
        "use": use,
        "dtype": str(dtype).removeprefix("torch."),
        "length": length,
        "texts": texts,
        **{f"{name}_ms": round(1e3 * statistics.median(own), 2) for name, own in times.items()},
        "ratio": round(statistics.median(ratios), 2),
        **memory,
        "rounds": rounds,
        **rows.machine(),
    }


def main() -> None:
    """Measure each number type, use and length."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for dtype in (torch.bfloat16, torch.float32):
        for use in ("inference", "training", "dropout"):
            for length in (32, 64, 128, 256, 512):
                print(json.dumps(measure(dtype, length, use, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
