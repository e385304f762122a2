"""Milvus, embedded and through a server, with the exact index as the reference."""

import importlib
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from retrodistill.base.config import IndexSettings
from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.base.types import Index
from retrodistill.models.indexes import index_kind, new_index
from retrodistill.models.indexes.exact import ExactIndex

pytest.importorskip("pymilvus", reason="pymilvus is not installed: retrodistill[milvus]")
pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed: retrodistill[milvus]")

from retrodistill.models.indexes import milvus
from retrodistill.models.indexes.milvus import MilvusIndex
from retrodistill.models.indexes.milvus_client import quiet

Place = Callable[[], str]
"""Gives an index kind with a collection of its own, empty."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """File of Milvus Lite, opened in this process."""
    from milvus_lite.server_manager import server_manager_instance

    yield tmp_path_factory.mktemp("milvus") / "docs.db"
    server_manager_instance.release_all()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a server of Milvus Lite on the loopback device, and its folder."""
    folder = tmp_path_factory.mktemp("server") / "data.db"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["server", "--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with (folder.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "milvus_lite.cmdline", *words], stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder.parent / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", folder
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=["embedded", "server"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "embedded":
        uri = str(request.getfixturevalue("database"))
    else:
        uri = request.getfixturevalue("server")[0]
    return lambda: f"milvus:{uri}#c{uuid4().hex}"


def vectors_of(count: int, dimension: int = 8, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def attributes(count: int) -> pa.Table:
    rows = range(count)
    return pa.table(
        {
            "year": [None if row % 7 == 0 else 2000 + row % 25 for row in rows],
            "stars": [None if row % 5 == 0 else row % 11 / 2 for row in rows],
            "open": [None if row % 3 == 0 else row % 2 == 0 for row in rows],
            "lang": [None if row % 4 == 0 else ("de", 'e"n\\')[row % 2] for row in rows],
            "seen": pa.array(
                [
                    None if row % 6 == 0 else datetime(2020, 1, 1 + row % 28, tzinfo=UTC)
                    for row in rows
                ],
                pa.timestamp("us", "UTC"),
            ),
            "tags": [
                None if row % 9 == 0 else [f"t{row % 4}", "all"][: 1 + row % 2] for row in rows
            ],
            "none": pa.nulls(count),
        }
    )


def filled(index: Index, count: int = 300, *, own: bool = True) -> Index:
    table = attributes(count) if own else None
    index.add([f"d{row}" for row in range(count)], vectors_of(count), table)
    return index


WHERE = [
    "year >= 2010",
    "not (year >= 2010.5)",
    "year != 2003 and year < 1e30",
    "year in (2001, 2.5)",
    "year not in (2.5, 2004) or stars = 3",
    "stars > 2.5 and stars <= 4",
    "open = true or open is missing",
    "open != true",
    "lang = 'e\"n\\\\'",
    "lang > 'dd' and lang != 'x'",
    'seen >= "2020-01-15" and seen != "2020-01-20"',
    'seen = "2020-01-03T01:00:00+01:00"',
    'tags = "t1"',
    'tags not in ("t1", "all")',
    "none is missing and year is not missing",
    "none = 3 or none < 'x' or year = 2004",
    "none != 3 or year = 2004",
    "year = 1900",
]


def test_finds_what_the_exact_index_finds(place: Place) -> None:
    """A condition that means something else in another engine, or neighbours that are lost."""
    index, exact = filled(new_index(place(), 8)), filled(ExactIndex(8))
    assert isinstance(index, Index)
    queries = vectors_of(5, seed=1)
    for where in (None, *WHERE):
        wanted, wanted_scores = exact.search(queries, 10, where=where)
        found, scores = index.search(queries, 10, where=where)
        assert found == wanted, where
        for one, other in zip(scores, wanted_scores, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, atol=1e-6)
    each = [WHERE[0], None, WHERE[3], WHERE[0], "year = 1900"]
    assert index.search(queries, 4, where=each)[0] == exact.search(queries, 4, where=each)[0]


def test_conditions_that_do_not_fit_are_refused(place: Place) -> None:
    """A misspelt column that silently fits nothing, or the server's own message."""
    index = filled(new_index(place(), 8), 30)
    query = vectors_of(1)
    with pytest.raises(ConfigError, match=r"no such column.*Did you mean year"):
        index.search(query, 2, where="years > 3")
    with pytest.raises(ConfigError, match="Write a number without quotes"):
        index.search(query, 2, where="year = 'x'")
    bare = filled(new_index(place(), 8), 30, own=False)
    with pytest.raises(ConfigError, match="Embed with --attributes"):
        bare.search(query, 2, where="year > 3")
    with pytest.raises(DataError, match="attributes or none does"):
        bare.add(["x"], query, attributes(1))
    with pytest.raises(ConfigError, match="can be called 'id' in Milvus"):
        new_index(place(), 8).add(["x"], query, pa.table({"id": [1]}))
    with pytest.raises(ConfigError, match="does not allow the field name"):
        new_index(place(), 8).add(["x"], query, pa.table({"a b": [1]}))


def test_more_documents_than_milvus_returns(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own message, or a list that ends at its limit as if no more were there."""
    monkeypatch.setattr("retrodistill.models.indexes.milvus.MOST_HITS", 20)
    index = filled(new_index(place(), 8), 30)
    with pytest.raises(ConfigError, match=r"at most 20 documents a query, but 25 are wanted"):
        index.search(vectors_of(1), 25)
    assert len(index.search(vectors_of(1), 20)[0][0]) == 20
    few = filled(new_index(place(), 8), 10)
    assert len(few.search(vectors_of(1), 25)[0][0]) == 10


def test_simultaneous_blocks_give_the_loggers_their_levels_back() -> None:
    """A thread that saves the silence of another one, and restores that: silent for ever."""
    level = logging.getLogger("pymilvus").level
    first, second = quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert logging.getLogger("pymilvus").level > logging.CRITICAL
    second.__exit__(None, None, None)
    assert logging.getLogger("pymilvus").level == level


def test_ties_short_rows_and_nothing_to_find(place: Place) -> None:
    """Rows that are filled up, or an order that depends on who was first."""
    index = new_index(place(), 2)
    assert index.search(np.ones((2, 2), np.float32), 3)[0] == [[], []]
    index.add([], np.empty((0, 2), np.float32))
    index.add(["b", "d", "a", "c"], np.tile(np.array([[0.5, 0]], np.float32), (4, 1)))
    assert index.search(np.eye(2, dtype=np.float32)[:1], 9)[0] == [["d", "c", "b", "a"]]
    assert index.search(np.empty((0, 2), np.float32), 5) == ([], [])
    assert len(index) == 4


def test_ids_are_opaque(place: Place, tmp_path: Path) -> None:
    """An id with a quote ends the condition that it stands in, and names other documents."""
    ids = ['"] or id != "', "it's", "a\\", "line\nbreak\r\t", "\x01", "ü€𝄞", " ", "7", "x" * 65_535]
    index = new_index(place(), 8)
    index.add(ids, vectors_of(len(ids)))
    assert sorted(index.search(vectors_of(1), 20)[0][0]) == sorted(ids)
    index.save(tmp_path)
    loaded = index_kind("milvus").load(tmp_path)
    for name in ids:
        with pytest.raises(DataError, match="duplicate"):
            loaded.add([name], vectors_of(1))
    loaded.delete(ids[:1])
    assert sorted(loaded.search(vectors_of(1), 20)[0][0]) == sorted(ids[1:])
    loaded.delete(ids[1:])
    assert len(loaded) == 0


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["x", "x"], np.ones((2, 8)), "duplicate"),
        (["x", "d0"], np.ones((2, 8)), "duplicate"),
        (["x", 7], np.ones((2, 8)), "must be a string"),
        (["x", ""], np.ones((2, 8)), "must be a string"),
        (["x", "y" * 65_536], np.ones((2, 8)), "has 65,536 bytes"),
        (["x", "é" * 33_000], np.ones((2, 8)), "has 66,000 bytes"),
        (["x", "y"], np.array([[1.0] * 8, [np.nan] * 8]), "'y' holds NaN"),
        (["x", "y"], np.full((2, 8), 1e39), "NaN or infinity"),
        (["x", "y"], np.ones((2, 9)), r"shape \(2, 9\)"),
        (["x", "y"], np.ones((3, 8)), "2 ids came with 3"),
    ],
)
def test_bad_additions_add_nothing(
    database: Path, ids: list[Any], vectors: NDArray[np.float32], message: str
) -> None:
    """Half an addition would leave a collection that nobody can finish."""
    index = filled(new_index(f"milvus:{database}#c{uuid4().hex}", 8), 3, own=False)
    assert isinstance(index, MilvusIndex)
    with pytest.raises(DataError, match=message):
        index.add(ids, vectors)
    assert len(index) == index._count() == 3


def test_bad_attributes_and_queries(database: Path) -> None:
    """What a server would cut, or refuse in the middle."""
    index = filled(new_index(f"milvus:{database}#c{uuid4().hex}", 8), 3)
    for name, value, message in (
        ("lang", "x" * 65_536, "'lang' of document 'x' has 65,536 bytes"),
        ("tags", ["x" * 65_536], "'tags' of document 'x' has 65,536 bytes"),
        ("tags", ["x"] * 4097, "'tags' of document 'x' has 4,097 strings"),
        ("year", "old", "whole numbers"),
    ):
        with pytest.raises(DataError, match=message):
            index.add(["x"], vectors_of(1), pa.table({name: [value]}))
    with pytest.raises(DataError, match="2 rows of attributes"):
        index.add(["x"], vectors_of(1), attributes(2))
    assert len(index) == 3
    with pytest.raises(DataError, match="query vector 1 holds NaN"):
        index.search(np.array([[1.0] * 8, [np.nan] * 8]), 2)
    with pytest.raises(ConfigError, match="at least 1"):
        index.search(vectors_of(1), 0)
    with pytest.raises(DataError, match="not in the index, such as 'x'"):
        index.delete(["d0", "x"])
    assert len(index) == 3


def test_save_load_and_delete(place: Place, tmp_path: Path) -> None:
    """A loaded index that knows no attributes, forgets a deletion, or takes an id twice."""
    spec = place().partition("#")[0]
    index = filled(new_index(spec, 8))
    index.delete([f"d{row}" for row in range(0, 300, 2)])
    index.save(tmp_path)
    loaded = index_kind(spec).load(tmp_path)
    assert len(loaded) == len(index) == 150
    assert loaded.dimension == 8
    queries = vectors_of(4, seed=1)
    for where in (None, "year >= 2010", 'seen < "2020-01-10"', 'tags = "all"'):
        found = loaded.search(queries, 9, where=where)[0]
        assert found == index.search(queries, 9, where=where)[0]
        assert all(int(name[1:]) % 2 for row in found for name in row)
    with pytest.raises(DataError, match="duplicate"):
        loaded.add(["d1"], queries[:1], attributes(1))
    loaded.add(["d0"], 2 * queries[:1], attributes(1))
    assert loaded.search(queries[:1], 1)[0] == [["d0"]]
    loaded.delete(["d0"])
    assert len(loaded) == 150


def test_two_indexes_of_the_same_documents_are_apart(place: Place, tmp_path: Path) -> None:
    """A second command that fills, or changes, the collection of a finished index."""
    spec = place().partition("#")[0]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        filled(new_index(spec, 8), 20).save(tmp_path / name)
    index_kind(spec).load(tmp_path / "one").delete(["d0"])
    assert len(index_kind(spec).load(tmp_path / "two")) == 20
    with pytest.raises(DataError, match="holds 19 documents, but 20 were saved"):
        index_kind(spec).load(tmp_path / "one")


def test_what_was_sent_is_not_sent_again(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted command that starts at the first document, or has some of them twice."""
    spec = place().partition("#")[0]
    monkeypatch.setattr(milvus, "BATCH_ROWS", 50)
    sent: list[str] = []

    def fill(spec: str, limit: int = 10_000) -> Index:
        index = new_index(spec, 8)
        assert isinstance(index, MilvusIndex)
        real = index._client.insert

        def insert(collection: str, rows: list[dict[str, Any]]) -> None:
            if len(sent) + len(rows) > limit:
                raise KeyboardInterrupt
            sent.extend(row["id"] for row in rows)
            real(collection, rows)

        monkeypatch.setattr(index._client, "insert", insert)
        try:
            for start in (0, 100, 200):
                ids = [f"d{row}" for row in range(start, start + 100)]
                own = attributes(300).slice(start, 100)
                index.add(ids, vectors_of(300)[start : start + 100], own)
        finally:
            monkeypatch.setattr(index._client, "insert", real)
        return index

    with pytest.raises(KeyboardInterrupt):
        fill(spec, limit=160)
    assert len(sent) == 150
    index = fill(spec)
    assert len(sent) == len(set(sent)) == 300
    index.save(tmp_path)
    exact = filled(ExactIndex(8))
    queries = vectors_of(4, seed=1)
    where = "year > 2005"
    assert index.search(queries, 9, where=where)[0] == exact.search(queries, 9, where=where)[0]


def test_another_content_under_a_name_is_refused(place: Place) -> None:
    """Vectors of an older model that stay where the new ones should be."""
    spec = place()
    filled(new_index(spec, 8), 20)
    again = filled(new_index(spec, 8), 20)
    assert len(again) == 20
    with pytest.raises(DataError, match="holds another document of the id 'd3'"):
        new_index(spec, 8).add(["d3"], vectors_of(1, seed=5), attributes(20).slice(3, 1))
    with pytest.raises(DataError, match="holds another document of the id 'd3'"):
        new_index(spec, 8).add(["d3"], vectors_of(20)[3:4], attributes(20).slice(4, 1))
    with pytest.raises(ConfigError, match="of other fields"):
        new_index(spec, 9).add(["d3"], vectors_of(1, 9), attributes(1))
    fewer = filled(new_index(spec, 8), 10)
    with pytest.raises(DataError, match="holds 20 documents, but 10 were added"):
        fewer.save(Path("nowhere"))


def test_a_lost_collection_is_told(place: Place, tmp_path: Path) -> None:
    """A search that finds nothing for no visible reason."""
    index = filled(new_index(place(), 8), 20)
    assert isinstance(index, MilvusIndex)
    index.save(tmp_path)
    index._client.drop_collection(index.collection)
    with pytest.raises(DataError, match="has no collection"):
        MilvusIndex.load(tmp_path)
    with pytest.raises(DataError, match=r"refuses .* run the same command again"):
        index.search(vectors_of(1), 2)
    path = tmp_path / "index.json"
    whole = json.loads(path.read_text())
    for broken, message in (
        (whole | {"uri": str(tmp_path / "gone.db")}, "which is not there"),
        (whole | {"kind": "flat"}, "'flat' index, but 'milvus'"),
        (whole | {"attributes": {"year": "colour"}}, "damaged"),
        ({"kind": "milvus"}, "damaged"),
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match=message):
            MilvusIndex.load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="holds no index"):
        MilvusIndex.load(tmp_path)
    assert not (tmp_path / "gone.db").exists()


def test_an_empty_index_is_saved(place: Place, tmp_path: Path) -> None:
    """An empty collection is an odd but valid one."""
    new_index(place(), 8).save(tmp_path)
    assert len(index_kind("milvus").load(tmp_path)) == 0


def test_no_password_is_kept(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that lies in every index folder that is shared."""
    uri, _ = server
    monkeypatch.setenv("MILVUS_TOKEN", "root:secret-7")
    filled(new_index(f"milvus:{uri}#c{uuid4().hex}", 8), 5).save(tmp_path)
    assert "secret-7" not in (tmp_path / "index.json").read_text()
    with pytest.raises(ConfigError, match="no password.*MILVUS_TOKEN") as caught:
        new_index("milvus:http://root:secret-7@127.0.0.1:1", 8)
    assert "secret-7" not in str(caught.value)


def test_addresses_that_lead_nowhere(
    server: tuple[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A mistake that shows after the documents have been encoded, or as a page of traceback."""
    for spec, message in (
        ("milvus", "needs an address"),
        ("milvus:docs", r"ends in \.db"),
        (f"milvus:{tmp_path}/no/docs.db", "does not exist, so"),
        ("milvus:ftp://host", "not an address of Milvus"),
        (f"milvus:{tmp_path}/docs.db#a-b", "letters, digits and _ only"),
        ("milvus:http://127.0.0.1:1", "cannot be opened .* Is the server there"),
        (f"milvus:{server[1]}", "another process opened the file"),
    ):
        with pytest.raises(ConfigError, match=message):
            new_index(spec, 8)
    with pytest.raises(ConfigError, match="at least 1"):
        new_index(f"milvus:{tmp_path}/docs.db", 0)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("package", ["pymilvus", "milvus_lite"])
def test_missing_packages_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """A ModuleNotFoundError instead of the command that helps."""
    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr("retrodistill.models.indexes.milvus_client.import_module", without)
    with pytest.raises(MissingExtra, match=r"pip install 'retrodistill\[milvus\]'"):
        new_index(f"milvus:{tmp_path}/docs.db", 8)


def test_listing_the_kinds_imports_no_milvus() -> None:
    """`--help` that waits seconds for grpc."""
    code = (
        "import sys, retrodistill.models.indexes.milvus as m; m.MilvusIndex.bytes_per_vector(3); "
    )
    code += "sys.exit('pymilvus' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_embed_and_search(place: Place, tmp_path: Path, tiny_model: Path, folder: Path) -> None:
    """An index that works alone, but not behind the commands."""
    from retrodistill.data.datasets import load_collection
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.stages.indexing import embed_collection
    from retrodistill.stages.searching import Searcher

    collection, encoder = load_collection(f"beir:{folder}"), DenseEncoder(tiny_model)
    spec = place().partition("#")[0]
    own = attributes(len(collection.docs))
    out = embed_collection(
        collection,
        encoder,
        out=tmp_path / "index",
        attributes=own,
        settings=IndexSettings(index=spec),
    )
    flat = embed_collection(
        collection,
        encoder,
        out=tmp_path / "flat",
        attributes=own,
        settings=IndexSettings(index="exact"),
    )
    texts = collection.queries.full_texts()
    for where in (None, "year > 2005"):
        found, wanted = (Searcher.open(at).find(texts, 5, where=where) for at in (out, flat))
        assert found[0] == wanted[0]
