"""An index that changes while it is searched, against what an index of the final documents is."""

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from fakes.corpus import NOUNS, save_small_collection
from fakes.models import save_tiny_model

from retrodistill.base.config import IndexSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import digest_files
from retrodistill.data.datasets import load_collection
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.indexing import embed_collection
from retrodistill.stages.serving.live.documents import Document
from retrodistill.stages.serving.live.index import IndexClosedError, LiveIndex

KINDS = ["exact", "flat", "hnsw", "ivf", "ivf-pq", "sq8", "binary", "faiss:HNSW16,SQ8"]
WHOLE = ("exact", "flat", "hnsw", "ivf")
DOCS = 1200

Open = Callable[..., LiveIndex]


class Made(NamedTuple):
    """A collection, its encoder, and an index folder by (kind, name of the model)."""

    spec: str
    encoder: DenseEncoder
    embed: Callable[..., Path]


def attribute_table(rows: int) -> pa.Table:
    moments = [datetime(2024, 1, 1 + row % 28, tzinfo=UTC) for row in range(rows)]
    columns = {
        "year": list(range(rows)),
        "price": [row / 2 for row in range(rows)],
        "lang": ["en" if row % 2 else None for row in range(rows)],
        "open": [row % 3 == 0 for row in range(rows)],
        "day": pa.array(moments, pa.timestamp("us", "UTC")),
        "tags": [[str(row)] for row in range(rows)],
        "blank": pa.nulls(rows),
    }
    return pa.table(columns)


@pytest.fixture(scope="module")
def made(private_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("live")
    model = save_tiny_model(folder / "tiny", layers=1)
    spec = f"beir:{save_small_collection(folder / 'small', docs=DOCS)}"
    collection = load_collection(spec)
    encoder = DenseEncoder(model, max_tokens=32, precision="float32")
    folders: dict[tuple[str, bool], Path] = {}

    def embed(kind: str = "flat", *, attributes: bool = False) -> Path:
        key = kind, attributes
        if key not in folders:
            folders[key] = embed_collection(
                collection,
                encoder,
                out=folder / f"index{len(folders)}",
                settings=IndexSettings(index=kind),
                attributes=attribute_table(DOCS) if attributes else None,
            )
        return folders[key]

    return Made(spec, encoder, embed)


@pytest.fixture
def open_live(made: Made, tmp_path: Path) -> Iterator[Open]:
    """Opens an index with its changes; all are closed afterwards."""
    opened: list[LiveIndex] = []

    def open_one(folder: Path | None = None, **options: object) -> LiveIndex:
        for live in opened:
            live.close()
        settings = {"name": "ix", "changes": tmp_path / "changes", "precision": "float32"}
        opened.append(LiveIndex.open(folder or made.embed(), **(settings | options)))
        return opened[-1]

    yield open_one
    for live in opened:
        live.close()


def documents(count: int, *, seed: int = 1, start: int = 0) -> list[Document]:
    rng = random.Random(seed)
    return [
        Document(f"new{number}", rng.choice(NOUNS), " ".join(rng.sample(NOUNS, 8)))
        for number in range(start, start + count)
    ]


def put(live: LiveIndex, docs: list[Document]) -> None:
    assert live.encoder is not None
    live.put(docs, live.encoder.encode_docs([doc.full_text for doc in docs]))


def best(live: LiveIndex, text: str, k: int = 1, where: str | None = None) -> list[str]:
    assert live.encoder is not None
    return live.search(live.encoder.encode_docs([text]), k, where=where)[0][0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_serves_changes_at_once_and_after_reopening(
    kind: str, made: Made, open_live: Open
) -> None:
    """A change that is only acknowledged, or only in memory, is found missing days later."""
    folder = made.embed(kind)
    before = digest_files(folder)
    live = open_live(folder)
    added, moved = documents(5), Document("d7", "muscle", "virus virus virus sleep")
    vectors = made.encoder.encode_docs([doc.full_text for doc in [*added, moved]])
    change = live.put([*added, moved], vectors)
    assert (change.added, change.replaced, change.documents) == (5, 1, DOCS + 5)
    former = live.doc("d8")
    assert former is not None
    change = live.delete(["d8", "new4", "never", "d8"])
    assert (change.deleted, change.unknown, change.documents) == (2, ["never"], DOCS + 3)
    for current in (live, open_live(folder)):
        assert len(current) == DOCS + 3
        for doc in [*added[:4], moved]:
            assert doc.id in best(current, doc.full_text, 1 if kind in WHOLE else 20)
            assert current.doc(doc.id) == doc
            vector = current.vector(doc.id)
            assert vector is not None
            np.testing.assert_allclose(vector, vectors[[*added, moved].index(doc)], atol=0.05)
        for gone in ("d8", "new4", "never"):
            assert current.doc(gone) is None
            assert current.vector(gone) is None
        found = best(current, former.full_text, 1000)
        assert len(found) == 1000
        assert "d8" not in found
        texts = dict(current.texts())
        assert len(texts) == DOCS + 3
        assert texts["d7"] == moved.full_text
    assert digest_files(folder) == before  # the artifact is never touched


def test_equals_an_index_of_the_final_documents(made: Made, open_live: Open) -> None:
    """Rows that slip against ids or texts give hits that look like hits."""
    live = open_live(made.embed("exact"))
    rng = random.Random(3)
    model = dict(live.texts())
    for step in range(40):
        ids = rng.sample([*model, *(f"new{number}" for number in range(30))], 4)
        if step % 3:
            docs = [Document(id, "", " ".join(rng.sample(NOUNS, 6))) for id in ids]
            put(live, docs)
            model |= {doc.id: doc.text for doc in docs}
        else:
            live.delete(ids)
            model = {id: text for id, text in model.items() if id not in ids}
    queries = made.encoder.encode_queries(["heart disease", "sleep and sugar", "virus"])
    vectors = made.encoder.encode_docs([*model.values()])
    expected = np.sort(queries @ vectors.T, axis=1)[:, ::-1][:, :20]
    for current in (live, open_live(made.embed("exact"))):
        assert dict(current.texts()) == model
        ids, scores = current.search(queries, 20)
        np.testing.assert_allclose(np.stack(scores), expected, atol=1e-5)
        for query, own, values in zip(queries, ids, scores, strict=True):
            docs = current.docs(own)
            assert [doc and doc.full_text for doc in docs] == [model[id] for id in own]
            rows = [[*model].index(id) for id in own]
            np.testing.assert_allclose(vectors[rows] @ query, values, atol=1e-5)


def test_a_hit_and_its_text_are_of_one_moment(made: Made, open_live: Open) -> None:
    """The old vector's score beside the new text is an answer that never existed."""
    live = open_live(made.embed("hnsw"))
    texts = ["virus infection blood", "sugar diet exercise"]
    vectors = made.encoder.encode_docs(texts)
    query = vectors[:1]
    live.put([Document("d3", "", texts[0])], vectors[:1])
    stop = Event()

    def search() -> int:
        count = 0
        while not stop.is_set():
            with live.reading():
                ids, scores = live.search(query, 1000)
                doc, version = live.doc("d3"), live.version
                vector = live.vector("d3")
            assert doc is not None
            assert vector is not None
            row = texts.index(doc.text)
            np.testing.assert_array_equal(vector, vectors[row])
            assert row == version % 2
            if "d3" in ids[0]:
                score = scores[0][ids[0].index("d3")]
                assert score == pytest.approx(float(query[0] @ vectors[row]), abs=1e-5)
            count += 1
        return count

    if live.version % 2:  # from here on an even version has the first text
        live.delete(["d9"])
    with ThreadPoolExecutor(16) as threads:
        searches = [threads.submit(search) for _ in range(16)]
        for number in range(1, 31):
            row = number % 2
            live.put([Document("d3", "", texts[row])], vectors[row : row + 1])
        stop.set()
        assert all(future.result() > 0 for future in searches)


def test_writers_are_not_starved(made: Made, open_live: Open) -> None:
    """Under constant searches a change would otherwise wait for a quiet moment, for ever."""
    live = open_live()
    stop = Event()
    query = np.repeat(made.encoder.encode_queries(["heart"]), 200, axis=0)

    def search() -> None:
        while not stop.is_set():
            live.search(query, 100)

    with ThreadPoolExecutor(9) as threads:
        for _ in range(8):
            threads.submit(search)
        changing = threads.submit(put, live, documents(1))
        try:
            changing.result(timeout=20)
        finally:
            stop.set()


@pytest.mark.parametrize(
    ("docs", "message"),
    [
        ([Document("", "", "text")], "id '' at position 0"),
        ([Document(" ", "", "text")], "not empty"),
        ([Document(7, "", "text")], "id 7 at position 0"),  # type: ignore[arg-type]
        ([Document("a", "", "x"), Document("a", "", "y")], "'a' is in the request twice"),
        ([Document("a", "", " ")], "neither a title nor a text"),
        ([Document("a", "", None)], "its text must be a string"),  # type: ignore[arg-type]
        ([Document("a", "", "\ud800")], "half of a surrogate pair"),
        ([Document("\udfff", "", "x")], "half of a surrogate pair"),
        ([Document("a", "", "x", {"years": 1})], "'a' has a field 'years'.*Did you mean.*year"),
        ([Document("a", "", "x", {"year": "1999"})], "'a': field 'year' is '1999'.*whole numbers"),
        ([Document("a", "", "x", {"year": True})], "whole numbers"),
        ([Document("a", "", "x", {"year": 2**63})], "whole numbers"),
        ([Document("a", "", "x", {"price": float("nan")})], "'price' is nan"),
        ([Document("a", "", "x", {"price": "1"})], "numbers"),
        ([Document("a", "", "x", {"lang": 1})], "strings"),
        ([Document("a", "", "x", {"open": 1})], "true or false"),
        ([Document("a", "", "x", {"day": "yesterday"})], "times.*2024-05-31"),
        ([Document("a", "", "x", {"tags": "one"})], "lists of strings"),
        ([Document("a", "", "x", {"tags": [1]})], "lists of strings"),
        ([Document("a", "", "x", {"blank": {"b": 1}})], "'blank'"),
        ([Document("ok", "", "x"), Document("b", "", "y", {"year": 1.5})], "'b': field 'year'"),
    ],
)
def test_a_bad_document_changes_nothing(
    docs: list[Document], message: str, made: Made, open_live: Open
) -> None:
    """What fails after it was logged makes the server fail at its next start, and every later."""
    live = open_live(made.embed("flat", attributes=True))
    size = live._log.path.stat().st_size  # type: ignore[union-attr]
    vectors = np.ones((len(docs), 32), np.float32)
    with pytest.raises(DataError, match=message):
        live.put(docs, vectors)
    assert len(live) == DOCS
    assert live.doc("ok") is None
    assert live._log.path.stat().st_size == size  # type: ignore[union-attr]


def test_bad_vectors_change_nothing(made: Made, open_live: Open) -> None:
    """NaN in an index makes every search after it wrong."""
    live = open_live()
    doc = Document("a", "", "x")
    for vectors in (np.full((1, 32), np.nan), np.ones((1, 31)), np.ones((2, 32)), np.ones(32)):
        with pytest.raises(DataError):
            live.put([doc], vectors.astype(np.float32))
    assert live.put([], np.empty((0, 32), np.float32)).documents == DOCS
    with pytest.raises(DataError, match="position 1"):
        live.delete(["d1", ""])
    assert len(open_live()) == DOCS


def test_fields_are_searched_returned_and_may_be_missing(made: Made, open_live: Open) -> None:
    """A field that is stored but not searched, or as text, gives a filter that finds nothing."""
    folder = made.embed("hnsw", attributes=True)
    live = open_live(folder)
    fields = {
        "year": 9999,
        "price": 3,
        "lang": "日本",
        "open": True,
        "day": "2031-02-03T04:05:06+01:00",
        "tags": ["x", "y"],
        "blank": "now a string",
    }
    put(live, [Document("full", "", "heart", fields), Document("bare", "", "blood")])
    for current in (live, open_live(folder)):
        for where in (
            "year = 9999",
            "price = 3 and year > 5000",
            'lang = "日本"',
            'day > "2030-01-01"',
            'tags = "y"',
            'blank = "now a string"',
        ):
            assert best(current, "heart", 5, where) == ["full"], where
        assert "bare" in best(current, "blood", 5, "year is missing")
        doc, bare, base = current.docs(["full", "bare", "d5"])
        moment = datetime(2031, 2, 3, 3, 5, 6, tzinfo=UTC)
        assert doc is not None
        assert doc.fields == {**fields, "price": 3.0, "day": moment}
        assert bare == Document("bare", "", "blood")
        assert base is not None
        assert base.fields["year"] == 5
        attributes = current.attributes
        assert attributes is not None
        assert len(attributes) == DOCS + 2
    with pytest.raises(DataError, match=r"no attributes.*--attributes"):
        put(open_live(made.embed(), name="other"), [Document("a", "", "x", {"year": 1})])


def test_another_models_vectors_are_never_used(
    made: Made, open_live: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Vectors of the old model in the new one's space give plausible, wrong scores."""
    docs = documents(4)
    live = open_live()
    put(live, docs)
    live.delete(["d5"])
    other = DenseEncoder(
        save_tiny_model(tmp_path / "other", layers=1, seed=5), max_tokens=32, precision="float32"
    )
    collection = load_collection(made.spec)
    folder = embed_collection(collection, other, out=tmp_path / "second")
    caplog.set_level("INFO")
    for _ in range(2):
        caplog.clear()
        live = open_live(folder)
        for doc in docs:
            expected = other.encode_docs([doc.full_text])[0]
            np.testing.assert_allclose(live.vector(doc.id), expected, atol=1e-5)
        assert live.doc("d5") is None
        assert len(live) == DOCS + 3
        again = "encoded again" in caplog.text
        if _ == 0:
            assert again
    assert not again  # the log has the new vectors now


def test_a_reembedded_index_keeps_vectors_and_changes(
    made: Made, open_live: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A re-embedded index must neither lose changes nor bring back what was deleted."""
    live = open_live()
    vector = np.full((1, 32), 0.25, np.float32)  # of no text: it would not survive encoding
    live.put([Document("d1", "", "later text")], vector)
    live.delete(["d2"])
    folder = embed_collection(
        load_collection(made.spec),
        made.encoder,
        out=tmp_path / "again",
        settings=IndexSettings(index="hnsw"),
    )
    caplog.set_level("INFO")
    live = open_live(folder)
    np.testing.assert_array_equal(live.vector("d1"), vector[0])
    assert live.doc("d1") == Document("d1", "", "later text")  # the log is later than the index
    assert live.doc("d2") is None
    assert "embedded again" in caplog.text
    assert "encoded again" not in caplog.text


def test_fields_that_no_longer_fit_are_reported(
    made: Made, open_live: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """An index without an attribute would refuse to start, or drop the document."""
    live = open_live(made.embed("flat", attributes=True))
    put(live, [Document("a", "", "heart", {"year": 3})])
    live = open_live(made.embed("flat"))
    assert live.doc("a") == Document("a", "", "heart")
    assert "field 'year' of 1 changed documents" in caplog.text
    live = open_live(made.embed("flat", attributes=True))  # nothing was lost
    assert best(live, "heart", 5, "year = 3").count("a") == 1


def test_reopening_takes_over_while_changes_come(made: Made, open_live: Open) -> None:
    """A change between reading the folder and taking over would be lost after a reload."""
    live = open_live(made.embed("flat"))
    acknowledged: list[str] = []
    stop = Event()

    def change() -> None:
        number = 0
        current = live
        while not stop.is_set():
            doc = Document(f"new{number}", "", f"text {number}")
            try:
                current.put([doc], np.full((1, 32), 0.1, np.float32))
            except IndexClosedError:
                current = lives[-1]
                continue
            acknowledged.append(doc.id)
            number += 1

    lives = [live]
    with ThreadPoolExecutor(1) as threads:
        writer = threads.submit(change)
        for _ in range(3):
            version = lives[-1].version
            lives.append(lives[-1].reopened())
            assert lives[-1].version > version
        stop.set()
        writer.result()
    current = lives[-1]
    assert len(acknowledged) > 3
    assert len(current) == DOCS + len(acknowledged)
    assert None not in current.docs(acknowledged)
    current.put([Document("d1", "", "x")], np.ones((1, 32), np.float32))
    assert current.deleted_rows == 1
    assert current.reopened().close() is None
    assert len(open_live()) == DOCS + len(acknowledged)


def test_a_failed_reload_leaves_the_old_index_at_work(
    made: Made, open_live: Open, tmp_path: Path
) -> None:
    """A server whose reload failed must still take changes."""
    live = open_live()
    with pytest.raises(DataError):
        live.reopened(tmp_path / "no index")
    put(live, documents(1))
    assert live.doc("new0") is not None


def test_a_change_that_cannot_be_applied_is_taken_out_of_the_log(
    made: Made, open_live: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused change that stays in the log comes back at the next start."""
    live = open_live()
    index = live.searcher.index

    def failing(vectors: np.ndarray) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(index, "_add", failing)
        with pytest.raises(MemoryError):
            put(live, documents(2))
        with pytest.raises(MemoryError):
            put(live, [Document("d1", "", "other")])
    put(live, documents(1, start=5))
    for current in (live, open_live()):
        assert len(current) == DOCS + 1
        assert current.doc("new0") is None
        assert current.doc("d1") != Document("d1", "", "other")


def test_what_takes_no_changes_says_so(made: Made, open_live: Open, tmp_path: Path) -> None:
    """A refusal that does not say why sends the user to the wrong setting."""
    live = open_live(changes=None)
    assert "--changes" in live.refusal
    with pytest.raises(ConfigError, match="--changes FOLDER"):
        put(live, documents(1))
    for name in ("", "..", "a/b"):
        with pytest.raises(ConfigError, match="NAME=FOLDER"):
            open_live(name=name)
    live = open_live()
    assert not live.refusal
    with pytest.raises(ConfigError, match="in use by process"):
        LiveIndex.open(made.embed(), name="ix", changes=tmp_path / "changes")
    live.close()
    with pytest.raises(IndexClosedError):
        live.delete(["d1"])


def test_changes_are_not_dropped_by_a_kind_that_takes_none(
    open_live: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embedded again for Milvus, say, an index would start without documents that it had."""
    put(open_live(), documents(1))
    monkeypatch.setattr("retrodistill.stages.serving.live.index._refusal", lambda _: "no reason.")
    with pytest.raises(ConfigError, match="holds changes of documents.*no reason"):
        open_live()


def test_texts_of_another_collection_are_refused(
    made: Made, open_live: Open, tmp_path: Path
) -> None:
    """Ids that two collections share would show the texts of the wrong one."""
    moved = f"beir:{save_small_collection(tmp_path / 'moved', docs=DOCS)}"
    assert open_live(data=moved).has_texts
    other = f"beir:{save_small_collection(tmp_path / 'other', docs=DOCS + 1)}"
    with pytest.raises(ConfigError, match="other documents"):
        open_live(data=other)


def test_without_texts(made: Made, open_live: Open, tmp_path: Path) -> None:
    """Half of the texts would be indexed for BM25 as if they were all."""
    folder = save_small_collection(tmp_path / "gone")
    index = embed_collection(
        load_collection(f"beir:{folder}"), made.encoder, out=tmp_path / "ix-gone"
    )
    for file in folder.glob("*.jsonl"):
        file.unlink()
    live = open_live(index)
    assert not live.has_texts
    put(live, [Document("new", "", "heart")])
    assert live.doc("new") == Document("new", "", "heart")
    assert live.doc("d3") == Document("d3")
    with pytest.raises(ConfigError, match="--data"):
        live.texts()


def test_ten_thousand_puts_and_a_log_that_is_compacted(made: Made, open_live: Open) -> None:
    """Replay must be as fast as loading, and a document put often must not fill the disk."""
    live = open_live()
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((10_000, 32)).astype(np.float32)
    live._log._sync = lambda: None  # type: ignore[union-attr]
    for number in range(10_000):
        doc = Document(f"new{number % 3000}", "", f"text {number}")
        live.put([doc], vectors[number : number + 1])
    assert len(live) == DOCS + 3000
    assert live.version == 10_000
    assert live.deleted_rows == 7000
    path = live._log.path  # type: ignore[union-attr]
    size = path.stat().st_size
    live = open_live()
    assert path.stat().st_size < size / 3
    for number in (9999, 9000, 7000):
        id = f"new{number % 3000}"
        np.testing.assert_array_equal(live.vector(id), vectors[number])
        assert live.doc(id) == Document(id, "", f"text {number}")
    assert len(live) == DOCS + 3000
    assert json.dumps(live.search(vectors[:1], 3)[0])
