"""`/rerank`: the numbers of the cross-encoder, in the form of Cohere and Jina."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from fakes.language_models import texts
from fakes.serving import Folders, Running, running

from retrodistill.base.config import ServeSettings
from retrodistill.stages.serving.engines import CHUNK

QUERY = "effect of vitamin on asthma"
DOCS = texts(45, words=30)


@pytest.fixture(scope="module")
def server(folders: Folders) -> Iterator[Running]:
    spec = f"cross-encoder:{folders.reranker}"
    with running(ServeSettings(reranker=spec, precision="float32")) as server:
        yield server


@pytest.fixture(scope="module")
def logits(folders: Folders) -> Any:
    """Scores of sentence-transformers' CrossEncoder, before any activation."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folders.reranker), device="cpu", max_length=256)
    pairs = [(QUERY, doc) for doc in DOCS]
    return model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)


def scores(answer: Any, count: int) -> Any:
    """Return the scores in the order of the documents; the answer is best first."""
    found = [result["relevance_score"] for result in answer["results"]]
    assert found == sorted(found, reverse=True)
    row = np.full(count, np.nan)
    for result in answer["results"]:
        row[result["index"]] = result["relevance_score"]
    return row


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_scores_are_those_of_the_cross_encoder(server: Running, logits: Any, path: str) -> None:
    """A sigmoid twice, or none: thresholds that people have set are off."""
    answer = server.ask(path, query=QUERY, documents=DOCS)
    np.testing.assert_allclose(scores(answer, 45), 1 / (1 + np.exp(-logits)), atol=1e-5)
    raw = server.ask(path, query=QUERY, documents=DOCS, raw_scores=True)
    np.testing.assert_allclose(scores(raw, 45), logits, atol=1e-4)
    assert answer["model"] == "reranker"
    assert answer["id"] != raw["id"]
    assert answer["usage"]["total_tokens"] > 45
    assert "document" not in answer["results"][0]


def test_a_score_does_not_depend_on_the_others(server: Running) -> None:
    """Min-max over a request: the best of bad documents gets 1, and one alone gets anything."""
    together = scores(server.ask("/rerank", query=QUERY, documents=DOCS), 45)
    for position in (0, 17, 44):
        alone = server.ask("/rerank", query=QUERY, documents=[DOCS[position]])
        assert scores(alone, 1)[0] == pytest.approx(together[position], abs=1e-5)


def test_the_best_few_with_their_texts(server: Running) -> None:
    """`index` that counts the answers, not the documents that were sent."""
    whole = server.ask("/rerank", query=QUERY, documents=DOCS)["results"]
    sent = [{"text": doc} if row % 2 else doc for row, doc in enumerate(DOCS)]
    best = server.ask("/rerank", query=QUERY, documents=sent, top_n=3, return_documents=True)
    assert [row["index"] for row in best["results"]] == [row["index"] for row in whole[:3]]
    for row in best["results"]:
        assert row["document"] == {"text": DOCS[row["index"]]}
    many = server.ask("/rerank", query=QUERY, documents=DOCS, top_n=99)
    assert len(many["results"]) == 45


def test_documents_are_cut_where_the_client_says(server: Running) -> None:
    """A limit that is ignored: the score of a text that the client did not want read."""
    head = "asthma insulin "
    cut = server.ask("/rerank", query=QUERY, documents=[head + DOCS[0]], max_tokens_per_doc=2)
    plain = server.ask("/rerank", query=QUERY, documents=[head.strip()])
    assert scores(cut, 1)[0] == pytest.approx(scores(plain, 1)[0], abs=1e-6)


def test_many_clients_get_their_own(server: Running, logits: Any) -> None:
    """Parts of long lists that change places in a common batch."""
    chances = 1 / (1 + np.exp(-logits))

    def ask(start: int) -> bool:
        chosen = np.roll(np.arange(45), start)[: 1 + 11 * start % 45]
        answer = server.ask("/rerank", query=QUERY, documents=[DOCS[row] for row in chosen])
        return bool(np.allclose(scores(answer, len(chosen)), chances[chosen], atol=1e-5))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(32)))


def test_nan_says_which_document(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN sorts anywhere, and JSON has none: `null` as the relevance of the best document."""
    teacher = server.app.state.service._served.reranker.engine.teacher
    score = type(teacher).score

    def broken(self: Any, pairs: Any) -> Any:
        values = score(self, pairs).copy()
        values[[doc.text == "poison" for doc in pairs.docs]] = np.nan
        return values

    monkeypatch.setattr(type(teacher), "score", broken)
    position = CHUNK + 5
    documents = [*DOCS[:position], "poison", *DOCS[position:]]
    error = server.refused("POST", "/rerank", 500, json={"query": QUERY, "documents": documents})
    assert error["message"] == f"document {position}: the reranker gave NaN or infinity."
    assert error["param"] == "documents"


def test_another_model_is_unknown(server: Running) -> None:
    """A client that believes that it was reranked by what it named."""
    body = {"model": "rerank-v3.5", "query": QUERY, "documents": DOCS}
    error = server.refused("POST", "/rerank", 404, json=body)
    assert error["code"] == "model_not_found"
    assert "Served: reranker" in error["message"]
    assert server.ask("/rerank", model="reranker", query=QUERY, documents=DOCS)["results"]
