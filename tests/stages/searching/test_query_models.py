"""An index of one model, searched with the queries of a student that shares its document tower."""

import copy
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_model
from sentence_transformers import SentenceTransformer

from retrodistill import embed, search
from retrodistill.base.command import parse
from retrodistill.base.config import SearchConfig
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest, digest_files
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.towers import side_modules, tower_bytes, two_towers
from retrodistill.stages.evaluation.efficiency import files_bytes
from retrodistill.stages.pipelines import verbs
from retrodistill.stages.reporting.chain import chain
from retrodistill.stages.searching import Searcher, search_run

PROMPTS = {"query": "query: ", "document": "the document: "}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"), layers=2, prompts=PROMPTS)


@pytest.fixture(scope="module")
def pair(base: Path) -> SentenceTransformer:
    """Two towers of the base, of which the query tower has moved far enough to rank otherwise."""
    model = SentenceTransformer(str(base), device="cpu")
    pair = two_towers(model, model)
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in side_modules(pair, "query")[0].parameters():
            weights += 0.3 * weights.std(unbiased=False) * torch.randn_like(weights)
    return pair


@pytest.fixture(scope="module")
def student(pair: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the towers, with the manifest that a training would write."""
    folder = tmp_path_factory.mktemp("student") / "student"
    DenseEncoder(pair).save(folder)
    _stamp(folder)
    return folder


def _stamp(folder: Path) -> None:
    fingerprint = digest_files(folder, "*.safetensors")
    Manifest(kind="student", fingerprint=fingerprint, inputs={}, config={}).write(folder)


def embedded(folder: Path, model: Path, out: Path, *words: str) -> Path:
    command = f"--data beir:{folder} --model {model} --out {out} --precision float32"
    assert embed.main([*command.split(), *words]) == 0
    return out


@pytest.fixture(scope="module")
def index(
    folder: Path, base: Path, private_cache: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return embedded(folder, base, tmp_path_factory.mktemp("index") / "base")


@pytest.fixture
def doc_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the documents that are encoded; loading a model tries one text of each side."""
    calls: list[int] = []
    encode = DenseEncoder.encode_docs

    def counted(self: DenseEncoder, texts: list[str]) -> np.ndarray:
        calls.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(DenseEncoder, "encode_docs", counted)
    return calls


def test_the_base_index_answers_as_the_students_own(
    folder: Path,
    collection: Collection,
    index: Path,
    student: Path,
    tmp_path: Path,
    doc_calls: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Documents encoded again for a student of new queries, or queries read by the old tower."""
    own = embedded(folder, student, tmp_path / "own")
    assert "are in the cache" in capsys.readouterr().err
    assert Manifest.read(own).fingerprint == Manifest.read(index).fingerprint
    assert Manifest.read(own).inputs["encoder"] != Manifest.read(index).inputs["encoder"]
    searchers = [
        Searcher.open(index, query_model=student, precision="float32"),
        Searcher.open(own, precision="float32"),
        Searcher.open(index, precision="float32"),
    ]
    runs = [search_run(searcher, collection, "test", 10) for searcher in searchers]
    assert doc_calls == []
    assert runs[0].fingerprint == runs[1].fingerprint
    assert runs[0].fingerprint != runs[2].fingerprint
    same = Searcher.open(index, query_model=own / "model", precision="float32")
    assert search_run(same, collection, "test", 10).fingerprint == runs[0].fingerprint


def prompt(model: SentenceTransformer) -> None:
    model.prompts["document"] = "another: "


def limit(model: SentenceTransformer) -> None:
    side_modules(model, "document")[0].max_seq_length = 7


def weight(model: SentenceTransformer) -> None:
    with torch.no_grad():
        next(side_modules(model, "document")[0].parameters())[3, 3] += 1e-3


@pytest.mark.parametrize("change", [prompt, limit, weight])
def test_another_document_side_is_refused(
    change: Callable[[SentenceTransformer], None],
    pair: SentenceTransformer,
    base: Path,
    index: Path,
    tmp_path: Path,
) -> None:
    """Queries of one space against documents of another: a full page of noise, without a word."""
    other = copy.deepcopy(pair)
    change(other)
    DenseEncoder(other).save(tmp_path / "other")
    with pytest.raises(ConfigError) as caught:
        Searcher.open(index, query_model=tmp_path / "other")
    for part in (f"--query-model {tmp_path / 'other'}", str(base), "embed the collection again"):
        assert part in str(caught.value)


def test_another_dimension_is_refused(index: Path, tmp_path: Path) -> None:
    """The product of 16 numbers with 32 fails in the library, in its words."""
    short = save_tiny_model(tmp_path, layers=1, dimension=16, prompts=PROMPTS)
    with pytest.raises(ConfigError, match="does not read documents as .* dimensions differ"):
        Searcher.open(index, query_model=short)


def test_the_index_says_where_texts_are_cut(
    folder: Path, base: Path, student: Path, collection: Collection, tmp_path: Path
) -> None:
    """A student that reads 128 tokens beside documents of 8, or is refused because it could."""
    short = embedded(folder, base, tmp_path / "short", "--max-tokens", "8")
    searcher = Searcher.open(short, query_model=student, precision="float32")
    assert isinstance(searcher.encoder, DenseEncoder)
    assert searcher.encoder.max_tokens == 8
    own = embedded(folder, student, tmp_path / "own", "--max-tokens", "8")
    assert Manifest.read(short).fingerprint == Manifest.read(own).fingerprint
    expected = search_run(Searcher.open(own, precision="float32"), collection, "test", 10)
    assert search_run(searcher, collection, "test", 10).fingerprint == expected.fingerprint


def test_first_dimensions_are_those_of_both(
    folder: Path, base: Path, student: Path, collection: Collection, tmp_path: Path
) -> None:
    """32 numbers of a query against 16 of a document."""
    runs = []
    for model in (base, student):
        out = embedded(folder, model, tmp_path / model.name, "--dimensions", "16")
        searcher = Searcher.open(out, query_model=student, precision="float32")
        assert searcher.encoder.dimension == 16
        runs.append(search_run(searcher, collection, "test", 10).fingerprint)
    assert runs[0] == runs[1]


def test_queries_run_in_a_number_type_of_their_own(
    folder: Path, base: Path, student: Path, tmp_path: Path
) -> None:
    """Documents embedded in bfloat16 on a GPU cannot be searched where it is slow."""
    out = embedded(folder, base, tmp_path / "half", "--precision", "bfloat16")
    searcher = Searcher.open(out, query_model=student, precision="float32")
    assert isinstance(searcher.encoder, DenseEncoder)
    assert searcher.encoder.dtype == torch.float32
    assert searcher.search("vitamin and asthma", k=2)


def test_a_query_tower_with_fewer_positions_cuts_its_queries_there(
    base: Path, tmp_path: Path
) -> None:
    """An index of long documents that a small query tower cannot serve, only because of them."""
    narrow = save_tiny_model(tmp_path / "narrow", layers=1, max_tokens=256)
    models = [SentenceTransformer(str(path), device="cpu") for path in (narrow, base)]
    models[0][0].model.config.max_position_embeddings = 12
    pair = two_towers(*models)
    encoder = DenseEncoder(pair, max_tokens=100, precision="float32")
    long = "cell blood bone skin heart liver brain lung cell blood bone skin heart"
    np.testing.assert_allclose(
        *encoder.encode_queries([long, " ".join(long.split()[:10])]), atol=1e-6
    )


def test_older_indexes_open_and_are_compared(
    index: Path, student: Path, base: Path, tmp_path: Path
) -> None:
    """An index without a record is refused to everybody, or open to everybody."""
    old = tmp_path / "old"
    shutil.copytree(index, old)
    manifest = Manifest.read(old)
    inputs = {role: value for role, value in manifest.inputs.items() if role != "doc_encoder"}
    assert inputs != manifest.inputs
    replace(manifest, inputs=inputs).write(old)
    assert Searcher.open(old).search("vitamin", k=2)
    hits = Searcher.open(old, query_model=student, precision="float32").search("vitamin", k=3)
    assert hits == Searcher.open(index, query_model=student, precision="float32").search(
        "vitamin", k=3
    )
    other = save_tiny_model(tmp_path / "other", layers=2, prompts=PROMPTS, seed=9)
    with pytest.raises(ConfigError, match=f"as {base} does"):
        Searcher.open(old, query_model=other)


def test_an_index_without_dense_vectors_is_refused(
    index: Path, student: Path, tmp_path: Path
) -> None:
    """A sparse index that is searched by its own model although another one was given."""
    sparse = tmp_path / "sparse"
    shutil.copytree(index, sparse)
    manifest = Manifest.read(sparse)
    replace(manifest, details={**manifest.details, "retriever": "sparse"}).write(sparse)
    with pytest.raises(ConfigError, match="dense vectors, but .* for sparse search: omit it"):
        Searcher.open(sparse, query_model=student)


def test_a_run_names_its_query_model(
    folder: Path, index: Path, student: Path, tmp_path: Path
) -> None:
    """A run that looks like the base model's, and is repeated as one."""
    out, copied = tmp_path / "run", tmp_path / "student"
    shutil.copytree(student, copied)
    words = f"--index {index} --query-model {copied} --data beir:{folder} --k 10 --out {out}"
    assert search.main([*words.split(), "--precision", "float32"]) == 0
    manifest = Manifest.read(out)
    encoder = DenseEncoder(student, precision="float32")
    assert manifest.inputs["query_model"] == encoder.fingerprint
    assert manifest.details["model"] == str(copied)
    origins = {origin.artifact: origin for origin in chain([out])}
    assert {str(out), str(index), str(copied)} <= origins.keys()
    command = shlex.split(origins[str(out)].command)
    assert command[command.index("--query-model") + 1] == str(copied)
    config = parse(SearchConfig, command[3:], "search", "")
    verbs.search(replace(config, out=tmp_path / "again"))
    assert Run.read(tmp_path / "again").fingerprint == Run.read(out).fingerprint
    assert origins[str(out)].cannot == ""
    weights = next(copied.rglob("query_*/*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    _stamp(copied)
    (origin,) = [origin for origin in chain([out]) if origin.artifact == str(out)]
    assert "--query-model) has changed since" in origin.cannot


def test_mistakes_are_found_before_the_work(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A collection that is read for minutes before a typing error is named."""
    words = f"--index {index} --data beir:none --out {tmp_path / 'run'} --query-model"
    assert search.main([*words.split(), "students/none/there"]) == 2
    assert "--query-model: there is no folder students/none/there" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--query-model needs --index"):
        SearchConfig(query=("a",), data="beir:x", model="m", query_model="m")


def test_explain_names_both_towers(
    index: Path, student: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The size of a folder passes for what a query needs."""
    words = f"--index {index} --query-model {student} --explain vitamin"
    assert search.main(words.split()) == 0
    assert f"queries are read by {student} (query tower 0.1 MB, document" in capsys.readouterr().err
    sizes = tower_bytes(student)
    assert sizes is not None
    assert sizes["query"] == files_bytes(base, "*.safetensors")
    assert sum(sizes.values()) == files_bytes(student, "*.safetensors")
    assert tower_bytes(base) is None
