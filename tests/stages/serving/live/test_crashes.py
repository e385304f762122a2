"""A process that is killed while it changes documents, again and again."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fakes import changing_index
from fakes.changing_index import opened, state_after, vector
from fakes.corpus import save_small_collection

from retrodistill.data.datasets import load_collection
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.indexing import embed_collection

SOURCE = Path(__file__).parents[3]


def kill_while_changing(folder: str, changes: Path, start: int, rng: random.Random) -> int:
    """Return the number of acknowledged changes of a process that is killed at a random moment."""
    command = [sys.executable, changing_index.__file__, str(SOURCE), folder, str(changes)]
    process = subprocess.Popen(
        [*command, str(start)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n", process.communicate()[1]
    lines = [process.stdout.readline() for _ in range(rng.randint(0, 25))]
    time.sleep(rng.choice([0.0, 0.001, 0.02, 0.1]) * rng.random())
    process.send_signal(signal.SIGKILL)
    lines += process.communicate(timeout=30)[0].splitlines()
    assert process.returncode == -signal.SIGKILL
    return int(lines[-1]) + 1 if lines else start


def check(folder: str, changes: Path, acknowledged: int) -> int:
    """Compare with what must be there; return how many changes were made."""
    live = opened(folder, changes)
    try:
        states = {count: state_after(count) for count in (acknowledged, acknowledged + 1)}
        found = {id: doc.text for id, doc in live._changed.items() if doc is not None}
        made = [count for count, state in states.items() if state == found]
        assert made, f"neither {acknowledged} nor one more change is there"
        for id, text in found.items():
            np.testing.assert_array_equal(live.vector(id), vector(live.doc(id).full_text))
            assert live.doc(id).text == text
        gone = set(state_after(acknowledged + 1)) | {*changing_index.IDS}
        if folder == "-":
            assert len(live) == len(found) + 1
            assert all(live.doc(id) is None for id in gone - found.keys())
        return made[0]
    finally:
        live.close()


def crash(folder: str, changes: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    made = 0
    for _ in range(kills):
        made = check(folder, changes, kill_while_changing(folder, changes, made, rng))
    assert made > kills


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """A crash is the only time that tells a durable log from one that is in memory."""
    crash("-", tmp_path / "changes", kills=3, seed=0)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_in_many_crashes(tmp_path: Path) -> None:
    """Rare moments, such as within a record, are met only by many kills."""
    crash("-", tmp_path / "changes", kills=30, seed=1)


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_of_an_index_folder(
    tmp_path: Path, tiny_model: Path, private_cache: None
) -> None:
    """The same with a real model and a real folder."""
    collection = load_collection(f"beir:{save_small_collection(tmp_path / 'small')}")
    encoder = DenseEncoder(tiny_model, precision="float32")
    folder = embed_collection(collection, encoder, out=tmp_path / "index")
    crash(str(folder), tmp_path / "changes", kills=5, seed=2)
