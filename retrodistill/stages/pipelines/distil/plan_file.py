"""plan.yaml: the settings of `distil`, and below `plan` every step with its own, to be edited.

A setting at the top shapes the steps. A setting of a step that was edited in the file stays edited,
whatever the top says: a copy of the plan as it was derived (`steps/derived.yaml`) separates
them. The plan names the folder that it was made in, so that it may be given with another --out:
paths in the one folder then stand for those in the other.
"""

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodistill.base.config import DistilConfig, as_dict
from retrodistill.base.config.reading import as_declared, by_field, read_yaml
from retrodistill.base.errors import ConfigError, DataError, did_you_mean
from retrodistill.base.files import write_atomically
from retrodistill.stages.pipelines.distil.plan import PlannedStep
from retrodistill.stages.pipelines.steps import PLAN, plain, with_texts
from retrodistill.stages.reporting.commands import IMMATERIAL

DERIVED = Path("steps") / "derived.yaml"

FOLDER = "folder"
"""Key of the folder that a plan was made in, among its steps."""

FIXED = IMMATERIAL | {"out"}
"""Settings of steps that are not in the file, as they do not shape what is made."""

HEAD = """\
# Settings of `retrodistill distil`, then every step with its own. Edit either, and run
#     retrodistill distil --config {path}
# What depends on a changed setting is made again, and nothing else.
"""


def edited(steps: Sequence[PlannedStep], plan: Mapping[str, Any], out: Path) -> list[PlannedStep]:
    """Return the steps with the settings that were edited in a plan.

    `plan` are the steps of the file that was given; without them, those of `out` are read.

    Raises:
        ConfigError: a step or a setting of the plan is unknown, or a value does not fit; or `out`
            has the plan of another command.

    """
    file = out / PLAN
    if file.exists() and "data" not in read_yaml(file, str(file)):
        raise ConfigError(
            f"{file} is not a plan of `distil`: another command has made {out}. Give another --out."
        )
    own = _plan_of(file) if file.exists() else {}
    plan = plan or own
    if not plan:
        return list(steps)
    folder = Path(str(plan.get(FOLDER, out)))
    folders = (out, folder) if plan == own else (folder, out)
    derived = next((at / DERIVED for at in folders if (at / DERIVED).exists()), None)
    before = _plan_of(derived) if derived else as_plan(steps)
    plan, before = (_moved(content, folder, out) for content in (plan, before))
    _check_names(plan, before, steps)
    return [_with_edits(step, plan.get(step.name, {}), before.get(step.name, {})) for step in steps]


def write_plan(
    out: Path, config: DistilConfig, steps: Sequence[PlannedStep], derived: Sequence[PlannedStep]
) -> None:
    """Write plan.yaml with the steps as they run, and beside the records the plan as derived."""
    import yaml

    settings = {
        name: value for name, value in as_dict(config).items() if name not in ("plan", "dry_run")
    }

    def text(content: Mapping[str, Any]) -> str:
        return str(yaml.safe_dump(plain(content), sort_keys=False, allow_unicode=True))

    head = HEAD.format(path=shlex.quote(str(out / PLAN)))
    plan = {FOLDER: str(out)} | as_plan(steps)
    write_atomically(out / PLAN, (head + text(settings) + "\n" + text({"plan": plan})).encode())
    write_atomically(out / DERIVED, text({"plan": as_plan(derived)}).encode())


def as_plan(steps: Sequence[PlannedStep]) -> dict[str, dict[str, Any]]:
    """Return each step's verb and settings by its name, as they stand in the file."""
    return {step.name: {"verb": step.verb} | _settings(step) for step in steps}


def _settings(step: PlannedStep) -> dict[str, Any]:
    """Return the settings of a step as YAML gives them back, without its folder."""
    settings = {name: value for name, value in as_dict(step.config).items() if name not in FIXED}
    return plain(settings)


def _plan_of(file: Path) -> dict[str, Any]:
    content = read_yaml(file, str(file)).get("plan") or {}
    if not isinstance(content, dict):
        raise DataError(f"{file}: `plan` must hold steps with their settings.")
    return content


def _moved(plan: Mapping[str, Any], folder: Path, out: Path) -> dict[str, Any]:
    """Return the steps of a plan that was made in `folder`, with its paths in `out` instead."""
    prefix = re.compile(rf"(?<![^:=]){re.escape(str(folder))}(?=/)")

    moved = with_texts(dict(plan), lambda text: prefix.sub(lambda _: str(out), text))
    return {name: settings for name, settings in moved.items() if name != FOLDER}


def _check_names(
    plan: Mapping[str, Any], before: Mapping[str, Any], steps: Sequence[PlannedStep]
) -> None:
    """Raise ConfigError for a step that neither this plan nor the one before it has."""
    names = {step.name for step in steps}
    for name, settings in plan.items():
        if name not in names and name not in before:
            raise ConfigError(
                f"{PLAN} has a step {name!r}, which is not planned.{did_you_mean(name, names)} "
                f"Steps: {', '.join(sorted(names))}."
            )
        if not isinstance(settings, dict):
            raise ConfigError(f"{PLAN}: step {name!r} must hold `setting: value` lines.")


def _with_edits(
    step: PlannedStep, written: Mapping[str, Any], before: Mapping[str, Any]
) -> PlannedStep:
    """Return a step with the settings that differ from those that were derived before."""
    edits = {
        name: value
        for name, value in written.items()
        if name not in before or before[name] != value
    }
    if not edits:
        return step
    where = f"{PLAN}, step {step.name}"
    if fixed := sorted(edits.keys() & (FIXED | {"verb"})):
        raise ConfigError(f"{where}: the {fixed[0]} of a step cannot be changed.")
    kind = type(step.config)
    try:
        values = as_declared(by_field(edits, kind, where), kind)
        return dataclasses.replace(step, config=dataclasses.replace(step.config, **values))
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(where) else f"{where}: {message}") from None
