"""Commands that meet at one store: cut off, at once, with other lists, on other machines."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fakes.corpus import save_small_collection
from fakes.models import save_tiny_cross_encoder

from retrodistill.base.config import MineSettings
from retrodistill.base.errors import DataError
from retrodistill.base.manifest import FILE, Manifest
from retrodistill.base.types import Comparisons, Pairs, Reads, Unit
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import PreferenceStore, ScoreStore
from retrodistill.data.store.stored import Stored
from retrodistill.data.store.text_keys import text_keys
from retrodistill.models.inference import devices
from retrodistill.models.teachers.runs import RunTeacher
from retrodistill.score import main
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring import (
    compare_candidates,
    score_candidates,
    status,
    verify_scores,
    worker,
)


class Teacher:
    """A teacher that remembers what it was asked, and scores by the length of the texts."""

    scale = "logit"
    fingerprint = "by length"

    def __init__(self, unit: Unit = "pair", reads: Reads = "text") -> None:
        self.unit: Unit = unit
        self.reads: Reads = reads
        self.asked: list[list[tuple[str, str]]] = []

    def score(self, pairs: Pairs) -> np.ndarray:
        rows = list(zip(pairs.query_rows, pairs.doc_rows, strict=True))
        self.asked.append([(pairs.queries[q].id, pairs.docs[d].id) for q, d in rows])
        scores = [len(pairs.queries[q].text + pairs.docs[d].full_text) for q, d in rows]
        return np.array(scores, np.float32)


class ByRank(Teacher):
    """A list-wise teacher: minus the place of a document's id among those of its list."""

    fingerprint = "by rank"

    def __init__(self) -> None:
        super().__init__("list")

    def score(self, pairs: Pairs) -> np.ndarray:
        super().score(pairs)
        scores = np.empty(len(pairs), np.float32)
        for _, positions in pairs.by_query():
            ids = [pairs.docs[row].id for row in pairs.doc_rows[positions]]
            scores[positions] = [-float(sorted(ids).index(id)) for id in ids]
        return scores


@pytest.fixture(scope="module")
def candidates(collection: Collection) -> Run:
    return mine_candidates(collection, "train", settings=MineSettings(depth=12))


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """A collection in which each text has two ids, `a` and `b` in front of a number."""
    folder = save_small_collection(tmp_path_factory.mktemp("doubles") / "data")
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    named = [row | {"_id": letter + row["_id"]} for row in rows for letter in "ab"]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    for path in (folder / "qrels").iterdir():
        path.write_text(path.read_text().replace("\td", "\tad"))
    return load_collection(f"beir:{folder}")


def cut(store: Path, shards: slice) -> None:
    """Delete some shards, as if the command had been killed before them."""
    for shard in ScoreStore.open(store).shards[shards]:
        shard.unlink()


def test_scores_by_id_stay_with_their_ids(doubles: Collection, tmp_path: Path) -> None:
    """702 of 6,000 imported scores that were those of documents of equal text, after a cut."""
    docs = doubles.docs.ids()
    rng = np.random.default_rng(0)
    queries = doubles.queries.ids()[:4]
    published = Run.from_dict(
        {query: dict(zip(docs, rng.normal(size=len(docs)), strict=True)) for query in queries}
    )
    for _ in range(2):
        score_candidates(doubles, published, RunTeacher(published), tmp_path / "s", shard_pairs=50)
        assert Run.read(tmp_path / "s").table.equals(published.table)
        cut(tmp_path / "s", slice(1, None, 2))


def test_scores_by_text_are_shared_by_equal_texts(doubles: Collection, tmp_path: Path) -> None:
    """The price of the former: every copy of a text paid for, when a teacher reads only texts."""
    docs = doubles.docs.ids()
    earlier, later = Teacher(), Teacher()
    for letter, teacher in (("a", earlier), ("b", later)):
        half = Run.from_dict({"q0": {doc: 0.0 for doc in docs if doc.startswith(letter)}})
        score_candidates(doubles, half, teacher, tmp_path / "s")
    assert [len(call) for call in earlier.asked] == [len(docs) / 2]
    assert not later.asked
    assert len(Run.read(tmp_path / "s")) == len(docs)


@pytest.mark.parametrize(("reads", "calls"), [("text", 0), ("fields", 1)])
def test_a_word_that_moves_from_the_title_to_the_text_counts_for_some(
    reads: Reads, calls: int, folder: Path, collection: Collection, tmp_path: Path
) -> None:
    """A reader, shown `title: ... context: ...`, that keeps the score of another prompt."""
    run = Run.from_dict({"q0": {"d0": 0.0, "d1": 0.0}})
    score_candidates(collection, run, Teacher(reads=reads), tmp_path / "s")
    shutil.copytree(folder, tmp_path / "other")
    corpus = tmp_path / "other" / "corpus.jsonl"
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    rows[0] |= {"title": "", "text": f"{rows[0]['title']} {rows[0]['text']}"}
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = Teacher(reads=reads)
    score_candidates(load_collection(f"beir:{tmp_path / 'other'}"), run, teacher, tmp_path / "s")
    assert len(teacher.asked) == calls


def lists(*ranks: str) -> Run:
    """Return candidates of the query q0: documents by their numbers."""
    return Run.from_dict({"q0": {f"d{rank}": 0.0 for rank in ranks}})


def test_a_query_has_the_scores_of_one_list(collection: Collection, tmp_path: Path) -> None:
    """The worst documents of the second list, tied with the best of the first."""
    out = tmp_path / "s"
    teacher = ByRank()
    score_candidates(collection, lists(*"123456"), teacher, out)
    store = score_candidates(collection, lists(*"568"), teacher, out)
    assert store.run().to_dict() == {"q0": {"d5": 0.0, "d6": -1.0, "d8": -2.0}}
    assert verify_scores(collection, teacher, out, sample=9).largest == 0
    assert status(out).pairs == 3
    # a part of the list that the store has needs no question; a list that has been replaced does
    teacher.asked.clear()
    score_candidates(collection, lists(*"58"), teacher, out)
    assert not teacher.asked
    store = score_candidates(collection, lists(*"123456"), teacher, out)
    assert len(store.run()) == 6
    assert len(teacher.asked) == 1


def test_a_list_that_was_begun_before_another_is_asked_again(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """A resumed command whose lists count as older than those that it should replace."""
    out, teacher = tmp_path / "s", ByRank()
    score_candidates(collection, candidates, teacher, out, shard_pairs=50)
    expected = Run.read(out)
    cut(out, slice(2, None))
    score_candidates(collection, candidates.top(3), teacher, out, shard_pairs=50)
    teacher.asked.clear()
    score_candidates(collection, candidates, teacher, out, shard_pairs=50)
    assert Run.read(out).table.equals(expected.table)
    asked = [pair for call in teacher.asked for pair in call]
    assert len(set(asked)) == len(asked)


def test_two_commands_with_other_lists_both_end(collection: Collection, tmp_path: Path) -> None:
    """Two commands that replace each other's lists for ever, and pay for each."""
    out = tmp_path / "s"

    class Interrupted(ByRank):
        def score(self, pairs: Pairs) -> np.ndarray:
            scores = super().score(pairs)
            score_candidates(collection, lists(*"568"), ByRank(), out, shard_pairs=7)
            return scores

    teacher = Interrupted()
    score_candidates(collection, lists(*"123456"), teacher, out)
    assert len(teacher.asked) == 1
    assert len(Run.read(out)) in (3, 6)


def test_several_commands_begin_one_store(tmp_path: Path) -> None:
    """98 of 240 commands that were refused: the folder was there, its manifest not yet."""

    def begin(round: int) -> Path:
        start.wait()
        return ScoreStore(tmp_path / f"s{round}", teacher="t", config={"round": round}).folder

    start = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        for round in range(25):
            folders = [call.result() for call in [pool.submit(begin, round) for _ in range(4)]]
            assert len(set(folders)) == 1


def test_a_store_whose_beginning_was_killed_can_begin(tmp_path: Path) -> None:
    """A folder that every later command refuses, for a half-written file of the killed one."""
    (tmp_path / "s" / "locks").mkdir(parents=True)
    (tmp_path / "s" / f".{FILE}.abc123").write_text("{")
    assert ScoreStore(tmp_path / "s", teacher="t").shards == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".hidden").write_text("mine")
    with pytest.raises(DataError, match=r"is not empty .* it has \.hidden"):
        ScoreStore(tmp_path / "other", teacher="t")
    assert [path.name for path in (tmp_path / "other").iterdir()] == [".hidden"]


class ById:
    """A comparer that prefers the lower id, and remembers what it was asked."""

    fingerprint = "by id"

    def __init__(self) -> None:
        self.asked = 0

    def compare(self, comparisons: Comparisons) -> np.ndarray:
        self.asked += len(comparisons)
        ids = np.array([doc.id for doc in comparisons.docs])
        lower = ids[comparisons.first_rows] < ids[comparisons.second_rows]
        return np.log(np.where(lower, 0.75, 0.25)).astype(np.float32)


def test_an_edge_is_stored_once_in_whatever_order_the_list_is(
    collection: Collection, tmp_path: Path
) -> None:
    """(d1, d2) and (d2, d1): both paid for, and both counted in training."""
    comparer = ById()
    for scores in ({"d1": 2.0, "d2": 1.0, "d3": 0.0}, {"d3": 2.0, "d2": 1.0, "d1": 0.0}):
        run = Run.from_dict({"q0": scores})
        store = compare_candidates(collection, run, comparer, tmp_path / "p", opponents=0)
    assert comparer.asked == 3
    edges = {tuple(row.values()) for row in store.edges().drop_columns("log_p").to_pylist()}
    assert edges == {("q0", "d1", "d2"), ("q0", "d1", "d3"), ("q0", "d2", "d3")}
    assert np.allclose(np.exp(store.edges()["log_p"].to_numpy()), 0.75)


def test_an_edge_that_was_stored_the_other_way_round_is_replaced(
    collection: Collection, tmp_path: Path
) -> None:
    """A store of an earlier version, in which an edge is then counted in both directions."""
    store = PreferenceStore(tmp_path / "p", teacher="by id")
    mirrored = pa.table([["q0"], ["d2"], ["d1"]], names=store.form.ids)
    keys = text_keys(collection, store.form.ids)(mirrored)
    rows = mirrored.append_column("key", pa.array(keys))
    store.plan(rows, shard_rows=9)[0].write(np.log(np.float32([0.25])))
    run = Run.from_dict({"q0": {"d1": 1.0, "d2": 0.0}})
    compare_candidates(collection, run, ById(), tmp_path / "p")
    assert store.edges().select(store.form.ids).to_pylist() == [
        {"query_id": "q0", "doc_id": "d1", "other_id": "d2"}
    ]


def test_a_plan_that_others_fill_meanwhile_is_not_made_twice(
    collection: Collection, candidates: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has read the store before the others end, and then scores everything again."""
    read, late, punctual = Stored.read, Teacher(), Teacher()

    def slowly(*words: Any, **names: Any) -> Stored:
        stored = read(*words, **names)
        monkeypatch.setattr(Stored, "read", read)
        score_candidates(collection, candidates, punctual, tmp_path / "s", shard_pairs=50)
        return stored

    ScoreStore(tmp_path / "s", teacher="by length").adopt(collection.fingerprint, len)
    monkeypatch.setattr(Stored, "read", slowly)
    score_candidates(collection, candidates, late, tmp_path / "s", shard_pairs=50)
    assert sum(map(len, punctual.asked)) == len(candidates)
    assert not late.asked


def test_a_shard_that_appears_while_texts_are_compared_is_no_error(
    folder: Path,
    collection: Collection,
    candidates: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ValueError: operands could not be broadcast together with shapes (0,) (50,)."""
    out = tmp_path / "s"
    store = score_candidates(collection, candidates, Teacher(), out, shard_pairs=50)
    last = store.shards[-1]
    content = last.read_bytes()
    last.unlink()
    read = Stored.read

    def slowly(*words: Any, **names: Any) -> Stored:
        stored = read(*words, **names)
        last.write_bytes(content)
        return stored

    monkeypatch.setattr(Stored, "read", slowly)
    assert store.adopt("another", lambda rows: rows["key"].to_numpy()) == 0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the words of a command that scores with a cross-encoder, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    data = save_small_collection(tmp_path / "data")
    mine_candidates(load_collection(f"beir:{data}"), "train", settings=MineSettings(depth=2)).write(
        Path("run")
    )
    model = save_tiny_cross_encoder(tmp_path / "ce")
    return f"--data beir:data --teacher cross-encoder:{model} --out s"


def test_a_store_keeps_the_number_type_that_it_was_begun_with(
    here: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`auto` measured on two machines: one store refuses itself, as "another teacher's"."""

    def machine(*, has: bool, prefers: bool) -> None:
        monkeypatch.setattr(devices, "has_bfloat16", lambda device: has)
        monkeypatch.setattr(devices, "prefers_bfloat16", lambda device: prefers)

    for prefers in (True, False):
        machine(has=True, prefers=prefers)
        assert main(f"{here} --candidates run".split()) == 0, capsys.readouterr().err
        assert main(f"{here} --verify 5".split()) == 0, capsys.readouterr().err
        assert Manifest.read(Path("s")).config["precision"] == "bfloat16"
    assert main(f"{here} --candidates run --precision float32".split()) == 2
    assert "begun with --precision bfloat16: give that, or another --out" in capsys.readouterr().err
    machine(has=False, prefers=False)
    assert main(f"{here} --candidates run".split()) == 2
    assert "which this cpu only emulates" in capsys.readouterr().err


def test_a_worker_takes_the_number_type_of_the_one_that_was_first(
    here: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers that measure on either side of the threshold, of which the second fails."""
    prefers = chain([True], repeat(False))
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(devices, "prefers_bfloat16", lambda device: next(prefers))
    load = worker.load_teacher

    def slowly(*words: Any, **settings: Any) -> Any:
        monkeypatch.setattr(worker, "load_teacher", load)
        assert main(f"{here} --candidates run".split()) == 0
        return load(*words, **settings)

    monkeypatch.setattr(worker, "load_teacher", slowly)
    assert main(f"{here} --candidates run".split()) == 0, capsys.readouterr().err
    assert Manifest.read(Path("s")).config["precision"] == "float32"


def test_a_store_of_an_earlier_version_names_the_number_type(tmp_path: Path) -> None:
    """Scores of another machine's `auto`, refused without a word of what would help."""
    ScoreStore(tmp_path / "s", teacher="a", config={"precision": "auto"})
    with pytest.raises(DataError, match="another machine, give --precision bfloat16"):
        ScoreStore(tmp_path / "s", teacher="b", config={"precision": "float32"})
    with pytest.raises(DataError, match=r"not b\.\.\.\)\. Give another --out"):
        ScoreStore(tmp_path / "s", teacher="b")


def test_verify_makes_no_store(here: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without scale or settings, left by a command that only looks."""
    assert main(f"{here} --verify 5".split()) == 2
    assert "--out s does not exist" in capsys.readouterr().err
    assert not Path("s").exists()


@pytest.mark.parametrize("name", ["empty.tsv", "empty.jsonl", "empty.trec"])
def test_candidates_without_a_pair_are_refused(
    name: str, here: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A success without a score, "0 pairs, all of them scored already", of the wrong file."""
    Path(name).touch()
    assert main(f"{here} --candidates {name}".split()) == 2
    assert f"{name} holds no pair to score" in capsys.readouterr().err
    assert not Path("s").exists()


def test_what_was_planned_and_scored_otherwise_is_not_left(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """A complete store of which --status says for ever that pairs are left."""
    out = tmp_path / "s"
    score_candidates(collection, candidates, Teacher(), out, shard_pairs=50)
    cut(out, slice(2, None))
    remaining = len(candidates) - 100
    assert status(out).pairs_left == remaining
    score_candidates(collection, candidates.top(5), Teacher(), out, shard_pairs=30)
    cut(out, slice(3, None))
    assert 0 < status(out).pairs_left <= remaining
    score_candidates(collection, candidates, Teacher(), out, shard_pairs=20)
    assert status(out).pairs_left == 0


def test_a_fingerprint_is_that_of_the_scores(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """Stores over different candidates that count as one, since the teacher is one."""
    few = candidates.top(5)

    def manifest(name: str, *runs: Run, shard_pairs: int = 50) -> Manifest:
        for run in runs:
            score_candidates(
                collection,
                run,
                Teacher(),
                tmp_path / name,
                shard_pairs=shard_pairs,
                config={"depth": len(run)},
            )
        return Manifest.read(tmp_path / name)

    whole, subset = manifest("whole", candidates), manifest("part", few)
    assert whole.fingerprint != subset.fingerprint
    grown = manifest("part", candidates, shard_pairs=20)
    assert grown.fingerprint == whole.fingerprint
    assert grown.inputs["candidates"] == candidates.fingerprint
    assert grown.details["earlier_candidates"] == [few.fingerprint]
    assert grown.config == {"depth": len(candidates)}
    assert manifest("part", few).details["earlier_candidates"] == [candidates.fingerprint]


def test_a_failed_call_leaves_its_shard_to_the_next(
    collection: Collection, candidates: Run, tmp_path: Path
) -> None:
    """A retry in a notebook that waits for ever: the traceback of the failure holds the lock."""

    class Fails(Teacher):
        def score(self, pairs: Pairs) -> np.ndarray:
            if len(self.asked) == 1:
                raise DataError("no more")
            return super().score(pairs)

    with pytest.raises(DataError, match="no more") as failure:
        score_candidates(collection, candidates, Fails(), tmp_path / "s", shard_pairs=50)
    retry = Teacher()
    thread = threading.Thread(
        target=score_candidates,
        args=(collection, candidates, retry, tmp_path / "s"),
        kwargs={"shard_pairs": 50},
        daemon=True,
    )
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert sum(map(len, retry.asked)) == len(candidates) - 50
    assert failure.value is not None  # kept until here, with its frames
