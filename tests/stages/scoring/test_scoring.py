"""Scores are computed once, and survive whatever ends the process."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes.models import save_tiny_cross_encoder

from retrodistill.base.config import MineSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Pairs
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import ScoreStore
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring import (
    average_scores,
    load_teacher,
    read_candidates,
    score_candidates,
)

SLOW_TEACHER = '''
import hashlib, time
import numpy as np

class Teacher:
    """Scores that depend on the texts, at 20 ms a call."""

    scale, unit, fingerprint = "logit", "pair", "slow-1"

    def __init__(self, argument, collection, **_):
        pass

    def score(self, pairs):
        time.sleep(0.02)
        rows = zip(pairs.query_rows, pairs.doc_rows)
        texts = [pairs.queries[q].full_text + pairs.docs[d].full_text for q, d in rows]
        sums = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in texts]
        return np.array([s / 1e7 for s in sums], np.float32)
'''


class Counting:
    """A teacher that remembers what it was asked."""

    scale = "logit"
    unit = "pair"
    fingerprint = "counting"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Pairs) -> np.ndarray:
        rows = zip(pairs.query_rows, pairs.doc_rows, strict=True)
        ids = [(pairs.queries[query].id, pairs.docs[doc].id) for query, doc in rows]
        self.asked += ids
        return np.array([hash(pair) % 1000 for pair in ids], np.float32)


@pytest.fixture(scope="module")
def candidates(collection: Collection) -> Run:
    return mine_candidates(collection, "train", settings=MineSettings(depth=20))


def test_nothing_is_scored_twice(collection: Collection, candidates: Run, tmp_path: Path) -> None:
    """A second command, or one with more candidates, that pays for the old pairs again."""
    teacher = Counting()
    few = candidates.top(5)
    first = score_candidates(collection, few, teacher, tmp_path / "s", shard_pairs=16)
    assert len(teacher.asked) == len(few) == len(first.run())
    score_candidates(collection, few, teacher, tmp_path / "s", shard_pairs=16)
    score_candidates(collection, candidates, teacher, tmp_path / "s", shard_pairs=16)
    score_candidates(collection, few, teacher, tmp_path / "s", shard_pairs=7)
    assert len(teacher.asked) == len(set(teacher.asked)) == len(candidates)
    assert first.run().to_dict().keys() == candidates.to_dict().keys()


def test_score_tables_have_the_promised_columns(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """Shards that other programs cannot read as query_id, doc_id, score."""
    store = score_candidates(collection, candidates, Counting(), tmp_path / "s")
    for shard in store.shards:
        table = pq.read_table(shard)
        assert table.column_names == ["query_id", "doc_id", "key", "score"]
        assert str(table.schema.field("score").type) == "float"


def test_scores_of_another_teacher_are_refused(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """Two teachers' scores mixed in one store."""
    teacher = Counting()
    score_candidates(collection, candidates, teacher, tmp_path / "s")
    teacher.fingerprint = "other"
    with pytest.raises(DataError, match="scores of another teacher"):
        score_candidates(collection, candidates, teacher, tmp_path / "s")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        score_candidates(collection, candidates, teacher, tmp_path / "full")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_stop_at_the_door(
    bad: float, collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """NaN from a half-precision teacher, found only when the student's loss is NaN."""

    class Broken(Counting):
        def score(self, pairs: Pairs) -> np.ndarray:
            scores = super().score(pairs)
            if self.asked[0] != self.asked[-1]:
                scores[-1] = bad
            return scores

    with pytest.raises(DataError, match="of query 'q.*' and document 'd"):
        score_candidates(collection, candidates, Broken(), tmp_path / "s", shard_pairs=50)
    assert not list((tmp_path / "s" / "shards").glob("*"))


def test_unknown_ids_are_found_before_any_work(collection: Collection, tmp_path: Path) -> None:
    """An unknown id met after hours of scoring."""
    teacher = Counting()
    with pytest.raises(DataError, match="nowhere"):
        score_candidates(
            collection, Run.from_dict({"q1": {"nowhere": 1.0}}), teacher, tmp_path / "s"
        )
    assert not teacher.asked


def _command(folder: Path, out: Path, teacher: str, candidates: Path, *flags: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "retrodistill.score",
        "--data",
        f"beir:{folder}",
        "--candidates",
        str(candidates),
        "--teacher",
        teacher,
        "--out",
        str(out),
        *flags,
    ]


def _state(store: Path) -> dict[str, tuple[int, int]]:
    return {
        shard.name: (shard.stat().st_ino, shard.stat().st_mtime_ns)
        for shard in (store / "shards").glob("*.parquet")
    }


def test_a_killed_process_loses_and_repeats_nothing(
    folder: Path, candidates: Run, tmp_path: Path
) -> None:
    """kill -9 that leaves a half shard, or whose repetition scores finished shards again."""
    (tmp_path / "slow_teacher.py").write_text(SLOW_TEACHER)
    candidates.write(tmp_path / "candidates")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    rng = random.Random(os.getpid())

    def command(out: str) -> list[str]:
        return _command(
            folder,
            tmp_path / out,
            "slow_teacher:Teacher",
            tmp_path / "candidates",
            "--shard-pairs",
            "10",
        )

    subprocess.run(command("whole"), check=True, env=environment, capture_output=True)
    kills = 0
    for _ in range(4):
        before = _state(tmp_path / "torn")
        process = subprocess.Popen(
            command("torn"), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while len(_state(tmp_path / "torn")) <= len(before) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(rng.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        after = _state(tmp_path / "torn")
        assert {name: after[name] for name in before} == before
    assert kills
    before = _state(tmp_path / "torn")
    subprocess.run(command("torn"), check=True, env=environment, capture_output=True)
    assert {name: _state(tmp_path / "torn")[name] for name in before} == before
    assert Run.read(tmp_path / "torn").table.equals(Run.read(tmp_path / "whole").table)


def test_a_killed_cross_encoder_ends_with_the_same_scores(
    folder: Path, collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """Scores that differ in the last bit after a resume, because batches were cut elsewhere."""
    model = save_tiny_cross_encoder(tmp_path / "ce")
    candidates.write(tmp_path / "candidates")
    teacher = f"cross-encoder:{model}"

    command = _command(
        folder,
        tmp_path / "torn",
        teacher,
        tmp_path / "candidates",
        "--shard-pairs",
        "32",
        "--precision",
        "float32",
    )
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(_state(tmp_path / "torn")) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    torn, whole = (
        score_candidates(
            collection,
            candidates,
            load_teacher(teacher, collection, precision="float32"),
            tmp_path / name,
            shard_pairs=32,
        )
        for name in ("torn", "whole")
    )
    assert torn.run().table.equals(whole.run().table)


def test_id_triples_are_candidates(tmp_path: Path) -> None:
    """MS MARCO's triples that have to be converted by hand before they can be scored."""
    (tmp_path / "triples.tsv").write_text("q1\td1\td2\nq1\td1\td3\n")
    assert read_candidates(tmp_path / "triples.tsv").to_dict() == {
        "q1": {"d1": 0.0, "d2": 0.0, "d3": 0.0}
    }


def test_average_scores_by_hand() -> None:
    """Logits that drown cosines. Both members order a > b > c with z-scores 1.2247, 0, -1.2247."""
    logits = Run.from_dict({"q": {"a": 30.0, "b": 20.0, "c": 10.0, "only": 5.0}})
    cosines = Run.from_dict({"q": {"a": 0.3, "b": 0.2, "c": 0.1}})
    mean = average_scores([logits, cosines]).to_dict()["q"]
    assert list(mean) == ["a", "b", "c"]
    assert mean["a"] == pytest.approx(1.5**0.5, rel=1e-6)
    assert mean["b"] == pytest.approx(0.0, abs=1e-6)
    flat = Run.from_dict({"q": {"a": 7.0, "b": 7.0, "c": 7.0}})
    assert average_scores([cosines, flat], weights=[1, 3]).to_dict()["q"]["a"] == pytest.approx(
        1.5**0.5 / 4, rel=1e-6
    )


def test_ensembles_that_cannot_be_averaged_are_explained() -> None:
    """An empty table as the teacher of a student."""
    left_run, right_run = Run.from_dict({"q": {"a": 1.0}}), Run.from_dict({"q": {"b": 1.0}})
    with pytest.raises(DataError, match="share no"):
        average_scores([left_run, right_run])
    with pytest.raises(ConfigError, match="weights"):
        average_scores([left_run, left_run], weights=[1.0])


def test_a_damaged_plan_is_explained(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """A truncated plan that is read as an empty one, so that nothing is scored."""
    score_candidates(collection, candidates, Counting(), tmp_path / "s")
    plan = next((tmp_path / "s" / "plans").glob("*.plan"))
    plan.write_bytes(plan.read_bytes()[:40])
    for shard in ScoreStore.open(tmp_path / "s").shards:
        shard.unlink()
    with pytest.raises(DataError, match="is damaged. Delete this file"):
        score_candidates(collection, candidates, Counting(), tmp_path / "s")
