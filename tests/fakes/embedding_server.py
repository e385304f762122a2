"""A real HTTP server on 127.0.0.1 that serves a model's vectors and its search, well or badly.

A query and a document are read by different sides of the model, as `input_type` says.
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import numpy as np


@dataclass
class Refusal:
    """An HTTP error of the server."""

    status: int
    message: str = "no"
    headers: dict[str, str] = field(default_factory=dict)


def same(answer: dict[str, Any]) -> dict[str, Any]:
    return answer


class EmbeddingServer:
    """What was asked, and how it is answered: by `script`, one each, then by the model.

    `encoder` is an `Encoder`, whose documents `docs` are searched. `sides` says what becomes of
    `input_type`: it chooses the side, is ignored (all texts are documents), or is refused.
    """

    def __init__(self, encoder: Any, docs: Any = None) -> None:
        self.encoder, self.docs = encoder, docs
        self.sides: Literal["chosen", "ignored", "refused"] = "chosen"
        self.encoding: Literal["base64", "float"] = "base64"
        self.models: list[str] | None = ["student"]
        self.key = ""
        self.script: list[Refusal] = []
        self.alter: Callable[[dict[str, Any]], dict[str, Any]] = same
        self.delay = 0.0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self.origin = ""
        self._at_once = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def texts(self) -> list[str]:
        return [text for body in self.bodies for text in body.get("input", [])]

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Any:
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            scripted = self.script.pop(0) if self.script else None
        try:
            time.sleep(self.delay)
            return scripted or self._refusal(path, body, headers) or self.answer(path, body)
        finally:
            with self._lock:
                self._at_once -= 1

    def _refusal(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Refusal | None:
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            sent = headers.get("authorization", "nothing")
            return Refusal(401, f"invalid key: {sent}")
        if path not in ("/v1/embeddings", "/search"):
            return Refusal(404, f"no such path: {path}")
        if self.sides == "refused" and "input_type" in body:
            return Refusal(400, "Unrecognized request argument supplied: input_type")
        for number, text in enumerate(body.get("input", ())):
            if not text.strip():
                return Refusal(400, f"input {number} is an empty text")
        if self.models and body.get("model", self.models[0]) not in self.models:
            return Refusal(404, f"there is no model {body['model']!r}")
        return None

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/search":
            return self.alter(self.search(body))
        as_query = self.sides == "chosen" and body.get("input_type") == "query"
        encode = self.encoder.encode_queries if as_query else self.encoder.encode_docs
        vectors = encode(body["input"])[:, : body.get("dimensions")]
        rows = [
            {"object": "embedding", "index": number, "embedding": self._written(vector)}
            for number, vector in enumerate(vectors)
        ]
        return self.alter({"object": "list", "data": rows, "model": body.get("model", "")})

    def search(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the documents of highest inner product, ties in descending order of their ids."""
        docs = self.encoder.encode_docs(self.docs.full_texts())
        scores = (docs @ self.encoder.encode_queries([body["query"]])[0]).tolist()
        ranked = sorted(zip(scores, self.docs.ids(), strict=True), reverse=True)
        return {"hits": [{"id": doc, "score": score} for score, doc in ranked[: body["k"]]]}

    def _written(self, vector: "np.ndarray[Any, Any]") -> Any:
        if self.encoding == "float":
            return vector.tolist()
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()


@contextmanager
def serve(encoder: Any, docs: Any = None) -> Iterator[EmbeddingServer]:
    """Run a server in threads of this process while the block runs."""
    server = EmbeddingServer(encoder, docs)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == "/v1/models" and server.models is not None:
                rows = [{"id": name, "object": "model"} for name in server.models]
                self.send({"object": "list", "data": rows})
            else:
                self.send(Refusal(404, "no such path"))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send(server.post(self.path, body, headers))

        def send(self, answer: Any) -> None:
            status, extra = 200, {}
            if isinstance(answer, Refusal):
                status, extra = answer.status, answer.headers
                error = {"message": answer.message, "type": None, "param": None, "code": None}
                answer = {"error": error}
            raw = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **extra}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    server.origin = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
