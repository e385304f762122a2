"""What `embed` can be asked for beside the kind of index: recall, fewer dimensions, less memory."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from retrodistill import embed, search
from retrodistill.base.config import IndexSettings
from retrodistill.base.config.search import EmbedConfig, parse_bytes
from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import Collection
from retrodistill.models.indexes import index_kind
from retrodistill.models.indexes.exact import ExactIndex
from retrodistill.models.indexes.faiss import FaissIndex
from retrodistill.models.indexes.tuning import choose_effort
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.truncated import Truncated, shortened
from retrodistill.stages.indexing import embed_collection
from retrodistill.stages.indexing.build_index import Vectors, check_memory, needed_bytes
from retrodistill.stages.searching import Searcher, search_run


@pytest.fixture(scope="module", name="encoder")
def _encoder(tiny_model: Path) -> DenseEncoder:
    return DenseEncoder(str(tiny_model), max_tokens=16, precision="float32")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))


def test_a_recall_is_measured_and_kept(
    collection: Collection, encoder: DenseEncoder, tmp_path: Path
) -> None:
    """A promise that nobody can check afterwards is an advertisement."""
    out = embed_collection(
        collection, encoder, out=tmp_path / "i", settings=IndexSettings(index="hnsw", recall=0.9)
    )
    searcher = Searcher.open(out, precision="float32")
    tuning = searcher.tuning
    assert tuning is not None
    assert tuning.chosen.recall >= tuning.target == 0.9
    assert tuning.source == "queries"
    assert isinstance(searcher.index, FaissIndex)
    assert tuning.chosen.effort.items() <= searcher.index.effort.items()
    said = searcher.explain()
    assert "hnsw, 60 vectors of 32 dimensions" in said
    assert f"recall@10 {tuning.chosen.recall:.3f} at" in said
    searcher.set_recall(0.5)
    with pytest.raises(ConfigError, match="never tuned"):
        flat = embed_collection(collection, encoder, out=tmp_path / "flat")
        Searcher.open(flat).set_recall(0.9)


class StepIndex(ExactIndex):
    """An exact index with a setting that changes nothing."""

    kind: ClassVar[str] = "step"
    efforts: Sequence[dict[str, int]] = ({"steps": 1}, {"steps": 2})

    def __init__(self, dimension: int, argument: str = "") -> None:
        super().__init__(dimension, argument)
        self.effort: dict[str, int] = {"steps": 1}


def test_an_index_from_outside_the_package_is_tuned(
    collection: Collection, encoder: DenseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That only FAISS's indexes have an effort, whatever another one offers."""
    module = ModuleType("own_indexes")
    module.__dict__["StepIndex"] = StepIndex
    monkeypatch.setitem(sys.modules, "own_indexes", module)
    spec = "own_indexes:StepIndex"
    out = embed_collection(
        collection, encoder, out=tmp_path / "i", settings=IndexSettings(index=spec, recall=0.5)
    )
    searcher = Searcher.open(out, precision="float32")
    assert searcher.tuning is not None
    assert [row.effort for row in searcher.tuning.tried] == list(StepIndex.efforts)
    searcher.set_recall(0.9)
    assert isinstance(searcher.index, StepIndex)
    assert searcher.index.effort == choose_effort(searcher.tuning, 0.9).effort


def test_memory_of_a_server_is_no_remedy() -> None:
    """A remote index, or one that needs an argument, proposed where memory is short."""
    assert index_kind("milvus").bytes_per_vector(384) is None
    with pytest.raises(ConfigError, match="These fit: exact") as error:
        check_memory("flat", 1_000_000, 384, parse_bytes("1.4GB"))
    assert "milvus" not in str(error.value)
    assert "faiss" not in str(error.value)


def test_first_dimensions(collection: Collection, encoder: DenseEncoder, tmp_path: Path) -> None:
    """Queries of full length against shorter documents, or vectors no longer of length 1."""
    out = embed_collection(
        collection, encoder, out=tmp_path / "i", settings=IndexSettings(dimensions=8)
    )
    searcher = Searcher.open(out, precision="float32")
    assert (searcher.index.dimension, searcher.encoder.dimension) == (8, 8)
    ids = collection.query_ids("test")
    queries = encoder.encode_queries([collection.queries.get(one).full_text for one in ids])
    docs = encoder.encode_docs(collection.docs.full_texts())
    cut = [
        rows[:, :8] / np.linalg.norm(rows[:, :8], axis=1, keepdims=True) for rows in (queries, docs)
    ]
    wanted = np.sort(cut[0] @ cut[1].T, axis=1)[:, ::-1][:, :5]
    run = search_run(searcher, collection, "test", 5)
    for (_, _, scores), row in zip(run.lists(), wanted, strict=True):
        np.testing.assert_allclose(scores, row, atol=1e-5)
    with pytest.raises(ConfigError, match="from 1 to the model's 32"):
        embed_collection(
            collection, encoder, out=tmp_path / "j", settings=IndexSettings(dimensions=33)
        )


def test_an_order_opens_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file opened for every part of the output: work that grows with the square of both."""
    rows = np.arange(60 * 4, dtype=np.float32).reshape(60, 4)
    files = [tmp_path / f"{part}.npy" for part in range(8)]
    for part, file in enumerate(files):
        np.save(file, rows[8 * part : 8 * part + 8])
    opened: list[Path] = []

    def counted(file: Path) -> np.ndarray:
        opened.append(file)
        return np.load(file, mmap_mode="r")

    monkeypatch.setattr("retrodistill.stages.indexing.build_index.mapped", counted)
    order = np.random.default_rng(0).permutation(60)
    parts = list(Vectors(files, 4, False).in_order(order))
    np.testing.assert_array_equal(np.concatenate([row for row, _ in parts]), order)
    np.testing.assert_array_equal(np.concatenate([own for _, own in parts]), rows[order])
    assert len(opened) <= len(files) + 1


def test_more_parts_than_files_may_be_open(tmp_path: Path) -> None:
    """`Too many open files` at two million documents, after all of them were encoded."""
    rows = np.arange(120 * 4, dtype=np.float32).reshape(120, 4)
    for part in range(120):
        np.save(tmp_path / f"{part}.npy", rows[part : part + 1])
    program = f"""
import resource
from pathlib import Path
from retrodistill.base.files import allow_open_files
from retrodistill.data.store.vectors import mapped
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
allow_open_files(120)
print(len([mapped(Path({str(tmp_path)!r}) / f"{{part}}.npy") for part in range(120)]))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout == b"120\n"


def test_zero_vectors_stay_zero() -> None:
    """A document whose first dimensions are all 0 would become NaN."""
    vectors = np.array([[0, 0, 1], [3, 4, 0]], np.float32)
    short = shortened(vectors, 2, normalised=True)
    np.testing.assert_allclose(short, [[0, 0], [0.6, 0.8]], atol=1e-6)
    np.testing.assert_array_equal(shortened(vectors, 2, normalised=False), vectors[:, :2])


def test_truncated_fingerprint_differs(encoder: DenseEncoder) -> None:
    """Vectors of other lengths under one name would be mixed in a cache."""
    cut = Truncated(encoder, 8, normalised=True)
    assert cut.fingerprint != encoder.fingerprint
    assert cut.encode_docs(["lung"]).shape == (1, 8)


def test_memory_is_refused_before_the_work(
    collection: Collection, encoder: DenseEncoder, tmp_path: Path
) -> None:
    """An index that outgrows the machine is killed after hours, without a word."""
    with pytest.raises(ConfigError, match=r"hnsw of 60 vectors .* needs about"):
        embed_collection(
            collection,
            encoder,
            out=tmp_path / "i",
            settings=IndexSettings(index="hnsw", memory="1MB"),
        )
    with pytest.raises(ConfigError, match=r"These fit: exact, sq8, binary, ivf-pq"):
        check_memory("flat", 1_000_000, 384, parse_bytes("2GB"))
    beyond = needed_bytes("exact", 99_999, 384) - needed_bytes("exact", 0, 384)
    assert beyond > 99_999 * 384 * 4  # all of them are a sample still
    assert needed_bytes("sq8", 1_000_000, 384) < 2e9 < needed_bytes("flat", 1_000_000, 384)


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2e9), ("512 MB", 512e6), ("1.5GiB", 1.5 * 2**30), ("100b", 100)]
)
def test_sizes(text: str, size: float) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["2", "GB", "-1GB", "0GB", "2 apples"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="--memory must be a size"):
        EmbedConfig(data="d", model="m", out=Path("o"), memory=text)


def test_queries_with_operators(
    collection: Collection, encoder: DenseEncoder, tmp_path: Path
) -> None:
    """An operator that is read as a word finds documents about the word."""
    searcher = Searcher.open(embed_collection(collection, encoder, out=tmp_path / "index"))
    plain = [hit.doc_id for hit in searcher.search("lung", k=5)]
    assert [hit.doc_id for hit in searcher.search_sets("lung", k=5)] == plain
    without = [hit.doc_id for hit in searcher.search_sets("vitamin NOT lung", k=5)]
    assert without
    assert not set(without) & set(plain)
    with pytest.raises(ConfigError, match="not understood"):
        searcher.search_sets("lung AND", k=5)
    assert search.main(["--index", str(tmp_path / "index"), "vitamin NOT lung", "--sets"]) == 0


def test_conditions_from_a_file(
    folder: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attributes that slip against the documents, or a layout that mixes them up."""
    rows = [f"d{row},{2000 + row % 10}" for row in range(60)]
    (tmp_path / "years.csv").write_text("\n".join(["id,year", *rows]) + "\n")
    (tmp_path / "asked.txt").write_text("# often\nyear < 2005\n\nyear = 2007\n")
    out = str(tmp_path / "index")
    made = ["--data", f"beir:{folder}", "--model", str(tiny_model), "--out", out]
    given = ["--attributes", str(tmp_path / "years.csv"), "--overwrite"]
    plain = ["--index", out, "lung", "--k", "10", "--where", "year = 2007"]
    found = []
    for more in ([], ["--workload", str(tmp_path / "asked.txt")]):
        assert embed.main([*made, *given, *more]) == 0
        capsys.readouterr()
        assert search.main([*plain, "--explain"]) == 0
        said = capsys.readouterr()
        assert "6 of 60 documents fit (10.00%): each of them is compared" in said.err
        found.append(said.out)
    assert found[0] == found[1]
    assert all(int(line.split()[2][1:]) % 10 == 7 for line in found[0].splitlines()[1:])
    assert len(found[0].splitlines()) == 1 + 6
    (tmp_path / "asked.txt").write_text("year < 2005\nyear <\n")
    assert embed.main([*made, *given, "--workload", str(tmp_path / "asked.txt")]) == 2
    assert "asked.txt, line 2" in capsys.readouterr().err
    assert embed.main([*made, "--workload", str(tmp_path / "none"), "--overwrite"]) == 2
    assert search.main([*plain[:-1], "month = 3"]) == 2
    assert "month" in capsys.readouterr().err


def test_commands(
    folder: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flags of the README do what they say."""
    out = str(tmp_path / "index")
    made = ["--data", f"beir:{folder}", "--model", str(tiny_model), "--out", out]
    assert embed.main([*made, "--index", "hnsw", "--recall", "0.9"]) == 0
    assert "recall@10" in capsys.readouterr().err
    assert search.main(["--index", out, "lung", "--k", "2", "--explain", "--recall", "0.8"]) == 0
    said = capsys.readouterr()
    assert "hnsw, 60 vectors" in said.err
    assert len(said.out.splitlines()) == 3
    assert search.main(["--index", out, "lung", "--where", "year > 3"]) == 2
    assert "Embed with --attributes" in capsys.readouterr().err
    assert embed.main([*made, "--recall", "2", "--overwrite"]) == 2
    assert "--recall must be above 0" in capsys.readouterr().err
