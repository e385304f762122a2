"""Pipelines: steps that each write artifacts, redone only where settings or inputs have changed.

A step is settings, what it reads, and the artifact folders that it writes. When it has run, a
record is left in `OUT/steps/NAME/manifest.json`: a manifest whose `config` are the settings and
whose `inputs` are the fingerprints of what was read and of what was written. A step is up to date
when its record names the settings and the fingerprints of now, so

- a changed setting redoes its step, and after it the steps whose inputs came out otherwise;
- an artifact that was deleted, damaged or changed by hand is made again;
- a pipeline that was killed resumes at the step in which it was killed. Before a step starts, it
  leaves a record without a fingerprint: only artifacts of equal settings and inputs are resumed.

A record beside the artifacts was preferred to the manifests of the artifacts themselves: those name
the inputs that matter for their own kind (an index its encoder, a store its teacher), not all that
a step has read, and a step may write two artifacts, or measure and write none.

    steps = [
        Step(name="candidates", config={"depth": 8}, outputs={"run": runs}, make=mine_them),
        Step(name="student", inputs=lambda: {"candidates": ...}, outputs=..., make=train_it),
    ]
    Pipeline(out).run(steps)
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.files import check_writable, write_atomically
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest, digest, digest_files
from retrodistill.models.indexes.folder import INDEX
from retrodistill.stages.reporting.chain import content_fingerprint

PLAN = "plan.yaml"
UNSTARTED = "it has not run yet"
UNFINISHED = "it was started and not finished"


@dataclass(frozen=True, kw_only=True)
class Step:
    """Settings, what is read with them, and the artifacts that are written."""

    name: str
    """Unique in its pipeline; a slash makes a subfolder of records."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Every setting that shapes what is written."""

    inputs: Callable[[], Mapping[str, str]] = dict
    """Returns role -> fingerprint of what the step reads, as it is now."""

    outputs: Mapping[str, Path] = field(default_factory=dict)
    """Role -> artifact folder below the pipeline's. No role is also one of `inputs`."""

    leftovers: Sequence[Path] = ()
    """What a killed run leaves beside the outputs, such as checkpoints."""

    make: Callable[[], Mapping[str, Any] | None]
    """Writes the outputs, resuming or replacing what lies there; returns details to record."""


class Pipeline:
    """Runs steps, and keeps their records below `out`, in a folder named after their kind."""

    def __init__(self, out: Path, *, kind: str = "step") -> None:
        self.out = Path(out)
        self.kind = kind

    def run(self, steps: Iterable[Step]) -> dict[str, Manifest]:
        """Run the steps that are not up to date, in order; return the record of each by its name.

        `plan.yaml` gets every step with its settings.

        Raises:
            ConfigError: `out` holds something else than a pipeline.
            RetrodistillError: a step failed. The steps before it are kept.

        """
        steps = list(steps)
        refuse_foreign(self.out)
        self.write_plan(steps)
        records = {}
        for number, step in enumerate(steps, 1):
            records[step.name] = self.ensure(step, label=f"{number}/{len(steps)} {step.name}")
        return records

    def ensure(self, step: Step, *, label: str = "", overwrite: bool = False) -> Manifest:
        """Return the record of a step, after running it unless it is up to date.

        `overwrite` runs it in any case, from scratch.

        Raises:
            RetrodistillError: what the step needs is missing or malformed.

        """
        label = label or step.name
        inputs = dict(step.inputs())
        reason = "from scratch" if overwrite else self._why(step, inputs)
        if not reason:
            log.info(f"{label}: up to date")
            return self.record(step)
        log.info(f"\n{label}: {reason}")
        self._start(step, inputs, keep=reason == UNFINISHED)
        details = dict(step.make() or {})
        outputs = {role: sound_fingerprint(path) for role, path in step.outputs.items()}
        config = plain(step.config)
        record = Manifest(
            kind=self.kind,
            fingerprint=digest(json.dumps([inputs, outputs, config, details])),
            inputs={**inputs, **outputs},
            config=config,
            details=details,
        )
        record.write(self.folder(step))
        return record

    def outdated(self, step: Step) -> str:
        """Return why a step is to be run; empty if it is up to date."""
        return self._why(step, step.inputs())

    def outdated_settings(self, step: Step) -> bool:
        """Tell whether a step has no finished record of its settings, whatever its inputs are."""
        try:
            record = self.record(step)
        except DataError:
            return True
        return not record.fingerprint or bool(_differing(record.config, plain(step.config)))

    def folder(self, step: Step) -> Path:
        """Return the folder of a step's record."""
        return self.out / f"{self.kind}s" / step.name

    def record(self, step: Step) -> Manifest:
        """Return the record of a step.

        Raises:
            DataError: there is none, or it is damaged.

        """
        return Manifest.read(self.folder(step), kind=self.kind)

    def write_plan(self, steps: Iterable[Step]) -> None:
        """Write every step with its settings to `plan.yaml`."""
        import yaml

        plan = {step.name: plain(step.config) for step in steps}
        text = yaml.safe_dump(plan, sort_keys=False, allow_unicode=True)
        write_atomically(self.out / PLAN, text.encode())

    def _why(self, step: Step, inputs: Mapping[str, str]) -> str:
        try:
            record = self.record(step)
        except DataError:
            return UNSTARTED if not self.folder(step).exists() else "its record is damaged"
        if changed := _differing(record.config, plain(step.config)):
            return f"changed settings: {', '.join(changed)}"
        if changed := [role for role, now in inputs.items() if record.inputs.get(role) != now]:
            return f"changed inputs: {', '.join(changed)}"
        if not record.fingerprint:
            return UNFINISHED
        for role, path in step.outputs.items():
            try:
                if sound_fingerprint(path) != record.inputs.get(role):
                    return f"{path} was changed since"
            except DataError as error:
                return f"{path} is missing or damaged ({error})"
        return ""

    def _start(self, step: Step, inputs: Mapping[str, str], *, keep: bool) -> None:
        """Leave a record without a fingerprint, and nothing of the outputs unless they resume."""
        folder = self.folder(step)
        for path in (*step.outputs.values(), *step.leftovers):
            if not path.is_relative_to(self.out):
                raise ValueError(f"{path}, written by step {step.name!r}, lies outside {self.out}")
        check_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not keep:
            for path in (*step.outputs.values(), *step.leftovers):
                shutil.rmtree(path, ignore_errors=True)
        Manifest(kind=self.kind, fingerprint="", inputs=inputs, config=plain(step.config)).write(
            folder
        )


def refuse_foreign(out: Path) -> None:
    """Raise ConfigError if a folder holds something else than a pipeline."""
    if out.exists() and not (out.is_dir() and ((out / PLAN).exists() or not any(out.iterdir()))):
        raise ConfigError(
            f"{out} exists already, and no pipeline has written it. Give another --out, or delete "
            "it."
        )
    check_writable(out)


def sound_fingerprint(folder: Path) -> str:
    """Return the fingerprint of an artifact's content, after comparing its files with it.

    Raises:
        DataError: it is not an artifact, or a file of it is damaged or was changed.

    """
    manifest = Manifest.read(folder)
    manifest.check_files(folder)
    if manifest.kind == "index" and digest_files(folder / INDEX) != manifest.fingerprint:
        raise DataError(f"the files in {folder / INDEX} are not those of its manifest")
    return content_fingerprint(folder)


def movable(step: Step, out: Path) -> Step:
    """Return a step whose record names what lies below `out` relative to it.

    The pipeline's folder may then be moved.
    """

    def relative(text: str) -> str:
        return text.replace(f"{out}/", "")

    def inputs() -> dict[str, str]:
        return {relative(role): value for role, value in step.inputs().items()}

    return replace(step, config=with_texts(plain(step.config), relative), inputs=inputs)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a manifest gives them back: lists for tuples, strings for paths."""
    content: dict[str, Any] = json.loads(json.dumps(dict(config), default=str))
    return content


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain settings with every text in them changed, however deep it stands."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [with_texts(element, change) for element in value]
    if isinstance(value, dict):
        return {name: with_texts(setting, change) for name, setting in value.items()}
    return value


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the settings whose values differ, each with both values where they are short."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    values = [(name, f"{before.get(name)!r} -> {now.get(name)!r}") for name in names]
    return [f"{name} ({change})" if len(change) < 60 else name for name, change in values]
