"""A real server of tiny models in threads of this process, on a free port of 127.0.0.1."""

import json
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import uvicorn
from fakes.corpus import NOUNS, save_small_collection
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from fastapi import FastAPI

from retrodistill import embed
from retrodistill.base.config import ServeSettings
from retrodistill.base.manifest import Manifest
from retrodistill.stages.serving.app import create_app
from retrodistill.stages.serving.server import address, bound

PROMPTS = {"query": "search for a query : ", "document": "the document : "}
KEY = "a-key-of-some-length"


@dataclass
class Running:
    """A server that runs: its address, its application, and a client."""

    url: str
    app: FastAPI
    client: httpx.Client
    server: uvicorn.Server

    def ask(self, path: str, **body: Any) -> Any:
        """Return the JSON of a POST that is answered with 200."""
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refused(self, method: str, path: str, status: int, **options: Any) -> dict[str, Any]:
        """Return the error of a request, which has the form and the status that it should have."""
        answer = self.client.request(method, path, **options)
        assert answer.status_code == status, answer.text
        return error_of(answer)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the error of an answer in the one form that errors have."""
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert set(content) == {"error"}
    assert set(content["error"]) == {"message", "type", "param", "code"}
    assert content["error"]["message"]
    assert content["error"]["type"]
    return dict(content["error"])


@contextmanager
def running(settings: ServeSettings, **options: Any) -> Iterator[Running]:
    """Serve while the block runs; at its end nothing is queued any more."""
    app = create_app(settings, **options)
    sock = bound("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    keys = options.get("keys", ())
    headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
    try:
        with httpx.Client(base_url=address(sock), headers=headers, timeout=30) as client:
            yield Running(address(sock), app, client, server)
    finally:
        server.should_exit = True
        thread.join(20)
        sock.close()
    assert not thread.is_alive()
    assert app.state.service.admission.held == 0


@dataclass
class Folders:
    """Collections, models and indexes, made when they are asked for, each once."""

    root: Path
    made: dict[str, Path] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Path:
        if name not in MAKERS:
            raise AttributeError(name)
        if name not in self.made:
            self.made[name] = MAKERS[name](self, self.root / name)
        return self.made[name]

    def embedded(self, out: Path, model: Path, data: Path, *more: str) -> Path:
        """Return an index folder in float32."""
        words = ["--data", f"beir:{data}", "--model", str(model), "--out", str(out)]
        assert embed.main([*words, "--precision", "float32", *more]) == 0
        return out


def _model(folders: Folders, folder: Path) -> Path:
    """A model with prompts that records Matryoshka sizes, as a trained student does."""
    model = save_tiny_model(folder, layers=2, max_tokens=40, prompts=PROMPTS)
    Manifest(kind="student", fingerprint="x", config={"dims": [32, 16, 8]}).write(model)
    return model


def _other_model(folders: Folders, folder: Path) -> Path:
    """Another model of the same dimension."""
    return save_tiny_model(folder, layers=2, max_tokens=40, prompts=PROMPTS, seed=7)


def _towers(folders: Folders, folder: Path) -> Path:
    """A Router: queries are read by one model, documents by another, without normalisation."""
    from sentence_transformers import SentenceTransformer

    from retrodistill.models.students.towers import two_towers

    models = [
        save_tiny_model(
            folder / str(seed), layers=2, max_tokens=32, prompts=PROMPTS, normalise=False, seed=seed
        )
        for seed in (3, 4)
    ]
    pair = two_towers(*(SentenceTransformer(str(model), device="cpu") for model in models))
    pair.save(str(folder / "pair"), create_model_card=False)
    return folder / "pair"


def _data(folders: Folders, folder: Path) -> Path:
    return save_small_collection(folder)


def _attributes(folders: Folders, file: Path) -> Path:
    rows = [f"d{row},{2000 + row % 10},{'de' if row % 3 else 'en'}" for row in range(60)]
    file.with_suffix(".csv").write_text("\n".join(["id,year,lang", *rows]) + "\n")
    return file.with_suffix(".csv")


def _passages(folders: Folders, folder: Path) -> Path:
    """Twenty documents of three passages each, and judgements of the first."""
    rng = random.Random(2)
    save_small_collection(folder, docs=8, train=4, test=4)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for number in range(20):
            for passage in range(3):
                text = " ".join(rng.sample(NOUNS, 9))
                row = {"_id": f"d{number}#{passage}", "title": "", "text": text}
                corpus.write(json.dumps(row) + "\n")
    for file in (folder / "qrels").iterdir():  # of the first passage
        rows = [line.split("\t") for line in file.read_text().splitlines()]
        lines = ["\t".join(rows[0]), *(f"{query}\t{doc}#0\t1" for query, doc, _ in rows[1:])]
        file.write_text("\n".join(lines) + "\n")
    return folder


MAKERS: dict[str, Any] = {
    "data": _data,
    "passages": _passages,
    "attributes": _attributes,
    "model": _model,
    "other_model": _other_model,
    "towers": _towers,
    "reranker": lambda folders, out: save_tiny_cross_encoder(out),
    "sparse_model": lambda folders, out: save_tiny_sparse(out),
    "late_model": lambda folders, out: save_tiny_late_interaction(out),
    "main": lambda folders, out: folders.embedded(
        out, folders.model, folders.data, "--attributes", str(folders.attributes)
    ),
    "other": lambda folders, out: folders.embedded(out, folders.other_model, folders.data),
    "cut": lambda folders, out: folders.embedded(
        out, folders.model, folders.data, "--dimensions", "16"
    ),
    "parts": lambda folders, out: folders.embedded(out, folders.model, folders.passages),
    "pair": lambda folders, out: folders.embedded(out, folders.towers, folders.data),
    "sparse": lambda folders, out: folders.embedded(out, folders.sparse_model, folders.data),
    "late": lambda folders, out: folders.embedded(out, folders.late_model, folders.data),
}


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
