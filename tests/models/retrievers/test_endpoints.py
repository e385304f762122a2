"""Served models as retrievers: the sides, the transport, and answers that are wrong."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.corpus import save_small_collection
from fakes.embedding_server import EmbeddingServer, Refusal, serve
from fakes.models import save_tiny_model

from retrodistill.base.config import MineSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.models.retrievers import load_retriever
from retrodistill.models.retrievers.endpoints import transport
from retrodistill.models.retrievers.endpoints.address import (
    EmbeddingsAddress,
    SearchAddress,
    parse_address,
)
from retrodistill.models.retrievers.endpoints.embeddings import (
    PROBES,
    EndpointEncoder,
    read_vectors,
)
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.mining import mine_candidates

PROMPTS = {"query": "time of the heart : ", "document": "some old print : "}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that reads queries and documents with different prompts."""
    return save_tiny_model(tmp_path_factory.mktemp("student"), layers=2, prompts=PROMPTS)


@pytest.fixture(scope="module")
def encoder(student: Path) -> DenseEncoder:
    return DenseEncoder(student, precision="float32")


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = save_small_collection(tmp_path_factory.mktemp("collection") / "small")
    return load_collection(f"beir:{folder}")


@pytest.fixture
def server(encoder: DenseEncoder, collection: Collection) -> Iterator[EmbeddingServer]:
    with serve(encoder, collection.docs) as server:
        yield server


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of whoever runs the tests is sent."""
    for variable in ("RETRODISTILL_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


def run_of(collection: Collection, *specs: str) -> dict[str, dict[str, float]]:
    settings = MineSettings(retriever=specs, depth=10, precision="float32")
    return mine_candidates(collection, "test", settings).to_dict()


def close(first: dict[str, dict[str, float]], second: dict[str, dict[str, float]]) -> bool:
    return first.keys() == second.keys() and all(
        first[query].keys() == second[query].keys()
        and first[query] == pytest.approx(second[query], abs=1e-5)
        for query in first
    )


def test_a_served_student_finds_what_the_local_one_finds(
    server: EmbeddingServer, collection: Collection, student: Path
) -> None:
    """A query embedded as a document: nothing fails, and the measures fall."""
    local = run_of(collection, f"dense:{student}")
    assert close(run_of(collection, f"endpoint:{server.url}"), local)
    server.sides = "ignored"
    assert not close(run_of(collection, f"endpoint:{server.url}"), local)


def test_prefixes_replace_the_sides_of_a_server_that_has_none(
    server: EmbeddingServer, collection: Collection, student: Path, tmp_path: Path
) -> None:
    """The prompts of other people's servers put nowhere, twice, or before the other side."""
    local = run_of(collection, f"dense:{student}")
    bare = save_tiny_model(tmp_path, layers=2)
    server.encoder = DenseEncoder(bare, precision="float32")
    prefixes = ",".join(f"{side}-prefix={text}" for side, text in PROMPTS.items())
    assert close(run_of(collection, f"endpoint:{server.url},{prefixes}"), local)
    assert not any("input_type" in body for body in server.bodies)
    swapped = f"query-prefix={PROMPTS['document']},document-prefix={PROMPTS['query']}"
    assert not close(run_of(collection, f"endpoint:{server.url},{swapped}"), local)


def test_a_server_that_refuses_input_type_is_asked_without(
    server: EmbeddingServer, encoder: DenseEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenAI's own endpoint, which refuses unknown fields, could not be measured."""
    server.sides = "refused"
    served = endpoint(server.url)
    assert np.array_equal(
        served.encode_queries(["heart test"]), encoder.encode_docs(["heart test"])
    )
    assert "the same vector as a query and as a document" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="Unrecognized request argument"):
        endpoint(f"{server.url},input-type=query/passage")


def test_a_server_with_two_sides_is_not_warned_of(
    server: EmbeddingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning that everybody learns to overlook."""
    assert endpoint(server.url).has_sides
    assert "the same vector" not in capsys.readouterr().err


def test_words_of_input_type_can_be_others(server: EmbeddingServer) -> None:
    """Servers that call a document a passage."""
    endpoint(f"{server.url},input-type=search_query/search_document")
    assert [body["input_type"] for body in server.bodies] == ["search_query", "search_document"]
    server.bodies.clear()
    endpoint(f"{server.url},input-type=none")
    assert not any("input_type" in body for body in server.bodies)


def endpoint(argument: str) -> EndpointEncoder:
    address = parse_address(argument)
    assert isinstance(address, EmbeddingsAddress)
    return EndpointEncoder(address)


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_both_encodings_and_any_order_are_read(
    encoding: Any, server: EmbeddingServer, encoder: DenseEncoder
) -> None:
    """Vectors of other texts where a server answers out of order, or bytes read as numbers."""
    server.encoding = encoding
    server.alter = lambda answer: answer | {"data": answer["data"][::-1]}
    texts = [f"{word} heart" for word in ("light", "large", "print", "sleep", "small")] * 2
    served = endpoint(f"{server.url},batch=3")
    np.testing.assert_allclose(
        served.encode_queries(texts), encoder.encode_queries(texts), atol=1e-6
    )
    assert sum("light heart" in text for text in server.texts) == 1, "equal texts are sent once"


def each(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def alter(answer: dict[str, Any]) -> dict[str, Any]:
        return answer | {"data": [row | {"embedding": change(row)} for row in answer["data"]]}

    return alter


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (
            lambda a: a | {"data": a["data"][1:]},
            f"holds {len(PROBES) - 1} vectors for {len(PROBES)}",
        ),
        (lambda a: a | {"data": [a["data"][0]] * len(a["data"])}, "indices are not 0 to 3"),
        (lambda a: a | {"data": [{"embedding": [1.0]}] * 4}, "indices are not 0 to 3"),
        (lambda a: {"vectors": []}, 'holds no list "data"'),
        (lambda a: [1], 'holds no list "data"'),
        (lambda a: "<html>", "is not JSON: '<html>'"),
        (each(lambda row: [float("nan"), 1.0]), "text 0 of 4 holds NaN or infinity"),
        (each(lambda row: [None, 1.0]), "text 0 of 4 holds NaN or infinity"),
        (each(lambda row: [1e300, 1.0]), "text 0 of 4 holds NaN or infinity"),
        (each(lambda row: [0.0, 0.0]), "text 0 of 4 is all zero"),
        (each(lambda row: [1.0] * (row["index"] + 1)), "different dimensions: 1, 2, 3, 4"),
        (each(lambda row: "AAA"), "vector of text 0 cannot be read"),
        (each(lambda row: []), "is not a list of numbers"),
        (each(lambda row: {"x": 1}), "vector of text 0 cannot be read"),
    ],
)
def test_a_malformed_answer_is_an_error_that_names_the_server(
    alter: Callable[[Any], Any], message: str, server: EmbeddingServer
) -> None:
    """Vectors that are missing, mixed up, or not numbers, searched as if they were sound."""
    server.alter = alter
    with pytest.raises(DataError, match=message) as caught:
        endpoint(server.url)
    assert server.url in str(caught.value)


def test_another_dimension_than_that_of_the_probes_is_refused(server: EmbeddingServer) -> None:
    """A second model behind the same address, in the middle of a run."""
    served = endpoint(server.url)
    server.alter = each(lambda row: [1.0, 2.0])
    with pytest.raises(DataError, match="different dimensions: 2, 32"):
        served.encode_docs(["heart"])


def test_a_model_that_changes_during_the_run_is_noticed(
    server: EmbeddingServer, collection: Collection, tmp_path: Path
) -> None:
    """Documents of one model compared with queries of the next one."""
    retriever = load_retriever(f"endpoint:{server.url}", collection.docs)
    assert len([*retriever.top(["heart", "light"], 3)]) == 2
    before = retriever.fingerprint
    other = save_tiny_model(tmp_path, layers=2, prompts=PROMPTS, seed=1)
    server.encoder = DenseEncoder(other, precision="float32")
    with pytest.raises(DataError, match="serves another model than at the start"):
        [*retriever.top(["heart", "light"], 3)]
    assert load_retriever(f"endpoint:{server.url}", collection.docs).fingerprint != before


def test_a_single_query_is_a_single_request(
    server: EmbeddingServer, collection: Collection
) -> None:
    """The latency of a benchmark, three times what a client sees."""
    retriever = load_retriever(f"endpoint:{server.url}", collection.docs)
    assert retriever.nbytes == 60 * 32 * 4  # the documents are embedded for it
    server.bodies.clear()
    [*retriever.top(["heart"], 3)]
    assert [body["input"] for body in server.bodies] == [["heart"]]


def test_documents_and_queries_without_text_are_not_sent(
    server: EmbeddingServer, collection: Collection, tmp_path: Path
) -> None:
    """One empty document of a corpus, and no server can be measured on it."""
    folder = save_small_collection(tmp_path / "gaps")
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "empty", "title": "", "text": " "}\n')
    docs = load_collection(f"beir:{folder}").docs
    retriever = load_retriever(f"endpoint:{server.url}", docs)
    (full, _), (nothing, _), (last, _) = retriever.top(["heart", " ", "light"], 100)
    assert len(full) == len(last) == 60
    assert len(nothing) == 0
    whole = load_retriever(f"endpoint:{server.url}", collection.docs)
    assert [*last] == [*[*whole.top(["heart", "light"], 100)][1][0]]


def test_a_busy_server_is_waited_for(
    server: EmbeddingServer, encoder: DenseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A measurement that dies of the first 429, or hammers a server that asked for a pause."""
    monkeypatch.setattr(transport, "BACK_OFF", 0.01)
    served = endpoint(f"{server.url},batch=1")
    busy = Refusal(429, "slow down", {"Retry-After": "0.3"})
    server.script = [busy, Refusal(503, "loading"), Refusal(500, "oops")]
    start = time.monotonic()
    vectors = served.encode_docs(["heart", "light", "print"])
    assert time.monotonic() - start >= 0.3
    np.testing.assert_allclose(vectors, encoder.encode_docs(["heart", "light", "print"]), atol=1e-6)
    server.script = [Refusal(429, "slow down", {"Retry-After": "9000"})]
    with pytest.raises(ConfigError, match="gave up after 1 of 6 tries: HTTP 429, slow down"):
        served.encode_docs(["heart"])
    server.script = [Refusal(500, "oops")] * transport.TRIES
    with pytest.raises(ConfigError, match="gave up after 6 of 6 tries: HTTP 500, oops"):
        served.encode_docs(["heart"])


def test_a_few_requests_are_in_flight_and_an_error_ends_all(server: EmbeddingServer) -> None:
    """One request after another on a server that batches; or a thousand more after a refusal."""
    served = endpoint(f"{server.url},batch=1,concurrency=3")
    server.delay = 0.05
    served.encode_docs([f"heart {number}" for number in range(9)])
    assert server.most_at_once == 3
    server.bodies.clear()
    server.script = [Refusal(400, "too long")]
    with pytest.raises(ConfigError, match="too long"):
        served.encode_docs([f"heart {number}" for number in range(100)])
    assert len(server.bodies) <= 6


def test_a_slow_server_is_asked_for_less_at_a_time(server: EmbeddingServer) -> None:
    """Four requests that each take too long beside the others, sent again four at a time."""
    served = endpoint(f"{server.url},batch=1,concurrency=4")
    server.delay = 0.05
    server.script = [Refusal(504, "took too long", {"Retry-After": "0.01"})] * 3
    served.encode_docs([f"heart {number}" for number in range(8)])
    server.most_at_once = 0
    served.encode_docs([f"light {number}" for number in range(8)])
    assert server.most_at_once == 1


def test_a_silent_server_is_given_up(server: EmbeddingServer) -> None:
    """A command that hangs for ever."""
    server.delay = 1.0
    with pytest.raises(ConfigError, match=r"cannot be reached: no answer within 0\.2 s"):
        endpoint(f"{server.url},model=student,timeout=0.2")


def test_a_refusal_names_url_status_and_message(server: EmbeddingServer) -> None:
    """`HTTP error`, and nothing about which server, or what it said."""
    with pytest.raises(ConfigError) as caught:
        endpoint(f"{server.url},model=studen")
    assert f"{server.url}/embeddings: HTTP 404, there is no model 'studen'." in str(caught.value)
    assert "option model=" in str(caught.value)
    server.script = [Refusal(308, "moved", {"Location": "http://127.0.0.1:9/elsewhere"})]
    with pytest.raises(ConfigError, match="it redirects to http://127.0.0.1:9/elsewhere"):
        endpoint(f"{server.url},model=student")


def test_the_key_is_sent_and_never_shown(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key in a log, of another host from ~/.netrc, or of another server than the one named."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password netrc-secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server.key = "right-secret-key"
    with pytest.raises(ConfigError, match="No key was sent: set RETRODISTILL_API_KEY or OPENAI"):
        endpoint(f"{server.url},model=student")
    assert "authorization" not in server.headers[-1]
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-secret-key")
    with pytest.raises(ConfigError, match="The key of OPENAI_API_KEY was sent") as caught:
        endpoint(f"{server.url},model=student")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("RETRODISTILL_API_KEY", "right-secret-key\n")
    endpoint(f"{server.url},model=student")
    monkeypatch.setenv("OTHER_KEY", "wrong-secret-key")
    with pytest.raises(ConfigError, match="The key of OTHER_KEY was sent"):
        endpoint(f"{server.url},model=student,key=OTHER_KEY")
    with pytest.raises(ConfigError, match="key=NO_SUCH_KEY: this environment variable is not set"):
        endpoint(f"{server.url},model=student,key=NO_SUCH_KEY")


def test_the_only_model_is_taken_and_of_several_one_is_chosen(server: EmbeddingServer) -> None:
    """The server's default, whatever that is, measured under the name of another model."""
    endpoint(server.url)
    assert {body["model"] for body in server.bodies} == {"student"}
    server.models = ["student", "teacher"]
    with pytest.raises(ConfigError, match="serves student, teacher: choose with the option model="):
        endpoint(server.url)
    server.models = None  # a server without a list has one model
    server.bodies.clear()
    assert endpoint(server.url).dimension == 32
    assert not any("model" in body for body in server.bodies)


def test_dimensions_are_asked_for_and_checked(server: EmbeddingServer) -> None:
    """An option that the server ignores: 32 dimensions in a row that says 8."""
    assert endpoint(f"{server.url},dimensions=8").dimension == 8
    server.alter = each(lambda row: [1.0] * 32)
    with pytest.raises(DataError, match="different dimensions: 8, 32"):
        endpoint(f"{server.url},dimensions=8")


def test_a_served_search_is_the_servers_ranking(
    server: EmbeddingServer, collection: Collection, student: Path
) -> None:
    """Hits that are searched again here, or options that never reach the server."""
    address = f"endpoint:{server.origin}/search,index=kl,method=hybrid,rerank=5"
    assert close(run_of(collection, address), run_of(collection, f"dense:{student}"))
    sent = {"index": "kl", "method": "hybrid", "rerank": 5}
    assert all(body.items() >= sent.items() for body in server.bodies)
    assert {body["k"] for body in server.bodies} == {10}


def test_the_order_of_hits_counts_where_scores_are_of_two_scales(
    server: EmbeddingServer, collection: Collection
) -> None:
    """A reranked pipeline sorted again by score: logits of the top below cosines of the tail."""
    hits = [("d3", -4.0), ("d1", -5.0), ("d2", 0.9), ("d0", 0.8)]
    rows = [{"id": doc, "score": score} for doc, score in hits]
    server.alter = lambda answer: {"hits": rows}
    run = run_of(collection, f"endpoint:{server.origin}/search,rerank=2")
    assert all([*docs] == ["d3", "d1", "d2", "d0"] for docs in run.values())


@pytest.mark.parametrize(
    ("hits", "message"),
    [
        ([{"id": "x9", "score": 1.0}], "finds document 'x9', which the collection does not have"),
        ([{"id": "d1", "score": 1.0}] * 2, "gives a document twice"),
        ([{"id": "d1", "score": float("inf")}], "a score is NaN or infinite"),
        ([{"id": f"d{n}", "score": -n} for n in range(11)], "gives 11 hits where 10"),
        ([{"id": "d1"}], "the answer is not"),
        (None, "the answer is not"),
    ],
)
def test_a_search_that_answers_wrongly_is_an_error(
    hits: Any, message: str, server: EmbeddingServer, collection: Collection
) -> None:
    """An index of another collection, measured as one that finds nothing."""
    server.alter = lambda answer: {"hits": hits}
    with pytest.raises(DataError, match=message) as caught:
        load_retriever(f"endpoint:{server.origin}/search", collection.docs)
    assert server.origin in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:8080", "http://localhost:8080/v1/embeddings"),
        ("http://localhost:8080/", "http://localhost:8080/v1/embeddings"),
        ("http://localhost:8080/v1", "http://localhost:8080/v1/embeddings"),
        ("https://h/api/v1/embeddings/", "https://h/api/v1/embeddings"),
        ("http://h:7997/embeddings", "http://h:7997/embeddings"),
        ("http://h/search", "http://h/search"),
        ("http://h/kb/search/,method=bm25", "http://h/kb/search"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    """A path that is guessed where it was given, or a search that is asked for vectors."""
    address = parse_address(text)
    assert address.url == url
    assert isinstance(address, SearchAddress) == ("search" in text)


def test_a_prefix_may_be_a_sentence_with_commas() -> None:
    """An instruction cut at its first comma; a prefix whose last blank is lost."""
    instruction = "Instruct: Given a query, find passages, best first\nQuery: "
    address = parse_address(f"http://h/v1,query-prefix={instruction},batch=7")
    assert isinstance(address, EmbeddingsAddress)
    assert address.query_prefix == instruction
    assert address.batch == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost:8080", "must be as http://localhost:8080/v1, but it is 'localhost:8080'"),
        ("ftp://h/v1", "must be as"),
        ("http://h:port/v1", "must be as"),
        ("http://h/v1,modle=x", "Did you mean 'model'?"),
        ("http://h/v1,method=bm25", "unknown setting 'method'"),
        ("http://h/search,method=splade", "method must be one of"),
        ("http://h/search,rerank=some", "rerank= must be a number of hits, true or false"),
        ("http://h/search,rerank=0", "rerank= must be"),
        ("http://h/v1,batch=many", "batch must be of type int"),
        ("http://h/v1,batch=0", "--batch must be at least 1"),
        ("http://h/v1,model=", "option model= of http://h/v1 needs a value"),
        ("http://h/v1,model=a,model=b", "is given twice"),
        ("http://h/v1,input-type=query", "must be QUERY/DOCUMENT"),
        ("http://h/v1,url=http://x", "the address comes first"),
        ("http://h/v1,key=sk-verysecret", "never the key itself"),
        ("http://me:verysecret@h/v1", "holds a name or password"),
        ("http://h/v1?api_key=verysecret", "holds a query"),
    ],
)
def test_mistakes_in_an_address_are_sentences_without_secrets(text: str, message: str) -> None:
    """A key that a message writes into a log; an option that is silently part of the path."""
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as caught:
        parse_address(text)
    assert "verysecret" not in str(caught.value)


def test_read_vectors_by_hand() -> None:
    """Big-endian bytes, or the order of the rows in place of their indices."""
    rows = [{"index": 1, "embedding": [3.0, 4.0]}, {"index": 0, "embedding": "AACAPwAAAEA="}]
    assert read_vectors({"data": rows}, 2, 2).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_the_fingerprint_is_of_what_shapes_the_vectors(server: EmbeddingServer) -> None:
    """Cells of a benchmark that two prefixes share, or that are measured again for a timeout."""
    plain = endpoint(server.url)
    assert endpoint(f"{server.url},query-prefix=x").fingerprint != plain.fingerprint
    assert endpoint(f"{server.url},timeout=7,concurrency=2").fingerprint == plain.fingerprint
