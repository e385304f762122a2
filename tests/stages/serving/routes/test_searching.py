"""`/search`, `/similar`, `/documents` and `/indexes`: what the library finds, over HTTP."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from fakes.serving import Folders, Running, running

from retrodistill.base.config import ServeSettings
from retrodistill.base.types import Doc, Pairs
from retrodistill.data.datasets import load_collection
from retrodistill.data.rankings.sets import evaluate_sets
from retrodistill.models.teachers import load_teacher
from retrodistill.stages.searching import Hit, Searcher

NAMES = ("main", "cut", "parts", "pair", "sparse", "late")
QUERIES = ["asthma insulin", "vitamin risk in women", "brain stress and sleep"]


@pytest.fixture(scope="module")
def server(folders: Folders) -> Iterator[Running]:
    settings = ServeSettings(
        index=tuple(f"{name}={getattr(folders, name)}" for name in NAMES),
        reranker=f"cross-encoder:{folders.reranker}",
        precision="float32",
    )
    with running(settings) as server:
        yield server


@pytest.fixture(scope="module")
def searcher(folders: Folders) -> Any:
    return cache(lambda name: Searcher.open(getattr(folders, name), precision="float32"))


def same(found: Sequence[dict[str, Any]], hits: Sequence[Hit]) -> None:
    """Assert that hits of the server are those of the library, with their texts."""
    assert [hit["id"] for hit in found] == [hit.doc_id for hit in hits]
    assert [hit["title"] for hit in found] == [hit.title for hit in hits]
    assert [hit["text"] for hit in found] == [hit.text for hit in hits]
    scores = [hit.score for hit in hits]
    np.testing.assert_allclose([hit["score"] for hit in found], scores, rtol=1e-4, atol=1e-5)


def ids(answer: Any) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


@pytest.mark.parametrize("name", NAMES)
def test_hits_are_those_of_the_library(server: Running, searcher: Any, name: str) -> None:
    """A query read with the documents' prompt, or vectors that were not cut as the index's."""
    answer = server.ask("/search", index=name, queries=QUERIES, k=7)
    assert answer["index"] == name
    expected = searcher(name).search_many(QUERIES, 7)
    for result, hits in zip(answer["results"], expected, strict=True):
        same(result["hits"], hits)
    single = server.ask("/search", index=name, query=QUERIES[1], k=7)
    assert ids(single) == ids(answer["results"][1])
    assert set(single["took_ms"]) >= {"total", "search"}
    assert answer["method"] == {"sparse": "sparse", "late": "late-interaction"}.get(name, "dense")


def test_many_clients_with_other_depths_and_conditions(server: Running, searcher: Any) -> None:
    """Searches that share a batch, and with it a condition or a number of hits."""
    conditions = [None, "year >= 2005", "lang = 'en'", "year < 2003 or lang = 'de'"]

    def ask(turn: int) -> None:
        query, k, where = QUERIES[turn % 3], 1 + turn % 5, conditions[turn % 4]
        answer = server.ask("/search", query=query, k=k, where=where)
        same(answer["hits"], searcher("main").search(query, k, where=where))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(60)))


@pytest.mark.parametrize("method", ["dense", "bm25", "hybrid"])
def test_a_condition_holds_for_every_method(server: Running, method: str) -> None:
    """A filter that one method forgets, and that the other then fuses in again."""
    where = "year >= 2004 and lang = 'en'"
    fields = ["year", "lang"]
    answer = server.ask(
        "/search", query="vitamin insulin brain risk", where=where, method=method, fields=fields
    )
    assert answer["hits"]
    for hit in answer["hits"]:
        assert hit["fields"]["year"] >= 2004
        assert hit["fields"]["lang"] == "en"
    without = server.ask("/search", query="vitamin insulin brain risk", method=method)
    assert "fields" not in without["hits"][0]
    assert ids(without) != ids(answer)


def test_bm25_is_the_retriever_of_the_library(server: Running, folders: Folders) -> None:
    """A second BM25 with other words or weights than the one that was measured."""
    collection = load_collection(f"beir:{folders.data}")
    teacher = load_teacher("bm25", collection)
    documents = [Doc(doc.id, doc.title, doc.text) for doc in collection.docs]
    for query in QUERIES:
        scores = teacher.score(Pairs.of([Doc("q", "", query)] * len(documents), documents))
        order = [row for row in np.argsort(-scores, kind="stable") if scores[row] > 0][:10]
        hits = server.ask("/search", query=query, method="bm25")["hits"]
        np.testing.assert_allclose([hit["score"] for hit in hits], scores[order], rtol=1e-5)
        by_id = {doc.id: score for doc, score in zip(documents, scores, strict=True)}
        for hit in hits:
            assert hit["score"] == pytest.approx(by_id[hit["id"]], rel=1e-5)


def test_hybrid_is_reciprocal_rank_fusion(server: Running) -> None:
    """Scores of two scales that are added up, or ranks that count from 0."""
    for query in QUERIES:
        sums: dict[str, float] = {}
        for method in ("dense", "bm25"):
            listed = ids(server.ask("/search", query=query, method=method, k=100))
            for rank, name in enumerate(listed, start=1):
                sums[name] = sums.get(name, 0) + 1 / (60 + rank)
        hits = server.ask("/search", query=query, method="hybrid", k=5)["hits"]
        np.testing.assert_allclose(
            [hit["score"] for hit in hits], sorted(sums.values(), reverse=True)[:5], rtol=1e-5
        )
        assert all(hit["score"] == pytest.approx(sums[hit["id"]], rel=1e-5) for hit in hits)


def test_students_without_dense_vectors_are_fused_too(server: Running) -> None:
    """`hybrid` that silently is one of the two."""
    for name in ("sparse", "late"):
        own = ids(server.ask("/search", index=name, query=QUERIES[0], k=60))
        lexical = ids(server.ask("/search", index=name, query=QUERIES[0], k=60, method="bm25"))
        both = ids(server.ask("/search", index=name, query=QUERIES[0], k=60, method="hybrid"))
        assert set(both) == {*own, *lexical}
        assert both not in (own, lexical)


@pytest.mark.parametrize("query", ["vitamin AND asthma", "vitamin NOT lung", "(a OR salt) AND egg"])
def test_sets_are_those_of_the_library(server: Running, searcher: Any, query: str) -> None:
    """Operators that the model reads as words."""
    answer = server.ask("/search", query=query, sets=True, k=5)
    same(answer["hits"], searcher("main").search_sets(query, 5))
    assert ids(answer) != ids(server.ask("/search", query=query, k=5))
    filtered = server.ask("/search", query=query, sets=True, k=5, where="year > 2004")
    same(filtered["hits"], searcher("main").search_sets(query, 5, where="year > 2004"))


def test_sets_of_bm25(server: Running) -> None:
    """`method` that sets forget."""

    def scored(parts: list[str], depth: int) -> list[dict[str, float]]:
        answers = [server.ask("/search", query=part, method="bm25", k=depth) for part in parts]
        return [{hit["id"]: hit["score"] for hit in answer["hits"]} for answer in answers]

    expected = evaluate_sets("vitamin OR insulin", scored, 5)
    answer = server.ask("/search", query="vitamin OR insulin", sets=True, method="bm25", k=5)
    assert [(hit["id"], hit["score"]) for hit in answer["hits"]] == [
        (name, pytest.approx(score, rel=1e-5)) for name, score in expected
    ]


@pytest.mark.parametrize("method", ["dense", "bm25", "hybrid"])
def test_each_document_once(server: Running, searcher: Any, method: str) -> None:
    """Ten passages of one long document, in place of ten documents."""
    answer = server.ask(
        "/search", index="parts", query=QUERIES[0], by_document=True, k=12, method=method
    )
    documents = [name.partition("#")[0] for name in ids(answer)]
    assert len(set(documents)) == len(documents)
    if method == "dense":
        hits = searcher("parts").search(QUERIES[0], 12, by_document=True)
        same(answer["hits"], hits)
    plain = ids(server.ask("/search", index="parts", query=QUERIES[0], k=12, method=method))
    assert len({name.partition("#")[0] for name in plain}) < len(plain)


def test_the_reranker_orders_the_first_hits(server: Running) -> None:
    """A second stage that is asked about as many documents as are shown, and finds no other."""
    first = server.ask("/search", query=QUERIES[0], k=20)["hits"]
    texts = [f"{hit['title']} {hit['text']}" for hit in first]
    ranked = server.ask("/rerank", query=QUERIES[0], documents=texts, raw_scores=True)["results"]
    answer = server.ask("/search", query=QUERIES[0], k=3, rerank=20)
    assert ids(answer) == [first[row["index"]]["id"] for row in ranked[:3]]
    np.testing.assert_allclose(
        [hit["score"] for hit in answer["hits"]],
        [row["relevance_score"] for row in ranked[:3]],
        rtol=1e-4,
    )
    assert answer["took_ms"]["rerank"] > 0
    many = server.ask("/search", queries=QUERIES, k=3, rerank=20)["results"]
    assert ids(many[0]) == ids(answer)
    assert len(server.ask("/search", query=QUERIES[0], k=10, rerank=2)["hits"]) == 10
    assert ids(server.ask("/search", index="sparse", query=QUERIES[0], rerank=True, k=3))


def test_vectors_in_place_of_words(server: Running) -> None:
    """A vector that is normalised, or cut, once more on its way."""
    for name in ("main", "cut", "pair"):
        size = 16 if name == "cut" else 32
        body = {"model": f"{name}:query", "input": QUERIES, "dimensions": size}
        if name == "pair":
            del body["dimensions"]
        rows = [row["embedding"] for row in server.ask("/v1/embeddings", **body)["data"]]
        by_vectors = server.ask("/search", index=name, vectors=rows)["results"]
        by_words = server.ask("/search", index=name, queries=QUERIES)["results"]
        assert [ids(result) for result in by_vectors] == [ids(result) for result in by_words]
        alone = server.ask("/search", index=name, vector=rows[0], where=None)
        assert ids(alone) == ids(by_words[0])


def test_similar_documents_lack_the_document_itself(server: Running, searcher: Any) -> None:
    """A document that is most similar to itself; one that is read as a query."""
    own = searcher("main")
    doc = own.docs.get("d7")
    vector = own.encoder.encode_docs([doc.full_text])
    expected, scores = own.index.search(vector, 6)
    hits = server.client.get("/similar/d7", params={"k": 5}).json()["hits"]
    assert [hit["id"] for hit in hits] == [name for name in expected[0] if name != "d7"][:5]
    np.testing.assert_allclose([hit["score"] for hit in hits], scores[0][1:6], atol=1e-3)
    filtered = server.client.get("/similar/d7", params={"where": "year = 2001"}).json()
    assert len(filtered["hits"]) == 6
    passages = server.client.get("/similar/d3%230", params={"index": "parts"}).json()
    assert "d3#0" not in ids(passages)
    assert len(passages["hits"]) == 10


def test_a_document_with_its_fields(server: Running, searcher: Any) -> None:
    """Fields of another row."""
    doc = searcher("main").docs.get("d13")
    assert server.client.get("/documents/d13").json() == {
        "id": "d13",
        "title": doc.title,
        "text": doc.text,
        "fields": {"year": 2003, "lang": "de"},
    }
    assert server.client.get("/documents/d3%231?index=parts").json()["id"] == "d3#1"
    assert server.client.get("/documents/d13?index=sparse").json()["fields"] == {}
    server.refused("GET", "/documents/d99", 404)
    server.refused("GET", "/documents/d99?index=sparse", 404)


def test_indexes_say_what_can_be_asked(server: Running) -> None:
    """Filters of a page that are made up, or methods that answer 400."""
    answer = server.client.get("/indexes").json()
    assert answer["default"] == "main"
    assert answer["key_needed"] is False
    entries = {entry["name"]: entry for entry in answer["indexes"]}
    assert tuple(entries) == NAMES
    main = entries["main"]
    assert (main["kind"], main["documents"], main["dimension"]) == ("flat", 60, 32)
    assert main["attributes"]["lang"] == {
        "type": "str",
        "values": [{"value": "de", "documents": 40}, {"value": "en", "documents": 20}],
        "distinct": 2,
    }
    assert (main["attributes"]["year"]["least"], main["attributes"]["year"]["greatest"]) == (
        2000,
        2009,
    )
    assert len(main["examples"]) == 5
    assert main["reranker"] is True
    assert entries["cut"]["dimension"] == 16
    assert entries["sparse"]["dimension"] is None
    assert entries["parts"]["examples"] != main["examples"]
    for name, entry in entries.items():
        for method in entry["methods"]:
            assert server.ask("/search", index=name, query="asthma", method=method)["hits"]


def test_without_texts_there_are_ids_and_scores(
    folders: Folders, tmp_path: Any, searcher: Any
) -> None:
    """An index whose collection has moved: 500, or BM25 over nothing."""
    import shutil

    data = shutil.copytree(folders.data, tmp_path / "moved")
    index = folders.embedded(tmp_path / "bare", folders.model, data)
    shutil.rmtree(data)
    settings = ServeSettings(index=(str(index),), precision="float32")
    with running(settings) as server:
        hits = server.ask("/search", query=QUERIES[0])["hits"]
        assert [hit["id"] for hit in hits] == [
            hit.doc_id for hit in searcher("main").search(QUERIES[0])
        ]
        assert {hit["text"] for hit in hits} == {""}
        body = {"query": "a", "method": "bm25"}
        assert "--data" in server.refused("POST", "/search", 400, json=body)["message"]
        entry = server.client.get("/indexes").json()["indexes"][0]
        assert entry["methods"] == ["dense"]
        assert entry["examples"] == []
        assert server.client.get("/similar/d1").json()["hits"]
    fitting = ServeSettings(index=(str(index),), data=f"beir:{folders.data}", precision="float32")
    with running(fitting) as server:
        assert server.ask("/search", query=QUERIES[0], method="hybrid")["hits"][0]["text"]
