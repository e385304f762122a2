"""What runs and plans take while they grow: arrays and files, no objects of Python's."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fakes.memory import peak_bytes

from retrodistill.base.errors import DataError
from retrodistill.data.rankings import reranked
from retrodistill.data.rankings.reranking import scores_for
from retrodistill.data.store import runs
from retrodistill.data.store.form import SCORES
from retrodistill.data.store.plans import Plans, read_plan, write_plan
from retrodistill.data.store.runs import Run

DEPTH = 100


def made_lists(queries: int) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Yield lists of DEPTH documents."""
    scores = np.arange(DEPTH, 0, -1, dtype=np.float32)
    for query in range(queries):
        yield f"q{query}", [f"d{query + rank}" for rank in range(DEPTH)], scores


def made_run(queries: int) -> Run:
    """Return the run of these lists."""
    return Run.from_lists(made_lists(queries))


def test_lists_make_the_run_that_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are lost, or belong to another query, where one chunk ends in a list."""
    monkeypatch.setattr(runs, "CHUNK_ROWS", 30)
    run = made_run(5)
    as_dict = {query: dict(zip(docs, own, strict=True)) for query, docs, own in made_lists(5)}
    assert run.fingerprint == Run.from_dict(as_dict).fingerprint
    assert run.fingerprint == Run.from_lists(run.lists()).fingerprint
    for query, docs, scores in run.lists():
        own_docs, own_scores = run.list_of(query)
        assert own_docs == docs
        np.testing.assert_array_equal(own_scores, scores)
    assert run.list_of("absent")[0] == []
    assert len(Run.from_lists([])) == 0


@pytest.mark.parametrize("work", ["lists", "rerank"])
def test_a_pair_takes_the_memory_of_its_columns(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair as strings and numbers of Python's: 200 bytes, 10 GB for 50 million pairs."""
    monkeypatch.setattr(runs, "CHUNK_ROWS", 2_000)

    def peak(queries: int) -> int:
        first = made_run(queries)
        half = first.top(DEPTH // 2)
        calls = {"lists": lambda: made_run(queries), "rerank": lambda: reranked(first, half)}
        return peak_bytes(calls[work])

    assert (peak(300) - peak(100)) / (200 * DEPTH) < 120


def test_a_reranked_list_has_the_second_scores_in_front() -> None:
    """Documents that the second stage has not seen, lost or in front."""
    first = Run.from_dict({"a": {"x": 3, "y": 2, "z": 1}, "b": {"x": 1}})
    second = Run.from_dict({"a": {"z": 0.25, "y": 0.5}, "c": {"x": 1}})
    lists = {query: docs for query, docs, _ in reranked(first, second).lists()}
    assert lists == {"a": ["y", "z", "x"], "b": ["x"]}


def test_scores_for_other_pairs() -> None:
    """Scores in the order of the store, or 0 where a pair has none."""
    scores = Run.from_dict({"b": {"x": 1, "y": 2}, "a": {"x": 3, "z": 4}})
    pairs = Run.from_dict({"a": {"z": 1, "x": 0}, "b": {"x": 7}})
    assert scores_for(pairs, scores).tolist() == [4, 3, 1]
    with pytest.raises(DataError, match=r"query 'a' has no score of document 'y'"):
        scores_for(Run.from_dict({"a": {"y": 1}}), scores)
    with pytest.raises(DataError, match="has no score"):
        scores_for(pairs, Run.from_lists([]))


def test_a_plan_is_written_without_a_copy(tmp_path: Path) -> None:
    """Two copies in memory of a plan of a hundred million pairs: 10 GB beside the rows."""
    rows = made_run(500).table.select(SCORES.ids)
    rows = rows.append_column("key", pa.array(np.arange(len(rows), dtype=np.uint64)))
    path = tmp_path / "plans" / "000001-x.plan"
    peak = peak_bytes(lambda: write_plan(path, rows, shard_rows=7, unit="pair"))
    assert peak < rows.nbytes / 4
    assert read_plan(path).equals(rows)
    (tmp_path / "plans" / ".000001-x.plan.new-00000000.plan").touch()  # of a killed command
    assert Plans(tmp_path, SCORES).paths() == [path]
