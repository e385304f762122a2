"""A score belongs to its texts: corpora change, processes share a store, disks fill up."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.base.config import MineSettings
from retrodistill.base.errors import DataError
from retrodistill.base.types import Pairs, Unit
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.form import SCORES, row_ids
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import ScoreStore
from retrodistill.score import main
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring import score_candidates, status, verify_scores

SHARED_TEACHER = '''
import os, time
import numpy as np

class Teacher:
    """Writes down what it is asked; 10 ms a call."""

    scale, unit, fingerprint = "logit", "pair", "shared-1"

    def __init__(self, argument, collection, **_):
        self.log = argument

    def score(self, pairs):
        time.sleep(0.01)
        rows = zip(pairs.query_rows, pairs.doc_rows)
        ids = [f"{pairs.queries[q].id} {pairs.docs[d].id}" for q, d in rows]
        with open(self.log, "a") as log:
            log.write("".join(f"{os.getpid()} {pair}\\n" for pair in ids))
        return np.array([float(len(pair)) for pair in ids], np.float32)
'''


class ByText:
    """A teacher whose score is a hash of the two texts, and that remembers what it was asked."""

    scale = "logit"
    fingerprint = "by text"

    def __init__(self, unit: Unit = "pair") -> None:
        self.unit: Unit = unit
        self.asked: list[list[tuple[str, str]]] = []

    def score(self, pairs: Pairs) -> np.ndarray:
        rows = list(zip(pairs.query_rows, pairs.doc_rows, strict=True))
        self.asked.append([(pairs.queries[q].id, pairs.docs[d].id) for q, d in rows])
        return np.array(
            [text_score(pairs.queries[q].full_text, pairs.docs[d].full_text) for q, d in rows],
            np.float32,
        )


def text_score(query: str, doc: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{query}|{doc}".encode()).digest()[:2], "big") / 100


def expected(collection: Collection, candidates: Run) -> dict[str, dict[str, float]]:
    queries, docs = collection.queries, collection.docs
    return {
        query: {
            doc: float(
                np.float32(text_score(queries.get(query).full_text, docs.get(doc).full_text))
            )
            for doc in scored
        }
        for query, scored in candidates.to_dict().items()
    }


def same(result: Run, expected_run: dict[str, dict[str, float]]) -> bool:
    return result.to_dict() == expected_run


@pytest.fixture(scope="module")
def candidates(collection: Collection) -> Run:
    return mine_candidates(collection, "train", settings=MineSettings(depth=20))


def changed_copy(folder: Path, out: Path, change: dict[str, str | None]) -> Collection:
    """Return the collection with other texts of some documents (None: the document is gone)."""
    shutil.copytree(folder, out)
    rows = [json.loads(line) for line in (out / "corpus.jsonl").read_text().splitlines()]
    rows = [row for row in rows if change.get(row["_id"], "") is not None]
    for row in rows:
        row["text"] = change.get(row["_id"], row["text"])
    (out / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_collection(f"beir:{out}")


def test_a_changed_corpus_pays_for_what_has_changed(
    folder: Path, collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """Scores of old texts that train a student on new ones, or a whole corpus paid for twice."""
    first = ByText()
    score_candidates(collection, candidates, first, tmp_path / "s")
    doc = candidates.table["doc_id"][0].as_py()
    another = changed_copy(folder, tmp_path / "other", {doc: "quite another text"})
    second = ByText()
    few = candidates.top(3)
    store = score_candidates(another, few, second, tmp_path / "s")
    holding = [
        pair
        for pair in zip(*few.table.select([0, 1]).to_pydict().values(), strict=True)
        if pair[1] == doc
    ]
    assert sorted(second.asked[0]) == sorted(holding)
    # Beyond the candidates, the changed document's old scores are withdrawn, the others stay.
    whole = expected(another, candidates)
    asked = set(holding)
    expected_run = {
        query: {d: s for d, s in scored.items() if d != doc or (query, d) in asked}
        for query, scored in whole.items()
    }
    assert store.run().to_dict() == {
        query: scored for query, scored in expected_run.items() if scored
    }
    # Back to the first corpus: what was paid for once is only copied.
    third = ByText()
    store = score_candidates(collection, candidates, third, tmp_path / "s")
    assert not third.asked
    assert same(store.run(), expected(collection, candidates))


def test_a_document_that_is_gone_takes_its_scores_along(
    folder: Path, collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """Scores of documents that the collection does not hold, found when training starts."""
    score_candidates(collection, candidates, ByText(), tmp_path / "s")
    doc = candidates.table["doc_id"][0].as_py()
    another = changed_copy(folder, tmp_path / "other", {doc: None})
    remaining = Run(candidates.table.filter(pa.compute.not_equal(candidates.table["doc_id"], doc)))
    teacher = ByText()
    store = score_candidates(another, remaining, teacher, tmp_path / "s")
    assert not teacher.asked
    assert same(store.run(), expected(another, remaining))


def test_a_renamed_document_is_not_scored_again(
    folder: Path, collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """New ids for the same texts that cost a second GPU week."""
    score_candidates(collection, candidates, ByText(), tmp_path / "s")
    shutil.copytree(folder, tmp_path / "renamed")
    corpus = tmp_path / "renamed" / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('"_id": "d', '"_id": "doc-'))
    for qrels in (tmp_path / "renamed" / "qrels").iterdir():
        qrels.write_text(qrels.read_text().replace("\td", "\tdoc-"))
    another = load_collection(f"beir:{tmp_path / 'renamed'}")
    named = {
        query: {doc.replace("d", "doc-"): score for doc, score in scored.items()}
        for query, scored in candidates.to_dict().items()
    }
    teacher = ByText()
    store = score_candidates(another, Run.from_dict(named), teacher, tmp_path / "s")
    assert not teacher.asked
    assert same(store.run(), expected(another, Run.from_dict(named)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(3, 40)), max_size=6))
def test_any_history_ends_with_the_right_table(
    collections: list[Collection],
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[int, int, int]],
) -> None:
    """Some order of corpora, candidate lists and shard sizes in which a stale score survives."""
    out = tmp_path_factory.mktemp("history") / "s"
    paid: set[tuple[str, str]] = set()
    for number, depth, shard_pairs in history:
        collection = collections[number]
        expected_run = mine_candidates(collection, "test", settings=MineSettings(depth=depth))
        teacher = ByText()
        store = score_candidates(collection, expected_run, teacher, out, shard_pairs=shard_pairs)
        table = store.run().to_dict()
        for query, scored in expected(collection, expected_run).items():
            assert {doc: table[query][doc] for doc in scored} == scored
        assert same(store.run(), expected(collection, store.run()))
        for query, doc in (pair for call in teacher.asked for pair in call):
            texts = (query, collection.docs.get(doc).full_text)
            assert texts not in paid
            paid.add(texts)


@pytest.fixture(scope="module")
def collections(
    folder: Path, collection: Collection, tmp_path_factory: pytest.TempPathFactory
) -> list[Collection]:
    changes: list[dict[str, str | None]] = [
        {"d24": "sugar protein virus", "d25": "vitamin guide"},
        {"d26": None, "d27": "insulin immune cancer"},
        {"d25": "asthma infection", "d28": None},
    ]
    made = [
        changed_copy(folder, tmp_path_factory.mktemp("changed") / "data", change)
        for change in changes
    ]
    for another in made:
        another.relevant("test")
    return [collection, *made]


@pytest.mark.parametrize("unit", ["document", "list"])
def test_work_is_cut_as_the_teacher_needs_it(
    unit: Unit, collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """A document encoded for each query it stands with; half a list shown to a listwise teacher."""
    teacher = ByText(unit)
    store = score_candidates(collection, candidates, teacher, tmp_path / "s", shard_pairs=30)
    assert same(store.run(), expected(collection, candidates))
    assert len(teacher.asked) > 3
    side = 1 if unit == "document" else 0
    calls = Counter(name for call in teacher.asked for name in {pair[side] for pair in call})
    if unit == "list":
        assert set(calls.values()) == {1}
    else:
        assert sum(calls.values()) - len(calls) < len(teacher.asked)


def test_a_longer_list_is_scored_as_a_whole(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """Ranks of two different lists mixed in one query."""
    teacher = ByText("list")
    score_candidates(collection, candidates.top(5), teacher, tmp_path / "s")
    teacher.asked.clear()
    first = candidates.query_ids[0]
    table = candidates.top(5).to_dict() | {first: candidates.to_dict()[first]}
    score_candidates(collection, Run.from_dict(table), teacher, tmp_path / "s")
    assert sorted(teacher.asked[0]) == sorted((first, doc) for doc in table[first])


def test_processes_share_a_store_and_outlive_each_other(
    folder: Path, candidates: Run, tmp_path: Path
) -> None:
    """Two workers that score the same pairs, or one that waits for ever for a dead one."""
    (tmp_path / "shared_teacher.py").write_text(SHARED_TEACHER)
    candidates.write(tmp_path / "candidates")
    log = tmp_path / "log"
    log.touch()
    command = [
        sys.executable,
        "-m",
        "retrodistill.score",
        "--data",
        f"beir:{folder}",
        "--candidates",
        str(tmp_path / "candidates"),
        "--shard-pairs",
        "5",
        "--teacher",
        f"shared_teacher:Teacher:{log}",
        "--out",
        str(tmp_path / "s"),
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with (tmp_path / "errors").open("w") as errors:
        workers = [
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
            for _ in range(3)
        ]
    deadline = time.monotonic() + 60
    while log.read_text().count("\n") < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    random.choice(workers).send_signal(signal.SIGKILL)
    codes = [worker.wait(timeout=100) for worker in workers]
    assert sorted(codes)[-2:] == [0, 0], (tmp_path / "errors").read_text()
    assert Run.read(tmp_path / "s").to_dict().keys() == candidates.to_dict().keys()
    assert len(Run.read(tmp_path / "s")) == len(candidates)
    paid = Counter(line.split(" ", 1)[1] for line in log.read_text().splitlines())
    # Only the shard of five that the killed process held may have been scored twice.
    assert sum(count - 1 for count in paid.values()) <= 5
    assert max(paid.values()) <= 2


def test_a_full_disk_keeps_what_was_finished(folder: Path, candidates: Run, tmp_path: Path) -> None:
    """A traceback, or a torn shard, when the disk is full; the limit here is one on file size."""
    candidates.write(tmp_path / "candidates")
    command = [
        sys.executable,
        "-m",
        "retrodistill.score",
        "--data",
        f"beir:{folder}",
        "--candidates",
        str(tmp_path / "candidates"),
        "--teacher",
        "bm25",
        "--out",
        str(tmp_path / "s"),
        "--shard-pairs",
        "20",
    ]
    subprocess.run(command, check=True, capture_output=True)
    expected_run = Run.read(tmp_path / "s")
    last = ScoreStore.open(tmp_path / "s").shards[3:]
    for shard in last:
        shard.unlink()
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)); "
        "from retrodistill.score import main; sys.exit(main(sys.argv[1:]))"
    )
    full = subprocess.run(
        [sys.executable, "-c", limited, *command[3:]], capture_output=True, text=True
    )
    assert full.returncode == 1
    assert "no space left" in full.stderr
    assert "Traceback" not in full.stderr
    assert len(ScoreStore.open(tmp_path / "s").shards) == 3
    subprocess.run(command, check=True, capture_output=True)
    assert Run.read(tmp_path / "s").table.equals(expected_run.table)


def test_a_truncated_shard_is_named_and_costs_only_itself(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """A damaged file that is skipped in silence, or that costs the whole store."""
    store = score_candidates(collection, candidates, ByText(), tmp_path / "s", shard_pairs=50)
    expected_run, shard = store.run(), store.shards[2]
    content = shard.read_bytes()
    for damaged in (content[:-30], content[:100] + b"\xff" + content[101:]):
        shard.write_bytes(damaged)
        for call in (
            store.run,
            lambda: score_candidates(collection, candidates, ByText(), tmp_path / "s"),
        ):
            with pytest.raises(DataError, match=rf"{shard.name} is damaged .* Delete this file"):
                call()
    shard.unlink()
    teacher = ByText()
    store = score_candidates(collection, candidates, teacher, tmp_path / "s", shard_pairs=50)
    assert [len(call) for call in teacher.asked] == [50]
    assert store.run().table.equals(expected_run.table)


def test_verify_finds_a_score_that_cannot_be_made_again(
    folder: Path, collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """A teacher that was changed under the same name."""
    score_candidates(collection, candidates, ByText(), tmp_path / "s")
    assert verify_scores(collection, ByText(), tmp_path / "s", sample=40).largest == 0

    class Drifted(ByText):
        def score(self, pairs: Pairs) -> np.ndarray:
            return super().score(pairs) + np.float32(0.5)

    result = verify_scores(collection, Drifted(), tmp_path / "s", sample=40)
    assert result.pairs == 40
    assert result.largest == pytest.approx(0.5, abs=1e-3)
    another = changed_copy(
        folder, tmp_path / "other", dict.fromkeys(candidates.table["doc_id"].to_pylist(), "new")
    )
    with pytest.raises(DataError, match="scored with other texts"):
        verify_scores(another, ByText(), tmp_path / "s", sample=40)


def test_verify_and_status_as_commands(
    folder: Path, candidates: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags that only the Python API has."""
    candidates.write(tmp_path / "candidates")
    words = ["--data", f"beir:{folder}", "--teacher", "bm25", "--out", str(tmp_path / "s")]
    assert main([*words, "--candidates", str(tmp_path / "candidates")]) == 0
    capsys.readouterr()
    assert main([*words, "--verify", "30"]) == 0
    assert "30 pairs scored again: largest difference 0" in capsys.readouterr().out
    assert main(["--status", "--out", str(tmp_path / "s")]) == 0
    assert f"{len(candidates):,} pairs scored" in capsys.readouterr().out
    assert main(["--status", "--out", str(tmp_path / "nowhere")]) == 2


def test_status_counts_what_is_left(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """An interrupted store that looks finished."""
    store = score_candidates(collection, candidates, ByText(), tmp_path / "s", shard_pairs=50)
    assert status(tmp_path / "s").pairs_left == 0
    store.shards[1].unlink()
    result = status(tmp_path / "s")
    assert (result.pairs, result.pairs_left) == (len(candidates) - 50, 50)


def test_pairs_of_equal_ids_in_other_places_differ() -> None:
    """("ab", "c") and ("a", "bc"), or a pair and its mirror, that share a score."""
    rows = [("ab", "c"), ("a", "bc"), ("c", "ab"), ("c", "c"), ("ab", "ab")]
    table = pa.table([*map(list, zip(*rows, strict=True)), [0] * len(rows)], schema=SCORES.keyed)
    assert len(set(row_ids(table).tolist())) == len(rows)
