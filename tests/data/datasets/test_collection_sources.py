"""Collections of ir_datasets and the hub's layout, and the cache that keeps them."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import cache_folder
from retrodistill.base.types import Doc
from retrodistill.data.datasets import load_collection
from retrodistill.data.qrels import read_qrels

DOCS = [{"_id": "d1", "title": "One", "text": "first"}, {"_id": "d2", "title": "", "text": "two"}]
QUERIES = [{"_id": "q1", "text": "what is one"}, {"_id": "q2", "text": "and two"}]
JUDGED = [{"query-id": "q2", "corpus-id": "d2", "score": 1}]


def save_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "collections"


@pytest.fixture
def beir(tmp_path: Path, private_cache: Path) -> Path:
    save_jsonl(tmp_path / "data" / "corpus.jsonl", DOCS)
    save_jsonl(tmp_path / "data" / "queries.jsonl", QUERIES)
    return tmp_path / "data"


@pytest.fixture
def hub(tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in the hub's layout: a sub-folder for each configuration."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    save_jsonl(tmp_path / "hub" / "corpus" / "corpus.jsonl", DOCS)
    save_jsonl(tmp_path / "hub" / "queries" / "queries.jsonl", QUERIES)
    save_jsonl(tmp_path / "hub" / "qrels" / "test.jsonl", JUDGED)
    return tmp_path / "hub"


def as_saved(hub: Path) -> None:
    """Leave the sub-folders as they are."""


def with_configurations(hub: Path) -> None:
    """Name the sub-folders in README.md, as data sets on the hub do."""
    parts = {"corpus": "corpus", "queries": "queries", "default": "qrels"}
    lines = [f"- config_name: {name}\n  data_files: {folder}/*" for name, folder in parts.items()]
    lines[2] = "- config_name: default\n  data_files:\n  - split: test\n    path: qrels/test.jsonl"
    (hub / "README.md").write_text("---\nconfigs:\n" + "\n".join(lines) + "\n---\n")


def with_judgements_beside(hub: Path) -> None:
    (hub / "qrels").rename(hub.with_name("hub-qrels"))


@pytest.mark.parametrize("change", [as_saved, with_configurations, with_judgements_beside])
def test_the_hubs_layouts_are_read(hub: Path, change: Callable[[Path], None]) -> None:
    """Judgements that are not found, so that every system scores nothing."""
    change(hub)
    collection = load_collection(f"hf:{hub}")
    assert list(collection.docs) == [Doc("d1", "One", "first"), Doc("d2", "", "two")]
    assert collection.splits == ("test",)
    assert collection.qrels("test") == {"q2": {"d2": 1}}
    assert collection.query_ids("test") == ["q2"]


@pytest.mark.parametrize("written", ["{home}/hub/", "~/hub"])
def test_a_hub_folder_may_be_written_as_people_do(
    hub: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """A slash at the end that loses the judgements, or ~ that is looked for on the hub."""
    monkeypatch.setenv("HOME", str(hub.parent))
    with_judgements_beside(hub)
    collection = load_collection(f"hf:{written.format(home=hub.parent)}")
    assert collection.qrels("test") == {"q2": {"d2": 1}}


def test_a_hub_folder_that_changes_is_read_again(hub: Path) -> None:
    """A cache that answers with the old texts."""
    before = load_collection(f"hf:{hub}")
    save_jsonl(hub / "corpus" / "corpus.jsonl", [*DOCS, {"_id": "d3", "title": "", "text": "3"}])
    after = load_collection(f"hf:{hub}")
    assert (len(before.docs), len(after.docs)) == (2, 3)
    assert before.fingerprint != after.fingerprint


def test_mistakes_in_a_hub_folder_are_explained(hub: Path) -> None:
    """A traceback out of a library for a column of another name."""
    save_jsonl(hub / "qrels" / "test.jsonl", [{"query": "q2", "doc": "d2", "score": 1}])
    with pytest.raises(DataError, match="query-id, corpus-id, score"):
        load_collection(f"hf:{hub}").qrels("test")
    save_jsonl(hub / "corpus" / "corpus.jsonl", [{"_id": "d1", "body": "x"}])
    with pytest.raises(DataError, match=r"row 0: the key text is missing"):
        load_collection(f"hf:{hub}")
    (hub / "queries" / "queries.jsonl").unlink()
    (hub / "queries").rmdir()
    with pytest.raises(DataError, match="needs the configurations corpus and queries"):
        load_collection(f"hf:{hub}")


def test_sub_datasets_are_splits(tmp_path: Path) -> None:
    """A lost train split, or one of another corpus that is mistaken for this one's."""
    import ir_datasets
    from ir_datasets.formats import TrecQrels, TrecScoredDocs, TsvDocs, TsvQueries
    from ir_datasets.util import LocalDownload

    def made(name: str, content: str) -> LocalDownload:
        (tmp_path / name).write_text(content)
        return LocalDownload(tmp_path / name)

    docs = TsvDocs(made("docs.tsv", "d1\tone\nd2\ttwo\n"))
    queries = TsvQueries(made("queries.tsv", "q1\tfirst\nq2\tsecond\n"))
    train = TrecQrels(made("train", "q1 0 d1 1\nq1 0 d1 2\n"), {})
    test = TrecQrels(made("test", "q2 0 d2 1\n"), {})
    scored = TrecScoredDocs(made("scored", "q1 Q0 d2 1 0.5 run\n"))
    unrelated = TsvDocs(made("other.tsv", "x\ty\n"))
    register, dataset = ir_datasets.registry.register, ir_datasets.Dataset
    register("made-splits", dataset(docs, queries, scored))
    register("made-splits/train", dataset(docs, queries, train))
    register("made-splits/dev/test", dataset(docs, queries, test))
    register("made-splits/other", dataset(unrelated, queries, test))
    register("made-bare", dataset(docs))
    register("made-bare/asked", dataset(docs, queries, test))

    collection = load_collection("irds:made-splits")
    assert collection.splits == ("train", "dev/test")
    assert collection.qrels("train") == {"q1": {"d1": 2}}
    assert collection.query_ids("dev/test") == ["q2"]
    assert list(collection.scoreddocs or ()) == [("q1", "d2", 0.5)]
    assert load_collection("irds:made-splits/dev/test").splits == ("test",)
    assert load_collection("irds:made-splits/train").scoreddocs is None
    with pytest.raises(ConfigError, match=r"no queries.*made-bare/asked"):
        load_collection("irds:made-bare")


def test_a_damaged_cache_is_rebuilt(beir: Path, private_cache: Path) -> None:
    """Texts cut off by a full disk, that are read as a smaller corpus."""
    original = load_collection(f"beir:{beir}")
    (folder,) = private_cache.iterdir()
    for name in ("docs.arrow", "queries.ids.npy", "manifest.json"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
        assert list(load_collection(f"beir:{beir}").docs) == list(original.docs)
        (folder / name).unlink()
        assert list(load_collection(f"beir:{beir}").docs) == list(original.docs)
    assert [path.name for path in private_cache.iterdir()] == [folder.name]


def test_no_flipped_byte_of_the_cache_is_read(
    beir: Path, private_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong texts (71 of 100 flips), tracebacks, and once a process killed by a signal."""
    original = load_collection(f"beir:{beir}")
    docs, queries = list(original.docs), list(original.queries)
    (folder,) = private_cache.iterdir()
    random = np.random.default_rng(0)
    for name in ("docs.arrow", "docs.ids.npy", "queries.arrow", "queries.ids.npy"):
        for _ in range(15):
            content = bytearray((folder / name).read_bytes())
            content[random.integers(len(content))] ^= 1 << int(random.integers(8))
            (folder / name).write_bytes(content)
            capsys.readouterr()
            reopened = load_collection(f"beir:{beir}")
            assert (list(reopened.docs), list(reopened.queries)) == (docs, queries)
            assert reopened.fingerprint == original.fingerprint
            assert reopened.docs.rows(["d2", "d1"]).tolist() == [1, 0]
            assert capsys.readouterr().err.count("is damaged: ") == 1
    assert [path.name for path in private_cache.iterdir()] == [folder.name]


def test_a_flipped_fingerprint_of_the_cache_is_not_believed(
    beir: Path, private_cache: Path
) -> None:
    """Scores of this corpus refused as another's, because its manifest was damaged."""
    original = load_collection(f"beir:{beir}")
    (folder,) = private_cache.iterdir()
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(original.docs.fingerprint, "0" * 64))
    assert load_collection(f"beir:{beir}").docs.fingerprint == original.docs.fingerprint


def test_a_second_opening_reads_the_cache(beir: Path, private_cache: Path) -> None:
    """A second opening that reads the source again, or leaves a second copy."""
    load_collection(f"beir:{beir}")
    (folder,) = private_cache.iterdir()
    state = (folder / "docs.arrow").stat()
    load_collection(f"beir:{beir}")
    after = (folder / "docs.arrow").stat()
    assert (after.st_ino, after.st_mtime_ns) == (state.st_ino, state.st_mtime_ns)
    assert cache_folder("collections") == private_cache


def test_processes_that_build_at_once_agree(beir: Path, private_cache: Path) -> None:
    """Two workers that start together, of which one dies or sees half a corpus."""
    rows = [{"_id": f"n{number}", "title": "", "text": "x " * 20} for number in range(20_000)]
    save_jsonl(beir / "corpus.jsonl", rows)
    code = "from retrodistill.data.datasets import load_collection as load; "
    code += f"print(load('beir:{beir}'))"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(outputs) == 1
    assert "20000 documents" in outputs.pop()
    assert len(list(private_cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_explained(
    beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback where another folder in one variable would help."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="RETRODISTILL_CACHE"):
        load_collection(f"beir:{beir}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"_id": "x", "text": "\\ud800"}', r"corpus.jsonl:4: .*surrogate"),
        (b'{"_id": "x", "text": "\xff"}', r"corpus.jsonl:4: not JSON in UTF-8"),
        (b'["x", "y"]', r"corpus.jsonl:4: expected an object"),
        (b'{"_id": "x", "title": "no text"}', r"corpus.jsonl:4: the key text is missing"),
        (b'{"_id": true, "text": "y"}', r"corpus.jsonl:4: _id must be a string"),
        (b'{"_id": "x", "text": "y", "title": 3}', r"corpus.jsonl:4: title must be a string"),
        (b'{"_id": "d2", "text": "y"}', r"corpus.jsonl:4: duplicate id 'd2'.*corpus.jsonl:2"),
    ],
)
def test_a_malformed_text_is_reported_with_its_line(beir: Path, line: bytes, message: str) -> None:
    """Line numbers that are off by the blank lines, or an error that names no line."""
    with (beir / "corpus.jsonl").open("ab") as stream:
        stream.write(b"\n" + line + b"\n")
    with pytest.raises(DataError, match=message):
        load_collection(f"beir:{beir}")


def test_a_cut_archive_is_refused(beir: Path) -> None:
    """Half a download that is taken for the corpus."""
    packed = gzip.compress((beir / "corpus.jsonl").read_bytes())
    (beir / "corpus.jsonl.gz").write_bytes(packed[:-10])
    (beir / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match=r"cannot read .*corpus.jsonl.gz after line"):
        load_collection(f"beir:{beir}")


def test_empty_collections_are_refused(beir: Path) -> None:
    """An empty index, or an empty query that matches any document."""
    (beir / "queries.jsonl").write_text('{"_id": "q1", "text": " "}\n')
    with pytest.raises(DataError, match=r"queries.jsonl:1: query 'q1' has no text"):
        load_collection(f"beir:{beir}")
    (beir / "queries.jsonl").write_text("")
    assert len(load_collection(f"beir:{beir}").queries) == 0
    (beir / "corpus.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no documents"):
        load_collection(f"beir:{beir}")


@pytest.mark.parametrize(
    ("content", "qrels"),
    [
        ("query-id\tcorpus-id\tscore\nq 1\td 1\t2\n\n", {"q 1": {"d 1": 2}}),
        ("q1 0 d1 -1\nq1 0 d2 1\n", {"q1": {"d1": -1, "d2": 1}}),
        ("q1\t0\td1\t1\r\n", {"q1": {"d1": 1}}),
        ('q1\t<dbpedia:"Heroes">\t1\n', {"q1": {'<dbpedia:"Heroes">': 1}}),
        ('q1\t"<dbpedia:""Heroes"">"\t1\n', {"q1": {'<dbpedia:"Heroes">': 1}}),
        ('"q1\td1\t1\n', {'"q1': {"d1": 1}}),
    ],
)
def test_judgement_files_of_all_forms_are_read(
    tmp_path: Path, content: str, qrels: dict[str, dict[str, int]]
) -> None:
    """Ids that lose their quotes or spaces, and then match no document."""
    (tmp_path / "test.tsv").write_text(content, newline="")
    assert read_qrels(tmp_path / "test.tsv") == qrels


def test_contradicting_judgements_are_refused(tmp_path: Path) -> None:
    """A grade that depends on the order of lines."""
    (tmp_path / "test.tsv").write_text("q\td\t1\nq\td\t1\nq\td\t2\n")
    with pytest.raises(DataError, match=r"test.tsv:3: .* grade 2.*earlier line says 1"):
        read_qrels(tmp_path / "test.tsv")
