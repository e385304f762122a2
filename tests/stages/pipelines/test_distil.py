"""`distil`: from documents to a measured student, resumed, changed, and refused."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fakes.corpus import save_titled_corpus
from fakes.models import save_tiny_model

from retrodistill.base.config import DistilConfig
from retrodistill.base.errors import ConfigError
from retrodistill.distil import main
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.pipelines.distil import distil
from retrodistill.stages.searching import Searcher


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model"), layers=2))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, model: str) -> DistilConfig:
    """Settings of a pipeline over documents alone that has run."""
    folder = tmp_path_factory.mktemp("distil")
    config = settings(save_titled_corpus(folder / "corpus"), model, folder / "app")
    assert distil(config) is not None
    return config


def settings(corpus: Path, model: str, out: Path, **changes: object) -> DistilConfig:
    values = {"data": f"beir:{corpus}", "student": model, "out": out, "steps": 4, "depth": 10}
    values |= {"learning_rate": 1e-3, "held_out": 16, "max_tokens": 32, "precision": "float32"}
    return DistilConfig(**(values | changes))  # type: ignore[arg-type]


def again(app: DistilConfig, folder: Path, **changes: object) -> DistilConfig:
    """Return changed settings of a copy of the pipeline's folder."""
    shutil.copytree(app.out, folder / "app")
    return dataclasses.replace(app, out=folder / "app", **changes)


def made(out: Path) -> dict[str, int]:
    """Return when the record of each step was written."""
    records = (out / "steps").glob("*/manifest.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in records}


def redone(config: DistilConfig) -> set[str]:
    """Run a pipeline that has run, and return the steps that were done again."""
    before = made(config.out)
    distil(config)
    after = made(config.out)
    return {name for name, time in after.items() if before.get(name) != time}


def test_documents_alone_become_a_measured_student(app: DistilConfig) -> None:
    """A corpus without queries or judgements that stops at the first step asking for a split."""
    names = {path.name for path in app.out.iterdir()}
    assert {"plan.yaml", "student", "index", "report.html", "report.json"} <= names
    report = json.loads((app.out / "report.json").read_text())
    systems = [system["name"] for system in report["systems"]]
    assert systems[:3] == ["BM25", "untouched", "untouched + BM25"]
    assert {"teacher", "distilled", "distilled + BM25"} < {*systems}
    assert report["settings"]["queries"] == 16
    assert "generated" in report["settings"]["caution"]
    assert set(report["distil"]["costs"]) >= {"bm25", "untouched", "teacher", "distilled"}
    page = (app.out / "report.html").read_text()
    assert report["distil"]["verdict"][0].split("'")[0] in page


def test_held_out_queries_and_their_documents_are_not_trained_on(app: DistilConfig) -> None:
    """Titles that are measured with having been trained on."""
    lines = (app.out / "queries" / "held-out.jsonl").read_text().splitlines()
    held_out = {json.loads(line)["_id"] for line in lines}
    manifest = json.loads((app.out / "students" / "distilled" / "manifest.json").read_text())
    assert len(held_out) == 16
    assert manifest["details"]["queries"] == 64
    candidates = json.loads((app.out / "runs" / "candidates" / "manifest.json").read_text())
    assert "held-out" not in json.dumps(candidates["config"])


def test_the_student_is_what_the_index_answers_with(app: DistilConfig) -> None:
    """An index of the untouched model beside a trained student, or documents embedded again."""
    chosen = json.loads((app.out / "report.json").read_text())["distil"]["chosen"]
    start = DenseEncoder(app.student, max_tokens=32, precision="float32")
    student = DenseEncoder(app.out / "student", max_tokens=32, precision="float32")
    searcher = Searcher.open(app.out / "index", precision="float32")
    assert searcher.encoder.fingerprint == student.fingerprint
    assert student.doc_fingerprint == start.doc_fingerprint
    moved = student.encode_queries(["blood test"]) != start.encode_queries(["blood test"])
    assert moved.any() == (chosen != "untouched")
    assert len(searcher.search("blood test", k=3)) == 3


def test_the_same_again_does_nothing(app: DistilConfig) -> None:
    """A resumed pipeline that trains and embeds once more, or writes another report."""
    report = (app.out / "report.json").read_bytes()
    assert redone(app) == set()
    assert (app.out / "report.json").read_bytes() == report


def test_a_changed_setting_redoes_what_depends_on_it(app: DistilConfig, tmp_path: Path) -> None:
    """A student of other settings than the plan's, or everything made again for one of them."""
    done = redone(again(app, tmp_path, steps=5))
    assert {"student-distilled", "held-out-distilled", "held-out-distilled-bm25"} <= done
    assert not done & {"queries", "index-untouched", "candidates", "scores-mean", "held-out-bm25"}


def test_an_edited_step_stays_edited(app: DistilConfig, tmp_path: Path) -> None:
    """Edits of plan.yaml that the next run derives away, or that a setting at the top undoes."""
    config = again(app, tmp_path)
    file = config.out / "plan.yaml"
    plan = yaml.safe_load(file.read_text())
    plan["plan"]["student-distilled"]["weight_decay"] = 0.5
    file.write_text(yaml.safe_dump(plan))
    words = ["--config", str(file), "--out", str(config.out)]
    assert main(words) in (0, 1)
    assert main([*words, "--seed", "0", "--learning-rate", "0.002"]) in (0, 1)
    kept = yaml.safe_load(file.read_text())
    assert kept["learning_rate"] == 0.002
    assert kept["plan"]["student-distilled"]["learning_rate"] == 0.002
    manifest = json.loads((config.out / "students" / "distilled" / "manifest.json").read_text())
    assert manifest["config"]["weight_decay"] == 0.5
    assert manifest["config"]["learning_rate"] == 0.002


def test_a_mistake_in_the_plan_names_step_and_setting(app: DistilConfig, tmp_path: Path) -> None:
    """A step or a setting that is misspelt and passed over."""
    config = again(app, tmp_path)
    for plan, message in (
        ({"student-distiled": {"seed": 1}}, "Did you mean 'student-distilled'"),
        ({"student-distilled": {"sede": 1}}, "step student-distilled.*'sede'"),
        ({"student-distilled": {"seed": "many"}}, "step student-distilled.*seed"),
        ({"candidates": {"verb": "score"}}, "verb of a step cannot be changed"),
        ({"candidates": 3}, "must hold `setting: value` lines"),
    ):
        with pytest.raises(ConfigError, match=message):
            distil(dataclasses.replace(config, plan=plan, dry_run=True))


def test_nothing_to_learn_from_is_refused_before_any_work(
    tmp_path: Path, model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """First words of documents that pass for queries: they made students worse."""
    corpus = save_titled_corpus(tmp_path / "corpus", titles=False)
    words = ["--data", f"beir:{corpus}", "--student", model, "--out", str(tmp_path / "app")]
    assert main(words) == 2
    assert "nothing to learn from" in capfd.readouterr().err
    assert not (tmp_path / "app" / "queries").exists()


@pytest.mark.slow
def test_a_killed_run_ends_as_an_undisturbed_one(app: DistilConfig, tmp_path: Path) -> None:
    """A step that was killed half-way and counts as done, or a pipeline that starts over."""
    out = tmp_path / "app"
    flags = {"data": app.data, "student": app.student, "out": out, "steps": 4, "depth": 10}
    flags |= {"learning-rate": 1e-3, "held-out": 20, "max-tokens": 32, "precision": "float32"}
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "retrodistill.distil", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "steps" / "student-distilled").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    finished = made(out)
    assert subprocess.run(command, check=False, capture_output=True).returncode in (0, 1)
    again = made(out)
    assert {name for name in finished if finished[name] != again[name]} <= {"student-distilled"}
    assert {"candidates", "scores-mean"} < {*finished} < {*again}
    for part in ("queries", "runs/candidates", "students/distilled", "student", "index"):
        pair = [
            json.loads((folder / part / "manifest.json").read_text()) for folder in (app.out, out)
        ]
        assert pair[0]["fingerprint"] == pair[1]["fingerprint"], part
