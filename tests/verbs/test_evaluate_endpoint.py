"""`evaluate --endpoint`: what is served, measured beside what was proven."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.corpus import save_small_collection
from fakes.embedding_server import EmbeddingServer, serve
from fakes.models import save_tiny_model

from retrodistill import evaluate, search
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.truncated import Truncated

PROMPTS = {"query": "time of the heart : ", "document": "some old print : "}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a collection, a model of two sides, and its run."""
    place = tmp_path_factory.mktemp("place")
    save_small_collection(place / "small")
    save_tiny_model(place / "student", layers=2, prompts=PROMPTS)
    words = ["--model", f"{place}/student/model", "--precision", "float32", "--k", "60"]
    words += ["--data", f"beir:{place}/small", "--out", f"{place}/local"]
    assert search.main(words) == 0
    return place


@pytest.fixture(scope="module")
def student(place: Path) -> DenseEncoder:
    return DenseEncoder(place / "student" / "model", precision="float32")


@pytest.fixture(scope="module")
def collection(place: Path) -> Collection:
    return load_collection(f"beir:{place}/small")


@pytest.fixture
def server(
    student: DenseEncoder,
    collection: Collection,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[EmbeddingServer]:
    monkeypatch.chdir(place)
    for variable in ("RETRODISTILL_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with serve(student, collection.docs) as server:
        yield server


def run(words: str) -> int:
    return evaluate.main(f"--data beir:small --metrics mrr,ndcg@10 {words}".split())


def test_endpoints_and_runs_are_one_table(
    server: EmbeddingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A served model whose numbers cannot be set beside those that were proven."""
    out = tmp_path / "report.json"
    words = f"--run local --endpoint served={server.url} --endpoint {server.origin}/search"
    assert run(f"{words} --baseline local --json {out} --depth 60") == 0
    report = json.loads(out.read_text())
    local, served, searched = report["systems"]
    assert [served["name"], searched["name"]] == ["served", f"{server.origin}/search"]
    for system in (served, searched):
        assert system["metrics"] == pytest.approx(local["metrics"])
        assert system["judged"] == local["judged"]
    assert {(test["a"], test["b"]) for test in report["tests"]} == {
        ("served", "local"),
        (f"{server.origin}/search", "local"),
    }
    about = report["endpoints"]["served"]
    assert about["address"] == server.url
    assert 0 < about["query_ms"]["p50"] <= about["query_ms"]["p95"]
    shown = capsys.readouterr().out
    assert "served: a query takes" in shown
    assert f"{server.origin}/search: a query takes" in shown


def test_a_served_model_that_reads_queries_as_documents_shows_in_the_table(
    server: EmbeddingServer, tmp_path: Path
) -> None:
    """The numbers of the local folder under the name of the endpoint."""
    out = tmp_path / "report.json"
    server.sides = "ignored"
    assert run(f"--run local --endpoint served={server.url} --json {out} --depth 60") == 0
    local, served = json.loads(out.read_text())["systems"]
    assert abs(local["metrics"]["mrr"] - served["metrics"]["mrr"]) > 1e-3


def test_the_same_vectors_agree_with_the_local_model(
    server: EmbeddingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check that fails on what is served rightly, and is switched off."""
    assert run(f"--endpoint {server.url} --against student/model") == 0
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert [server.url, "documents", "60", "1.000000", "1.000000"] in rows
    assert [server.url, "queries", "8", "1.000000", "1.000000"] in rows


def test_queries_read_as_documents_are_an_exit_status_of_1(
    server: EmbeddingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is served is not what was proven: documents agree, so that a look at them says fine."""
    server.sides = "ignored"
    assert run(f"--endpoint kl={server.url} --against student/model") == 1
    shown = capsys.readouterr()
    assert "kl does not serve student/model: the least cosine of queries is 0." in shown.err
    assert "cosine of documents" not in shown.err
    assert "judged queries" not in shown.out, "nothing is measured then"
    assert run(f"--endpoint kl={server.url} --against student/model --min-cosine 0.1") == 0


def test_vectors_of_other_lengths_are_an_exit_status_of_1(
    server: EmbeddingServer, student: DenseEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Vectors that are served without their normalisation: every cosine is 1, rankings differ."""

    class Unnormalised:
        encode_queries = student.encode_queries

        def encode_docs(self, texts: list[str]) -> object:
            return student.encode_docs(texts) * [[1 + len(text)] for text in texts]

    server.encoder = Unnormalised()
    assert run(f"--endpoint kl={server.url} --against student/model") == 1
    assert "lengths of documents differ by a factor" in capsys.readouterr().err


def test_another_model_and_a_search_cannot_be_compared(
    server: EmbeddingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comparison that passes because there was nothing to compare."""
    assert run(f"--endpoint {server.origin}/search --against student/model") == 2
    assert "gives hits" in capsys.readouterr().err
    words = f"--endpoint {server.origin}/search --endpoint kl={server.url}"
    assert run(f"{words} --against student/model") == 0
    narrow = save_tiny_model(tmp_path, layers=2, dimension=16)
    assert run(f"--endpoint {server.url} --against {narrow}") == 2
    assert "serves vectors of 32 dimensions, but" in capsys.readouterr().err


def test_shortened_vectors_are_compared_with_shortened_ones(server: EmbeddingServer) -> None:
    """A served Matryoshka size that is called another model."""
    words = f"--endpoint {server.url},dimensions=16 --against student/model"
    assert run(f"{words} --min-cosine 0.99999") == 1, "cut, but not of length 1 again"
    server.encoder = Truncated(server.encoder, 16, normalised=True)
    assert run(f"{words} --min-cosine 0.99999") == 0


def test_a_run_of_an_endpoint_has_a_card(
    server: EmbeddingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way that the refusal of --card names, leading nowhere."""
    words = f"--data beir:small --retriever endpoint:{server.url} --k 60 --out {tmp_path}/served"
    assert search.main(words.split()) == 0
    local = Run.read(Path("local")).to_dict()
    served = Run.read(tmp_path / "served").to_dict()
    assert local.keys() == served.keys()
    assert all([*served[query]] == [*local[query]] for query in local)
    assert run(f"--run {tmp_path}/served --card {tmp_path}/card.yaml") == 0
    card = (tmp_path / "card.yaml").read_text()
    assert f"--retriever endpoint:{server.url}" in card
    assert "no longer exists" not in card


def test_depth_follows_the_measures(server: EmbeddingServer) -> None:
    """Recall at 1000 of a hundred documents."""
    words = f"--endpoint {server.origin}/search --metrics recall@500"
    assert evaluate.main(f"--data beir:small {words}".split()) == 0
    assert {body["k"] for body in server.bodies} == {10, 500}
    server.bodies.clear()
    assert run(f"--endpoint {server.origin}/search") == 0
    assert {body["k"] for body in server.bodies} == {10, 100}


def test_all_servers_answer_before_the_first_is_sent_documents(
    server: EmbeddingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """An hour of embedding, and then a sentence about the second address."""
    assert run(f"--endpoint {server.url} --endpoint kl={server.url},model=none") == 2
    assert "there is no model 'none'" in capsys.readouterr().err
    assert len(server.bodies) == 3
