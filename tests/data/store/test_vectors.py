"""Vectors are kept by what their texts are."""

from pathlib import Path

import numpy as np
import pytest
from fakes.corpus import save_small_collection

from retrodistill.data.datasets import Texts, load_collection
from retrodistill.data.store import vectors
from retrodistill.data.store.vectors import cached, doc_vectors


class Counting:
    """An encoder whose vector is the length of the text, and that counts its texts."""

    fingerprint = "counting"
    dimension = 2

    def __init__(self) -> None:
        self.texts = 0

    def encode_docs(self, texts: list[str]) -> np.ndarray:
        self.texts += len(texts)
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    encode_queries = encode_docs


def test_added_documents_cost_only_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus that is encoded again, or old vectors under new texts, because a document came."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vectors, "PART", 20)
    folder = save_small_collection(tmp_path / "data", docs=60)
    docs = load_collection(f"beir:{folder}").docs
    first = Counting()
    doc_vectors(first, docs)
    assert first.texts == 60
    corpus = folder / "corpus.jsonl"
    lines = corpus.read_text().splitlines()
    lines[25] = '{"_id": "d25", "title": "", "text": "quite another text"}'
    corpus.write_text("\n".join([*lines, '{"_id": "new", "title": "", "text": "one more"}']) + "\n")
    docs = load_collection(f"beir:{folder}").docs
    second = Counting()
    assert cached(second, docs) == 40
    stored = doc_vectors(second, docs)
    assert second.texts == 21
    assert stored[:, 0].tolist() == [len(text) for text in docs.full_texts()]


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Texts:
    """Give 60 documents, whose vectors lie in three parts of a cache of their own."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vectors, "PART", 20)
    return load_collection(f"beir:{save_small_collection(tmp_path / 'data', docs=60)}").docs


def parts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "vectors").glob("*/*.npy"))


def test_no_flipped_byte_of_the_cache_is_served(
    tmp_path: Path, docs: Texts, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong vectors in every index and score, without a word (100 of 100 flips)."""
    whole = doc_vectors(Counting(), docs)
    paths = parts(tmp_path)
    contents = [path.read_bytes() for path in paths]
    random = np.random.default_rng(0)
    for _ in range(30):
        number = int(random.integers(len(paths)))
        flipped = bytearray(contents[number])
        flipped[random.integers(len(flipped))] ^= 1 << int(random.integers(8))
        paths[number].write_bytes(flipped)
        resumed = Counting()
        assert doc_vectors(resumed, docs).tolist() == whole.tolist()
        assert resumed.texts == 20
        assert capsys.readouterr().err.count("20 documents are encoded again") == 1
        assert [path.read_bytes() for path in paths] == contents


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", bytes(500)])
def test_a_cut_file_of_the_cache_is_encoded_again(
    tmp_path: Path, docs: Texts, content: bytes
) -> None:
    """A traceback of numpy for what a full disk has cut, until the cache is deleted by hand."""
    whole = doc_vectors(Counting(), docs)
    parts(tmp_path)[0].write_bytes(content)
    assert doc_vectors(Counting(), docs).tolist() == whole.tolist()


def test_what_a_killed_encoding_left_in_the_cache_is_removed(tmp_path: Path, docs: Texts) -> None:
    """Hidden files that fill the cache, kill after kill."""
    doc_vectors(Counting(), docs)
    path = parts(tmp_path)[0]
    path.rename(path.with_name(f".{path.name}.new-01234567"))
    doc_vectors(Counting(), docs)
    assert sorted(path.parent.iterdir()) == parts(tmp_path)
