"""The file of a benchmark: what it may say, and how mistakes are named."""

from pathlib import Path
from typing import Any

import pytest

from retrodistill.base.errors import ConfigError
from retrodistill.stages.pipelines.benchmark.plan import (
    BenchmarkDataset,
    DenseSettings,
    LexicalSettings,
    RerankedSettings,
    read_plan,
)

GOOD = """
datasets: {scifact: "beir:a", medquad: {data: "beir:b", split: dev}}
systems:
  bm25: {retriever: bm25}
  small: {model: students/kl, index: hnsw, recall: 0.95, max-tokens: 128}
  reranked: {rerank: "cross-encoder:m", of: bm25, depth: 30}
  again: {rerank: "llm:m", of: reranked, option: ["url=x"]}
"""


def test_a_plan_is_read_in_the_types_of_its_settings(tmp_path: Path) -> None:
    """Settings that are dropped, or left as texts, so that another system is measured."""
    path = tmp_path / "plan.yaml"
    path.write_text(GOOD)
    plan = read_plan(path)
    assert plan.datasets == {
        "scifact": BenchmarkDataset(data="beir:a"),
        "medquad": BenchmarkDataset(data="beir:b", split="dev"),
    }
    assert [*plan.systems.values()] == [
        LexicalSettings(retriever="bm25"),
        DenseSettings(model="students/kl", index="hnsw", recall=0.95, max_tokens=128),
        RerankedSettings(rerank="cross-encoder:m", of="bm25", depth=30),
        RerankedSettings(rerank="llm:m", of="reranked", option=("url=x",)),
    ]


DATASETS = "datasets: {a: 'beir:a'}\n"
SYSTEMS = "\nsystems: {b: {retriever: bm25}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: {a: b}" + SYSTEMS, r"unknown key 'dataset'.*Did you mean 'datasets'"),
        ("systems: {a: {model: m}}", "needs `datasets`"),
        (DATASETS, "needs `systems`"),
        (DATASETS + "systems: {}", "needs `systems`"),
        (DATASETS + "systems: [", "is not YAML"),
        ("datasets: [a]" + SYSTEMS, "needs `datasets`"),
        ("datasets: {a/b: 'beir:a'}" + SYSTEMS, "dataset 'a/b': a name has letters"),
        ("datasets: {..: 'beir:a'}" + SYSTEMS, "a name has letters"),
        ("datasets: {a: {date: 'x'}}" + SYSTEMS, "dataset 'a': unknown setting 'date'.*'data'"),
        ("datasets: {a: {split: test}}" + SYSTEMS, "dataset 'a' needs data"),
        ("datasets: {a: [1]}" + SYSTEMS, "dataset 'a' must hold"),
        ("datasets: {a: 'x', a: 'y'}" + SYSTEMS, "line 1: duplicate key 'a'"),
    ],
)
def test_a_mistake_names_the_file_and_the_place(text: str, message: str, tmp_path: Path) -> None:
    """Hours of measuring something else, or a traceback after them."""
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"(?s)plan\.yaml.*{message}"):
        read_plan(path)


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ("x: bm25", "system 'x' must hold"),
        ("x: {models: m}", r"needs one of.*Did you mean 'model'"),
        ("x: {model: m, retriever: bm25}", "needs one of retriever, model, rerank"),
        ("x: {model: m, dimension: 3}", "'dimension'. Did you mean 'dimensions'"),
        ("x: {model: m, recall: 2}", "system 'x': --recall must be above 0"),
        ("x: {model: m, recall: many}", "system 'x': recall must be of type float"),
        ("x: {retriever: bm52}", "Did you mean 'bm25'"),
        ("x: {retriever: 'bm25:en'}", "retriever bm25 takes no argument"),
        ("x: {retriever: 'dense:m'}", "write `model: m`"),
        ("x: {rerank: bm25}", "system 'x' needs of"),
        ("x: {rerank: bm25, of: y, depth: 0}", "--depth must be at least 1"),
        ("x: {rerank: bm25, of: x}", "reranks 'x', which is not a system above it"),
        ("y: {rerank: bm25, of: x}, x: {retriever: bm25}", "is not a system above it"),
        ("first: {retriever: bm25}, y: {rerank: bm25, of: fist}", "Did you mean 'first'"),
        ("x: {retriever: bm25}, x: {model: m}", "duplicate key 'x'"),
        ("1: {retriever: bm25}, '1': {model: m}", "system '1' already exists"),
    ],
)
def test_a_mistaken_system_is_named(systems: str, message: str, tmp_path: Path) -> None:
    """A setting that is dropped, so that another system is measured under this name."""
    path = tmp_path / "plan.yaml"
    path.write_text(f"{DATASETS}systems: {{{systems}}}")
    with pytest.raises(ConfigError, match=rf"(?s)plan\.yaml.*{message}"):
        read_plan(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A mistyped path that ends in a traceback."""
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        read_plan(tmp_path / "none.yaml")


def test_python_may_give_what_a_file_would_hold() -> None:
    """A notebook that has to write a file first."""
    systems: dict[str, Any] = {"bm25": {"retriever": "bm25"}}
    plan = read_plan({"datasets": {"a": "beir:a"}, "systems": systems})
    assert plan.systems == {"bm25": LexicalSettings(retriever="bm25")}
