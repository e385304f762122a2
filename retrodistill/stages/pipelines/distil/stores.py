"""Planned steps as steps of the pipeline; a round's stores begin with the scores before it."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from retrodistill.base.files import new_folder
from retrodistill.stages.pipelines.distil.plan import PlannedStep
from retrodistill.stages.pipelines.steps import Step, movable, sound_fingerprint
from retrodistill.stages.pipelines.verbs import run_again, verb_step


def planned_step(planned: PlannedStep, out: Path) -> Step:
    """Return the step of the pipeline that a planned step is.

    Its record names what lies below `out` relative to it, so that the folder may be moved.
    """
    step = movable(verb_step(planned.name, planned.verb, planned.config), out)
    before = planned.adds_to
    if before is None:
        return step
    return dataclasses.replace(
        step,
        inputs=lambda: {**step.inputs(), "scores before": sound_fingerprint(before)},
        make=partial(add_to, before, planned.verb, planned.config),
    )


def add_to(before: Path, verb: str, config: Any) -> None:
    """Score what a copy of a store lacks: each pair is asked for once in all rounds."""
    if not config.out.exists():
        with new_folder(config.out) as folder:
            shutil.copytree(before, folder, dirs_exist_ok=True)
    run_again(verb, config)
