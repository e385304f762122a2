"""Sparse and late-interaction students, embedded and searched by the verbs of dense ones."""

import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse

import retrodistill as rd
from retrodistill import embed, mine, search
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Doc, Pairs
from retrodistill.data.datasets import Collection
from retrodistill.models.retrievers import late_interaction
from retrodistill.models.students.towers import Towers

KINDS = {"sparse": save_tiny_sparse, "late-interaction": save_tiny_late_interaction}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(KINDS[kind](tmp_path_factory.mktemp(kind) / "model"))


@pytest.fixture(scope="module")
def index(model: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed with the command, in blocks that do not fit the collection."""
    out = tmp_path_factory.mktemp("index") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late_interaction, "DOCS_AT_ONCE", 7)
        words = f"--data beir:{folder} --model {model} --out {out} --max-tokens 64"
        assert embed.main([*words.split(), "--precision", "float32"]) == 0
    return out


def all_pairs(collection: Collection, query_ids: list[str]) -> Pairs:
    queries = [collection.queries.get(query) for query in query_ids]
    docs = [Doc(doc.id, doc.title, doc.text) for doc in collection.docs]
    rows = np.indices((len(queries), len(docs))).reshape(2, -1)
    return Pairs(queries, docs, rows[0], rows[1])


def test_an_index_folder_finds_what_the_exact_teacher_prefers(
    kind: str, model: Path, index: Path, collection: Collection
) -> None:
    """Mean-pooled vectors; a query read as a document; padding that counts in MaxSim."""
    teacher = rd.load_teacher(f"{kind}:{model}", collection, max_tokens=64, precision="float32")
    query_ids = list(collection.query_ids("test"))[:5]
    pairs = all_pairs(collection, query_ids)
    scores = teacher.score(pairs).reshape(len(query_ids), -1)
    searcher = rd.Searcher.open(index, precision="float32")
    ids = [doc.id for doc in pairs.docs]
    answers = searcher.search_many([query.full_text for query in pairs.queries], k=10)
    for hits, expected in zip(answers, scores, strict=True):
        matching = [at for at in np.argsort(-expected) if kind != "sparse" or expected[at] > 0]
        found = [hit.score for hit in hits]
        np.testing.assert_allclose(found, expected[matching[:10]], rtol=1e-5)
        by_id = dict(zip(ids, expected.tolist(), strict=True))
        np.testing.assert_allclose(found, [by_id[hit.doc_id] for hit in hits], rtol=1e-5)
        assert all(hit.title or hit.text for hit in hits)


def test_the_retriever_finds_what_the_index_finds(
    kind: str, model: Path, index: Path, folder: Path, tmp_path: Path
) -> None:
    """Two ways to the same student that do not agree."""
    shared = ["--data", f"beir:{folder}", "--split", "test", "--precision", "float32"]
    mined = ["--retriever", f"{kind}:{model}", "--depth", "5", "--max-tokens", "64"]
    assert mine.main([*shared, *mined, "--out", str(tmp_path / "mined")]) == 0
    searched = ["--index", str(index), "--k", "5", "--out", str(tmp_path / "searched")]
    assert search.main([*shared, *searched]) == 0
    runs = [rd.Run.read(tmp_path / name).to_dict() for name in ("mined", "searched")]
    assert runs[0].keys() == runs[1].keys()
    for query, docs in runs[0].items():
        assert docs == pytest.approx(runs[1][query], rel=1e-5)


def test_a_search_answers_on_the_terminal(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that opens for runs only."""
    assert search.main(["--index", str(index), "asthma", "--k", "2", "--explain"]) == 0
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 3
    assert "every document that can match is scored" in output.err


@pytest.mark.parametrize(
    "setting", ["--index hnsw", "--recall 0.9", "--dimensions 8", "--memory 2GB"]
)
def test_a_setting_for_vectors_is_refused(
    setting: str, model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that does nothing: a graph that was never built, dimensions that were not cut."""
    words = f"--data beir:{folder} --model {model} --out {tmp_path / 'i'} {setting}"
    assert embed.main(words.split()) == 2
    assert f"{setting.split()[0]} is for models with one dense vector" in capsys.readouterr().err


def test_conditions_and_efforts_are_refused(index: Path) -> None:
    """Documents that do not fit a condition, among the answers."""
    searcher = rd.Searcher.open(index)
    with pytest.raises(ConfigError, match="--where needs an index of dense vectors"):
        searcher.search("asthma", where="year > 2000")
    with pytest.raises(ConfigError, match="searched exactly"):
        searcher.set_recall(0.9)


@pytest.mark.parametrize("damage", ["cut", "missing", "model"])
def test_a_damaged_folder_is_refused(damage: str, index: Path, tmp_path: Path) -> None:
    """Half of the documents searched, without a word."""
    copy = tmp_path / "copy"
    shutil.copytree(index, copy)
    largest = max((copy / "index").iterdir(), key=lambda path: path.stat().st_size)
    if damage == "cut":
        largest.write_bytes(largest.read_bytes()[:-3])
    elif damage == "missing":
        largest.unlink()
    else:
        weights = next((copy / "model").rglob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="copy"):
        rd.Searcher.open(copy)


class FirstDocuments:
    """A retriever of somebody's own: the first documents, for every query."""

    fingerprint = "first"
    nbytes = 0

    def __init__(self, argument, docs, options) -> None:
        self._count = int(argument or 3)

    def top(self, queries, k):
        """Yield the first rows for each query."""
        count = min(self._count, k)
        for _ in queries:
            yield np.arange(count), np.arange(count, 0, -1).astype(np.float32)


def test_a_retriever_of_ones_own_needs_no_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that cannot be extended from outside of the package."""
    module = types.ModuleType("my_lab")
    module.FirstDocuments = FirstDocuments  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_lab", module)
    words = f"--data beir:{folder} --retriever my_lab:FirstDocuments:2 --out {tmp_path / 'run'}"
    assert mine.main(words.split()) == 0
    lists = rd.Run.read(tmp_path / "run").to_dict()
    assert {len(docs) for docs in lists.values()} == {2}


def test_a_folder_of_a_stranger_chooses_no_code(index: Path, tmp_path: Path) -> None:
    """An index folder from elsewhere, whose manifest names a module to import."""
    copy = tmp_path / "copy"
    shutil.copytree(index, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest.pop("checksum", None)
    manifest["details"]["retriever"] = "antigravity:geohash"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="code that is not part of retrodistill"):
        rd.Searcher.open(copy)
    assert "antigravity" not in sys.modules


def test_batches_are_of_the_size_that_is_asked(
    kind: str, model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--batch-tokens` that changes nothing, found when a long document outgrows the memory."""
    sizes = []
    outputs = Towers.outputs

    def seen(self, texts, side):
        sizes.append(self.batch_tokens)
        return outputs(self, texts, side)

    monkeypatch.setattr(Towers, "outputs", seen)
    words = f"--data beir:{folder} --model {model} --out {tmp_path / 'i'} --batch-tokens 128"
    assert embed.main(words.split()) == 0
    assert {*sizes} == {128}
