"""Columns of ids beyond the 2 GB that one Arrow array of strings can hold, made out of little."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrodistill.base.config import MineSettings
from retrodistill.base.types import Comparisons, Pairs, Unit
from retrodistill.data.datasets import Collection
from retrodistill.data.rankings import average_scores
from retrodistill.data.store import columns
from retrodistill.data.store.columns import narrow, widened
from retrodistill.data.store.form import SCORES
from retrodistill.data.store.runs import Run
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring import compare_candidates, import_scores, score_candidates


class Teacher:
    """Scores and preferences that are row numbers."""

    scale = "logit"
    fingerprint = "rows"

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def score(self, pairs: Pairs) -> np.ndarray:
        return (pairs.query_rows - pairs.doc_rows).astype(np.float32)

    def compare(self, comparisons: Comparisons) -> np.ndarray:
        return -np.ones(len(comparisons), np.float32)


def all_that_runs_do(collection: Collection, folder: Path) -> list[str]:
    """Return the fingerprints of what runs and stores make of one run."""
    run = mine_candidates(collection, "train", settings=MineSettings(depth=6))
    run.write(folder / "run")
    run.to_trec(folder / "run.trec")
    run.to_jsonl(folder / "run.jsonl")
    made = [run, run.top(2), run.select(run.query_ids[::2]), average_scores([run, run.top(3)])]
    made += [Run.read(folder / name) for name in ("run", "run.trec", "run.jsonl")]
    for unit in ("pair", "document", "list"):
        for _ in range(2):
            store = score_candidates(collection, run, Teacher(unit), folder / unit, shard_pairs=20)
            store.shards[1].unlink()
        made.append(store.run())
    margins = "".join(
        f"1.5\t{rank}\t{query}\t{docs[0]}\t{doc}\n"
        for query, docs, _ in run.lists()
        for rank, doc in enumerate(docs[1:])
    )
    (folder / "margins.tsv").write_text(margins)
    imported = import_scores(
        collection, folder / "margins.tsv", folder / "given", format="margin-mse"
    )
    made.append(imported.run())
    edges = compare_candidates(collection, run, Teacher("pair"), folder / "edges").edges()
    return [*(run.fingerprint for run in made), str(edges.to_pylist())]


def test_runs_and_stores_need_no_column_in_one_piece(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`offset overflow`, a traceback after hours, for 50 million pairs of MS MARCO's longer ids."""
    expected = all_that_runs_do(collection, tmp_path / "short")
    monkeypatch.setattr(columns, "LIMIT", 0)
    run = mine_candidates(collection, "train", settings=MineSettings(depth=6))
    assert pa.types.is_large_string(run.table["doc_id"].type)
    assert all_that_runs_do(collection, tmp_path / "long") == expected


def test_a_column_is_as_wide_as_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run 8 bytes a row larger, or one that is joined beyond its type."""
    monkeypatch.setattr(columns, "LIMIT", 6)
    column = pa.chunked_array([["ab", "c"], ["def"]])
    assert pa.types.is_string(widened(column).type)
    assert pa.types.is_large_string(widened(column, copies=2).type)
    assert pa.types.is_large_string(widened(pa.chunked_array([["abc", "defg"]])).type)


def test_a_shard_may_lie_beyond_two_gigabytes_of_its_plan(tmp_path: Path) -> None:
    """`input array too large`, of a slice of three rows."""
    start, ids = 3 << 30, b"d1d22d333"
    with (tmp_path / "sparse").open("wb") as stream:
        stream.seek(start)
        stream.write(ids)
    offsets = np.array([0, start, start + 2, start + 5, start + 9], np.int64)
    mapped = pa.py_buffer(np.memmap(tmp_path / "sparse", np.uint8, "r"))
    column = pa.LargeStringArray.from_buffers(4, pa.py_buffer(offsets), mapped)
    table = pa.table([["q"] * 4, column, np.zeros(4, np.uint64)], schema=None, names=[*"abc"])
    rows = narrow(table.slice(1), SCORES.keyed)
    assert rows["doc_id"].to_pylist() == ["d1", "d22", "d333"]
    assert rows.schema == SCORES.keyed
