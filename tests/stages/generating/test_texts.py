"""Passages for queries and descriptions of documents, as collections that train."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from retrodistill import load_collection
from retrodistill.base.config import GenerateSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest, digest
from retrodistill.base.types import Doc, Pairs
from retrodistill.data.datasets import Collection
from retrodistill.generate import main
from retrodistill.models.writers import Draft, WriterOptions
from retrodistill.stages.generating import generate_texts
from retrodistill.stages.training.candidates import gather

WROTE: dict[str, dict[str, list[str]]] = {}
"""Source -> kind -> texts, as the writer of a test writes them."""


class Scripted:
    """Writes for each source and kind what the test lays down."""

    def __init__(self, argument: str, docs: object, options: WriterOptions) -> None:
        self.fingerprint = digest("scripted")
        self.kinds = [prompt.kind for prompt in options.asked()]

    def estimate(self, docs: Sequence[Doc]) -> str:
        return ""

    def write(self, docs: Sequence[Doc]) -> list[Draft]:
        return [
            Draft(text, kind, doc.id)
            for doc in docs
            for kind in self.kinds
            for text in WROTE.get(doc.id, {}).get(kind, ())
        ]


class Verifier:
    """Says yes (1) to a text with the word `true`, on whichever side it is read."""

    fingerprint = "verifier"
    scale = "logit"
    seen: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, argument: str) -> None:
        self.side = argument

    def score(self, pairs: Pairs) -> np.ndarray:
        asked = [pairs.queries[row].full_text for row in pairs.query_rows]
        read = [pairs.docs[row].full_text for row in pairs.doc_rows]
        self.seen.extend(zip(asked, read, strict=True))
        return np.array(["true" in text for text in (asked if self.side else read)], np.float32)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("own_texts")
    module.Scripted = Scripted  # type: ignore[attr-defined]
    module.Verifier = Verifier  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_texts", module)
    WROTE.clear()
    Verifier.seen.clear()


@pytest.fixture
def small(tmp_path: Path) -> Collection:
    folder = tmp_path / "c"
    (folder / "qrels").mkdir(parents=True)
    docs = [("d0", "the label of pumps"), ("d1", "the label of valves"), ("d2", "another text")]
    queries = [("q0", "how do pumps work"), ("q1", "how do valves work"), ("q2", "who is there")]
    for name, rows in (("corpus", docs), ("queries", queries)):
        lines = [json.dumps({"_id": id, "text": text}) + "\n" for id, text in rows]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    (folder / "qrels" / "train.tsv").write_text("q0\td0\t1\nq1\td1\t1\nq1\td2\t0\n")
    (folder / "qrels" / "test.tsv").write_text("q2\td2\t1\n")
    return load_collection(f"beir:{folder}")


def settings(**own: object) -> GenerateSettings:
    given = {"write": "passages", "writer": ("own_texts:Scripted",)} | own
    return GenerateSettings(**given)  # type: ignore[arg-type]


def test_passages_make_a_collection_with_several_positives(
    small: Collection, tmp_path: Path
) -> None:
    """Written negatives that are counted as positives, or one positive a query."""
    WROTE["q0"] = {
        "passage": ["a pump moves water by a wheel that turns"],
        "reasoning": ["what is a pump for? to move water. so it turns"],
        "distractor": ["pumps are sold in many sizes and colours"],
    }
    WROTE["q2"] = {"passage": ["nobody may train on a test query"]}
    texts = generate_texts(small, settings())
    texts.write(tmp_path / "out")
    made = load_collection(f"beir:{tmp_path}/out")
    grades = made.qrels("train")
    assert set(grades) == {"q0", "q1"}  # q1 has its label
    words = {made.docs.get(doc).full_text.split()[0]: grade for doc, grade in grades["q0"].items()}
    assert words == {"a": 1, "what": 1, "pumps": 0, "the": 1}
    assert grades["q1"] == {"d1": 1}
    lists = gather(made, "train", None, pool=8)
    assert made.docs.ids(lists[0].pool) == [id for id, grade in grades["q0"].items() if not grade]
    assert Manifest.read(tmp_path / "out").details["relevant"] == 4


def test_a_teacher_verifies_both_kinds(small: Collection) -> None:
    """A verification that accepts everything: refuted passages as positives."""
    WROTE["q0"] = {
        "passage": ["it is true that pumps move water", "pumps are made of cheese"],
        "distractor": ["pumps cost much money", "true answer in a wrong passage"],
    }
    verify = settings(teacher="own_texts:Verifier", min_score=0.5)
    texts = generate_texts(small, verify)
    found = {text.doc.text: texts.grades["q0"][text.doc.id] for text in texts.texts}
    assert found == {
        "it is true that pumps move water": 1,
        "pumps are made of cheese": 0,
        "pumps cost much money": 0,
    }
    assert sum(count for why, count in texts.dropped.items() if "min-score" in why) == 2
    assert ("how do pumps work", "pumps cost much money") in Verifier.seen


def test_descriptions_are_documents_and_misdescriptions_their_texts_negatives(
    small: Collection, tmp_path: Path
) -> None:
    """Misleading descriptions as relevant ones, or the verifier reading the sides exchanged."""
    WROTE["d0"] = {"description": ["true words on machines"], "misdescription": ["false machines"]}
    WROTE["d1"] = {"description": ["wrong words on other things"]}
    out = settings(write="descriptions", teacher="own_texts:Verifier:asked", min_score=0.5)
    texts = generate_texts(small, out)
    assert ("true words on machines", "the label of pumps") in Verifier.seen
    assert [source.id for source in texts.sources] == ["d0"]  # d1 has no relevant text left
    assert sorted(texts.grades["d0"].values()) == [0, 1]
    texts.write(tmp_path / "out")
    made = load_collection(f"beir:{tmp_path}/out")
    assert made.queries.get("d0").full_text == "the label of pumps"
    assert {doc.text for doc in made.docs} == {"true words on machines", "false machines"}


def test_equal_texts_are_one_and_a_relevant_one_is_not_wrong(small: Collection) -> None:
    """The same passage as positive and as negative of a query; or twice in the corpus."""
    WROTE["q0"] = {"passage": ["Water flows down."], "distractor": ["water flows down"]}
    WROTE["q1"] = {"distractor": ["water flows down", "how do valves work"]}
    texts = generate_texts(small, settings())
    (text,) = texts.texts
    assert texts.grades["q0"][text.doc.id] == 1
    assert texts.grades["q1"] == {text.doc.id: 0, "d1": 1}
    assert sum(texts.dropped.values()) == 2  # contradicted, and a query as its own passage


def test_kinds_for_the_other_side_are_refused(small: Collection, tmp_path: Path) -> None:
    """Documents given to a prompt that speaks of a query; titles as passages; flags of queries."""
    with pytest.raises(ConfigError, match="question is written for a document, but here a query"):
        generate_texts(small, settings(kind=("question",)))
    with pytest.raises(ConfigError, match="needs a language model"):
        settings(writer=("titles",))
    with pytest.raises(ConfigError, match="--relabel is for queries"):
        settings(relabel=3, ranker=("bm25",))
    with pytest.raises(ConfigError, match="both passage"):
        settings(kind=("passage",), wrong_kind=("passage",))
    with pytest.raises(ConfigError, match="--wrong-kind is for"):
        GenerateSettings(wrong_kind=("distractor",))
    with pytest.raises(DataError, match="no text is left"):
        generate_texts(small, settings())


def test_the_command_writes_passages(small: Collection, tmp_path: Path) -> None:
    WROTE["q0"] = {"passage": ["a pump moves water by a wheel that turns"]}
    words = f"--data {small.spec} --write passages --writer own_texts:Scripted --out {tmp_path}/o "
    assert main(words.split()) == 0
    manifest = Manifest.read(tmp_path / "o")
    assert (manifest.kind, manifest.config["write"]) == ("texts", "passages")
