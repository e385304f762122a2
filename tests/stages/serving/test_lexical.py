"""BM25 of a server: made again after a change, without all texts in memory."""

import weakref
from collections.abc import Iterator

import pytest

from retrodistill.models.retrievers import bm25
from retrodistill.stages.serving.lexical import Lexical


class Text(str):
    """A text that tells when it is gone."""


class Source:
    """Documents that are made when they are read, and how many of them were alive at a time."""

    version = 0
    most = 0

    def texts(self) -> Iterator[tuple[str, str]]:
        alive: weakref.WeakSet[Text] = weakref.WeakSet()
        for number in range(200):
            text = Text(f"reading the meter number {number} of version {self.version}")
            alive.add(text)
            self.most = max(self.most, len(alive))
            yield f"d{number}", text
            del text


def test_texts_pass_by_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte for each two million passages, as long as their words are counted."""
    monkeypatch.setattr(bm25, "BATCH_TEXTS", 8)
    source = Source()
    lexical = Lexical(source)
    assert lexical.search(["number 17"], 1)[0][0] == ["d17"]
    assert source.most < 20
    source.version = 205
    assert len(lexical.search(["205"], 300)[0][0]) == 200
