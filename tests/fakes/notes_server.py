"""A real HTTP server on 127.0.0.1 with the search page and an API of two small indexes.

`notes` has everything: texts, attributes, BM25, a teacher. `bare` has vectors only. BM25 and
filters are the package's; the student compares trigrams of letters, the teacher weighs both.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.data.filters import Attributes, parse_where
from retrodistill.models.retrievers.bm25 import Lexicon

HOSTILE = "notes/7?x=1 #é"
"""Id of a document that tries to run scripts."""

HOSTILE_TITLE = """<script>document.title = "run"</script> & "quoted" <b>title</b>"""
HOSTILE_TEXT = (
    """<img src=x onerror="document.title='run'"> A router's page echoed what was typed into its """
    """password field: <script>window.hacked = true</script> </mark></p> 'single' "double" &amp; """
    "[x](javascript:alert(1)) \u202e and then stopped."
)
RIGHT_TO_LEFT = "كيف أعيد ضبط كلمة المرور؟ افتح الإعدادات ثم اختر كلمة المرور واكتب كلمة جديدة."
QUOTED_SOURCE = """O'Brien \\ "Desk" `a`"""

LONG = (
    "A password manager keeps a different secret for every account, and fills them in where they "
    "belong. Start with the accounts that reset others, which is to say with your mail. "
) * 3 + (
    "Then write the recovery codes on paper, and store the paper where you keep passports. "
    "If the router forgets its settings, hold the button for ten seconds until the lamp blinks; "
    "resetting a router does not change the passwords of your accounts."
)

NOTES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("reset", "How to reset a forgotten password",
     "Open the sign-in page and choose “Forgot password”. A link is sent to your mail; it works "
     "for one hour. Choose a new password of at least twelve characters.",
     {"year": 2023, "source": "handbook", "stars": 4.5, "reviewed": True,
      "published": date(2023, 5, 2), "tags": ["accounts", "password"]}),
    ("manager", "Living with a password manager", LONG,
     {"year": 2021, "source": "handbook", "stars": 4.0, "reviewed": True,
      "published": date(2021, 11, 30), "tags": ["accounts"]}),
    (HOSTILE, HOSTILE_TITLE, HOSTILE_TEXT,
     {"year": 2024, "source": QUOTED_SOURCE, "stars": 1.0, "reviewed": False,
      "published": date(2024, 2, 29), "tags": ["router", "password"]}),
    ("arabic", "إعادة ضبط كلمة المرور (password)", RIGHT_TO_LEFT,
     {"year": 2022, "source": "wiki", "stars": 3.5, "reviewed": True,
      "published": date(2022, 7, 14), "tags": ["accounts", "password"]}),
    ("emoji", "🔐 Passwords, passphrases and 🧑🏽‍🚒 drills",
     "Four random words 🎲🎲🎲🎲 are a better passphrase than one word with a digit. 👍🏽",
     {"year": 2020, "source": "wiki", "stars": 3.0, "reviewed": False,
      "published": date(2020, 1, 8), "tags": ["password"]}),
    ("router", "Resetting the router",
     "Hold the reset button for ten seconds. The router then has the password that is printed on "
     "its underside, and the name of its network as it was delivered.",
     {"year": 2019, "source": "forum", "stars": 2.5, "reviewed": False,
      "published": date(2019, 9, 21), "tags": ["router"]}),
    ("japanese", "パスワードを忘れた場合",
     "設定を開き、パスワードの再設定を選びます。新しいパスワードを入力してください。",
     {"year": 2024, "source": "wiki", "stars": 3.8, "reviewed": True,
      "published": date(2024, 6, 1), "tags": ["accounts"]}),
    ("vpn", "Signing in from outside the office",
     "Start the tunnel first, then sign in as usual. If the tunnel refuses your credentials, your "
     "password may have expired: change it from a machine inside.",
     {"year": 2023, "source": "handbook", "stars": 3.9, "reviewed": True,
      "published": date(2023, 1, 16), "tags": ["network"]}),
    ("printer", "The printer on the second floor",
     "It wakes up after a minute. A reset is needed only when the lamp is red.",
     {"year": 2018, "source": "forum", "stars": 2.0, "reviewed": False,
      "published": date(2018, 3, 5), "tags": ["printing"]}),
    ("locked", "Account locked after too many attempts",
     "Five wrong attempts lock an account for a quarter of an hour. Waiting is enough; nobody "
     "needs to be called. Support can unlock it at once after checking your badge.",
     {"year": 2022, "source": "handbook", "stars": 4.2, "reviewed": True,
      "published": date(2022, 10, 3), "tags": ["accounts", "security"]}),
    ("untitled", "", "A short remark without a title: change the default password of every device.",
     {"year": None, "source": "forum", "stars": None, "reviewed": None,
      "published": None, "tags": []}),
    ("phone", "Moving the second factor to a new phone",
     "Scan the code again with the new phone before you wipe the old one. Lost phone: use one of "
     "the recovery codes, then register the new phone and print new codes.",
     {"year": 2024, "source": "handbook", "stars": 4.8, "reviewed": True,
      "published": date(2024, 4, 11), "tags": ["accounts", "security"]}),
    *[(f"minutes-{number:02}", f"Minutes of meeting {number}",
       f"Topic {number}: budget, rooms and the calendar."
      + " Nobody asked about a password reset." * (number % 3 == 0),
       {"year": 2000 + number, "source": f"minutes {number % 6}", "stars": 1.5, "reviewed": False,
        "published": date(2000 + number, 1, 1), "tags": ["minutes"]}) for number in range(1, 19)],
]  # fmt: skip
"""(id, title, text, fields) of each document."""

EXAMPLES = ["how do I reset my password", "router lamp is red", "lost phone"]
TYPES = {"year": "int", "source": "str", "stars": "float", "reviewed": "bool", "published": "date",
         "tags": "list of str"}  # fmt: skip


@cache
def columns() -> Attributes:
    """Return the documents' attributes."""
    return Attributes.from_columns({name: [note[3][name] for note in NOTES] for name in TYPES})


@cache
def lexicon() -> Lexicon:
    return Lexicon([f"{title} {text}" for _, title, text, _ in NOTES])


def described(name: str) -> dict[str, Any]:
    """Return what `GET /indexes` says of an attribute."""
    values = [note[3][name] for note in NOTES if note[3][name] is not None]
    if TYPES[name] in ("int", "float", "date"):
        return {"type": TYPES[name], "least": str(min(values)) if name == "published"
                else min(values), "greatest": str(max(values)) if name == "published"
                else max(values)}  # fmt: skip
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    common = Counter(flat).most_common(20)
    listed = [{"value": value, "documents": number} for value, number in common]
    return {"type": TYPES[name], "values": listed, "distinct": len(set(flat))}


def indexes(key: str | None) -> dict[str, Any]:
    """Return the answer of `GET /indexes`."""
    notes = {
        "name": "notes", "kind": "flat", "documents": len(NOTES), "dimension": 384,
        "model": "students/minilm-notes", "methods": ["dense", "bm25", "hybrid"], "reranker": True,
        "sets": True, "texts": True, "attributes": {name: described(name) for name in TYPES},
        "examples": EXAMPLES,
    }  # fmt: skip
    bare = notes | {
        "name": "bare", "kind": "hnsw", "methods": ["dense"], "reranker": False,
        "texts": False, "attributes": {}, "examples": [],
    }  # fmt: skip
    return {"indexes": [notes, bare], "default": "notes", "key_needed": key is not None}


def trigrams(text: str) -> Counter[str]:
    padded = f" {text.lower()} "
    return Counter(padded[i : i + 3] for i in range(len(padded) - 2))


def student_scores(query: str) -> NDArray[np.float64]:
    """Return the cosine of trigrams between the query and each document."""
    asked, scores = trigrams(query), []
    for _, title, text, _ in NOTES:
        counts = trigrams(f"{title} {text}")
        dot = sum(counts[gram] * number for gram, number in asked.items())
        norms = (sum(n * n for n in asked.values()) * sum(n * n for n in counts.values())) ** 0.5
        scores.append(dot / norms if norms else 0.0)
    return np.array(scores)


def scores(query: str, method: str, *, rerank: bool) -> NDArray[np.float64]:
    student, words = student_scores(query), lexicon().scores(query).astype(float)
    if rerank:
        return 1 / (1 + np.exp(3 - 8 * student - words))
    if method == "hybrid":
        return sum(1 / (60 + (-each).argsort().argsort()) for each in (student, words))
    return student if method == "dense" else words


def search(body: dict[str, Any], *, skip: str | None = None) -> dict[str, Any]:
    """Return the answer of `POST /search`."""
    started = time.perf_counter()
    method, rerank = body.get("method", "dense"), bool(body.get("rerank"))
    mask = np.ones(len(NOTES), bool)
    if body.get("where"):
        mask = columns().matching(parse_where(body["where"]))
    values = scores(body["query"], method, rerank=rerank)
    if method == "bm25":
        mask &= values > 0
    mask &= np.array([note[0] != skip for note in NOTES])
    rows = [int(row) for row in np.argsort(-values, kind="stable") if mask[row]]
    bare = body.get("index") == "bare"
    hits = []
    for row in rows[: body.get("k", 10)]:
        name, title, text, fields = NOTES[row]
        hit = {"id": name, "score": float(values[row]), "title": title, "text": text}
        if bare:
            hit |= {"title": "", "text": ""}
        if body.get("fields") and not bare:
            hit["fields"] = {field: fields[field] for field in body["fields"]}
        hits.append(hit)
    took = 1000 * (time.perf_counter() - started)
    times = {"total": took * (41 if rerank else 1), "encode": took * 0.6, "search": took * 0.3}
    return {"index": body.get("index") or "notes", "method": method, "hits": hits,
            "took_ms": times | {"rerank": took * 40 if rerank else 0.0}}  # fmt: skip


def application(key: str | None = None) -> Any:
    """Return the page's routes and the API that it asks; with a key, the API wants it."""
    from fastapi import Body, FastAPI, Query, Request
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel, Field

    from retrodistill.stages.serving.page import page_routes

    app = FastAPI(title="retrodistill", docs_url=None, redoc_url=None, routes=page_routes())

    def failed(status: int, message: str, param: str | None = None) -> JSONResponse:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
        return JSONResponse({"error": error}, status)

    @app.middleware("http")
    async def check_key(request: Request, call_next: Any) -> Any:
        is_open = request.url.path in ("/", "/docs") or request.url.path.startswith("/page/")
        sent = request.headers.get("Authorization", "")
        if key is not None and not is_open and sent != f"Bearer {key}":
            return failed(401, "Missing or unknown API key: send Authorization: Bearer KEY.")
        return await call_next(request)

    @app.exception_handler(ConfigError)
    async def refuse(_: Request, error: ConfigError) -> JSONResponse:
        return failed(400, str(error), "where")

    class SearchRequest(BaseModel):
        """What to search for: one query, and how."""

        query: str = Field(description="The question.", examples=["how do I reset my password"])
        index: str | None = Field(None, description="Name of the index; the first by default.")
        k: int = Field(10, ge=1, le=1000, description="Number of hits.")
        where: str | None = Field(None, description="A condition, as `year >= 2020`.")
        fields: list[str] | None = Field(None, description="Attributes to return.")
        method: str = Field("dense", description="`dense`, `bm25` or `hybrid`.")
        rerank: bool | int = Field(False, description="Whether the teacher orders the hits.")
        sets: bool = Field(False, description="Whether the query is a set expression.")

    class Hit(BaseModel):
        id: str
        score: float
        title: str
        text: str
        fields: dict[str, Any] | None = None

    class SearchResponse(BaseModel):
        index: str
        method: str
        hits: list[Hit]
        took_ms: dict[str, float]

    @app.get("/indexes", tags=["search"], summary="Indexes, their attributes and methods")
    def get_indexes() -> dict[str, Any]:
        """Return what is served.

        The search page builds its filters from it.
        """
        return indexes(key)

    @app.get("/v1/models", tags=["models"])
    def models() -> dict[str, Any]:
        names = {"notes": "embedding", "ms-marco-MiniLM-L12-v2": "reranker"}
        data = [{"id": name, "object": "model", "kind": kind} for name, kind in names.items()]
        return {"object": "list", "data": data}

    @app.post("/search", tags=["search"], response_model=SearchResponse)
    def post_search(body: SearchRequest = Body()) -> dict[str, Any]:  # noqa: B008
        """Search an index with the student, BM25 or both; the teacher orders the hits."""
        return search(body.model_dump())

    @app.get("/similar/{id:path}", tags=["search"], response_model=SearchResponse)
    def similar(
        id: str,
        index: str = "notes",
        k: int = Query(10, ge=1, le=1000, description="Number of documents."),
        where: str | None = None,
        fields: list[str] | None = Query(None),  # noqa: B008
    ) -> dict[str, Any]:
        """Return the nearest documents of a document, itself left out."""
        _, title, text, _ = next(note for note in NOTES if note[0] == id)
        body = {
            "query": f"{title} {text}",
            "index": index,
            "k": k,
            "where": where,
            "fields": fields,
        }
        return search(body, skip=id)

    @app.get("/documents/{id:path}", tags=["documents"])
    def document(id: str, index: str = "notes") -> Any:
        note = next((note for note in NOTES if note[0] == id), None)
        if note is None:
            return failed(404, f"There is no document {id!r} in {index}.")
        return {"id": note[0], "title": note[1], "text": note[2], "fields": note[3]}

    return app


@contextmanager
def serve(key: str | None = None) -> Iterator[str]:
    """Run the server in a thread while the block runs; the value is its address."""
    lexicon().scores("warm")
    with running(application(key)) as url:
        yield url


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Run an application in a thread on a free port while the block runs."""
    import uvicorn

    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server has not started")
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()
