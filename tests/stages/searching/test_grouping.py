"""Results by document: each once, by its best passage."""

from pathlib import Path

import numpy as np
import pytest

from retrodistill.data.datasets import load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.indexing import embed_collection
from retrodistill.stages.searching import Searcher, search_run
from retrodistill.stages.searching.grouping import best_passages, document_of, documents


def test_a_passage_names_its_document() -> None:
    """A document whose own id holds a `#` taken for a passage of another."""
    ids = ["a.md#12", "a.md", "b#c", "b#", "#1", "a#1#2", "x#1.5"]
    assert [document_of(id) for id in ids] == ["a.md", "a.md", "b#c", "b#", "#1", "a#1", "x#1.5"]


def test_a_run_of_passages_is_one_of_documents() -> None:
    """The mean or the last passage's score, or a list shorter than asked for."""
    run = Run.from_dict({"q": {"a#1": 9.0, "a#2": 8.0, "b": 7.0, "c#3": 6.0}})
    assert documents(run, 2).to_dict() == {"q": {"a": 9.0, "b": 7.0}}
    assert documents(run, 9).to_dict() == {"q": {"a": 9.0, "b": 7.0, "c": 6.0}}


def test_search_goes_deeper_until_there_are_enough_documents() -> None:
    """One long document whose hundred passages hide all the others."""
    ids = [f"long#{number}" for number in range(1, 101)] + ["b#1", "c", "b#2"]
    scores = np.linspace(1, 0, len(ids), dtype=np.float32)
    depths = []

    def search(depth: int) -> tuple[list[list[str]], list[np.ndarray]]:
        depths.append(depth)
        return [ids[:depth], ids[:1]], [scores[:depth], scores[:1]]

    found, values = best_passages(search, 3)
    assert found == [["long#1", "b#1", "c"], ["long#1"]]
    assert values[0].tolist() == scores[[0, 100, 101]].tolist()
    assert depths == [12, 48, 192]
    assert best_passages(search, 50)[0][0] == ["long#1", "b#1", "c"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("grouped")
    (folder / "docs").mkdir()
    for name, word in (("a", "water"), ("b", "blood"), ("c", "lung")):
        text = f"A sentence about {word} and vitamin. " * 12
        (folder / "docs" / f"{name}.txt").write_text(text)
    collection = load_collection(f"docs:{folder / 'docs'},tokens=16,overlap=0")
    encoder = DenseEncoder(tiny_model)
    return folder / "docs", embed_collection(collection, encoder, out=folder / "index")


def test_a_searcher_groups_by_document(index: tuple[Path, Path], tmp_path: Path) -> None:
    """Ten hits that are ten passages of one document."""
    docs, folder = index
    searcher = Searcher.open(folder)
    plain = searcher.search("water", 3)
    assert all("#" in hit.doc_id and hit.text for hit in plain)
    hits = searcher.search("water", 5, by_document=True)
    assert sorted(document_of(hit.doc_id) for hit in hits) == ["a.txt", "b.txt", "c.txt"]
    assert hits[0].score == plain[0].score
    (tmp_path / "log.txt").write_text("water\nblood\n")
    collection = load_collection(f"docs:{docs},tokens=16,overlap=0", queries=tmp_path / "log.txt")
    run = search_run(searcher, collection, None, 2, by_document=True)
    assert {len(docs) for _, docs, _ in run.lists()} == {2}
    assert {doc for _, docs, _ in run.lists() for doc in docs} <= {"a.txt", "b.txt", "c.txt"}
