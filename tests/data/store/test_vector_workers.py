"""Several workers fill one cache of vectors, and nothing is encoded twice."""

import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.corpus import save_small_collection
from fakes.models import save_tiny_model
from fakes.ray_cluster import lose_a_node

from retrodistill.base.config import EmbedConfig, MineConfig, MineSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Doc
from retrodistill.data.datasets import Texts, load_collection
from retrodistill.data.datasets.cache import cached_texts
from retrodistill.data.datasets.texts import TextSource
from retrodistill.data.store import vectors
from retrodistill.data.store.vectors import cached, doc_vectors, fill_vectors
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.mining import mine_candidates

ENCODERS = '''
"""Encoders that log what they encode, and die where a test wants it."""

import os, signal, time
from pathlib import Path
import numpy as np

class Steady:
    """A vector is a text's length and first letter; waits at the start until there are two."""

    fingerprint, dimension, crew, pause = "steady", 2, 2, 0.02

    def __init__(self, log):
        self.log, self.calls = Path(log), 0

    def encode_docs(self, texts):
        (self.log.parent / f"worker-{os.getpid()}").touch()
        end = time.monotonic() + 60
        while len(list(self.log.parent.glob("worker-*"))) < self.crew and time.monotonic() < end:
            time.sleep(0.01)
        self.calls += 1
        with open(self.log, "a") as log:
            log.write("".join(f"{os.getpid()} {text}\\n" for text in texts))
        time.sleep(self.pause)
        self.end()
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)

    def end(self):
        pass

class Slow(Steady):
    pause = 0.2

class OneDies(Steady):
    def end(self):
        if self.calls == 3 and not self.log.with_suffix(".dead").exists():
            self.log.with_suffix(".dead").touch()
            os.kill(os.getpid(), signal.SIGKILL)

class Broken(Steady):
    crew = 1

    def encode_docs(self, texts):
        return np.full((len(texts), 2), np.nan, np.float32)

class Changing(Steady):
    """Another encoder wherever it arrives."""

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.fingerprint = "changed"
'''
PART = 5


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Texts:
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vectors, "PART", PART)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "log_encoders.py").write_text(ENCODERS)
    folder = save_small_collection(tmp_path / "data", docs=62)
    return load_collection(f"beir:{folder}").docs


@pytest.fixture
def encoder(tmp_path: Path, docs: Texts) -> Callable[[str], Any]:
    """Give one of the encoders above, whose log is the file `log`."""

    def named(name: str) -> Any:
        import log_encoders  # type: ignore[import-not-found]

        return getattr(log_encoders, name)(tmp_path / "log")

    yield named
    sys.modules.pop("log_encoders", None)


def encoded(log: Path) -> tuple[set[str], Counter[str]]:
    """Return the processes that encoded, and how often each text was."""
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    return {process for process, _ in lines}, Counter(text for _, text in lines)


def check(log: Path, docs: Texts, received: np.ndarray, extra: int) -> None:
    """All vectors are there, and at most `extra` texts were encoded twice."""
    texts = docs.full_texts()
    assert received.tolist() == [[len(text), ord(text[0])] for text in texts]
    times = encoded(log)[1]
    assert set(times) == set(texts)
    assert sum(times.values()) - len(times) <= extra


def test_workers_share_the_parts(tmp_path: Path, docs: Texts, encoder: Any) -> None:
    """Workers that all encode the whole corpus, or one that does it alone."""
    steady = encoder("Steady")
    assert cached(steady, docs) == 0
    fill_vectors(steady, docs, executor="processes", workers=2)
    assert cached(steady, docs) == len(docs)
    check(tmp_path / "log", docs, doc_vectors(steady, docs), extra=0)
    processes = encoded(tmp_path / "log")[0]
    assert len(processes) == 2
    assert str(os.getpid()) not in processes


def test_what_a_killed_worker_leaves_is_encoded(
    tmp_path: Path, docs: Texts, encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Holes in an index, or a command that waits for ever, after the system has killed one."""
    steady = encoder("OneDies")
    fill_vectors(steady, docs, executor="processes", workers=2)
    assert "died with exit code -9" in capsys.readouterr().err
    assert cached(steady, docs) == len(docs)
    check(tmp_path / "log", docs, doc_vectors(steady, docs), extra=PART)


def test_what_is_cached_needs_no_worker(
    docs: Texts, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that are started, and models that are loaded, to do nothing."""
    steady = encoder("Steady")
    steady.crew = 1
    doc_vectors(steady, docs)
    monkeypatch.setattr(vectors, "execute", lambda *_, **__: pytest.fail("workers were started"))
    fill_vectors(steady, docs, executor="processes", workers=2)


def test_faults_of_a_worker_are_told(docs: Texts, encoder: Any) -> None:
    """Vectors of another model under this one's name, or NaN that is found in the index only."""
    with pytest.raises(DataError, match="NaN or infinity for document 'd0'"):
        fill_vectors(encoder("Broken"), docs, executor="processes", workers=1)
    with pytest.raises(ConfigError, match="differs from the one here.*--precision"):
        fill_vectors(encoder("Changing"), docs, executor="processes", workers=1)


def test_texts_travel(docs: Texts, tmp_path: Path) -> None:
    """A corpus of gigabytes that is sent to each worker, or files that are gone there."""
    sent = pickle.dumps(docs)
    assert len(sent) < 1000
    received = pickle.loads(sent)
    assert received.full_texts() == docs.full_texts()
    assert received.get("d7") == docs.get("d7")
    source = TextSource(lambda: (Doc(f"d{row}", "", f"text {row}") for row in range(9)), str)
    gone, _ = cached_texts("mine", docs=source, queries=source, key=None)
    received = pickle.loads(pickle.dumps(gone))
    assert list(received) == list(gone)
    assert received.get("d7").text == "text 7"


def test_an_encoder_travels_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers with other settings fill the cache with vectors that nobody asks for."""
    folder = save_tiny_model(tmp_path)
    monkeypatch.chdir(folder.parent)
    steady = DenseEncoder(folder.name, max_tokens=17, batch_tokens=99)
    sent = pickle.dumps(steady)
    assert len(sent) < 1000
    monkeypatch.chdir("/")
    received = pickle.loads(sent)
    assert received.fingerprint == steady.fingerprint
    assert received.batch_tokens == 99
    with pytest.raises(ConfigError, match="in memory only"):
        pickle.dumps(DenseEncoder(steady.model))


def test_options_that_would_do_nothing_are_refused() -> None:
    """A user who waits for eight workers that were never started."""
    with pytest.raises(ConfigError, match="--workers needs --executor"):
        EmbedConfig(data="x", model="m", out=Path("o"), workers=8)
    with pytest.raises(ConfigError, match="--workers must be at least 1"):
        EmbedConfig(data="x", model="m", out=Path("o"), executor="processes", workers=0)
    with pytest.raises(ConfigError, match="needs --retriever dense:MODEL"):
        MineConfig(data="x", out=Path("o"), executor="processes")
    MineConfig(data="x", out=Path("o"), executor="ray", retriever=("bm25", "dense:m"))


@pytest.mark.slow
def test_mining_with_processes_finds_the_same(docs: Texts, tmp_path: Path) -> None:
    """Vectors that depend on who encoded them."""
    model = save_tiny_model(tmp_path / "tiny")
    collection = load_collection(f"beir:{tmp_path / 'data'}")
    dense = (f"dense:{model}",)
    shared = mine_candidates(
        collection, settings=MineSettings(retriever=dense, depth=9, executor="processes", workers=2)
    )
    folder = tmp_path / "cache" / "vectors"
    assert len(list(folder.glob("*/*.npy"))) == 13
    for path in folder.glob("*/*.npy"):
        path.unlink()
    alone = mine_candidates(collection, settings=MineSettings(retriever=dense, depth=9))
    assert shared.to_dict() == alone.to_dict()


ENCODING = """
from log_encoders import Slow
from retrodistill.data.datasets import load_collection
from retrodistill.data.store import vectors

vectors.PART = 5
docs = load_collection(words[0]).docs
vectors.fill_vectors(Slow(log), docs, executor="ray", workers=2)
"""


@pytest.mark.slow
def test_a_ray_node_that_dies_is_replaced(tmp_path: Path, docs: Texts, encoder: Any) -> None:
    """Parts of a lost node that nobody encodes, or a command that waits for the node for ever."""
    pytest.importorskip("ray")
    log, data = tmp_path / "log", f"beir:{tmp_path / 'data'}"
    before, after = lose_a_node(ENCODING, [data], log=log, lines=30, folder=tmp_path, timeout=240)
    steady = encoder("Slow")
    assert cached(steady, docs) == len(docs)
    check(log, docs, doc_vectors(steady, docs), extra=PART)
    assert len(before) == 2
    assert len(after) == 1
