"""From a collection to an index folder, and from queries to documents."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes.corpus import save_small_collection

from retrodistill import embed, search
from retrodistill.base.config import IndexSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store import vectors
from retrodistill.data.store.runs import Run
from retrodistill.models.indexes.exact import ExactIndex
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.indexing import embed_collection
from retrodistill.stages.searching import Searcher, search_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_collection(tmp_path_factory.mktemp("searching") / "small")


@pytest.fixture(scope="module")
def collection(folder: Path, private_cache: None) -> Collection:
    return load_collection(f"beir:{folder}")


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> DenseEncoder:
    return DenseEncoder(tiny_model, max_tokens=16, precision="float32")


@pytest.fixture(scope="module")
def index_folder(
    collection: Collection,
    folder: Path,
    encoder: DenseEncoder,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("index") / "flat"
    return embed_collection(collection, encoder, out=out)


@pytest.mark.parametrize("index", ["exact", "flat", "hnsw"])
def test_run_equals_all_inner_products(
    index: str,
    collection: Collection,
    encoder: DenseEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ids that slip against vectors, at a part's border say, give a run that looks like one."""
    monkeypatch.setattr(vectors, "PART", 7)
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    out = embed_collection(
        collection, encoder, out=tmp_path / "index", settings=IndexSettings(index=index)
    )
    run = search_run(Searcher.open(out, precision="float32"), collection, "test", 10)
    ids = collection.query_ids("test")
    queries = encoder.encode_queries([collection.queries.get(id).full_text for id in ids])
    scores = queries @ encoder.encode_docs(collection.docs.full_texts()).T
    wanted = Run.from_dict(
        {
            query: dict(zip(collection.docs.ids(), row.tolist(), strict=True))
            for query, row in zip(ids, scores, strict=True)
        }
    ).top(10)
    assert run.query_ids == ids
    for (_, found, values), (_, docs, expected) in zip(run.lists(), wanted.lists(), strict=True):
        assert found == docs
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_manifest_says_what_it_was_made_from(
    index_folder: Path, collection: Collection, encoder: DenseEncoder
) -> None:
    manifest = Manifest.read(index_folder, kind="index")
    assert manifest.inputs["collection"] == collection.fingerprint
    assert manifest.inputs["encoder"] == encoder.fingerprint
    assert manifest.details["vectors"] == len(collection.docs)
    assert manifest.details["dimension"] == 32


def test_equal_inputs_give_equal_fingerprints(
    index_folder: Path, collection: Collection, encoder: DenseEncoder, tmp_path: Path
) -> None:
    again = embed_collection(collection, encoder, out=tmp_path / "again")
    assert Manifest.read(again).fingerprint == Manifest.read(index_folder).fingerprint


def test_the_folder_can_be_searched_alone(
    index_folder: Path, encoder: DenseEncoder, tmp_path: Path
) -> None:
    """An index that points at a model elsewhere breaks, or worse, finds a newer one there."""
    moved = tmp_path / "moved"
    shutil.copytree(index_folder, moved)
    searcher = Searcher.open(moved, precision="float32")
    assert searcher.encoder.fingerprint == encoder.fingerprint  # max_tokens included


def test_hits_show_the_documents(index_folder: Path, collection: Collection) -> None:
    searcher = Searcher.open(index_folder)
    hits = searcher.search("vitamin and asthma", k=3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        doc = collection.docs.get(hit.doc_id)
        assert (hit.title, hit.text) == (doc.title, doc.text)
    both = searcher.search_many(["vitamin and asthma", "lung"], k=3)
    assert [hit.doc_id for hit in both[0]] == [hit.doc_id for hit in hits]


def test_hits_without_the_collection(index_folder: Path, tmp_path: Path) -> None:
    """Another collection's texts under the same ids would be shown as what was found."""
    other = tmp_path / "index"
    shutil.copytree(index_folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    del manifest["checksum"]
    changed = save_small_collection(tmp_path / "changed", docs=61)
    for data in (None, "beir:/nowhere", f"beir:{changed}"):
        manifest["details"]["data"] = data
        (other / "manifest.json").write_text(json.dumps(manifest))
        hits = Searcher.open(other).search("vitamin", k=2)
        assert [(hit.title, hit.text) for hit in hits] == [("", "")] * 2


def test_empty_query_is_refused(index_folder: Path) -> None:
    with pytest.raises(DataError, match="query 2 is empty"):
        Searcher.open(index_folder).search_many(["lung", " "])
    with pytest.raises(DataError, match="is empty"):
        Searcher.open(index_folder).search_sets(" ")


def test_other_documents_warn(index_folder: Path, tmp_path: Path) -> None:
    """Judgements for other documents give a low score that looks like a bad student's."""
    changed = load_collection(f"beir:{save_small_collection(tmp_path / 'changed', docs=61)}")
    searcher = Searcher.open(index_folder)
    with pytest.warns(UserWarning, match="other documents than changed"):
        run = search_run(searcher, changed, "test", 5)
    assert run.query_ids == changed.query_ids("test")


def test_dimensions_must_agree(encoder: DenseEncoder) -> None:
    with pytest.raises(DataError, match=r"32 dimensions, but the index's 8"):
        Searcher(encoder, ExactIndex(8))


def test_a_failure_leaves_no_folder(
    collection: Collection,
    encoder: DenseEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half an index would be searched as a whole one."""
    bad = np.full((1, 32), np.nan, np.float32)
    monkeypatch.setattr(DenseEncoder, "encode_docs", lambda self, texts: bad.repeat(len(texts), 0))
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="NaN or infinity for document 'd0'"):
        embed_collection(collection, encoder, out=tmp_path / "index")
    assert not list(tmp_path.glob("**/*.*"))


def test_existing_folder_is_kept(
    index_folder: Path, collection: Collection, encoder: DenseEncoder
) -> None:
    with pytest.raises(ConfigError, match="--overwrite"):
        embed_collection(collection, encoder, out=index_folder)
    with pytest.raises(ConfigError, match="unknown index 'flatt'"):
        embed_collection(
            collection,
            encoder,
            out=index_folder.parent / "new",
            settings=IndexSettings(index="flatt"),
        )


def test_what_is_no_index_is_refused(tmp_path: Path, index_folder: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json"):
        Searcher.open(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(index_folder, damaged)
    vectors = damaged / "index" / "index.faiss"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        Searcher.open(damaged)


def test_commands(
    folder: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The path of the README: embed, ask, write a run."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    data, out, run = f"beir:{folder}", str(tmp_path / "index"), str(tmp_path / "run")
    made = ["--data", data, "--model", str(tiny_model), "--index", "hnsw", "--out", out]
    assert embed.main(made) == 0
    said = capsys.readouterr()
    assert said.out == out + "\n"
    assert "60 documents, about" in said.err
    assert embed.main(made) == 2
    assert "--overwrite" in capsys.readouterr().err

    assert search.main(["--index", out, "vitamin and asthma", "lung", "--k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[4]] == ["vitamin and asthma", "lung"]
    rank, _, doc, title, *text = lines[1].split()
    assert text
    assert (rank, title) == ("1", load_collection(data).docs.get(doc).title)

    asked = ["--index", out, "--data", data, "--split", "test", "--k", "5", "--out", run]
    assert search.main(asked) == 0
    assert len(Run.read(Path(run))) == 8 * 5
    assert search.main(asked) == 2
    assert search.main(["--index", str(tmp_path), "lung"]) == 2
