"""`/v1/embeddings`: what OpenAI's clients expect, and the vectors of sentence-transformers."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from fakes.language_models import texts
from fakes.serving import KEY, PROMPTS, Folders, Running, running
from sentence_transformers import SentenceTransformer

from retrodistill.base.config import ServeSettings

TEXTS = [*texts(40, words=60), "asthma", "Straße 😀 İ ﷺ", "a\x00b", "the same", "the same"]
SIDES = ("query", "document")


@pytest.fixture(scope="module")
def server(folders: Folders) -> Iterator[Running]:
    settings = ServeSettings(
        index=(f"main={folders.main}", f"cut={folders.cut}", f"pair={folders.pair}"),
        model=(f"plain={folders.model}",),
        reranker=f"cross-encoder:{folders.reranker}",
        precision="float32",
        request_tokens=20_000,
    )
    with running(settings, keys=[KEY]) as server:
        yield server


loaded = cache(SentenceTransformer)


def wanted(folder: Any, side: str, given: list[str], size: int | None = None) -> Any:
    """Return what sentence-transformers makes of texts."""
    model = loaded(str(folder), device="cpu", truncate_dim=size)
    encode = model.encode_query if side == "query" else model.encode_document
    return encode(given, show_progress_bar=False)


def vectors(answer: Any) -> Any:
    assert [entry["index"] for entry in answer["data"]] == list(range(len(answer["data"])))
    return np.array([entry["embedding"] for entry in answer["data"]], np.float32)


def cosines(some: Any, others: Any) -> Any:
    lengths = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    return (some * others).sum(axis=1) / lengths


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ["main", "pair", "plain"])
def test_vectors_of_many_clients_are_those_of_sentence_transformers(
    server: Running, folders: Folders, name: str, side: str
) -> None:
    """The documents' prompt, or tower, for queries: no error, only worse hits."""
    folder = folders.towers if name == "pair" else folders.model
    expected = wanted(folder, side, TEXTS)
    other = wanted(folder, "query" if side == "document" else "document", TEXTS)
    assert cosines(expected, other).min() < 0.999  # the sides can be told apart

    def ask(start: int) -> Any:
        chosen = [(start + step) % len(TEXTS) for step in range(1 + start % 9)]
        given = [TEXTS[row] for row in chosen]
        return chosen, vectors(
            server.ask("/v1/embeddings", model=name, input=given, input_type=side)
        )

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(64)))
    for chosen, found in answers:
        assert cosines(found, expected[chosen]).min() >= 0.99999
        np.testing.assert_allclose(found, expected[chosen], atol=1e-4)


@pytest.mark.parametrize("size", [16, 8])
@pytest.mark.parametrize("side", SIDES)
def test_matryoshka_sizes_are_those_of_sentence_transformers(
    server: Running, folders: Folders, size: int, side: str
) -> None:
    """Cut vectors that are not of length 1 again: inner products that are no cosines."""
    expected = wanted(folders.model, side, TEXTS, size)
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    answer = server.ask(
        "/v1/embeddings", model="main", input=TEXTS, dimensions=size, input_type=side
    )
    found = vectors(answer)
    assert found.shape == (len(TEXTS), size)
    np.testing.assert_allclose(found, expected / lengths, atol=1e-5)


def test_the_native_size_is_always_accepted(server: Running) -> None:
    """Clients that name the size that they know the model to have."""
    for name in ("main", "pair", "plain"):
        answer = server.ask("/v1/embeddings", model=name, input="asthma", dimensions=32)
        assert vectors(answer).shape == (1, 32)
    error = server.refused(
        "POST", "/v1/embeddings", 400, json={"model": "pair", "input": "a", "dimensions": 16}
    )
    assert error["message"].endswith("has: 32.")


def test_an_index_of_cut_vectors_offers_its_size(server: Running, folders: Folders) -> None:
    """Vectors of the server that do not fit the server's own index."""
    vector = server.ask("/v1/embeddings", model="cut:query", input="asthma insulin", dimensions=16)[
        "data"
    ][0]["embedding"]
    by_vector = server.ask("/search", index="cut", vector=vector)
    by_text = server.ask("/search", index="cut", query="asthma insulin")
    assert [hit["id"] for hit in by_vector["hits"]] == [hit["id"] for hit in by_text["hits"]]


def test_base64_holds_the_same_numbers(server: Running) -> None:
    """Float64 or big-endian bytes, which decode to as many wrong numbers."""
    floats = server.ask("/v1/embeddings", input=TEXTS, encoding_format="float")
    packed = server.ask("/v1/embeddings", input=TEXTS, encoding_format="base64")
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in packed["data"]]
    np.testing.assert_array_equal(np.stack(rows), vectors(floats))


def test_usage_is_what_the_model_read(server: Running, folders: Folders) -> None:
    """Words times 1.3, or texts without their prompts: bills and budgets that are guesses."""
    model = SentenceTransformer(str(folders.model), device="cpu")
    for side in SIDES:
        given = [PROMPTS[side] + text for text in TEXTS]
        rows = model.tokenizer(given, truncation=True, max_length=40)["input_ids"]
        usage = server.ask("/v1/embeddings", input=TEXTS, input_type=side)["usage"]
        total = sum(map(len, rows))
        assert usage == {"prompt_tokens": total, "total_tokens": total}


def test_the_side_is_the_documents_unless_it_is_said(server: Running) -> None:
    """A name that means one side, for clients that cannot send `input_type`."""

    def vector(**body: Any) -> Any:
        return vectors(server.ask("/v1/embeddings", input="asthma", **body))[0].tolist()

    document = vector(model="main")
    query = vector(model="main", input_type="query")
    assert query != document
    assert vector() == vector(model="main:document") == document
    assert vector(model="main:query") == vector(model="main:query", input_type="query") == query


def test_a_long_text_is_cut_or_refused(server: Running) -> None:
    """A text that is cut though the client said that it must not be."""
    long = "asthma " * 100
    assert server.ask("/v1/embeddings", input=long)["usage"]["total_tokens"] == 40
    body = {"input": ["short", long], "truncate": False}
    error = server.refused("POST", "/v1/embeddings", 400, json=body)
    assert error["code"] == "context_length_exceeded"
    assert "input 1 has " in error["message"]
    exact = server.ask("/v1/embeddings", input="asthma insulin", truncate=False)
    assert exact["data"] == server.ask("/v1/embeddings", input="asthma insulin")["data"]


def test_a_request_has_a_budget_of_tokens(server: Running) -> None:
    """One request that keeps the model busy for minutes."""
    body = {"input": ["asthma " * 60] * 501}
    error = server.refused("POST", "/v1/embeddings", 400, json=body)
    assert error["code"] == "too_many_tokens"
    assert "20,040 tokens" in error["message"]
    assert len(server.ask("/v1/embeddings", input=["asthma " * 60] * 500)["data"]) == 500
    assert len(server.ask("/v1/embeddings", input=["x" * 101] * 600)["data"]) == 600  # [UNK]


def test_models_are_listed_and_looked_up(server: Running) -> None:
    """Clients that ask for the list first, and for one by the id of the list."""
    listed = server.client.get("/v1/models").json()
    assert listed["object"] == "list"
    kinds = {entry["id"]: entry["kind"] for entry in listed["data"]}
    assert kinds == {
        "main": "embedding",
        "cut": "embedding",
        "pair": "embedding",
        "plain": "embedding",
        "reranker": "reranker",
    }
    for entry in listed["data"]:
        assert entry["object"] == "model"
        assert entry["owned_by"] == "retrodistill"
        assert isinstance(entry["created"], int)
        assert server.client.get(f"/v1/models/{entry['id']}").json() == entry
    main = listed["data"][0]
    assert (main["dimension"], main["max_tokens"]) == (32, 40)
    assert main["dimensions"] == [32, 16, 8]
