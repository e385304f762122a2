"""The plan of `distil`: what is refused before any work, and edits of plan.yaml."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from retrodistill.base.config import DistilConfig
from retrodistill.base.errors import ConfigError
from retrodistill.stages.pipelines.distil.plan import Layout, PlannedStep, plan_steps
from retrodistill.stages.pipelines.distil.plan_file import edited, write_plan
from retrodistill.stages.pipelines.distil.situation import Situation

DOCUMENTS = Situation(
    docs=400,
    titled=1.0,
    logged=0,
    labelled=0,
    has_dev=False,
    has_test=False,
    generates=True,
)


def layout(out: Path, situation: Situation = DOCUMENTS, **changes: Any) -> Layout:
    config = DistilConfig(**({"data": "docs:handbook", "out": out} | changes))
    return Layout(config=config, situation=situation)


def planned(laid_out: Layout) -> list[PlannedStep]:
    """Return the steps with the edits of the plan of before, and write the plan, as a run does."""
    derived = plan_steps(laid_out)
    steps = edited(derived, laid_out.config.plan, laid_out.out)
    write_plan(laid_out.out, laid_out.config, steps, derived)
    return steps


def setting(steps: list[PlannedStep], step: str, name: str) -> Any:
    return next(getattr(each.config, name) for each in steps if each.name == step)


def edit(out: Path, step: str, /, **settings: Any) -> dict[str, Any]:
    """Change settings of a step in plan.yaml; return its steps."""
    content = yaml.safe_load((out / "plan.yaml").read_text())
    content["plan"][step] |= settings
    (out / "plan.yaml").write_text(yaml.safe_dump(content))
    plan: dict[str, Any] = content["plan"]
    return plan


def test_a_plan_given_with_another_out_reads_nothing_of_the_first(tmp_path: Path) -> None:
    """Every path of app/plan.yaml was taken for an edit: `--out app2` trained on app's scores."""
    first, second = tmp_path / "app", tmp_path / "app2"
    planned(layout(first))
    plan = edit(first, "student-distilled", learning_rate=0.5)
    steps = planned(layout(second, plan=plan, steps=77))
    assert setting(steps, "student-distilled", "scores") == second / "scores" / "mean"
    assert setting(steps, "student-distilled", "learning_rate") == 0.5
    assert setting(steps, "student-distilled", "max_steps") == 77, "a changed top is no edit"
    assert f"{first}/" not in (second / "plan.yaml").read_text()


def test_a_folder_that_was_moved_keeps_its_edits_and_no_path_of_before(tmp_path: Path) -> None:
    """A moved folder read the artifacts of where it had been, or lost its edits."""
    planned(layout(tmp_path / "app"))
    edit(tmp_path / "app", "student-distilled", learning_rate=0.5)
    (tmp_path / "app").rename(tmp_path / "moved")
    steps = planned(layout(tmp_path / "moved"))
    assert setting(steps, "candidates", "out") == tmp_path / "moved" / "runs" / "candidates"
    assert setting(steps, "scores-bm25", "candidates") == tmp_path / "moved/runs/candidates"
    assert setting(steps, "student-distilled", "learning_rate") == 0.5


def test_an_edit_stays_until_it_is_taken_back(tmp_path: Path) -> None:
    """An edit was lost with the next run, or could not be undone."""
    planned(layout(tmp_path))
    edit(tmp_path, "student-distilled", max_steps=7)
    for _ in range(2):
        steps = planned(layout(tmp_path, steps=50))
        assert setting(steps, "student-distilled", "max_steps") == 7
    edit(tmp_path, "student-distilled", max_steps=50)
    steps = planned(layout(tmp_path, steps=60))
    assert setting(steps, "student-distilled", "max_steps") == 60


def test_the_folder_of_a_step_cannot_be_edited(tmp_path: Path) -> None:
    """A step wrote elsewhere, and the steps after it read what lay in its old folder."""
    planned(layout(tmp_path))
    edit(tmp_path, "candidates", out=str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="step candidates: the out of a step cannot be changed"):
        planned(layout(tmp_path))


def test_a_plan_of_another_command_is_not_taken_over(tmp_path: Path) -> None:
    """plan.yaml of a benchmark was overwritten, as any folder with a plan.yaml was ours."""
    (tmp_path / "plan.yaml").write_text("embed/scifact:\n  model: small\n")
    with pytest.raises(ConfigError, match="is not a plan of `distil`"):
        planned(layout(tmp_path))
