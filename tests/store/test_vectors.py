"""Vectors are kept by what their texts are."""

from pathlib import Path

import numpy as np
import pytest
from small import save_small_collection

from retrodistill.datasets import load_collection
from retrodistill.store import vectors
from retrodistill.store.vectors import cached, doc_vectors


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
    """A corpus that is encoded anew, or old vectors under new texts, because a document came."""
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
    found = doc_vectors(second, docs)
    assert second.texts == 21
    assert found[:, 0].tolist() == [len(text) for text in docs.full_texts()]
