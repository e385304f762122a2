"""Systems by datasets: numbers, costs, and what is not done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.encoders import save_tiny_sparse

import retrodistill as rd
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.benchmark import main
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.sparse import SparseTextEncoder
from retrodistill.report import main as report
from retrodistill.stages.pipelines.benchmark import latencies, run_benchmark

TIMED = 5


@pytest.fixture(scope="module")
def content(folder: Path, tiny_model: Path) -> dict[str, Any]:
    """Return a plan with a system of each kind, on both splits of the small collection."""
    return {
        "datasets": {
            "test": f"beir:{folder}",
            "train": {"data": f"beir:{folder}", "split": "train"},
        },
        "systems": {
            "bm25": {"retriever": "bm25"},
            "tiny": {"model": str(tiny_model), "max_tokens": 64},
            "cut": {"model": str(tiny_model), "index": "hnsw", "dimensions": 8, "recall": 0.5},
            "reranked": {"rerank": f"bi-encoder:{tiny_model}", "of": "bm25", "depth": 3},
        },
    }


@pytest.fixture(scope="module")
def out(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished benchmark."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "plan.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    words = ["--plan", str(folder / "plan.yaml"), "--out", str(folder / "out")]
    assert main([*words, "--k", "20", "--timed", str(TIMED), "--price-per-hour", "3.6"]) == 0
    return folder / "out"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of texts that dense models are asked to encode, call by call."""
    calls: list[int] = []

    def counting(encode: Callable[..., Any]) -> Callable[..., Any]:
        def counted(self: DenseEncoder, texts: Any) -> Any:
            calls.append(len(texts))
            return encode(self, texts)

        return counted

    for name in ("encode_docs", "encode_queries"):
        monkeypatch.setattr(DenseEncoder, name, counting(getattr(DenseEncoder, name)))
    return calls


def found(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "benchmark.json").read_text())
    return content


def cells(out: Path) -> dict[tuple[str, str], str]:
    """Return dataset and system -> fingerprint of the cell, of those that are finished."""
    folders = (out / "cells").glob("*/*")
    records = {(f.parent.name, f.name): Manifest.read(f, kind="cell") for f in folders}
    return {cell: record.fingerprint for cell, record in records.items() if record.fingerprint}


def test_numbers_are_those_of_the_verbs(
    out: Path, content: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    """A benchmark that measures other systems than its users get from the commands."""
    collection = rd.load_collection(content["datasets"]["test"])
    bm25 = rd.mine_candidates(collection, "test", settings=rd.MineSettings(depth=20))
    encoder = DenseEncoder(tiny_model, max_tokens=64)
    rd.embed_collection(collection, encoder, out=tmp_path / "index")
    from retrodistill.stages.searching import search_run

    dense = search_run(rd.Searcher.open(tmp_path / "index"), collection, "test", 20)
    teacher = rd.load_teacher(f"bi-encoder:{tiny_model}", collection)
    runs = {"bm25": bm25, "tiny": dense, "reranked": rd.rerank(bm25, collection, teacher, 3)}
    for name, run in runs.items():
        assert rd.Run.read(out / "runs" / "test" / name).fingerprint == run.fingerprint
    wanted = rd.evaluate_runs(collection.qrels("test"), runs)
    evaluation = found(out)["datasets"]["test"]["evaluation"]
    systems = {one["name"]: one["metrics"] for one in evaluation["systems"]}
    assert {name: systems[name] for name in runs} == wanted.systems
    assert len(evaluation["tests"]) == 6 * len(systems["bm25"])
    other = found(out)["datasets"]["train"]["evaluation"]["systems"][0]["metrics"]["map"]
    assert found(out)["means"]["bm25"]["map"] == pytest.approx((other + systems["bm25"]["map"]) / 2)


def test_rows_of_unseen_queries_come_from_lineages_and_names(
    content: dict[str, Any],
    folder: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A trained student and a reranker whose training is lost on the way to the table."""
    collection = rd.load_collection(content["datasets"]["test"])
    settings = rd.TrainSettings(objective="contrastive", max_steps=1, batch_size=2)
    rd.train_student(collection, tiny_model, tmp_path / "student", settings=settings)
    plan = {
        "datasets": {"test": f"beir:{folder}", "again": f"beir:{folder}"},
        "systems": {
            "bm25": {"retriever": "bm25"},
            "student": {"model": str(tmp_path / "student"), "max_tokens": 64},
            "reranked": {
                "rerank": f"bi-encoder:{tmp_path / 'student'}",
                "of": "bm25",
                "depth": 3,
            },
        },
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    words = ["--plan", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out")]
    assert main([*words, "--k", "5", "--timed", "2", "--trained-on", "tets"]) == 2
    assert "neither a folder nor a split" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--k", "5", "--timed", "2"]) == 0
    assert "no near double in training" in capsys.readouterr().out
    evaluation = found(tmp_path / "out")["datasets"]["test"]["evaluation"]
    assert evaluation["training"]["untrained"] == ["bm25"]
    assert [one["queries"] for one in evaluation["training"]["records"]] == [24]
    assert {*evaluation["training"]["unrecorded"]} == {"student", "reranked"}  # their start
    for system in ("student", "reranked"):
        assert rd.Run.read(tmp_path / "out" / "runs" / "test" / system).lineage.records
    page = (tmp_path / "out" / "benchmark.md").read_text()
    assert "documents unseen in training" in page
    named = rd.run_benchmark(plan, tmp_path / "out", k=5, timed=2, trained_on=["test"])
    assert not named.evaluations["test"].subsets["documents unseen in training"].per_query


def test_a_single_answer_is_that_of_the_run(out: Path, content: dict[str, Any]) -> None:
    """Times of other work than that which the quality was measured of."""
    from retrodistill.stages.pipelines.benchmark.cells import system_on
    from retrodistill.stages.pipelines.benchmark.plan import read_plan
    from retrodistill.stages.pipelines.benchmark.systems import Workspace

    plan = read_plan(content)
    collection = rd.load_collection(plan.datasets["test"].data)
    workspace = Workspace(out, "test", plan.datasets["test"], collection, plan.systems, 20)
    for name in plan.systems:
        run, answer = rd.Run.read(out / "runs" / "test" / name), system_on(name, workspace).answer()
        again = rd.Run.from_dict({query.id: answer(query) for query in workspace.queries})
        for stored, answered in zip(run.top(10).lists(), again.top(10).lists(), strict=True):
            assert stored[:2] == answered[:2]
            assert stored[2] == pytest.approx(answered[2], abs=1e-5)


def test_costs_are_those_of_the_files_and_the_clock(out: Path) -> None:
    """Index bytes of another folder, prices of another unit, percentiles out of order."""
    for cell in found(out)["cells"]:
        index = out / "indexes" / cell["dataset"] / cell["system"] / "index"
        if index.exists():
            sizes = [path.stat().st_size for path in index.rglob("*") if path.is_file()]
            assert cell["index_bytes"] == sum(sizes) > 0
        times = cell["latency_ms"]
        assert 0 < times["p50"] <= times["p95"] <= times["p99"]
        assert cell["timed"] == TIMED
        # 3.6 an hour is 0.001 a second: a million times a millisecond is 1000 seconds.
        assert cell["price"]["million_queries"] == pytest.approx(times["mean"])
        assert cell["price"]["million_docs"] == pytest.approx(1000 / cell["docs_per_second"])
    costs = {(c["dataset"], c["system"]): c["index_bytes"] for c in found(out)["cells"]}
    assert costs["test", "reranked"] == costs["test", "bm25"] > 0


def test_every_cell_leads_to_its_artifacts(out: Path) -> None:
    """A number that nobody can trace to the model, the index and the run that it came from."""
    for cell in found(out)["cells"]:
        manifest = Manifest.read(out / cell["folder"], kind="cell")
        assert (manifest.fingerprint, dict(manifest.inputs)) == (
            cell["fingerprint"],
            cell["inputs"],
        )
        for kind, role in (("runs", "run"), ("indexes", "index")):
            folder = out / kind / cell["dataset"] / cell["system"]
            if role in cell["inputs"]:
                assert Manifest.read(folder).fingerprint == cell["inputs"][role]
        assert cell["inputs"].keys() >= {"collection", "queries", "run"}
        assert {"cpu", "cores", "threads"} <= cell["machine"].keys()
    reranked = Manifest.read(out / "cells" / "test" / "reranked")
    assert reranked.inputs["first"] == cells(out)["test", "bm25"]


def test_the_pages_name_every_system_and_dataset(out: Path) -> None:
    """A system that is measured and not shown."""
    for file in ("benchmark.md", "benchmark.html"):
        text = (out / file).read_text()
        for word in ("bm25", "tiny", "cut", "reranked", "train", "price 1M queries", "retriever"):
            assert word in text


def test_a_second_call_computes_nothing(
    out: Path, content: dict[str, Any], encoded: list[int]
) -> None:
    """Hours that are paid again for a further metric, or after a crash in the last cell."""
    before = cells(out)
    assert len(before) == 8
    again = rd.run_benchmark(content, out, k=20, timed=TIMED, metrics="p@5")
    assert encoded == []
    assert cells(out) == before
    assert [*again.evaluations["test"].systems["tiny"]] == ["p@5"]


def test_a_changed_setting_costs_its_own_cells_only(
    content: dict[str, Any], tmp_path: Path, encoded: list[int]
) -> None:
    """Numbers of the old settings under the name of the new ones; or all cells again."""
    small = {
        "datasets": {"test": content["datasets"]["test"]},
        "systems": {name: dict(own) for name, own in content["systems"].items()},
    }
    rd.run_benchmark(small, tmp_path, k=20, timed=TIMED)
    before = cells(tmp_path)
    small["systems"]["reranked"]["depth"] = 2
    rd.run_benchmark(small, tmp_path, k=20, timed=TIMED)
    after = cells(tmp_path)
    assert {key for key in before if before[key] != after[key]} == {("test", "reranked")}
    small["systems"]["bm25"]["max_tokens"] = 99  # another setting, though one without effect
    rd.run_benchmark(small, tmp_path, k=20, timed=TIMED)
    changed = {key for key in before if after[key] != cells(tmp_path)[key]}
    assert changed == {("test", "bm25"), ("test", "reranked")}  # its latency holds the first's
    encoded.clear()
    rd.run_benchmark(small, tmp_path, k=20, timed=TIMED, overwrite=True)
    assert encoded
    assert all(after[key] != cells(tmp_path)[key] for key in after)


def test_a_damaged_artifact_is_made_again(content: dict[str, Any], tmp_path: Path) -> None:
    """A cell that is taken for finished although its run belongs to another system."""
    small = {
        "datasets": {"test": content["datasets"]["test"]},
        "systems": {"bm25": content["systems"]["bm25"]},
    }
    rd.run_benchmark(small, tmp_path, k=20, timed=TIMED)
    run = tmp_path / "runs" / "test" / "bm25"
    wanted = rd.Run.read(run).fingerprint
    rd.Run.from_dict({"q24": {"d1": 1.0}}).write(run, overwrite=True)
    rd.run_benchmark(small, tmp_path, k=20, timed=TIMED)
    assert rd.Run.read(run).fingerprint == wanted
    (tmp_path / "cells" / "test" / "bm25" / "manifest.json").write_text("{")
    rd.run_benchmark(small, tmp_path, k=20, timed=TIMED)
    assert len(cells(tmp_path)) == 1


@pytest.mark.parametrize("setting", ["k", "timed", "price_per_hour"])
def test_settings_are_checked_before_the_work(
    setting: str, content: dict[str, Any], tmp_path: Path
) -> None:
    """A traceback after an hour of embedding, or negative prices."""
    settings: dict[str, Any] = {setting: -1}
    with pytest.raises(ConfigError, match=f"{setting} must be at least"):
        rd.run_benchmark(content, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_failing_system_is_named_and_the_others_are_measured(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One mistyped model, and a night of measuring is lost."""
    broken = {
        "datasets": {"test": content["datasets"]["test"], "none": f"beir:{tmp_path / 'none'}"},
        "systems": {
            "absent": {"model": str(tmp_path / "absent")},
            "behind": {"rerank": "bm25", "of": "absent"},
            "bm25": content["systems"]["bm25"],
        },
    }
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(broken, sort_keys=False))
    assert main(["--plan", str(plan), "--out", str(tmp_path / "out"), "--timed", "2"]) == 2
    shown = capsys.readouterr()
    assert "absent on test" in shown.err
    assert "first stage 'absent' has failed" in shown.err
    assert "not measured: absent on test, behind on test, absent on none" in shown.err
    assert "bm25" in shown.out
    written = found(tmp_path / "out")
    assert [(cell["dataset"], cell["system"]) for cell in written["cells"]] == [("test", "bm25")]
    assert len(written["failures"]) == 5
    assert written["means"] == {}
    assert "absent on none" in (tmp_path / "out" / "benchmark.md").read_text()


SLOW = """
import os, time
from pathlib import Path
import numpy as np

class Slow:
    fingerprint, scale, unit = "slow", "unknown", "pair"

    def __init__(self, argument, collection):
        pass

    def score(self, pairs):
        Path("scoring").touch()
        while "HANG" in os.environ:
            time.sleep(0.05)
        return np.arange(len(pairs), dtype=np.float32)
"""


def test_a_killed_command_loses_the_unfinished_cell_only(
    content: dict[str, Any], tmp_path: Path
) -> None:
    """A half-written cell that counts as measured, or finished ones that are measured again."""
    plan = {
        "datasets": {"test": content["datasets"]["test"]},
        "systems": {
            "bm25": content["systems"]["bm25"],
            "slow": {"rerank": "slow_teacher:Slow:x", "of": "bm25", "depth": 3},
        },
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    (tmp_path / "slow_teacher.py").write_text(SLOW)
    command = [
        sys.executable,
        "-m",
        "retrodistill.benchmark",
        "--plan",
        "plan.yaml",
        "--out",
        "out",
        "--timed",
        "2",
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment | {"HANG": "1"})
    try:
        while not (tmp_path / "scoring").exists():
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = cells(tmp_path / "out")
    assert [*before] == [("test", "bm25")]
    assert not (tmp_path / "out" / "benchmark.json").exists()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = cells(tmp_path / "out")
    assert after.items() > before.items()
    assert set(after) == {("test", "bm25"), ("test", "slow")}


def test_a_report_takes_the_times_of_a_benchmark(
    out: Path, content: dict[str, Any], tmp_path: Path
) -> None:
    """Times that are typed by hand, and belong to another dataset or system."""
    data = content["datasets"]["test"]
    timed = {
        cell["system"]: cell["latency_ms"]["p50"]
        for cell in found(out)["cells"]
        if cell["dataset"] == "test"
    }
    runs = [
        word for name in ("bm25", "tiny") for word in ("--run", str(out / "runs" / "test" / name))
    ]
    words = ["--data", data, *runs, "--benchmark", str(out), "--out", str(tmp_path / "page")]
    assert report([*words, "--latency", "tiny=12.5", "--queries", "0"]) == 0
    written = json.loads((tmp_path / "page" / "report.json").read_text())["sections"]["cost"]
    assert written["milliseconds"] == {"bm25": timed["bm25"], "tiny": 12.5}


def test_times_of_something_else_are_refused(out: Path, tmp_path: Path) -> None:
    """A plot of the times of whatever dataset comes first."""
    with pytest.raises(ConfigError, match="must hold one dataset, but it holds"):
        latencies(out, ["bm25"], data=None, split="test")
    with pytest.raises(ConfigError, match="must hold beir:other"):
        latencies(out, ["bm25"], data="beir:other", split="test")
    file = tmp_path / "benchmark.json"
    with pytest.raises(DataError, match="cannot be read"):
        latencies(file, ["bm25"], data=None, split="test")
    file.write_text("[]")
    with pytest.raises(DataError, match="is not what `benchmark` writes"):
        latencies(tmp_path, ["bm25"], data=None, split="test")
    cell = {"dataset": "one", "system": "a", "latency_ms": {"p50": 2}}
    dataset = {"one": {"data": "beir:x", "split": "test"}}
    file.write_text(json.dumps({"datasets": dataset, "cells": [cell]}))
    assert latencies(file, ["a", "b"], data=None, split="test") == {"a": 2.0}
    with pytest.raises(ConfigError, match="times of a, but the systems here are called b"):
        latencies(file, ["b"], data="beir:x", split="test")


def test_documents_are_indexed_once_and_their_time_counts(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that is up to date encodes the collection again to say so; or a speed without work."""
    encoded: list[int] = []
    encode = SparseTextEncoder.encode_docs

    def slowly(self: SparseTextEncoder, texts: Sequence[str]) -> Any:
        encoded.append(len(texts))
        time.sleep(0.2 if len(texts) > 1 else 0)
        return encode(self, texts)

    monkeypatch.setattr(SparseTextEncoder, "encode_docs", slowly)
    model = save_tiny_sparse(tmp_path / "model")
    plan = {
        "datasets": {"test": content["datasets"]["test"]},
        "systems": {"splade": {"retriever": f"sparse:{model}"}},
    }
    run_benchmark(plan, tmp_path / "out", k=5, timed=2)
    documents = sum(encoded)
    assert documents >= 60
    manifest = Manifest.read(tmp_path / "out" / "cells" / "test" / "splade", kind="cell")
    assert manifest.details["docs_per_second"] <= documents / 0.2
    encoded.clear()
    run_benchmark(plan, tmp_path / "out", k=5, timed=2)
    assert sum(encoded) <= 1  # the model is tried with one text when it is loaded
