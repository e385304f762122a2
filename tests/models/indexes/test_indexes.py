"""One contract for every index of the registry, with the exact index as the reference."""

import builtins
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.base.registry import INDEXES
from retrodistill.base.types import Index
from retrodistill.models.indexes import index_kind, new_index
from retrodistill.models.indexes.base import VectorIndex
from retrodistill.models.indexes.exact import ExactIndex
from retrodistill.models.indexes.faiss import FaissIndex, FlatIndex, HNSWIndex
from retrodistill.models.indexes.tuning import EffortTuning, choose_effort, tune

LOCAL = [
    "faiss:HNSW16,SQ8" if name == "faiss" else name for name in INDEXES if name != "milvus"
]  # milvus has tests of its own
WHOLE = ("exact", "flat")
every_index = pytest.mark.parametrize("name", LOCAL)


def unit_vectors(count: int, dimension: int = 64, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def near_vectors(count: int, dimension: int = 64, seed: int = 0) -> NDArray[np.float32]:
    """Vectors in groups, as those of texts are: at random all would be equally far."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((40, dimension))
    own = centres[generator.integers(0, 40, count)]
    vectors = own + 0.7 * generator.standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def filled(name: str, vectors: NDArray[np.float32]) -> Index:
    index: Index = new_index(name, vectors.shape[1])
    index.add([f"d{row}" for row in range(len(vectors))], vectors)
    return index


@every_index
def test_fulfils_the_protocol(name: str) -> None:
    """A part that lacks a method fails only in the middle of a long stage."""
    assert isinstance(new_index(name, 4), Index)


def test_exact_by_hand() -> None:
    """Inner products 3, 1 and -2 with (1, 0): an order by distance would differ."""
    index = ExactIndex(2)
    index.add(["a", "b", "c"], np.array([[1, 9], [3, 0], [-2, 0]], np.float32))
    ids, scores = index.search(np.array([[1, 0]], np.float32), 2)
    assert ids == [["b", "a"]]
    assert scores[0].tolist() == [3.0, 1.0]
    assert scores[0].dtype == np.float32


@every_index
def test_finds_what_the_exact_index_finds(name: str) -> None:
    """An index that loses neighbours makes a good student look bad."""
    vectors, queries = near_vectors(2000), near_vectors(50, seed=1)
    wanted, wanted_scores = filled("exact", vectors).search(queries, 10)
    found, scores = filled(name, vectors).search(queries, 10)
    if name in WHOLE:
        assert found == wanted
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)
    same = sum(len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True))
    assert same / (10 * len(queries)) >= 0.95
    assert all((np.diff(row) <= 0).all() for row in scores)


@every_index
def test_add_in_parts_equals_add_at_once(name: str) -> None:
    """A second chunk that restarts the row numbers gives its documents the first chunk's ids."""
    vectors = unit_vectors(60, 8)
    parts = new_index(name, 8)
    for start in range(0, 60, 25):
        rows = range(start, min(start + 25, 60))
        parts.add([f"d{row}" for row in rows], vectors[list(rows)])
    assert len(parts) == 60
    assert parts.search(vectors[:5], 3)[0] == filled(name, vectors).search(vectors[:5], 3)[0]


@every_index
def test_k_beyond_the_size_gives_all(name: str) -> None:
    """Faiss fills missing places with row -1, which would name the last document."""
    ids, scores = filled(name, unit_vectors(3, 8)).search(unit_vectors(2, 8, seed=1), 10)
    assert [sorted(row) for row in ids] == [["d0", "d1", "d2"]] * 2
    assert [len(row) for row in scores] == [3, 3]


@every_index
def test_empty_index_and_no_queries(name: str) -> None:
    """Nothing to find is an answer, not a crash."""
    index = new_index(name, 4)
    ids, scores = index.search(unit_vectors(2, 4), 5)
    assert ids == [[], []]
    assert [len(row) for row in scores] == [0, 0]
    index.add([], np.empty((0, 4), np.float32))
    assert len(index) == 0
    assert filled(name, unit_vectors(3, 4)).search(np.empty((0, 4), np.float32), 5) == ([], [])


@every_index
def test_equal_scores_come_by_descending_id(name: str) -> None:
    """Ties in the order of insertion would rank the same student differently each time."""
    index = new_index(name, 4)
    same = np.tile(np.array([[0.5, 0, 0, 0]], np.float32), (4, 1))
    index.add(["b", "d", "a", "c"], same)
    assert index.search(np.eye(4, dtype=np.float32)[:1], 4)[0] == [["d", "c", "b", "a"]]


def test_exact_keeps_the_tie_rule_at_the_cut() -> None:
    """The reference must say which of two equal documents is the k-th."""
    index = ExactIndex(1)
    index.add(["b", "d", "a", "c", "top"], np.array([[1], [1], [1], [1], [2]], np.float32))
    assert index.search(np.ones((1, 1), np.float32), 3)[0] == [["top", "d", "c"]]


@every_index
@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["x", "x"], np.ones((2, 4)), "duplicate"),
        (["x", "d0"], np.ones((2, 4)), "duplicate"),
        (["x", 7], np.ones((2, 4)), "must be a string"),
        (["x", ""], np.ones((2, 4)), "must be a string"),
        (["x", "y"], np.array([[1, 1, 1, 1], [1, np.nan, 1, 1]]), "'y' holds NaN"),
        (["x", "y"], np.array([[np.inf, 1, 1, 1], [1, 1, 1, 1]]), "'x' holds NaN"),
        (["x", "y"], np.full((2, 4), 1e39), "NaN or infinity"),
        (["x", "y"], np.ones((2, 5)), r"shape \(2, 5\)"),
        (["x", "y"], np.ones(4), r"shape \(4,\)"),
        (["x", "y"], np.ones((3, 4)), "2 ids came with 3"),
    ],
)
def test_bad_additions_add_nothing(
    name: str, ids: list[str], vectors: NDArray[np.float32], message: str
) -> None:
    """Half an addition would leave ids and vectors out of step for good."""
    index = filled(name, unit_vectors(3, 4))
    with pytest.raises(DataError, match=message):
        index.add(ids, vectors)
    assert len(index) == 3
    index.add(["x", "y"], np.eye(4, dtype=np.float32)[:2] * 9)
    assert index.search(np.eye(4, dtype=np.float32)[:1], 1)[0] == [["x"]]


@every_index
def test_bad_queries_are_refused(name: str) -> None:
    """A NaN query finds arbitrary documents at a score that compares with nothing."""
    index = filled(name, unit_vectors(3, 4))
    with pytest.raises(DataError, match="query vector 1 holds NaN"):
        index.search(np.array([[1, 0, 0, 0], [np.nan, 0, 0, 0]], np.float32), 2)
    with pytest.raises(DataError, match=r"shape \(1, 3\)"):
        index.search(np.ones((1, 3), np.float32), 2)
    with pytest.raises(ConfigError, match="at least 1"):
        index.search(np.ones((1, 4), np.float32), 0)


@every_index
def test_arguments_are_left_alone(name: str) -> None:
    """An index that keeps the caller's array changes when the caller reuses it."""
    vectors = unit_vectors(20, 8)
    index = filled(name, vectors)
    before = index.search(unit_vectors(3, 8, seed=1), 5)[0]
    vectors[:] = 0
    assert index.search(unit_vectors(3, 8, seed=1), 5)[0] == before


@every_index
def test_save_and_load(name: str, tmp_path: Path) -> None:
    """A loaded index must answer as the saved one, and go on refusing known ids."""
    index = filled(name, unit_vectors(100, 8))
    index.save(tmp_path)
    loaded = index_kind(name).load(tmp_path)
    queries = unit_vectors(5, 8, seed=1)
    assert len(loaded) == 100
    assert loaded.dimension == 8
    assert loaded.search(queries, 10)[0] == index.search(queries, 10)[0]
    with pytest.raises(DataError, match="duplicate"):
        loaded.add(["d5"], unit_vectors(1, 8))
    loaded.add(["new"], 2 * queries[:1])
    assert loaded.search(queries[:1], 1)[0] == [["new"]]


@every_index
def test_empty_index_is_saved(name: str, tmp_path: Path) -> None:
    """An empty collection is an odd but valid one."""
    new_index(name, 8).save(tmp_path)
    assert len(index_kind(name).load(tmp_path)) == 0


@every_index
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    """A flipped byte in the vectors gives plausible, wrong results."""
    filled(name, unit_vectors(50, 8)).save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="damaged"):
            index_kind(name).load(tmp_path)
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0x40
        path.write_bytes(flipped)
        if path.suffix != ".json":
            with pytest.raises(DataError, match=path.name):
                index_kind(name).load(tmp_path)
        path.unlink()
        with pytest.raises(DataError, match=r"holds no index|missing"):
            index_kind(name).load(tmp_path)
        path.write_bytes(whole)
    index_kind(name).load(tmp_path)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    """A graph read as a flat index would be searched as something else."""
    filled("hnsw", unit_vectors(5, 8)).save(tmp_path)
    with pytest.raises(DataError, match="'hnsw' index, but 'flat' was wanted"):
        FlatIndex.load(tmp_path)


def test_an_older_version_says_so(tmp_path: Path) -> None:
    """`KeyError: 'deleted'` does not say that embedding again mends it."""
    filled("flat", unit_vectors(3, 8)).save(tmp_path)
    table = pa.table({"id": pa.array(["a", "b", "c"], pa.large_string())})
    with (
        pa.OSFile(str(tmp_path / "ids.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as out,
    ):
        out.write_table(table)
    details = json.loads((tmp_path / "index.json").read_text())
    found = hashlib.sha256((tmp_path / "ids.arrow").read_bytes()).hexdigest()
    details["sha256"]["ids.arrow"] = found
    (tmp_path / "index.json").write_text(json.dumps(details))
    with pytest.raises(DataError, match="older version"):
        FlatIndex.load(tmp_path)


def test_effort_is_kept(tmp_path: Path) -> None:
    """A loaded graph that forgets its search breadth silently loses recall."""
    index = HNSWIndex(8, effort={"ef_search": 99})
    index.add(["a"], unit_vectors(1, 8))
    index.save(tmp_path)
    assert HNSWIndex.load(tmp_path).effort["ef_search"] == 99


@every_index
def test_deleted_documents_are_gone(name: str, tmp_path: Path) -> None:
    """A document that was withdrawn must not be found, also after a reload; its id is free."""
    vectors = near_vectors(1500, 16)
    index = filled(name, vectors)
    best = index.search(vectors[:3], 5)[0]
    index.delete({doc for row in best for doc in row})
    assert len(index) == 1500 - len({doc for row in best for doc in row})
    index.save(tmp_path)
    for one in (index, index_kind(name).load(tmp_path)):
        after = one.search(vectors[:3], 5)[0]
        assert [len(row) for row in after] == [5, 5, 5]
        assert not {doc for row in best for doc in row} & {doc for row in after for doc in row}
        with pytest.raises(DataError, match="not in the index, such as 'd0'"):
            one.delete(["d0", "d1"])
    index.add(["d0"], 9 * vectors[:1])
    assert index.search(vectors[:1], 1)[0] == [["d0"]]


@every_index
def test_all_documents_deleted(name: str) -> None:
    """An index whose documents are all gone is empty, not broken."""
    index = filled(name, unit_vectors(5, 8))
    index.delete([f"d{row}" for row in range(5)])
    assert len(index) == 0
    assert index.search(unit_vectors(2, 8), 3)[0] == [[], []]


def attributes(count: int) -> pa.Table:
    years = pa.array([2000 + row % 25 for row in range(count)])
    rare = pa.array([row % 500 == 3 for row in range(count)])
    return pa.table({"year": years, "rare": rare})


@every_index
@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ("year >= 2010", lambda row: row % 25 >= 10),
        ("year = 2007", lambda row: row % 25 == 7),
        ("rare = true", lambda row: row % 500 == 3),
        ("not rare = true and year < 2001", lambda row: row % 500 != 3 and row % 25 == 0),
        ("year = 1990", lambda row: False),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_condition_never_loses_documents(
    name: str, where: str, fits: Callable[[int], bool], alone: bool
) -> None:
    """Filtered graphs return fewer than k although more fit, or documents that do not fit."""
    vectors = near_vectors(3000, 16)
    queries = near_vectors(1 if alone else 40, 16, seed=1)
    index = new_index(name, 16)
    index.add([f"d{row}" for row in range(3000)], vectors, attributes(3000))
    allowed = np.array([fits(row) for row in range(3000)])
    found, scores = index.search(queries, 10, where=where)
    wanted = np.where(allowed, queries @ vectors.T, -np.inf)
    kept = 0
    for row, (docs, values) in enumerate(zip(found, scores, strict=True)):
        assert len(docs) == len(set(docs)) == len(values) == min(10, allowed.sum())
        assert all(allowed[int(doc[1:])] for doc in docs)
        best = {f"d{at}" for at in np.argsort(-wanted[row])[: len(docs)]}
        kept += len(best & set(docs))
    assert kept >= 0.85 * len(queries) * min(10, allowed.sum())


@every_index
def test_each_query_has_its_own_condition(name: str) -> None:
    """Queries that are grouped by condition must get their own answers back, in their order."""
    vectors = near_vectors(2000, 16)
    index = new_index(name, 16)
    index.add([f"d{row}" for row in range(2000)], vectors, attributes(2000))
    conditions = ["year = 2003", None, "year >= 2020", "year  =  2003"]
    together = index.search(vectors[:4], 5, where=conditions)[0]
    alone = [
        index.search(vectors[row : row + 1], 5, where=conditions[row])[0][0] for row in range(4)
    ]
    assert together == alone
    with pytest.raises(DataError, match="4 queries came with 2 conditions"):
        index.search(vectors[:4], 5, where=["year = 2003", None])


@every_index
def test_conditions_survive_a_reload(name: str, tmp_path: Path) -> None:
    """Attributes that are lost or slip against the vectors give documents that do not fit."""
    vectors = near_vectors(1200, 16)
    index = new_index(name, 16)
    for start in (0, 700):
        rows = range(start, (700, 1200)[start > 0])
        own = attributes(1200).slice(start, len(rows))
        index.add([f"d{row}" for row in rows], vectors[list(rows)], own)
    index.save(tmp_path)
    loaded = index_kind(name).load(tmp_path)
    for one in (index, loaded):
        docs = one.search(vectors[:1], 30, where="year = 2004")[0][0]
        assert len(docs) == 30
        assert all(int(doc[1:]) % 25 == 4 for doc in docs)
    (tmp_path / "attributes.arrow").write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        index_kind(name).load(tmp_path)


@every_index
def test_attributes_come_always_or_never(name: str) -> None:
    """A document without attributes among others would match nothing, for no visible reason."""
    index = filled(name, unit_vectors(4, 8))
    with pytest.raises(ConfigError, match="Embed with --attributes"):
        index.search(unit_vectors(1, 8), 2, where="year = 2000")
    with pytest.raises(DataError, match="every document comes with attributes or none"):
        index.add(["x"], unit_vectors(1, 8), attributes(1))
    with pytest.raises(DataError, match="2 rows of attributes"):
        new_index(name, 8).add(["x"], unit_vectors(1, 8), attributes(2))


def test_learned_kinds_grow() -> None:
    """An index that was filled in small parts would stay a flat one for a million vectors."""
    vectors = near_vectors(2600, 16)
    index = new_index("ivf", 16)
    for start in range(0, 2600, 130):
        rows = range(start, start + 130)
        index.add([f"d{row}" for row in rows], vectors[list(rows)])
    assert isinstance(index, FaissIndex)
    assert index.efforts[-1]["nprobe"] > 1
    assert index.search(vectors[[0, 999, 2599]], 1)[0] == [["d0"], ["d999"], ["d2599"]]


@pytest.mark.parametrize("name", ["ivf", "ivf-pq", "hnsw"])
def test_more_documents_than_the_lists_that_are_looked_into(name: str) -> None:
    """A list that ends early, as if no other document were there, where nothing was asked of it."""
    vectors = near_vectors(2600, 16)
    index = filled(name, vectors)
    assert isinstance(index, FaissIndex)
    index.effort = index.effort | {"nprobe": 1}
    queries = near_vectors(3, 16, seed=1)
    ids, scores = index.search(queries, 2600)
    assert [len(set(row)) for row in ids] == [2600] * 3
    assert all((np.diff(row) <= 0).all() for row in scores)
    wanted = filled("exact", vectors).search(queries, 10)[0]
    if name == "ivf":
        assert [row[:10] for row in ids] == wanted


def test_threads_may_scan_a_fresh_index_at_once() -> None:
    """FAISS's map from rows to lists, read by one thread while another still makes it."""
    import faiss

    vectors = np.random.default_rng(0).standard_normal((2_000_000, 2), np.float32)
    index = new_index("ivf", 2)
    assert isinstance(index, FaissIndex)
    index.train(vectors[:1000], len(vectors))
    index._add(vectors)
    rows = np.arange(0, len(vectors), 9973)
    ready = Barrier(8)

    def vectors_of(_: int) -> NDArray[np.float32]:
        ready.wait()
        return index._vectors(rows)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            index._engine.set_direct_map_type(faiss.DirectMap.NoMap)
            for found in pool.map(vectors_of, range(8)):
                np.testing.assert_array_equal(found, vectors[rows])


def test_a_factory_line_that_faiss_refuses() -> None:
    """FAISS's own message names a C++ file."""
    with pytest.raises(
        ConfigError, match=r"cannot learn 'IVF2000,Flat' from 1,100 vectors: .*1100"
    ):
        filled("faiss:IVF2000,Flat", unit_vectors(1100, 8))
    for line in ("IVF{list},Flat", "IVF{},Flat", "{"):
        with pytest.raises(ConfigError, match="no other braces"):
            filled(f"faiss:{line}", unit_vectors(2, 8))
    index = new_index("faiss:IVFF", 8)
    with pytest.raises(ConfigError, match="faiss cannot make 'IVFF' of 8 dimensions"):
        index.add(["a"], unit_vectors(1, 8))
    with pytest.raises(ConfigError, match="needs what to make"):
        new_index("faiss", 8)
    with pytest.raises(ConfigError, match="takes no argument"):
        new_index("flat:IVF2", 8)


@pytest.mark.parametrize("name", ["hnsw", "ivf", "ivf-pq", "binary"])
def test_the_tuner_keeps_its_promise(name: str) -> None:
    """A promise that is measured on nothing is a guess; a stronger one must not cost recall."""
    vectors, queries = near_vectors(3000, 32), near_vectors(60, 32, seed=1)
    index, exact = filled(name, vectors), filled("exact", vectors)
    assert isinstance(index, FaissIndex)
    assert isinstance(exact, ExactIndex)
    tuning = tune(index, exact, queries, target=0.9)
    assert tuning.chosen.recall >= 0.9
    assert tuning.chosen.effort.items() <= index.effort.items()
    fresh = near_vectors(60, 32, seed=2)
    wanted = exact.search(fresh, 10)[0]
    found = index.search(fresh, 10)[0]
    same = sum(len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True))
    assert same / 600 >= 0.85
    assert choose_effort(tuning, 0.5).ms <= tuning.chosen.ms
    with pytest.raises(ConfigError, match="not reached when the index was tuned"):
        choose_effort(replace(tuning, tried=[replace(tuning.chosen, at_least=0.2)]), 0.9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settings", {"effort": True}),
        ("settings", {"effort": {"nprobe": "8"}}),
        ("settings", {"effort": {"nprobe": True}}),
        ("settings", {"effort": {"speed": 3}}),
        ("settings", {"colour": 3}),
        ("dimension", 4),
        ("dimension", -8),
    ],
)
def test_settings_that_no_index_has(tmp_path: Path, name: str, value: object) -> None:
    """A Python error at the load, or a crash in faiss at the first search."""
    filled("hnsw", unit_vectors(20, 8)).save(tmp_path)
    details = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(details | {name: value}))
    with pytest.raises(DataError, match="Embed again"):
        index_kind("hnsw").load(tmp_path)


class Lucky(FaissIndex):
    """An index that loses the best document of some queries: those that `misses` names."""

    line = "Flat"
    misses: frozenset[float] = frozenset()

    def search(self, vectors: NDArray[np.float32], k: int, **_: object) -> tuple:  # type: ignore[override,type-arg]
        ids, scores = super().search(vectors, k)
        lost = [float(vector[0]) in self.misses for vector in vectors]
        return [row[1:] if miss else row for row, miss in zip(ids, lost, strict=True)], scores


def _lucky(
    misses: NDArray[np.float32], queries: NDArray[np.float32], target: float
) -> EffortTuning:
    vectors = near_vectors(300, 16)
    index, exact = Lucky(16), ExactIndex(16)
    for each in (index, exact):
        each.add([f"d{row}" for row in range(300)], vectors)
    index.misses = frozenset(misses[:, 0].tolist())
    return tune(index, exact, queries, target=target, k=1)


def test_a_promise_is_checked_on_queries_that_it_was_not_made_with() -> None:
    """An effort that is lucky on the queries it was chosen with, and reported by these."""
    queries = near_vectors(80, 16, seed=1)
    tuning = _lucky(queries[1::2], queries, 0.9)  # what is held out is what is lost
    assert (tuning.chosen.recall, tuning.queries, tuning.held_out) == (1.0, 40, 0.0)
    assert _lucky(queries[:0], queries, 1.0).held_out == 1.0


def test_a_promise_rests_on_a_bound() -> None:
    """A mean just above the target that half of all samples would fall below."""
    queries = near_vectors(80, 16, seed=1)
    with pytest.raises(ConfigError, match=r"reaches 0\.925 with 40 queries, which shows 0\.85"):
        _lucky(queries[:6:2], queries, 0.9)
    assert _lucky(queries[:6:2], queries, 0.85).chosen.recall == 0.925


def test_a_failing_addition_leaves_the_index_as_it_was() -> None:
    """Vectors that grow into lists that faiss cannot learn: all that was there would be lost."""
    vectors = unit_vectors(1200, 8)
    index = new_index("faiss:IVF4096,Flat", 8)
    index.add([f"d{row}" for row in range(500)], vectors[:500])
    before = index.search(vectors[:3], 5)
    with pytest.raises(ConfigError, match="cannot learn"):
        index.add([f"d{row}" for row in range(500, 1200)], vectors[500:])
    after = index.search(vectors[:3], 5)
    assert before[0] == after[0]
    np.testing.assert_array_equal(before[1], after[1])
    index.add(["more"], vectors[600:601])
    assert len(index) == 501


def test_documents_that_are_added_one_by_one() -> None:
    """A block for each: a search would take as many steps as there are documents."""
    vectors = unit_vectors(1500, 8)
    index = new_index("exact", 8)
    assert isinstance(index, ExactIndex)
    for row, vector in enumerate(vectors):
        index.add([f"d{row}"], vector[None])
    assert len(index._blocks) < 12
    wanted = filled("exact", vectors).search(vectors[:9], 7)
    assert index.search(vectors[:9], 7)[0] == wanted[0]


def test_a_promise_that_cannot_be_kept() -> None:
    """A target that is silently missed is worse than none."""
    vectors = unit_vectors(3000, 64)
    index, exact = filled("ivf-pq", vectors), filled("exact", vectors)
    assert isinstance(index, FaissIndex)
    assert isinstance(exact, ExactIndex)
    with pytest.raises(ConfigError, match="the best, .* reaches 0"):
        tune(index, exact, unit_vectors(30, 64, seed=1), target=1.0)
    with pytest.raises(ConfigError, match="--recall must be above 0"):
        tune(index, exact, vectors[:5], target=1.5)


@every_index
def test_dimension_must_be_positive(name: str) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        new_index(name, 0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(min_size=1), unique=True, max_size=8))
def test_ids_are_opaque(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    """Ids with line breaks, quotes or a look of numbers must come back as they were."""
    ids = [name.encode("utf-8", "ignore").decode() or "?" for name in ids]
    ids = list(dict.fromkeys(ids))
    folder = tmp_path_factory.mktemp("ids")
    index = ExactIndex(2)
    index.add(ids, np.ones((len(ids), 2), np.float32))
    index.save(folder)
    found, _ = ExactIndex.load(folder).search(np.ones((1, 2), np.float32), 10)
    assert found == [sorted(ids, reverse=True)]


def test_missing_faiss_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """`No module named faiss` does not say which of two packages to install."""
    real = builtins.__import__

    def without_faiss(name: str, *args: object, **kwargs: object) -> object:
        if name == "faiss":
            raise ImportError("No module named 'faiss'")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    with pytest.raises(MissingExtra, match=r"pip install 'retrodistill\[cpu\]'"):
        FlatIndex(4)


def test_faiss_and_torch_live_in_one_process() -> None:
    """Two OpenMP runtimes that collide abort the process or deadlock in the first search."""
    import torch

    index = filled("hnsw", unit_vectors(200, 16))
    assert torch.ones(64, 64).matmul(torch.ones(64, 64)).sum() == 64**3
    assert len(index.search(unit_vectors(2, 16), 5)[0][0]) == 5
    assert torch.ones(64, 64).matmul(torch.ones(64, 64)).sum() == 64**3


@every_index
def test_replaced_documents_and_their_vectors(name: str) -> None:
    """A replaced row that is still found, or another row's vector, looks like a weak model."""
    vectors = near_vectors(2000)
    index = filled(name, vectors)
    assert isinstance(index, VectorIndex)
    assert index.replace(["d5", "new", "d1999"], vectors[[7, 8, 9]]) == 2
    assert (len(index), index.deleted_rows) == (2001, 2)
    assert index.ids[-3:] == ["d5", "new", "d1999"]
    assert "new" in index
    ids = ["new", "d5", "d3", "d1999", "d5"]
    np.testing.assert_allclose(index.vectors_of(ids), vectors[[8, 7, 3, 9, 7]], atol=0.05)
    with pytest.raises(KeyError):
        index.vectors_of(["d5", "never"])
    (found,), _ = index.search(vectors[7:8], 20)
    assert {"d5", "d7"} <= set(found)
    assert len(set(found)) == 20
    with pytest.raises(DataError, match="NaN"):
        index.replace(["d5"], np.full((1, 64), np.nan, np.float32))
    assert len(index) == 2001


@every_index
def test_a_deleted_row_leaves_the_way_of_searching(name: str) -> None:
    """One deletion would make every later search compare each document, as a condition does."""
    index = filled(name, near_vectors(2000))
    assert isinstance(index, VectorIndex)
    before = index.plan(None, 10).how
    index.delete(["d3"])
    assert index.plan(None, 10).how == ("scan" if name == "exact" else before)
    index.delete([f"d{row}" for row in range(100, 1990)])
    ids, _ = index.search(near_vectors(3, seed=2), 200)
    assert [len(row) for row in ids] == [109] * 3
