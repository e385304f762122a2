"""What a server refuses, and how it says so: one form, the right status, never a traceback."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from fakes.serving import KEY, Folders, Running, error_of, running

from retrodistill.base.config import ServeSettings

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(folders: Folders) -> Iterator[Running]:
    settings = ServeSettings(
        index=(f"main={folders.main}", f"sparse={folders.sparse}"),
        reranker=f"cross-encoder:{folders.reranker}",
        body="200KB",
        precision="float32",
    )
    with running(settings, keys=[KEY, "another-key-of-length"]) as server:
        yield server


BAD: list[tuple[str, str, str | None, str]] = [
    ("/v1/embeddings", '{"input": "a\\ud800"}', "input", "surrogate"),
    ("/v1/embeddings", '{"input": ["fine", "a\\udfff"]}', "input", "surrogate"),
    ("/v1/embeddings", '{"input": [null]}', "input", "a text or a list of texts"),
    ("/v1/embeddings", '{"input": NaN}', "input", "a text or a list of texts"),
    ("/v1/embeddings", '{"input": {}}', "input", "a text or a list of texts"),
    ("/v1/embeddings", '{"input": []}', "input", "is empty"),
    ("/v1/embeddings", '{"input": ["a", " \\n"]}', "input", "input 1 is an empty text"),
    ("/v1/embeddings", '{"input": [1, 2]}', "input", "token ids"),
    ("/v1/embeddings", '{"input": [[1, 2], [3]]}', "input", "check_embedding_ctx_length=False"),
    ("/v1/embeddings", f'{{"input": [{10**30}]}}', "input", "token ids"),
    ("/v1/embeddings", '{"input": "a", "dimensions": 9}', "dimensions", "32, 16, 8"),
    ("/v1/embeddings", f'{{"input": "a", "dimensions": {10**30}}}', "dimensions", "not offered"),
    ("/v1/embeddings", '{"input": "a", "dimensions": 1e999}', "dimensions", "finite"),
    ("/v1/embeddings", f'{{"input": "a", "dimensions": {"9" * 5000}}}', None, "body"),
    ("/v1/embeddings", '{"input": "a", "input_type": "passage"}', "input_type", "'query'"),
    ("/v1/embeddings", '{"input": "a", "encoding_format": "hex"}', "encoding_format", "base64"),
    ("/v1/embeddings", '{"model": "main:query", "input": "a", "input_type": "document"}',
     "input_type", "disagree"),
    ("/v1/embeddings", "{}", "input", "required"),
    ("/v1/embeddings", "[]", None, "dictionary"),
    ("/v1/embeddings", "", None, "required"),
    ("/v1/embeddings", '{"input": "a",}', None, "is not JSON"),
    ("/v1/embeddings", "[" * 90_000, None, "body"),
    ("/v1/embeddings", "\\xff", None, "is not JSON"),
    ("/rerank", '{"query": "a\\ud800", "documents": ["x"]}', "query", "unicode"),
    ("/rerank", '{"query": "a", "documents": ["x", "\\ud800"]}', "documents.1", "surrogate"),
    ("/rerank", '{"query": "a", "documents": [{"text": "\\ud800"}]}', "documents.0", "surrogate"),
    ("/rerank", '{"query": "a", "documents": [null]}', "documents.0", "a text"),
    ("/rerank", '{"query": "a", "documents": []}', "documents", "at least 1"),
    ("/rerank", '{"query": " ", "documents": ["x"]}', "query", "empty"),
    ("/rerank", '{"query": "a", "documents": ["x"], "top_n": 0}', "top_n", "greater"),
    ("/search", '{"query": "a\\ud800"}', "query", "surrogate"),
    ("/search", '{"query": "a", "\\ud800": 1}', None, "unicode"),
    ("/search", '{"query": "a", "limit": 3}', "limit", "Extra inputs"),
    ("/search", '{"query": ""}', "query", "empty"),
    ("/search", '{"queries": ["a", " "]}', "queries", "query 1 is empty"),
    ("/search", "{}", "query", "one of query, queries, vector and vectors"),
    ("/search", '{"query": "a", "vector": [1]}', "query", "one of query"),
    ("/search", '{"query": "a", "k": 0}', "k", "greater"),
    ("/search", '{"query": "a", "k": 1001}', "k", "1000"),
    ("/search", '{"query": "a", "k": NaN}', "k", "finite"),
    ("/search", '{"query": "a", "rerank": 1001}', "rerank", "from 1 to 1,000"),
    ("/search", '{"vector": [1, 2]}', "vector", "has 2 dimensions, but main has 32"),
    ("/search", f'{{"vector": [{", ".join(["NaN"] * 32)}]}}', "vector", "beyond float32"),
    ("/search", f'{{"vector": [{", ".join(["1e300"] * 32)}]}}', "vector", "beyond float32"),
    ("/search", f'{{"vectors": [[{", ".join(["1"] * 32)}], [1]]}}', "vectors", "vector 1 has 1"),
    ("/search", '{"vector": [1], "rerank": true}', "vector", "words of a query"),
    ("/search", '{"vector": [1], "index": "sparse"}', "vector", "no dense vectors"),
    ("/search", '{"query": "a", "method": "bm52"}', "method", "dense, bm25, hybrid"),
    ("/search", '{"query": "a", "method": "\\ud800"}', "method", "unknown method"),
    ("/search", '{"query": "a", "fields": ["yeer"]}', "fields", "year, lang"),
    ("/search", '{"query": "a", "where": "yeer = 3"}', "where", "year"),
    ("/search", '{"query": "a", "where": "year >"}', "where", "year"),
    ("/search", json.dumps({"query": "a", "where": "(" * 5000}), "where", "nested more than 20"),
    ("/search", json.dumps({"query": "a", "where": "not " * 2500 + "year=1"}), "where", "10000"),
    ("/search", '{"query": "a", "where": "year = 1", "index": "sparse"}', "where", "where"),
    ("/search", '{"query": "x AND", "sets": true}', None, "is not understood"),
    ("/search", json.dumps({"query": "(a AND " * 300, "sets": True}), None, "brackets"),
    ("/search", '{"query": "a", "sets": true, "by_document": true}', "by_document", "sets"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param", "message"), BAD, ids=range(len(BAD)))
def test_a_mistake_is_400_and_says_what_it_is(
    server: Running, path: str, body: str, param: str | None, message: str
) -> None:
    """A 500 for somebody's typo: it wakes people up, and tells the client nothing."""
    error = server.refused("POST", path, 400, content=body, headers=JSON)
    assert error["param"] == param
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/nowhere", 404, "there is no /nowhere"),
        ("PUT", "/healthz", 405, "PUT is not for /healthz"),
        ("GET", "/search", 405, "GET is not for /search"),
        ("GET", "/documents/none", 404, "main has no document 'none'"),
        ("GET", "/documents/%ff%00", 404, "main has no document"),
        ("GET", "/documents/d1?index=mian", 404, "Did you mean 'main'?"),
        ("GET", "/similar/none", 404, "main has no document 'none'"),
        ("GET", "/similar/d1?k=0", 400, "k: "),
        ("GET", "/similar/d1?where=%ff", 400, "column 1"),
        ("GET", "/similar/d1?index=sparse", 400, "no dense vectors"),
        ("GET", "/v1/models/mian", 404, "Served: main"),
        ("DELETE", "/documents", 400, "required"),
    ],
)
def test_other_paths_and_names(
    server: Running, method: str, path: str, status: int, message: str
) -> None:
    """HTML, or FastAPI's own `detail`, which OpenAI's clients show as `None`."""
    assert message in server.refused(method, path, status)["message"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/search", "/rerank"])
def test_an_unknown_model_or_index_lists_what_is_served(server: Running, path: str) -> None:
    """`model_not_found` without a name to take instead."""
    body = {"model": "mian", "index": "mian", "input": "a", "query": "a", "documents": ["a"]}
    wanted = {"/v1/embeddings": ("model", "input"), "/search": ("index", "query")}
    names = wanted.get(path, ("model", "query", "documents"))
    error = server.refused("POST", path, 404, json={name: body[name] for name in names})
    assert error["code"] in ("model_not_found", "index_not_found")
    assert error["param"] in ("model", "index")
    assert "Served: " in error["message"]


def test_too_many_texts(server: Running) -> None:
    """A limit that is one off: OpenAI's clients send up to 2,048 at once."""
    error = server.refused("POST", "/v1/embeddings", 400, json={"input": ["a"] * 2049})
    assert "2,049 texts" in error["message"]
    assert len(server.ask("/v1/embeddings", input=["a"] * 2048)["data"]) == 2048


def test_a_body_beyond_the_limit_with_its_length(server: Running) -> None:
    """A server that reads what it will refuse."""
    error = server.refused("POST", "/v1/embeddings", 413, json={"input": "a" * 300_000})
    assert error["code"] == "body_too_large"
    assert server.ask("/v1/embeddings", input="a " * 80_000)["usage"]["total_tokens"] == 40


def test_a_body_beyond_the_limit_without_its_length(server: Running) -> None:
    """A limit that trusts a header, which a chunked body does not have."""

    def parts() -> Iterator[bytes]:
        yield b'{"input": "'
        for _ in range(30):
            yield b"a" * 10_000
        yield b'"}'

    error = server.refused("POST", "/v1/embeddings", 413, content=parts(), headers=JSON)
    assert error["code"] == "body_too_large"


def test_a_chunked_body_within_the_limit(server: Running) -> None:
    """A guard that reads the body and forgets to hand it on."""
    answer = server.client.post(
        "/v1/embeddings", content=iter([b'{"input"', b': "a"}']), headers=JSON
    )
    assert answer.status_code == 200


LOCKED = (
    ("POST", "/v1/embeddings"),
    ("GET", "/indexes"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("POST", "/reload"),
    ("GET", "/nowhere"),
)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": "Bearer \xff\xfe".encode("latin-1")},
        {"X-API-Key": "wrong"},
    ],
    ids=str,
)
def test_a_key_that_does_not_fit(server: Running, headers: dict[str, Any]) -> None:
    """A server that serves whoever asks, or says which half of a key was right."""
    client = server.client
    for method, path in LOCKED:
        request = client.build_request(method, path)
        del request.headers["Authorization"]
        request.headers.update(headers)
        answer = client.send(request)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        error = error_of(answer)
        assert error["type"] == "authentication_error"
        assert KEY not in error["message"]
    for path in ("/healthz", "/readyz", "/", "/docs", "/page/page.css"):
        request = client.build_request("GET", path)
        del request.headers["Authorization"]
        assert client.send(request).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"Authorization": "bearer another-key-of-length"},
        {"Authorization": f"Bearer  {KEY}"},
    ],
    ids=str,
)
def test_keys_that_fit(server: Running, headers: dict[str, str]) -> None:
    """A second key that never works, so that keys cannot be changed without a gap."""
    request = server.client.build_request("GET", "/indexes")
    del request.headers["Authorization"]
    request.headers.update(headers)
    assert server.client.send(request).json()["key_needed"] is True


def test_documents_cannot_be_changed_without_a_folder_for_changes(server: Running) -> None:
    """Documents that are acknowledged, and gone at the next start."""
    body = {"documents": [{"id": "new", "text": "a"}]}
    error = server.refused("PUT", "/documents", 403, json=body)
    assert error["code"] == "not_writable"
    assert "--changes" in error["message"]
    error = server.refused("DELETE", "/documents?index=sparse", 403, json={"ids": ["d1"]})
    assert error["type"] == "permission_error"


def test_a_reload_at_a_time(server: Running) -> None:
    """Two reloads that both open everything: twice the memory, and one of them is lost."""
    with server.app.state.service._reloading:
        error = server.refused("POST", "/reload", 409)
    assert error["code"] == "reloading"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_name_is_not_served_on_loopback(server: Running, host: str) -> None:
    """DNS rebinding: any web page reads a server that only this machine should reach."""
    error = server.refused("GET", "/healthz", 421, headers={"host": host})
    assert error["code"] == "wrong_host"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:80", "[::1]"]
)
def test_names_of_this_machine_are_served(server: Running, host: str) -> None:
    """A guard that refuses the machine itself behind a forwarded port."""
    assert server.client.get("/healthz", headers={"host": host}).status_code == 200


def test_what_is_no_http_ends_the_connection_alone(server: Running) -> None:
    """Rubbish on the port that ends the process."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as raw:
        raw.sendall(b"\x00\xff\x16\x03 rubbish\r\n\r\n")
        assert raw.recv(100).startswith((b"HTTP/1.1 400", b""))
    assert server.client.get("/healthz").status_code == 200


def test_documents_need_a_key_even_where_nothing_else_does(folders: Folders) -> None:
    """A server without keys that lets anybody delete its documents."""
    with running(ServeSettings(index=(f"main={folders.main}",))) as server:
        for method, path in (("PUT", "/documents"), ("DELETE", "/documents"), ("POST", "/reload")):
            error = server.refused(method, path, 401, json={})
            assert "The server has none" in error["message"]
        assert server.ask("/search", query="asthma")["hits"]
        assert (
            "reranker"
            in server.refused("POST", "/rerank", 404, json={"query": "a", "documents": ["a"]})[
                "message"
            ]
        )
        server.refused("POST", "/search", 404, json={"query": "a", "rerank": True})
