"""Planned steps as steps of the pipeline; a round's stores begin with the scores before it."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from retrodistill.base.files import new_folder
from retrodistill.stages.pipelines.distil.plan import PlannedStep
from retrodistill.stages.pipelines.steps import Step, sound_fingerprint
from retrodistill.stages.pipelines.verbs import run_again, verb_step


def planned_step(planned: PlannedStep) -> Step:
    """Return the step of the pipeline that a planned step is."""
    step = verb_step(planned.name, planned.verb, planned.config)
    before = planned.adds_to
    if before is None:
        return step

    def inputs() -> dict[str, str]:
        return {**step.inputs(), "scores before": sound_fingerprint(before)}

    return dataclasses.replace(
        step, inputs=inputs, make=partial(add_to, before, planned.verb, planned.config)
    )


def add_to(before: Path, verb: str, config: Any) -> None:
    """Score what a copy of a store lacks: each pair is asked for once in all rounds."""
    if not config.out.exists():
        with new_folder(config.out) as folder:
            shutil.copytree(before, folder, dirs_exist_ok=True)
    run_again(verb, config)
