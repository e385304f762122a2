"""Files of a store that a disk or a hand has changed: noticed, or without effect; no traceback."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from retrodistill.base.errors import DataError
from retrodistill.base.manifest import FILE
from retrodistill.data.store.form import SCORES
from retrodistill.data.store.plans import read_plan, write_plan
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import ScoreStore
from retrodistill.data.store.shards import read_shard, write_shard
from retrodistill.stages.scoring import status

ROWS = 8


def rows() -> pa.Table:
    ids = [[f"{letter}{number}" for number in range(ROWS)] for letter in "qd"]
    return pa.table([*ids, np.arange(1, ROWS + 1, dtype=np.uint64)], schema=SCORES.keyed)


def damaged(content: bytes) -> Iterator[bytes]:
    """Yield the content with every other byte changed in turn, and cut at many lengths."""
    for position in range(0, len(content), 2):
        yield b"".join(
            (content[:position], bytes([content[position] ^ 0xFF]), content[position + 1 :])
        )
    for position in range(0, len(content), 17):
        yield content[:position]


def test_a_changed_byte_of_a_plan_is_noticed(tmp_path: Path) -> None:
    """A resumed command that ends with a segmentation fault: 11 of 100 changed bytes."""
    path = tmp_path / "000001-a.plan"
    plan = write_plan(path, rows(), shard_rows=7, unit="pair")
    assert read_plan(path).equals(plan, check_metadata=True)
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.plan is damaged.* Delete this file and run"):
            read_plan(path)


def test_no_changed_byte_of_a_shard_is_another_score(tmp_path: Path) -> None:
    """A traceback, or a score that nobody gave."""
    path = tmp_path / "shard.parquet"
    scored = rows().append_column("score", pa.array(np.arange(ROWS, dtype=np.float32)))
    write_shard(path, scored, SCORES, {"seconds": "1.5"})
    expected = read_shard(path, SCORES)
    noticed = 0
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        try:
            assert read_shard(path, SCORES).equals(expected)
        except DataError:
            noticed += 1
    assert noticed


@pytest.mark.parametrize(
    "change",
    [
        {"details": []},
        {"details": "text"},
        {"inputs": None},
        {"inputs": ["teacher"]},
        {"inputs": {"teacher": 3}},
        {"config": 3},
        {"kind": ["scores"]},
        {"fingerprint": None},
    ],
    ids=str,
)
def test_a_manifest_of_other_types_is_named(change: dict[str, object], tmp_path: Path) -> None:
    """AttributeError: 'list' object has no attribute 'get'."""
    store = ScoreStore(tmp_path / "s", teacher="t")
    store.plan(rows(), shard_rows=ROWS)[0].write(np.zeros(ROWS, np.float32))
    Run.from_dict({"q": {"d": 1.0}}).write(tmp_path / "run")
    for folder in (tmp_path / "s", tmp_path / "run"):
        content = json.loads((folder / FILE).read_text())
        (folder / FILE).write_text(json.dumps(content | change))
        with pytest.raises(DataError, match=FILE):
            Run.read(folder)
    with pytest.raises(DataError, match=FILE):
        status(tmp_path / "s")


def test_a_manifest_nested_too_deeply_is_named(tmp_path: Path) -> None:
    """RecursionError, with a traceback of a thousand lines."""
    (tmp_path / FILE).write_text("[" * 100_000)
    with pytest.raises(DataError, match=FILE):
        Run.read(tmp_path)


def test_a_store_is_shared_as_far_as_the_umask_allows(tmp_path: Path) -> None:
    """Locks that a colleague of the same group cannot take."""
    before = os.umask(0o002)
    try:
        ScoreStore(tmp_path / "s", teacher="t")
    finally:
        os.umask(before)
    assert (tmp_path / "s" / "locks" / "store").stat().st_mode & 0o777 == 0o664
