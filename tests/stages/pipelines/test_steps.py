"""Pipelines: what is up to date, what is redone, and what a kill leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.corpus import save_small_collection

from retrodistill.base.config import EmbedConfig, MineConfig, ScoreConfig, SearchConfig, TrainConfig
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.store.runs import Run
from retrodistill.stages.pipelines.steps import Pipeline, Step, sound_fingerprint
from retrodistill.stages.pipelines.verbs import RUN, verb_step
from retrodistill.stages.reporting.commands import VERBS

FOLDERS = ("candidates", "scores", "student", "index", "run")


def chain_steps(
    folder: Path, model: Path | str, *, depth: int = 8, k: int = 5, batch_size: int = 4
) -> list[Step]:
    """Return the steps from a collection to a student's run."""
    data = f"beir:{folder / 'data'}"
    out = {name: folder / "out" / name for name in FOLDERS}
    configs: dict[str, tuple[str, Any]] = {
        "candidates": (
            "mine",
            MineConfig(data=data, depth=depth, add_positives=True, out=out["candidates"]),
        ),
        "scores": (
            "score",
            ScoreConfig(
                data=data,
                candidates=out["candidates"],
                teacher="bm25",
                out=out["scores"],
                shard_pairs=32,
            ),
        ),
        "student": (
            "train",
            TrainConfig(
                data=data,
                scores=(str(out["scores"]),),
                student=str(model),
                max_steps=8,
                batch_size=batch_size,
                save_steps=1,
                out=out["student"],
            ),
        ),
        "index": ("embed", EmbedConfig(data=data, model=str(out["student"]), out=out["index"])),
        "run": ("search", SearchConfig(index=out["index"], data=data, k=k, out=out["run"])),
    }
    return [verb_step(name, verb, config) for name, (verb, config) in configs.items()]


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the fingerprint of every artifact of the chain."""
    return {name: sound_fingerprint(folder / "out" / name) for name in FOLDERS}


@pytest.fixture
def run_chain(tmp_path: Path, tiny_model: Path) -> Callable[..., list[str]]:
    """Return what runs the chain with some settings and returns the steps that had to run."""
    save_small_collection(tmp_path / "data")

    def run(**settings: int) -> list[str]:
        redone: list[str] = []

        def counted(step: Step) -> Step:
            def make() -> Any:
                redone.append(step.name)
                return step.make()

            return replace(step, make=make)

        Pipeline(tmp_path / "out").run(map(counted, chain_steps(tmp_path, tiny_model, **settings)))
        return redone

    return run


def test_a_changed_setting_redoes_what_depends_on_it(
    tmp_path: Path, run_chain: Callable[..., list[str]]
) -> None:
    """Artifacts of the old settings below those of the new ones; or everything again."""
    assert run_chain() == [*FOLDERS]
    before = fingerprints(tmp_path)
    assert run_chain() == []
    assert run_chain(k=7) == ["run"]
    assert run_chain(k=7, batch_size=6) == ["student", "index", "run"]
    assert run_chain(k=7, batch_size=6, depth=9) == [*FOLDERS]
    assert run_chain() == [*FOLDERS]
    assert fingerprints(tmp_path) == before


def test_an_artifact_changed_by_hand_is_made_again(
    tmp_path: Path, run_chain: Callable[..., list[str]]
) -> None:
    """A step that is taken for up to date although its file holds something else by now."""
    run_chain()
    before, out = fingerprints(tmp_path), tmp_path / "out"
    Run.from_dict({"q24": {"d1": 1.0}}).write(out / "run", overwrite=True)
    assert run_chain() == ["run"]
    weights = next((out / "student").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b" ")
    assert run_chain() == ["student"]  # which comes out as before: nothing follows
    vectors = next(path for path in (out / "index" / "index").rglob("*") if path.is_file())
    vectors.write_bytes(b"\0" + vectors.read_bytes()[1:])
    assert run_chain() == ["index"]
    (out / "steps" / "run" / "manifest.json").write_text("{")
    assert run_chain() == ["run"]
    assert fingerprints(tmp_path) == before


def test_a_changed_collection_redoes_what_reads_it(
    tmp_path: Path, run_chain: Callable[..., list[str]]
) -> None:
    """Candidates of the documents of last week."""
    run_chain()
    corpus = tmp_path / "data" / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('"text": "', '"text": "new ', 1))
    assert run_chain()[0] == "candidates"


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_steps import chain_steps
from retrodistill.stages.pipelines.steps import Pipeline
folder, model = Path(sys.argv[2]), sys.argv[3]
Pipeline(folder / "out").run(chain_steps(folder, model))
"""


@pytest.mark.parametrize("victim", ["scores", "student", "index"])
def test_a_killed_pipeline_ends_as_one_that_was_not(
    victim: str, tmp_path: Path, tiny_model: Path
) -> None:
    """Half an artifact that counts as a whole one, or a night that starts from the beginning."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        save_small_collection(folder / "data")
    Pipeline(undisturbed / "out").run(chain_steps(undisturbed, tiny_model))
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(killed)]
    fakes = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), fakes])
    }
    process = subprocess.Popen([*command, str(tiny_model)], env=environment)
    record = killed / "out" / "steps" / victim / "manifest.json"
    begun = {"student": "student.checkpoints/checkpoint-*", "scores": "scores/shards/*"}
    try:
        while not (record.exists() and any((killed / "out").glob(begun.get(victim, "steps")))):
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not Manifest.read(record.parent).fingerprint
    earlier = FOLDERS[: FOLDERS.index(victim)]
    times = {name: (killed / "out" / name / "manifest.json").stat().st_mtime_ns for name in earlier}
    Pipeline(killed / "out").run(chain_steps(killed, tiny_model))
    assert fingerprints(killed) == fingerprints(undisturbed)
    for name, modified in times.items():
        assert (killed / "out" / name / "manifest.json").stat().st_mtime_ns == modified


def test_an_unfinished_step_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    """A store that begins with the scores of one teacher and ends with those of another."""
    out = tmp_path / "out"
    left: list[bool] = []

    def step(depth: int, *, fails: bool) -> Step:
        def make() -> None:
            left.append((out / "run" / "half").exists())
            (out / "run").mkdir(parents=True, exist_ok=True)
            (out / "run" / "half").touch()
            if fails:
                raise KeyboardInterrupt
            Run.from_dict({"q": {"d": float(depth)}}).write(out / "run", overwrite=True)

        return Step(name="run", config={"depth": depth}, outputs={"run": out / "run"}, make=make)

    pipeline = Pipeline(out)
    for depth, fails in ((1, True), (1, True), (2, True), (2, False)):
        if fails:
            with pytest.raises(KeyboardInterrupt):
                pipeline.run([step(depth, fails=fails)])
        else:
            pipeline.run([step(depth, fails=fails)])
    assert left == [False, True, False, True]


def test_the_reason_of_a_step_is_named(tmp_path: Path) -> None:
    """An hour of work for a reason that nobody can see."""
    out, inputs = tmp_path / "out", {"text": "a"}

    def step(depth: int) -> Step:
        return Step(
            name="run",
            config={"depth": depth},
            inputs=lambda: inputs,
            outputs={"run": out / "run"},
            make=lambda: Run.from_dict({"q": {"d": 1.0}}).write(out / "run", overwrite=True),
        )

    pipeline = Pipeline(out)
    assert pipeline.outdated(step(1)) == "it has not run yet"
    pipeline.run([step(1)])
    assert pipeline.outdated(step(1)) == ""
    assert pipeline.outdated(step(2)) == "changed settings: depth (1 -> 2)"
    inputs["text"] = "b"
    assert pipeline.outdated(step(1)) == "changed inputs: text"
    inputs["text"] = "a"
    (out / "run" / "manifest.json").unlink()
    assert "is missing or damaged" in pipeline.outdated(step(1))


def test_the_plan_lists_every_step_with_its_settings(
    tmp_path: Path, run_chain: Callable[..., list[str]]
) -> None:
    """A folder of artifacts without what they were made with in one place."""
    run_chain(depth=9)
    plan = yaml.safe_load((tmp_path / "out" / "plan.yaml").read_text())
    assert [*plan] == [*FOLDERS]
    assert (plan["candidates"]["verb"], plan["candidates"]["depth"]) == ("mine", 9)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """A pipeline that deletes what somebody else keeps under the name of its artifact."""
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match="exists already, and no pipeline has written it"):
        Pipeline(tmp_path).run([])
    outside = Step(name="out", outputs={"run": tmp_path / "elsewhere"}, make=dict)
    with pytest.raises(ValueError, match="lies outside"):
        Pipeline(tmp_path / "out").run([outside])


def test_every_verb_that_writes_an_artifact_is_a_step() -> None:
    """A card that names a verb which no pipeline can run."""
    assert {*RUN} == {*VERBS}
