"""A real HTTP server on 127.0.0.1 that speaks the chat-completions form, well or badly."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import exp, log
from typing import Any


@dataclass
class Reply:
    """An HTTP response of the fake endpoint."""

    body: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    """Close the connection in the middle of the body."""


def completion(
    text: str,
    *tops: dict[str, float],
    usage: tuple[int, int] | None = (100, 2),
) -> Reply:
    """Return a chat completion; each of `tops` holds probabilities of tokens at one position."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    choice["message"] = {"role": "assistant", "content": text}
    if tops:
        content = []
        for top in tops:
            likely = [
                {"token": token, "logprob": log(chance) if chance > 0 else -9999.0, "bytes": None}
                for token, chance in top.items()
            ]
            content.append({**likely[0], "top_logprobs": likely})
        choice["logprobs"] = {"content": content, "refusal": None}
    reply: dict[str, Any] = {"id": "x", "object": "chat.completion", "choices": [choice]}
    if usage is not None:
        reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Reply(json.dumps(reply))


def refusal(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Reply:
    """Return an error as OpenAI writes it."""
    error = {"message": message, "type": code, "param": None, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(json.dumps({"error": error}), status, named)


@dataclass
class Request:
    """One request as it came in."""

    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    time: float

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"]


class Server:
    """What was asked, and how it is answered: first by `script`, one each, then by `answer`."""

    def __init__(self, answer: Callable[[str], Reply]) -> None:
        self.answer = answer
        self.script: list[Reply] = []
        self.requests: list[Request] = []
        self.most_at_once = 0
        self.url = ""
        self._at_once = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def prompts(self) -> list[str]:
        return [request.prompt for request in self.requests]

    def reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            scripted = self.script.pop(0) if self.script else None
        try:
            reply = scripted or self.answer(request.prompt)
            time.sleep(reply.delay)
            return reply
        finally:
            with self._lock:
                self._at_once -= 1


@contextmanager
def serve(answer: Callable[[str], Reply]) -> Iterator[Server]:
    """Run a server in threads of this process while the block runs."""
    server = Server(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = server.reply(Request(body, headers, self.path, time.monotonic()))
            raw = reply.body.encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw[: len(raw) // 2] if reply.cut else raw)
                self.wfile.flush()
                if reply.cut:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client has hung up: it is a test of that
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


BIAS = 0.4
"""Log-odds that the model below gives away to the passage that stands first."""


def shared_words(query: str, passage: str) -> int:
    return len(set(query.split()) & set(passage.split()))


def reader(prompt: str) -> Reply:
    """Answer as a model that counts shared words: each is worth one nat.

    It prefers what stands first, as real ones do.
    """
    query = re.search(r"^Query: (.*)$", prompt, re.MULTILINE)[1]
    if labelled := re.findall(r"^\[(\d+)\] (.*)$", prompt, re.MULTILINE):
        order = sorted(labelled, key=lambda one: -shared_words(query, one[1]))
        return completion(" > ".join(f"[{label}]" for label, _ in order))
    if "JSON" in prompt:
        passage = re.search(r"^Passage: (.*)$", prompt, re.MULTILINE)[1]
        return completion(json.dumps({"grade": min(10, shared_words(query, passage))}))
    if "Passage A" in prompt:
        sides = re.findall(r"^Passage [AB]: (.*)$", prompt, re.MULTILINE)
        odds = shared_words(query, sides[0]) - shared_words(query, sides[1]) + BIAS
        return choice("A", "B", odds)
    passage = re.search(r"^Passage: (.*)$", prompt, re.MULTILINE)[1]
    return choice("Yes", "No", shared_words(query, passage) - 2.0)


def choice(first: str, second: str, odds: float) -> Reply:
    """Answer with the likelier of two words, whose probabilities have these log-odds."""
    chance = 0.9 / (1.0 + exp(-odds))
    tops = {first: chance, second: 0.9 - chance, "Well": 0.05}
    return completion(first if odds > 0 else second, tops)
