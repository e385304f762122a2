"""Planned steps as steps of the pipeline; a round's stores begin with the scores before it."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from retrodistill.base.files import new_folder
from retrodistill.stages.pipelines.distil.plan import PlannedStep
from retrodistill.stages.pipelines.steps import Step, plain, sound_fingerprint, with_texts
from retrodistill.stages.pipelines.verbs import run_again, verb_step


def planned_step(planned: PlannedStep, out: Path) -> Step:
    """Return the step of the pipeline that a planned step is.

    Its record names what lies below `out` relative to it, so that the folder may be moved.
    """
    step = verb_step(planned.name, planned.verb, planned.config)
    before = planned.adds_to

    def relative(text: str) -> str:
        return text.replace(f"{out}/", "")

    def inputs() -> dict[str, str]:
        read = {relative(role): value for role, value in step.inputs().items()}
        return read if before is None else {**read, "scores before": sound_fingerprint(before)}

    make = step.make
    if before is not None:
        make = partial(add_to, before, planned.verb, planned.config)
    return dataclasses.replace(
        step, config=with_texts(plain(step.config), relative), inputs=inputs, make=make
    )


def add_to(before: Path, verb: str, config: Any) -> None:
    """Score what a copy of a store lacks: each pair is asked for once in all rounds."""
    if not config.out.exists():
        with new_folder(config.out) as folder:
            shutil.copytree(before, folder, dirs_exist_ok=True)
    run_again(verb, config)
