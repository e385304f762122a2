"""The gate: what is drawn, how two models take turns, and what fails."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrodistill.base.config import ExportConfig
from retrodistill.data.datasets import Collection
from retrodistill.stages.exporting.gate import (
    EXPORTED,
    TORCH,
    Measured,
    chosen_docs,
    chosen_queries,
    in_turns,
)

MEASURED = Measured(
    queries=10,
    texts=100,
    noun="documents",
    likeness="cosine",
    mean_cosine=0.99,
    min_cosine=0.96,
    ndcg={TORCH: 0.5, EXPORTED: 0.495},
    p=0.2,
    per_second={TORCH: 10.0, EXPORTED: 20.0},
    speedup=2.0,
    single_ms={TORCH: 8.0, EXPORTED: 2.0},
    bytes={TORCH: 4_000_000, EXPORTED: 1_000_000},
    limits={"cosine": 0.95, "loss": 0.01, "speedup": 1.1},
)


def test_each_limit_fails_alone_and_names_its_flag() -> None:
    """A limit that never fails, or one that judges by another's figure."""
    assert MEASURED.failures == []
    for changes, flag in (
        ({"min_cosine": 0.94}, "--min-cosine"),
        ({"ndcg": {TORCH: 0.5, EXPORTED: 0.48}}, "--max-loss"),
        ({"speedup": 1.0}, "--min-speedup"),
    ):
        (sentence,) = replace(MEASURED, **changes).failures
        assert flag in sentence


def test_nan_fails() -> None:
    """NaN is below no limit, so that a comparison the wrong way round lets it pass."""
    nan = float("nan")
    assert len(replace(MEASURED, min_cosine=nan, speedup=nan).failures) == 2


def test_a_gain_is_no_loss() -> None:
    """The absolute difference would fail a graph that ranks better by chance."""
    better = replace(MEASURED, ndcg={TORCH: 0.5, EXPORTED: 0.6})
    assert better.failures == []
    assert better.rows()[1][3] == "+0.1000 (p 0.2)"


def test_models_take_turns_on_the_same_texts() -> None:
    """One after the other, the second meets what the machine does by then, and a warm cache."""
    calls: list[tuple[str, int]] = []

    def work(name: str, scale: int):  # type: ignore[no-untyped-def]
        def run(items):  # type: ignore[no-untyped-def]
            calls.append((name, len(items)))
            return np.array([item * scale for item in items], np.float32)

        return run

    items = list(range(400))
    values, seconds = in_turns({"a": work("a", 1), "b": work("b", 2)}, items)
    np.testing.assert_array_equal(values["b"], 2 * np.arange(400))
    assert [name for name, _ in calls] == ["a", "b", *"abba" * 2, "a", "b"]
    assert sum(count for name, count in calls[2:] if name == "a") == 400
    assert len(seconds["a"]) == len(seconds["b"]) == 5


@pytest.mark.parametrize("most", [1, 30, 1000])
def test_relevant_documents_are_always_among_those_searched(
    most: int, collection: Collection
) -> None:
    """A random part of the documents lacks the answers: nDCG@10 is 0 before and after."""
    config = ExportConfig(model="m", data="d", out=Path("o"), split="test", max_docs=most)
    qrels = chosen_queries(collection, config, 5)
    assert len(qrels) == 5
    rows = chosen_docs(collection, config, qrels)
    assert {doc for docs in qrels.values() for doc in docs} <= set(collection.docs.ids(rows))
    assert len(rows) == len(set(rows.tolist())) == min(60, max(most, 5))
    assert chosen_queries(collection, config, 5) == qrels
