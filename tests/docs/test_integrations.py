"""The Python of docs/integrations.md, run as it is printed, against a real server."""

import ast
import gc
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

import retrodistill as rd

pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning",
    "ignore:Exception ignored in. <(ssl|socket):pytest.PytestUnraisableExceptionWarning",
)

ROOT = Path(__file__).parents[2]
PAGE = "docs/integrations.md"
QUERY = "how do I reset it"
TEXTS = ["Hold the button for ten seconds.", "The warranty lasts two years."]
PROMPTS = {"query": "query: ", "document": "body of the document: "}


def blocks() -> dict[str, list[str]]:
    """Return the Python blocks below each heading of the page."""
    sections = re.split(r"^## ", (ROOT / PAGE).read_text(encoding="utf-8"), flags=re.MULTILINE)
    pattern = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return {text.partition("\n")[0]: pattern.findall(text) for text in sections[1:]}


BLOCKS = blocks()


@pytest.fixture(scope="module")
def float32() -> Iterator[None]:
    """Let precision `auto`, which the page uses, be float32 on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrodistill.models.inference.devices.bfloat16_speedup", lambda device: 0.0)
        yield


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, float32: None
) -> Iterator[SimpleNamespace]:
    """Serve `indexes/kl` and a reranker called MODEL, as the page's command does."""
    from fakes.models import save_tiny_cross_encoder, save_tiny_model
    from fakes.notes_server import running

    from retrodistill.base.config.serve import ServeSettings
    from retrodistill.stages.serving.app import create_app

    place = tmp_path_factory.mktemp("place")
    model = save_tiny_model(place / "student", prompts=PROMPTS)
    reranker = save_tiny_cross_encoder(place / "MODEL")
    collection = rd.load_collection(f"beir:{folder}")
    encoder = rd.DenseEncoder(model)
    index = rd.embed_collection(collection, encoder, out=place / "indexes" / "kl")
    settings = ServeSettings(index=(f"kl={index}",), reranker=f"cross-encoder:{reranker}")
    with running(create_app(settings)) as url:
        yield SimpleNamespace(
            place=place,
            url=url.rstrip("/"),
            encoder=encoder,
            searcher=rd.Searcher.open(index),
            teacher=rd.load_teacher(f"cross-encoder:{reranker}", collection),
        )


def run(section: str, position: int, served: SimpleNamespace) -> dict[str, Any]:
    """Run a block; return its names, or skip where a library is not installed."""
    source = BLOCKS[section][position]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names if isinstance(node, ast.Import)]
            for module in modules:
                pytest.importorskip(module, reason=f"{PAGE} needs {module}: not installed")
    names: dict[str, Any] = {"texts": TEXTS, "__name__": "example"}
    source = source.replace("http://127.0.0.1:8080", served.url)
    exec(compile(source, PAGE, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def quiet_libraries(monkeypatch: pytest.MonkeyPatch, served: SimpleNamespace) -> Iterator[None]:
    """Work in the page's folder; no library reports its use over the network."""
    monkeypatch.chdir(served.place)
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    yield
    gc.collect()  # the page's clients are not closed: their sockets complain here, unheard


def check_sides(served: SimpleNamespace, query: Any, documents: Any) -> None:
    """Compare vectors with those of the encoder's sides, which differ here."""
    expected = served.encoder.encode_queries([QUERY])[0]
    np.testing.assert_allclose(np.array(query), expected, atol=1e-5)
    np.testing.assert_allclose(np.array(documents), served.encoder.encode_docs(TEXTS), atol=1e-5)
    assert np.abs(served.encoder.encode_docs([QUERY])[0] - expected).max() > 1e-3


def order(served: SimpleNamespace) -> list[int]:
    """Return the rows of TEXTS, best first by the reranker itself."""
    from retrodistill.base.types import Doc, Pairs

    docs = [Doc(str(row), "", text) for row, text in enumerate(TEXTS)]
    scores = served.teacher.score(Pairs.of([Doc("q", "", QUERY)] * len(docs), docs))
    return sorted(range(len(TEXTS)), key=lambda row: -scores[row])


def check_hits(served: SimpleNamespace, hits: list[tuple[str, float, str, str]]) -> None:
    """Compare id, score, title and text of hits with what the index itself finds."""
    expected = served.searcher.search(QUERY, 5)
    assert [hit[0] for hit in hits] == [hit.doc_id for hit in expected]
    assert [hit[1] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    assert [hit[2:] for hit in hits] == [(hit.title, hit.text) for hit in expected]


def test_openai(served: SimpleNamespace) -> None:
    """A client that gets the document's side for queries, and nobody sees it."""
    names = run("OpenAI's client", 0, served)
    documents = [entry.embedding for entry in names["documents"].data]
    check_sides(served, names["query"].data[0].embedding, documents)
    assert names["scores"] == pytest.approx(np.array(documents) @ names["query"].data[0].embedding)


def test_langchain_embeddings(served: SimpleNamespace) -> None:
    """Token ids that mean nothing to the model, or one side for both."""
    embeddings = run("LangChain", 0, served)["embeddings"]
    check_sides(served, embeddings.embed_query(QUERY), embeddings.embed_documents(TEXTS))


def test_langchain_served_retriever(served: SimpleNamespace) -> None:
    """Options that never reach the server: `rerank` would be ignored."""
    names = run("LangChain", 1, served)
    documents, retriever = names["documents"], names["retriever"]
    candidates = {hit.doc_id for hit in served.searcher.search(QUERY, 20)}
    scores = [document.metadata["score"] for document in documents]
    assert len(documents) == 5
    assert {document.id for document in documents} <= candidates
    assert scores == sorted(scores, reverse=True)
    plain = type(retriever)(url=served.url, options={"index": "kl", "k": 5}).invoke(QUERY)
    check_hits(served, [langchain_hit(document) for document in plain])
    assert [document.id for document in plain] != [document.id for document in documents]


def langchain_hit(document: Any) -> tuple[str, float, str, str]:
    metadata = document.metadata
    return document.id, metadata["score"], metadata["title"], document.page_content


def test_langchain_own_retriever(served: SimpleNamespace) -> None:
    """A retriever in the process that finds something else than the server."""
    documents = run("LangChain", 2, served)["documents"]
    check_hits(served, [langchain_hit(document) for document in documents])


def test_langchain_reranker(served: SimpleNamespace) -> None:
    """A client that asks a path or wants a form that the server does not have."""
    results = run("LangChain", 3, served)["results"]
    assert [result["index"] for result in results] == order(served)


def test_llamaindex_embeddings(served: SimpleNamespace) -> None:
    """A retriever that embeds its queries as documents, since its index does."""
    names = run("LlamaIndex", 0, served)
    query = names["side"]("query").get_query_embedding(QUERY)
    documents = names["side"]("document").get_text_embedding_batch(TEXTS)
    check_sides(served, query, documents)
    scores = served.encoder.encode_docs(TEXTS) @ served.encoder.encode_queries([QUERY])[0]
    expected = {text: float(score) for text, score in zip(TEXTS, scores, strict=True)}
    found = {node.node.get_content(): node.score for node in names["nodes"]}
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("position", [1, 2])
def test_llamaindex_retrievers(served: SimpleNamespace, position: int) -> None:
    """Nodes without the ids, titles or scores of the hits that they stand for."""
    nodes = run("LlamaIndex", position, served)["nodes"]
    hits = [(one.node.node_id, one.score, one.node.metadata["title"], one.text) for one in nodes]
    check_hits(served, hits)


def test_llamaindex_reranker(served: SimpleNamespace) -> None:
    """A client that asks a path or wants a form that the server does not have."""
    nodes = run("LlamaIndex", 3, served)["nodes"]
    assert [node.text for node in nodes] == [TEXTS[row] for row in order(served)]


def test_haystack_embedders(served: SimpleNamespace) -> None:
    """Embedders that the server answers with the other side."""
    names = run("Haystack", 0, served)
    check_sides(served, names["vector"], [doc.embedding for doc in names["documents"]])


@pytest.mark.parametrize("position", [1, 2])
def test_haystack_retrievers(served: SimpleNamespace, position: int) -> None:
    """Documents whose ids are hashes of their texts in place of the index's."""
    documents = run("Haystack", position, served)["documents"]
    check_hits(served, [(doc.id, doc.score, doc.meta["title"], doc.content) for doc in documents])


def test_cohere(served: SimpleNamespace) -> None:
    """A client that asks a path or wants a form that the server does not have."""
    best = run("Cohere's client", 0, served)["best"]
    assert [row for row, _ in best] == order(served)
    assert all(0 < score < 1 for _, score in best)


def test_every_block_is_run() -> None:
    """A block that is added to the page and to no test."""
    counts = {"OpenAI's client": 1, "LangChain": 4, "LlamaIndex": 4, "Haystack": 3}
    assert {name: len(found) for name, found in BLOCKS.items()} == {**counts, "Cohere's client": 1}
