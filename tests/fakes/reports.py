"""Inputs of a report that hold whatever could break a page."""

import json
from pathlib import Path

from retrodistill.base.manifest import Manifest
from retrodistill.data.store.runs import Run

EVIL = "<script>alert(1)</script>"
BREAKS = "</script></style></title><img src=x onerror=alert(2)> & \"quoted\" 'single' `code` $x_1$"


def save_inputs(folder: Path) -> Path:
    """Write data, two runs, scores, a student's and an index's manifest; return the folder."""
    (folder / "data" / "qrels").mkdir(parents=True)
    docs = {EVIL: ("A | title", BREAKS), "d2": ("Second", "text *two*"), "d3": ("", "# three")}
    docs |= {f"d{number}": (f"Title {number}", "words " * 80) for number in range(4, 20)}
    queries = {"q1": BREAKS, EVIL: "what is <b>bold</b>?", "q3": "third", "q4": "fourth"}
    _write_jsonl(
        folder / "data" / "corpus.jsonl",
        [{"_id": id, "title": title, "text": text} for id, (title, text) in docs.items()],
    )
    _write_jsonl(
        folder / "data" / "queries.jsonl", [{"_id": q, "text": t} for q, t in queries.items()]
    )
    grades = [("q1", EVIL, 2), ("q1", "d2", 0), (EVIL, "d2", 1), ("q3", "d3", 1), ("q4", "d4", 1)]
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in grades)]
    (folder / "data" / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")

    # nDCG@10: 1 for all; 0.5 for q1 (rank 3), 0.6309 for EVIL (rank 2), 0 for q3, 1 for q4.
    strong = {
        "q1": {EVIL: 3.0, "d2": 2.0, "d5": 1.0},
        EVIL: {"d2": 2.0, "d6": 1.0},
        "q3": {"d3": 1.0, "d7": 0.5},
        "q4": {"d4": 1.0, "d8": 0.5},
    }
    weak = {
        "q1": {"d2": 3.0, "d5": 2.0, EVIL: 1.0},
        EVIL: {"d6": 2.0, "d2": 1.0},
        "q3": {"d7": 1.0},
        "q4": {"d4": 2.0, "d8": 0.1},
    }
    Run.from_dict(strong).write(folder / "strong")
    Run.from_dict(strong).write(folder / "teacher")
    Run.from_dict(weak).to_jsonl(folder / "weak_<b>&.jsonl")
    losses = [
        {"step": step, "listwise-kl": 1 / step, "contrastive": 2 / step} for step in (1, 2, 4)
    ]
    development = {
        "split": "dev",
        "metric": "ndcg@10",
        "step": 2,
        "value": 0.7,
        "docs": "all",
        "values": [[1, 0.4], [2, 0.7], [4, 0.6]],
    }
    _manifest(folder / "student", "student", {"losses": losses, "development": development})
    tried = [{"effort": {"nprobe": n}, "recall": 1 - 0.5 / n, "ms": n / 8} for n in (1, 2, 4)]
    _manifest(folder / "index", "index", {"tuning": {"target": 0.9, "k": 10, "tried": tried}})
    return folder


def words(folder: Path, out: Path) -> list[str]:
    """Return the flags of a report with every part."""
    return [
        "--data",
        f"beir:{folder / 'data'}",
        "--run",
        str(folder / "strong"),
        "--run",
        str(folder / "weak_<b>&.jsonl"),
        "--teacher",
        str(folder / "teacher"),
        "--student",
        str(folder / "student"),
        "--index",
        str(folder / "index"),
        "--latency",
        "strong=12.5",
        "--latency",
        "weak_<b>&=1.25",
        "--out",
        str(out),
    ]


def _manifest(folder: Path, kind: str, details: dict[str, object]) -> None:
    folder.mkdir()
    Manifest(kind=kind, fingerprint="f" * 64, details=details).write(folder)


def _write_jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
