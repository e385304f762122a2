"""A server whose clients leave, whose models hang or die, and whose folders change."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fakes.serving import KEY, Folders, Running, error_of, running

from retrodistill.base.config import ServeSettings
from retrodistill.stages.serving import served
from retrodistill.stages.serving.batching import Batcher
from retrodistill.stages.serving.routes import health
from retrodistill.stages.serving.served import ServedIndex

SOON = 10.0


def served_index(server: Running, name: str = "main") -> ServedIndex:
    index: ServedIndex = server.app.state.service._served.indexes[name]
    return index


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@contextmanager
def held_up(batcher: Batcher[Any]) -> Iterator[list[Any]]:
    """Let a model hang in the block; yield the batches that it was given, as they come."""
    engine = batcher._engine
    run, gate, batches = engine.run, threading.Event(), []

    def waiting(key: Any, batch: Any) -> Any:
        batches.append(batch)
        gate.wait(60)
        return run(key, batch)

    engine.run = waiting  # type: ignore[method-assign]
    try:
        yield batches
    finally:
        engine.run = run  # type: ignore[method-assign]
        gate.set()


def held(server: Running) -> int:
    return int(server.app.state.service.admission.held)


@pytest.fixture
def settings(folders: Folders) -> dict[str, Any]:
    return {"index": (f"main={folders.main}",), "precision": "float32"}


def test_the_texts_of_a_client_that_left_are_not_read(settings: dict[str, Any]) -> None:
    """A client with a short timeout that tries again and again: each try is work for nobody."""
    with running(ServeSettings(**settings)) as server:
        texts = served_index(server).model.texts  # type: ignore[union-attr]
        with ThreadPoolExecutor() as pool, held_up(texts) as batches:
            first = pool.submit(server.ask, "/v1/embeddings", input="first")
            eventually(lambda: len(batches) == 1)
            for _ in range(5):
                with pytest.raises(httpx.ReadTimeout):
                    server.client.post("/v1/embeddings", json={"input": ["gone"] * 9}, timeout=0.1)
                with pytest.raises(httpx.ReadTimeout):
                    server.client.post("/search", json={"query": "gone"}, timeout=0.1)
            eventually(lambda: held(server) == 1)
        assert first.result(SOON)["data"]
        server.ask("/v1/embeddings", input="after")
        assert len(batches) == 1  # the batches after it ran with the true `run`
        read = server.client.get("/metrics").text
        assert 'retrodistill_batch_inputs_sum{worker="main encode"} 2.0' in read
        assert 'requests_total{path="/v1/embeddings",status="499"} 5.0' in read


def test_a_model_that_hangs_is_not_ready(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer that sends requests to a server that will never answer them."""
    monkeypatch.setattr(health, "DEADLINE", 0.3)
    with running(ServeSettings(**settings)) as server:
        assert server.client.get("/readyz").json()["status"] == "ready"
        texts = served_index(server).model.texts  # type: ignore[union-attr]
        with ThreadPoolExecutor() as pool, held_up(texts):
            stuck = pool.submit(server.ask, "/v1/embeddings", input="stuck")
            began = time.monotonic()
            answer = server.client.get("/readyz")
            assert time.monotonic() - began < 2
            assert answer.status_code == 503
            assert answer.json()["models"] == {"main": "no answer within 0.3 s"}
            assert server.client.get("/healthz").status_code == 200
        assert stuck.result(SOON)["data"]
        assert server.client.get("/readyz").status_code == 200


def test_a_busy_server_is_ready(settings: dict[str, Any]) -> None:
    """A server that is taken out of service because many ask it."""
    with running(ServeSettings(**settings, queue=4)) as server:
        texts = served_index(server).model.texts  # type: ignore[union-attr]
        with ThreadPoolExecutor() as pool, held_up(texts) as batches:
            waiting = [pool.submit(server.ask, "/v1/embeddings", input="a") for _ in range(4)]
            eventually(lambda: held(server) == 4 and len(batches) == 1)
            probe = pool.submit(server.client.get, "/readyz")
            eventually(lambda: held(server) == 5)
        assert probe.result(SOON).status_code == 200
        assert all(future.result(SOON)["data"] for future in waiting)


def test_many_who_ask_whether_it_is_ready_are_one_pass(settings: dict[str, Any]) -> None:
    """Probes that need no key and pass the queue's limit: anybody could fill the queue."""
    with running(ServeSettings(**settings)) as server:
        texts = served_index(server).model.texts  # type: ignore[union-attr]
        with ThreadPoolExecutor() as pool, held_up(texts) as batches:
            probes = [pool.submit(server.client.get, "/readyz") for _ in range(4)]
            eventually(lambda: len(batches) == 1)
            time.sleep(0.2)
            assert held(server) == 1
        assert all(probe.result(SOON).status_code == 200 for probe in probes)


def test_a_reload_replaces_a_model_that_hangs(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that waits for ever for what it should replace, and forbids all others."""
    monkeypatch.setattr(served, "LONGEST_BATCH", 0.2)
    with running(ServeSettings(**settings, timeout=1), keys=[KEY]) as server:
        texts = served_index(server).model.texts  # type: ignore[union-attr]
        with held_up(texts):
            server.refused("POST", "/v1/embeddings", 504, json={"input": "a"})
            assert server.client.post("/reload").status_code == 200
            assert server.ask("/v1/embeddings", input="a")["data"]


class EndingError(BaseException):
    """What ends a thread."""


def test_a_dead_worker_is_said_and_a_reload_revives_it(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that wait for a thread that has ended, until their clients give up."""
    with running(ServeSettings(**settings), keys=[KEY]) as server:
        engine = served_index(server).model.texts._engine  # type: ignore[union-attr]

        def end(key: Any, batch: Any) -> Any:
            raise EndingError("out of memory")

        monkeypatch.setattr(engine, "run", end)
        for _ in range(2):
            error = server.refused("POST", "/v1/embeddings", 503, json={"input": "a"})
            assert error["code"] == "worker_dead"
        answer = server.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["dead"] == ["main encode"]
        assert "main encode has stopped" in answer.json()["models"]["main"]
        assert server.client.get("/healthz").status_code == 200
        assert server.client.get("/documents/d1").status_code == 200
        assert server.client.post("/reload").status_code == 200
        assert server.client.get("/readyz").status_code == 200
        assert server.ask("/v1/embeddings", input="a")["data"]


def test_a_request_ends_at_the_deadline(settings: dict[str, Any]) -> None:
    """A client that waits forever, and connections that pile up."""
    with running(ServeSettings(**settings, timeout=0.3)) as server:
        texts = served_index(server).model.texts  # type: ignore[union-attr]
        with held_up(texts):
            error = server.refused("POST", "/v1/embeddings", 504, json={"input": "a"})
            assert error["code"] == "timeout"
            server.refused("POST", "/search", 504, json={"query": "a"})
            eventually(lambda: held(server) == 0)
        assert server.ask("/v1/embeddings", input="a")["data"]


def test_a_body_that_does_not_come_ends_at_the_deadline(settings: dict[str, Any]) -> None:
    """Clients that send a byte now and then hold every connection there is."""

    def slow() -> Iterator[bytes]:
        yield b'{"input": '
        time.sleep(0.6)
        yield b'"a"}'

    with running(ServeSettings(**settings, timeout=0.2)) as server:
        answer = server.client.post(
            "/v1/embeddings", content=slow(), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 408
        assert error_of(answer)["code"] == "timeout"


def test_a_full_queue_is_429_and_says_when_to_return(settings: dict[str, Any]) -> None:
    """Batches that pass a limit that counts requests; a client that tries again at once."""
    with running(ServeSettings(**settings, queue=10)) as server:
        texts = served_index(server).model.texts  # type: ignore[union-attr]
        with ThreadPoolExecutor() as pool, held_up(texts) as batches:
            waiting = pool.submit(server.ask, "/v1/embeddings", input=["a"] * 8)
            eventually(lambda: len(batches) == 1)
            for body in ({"input": ["a"] * 3}, {"input": ["a"] * 2048}):
                answer = server.client.post("/v1/embeddings", json=body)
                assert answer.status_code == 429
                assert 1 <= int(answer.headers["Retry-After"]) <= 30
                assert error_of(answer)["type"] == "rate_limit_error"
            more = pool.submit(server.ask, "/v1/embeddings", input=["a"] * 2)
            eventually(lambda: held(server) == 10)
            assert server.client.post("/search", json={"query": "a"}).status_code == 429
            metrics = server.client.get("/metrics").text
            assert "retrodistill_queue_inputs 10.0" in metrics
            assert "retrodistill_queue_limit 10.0" in metrics
        assert waiting.result(SOON)["data"]
        assert more.result(SOON)["data"]


def test_nan_says_which_input(settings: dict[str, Any]) -> None:
    """`null` for a vector, which a client stores as zeros."""
    with running(ServeSettings(**settings)) as server:
        engine = served_index(server).model.texts._engine  # type: ignore[union-attr]
        encode = engine.encoder.encode_tokens

        def broken(rows: Any, *rest: Any) -> Any:
            vectors = encode(rows, *rest)
            vectors[[len(row["input_ids"]) > 30 for row in rows]] = float("nan")
            return vectors

        engine.encoder.encode_tokens = broken
        body = {"input": ["a", "b", "asthma " * 35, "c"]}
        error = server.refused("POST", "/v1/embeddings", 500, json=body)
        assert error["message"].startswith("input 2: the model gave NaN")
        assert len(server.ask("/v1/embeddings", input=["a", "b"])["data"]) == 2


def test_a_fault_is_500_and_the_connection_lives(settings: dict[str, Any]) -> None:
    """A fault that a client sees as a closed connection, and tries again for ever."""
    with running(ServeSettings(**settings)) as server:
        served_index(server).live.doc = lambda id: 1 / 0  # type: ignore[method-assign]
        for _ in range(3):
            error = server.refused("GET", "/documents/d1", 500)
            assert error["message"] == "the server failed; its log says why."
            assert server.client.get("/healthz").status_code == 200
        assert '"/documents/{id:path}",status="500"} 3.0' in server.client.get("/metrics").text


def test_web_pages_of_the_given_origins_only(settings: dict[str, Any]) -> None:
    """Any page that reads the answers of a server that a browser can reach."""
    with running(ServeSettings(**settings), keys=[KEY], origins=["https://good.example"]) as server:
        for origin, allowed in (("https://good.example", True), ("https://evil.example", False)):
            headers = {"Origin": origin}
            answer = server.client.get("/indexes", headers=headers)
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
            asked = {"Access-Control-Request-Method": "POST", **headers}
            asked["Access-Control-Request-Headers"] = "authorization, content-type"
            request = server.client.build_request("OPTIONS", "/search", headers=asked)
            del request.headers["Authorization"]
            assert (server.client.send(request).status_code == 200) is allowed


class TestChangingFolders:
    """What happens to requests while folders and documents change."""

    @pytest.fixture
    def place(self, folders: Folders, tmp_path: Path) -> Path:
        """Return a copy of the index, to be replaced."""
        return Path(shutil.copytree(folders.main, tmp_path / "index"))

    @staticmethod
    def replaced(place: Path, by: Path) -> None:
        """Put another index folder in the place of one, as `embed --overwrite` does."""
        shutil.move(place, place.with_name(f"old-{time.monotonic_ns()}"))
        shutil.copytree(by, place)

    def test_a_reload_loses_no_request_and_serves_the_new_model(
        self, folders: Folders, place: Path, tmp_path: Path
    ) -> None:
        """Requests that meet the closed index; the old model over the vectors of the new one."""
        settings = ServeSettings(
            index=(f"main={place}",), changes=tmp_path / "changes", precision="float32"
        )
        new = ServeSettings(index=(f"main={folders.other}",), precision="float32")
        with running(new) as server:
            expected = server.ask("/search", query="asthma insulin", k=5)["hits"]
        stop = threading.Event()
        statuses: list[int] = []

        def ask(client: httpx.Client, turn: int) -> None:
            while not stop.is_set():
                turn += 1
                if turn % 3 == 0:
                    answer = client.post("/search", json={"query": "asthma", "method": "hybrid"})
                elif turn % 3 == 1:
                    answer = client.post("/v1/embeddings", json={"input": ["a", "b"]})
                else:
                    doc = {"id": "fresh", "text": "nothing alike zzz"}
                    answer = client.put("/documents", json={"documents": [doc]})
                statuses.append(answer.status_code)

        with running(settings, keys=[KEY]) as server, ThreadPoolExecutor() as pool:
            before = server.ask("/search", query="asthma insulin", k=5)["hits"]
            asking = [pool.submit(ask, server.client, turn) for turn in range(4)]
            for by in (folders.main, folders.other, folders.main, folders.other):
                self.replaced(place, by)
                assert server.client.post("/reload").status_code == 200
            stop.set()
            for future in asking:
                future.result(SOON)
            after = server.ask("/search", query="asthma insulin", k=5)["hits"]
            ready = server.client.get("/readyz").json()
            total = server.client.get("/indexes").json()["indexes"][0]["documents"]
        assert set(statuses) == {200}
        assert len(statuses) > 20
        assert ready["status"] == "ready"
        assert total == 61
        kept = [hit["id"] for hit in after if hit["id"] != "fresh"]
        assert kept == [hit["id"] for hit in expected][: len(kept)]
        assert kept != [hit["id"] for hit in before][: len(kept)]

    @pytest.mark.parametrize("damage", ["no folder", "no manifest", "cut short", "no weights"])
    def test_a_broken_folder_leaves_the_old_one_served(self, place: Path, damage: str) -> None:
        """A half-copied folder that takes a server down that was well."""
        settings = ServeSettings(index=(f"main={place}",), precision="float32")
        with running(settings, keys=[KEY]) as server:
            before = server.ask("/search", query="asthma insulin")["hits"]
            if damage == "no folder":
                shutil.rmtree(place)
            elif damage == "no manifest":
                (place / "manifest.json").unlink()
            elif damage == "cut short":
                file = max((place / "index").iterdir(), key=lambda path: path.stat().st_size)
                file.write_bytes(file.read_bytes()[:100])
            else:
                next(place.rglob("model.safetensors")).unlink()
            error = server.refused("POST", "/reload", 400)
            assert str(place) in error["message"]
            assert server.ask("/search", query="asthma insulin")["hits"] == before
            assert server.client.get("/readyz").status_code == 200

    def test_documents_are_served_at_once_and_after_a_restart(
        self, place: Path, tmp_path: Path
    ) -> None:
        """A document that is acknowledged and not found, or found until the next start only."""
        settings = ServeSettings(
            index=(f"main={place}",), changes=tmp_path / "changes", precision="float32"
        )
        text = "insulin asthma vitamin"
        with running(settings, keys=[KEY]) as server:
            docs = [
                {
                    "id": "new",
                    "title": "insulin",
                    "text": "asthma vitamin",
                    "fields": {"year": 1999},
                },
                {"id": "d3", "text": "another text than before"},
            ]
            answer = server.client.put("/documents", json={"documents": docs})
            assert answer.json() == {"index": "main", "added": 1, "replaced": 1, "documents": 61}
            answer = server.client.request("DELETE", "/documents", json={"ids": ["d5", "none"]})
            assert answer.json() == {
                "index": "main",
                "deleted": 1,
                "unknown": ["none"],
                "documents": 60,
            }
            self.check(server, text)
            own = server.ask("/v1/embeddings", input=text)["data"][0]["embedding"]
            assert server.ask("/search", vector=own)["hits"][0]["id"] == "new"
            for body, word in (
                ({"documents": [{"id": "x", "text": "a", "fields": {"month": 1}}]}, "year"),
                ({"documents": [{"id": "x", "text": "a", "fields": {"year": 2**70}}]}, "year"),
                ({"documents": [{"id": "x"}]}, "neither"),
                ({"documents": [{"id": "x", "text": "a"}] * 2}, "twice"),
            ):
                error = server.refused("PUT", "/documents", 400, json=body)
                assert word in error["message"]
        with running(settings) as server:
            self.check(server, text)

    @staticmethod
    def check(server: Running, text: str) -> None:
        for method in ("bm25", "hybrid"):
            hits = server.ask("/search", query=text, method=method, k=60)["hits"]
            assert "new" in {hit["id"] for hit in hits[: 1 if method == "bm25" else 60]}
            assert "d5" not in {hit["id"] for hit in hits}
        hits = server.ask("/search", query=text, where="year = 1999", fields=["year"])["hits"]
        assert [(hit["id"], hit["fields"]) for hit in hits] == [("new", {"year": 1999})]
        assert server.client.get("/documents/d3").json()["text"] == "another text than before"
        assert server.client.get("/documents/d5").status_code == 404
        assert server.client.get("/similar/d5").status_code == 404
        assert server.client.get("/similar/new").json()["hits"]

    def test_all_documents_may_be_deleted(self, place: Path, tmp_path: Path) -> None:
        """A search over nothing that is a fault of the server."""
        settings = ServeSettings(index=(f"main={place}",), changes=tmp_path / "changes")
        with running(settings, keys=[KEY]) as server:
            ids = [f"d{row}" for row in range(60)]
            answer = server.client.request("DELETE", "/documents", json={"ids": ids})
            assert answer.json()["documents"] == 0
            for method in ("dense", "bm25", "hybrid"):
                assert server.ask("/search", query="asthma", method=method)["hits"] == []
            assert server.ask("/search", query="a NOT b", sets=True)["hits"] == []
            assert server.client.get("/indexes").json()["indexes"][0]["documents"] == 0


def test_the_loop_answers_while_a_change_is_applied(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """A large change that holds up every request, and the probe that asks whether it lives."""
    with running(ServeSettings(**settings, changes=tmp_path / "changes"), keys=[KEY]) as server:
        live = served_index(server).live
        with ThreadPoolExecutor() as pool, live._lock.writing():
            asked = [
                pool.submit(server.client.get, "/documents/d1"),
                pool.submit(server.client.get, "/similar/d1"),
                pool.submit(server.ask, "/search", query="a", fields=["year"], where="year > 1"),
                pool.submit(server.client.get, "/indexes"),
            ]
            time.sleep(0.2)
            assert server.client.get("/healthz", timeout=2).status_code == 200
            assert not any(future.done() for future in asked)
        for future in asked:
            future.result(SOON)


def test_closing_waits_for_no_model_that_hangs(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not end when it is asked to, and is killed with its documents open."""
    from retrodistill.stages.serving import service
    from retrodistill.stages.serving.app import create_app

    monkeypatch.setattr(service, "CLOSING", 0.3)
    app = create_app(ServeSettings(**settings))
    texts = app.state.service._served.indexes["main"].model.texts
    with held_up(texts):
        texts.submit(["a"], "query")
        began = time.monotonic()
        asyncio.run(app.state.service.closed())
        assert time.monotonic() - began < 2
