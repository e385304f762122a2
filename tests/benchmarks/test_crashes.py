"""Commands that are killed, and run again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "check_crashes.py"


@pytest.mark.slow
def test_killed_commands_end_as_undisturbed_ones() -> None:
    """Results that depend on a kill, rows paid twice, orphans on the GPU, hidden folders."""
    words = [sys.executable, str(SCRIPT), "--kills", "8", "--seed", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [row["verb"] for row in rows] == ["score", "mine", "embed", "train"]
    for row in rows:
        assert row["kills"] >= 2
        assert row["equal"] == row["trials"]
        assert row["doubled"] == row["orphans"] == row["hidden"] == 0
