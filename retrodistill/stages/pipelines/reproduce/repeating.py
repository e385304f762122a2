"""Repeat the steps of a chain by the verbs that made them, in another folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodistill.base.config.reading import settings_of
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.files import refuse_existing
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest
from retrodistill.base.registry import STAGES
from retrodistill.stages.reporting.chain import (
    FOLDER,
    PLAIN,
    SPECS,
    Step,
    content_fingerprint,
    input_fingerprint,
    is_ours,
    place,
)
from retrodistill.stages.reporting.commands import UNSAID, VERBS, verb_of
from retrodistill.stages.reporting.results import system_names

NOT_AGAIN = UNSAID | {"export"}
"""Settings that are left away: nothing is written but what is made again."""


def steps_to_make(
    chain: Sequence[Step], wanted: Sequence[str], *, anew: bool = False
) -> list[Step]:
    """Return the steps that the wanted artifacts need, in order: all if `anew`.

    Else those whose artifact is not there with its fingerprint, nor is anything made from it.
    """
    steps = {place(step.artifact): step for step in chain}
    todo: dict[str, Step] = {}

    def need(path: str) -> None:
        step = steps.get(place(path))
        if step is None or place(path) in todo or (not anew and _is_there(step)):
            return
        for one in step.inputs:
            if is_ours(one):
                need(one.name)
        todo[place(path)] = step

    for path in wanted:
        need(path)
    return list(todo.values())


def make(
    todo: Sequence[Step],
    steps: Sequence[Step],
    out: Path | None,
    moved: Mapping[str, str],
) -> dict[str, Path]:
    """Make artifacts again below `out`, and return where each one lies now, by its `place`.

    `steps` is the whole chain, `moved` says where collections lie now.

    Raises:
        ConfigError: there is no `out`, or it exists already.
        DataError: a step cannot be repeated, or what it reads is missing or has changed.

    """
    number = {place(step.artifact): count for count, step in enumerate(steps, 1)}
    said = ", ".join(f"{step.verb or '?'} -> {step.artifact}" for step in todo)
    for step in todo:
        where = f"step {number[place(step.artifact)]} ({step.verb or '?'} -> {step.artifact})"
        if step.cannot or verb_of(step.kind, step.settings) != step.verb:
            reason = step.cannot or "its settings are not those of its verb"
            raise DataError(f"{where} cannot be repeated: {reason}.")
        _check_inputs(step, where)
    if out is None:
        raise ConfigError(f"to be made again: {said}. Give --out, a folder to make it in.")
    refuse_existing(out, overwrite=False)
    names = system_names([Path(step.artifact) for step in todo])
    made = {place(path): out / name for name, path in names.items()}
    for step in todo:
        where = f"step {number[place(step.artifact)]} ({step.verb} -> {step.artifact})"
        log.info(f"\n{where}")
        config: Any = settings_of(VERBS[step.verb], _settings(step, made, moved), where)
        STAGES[step.verb](config)
    return made


def _check_inputs(step: Step, where: str) -> None:
    """Raise DataError if a file or a folder that a step reads is missing or has changed."""
    for one in step.inputs:
        if one.kind not in (PLAIN, FOLDER):
            continue
        flag = one.setting.replace("_", "-")
        if not Path(one.name).exists():
            raise DataError(f"{where} needs {one.name} (--{flag}), which is not here.")
        found = input_fingerprint(Path(one.name))
        if found != one.fingerprint:
            raise DataError(
                f"{where} needs {one.name} (--{flag}) as it was, but it has changed "
                f"(fingerprint {found[:12]}, wanted {one.fingerprint[:12]})."
            )


def _settings(step: Step, made: Mapping[str, Path], moved: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a step, which read and write where things are made now."""
    settings = {name: own for name, own in step.settings.items() if name not in NOT_AGAIN}
    for one in step.inputs:
        now = made.get(place(one.name))
        if now is not None and is_ours(one):
            settings[one.setting] = _renamed(settings[one.setting], one.setting, one.name, now)
    if settings.get("precision") == "auto" and step.number_type:
        settings["precision"] = step.number_type
    settings["data"] = moved.get(str(settings.get("data")), settings.get("data"))
    return settings | {"out": str(made[place(step.artifact)])}


def _renamed(value: Any, setting: str, name: str, now: Path) -> Any:
    if isinstance(value, list):
        return [_renamed(part, setting, name, now) for part in value]
    kind, colon, rest = str(value).partition(":") if setting in SPECS else ("", "", str(value))
    return f"{kind}{colon}{now}" if rest == name else value


def what_differs(step: Step, made: Mapping[str, Path]) -> str:
    """Return what of an artifact that was made again is another than in the card."""
    folder = made[place(step.artifact)]
    now = Manifest.read(folder).inputs
    own = [] if content_fingerprint(folder) == step.fingerprint else ["its fingerprint"]
    return ", ".join(
        own + [name for name, was in step.fingerprints.items() if now.get(name) != was]
    )


def _is_there(step: Step) -> bool:
    try:
        return content_fingerprint(Path(step.artifact)) == step.fingerprint
    except DataError:
        return False
