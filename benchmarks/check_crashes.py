"""Kills commands at random moments, runs them again, and compares with an undisturbed run.

    python benchmarks/check_crashes.py --kills 100 > benchmarks/results/crashes_MACHINE_YYYYMM.jsonl

The real verbs `score`, `mine` (dense), `embed`, `train` and `distil` on tiny collections with tiny
models, each in a process of its own, the first three with two workers. Processes are forked from
one that has imported everything, and encoders and teacher sleep a little, so that a kill falls into
the work and not into imports. Each trial kills one to three times, by SIGKILL, SIGTERM or SIGINT,
the parent alone or its whole group, at a moment drawn evenly from the undisturbed time; then the
same command is run to its end. One JSON line a verb:

    kills       how many met a running process (others came after its end)
    equal       trials whose result is that of the undisturbed run, of `trials`
    doubled     rows that a store holds twice
    orphans     workers that live a second after their parent's end
    hidden      hidden files and folders, and checkpoints, that are there after the last command
    statuses    how killed commands ended: -9 killed, 130 SIGINT, 143 SIGTERM, 0 was done before

The exit status is 1 unless all are equal and nothing is doubled or left.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path += [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

from fakes.corpus import save_small_collection, save_titled_corpus
from fakes.models import save_tiny_model

from retrodistill import distil, embed, mine, score, train
from retrodistill.base import executor
from retrodistill.base.config import MineSettings
from retrodistill.base.files import is_unfinished
from retrodistill.data.store import vectors
from retrodistill.data.store.shards import shard_paths
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.mining import mine_candidates

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PAUSE = 0.3
"""Seconds that a shard or a part takes: so much is left to do that orphans would be met."""
ENDS = {"score": (0,), "mine": (0,), "embed": (0,), "train": (0,), "distil": (0, 1)}
"""Exit statuses of a command that ran to its end: a student that did not pay ends with 1."""
PATIENCE = 240
"""Seconds after which a command that should end is given up."""


class LengthTeacher:
    """A score is made of the lengths of query and document."""

    scale, unit, fingerprint = "logit", "pair", "lengths"

    def __init__(self, argument: str = "", collection: Any = None, **_: Any) -> None:
        pass

    def score(self, pairs: Any) -> np.ndarray:
        time.sleep(PAUSE)
        queries = np.array([len(query.text) for query in pairs.queries])
        docs = np.array([len(doc.text) for doc in pairs.docs])
        return (queries[pairs.query_rows] / (1 + docs[pairs.doc_rows])).astype(np.float32)


def slow_down() -> None:
    """Make parts small and encoders slow, in this process and those forked from it."""
    encode = DenseEncoder.encode_docs

    def slowly(self: DenseEncoder, texts: list[str]) -> np.ndarray:
        time.sleep(PAUSE)
        return encode(self, texts)

    DenseEncoder.encode_docs = slowly  # type: ignore[method-assign]
    vectors.PART = 8
    executor.get_context = lambda _: multiprocessing.get_context("fork")  # type: ignore[assignment]


def launch(main: Callable[[list[str]], int], words: list[str], folder: Path) -> int:
    """Start a verb in a process group of its own; return the process."""
    sys.stdout.flush()
    ready, begun = os.pipe()
    process = os.fork()
    if process:
        os.close(begun)
        os.read(ready, 1)  # the group is there once this ends
        os.close(ready)
        return process
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    os.close(ready)
    os.close(begun)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        os.environ["RETRODISTILL_CACHE"] = str(folder / "cache")
        status = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def status_of(process: int, seconds: float = PATIENCE) -> int:
    """Return the exit status of a process, which is killed if it does not end in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise TimeoutError(f"process {process} does not end")


def orphans_of(group: int) -> int:
    """Return how many processes of a group live a second later, and end them."""
    end = time.monotonic() + 1
    while (alive := alive_in(group)) and time.monotonic() < end:
        time.sleep(0.05)
    if alive:
        os.killpg(group, signal.SIGKILL)
    return alive


def alive_in(group: int) -> int:
    """Return how many processes of a group run."""
    alive = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        alive += int(own) == group and state != "Z"
    return alive


def artifacts(folder: Path) -> dict[str, Any]:
    """Return the fingerprint of each artifact of a pipeline, and what its report measured."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("manifest.json")):
        name = str(path.parent.relative_to(folder))
        if not name.startswith("steps"):
            found[name] = json.loads(path.read_text())["fingerprint"]
    report = json.loads((folder / "report.json").read_text())
    found["systems"] = {system["name"]: system["metrics"] for system in report["systems"]}
    return found | {"chosen": report["distil"]["chosen"]}


def digests(folder: Path) -> dict[str, str]:
    """Return the hash of each file of a result; of manifests without time and place."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.name == "manifest.json":
            manifest = json.loads(content)
            manifest.pop("checksum")
            manifest["details"].pop("seconds", None)
            manifest["config"].pop("out", None)
            content = json.dumps(manifest).encode()
        if path.name != "README.md":  # says how long a training took
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def result_of(verb: str, out: Path) -> Any:
    """Return what must be equal after any kill."""
    return {"score": rows_of, "distil": artifacts}.get(verb, digests)(out)


def rows_of(store: Path) -> list[tuple[str, str, float]]:
    """Return all rows of a score store's shards, doubled ones too."""
    import pyarrow.parquet as pq

    columns = ["query_id", "doc_id", "score"]
    rows = [
        tuple(row.values())
        for path in shard_paths(store)
        for row in pq.read_table(path, columns=columns).to_pylist()
    ]
    return sorted(rows)  # type: ignore[arg-type]


def commands(data: Path, titled: Path, model: Path, run: Path) -> dict[str, tuple[Any, list[str]]]:
    """Return each verb's main and its words, but --out."""
    common = ["--data", f"beir:{data}"]
    workers = ["--executor", "processes", "--workers", "2"]
    dense = ["--precision", "float32", *workers]
    teacher = ["--teacher", "check_crashes:LengthTeacher", "--shard-pairs", "24"]
    return {
        "score": (score.main, [*common, "--candidates", str(run), *teacher, *workers]),
        "mine": (mine.main, [*common, "--retriever", f"dense:{model}", "--depth", "9", *dense]),
        "embed": (embed.main, [*common, "--model", str(model), *dense]),
        "train": (
            train.main,
            [
                *common,
                "--student",
                str(model),
                "--objective",
                "contrastive",
                "--max-steps",
                "12",
                "--batch-size",
                "4",
                "--save-steps",
                "3",
                "--precision",
                "float32",
                "--resume",
            ],
        ),
        "distil": (
            distil.main,
            [
                *("--data", f"beir:{titled}", "--student", str(model), "--precision", "float32"),
                *("--steps", "6", "--depth", "8", "--held-out", "20", "--max-tokens", "32"),
            ],
        ),
    }


def trial(
    verb: str, main: Any, words: list[str], folder: Path, span: float, rng: random.Random
) -> dict[str, Any]:
    """Kill a command one to three times, run it to its end, and return what was met."""
    folder.mkdir()
    out = folder / "out"
    words = [*words, "--out", str(out)]
    statuses: Counter[int] = Counter()
    kills = orphans = 0
    for _ in range(rng.choice((1, 1, 2, 3))):
        sign, whole = rng.choice(SIGNALS), rng.random() < 0.5
        process = launch(main, words, folder)
        time.sleep(rng.uniform(0, span))
        (os.killpg if whole else os.kill)(process, sign)
        status = status_of(process)
        statuses[status] += 1
        kills += status not in (2, *ENDS[verb])
        orphans += orphans_of(process)
    last = status_of(launch(main, words, folder))
    log = (folder / "log").read_text()
    done = last in ENDS[verb] or (last == 2 and "exists already" in log.splitlines()[-1])
    hidden = [path for path in folder.rglob(".*") if is_unfinished(path)]
    hidden += list(folder.rglob("*.checkpoints"))
    rows = rows_of(out) if verb == "score" and done else []
    return {
        "kills": kills,
        "statuses": statuses,
        "orphans": orphans,
        "hidden": len(hidden),
        "doubled": len(rows) - len({row[:2] for row in rows}),
        "result": result_of(verb, out) if done else log[-2000:],
    }


def check(verb: str, main: Any, words: list[str], scratch: Path, kills: int, seed: int) -> bool:
    """Make trials of a verb until so many kills have met it; print the line; return its worth."""
    rng = random.Random(f"{verb} {seed}")
    folder = scratch / verb
    folder.mkdir()
    start = time.perf_counter()
    status = status_of(launch(main, [*words, "--out", str(folder / "out")], folder))
    assert status in ENDS[verb], (folder / "log").read_text()
    span = time.perf_counter() - start
    wanted = result_of(verb, folder / "out")
    totals: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    while totals["kills"] < kills:
        name = folder / f"trial{totals['trials']}"
        found = trial(verb, main, words, name, span, rng)
        statuses += found["statuses"]
        equal = found["result"] == wanted
        clean = equal and not found["orphans"] and not found["hidden"] and not found["doubled"]
        totals += Counter(
            {part: found[part] for part in ("kills", "orphans", "hidden", "doubled")}
            | {"trials": 1, "equal": int(equal)}
        )
        if clean:
            shutil.rmtree(name)
        else:
            if isinstance(found["result"], dict):
                pairs = found["result"].items() ^ wanted.items()
                found["result"] = f"differs in {sorted({path for path, _ in pairs})}"
            print(f"{name}: {found}"[:3000], file=sys.stderr)
    parts = ("kills", "trials", "equal", "doubled", "orphans", "hidden")
    row = {"verb": verb} | {part: totals[part] for part in parts}
    row |= {"statuses": dict(sorted(statuses.items())), "undisturbed_seconds": round(span, 2)}
    print(json.dumps(row | {"seconds": round(time.perf_counter() - start, 1)}), flush=True)
    left = totals["doubled"] + totals["orphans"] + totals["hidden"]
    return totals["equal"] == totals["trials"] and not left


def main() -> int:
    """Check the verbs; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="Kills in all [100].")
    parser.add_argument("--verb", action="append", help="Only this verb (repeatable).")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Folder for the trials that failed.")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        scratch = options.keep or Path(name)
        scratch.mkdir(parents=True, exist_ok=True)
        os.environ["RETRODISTILL_CACHE"] = str(scratch / "cache")
        from retrodistill.data.datasets import load_collection

        data = save_small_collection(scratch / "data", docs=120)
        model = save_tiny_model(scratch / "tiny", layers=2)
        collection = load_collection(f"beir:{data}")
        mine_candidates(collection, "train", settings=MineSettings(depth=20)).write(scratch / "run")
        slow_down()
        titled = save_titled_corpus(scratch / "titled")
        verbs = commands(data, titled, model, scratch / "run")
        verbs = {verb: verbs[verb] for verb in options.verb or verbs}
        share = -(-options.kills // len(verbs))
        sound = [
            check(verb, *command, scratch, share, options.seed) for verb, command in verbs.items()
        ]
        return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())
