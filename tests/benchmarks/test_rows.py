"""Lines of the quality benchmarks, and the tables that are made of them."""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import retrodistill as rd
from retrodistill.data.rankings.unseen import NO_DOUBLE, UNSEEN
from retrodistill.data.store.lineage import Lineage
from retrodistill.stages.evaluation import average_systems
from retrodistill.stages.evaluation.seen import named_training

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType]]:
    """Return benchmarks/rows.py and benchmarks/tables.py, which lie in no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import rows
    import tables

    yield rows, tables
    for name in ("rows", "tables"):
        sys.modules.pop(name)


def runs_of(collection: rd.Collection, lineage: Lineage, shares: tuple[int, ...]) -> list[rd.Run]:
    """Return a run a share: it finds that many of the test queries' documents."""
    qrels = collection.qrels("test")
    return [
        rd.Run.from_dict(
            {
                q: {next(iter(docs)) if place < share else "none": 1.0}
                for place, (q, docs) in enumerate(qrels.items())
            },
            lineage=lineage,
        )
        for share in shares
    ]


def test_lines_are_means_over_seeds_on_every_row(
    modules: tuple[ModuleType, ModuleType], collection: rd.Collection
) -> None:
    """Seeds that are tested as if they were further queries, or one seed's rows for all."""
    rows, _ = modules
    trained = named_training(["train"], collection)
    systems = {
        "bm25": runs_of(collection, Lineage(), (4,)),
        "kl": runs_of(collection, trained, (6, 8)),
    }
    lines = list(rows.lines(collection, systems, against="bm25", metrics="p@1"))
    assert [(line["system"], line["queries"]) for line in lines] == [
        (name, title) for title in ("all", NO_DOUBLE, UNSEEN) for name in ("bm25", "kl")
    ]
    kl = next(line for line in lines if line["system"] == "kl")
    assert (kl["p@1"], kl["seeds"], kl["number"]) == (0.875, 2, 8)
    assert kl["spread"] == round(statistics.stdev([0.75, 1.0]), 4)
    means = [0.0] * 4 + [1.0] * 2 + [0.5] * 2  # kl less bm25, query by query
    wanted = rd.evaluate_runs(
        collection.qrels("test"),
        {name: own[0] for name, own in systems.items()},
        rd.EvaluationSettings(metrics="p@1", test="none"),
    )
    pair = {
        "kl": {
            q: gap + wanted.per_query["bm25"]["p@1"][q]
            for q, gap in zip(wanted.per_query["bm25"]["p@1"], means, strict=True)
        },
        "bm25": wanted.per_query["bm25"]["p@1"],
    }
    from retrodistill.stages.evaluation.significance import compare

    [test] = compare("p@1", pair)
    assert kl["p"] == test.p
    assert kl["against"] == "bm25"


def test_means_over_seeds_keep_who_is_untrained(collection: rd.Collection) -> None:
    """The first group taken for the untrained one that gains are measured against."""
    trained = named_training(["train"], collection)
    runs = {
        "kl 1": runs_of(collection, trained, (6,))[0],
        "kl 2": runs_of(collection, trained, (8,))[0],
        "bm25": runs_of(collection, Lineage(), (4,))[0],
    }
    qrels = collection.qrels("test")
    single = rd.evaluate_runs(qrels, runs, seen=rd.seen_in_training(collection, qrels, runs))
    means = average_systems(single, {"kl": ["kl 1", "kl 2"], "bm25": ["bm25"]})
    assert means.training["untrained"] == ["bm25"]
    assert {title: part.settings["queries"] for title, part in means.subsets.items()} == {
        title: part.settings["queries"] for title, part in single.subsets.items()
    }


def test_a_table_by_hand(
    modules: tuple[ModuleType, ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A number under the head of another row of queries, or a p that is rounded to 0."""
    _, tables = modules
    lines: list[dict[str, Any]] = [
        {"system": "kl", "seed": 0, "ndcg@10": 0.9},
        {"system": "bm25", "queries": "all", "number": 300, "ndcg@10": 0.6863, "recall@100": 0.91},
        {
            "system": "kl",
            "queries": "all",
            "number": 300,
            "ndcg@10": 0.7,
            "spread": 0.01,
            "p": 0.00001,
            "recall@100": 0.95,
        },
        {"system": "bm25", "queries": UNSEEN, "number": 104, "ndcg@10": 0.5},
        {"system": "kl", "queries": UNSEEN, "number": 104, "ndcg@10": 0.45, "p": 0.034},
        {"metric": "ndcg@10", "a": "bm25", "b": "kl", "p": 0.5},
    ]
    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["tables.py", str(file), "--sort"])
    tables.main()
    assert capsys.readouterr().out.splitlines()[4:8] == [
        "| system | all (300) | p | documents unseen (104) | p | Recall@100 |",
        "| --- | --: | --: | --: | --: | --: |",
        "| kl | 0.7000 ± 0.0100 | <0.001 | 0.4500 | 0.034 | 0.9500 |",
        "| bm25 | 0.6863 |  | 0.5000 |  | 0.9100 |",
    ]
