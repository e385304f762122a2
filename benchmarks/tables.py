"""Markdown tables of benchmark results, so that no number is typed.

    python benchmarks/tables.py benchmarks/results/scifact_MACHINE_YYYYMM.jsonl
    python benchmarks/tables.py --growth benchmarks/results/growth_MACHINE_YYYYMM.jsonl
    python benchmarks/tables.py RESULTS.jsonl --metric ndcg@10 --also recall@100,fidelity --sort

Reads lines of `rows.py` (other lines are skipped), prints a table a file: a row a system; the
metric on all queries, on those with no near double in training and on those whose relevant
documents are unseen there, each with the number of queries and with p, uncorrected, against the
system that the lines name; +- is the standard deviation over seeds. Where lines name a recipe's
offline counterpart, the test against it on the last of these rows. Then what else is asked for, on
all queries.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodistill.stages.reporting.tables import markdown_table, shown

NAMES = {
    "ndcg@10": "nDCG@10",
    "mrr@10": "MRR@10",
    "recall@100": "Recall@100",
    "all": "all",
    "no near double in training": "no near double",
    "documents unseen in training": "documents unseen",
}

Line = Mapping[str, Any]


def rows_of(path: Path) -> dict[str, dict[str, Line]]:
    """Return system -> row of queries -> line; a later line replaces an earlier one."""
    found: dict[str, dict[str, Line]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "system" in line and "queries" in line and "number" in line and "seed" not in line:
            found.setdefault(line["system"], {})[line["queries"]] = line
    return found


def table(
    systems: Mapping[str, Mapping[str, Line]],
    *,
    metric: str = "ndcg@10",
    also: Sequence[str] = (),
    ordered: bool = False,
) -> str:
    """Return the table of systems; `ordered` puts the best on all queries first."""
    titles = list(dict.fromkeys(title for own in systems.values() for title in own))
    numbers = {title: own[title]["number"] for own in systems.values() for title in own}
    columns = ["system"]
    for title in titles:
        columns += [f"{NAMES.get(title, title)} ({numbers[title]})", "p"]
    last = titles[-1]
    offline = any("offline" in own.get(last, {}) for own in systems.values())
    columns += ["offline counterpart", f"p, {NAMES.get(last, last)}"] if offline else []
    columns += [NAMES.get(name, name) for name in also]
    names = list(systems)
    if ordered:
        names.sort(key=lambda name: -systems[name][titles[0]][metric])
    rows = []
    for name in names:
        row = [name]
        for title in titles:
            line = systems[name].get(title, {})
            row += [_value(line, metric), _probability(line.get("p"))]
        if offline:
            line = systems[name].get(last, {})
            row += [line.get("offline", ""), _probability(line.get("p_offline"))]
        row += [_value(systems[name][titles[0]], other, spread=False) for other in also]
        rows.append(row)
    return f"{NAMES.get(metric, metric)}\n\n{markdown_table(columns, rows)}"


def growth_table(path: Path) -> str:
    """Return what each work of `bench_growth.py` took at each size, and how it grew.

    The exponent is that of the last two sizes, 1 where work is linear; bytes a unit are between
    these sizes too, so that what every process takes at first does not count.
    """
    works: dict[tuple[str, str], dict[int, Line]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if "work" in line:
            works.setdefault((line["unit"], line["work"]), {})[line["size"]] = line
    sizes = sorted({size for lines in works.values() for size in lines})
    columns = ["what", "a unit", *(f"{size:,}: s" for size in sizes), "MB", "exponent", "bytes"]
    rows = []
    for (unit, work), lines in works.items():
        row = [work, unit, *(f"{lines[s]['seconds']:.2f}" if s in lines else "" for s in sizes)]
        *_, before, last = (lines[size] for size in sorted(lines))
        growth = last["size"] / before["size"]
        slow = before["seconds"] >= 0.05  # below, clocks and start-up are what is measured
        exponent = math.log(last["seconds"] / before["seconds"], growth) if slow else None
        each = (last["mb"] - before["mb"]) * 1e6 / (last["size"] - before["size"])
        shown_exponent = "" if exponent is None else f"{exponent:.2f}"
        rows.append([*row, f"{last['mb']:,.0f}", shown_exponent, f"{each:,.0f}"])
    return markdown_table(columns, rows)


def _value(line: Line, metric: str, *, spread: bool = True) -> str:
    value = line.get(metric)
    if value is None:
        return ""
    small = isinstance(value, float) and abs(value) < 10
    text = f"{value:.4f}" if small else shown(value)
    return f"{text} ± {line['spread']:.4f}" if spread and "spread" in line else text


def _probability(p: float | None) -> str:
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def main() -> None:
    """Print a table for each file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--metric", default="ndcg@10")
    parser.add_argument("--also", default="recall@100", help="further columns, comma-separated")
    parser.add_argument("--sort", action="store_true", help="best on all queries first")
    parser.add_argument("--growth", action="store_true", help="of lines of bench_growth.py")
    options = parser.parse_args()
    if options.growth:
        for path in options.results:
            print(f"<!-- {path} -->\n\n{growth_table(path)}\n")
        return
    also = [name for name in options.also.split(",") if name]
    for path in options.results:
        systems = rows_of(path)
        if not systems:
            print(f"{path}: no line of a system with its queries", file=sys.stderr)
            continue
        print(f"<!-- {path} -->\n")
        print(table(systems, metric=options.metric, also=also, ordered=options.sort) + "\n")


if __name__ == "__main__":
    main()
