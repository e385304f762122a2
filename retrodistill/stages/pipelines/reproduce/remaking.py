"""Make the artifacts of a card's chain again, by the verbs that made them, in another folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodistill.base.calls import split_label
from retrodistill.base.config.reading import settings_of
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.stages.pipelines.steps import Pipeline, Step, refuse_foreign
from retrodistill.stages.pipelines.verbs import verb_step
from retrodistill.stages.reporting.chain import (
    FOLDER,
    LABELLED,
    PLAIN,
    SPECS,
    Origin,
    content_fingerprint,
    input_fingerprint,
    is_artifact,
    place,
)
from retrodistill.stages.reporting.commands import IMMATERIAL, VERBS, verb_of
from retrodistill.stages.reporting.results import system_names


def origins_to_remake(
    chain: Sequence[Origin], artifacts: Sequence[str], *, from_scratch: bool = False
) -> list[Origin]:
    """Return the origins of these artifacts and of what they were made from, in order.

    Unless `from_scratch`, an artifact that is there with its fingerprint is skipped, and so is
    what only it was made from.
    """
    origins = {place(origin.artifact): origin for origin in chain}
    remade: dict[str, Origin] = {}

    def visit(path: str) -> None:
        origin = origins.get(place(path))
        if origin is None or place(path) in remade:
            return
        if not from_scratch and is_intact(origin):
            return
        for source in origin.inputs:
            if is_artifact(source):
                visit(source.name)
        remade[place(path)] = origin

    for path in artifacts:
        visit(path)
    return list(remade.values())


def remake(
    remade: Sequence[Origin],
    chain: Sequence[Origin],
    out: Path | None,
    moved: Mapping[str, str],
) -> dict[str, Path]:
    """Make artifacts again below `out`; return the new folder of each by its `place`.

    `chain` is the whole chain of the card, `moved` maps a collection to where it lies now. After a
    kill, the same call resumes.

    Raises:
        ConfigError: there is no `out`, or it holds something else.
        DataError: a step cannot be repeated, or what it reads is missing or has changed.

    """
    number = {place(origin.artifact): count for count, origin in enumerate(chain, 1)}
    labels = {
        place(origin.artifact): f"step {number[place(origin.artifact)]} "
        f"({origin.verb or '?'} -> {origin.artifact})"
        for origin in remade
    }
    for origin in remade:
        _check_repeatable(origin, labels[place(origin.artifact)])
    if out is None:
        commands = ", ".join(f"{origin.verb or '?'} -> {origin.artifact}" for origin in remade)
        raise ConfigError(f"to be made again: {commands}. Give --out, a folder to make it in.")
    refuse_foreign(out)
    names = system_names([Path(origin.artifact) for origin in remade])
    folders = {place(path): out / name for name, path in names.items()}
    steps = [
        _step(origin, name, folders, moved, labels[place(origin.artifact)])
        for name, origin in zip(names, remade, strict=True)
    ]
    Pipeline(out).run(steps)
    return folders


def differences_to_card(origin: Origin, folder: Path) -> str:
    """Return what differs between an artifact that was made again and the card's."""
    inputs = Manifest.read(folder).inputs
    content = [] if content_fingerprint(folder) == origin.fingerprint else ["its fingerprint"]
    return ", ".join(
        content
        + [
            role
            for role, fingerprint in origin.fingerprints.items()
            if inputs.get(role) != fingerprint
        ]
    )


def is_intact(origin: Origin) -> bool:
    """Tell whether an artifact lies where the card says, with the card's fingerprint."""
    try:
        return content_fingerprint(Path(origin.artifact)) == origin.fingerprint
    except DataError:
        return False


def _check_repeatable(origin: Origin, label: str) -> None:
    """Raise DataError if a step cannot run, or a file or folder that it reads has changed."""
    if origin.cannot or verb_of(origin.kind, origin.settings) != origin.verb:
        reason = origin.cannot or "its settings are not those of its verb"
        raise DataError(f"{label} cannot be repeated: {reason}.")
    for source in origin.inputs:
        if source.kind not in (PLAIN, FOLDER):
            continue
        flag = source.setting.replace("_", "-")
        if not Path(source.name).exists():
            raise DataError(f"{label} needs {source.name} (--{flag}), which does not exist here.")
        fingerprint = input_fingerprint(Path(source.name))
        if fingerprint != source.fingerprint:
            raise DataError(
                f"{label} needs {source.name} (--{flag}) as it was, but it has changed "
                f"(fingerprint {fingerprint[:12]}, the card has {source.fingerprint[:12]})."
            )


def _step(
    origin: Origin,
    name: str,
    folders: Mapping[str, Path],
    moved: Mapping[str, str],
    label: str,
) -> Step:
    """Return the step that makes an artifact again, reading and writing the new folders."""
    settings = {
        setting: value for setting, value in origin.settings.items() if setting not in IMMATERIAL
    }
    for source in origin.inputs:
        folder = folders.get(place(source.name))
        if folder is not None and is_artifact(source):
            value = settings[source.setting]
            settings[source.setting] = _redirected(value, source.setting, source.name, folder)
    if settings.get("precision") == "auto" and origin.number_type:
        settings["precision"] = origin.number_type
    settings["data"] = moved.get(str(settings.get("data")), settings.get("data"))
    folder = folders[place(origin.artifact)]
    settings["out"] = str(folder)
    config: Any = settings_of(VERBS[origin.verb].config, settings, label)
    return verb_step(name, origin.verb, config)


def _redirected(value: Any, setting: str, name: str, folder: Path) -> Any:
    """Return the value of a setting with an artifact's new folder in place of its name."""
    if isinstance(value, list):
        return [_redirected(element, setting, name, folder) for element in value]
    kind, colon, rest = str(value).partition(":") if setting in SPECS else ("", "", str(value))
    if setting in LABELLED:
        label, rest = split_label(rest)
        kind, colon = (label, "=") if label else ("", "")
    return f"{kind}{colon}{folder}" if rest == name else value
