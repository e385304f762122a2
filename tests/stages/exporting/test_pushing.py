"""Pushing to a hub: what is sent, to a server on this machine that answers as a hub does."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

IMPORT = "from retrodistill.stages.exporting.pushing import push"


class FakeHub(BaseHTTPRequestHandler):
    """The few answers that an upload of small files needs."""

    posted: list[tuple[str, bytes]]
    refuses = False
    endpoint = ""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        type(self).posted.append((self.path, body))
        base = type(self).endpoint
        if type(self).refuses:
            self._answer(401, {"error": "who are you?"})
        elif self.path == "/api/repos/create":
            self._answer(200, {"url": f"{base}/me/kl"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in files
            ]
            self._answer(200, {"files": modes})
        elif "/commit/" in self.path:
            commit = {"commitUrl": f"{base}/me/kl/commit/abc", "commitOid": "abc", "success": True}
            self._answer(200, commit)
        else:
            self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(200, {"id": "me/kl", "sha": "abc", "siblings": []})

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[type[FakeHub]]:
    """Start a hub on a free port."""

    class Hub(FakeHub):
        posted: list[tuple[str, bytes]] = []  # noqa: RUF012 - of this test alone

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Hub
    server.shutdown()
    server.server_close()


def pushed(hub: type[FakeHub], folder: Path) -> str:
    """Push in a process whose hub is this one, and return what it says."""
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0"}
    call = f"print(push(Path({str(folder)!r}), 'me/kl', private=True))"
    done = subprocess.run(
        [sys.executable, "-c", f"from pathlib import Path\n{IMPORT}\n{call}"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an exported folder with a manifest and a lineage."""
    for name in ("README.md", "onnx/model.onnx", "manifest.json", "lineage/ab.parquet"):
        path = tmp_path / "kl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return tmp_path / "kl"


def test_the_model_is_sent_and_what_names_this_computer_is_not(
    hub: type[FakeHub], folder: Path
) -> None:
    """A manifest holds paths of its author's computer; a public default would show all of it."""
    assert f"{hub.endpoint}/me/kl/commit/abc" in pushed(hub, folder)
    created = json.loads(dict(hub.posted)["/api/repos/create"])
    assert created == {"name": "kl", "organization": "me", "visibility": "private"}
    (commit,) = (body for path, body in hub.posted if "/commit/" in path)
    sent = [json.loads(line)["value"] for line in commit.splitlines()]
    assert sorted(file["path"] for file in sent if "path" in file) == [
        "README.md",
        "onnx/model.onnx",
    ]


def test_a_refusal_is_a_sentence_without_the_token(hub: type[FakeHub], folder: Path) -> None:
    """A traceback after a long export, or a token in a log."""
    hub.refuses = True
    said = pushed(hub, folder)
    assert "ConfigError" in said
    assert "is written, but cannot be pushed to me/kl" in said
    assert "hf_secret" not in said
