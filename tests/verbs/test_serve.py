"""`serve` as a process: its address, its signals, its keys, and what a kill leaves."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from fakes.serving import KEY, Folders

from retrodistill.stages.serving.server import bound

SECRET = "the-secret-of-the-environment"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("folders"))


class Process:
    """A server in a process of its own."""

    def __init__(self, words: list[str], cwd: Path) -> None:
        command = [sys.executable, "-m", "retrodistill.serve", *words, "--precision", "float32"]
        self.popen = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, "RETRODISTILL_API_KEY": SECRET, "OMP_NUM_THREADS": "1"},
        )
        self.said = ""
        self.url = ""
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.said += line
            if found := re.search(r"serving at (http://\S+)", line):
                self.url = found[1]
                break
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.url, self.said

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.said += line

    def wait(self) -> int:
        status = self.popen.wait(30)
        self._reader.join(10)
        return status


@contextmanager
def serving(words: str, cwd: Path) -> Iterator[Process]:
    process = Process([*words.split(), "--port", "0"], cwd)
    try:
        yield process
    finally:
        process.popen.kill()
        process.wait()
        assert process.popen.stdout is not None
        assert process.popen.stderr is not None
        process.popen.stdout.close()
        process.popen.stderr.close()


def client(process: Process, key: str = KEY) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=process.url, headers=headers, timeout=30)


def test_signals_and_keys(folders: Folders, tmp_path: Path) -> None:
    """A restart that loses what runs, a SIGHUP that ends the server, a key in the logs."""
    index = tmp_path / "index"
    index.symlink_to(folders.main)
    (tmp_path / "keys.txt").write_text(f"# of the tests\n{KEY}\n")
    with serving("--index index --api-key-file keys.txt", tmp_path) as process:
        assert process.url.startswith("http://127.0.0.1:")
        with client(process) as own, client(process, SECRET) as other, client(process, "x") as none:
            body = {"query": "asthma insulin", "k": 5}
            before = own.post("/search", json=body).json()["hits"]
            assert other.post("/search", json=body).json()["hits"] == before
            assert none.post("/search", json=body).status_code == 401

            index.unlink()
            index.symlink_to(folders.other)
            process.popen.send_signal(signal.SIGHUP)
            hits = before
            for _ in range(400):
                answer = own.post("/search", json=body)
                assert answer.status_code == 200
                hits = answer.json()["hits"]
                if hits != before:
                    break
            assert hits != before

            index.unlink()
            process.popen.send_signal(signal.SIGHUP)  # nothing to open: served as before
            for _ in range(400):
                assert own.post("/search", json=body).json()["hits"] == hits
                if "not reloaded, and served as before" in process.said:
                    break
            assert "not reloaded, and served as before" in process.said

            statuses: list[int] = []
            began = threading.Event()

            def ask() -> None:
                def parts() -> Iterator[bytes]:
                    yield b'{"input": ['
                    began.set()
                    yield b",".join([b'"asthma insulin"'] * 500) + b"]}"

                headers = {"content-type": "application/json"}
                answer = own.post("/v1/embeddings", content=parts(), headers=headers)
                statuses.append(answer.status_code)

            thread = threading.Thread(target=ask)
            thread.start()
            began.wait(10)
            threading.Event().wait(0.1)
            process.popen.send_signal(signal.SIGTERM)
            thread.join(30)
        assert statuses == [200]
        assert process.wait() == 0
    assert "stopped." in process.said
    assert "Traceback" not in process.said
    for key in (KEY, SECRET):
        assert key not in process.said


def test_a_port_in_use_is_said_before_a_model_is_loaded(folders: Folders, tmp_path: Path) -> None:
    """A minute of loading, and then a traceback of the event loop."""
    sock = bound("127.0.0.1", 0)
    port = sock.getsockname()[1]
    words = ["--index", str(folders.main), "--port", str(port)]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "retrodistill.serve", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    sock.close()
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(said) == 1
    assert f"--port {port} cannot be listened at: Address already in use" in said[0]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "transformers"} & imported


@pytest.mark.slow
def test_a_kill_loses_nothing_acknowledged(folders: Folders, tmp_path: Path) -> None:
    """A document that was answered with 200, and that the next start does not know."""
    index = folders.main
    (tmp_path / "keys.txt").write_text(f"{KEY}\n")
    words = f"--index main={index} --changes changes --api-key-file keys.txt"
    documents: dict[str, str] = {}
    for turn in range(2):
        with serving(words, tmp_path) as process, client(process) as own:
            check(own, documents)
            killer = threading.Timer(0.3 + 0.2 * turn, process.popen.kill)
            killer.start()
            number = 0
            try:
                while True:
                    number += 1
                    if number % 5 == 0 and documents:
                        gone = next(iter(documents))
                        del documents[gone]  # acknowledged or not
                        answer = own.request("DELETE", "/documents", json={"ids": [gone]})
                        assert answer.status_code == 200
                        continue
                    docs = [
                        {"id": f"{turn} {number} {row}", "text": f"text {turn} of {number} {row}"}
                        for row in range(3)
                    ]
                    answer = own.put("/documents", json={"documents": docs})
                    assert answer.status_code == 200
                    documents |= {doc["id"]: doc["text"] for doc in docs}
            except httpx.TransportError:
                pass
            killer.join()
    assert documents
    with serving(words, tmp_path) as process, client(process) as own:
        check(own, documents)
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def check(own: httpx.Client, documents: dict[str, str]) -> None:
    """Assert that what was acknowledged is served; the last request may be there as well."""
    total = own.get("/indexes").json()["indexes"][0]["documents"]
    assert abs(total - 60 - len(documents)) <= 3
    for id in list(documents)[-20:]:
        assert own.get(f"/documents/{id}").json()["text"] == documents[id]
