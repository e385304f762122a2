"""A short run of benchmarks/check_inputs.py: no malformed input ends in a traceback."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "check_inputs.py"
LIGHT = (
    "beir,trec,jsonl,parquet,yaml,benchmark,--where,--objective,--sets,flags,attributes,recipe,id,"
    "score f"
)
"""Kinds that need neither a model nor a store."""


def check(*words: str) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--only", LIGHT, *words], capture_output=True, text=True
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_malformed_input_is_read_or_refused_with_a_sentence() -> None:
    """A traceback, a hang, or a number that no check looks at, from a file with a slip in it."""
    status, rows = check("--share", "0.03", "--seed", "1000")
    assert [row for row in rows if "outcome" in row] == []
    assert status == 0
    counts = {name: sum(row[name] for row in rows) for name in ("cases", "accepted", "clean")}
    assert counts["cases"] > 150
    assert counts["accepted"] > 30
    assert counts["clean"] > 30


def test_undamaged_input_is_read() -> None:
    """A check that refuses everything, and so finds no fault."""
    _, rows = check("--share", "0.004", "--undamaged")
    files = ("beir", "trec", "jsonl", "benchmark", "--where", "recipe", "id", "score")
    read = [row for row in rows if row["kind"].startswith(files)]
    assert len(read) == 11
    assert all(row["accepted"] == row["cases"] for row in read), read
