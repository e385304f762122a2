"""Collections from files and libraries: what is read, and what is refused."""

import csv
import gzip
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Doc
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.datasets.pydocs import split as split_of
from retrodistill.data.datasets.texts import Texts, TextSource, write_texts

DOCS = [{"_id": "d1", "title": "One", "text": "first\nline"}, {"_id": 2, "text": ""}]
QUERIES = [{"_id": "q1", "text": "what is one"}, {"_id": "q2", "text": "and two"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\tgone\t2\n"


def save(folder: Path, *, docs: list = DOCS, queries: list = QUERIES, qrels: str = QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", docs), ("queries", queries)):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def test_a_beir_folder_is_read_unchanged(tmp_path: Path) -> None:
    """Numeric ids that become numbers, and empty documents that disappear."""
    collection = load_collection(f"beir:{save(tmp_path)}")
    assert list(collection.docs) == [Doc("d1", "One", "first\nline"), Doc("2", "", "")]
    assert collection.docs.full_texts([0]) == ["One first\nline"]
    assert collection.qrels("test") == {"q1": {"d1": 1, "gone": 2}}
    assert collection.query_ids("test") == ["q1"]
    assert collection.splits == ("test",)
    assert "d1" in collection.docs
    assert "gone" not in collection.docs
    assert collection.docs.rows(["2", "d1"]).tolist() == [1, 0]


def test_gzip_and_files_without_column_names_are_read(tmp_path: Path) -> None:
    """A first judgement that is taken for the column names."""
    save(tmp_path, qrels="q1\td1\t1\nq2\t2\t1\n")
    corpus = tmp_path / "corpus.jsonl"
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes()))
    corpus.unlink()
    collection = load_collection(f"beir:{tmp_path}")
    assert len(collection.docs) == 2
    assert set(collection.qrels("test")) == {"q1", "q2"}


def test_the_fingerprint_is_that_of_the_texts(tmp_path: Path) -> None:
    """Scores of an old corpus that are taken for those of the new one."""
    original = load_collection(f"beir:{save(tmp_path / 'one')}")
    moved = load_collection(f"beir:{save(tmp_path / 'moved', qrels='q2	d1	1')}")
    more = [*DOCS, {"_id": "x", "text": "x"}]
    changed = load_collection(f"beir:{save(tmp_path / 'other', docs=more)}")
    asked = [*QUERIES, {"_id": "q3", "text": "and three"}]
    asking = load_collection(f"beir:{save(tmp_path / 'asking', queries=asked)}")
    assert original.fingerprint == moved.fingerprint
    assert len({original.fingerprint, changed.fingerprint, asking.fingerprint}) == 3
    assert original.docs.fingerprint == asking.docs.fingerprint != changed.docs.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"docs": [*DOCS, {"_id": "d1", "text": "again"}]}, r"corpus.jsonl:3"),
        ({"docs": [*DOCS, "{oops"]}, r"corpus.jsonl:3"),
        ({"docs": [*DOCS, {"text": "no id"}]}, r"corpus.jsonl:3"),
        ({"docs": [*DOCS, {"_id": "", "text": "x"}]}, r"corpus.jsonl:3"),
        ({"docs": [*DOCS, {"_id": "x", "text": 5}]}, r"corpus.jsonl:3"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq1\td1\thigh\n"}, r"test.tsv:2"),
        ({"qrels": "query-id\tcorpus-id\tscore\nq1\td1\n"}, r"test.tsv:2"),
    ],
)
def test_malformed_lines_are_refused_by_number(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    """A line that is skipped silently, so that a published number cannot be reproduced."""
    with pytest.raises(DataError, match=message):
        load_collection(f"beir:{save(tmp_path, **change)}").qrels("test")


def test_mistakes_are_explained(tmp_path: Path) -> None:
    """A KeyError for an id, a split or a kind of collection that is misspelt."""
    collection = load_collection(f"beir:{save(tmp_path)}")
    with pytest.raises(DataError, match="'nowhere'"):
        collection.docs.rows(["d1", "nowhere"])
    with pytest.raises(ConfigError, match="no split 'train'.*test"):
        collection.qrels("train")
    with pytest.raises(ConfigError, match="Did you mean 'beir'"):
        load_collection(f"bier:{tmp_path}")
    with pytest.raises(ConfigError, match="Write beir:"):
        load_collection(str(tmp_path))
    with pytest.raises(ConfigError, match="Did you mean builtin:pydocs"):
        load_collection("builtin:pydoc")
    with pytest.raises((ConfigError, DataError), match="none"):
        load_collection(f"beir:{tmp_path / 'none'}")
    save(tmp_path / "more", qrels="q9\td1\t1\n")
    with pytest.raises(DataError, match="'q9'"):
        load_collection(f"beir:{tmp_path / 'more'}").query_ids("test")


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(texts.filter(bool), st.tuples(texts, texts), min_size=1, max_size=20))
def test_texts_keep_every_character(tmp_path: Path, rows: dict[str, tuple[str, str]]) -> None:
    """Line breaks, quotes or spaces in ids and texts that move to a neighbour."""
    docs = [Doc(id, title, text) for id, (title, text) in rows.items()]
    stem = tmp_path / "docs"
    fingerprint = write_texts(stem, TextSource(lambda: docs, str))
    collection = Texts(stem, name="docs", fingerprint=fingerprint)
    assert list(collection) == docs
    assert [collection.get(doc.id) for doc in docs] == docs
    assert collection.rows(list(rows)).tolist() == list(range(len(docs)))


words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12).filter(str.strip)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(words, st.tuples(texts, texts), min_size=1, max_size=6),
    st.dictionaries(words, texts.filter(str.strip), min_size=1, max_size=6),
)
def test_a_written_folder_is_read_back(
    docs: dict[str, tuple[str, str]], queries: dict[str, str]
) -> None:
    """Ids with spaces, quotes or accents that differ between a text and its judgement."""
    qrels = {query: {doc: grade for grade, doc in enumerate(docs)} for query in queries}
    with tempfile.TemporaryDirectory() as scratch:
        folder = save(
            Path(scratch) / "data",
            docs=[{"_id": id, "title": a, "text": b} for id, (a, b) in docs.items()],
            queries=[{"_id": id, "text": text} for id, text in queries.items()],
        )
        with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, delimiter="\t", lineterminator="\n")
            table.writerow(["query-id", "corpus-id", "score"])
            table.writerows((q, d, g) for q, graded in qrels.items() for d, g in graded.items())
        collection = load_collection(f"beir:{folder}")
        assert list(collection.docs) == [Doc(id, a, b) for id, (a, b) in docs.items()]
        assert list(collection.queries) == [Doc(id, "", text) for id, text in queries.items()]
        assert collection.qrels("test") == qrels
        assert collection.query_ids("test") == list(queries)
        assert all(doc in collection.docs for doc in qrels[next(iter(queries))])


def test_columns_above_two_gigabytes_are_read(tmp_path: Path) -> None:
    """An ArrowInvalid at books and patents, once a chunk of a corpus passes 2 GB."""
    docs = [Doc(f"{number}" * 60_000_000, "", "") for number in range(2)]
    stem = tmp_path / "docs"
    fingerprint = write_texts(stem, TextSource(lambda: docs, str))
    collection = Texts(stem, name="docs", fingerprint=fingerprint).ids([0, 1] * 20)
    assert [(len(text), text[0]) for text in collection] == [
        (60_000_000, "0"),
        (60_000_000, "1"),
    ] * 20


def test_portions_hold_few_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """65,536 books in memory at once, as keys are computed: 2 GB at 33 kB each, 60 GB at 1 MB."""
    monkeypatch.setattr("retrodistill.data.datasets.texts.PORTION_BYTES", 100)
    monkeypatch.setattr("retrodistill.data.datasets.texts.PORTION_ROWS", 5)
    docs = [Doc(str(n), "é" * 5, "x" * (150 if n == 7 else 2)) for n in range(30)]
    stem = tmp_path / "docs"
    table = Texts(stem, name="docs", fingerprint=write_texts(stem, TextSource(lambda: docs, str)))
    rows = np.array([*range(20), 7, 7])
    portions = list(table.portions(rows))
    np.testing.assert_array_equal(np.concatenate([rows[portion] for portion in portions]), rows)
    for portion in portions:
        own = rows[portion]
        held = sum(len(docs[row].title.encode()) + len(docs[row].text) for row in own)
        assert len(own) <= 5
        assert held <= 100 or len(own) == 1
    assert list(table.portions(rows[:0])) == []


def test_equal_hashes_do_not_mix_documents(tmp_path: Path) -> None:
    """Two ids of one hash, of which the first is always found."""
    docs = [Doc(f"d{number}", "", str(number)) for number in range(50)]

    def crowded(ids: list[str]) -> np.ndarray:
        return np.array([int(id[1:]) % 3 for id in ids], np.uint64)

    stem = tmp_path / "docs"
    fingerprint = write_texts(stem, TextSource(lambda: docs, str), hasher=crowded)
    collection = Texts(stem, name="docs", fingerprint=fingerprint, hasher=crowded)
    assert [collection.get(doc.id).text for doc in docs] == [doc.text for doc in docs]


def test_an_ir_datasets_collection(tmp_path: Path) -> None:
    """Splits or titles of ir_datasets that are lost."""
    import ir_datasets

    (tmp_path / "docs.tsv").write_text("d1\tfirst text\nd2\tsecond text\n")
    (tmp_path / "queries.tsv").write_text("q1\tfirst\n")
    (tmp_path / "qrels").write_text("q1 0 d1 1\n")
    made = ir_datasets.create_dataset(
        docs_tsv=str(tmp_path / "docs.tsv"),
        queries_tsv=str(tmp_path / "queries.tsv"),
        qrels_trec=str(tmp_path / "qrels"),
    )
    ir_datasets.registry.register("retrodistill-made/test", made)
    collection = load_collection("irds:retrodistill-made/test")
    assert [doc.id for doc in collection.docs] == ["d1", "d2"]
    assert collection.qrels("test") == {"q1": {"d1": 1}}
    with pytest.raises(ConfigError, match="no data set"):
        load_collection("irds:retrodistill-made/tset")


@pytest.fixture(scope="module")
def pydocs() -> Collection:
    return load_collection("builtin:pydocs")


def test_documents_of_the_built_in_collection_do_not_contain_their_query(
    pydocs: Collection,
) -> None:
    """A document that contains its own query, and makes every system perfect."""
    assert 1_000 < len(pydocs.docs) <= 2_500
    docs = {doc.id: doc for doc in pydocs.docs}
    for query in pydocs.queries:
        doc = docs[query.id.removeprefix("q:")]
        assert " ".join(query.text.split()) not in " ".join(doc.text.split())


def test_modules_of_the_built_in_collection_stay_in_one_split(pydocs: Collection) -> None:
    """Sibling methods of one class in train and test: a student that only memorises."""
    counts = {split: len(pydocs.query_ids(split)) for split in pydocs.splits}
    assert counts["train"] > 4 * counts["test"] > 0
    homes: dict[str, set[str]] = {}
    for split in pydocs.splits:
        for query in pydocs.query_ids(split):
            doc = query.removeprefix("q:")
            assert split_of(doc) == split
            homes.setdefault(doc.partition(":")[0], set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())


@pytest.mark.realdata
def test_scifact_has_the_published_counts(shared_data: Path) -> None:
    """A reader that loses documents of a real corpus."""
    collection = load_collection(f"beir:{shared_data / 'scifact'}")
    assert len(collection.docs) == 5183
    assert len(collection.query_ids("train")) == 809
    assert len(collection.query_ids("test")) == 300
