"""Requests that nobody would think of, made from the server's own description of itself."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fakes.serving import KEY, Folders, Running, running
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from retrodistill.base.config import ServeSettings

schemathesis = pytest.importorskip("schemathesis")

UNREADABLE = b"Invalid HTTP request received."
"""uvicorn's answer to what is not HTTP, such as too long a path."""

OPERATIONS = (
    ("/v1/embeddings", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/rerank", "POST"),
    ("/search", "POST"),
    ("/similar/{id}", "GET"),
    ("/indexes", "GET"),
    ("/documents/{id}", "GET"),
    ("/documents", "PUT"),
    ("/documents", "DELETE"),
    ("/reload", "POST"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
)


@pytest.fixture(scope="module")
def server(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    changes: Path = tmp_path_factory.mktemp("changes")
    config = ServeSettings(
        index=(f"main={folders.main}", f"sparse={folders.sparse}"),
        reranker=f"cross-encoder:{folders.reranker}",
        changes=changes,
        precision="float32",
    )
    with running(config, keys=[KEY]) as server:
        yield server


def test_every_operation_is_tried(server: Running) -> None:
    """A new operation would otherwise pass by not being here."""
    paths = server.client.get("/openapi.json").json()["paths"]
    described = {(path, method.upper()) for path, own in paths.items() for method in own}
    assert described == {*OPERATIONS}


def fuzzed(server: Running, path: str, method: str, examples: int) -> None:
    """Send what fits the description and what does not; none of it may be a server's fault."""
    schema = schemathesis.openapi.from_dict(server.client.get("/openapi.json").json())
    schema.config.update(base_url=server.url)
    operation = schema[path][method]

    def check(case: Any) -> None:
        response = case.call(headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        assert response.status_code < 500, (case.body, response.content[:500])
        if response.status_code >= 400 and response.content != UNREADABLE:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    for mode in modes:
        strategy = operation.as_strategy(generation_mode=mode)
        run = settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(case=strategy)(check))
        with suppress(Unsatisfiable):  # nothing can be wrong with what takes nothing
            run()


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_request_is_a_fault_of_the_server(server: Running, path: str, method: str) -> None:
    """A traceback for a client's odd request: it hides the true faults, and tells attackers."""
    fuzzed(server, path, method, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_request_of_many_is(server: Running, path: str, method: str) -> None:
    """As above, further away from what is usual."""
    fuzzed(server, path, method, 300)
