"""Malformed input of every kind: each case is read, refused with a sentence, or a fault.

    python benchmarks/check_inputs.py > check.jsonl                # 8,600 cases
    python benchmarks/check_inputs.py --share 0.05 --only yaml,benchmark

Seeded mutations of texts and files that are in order, and single flipped bits of the folders that
the commands write. Each case runs in a forked process, with a limit of processor time, and ends as

- `accepted`: it was read; where there is something to compare with, the result is the undamaged one
- `clean`: a RetrodistillError, or exit status 2
- `silent`: it was read, and the result is another than the undamaged one (or makes no sense)
- `traceback`: any other exception; `signal`: the process died, or took more than LIMIT seconds

One JSON object a kind, after one for each fault with the seed that makes it again (`--only KIND
--seed SEED --share 0` runs a single case). The table goes to stderr. Status 1 if there is a fault.
With --undamaged, what is read from files is read as it was written: a check of the checks.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).parent))

import check_inputs_cases as cases

from retrodistill.base.errors import RetrodistillError

LIMIT = 10
"""Seconds of processor time of a case."""

MEMORY = 8 << 30
"""Bytes that a case may allocate."""

OUTCOMES = ("accepted", "clean", "silent", "traceback", "signal")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended."""

    name: str
    detail: str = ""


def judged(check: cases.Check, place: cases.Place) -> Outcome:
    """Return how a check ends in this process."""
    try:
        return Outcome("accepted") if check(place) else Outcome("silent")
    except RetrodistillError as error:
        return Outcome("clean", str(error))
    except SystemExit as error:
        return Outcome("clean") if error.code == 2 else Outcome("traceback", f"exit {error.code}")
    except BaseException as error:
        frame = next(
            (
                frame
                for frame in reversed(traceback.extract_tb(error.__traceback__))
                if "retrodistill" in frame.filename and "benchmarks" not in frame.filename
            ),
            traceback.extract_tb(error.__traceback__)[-1],
        )
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return Outcome("traceback", f"{where} {type(error).__name__}: {str(error)[:150]}")


def forked(check: cases.Check, base: cases.Base, seed: int) -> Outcome:
    """Return how a check ends in a process of its own, and in a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=base.folder, prefix="case."))
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(6 * LIMIT)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.environ["RETRODISTILL_CACHE"] = str(folder / "cache")
        outcome = judged(check, cases.Place(base, folder, random.Random(seed)))
        os.write(write_end, f"{outcome.name}\n{outcome.detail}".encode(errors="replace")[:4000])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8", errors="replace") as stream:
        name, _, detail = stream.read().partition("\n")
    status = os.waitpid(child, 0)[1]
    shutil.rmtree(folder, ignore_errors=True)
    if os.WIFSIGNALED(status):
        return Outcome("signal", signal.Signals(os.WTERMSIG(status)).name)
    return Outcome(name, detail) if name else Outcome("signal", f"status {status}")


def checked(kind: cases.Kind, base: cases.Base, seeds: Sequence[int]) -> dict[str, Any]:
    """Run the cases of a kind, print each fault, and return the counts."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        outcome = forked(kind.check, base, seed)
        counts[outcome.name] += 1
        if outcome.name in OUTCOMES[2:]:
            row = {"kind": kind.name, "seed": seed, "outcome": outcome.name}
            print(json.dumps(row | {"detail": outcome.detail}), flush=True)
    row = {"kind": kind.name, "cases": len(seeds)} | {name: counts[name] for name in OUTCOMES}
    print(json.dumps(row), flush=True)
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the counts of all kinds as a Markdown table, with their sums."""
    columns = ("kind", "cases", *OUTCOMES)
    sums = {name: sum(row[name] for row in rows) for name in columns[1:]}
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [
        " | ".join(str(row[name]) for name in columns) for row in [*rows, {"kind": "total"} | sums]
    ]
    return "\n".join(f"| {line} |" for line in lines)


def main(words: Sequence[str] | None = None) -> int:
    """Run the cases; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="share of the cases to run")
    parser.add_argument("--only", default="", help="kinds, comma-separated: how their names begin")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case")
    parser.add_argument("--undamaged", action="store_true", help="damage nothing: all is accepted")
    given = parser.parse_args(words)
    cases.ENABLED = not given.undamaged
    wanted = [name for name in given.only.split(",") if name]
    kinds = [
        kind
        for kind in cases.KINDS
        if not wanted or any(kind.name.startswith(name) for name in wanted)
    ]
    rows = []
    with tempfile.TemporaryDirectory(prefix="check-inputs.") as folder:
        os.environ["RETRODISTILL_CACHE"] = str(Path(folder) / "cache")
        with contextlib.redirect_stdout(sys.stderr):
            base = cases.Base(Path(folder), {kind.needs for kind in kinds})
        for kind in kinds:
            count = max(1, round(kind.cases * given.share))
            rows.append(checked(kind, base, range(given.seed, given.seed + count)))
    print(table(rows), file=sys.stderr)
    return int(any(row[name] for row in rows for name in OUTCOMES[2:]))


if __name__ == "__main__":
    sys.exit(main())
