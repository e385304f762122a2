"""The judged queries that no training behind the systems has seen, and what is measured on them."""

import json
from pathlib import Path

import numpy as np
import pytest

import retrodistill as rd
from retrodistill.data.rankings.unseen import NO_DOUBLE, UNSEEN, nearest_similarity
from retrodistill.data.store.lineage import Lineage, Record
from retrodistill.data.store.words import word_hashes, words_of
from retrodistill.evaluate import main
from retrodistill.stages.evaluation.seen import named_training, seen_in_training

DOCS = {
    "d1": "Asthma in children.",
    "d2": "Flu in adults.",
    "d3": "Fever",
    "d4": "asthma in children",
}
QUERIES = {
    "train1": "what helps children with asthma at night",
    "train2": "flu season",
    "t1": "What helps children with asthma at work?",  # 6 of 8 words are shared with train1
    "t2": "how long does fever last",
    "t3": "flu symptoms of adults",  # its document is train2's
    "t4": "children and their lungs",  # its document has the text of train1's under another id
}
QRELS = {
    "train": [("train1", "d1"), ("train2", "d2")],
    "test": [("t1", "d3"), ("t2", "d3"), ("t3", "d2"), ("t4", "d4")],
    "renamed": [("t1", "d3")],
}


def save(folder: Path, queries: dict[str, str] = QUERIES) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", DOCS), ("queries", queries)):
        rows = [json.dumps({"_id": id, "title": "", "text": text}) for id, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    for split, pairs in QRELS.items():
        rows = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t1" for q, d in pairs)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> rd.Collection:
    return rd.load_collection(f"beir:{save(tmp_path / 'data')}")


def run_of(*found: str, lineage: Lineage = Lineage()) -> rd.Run:  # noqa: B008
    """Return a run that finds the relevant document of these queries first, else none."""
    right = dict(QRELS["test"])
    lists = {query: {right[query] if query in found else "d0": 1.0} for query in right}
    return rd.Run.from_dict(lists, lineage=lineage)


def trained(data: rd.Collection, *splits: str) -> Lineage:
    return named_training(splits or ("train",), data)


def test_the_rows_by_hand(data: rd.Collection) -> None:
    """t1 is nearly train1; t3 has train2's document, and t4 a copy of train1's."""
    runs = {"kl": run_of(lineage=trained(data)), "bm25": run_of()}
    seen = seen_in_training(data, data.qrels("test"), runs)
    assert seen.subsets == {NO_DOUBLE: ["t2", "t3", "t4"], UNSEEN: ["t1", "t2"]}
    assert seen.notes() == []
    wide = seen_in_training(data, data.qrels("test"), runs, threshold=0.76)
    assert wide.subsets[NO_DOUBLE] == ["t1", "t2", "t3", "t4"]
    at = seen_in_training(data, data.qrels("test"), runs, threshold=0.75)  # 6 / 8: at least
    assert at.subsets[NO_DOUBLE] == ["t2", "t3", "t4"]


def test_equal_ids_of_other_texts_are_not_seen_and_equal_texts_are(tmp_path: Path) -> None:
    """Ids are names: two collections call other queries q1, and a copy of a query is a double."""
    here = rd.load_collection(f"beir:{save(tmp_path / 'here')}")
    others = {**QUERIES, "train1": "nothing of the kind", "train2": QUERIES["t2"]}
    there = rd.load_collection(f"beir:{save(tmp_path / 'there', others)}")
    seen = seen_in_training(here, here.qrels("test"), {"kl": run_of(lineage=trained(there))})
    assert seen.subsets[NO_DOUBLE] == ["t1", "t3", "t4"]


def test_all_systems_share_the_rows_of_all_training(data: rd.Collection) -> None:
    """Two systems measured on other queries each would be compared as if on the same."""
    first = Lineage((Record.of([QUERIES["t1"]], [["x"]], student="a"),))
    second = Lineage((Record.of([QUERIES["t2"]], [["Fever"]], student="b"),))
    qrels = data.qrels("test")
    both = seen_in_training(data, qrels, {"a": run_of(lineage=first), "b": run_of(lineage=second)})
    assert both.subsets == {NO_DOUBLE: ["t3", "t4"], UNSEEN: ["t3", "t4"]}
    assert seen_in_training(data, qrels, {"a": run_of(lineage=first)}).subsets == {
        NO_DOUBLE: ["t2", "t3", "t4"],
        UNSEEN: ["t1", "t2", "t3", "t4"],
    }


def test_unknown_training_gives_no_rows_and_says_so(data: rd.Collection) -> None:
    """A run that lost its lineage would have rows that are all queries, and look clean."""
    qrels = data.qrels("test")
    lost = seen_in_training(data, qrels, {"kl": run_of(lineage=Lineage(unrecorded=("kl.trec",)))})
    assert lost.subsets == {}
    assert lost.notes() == [
        "training data unknown: kl (no record of kl.trec). Name it with --trained-on."
    ]
    beside = seen_in_training(
        data,
        qrels,
        {
            "kl": run_of(lineage=trained(data) | Lineage(unrecorded=("hub/base",))),
            "zero": run_of(lineage=Lineage(unrecorded=("hub/zero",))),
        },
    )
    assert beside.notes() == [
        "training data unknown: zero (no record of hub/zero). Name it with --trained-on.",
        "training data before the recorded one is unknown: kl (no record of hub/base).",
    ]
    assert seen_in_training(data, qrels, {"bm25": run_of()}).notes() == []
    assert seen_in_training(data, qrels, {"bm25": run_of()}).subsets == {}


def test_training_data_are_named_by_split_or_folder(data: rd.Collection, tmp_path: Path) -> None:
    """The rows of a wrong split would be printed as if they were those of the right one."""
    qrels, lost = data.qrels("test"), {"kl": run_of(lineage=Lineage(unrecorded=("kl.trec",)))}
    named = seen_in_training(data, qrels, lost, trained_on=["train"])
    assert named.subsets == {NO_DOUBLE: ["t2", "t3", "t4"], UNSEEN: ["t1", "t2"]}
    assert named.notes() == []
    other = seen_in_training(data, qrels, lost, trained_on=["renamed"])
    assert other.subsets == {NO_DOUBLE: ["t2", "t3", "t4"], UNSEEN: ["t3", "t4"]}
    run_of(lineage=trained(data)).write(tmp_path / "student")
    folder = seen_in_training(data, qrels, lost, trained_on=[str(tmp_path / "student")])
    assert folder.subsets == named.subsets
    run_of().write(tmp_path / "bare")
    for name, message in (("no-such", "neither a folder nor a split"), ("bare", "has no record")):
        path = name if name == "no-such" else str(tmp_path / name)
        with pytest.raises(rd.ConfigError, match=message):
            seen_in_training(data, qrels, lost, trained_on=[path])


def test_near_doubles_are_found_exactly() -> None:
    """Sampled comparisons miss pairs at the threshold; each miss is a query called clean."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 30, rng.integers(0, 9))) for _ in range(300)]
    asked, known = texts[:100], texts[100:]
    halves = [Record.of(part, [[]] * len(part), student="x") for part in (known[:50], known[50:])]
    found = nearest_similarity([word_hashes(text) for text in asked], halves)

    def jaccard(a: str, b: str) -> float:
        one, two = set(words_of(a)), set(words_of(b))
        return len(one & two) / len(one | two) if one and two else 0.0

    assert found.tolist() == [max(jaccard(text, other) for other in known) for text in asked]


def test_subsets_are_measured_and_tested_like_all(data: rd.Collection) -> None:
    """Rows with tests over all queries, or means over other ones, would look the same."""
    runs = {"bm25": run_of("t1", "t2"), "kl": run_of("t1", "t3", "t4", lineage=trained(data))}
    qrels = data.qrels("test")
    seen = seen_in_training(data, qrels, runs)
    found = rd.evaluate_runs(
        qrels, runs, rd.EvaluationSettings(metrics="p@1", test="fisher"), seen=seen
    )
    for name, queries in seen.subsets.items():
        part = {query: qrels[query] for query in queries}
        alone = rd.evaluate_runs(part, runs, rd.EvaluationSettings(metrics="p@1", test="fisher"))
        subset = found.subsets[name]
        assert subset.systems == alone.systems
        assert list(subset.tests) == list(alone.tests)
        assert subset.settings["queries"] == len(queries)
    written = found.to_dict(per_query=True)
    assert [part["name"] for part in written["subsets"]] == [NO_DOUBLE, UNSEEN]
    assert [*written["subsets"][1]["systems"][0]["per_query"]["p@1"]] == ["t1", "t2"]
    [record] = written["training"]["records"]
    assert (record["split"], record["queries"], record["documents"]) == ("train", 2, 2)


def test_gains_that_are_memory_are_warned_of(data: rd.Collection) -> None:
    """kl gains 0.25 over bm25 on all queries, and loses 0.5 on those with unseen documents."""
    runs = {"bm25": run_of("t1", "t2"), "kl": run_of("t1", "t3", "t4", lineage=trained(data))}
    qrels = data.qrels("test")
    seen = seen_in_training(data, qrels, runs)
    found = rd.evaluate_runs(qrels, runs, metrics="p@1", seen=seen)
    assert found.warnings == [
        "kl: its gain over bm25 in p@1 is +0.2500 on all queries, but +0.3333 on those with "
        "no near double in training.",
        "kl: its gain over bm25 in p@1 is +0.2500 on all queries, but -0.5000 on those with "
        "documents unseen in training.",
    ]
    alone = {"kl": runs["kl"]}
    found = rd.evaluate_runs(qrels, alone, metrics="p@1", seen=seen_in_training(data, qrels, alone))
    assert found.warnings[1].startswith("kl: p@1 is 0.7500 on all queries, but 0.5000 on")
    equal = {"bm25": run_of("t1", "t2"), "kl": run_of("t1", "t2", lineage=trained(data))}
    found = rd.evaluate_runs(qrels, equal, metrics="p@1", seen=seen_in_training(data, qrels, equal))
    assert found.warnings == []


def test_the_command_prints_the_rows(
    data: rd.Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What only the JSON says is not read."""
    run_of("t1", "t2").write(tmp_path / "bm25")
    run_of("t1", "t3", "t4", lineage=trained(data)).write(tmp_path / "kl")
    words = [
        "--data",
        data.spec,
        "--run",
        str(tmp_path / "bm25"),
        "--run",
        str(tmp_path / "kl"),
        "--metrics",
        "p@1",
        "--json",
        str(tmp_path / "r.json"),
    ]
    assert main(words) == 0
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if "│" in line and "in training" in line]
    rows = [line.split("│")[1:-1] for line in lines]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [NO_DOUBLE, "3", "bm25", "0.3333"],
        [UNSEEN, "2", "bm25", "1.0000"],
    ]
    assert f"{UNSEEN}, paired t test" in printed.out
    assert "warning: kl: its gain over bm25" in printed.err
    assert len(json.loads((tmp_path / "r.json").read_text())["subsets"]) == 2


def test_an_empty_row_says_so(
    data: rd.Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mean over no query printed as 0 would be the worst of all systems."""
    run_of("t1", lineage=trained(data, "test")).write(tmp_path / "kl")
    assert (
        main(
            [
                "--data",
                data.spec,
                "--run",
                str(tmp_path / "kl"),
                "--metrics",
                "p@1",
                "--json",
                str(tmp_path / "r.json"),
            ]
        )
        == 0
    )
    assert capsys.readouterr().out.count("no query is left") == 2
    subsets = json.loads((tmp_path / "r.json").read_text())["subsets"]
    assert [(part["systems"], part["settings"]["queries"]) for part in subsets] == [([], 0)] * 2


def test_without_texts_the_command_says_what_is_missing(
    data: rd.Collection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that silently are not there look like a training that saw nothing."""
    run_of("t1", lineage=trained(data)).write(tmp_path / "kl")
    (tmp_path / "q.txt").write_text("t1 0 d3 1\n")
    words = ["--qrels", str(tmp_path / "q.txt"), "--run", str(tmp_path / "kl")]
    assert main([*words, "--metrics", "p@1"]) == 0
    assert "give --data for the rows" in capsys.readouterr().err
    assert main([*words, "--near-double", "0"]) == 2
    assert main([*words, "--trained-on", "train"]) == 2


@pytest.mark.realdata
def test_scifact_has_the_overlap_that_was_counted(shared_data: Path) -> None:
    """116 of 300 claims have a near double, and 196 a relevant document that is labelled."""
    data = rd.load_collection(f"beir:{shared_data / 'scifact'}")
    run = rd.Run.from_dict(data.qrels("test"))
    seen = seen_in_training(data, data.qrels("test"), {"any": run}, trained_on=["train"])
    assert {name: len(queries) for name, queries in seen.subsets.items()} == {
        NO_DOUBLE: 300 - 116,
        UNSEEN: 300 - 196,
    }
