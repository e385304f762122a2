"""What `distil` says that its systems cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.corpus import save_small_collection

from retrodistill.data.datasets import load_collection
from retrodistill.data.datasets.texts import Texts
from retrodistill.stages.pipelines.distil import costs


def test_bm25_is_timed_without_all_texts_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes of texts at the end of a pipeline that has held none of them before."""
    collection = load_collection(f"beir:{save_small_collection(tmp_path / 'data')}")
    asked: list[int] = []
    full_texts = Texts.full_texts

    def counted(texts: Texts, rows: Any = None) -> list[str]:
        asked.append(len(texts) if rows is None else len(np.asarray(rows)))
        return full_texts(texts, rows)

    monkeypatch.setattr(Texts, "full_texts", counted)
    monkeypatch.setattr(costs, "LEXICAL", 10)
    cost = costs._lexical(collection, ["the blood test"])
    assert asked == [10]
    assert len(collection.docs) > 10
    assert cost.index_mb > 0
