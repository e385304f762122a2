"""The chain of artifacts behind a run: the verb, the settings and the inputs of each."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrodistill.base.calls import split_label
from retrodistill.base.manifest import FILE, Manifest, digest_file, digest_files
from retrodistill.base.registry import RETRIEVERS, TEACHERS, WRITERS
from retrodistill.data.store.runs import Run
from retrodistill.models.inference.models import HUB_ID, PREFIX
from retrodistill.stages.reporting.commands import VERBS, command_line, verb_of, verbs_writing

MODELS = frozenset({"student", "doc_student", "vectors", "model", "query_model"})
"""Settings that name a model: a folder or a hub id."""

SPECS = frozenset({"joint_teacher", "judge", "ranker", "retriever", "teacher", "writer"})
"""Settings that name one behind a colon, as in `dense:MODEL`."""

LABELLED = frozenset({"scores"})
"""Settings that name an artifact, which may have a label: `LABEL=STORE`."""

NUMBERED = frozenset({"fuse", "judge"})
"""Verbs that read several runs, whose roles are `run 1`, `run 2`, ..."""

MISSING, CHANGED, PLAIN, FOLDER, NAME = "gone", "changed", "file", "folder", "name"
"""Kinds of inputs that are not artifacts, or no longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """What a setting of an artifact's command names."""

    setting: str
    name: str
    """As the user wrote it, without the kind of teacher or retriever before a colon."""

    kind: str
    """An artifact's kind, whose origin is in the chain too; a `file`; a model's `folder` or `name`,
    such as a hub id; what is `gone`, or has `changed` since."""

    fingerprint: str = ""
    """Of a file's content, of the weights in a folder, or of the artifact."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """One artifact, and what made it."""

    artifact: str
    """Its folder, as the user wrote it."""

    kind: str
    fingerprint: str
    """Of the content; a store's is that of its scores."""

    verb: str = ""
    command: str = ""
    cannot: str = ""
    """Why it cannot be repeated, if it cannot."""

    inputs: Sequence[Input] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Of what it was made from, by role, as its manifest has them."""

    number_type: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def chain(paths: Sequence[Path]) -> list[Origin]:
    """Return what made these artifacts, each after what it was made from.

    Raises:
        DataError: a manifest, or a score store's shard, is damaged.

    """
    origins: dict[str, Origin] = {}

    def follow(path: str, above: frozenset[str]) -> None:
        if place(path) in origins:
            return
        above |= {place(path)}
        manifest = Manifest.read(Path(path))
        verb = verb_of(manifest.kind, manifest.config)
        inputs = [
            _input(setting, role, name, Path(path), manifest, above)
            for setting, role, name in inputs_named(verb, manifest.config)
        ]
        for source in inputs:
            if is_artifact(source):
                follow(source.name, above)
        origins[place(path)] = _origin(path, manifest, verb, inputs)

    for path in paths:
        if (path / FILE).is_file():
            follow(str(path), frozenset())
    return list(origins.values())


def is_artifact(source: Input) -> bool:
    """Tell whether an input is an artifact with an origin of its own."""
    return source.kind not in (MISSING, CHANGED, PLAIN, FOLDER, NAME)


def inputs_named(verb: str | None, settings: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield setting, role in a manifest's `inputs`, and name of all that a verb reads."""
    for setting in VERBS[verb].reads if verb is not None and verb in VERBS else ():
        value = settings.get(setting)
        values = value if isinstance(value, list | tuple) else [value] if value else []
        for number, text in enumerate(values, 1):
            label, name = split_label(str(text)) if setting in LABELLED else (None, str(text))
            if setting in SPECS:
                kind, _, argument = split_label(name)[1].partition(":")
                tables = (WRITERS,) if setting == "writer" else (RETRIEVERS, TEACHERS)
                parts = next((table for table in tables if kind in table), None)
                is_input = parts is not None and parts.argument(kind) not in ("LANGUAGE", "URL")
                name = argument if is_input else ""
            if name and (setting != "attributes" or Path(name).is_file()):
                role = f"{setting}-{label}" if label else setting
                yield setting, f"{setting} {number}" if verb in NUMBERED else role, name


def place(path: str | Path) -> str:
    """Return what tells an artifact's folder from others, however it is written."""
    return os.path.abspath(path)


def content_fingerprint(folder: Path) -> str:
    """Return the fingerprint of an artifact's content as it is now: a store's is its run's.

    Raises:
        DataError: it is not an artifact, or damaged.

    """
    manifest = Manifest.read(folder)
    is_run = manifest.kind in ("run", "scores")
    return Run.read(folder).fingerprint if is_run else manifest.fingerprint


def input_fingerprint(path: Path) -> str:
    """Return the hash of a file's content, or of the weights in a model's folder."""
    return digest_files(path, "*.safetensors") if path.is_dir() else digest_file(path)


def _input(
    setting: str, role: str, name: str, artifact: Path, manifest: Manifest, above: frozenset[str]
) -> Input:
    """Return an input of an artifact, and whether it is still what the artifact was made from."""
    path, is_model = Path(name), setting in MODELS | SPECS
    if not path.exists():
        by_name = HUB_ID.fullmatch(name) or name.startswith(f"{PREFIX}:")
        return Input(setting=setting, name=name, kind=NAME if is_model and by_name else MISSING)
    if not (path / FILE).is_file():
        kind = FOLDER if path.is_dir() else PLAIN
        return Input(setting=setting, name=name, kind=kind, fingerprint=input_fingerprint(path))
    kind, now = Manifest.read(path).kind, content_fingerprint(path)
    recorded = now if is_model else manifest.inputs.get(role, now)
    if setting == "model" and manifest.kind == "export":
        recorded = manifest.inputs.get(role, now)
    elif setting == "model" and kind == "student":  # the index holds a copy of it
        recorded = digest_files(artifact / "model", "*.safetensors")
    if setting == "query_model":
        recorded = manifest.details.get("query_weights", now)
    if place(name) in above or recorded != now:
        kind = CHANGED
    return Input(setting=setting, name=name, kind=kind, fingerprint=now)


def _origin(path: str, manifest: Manifest, verb: str | None, inputs: Sequence[Input]) -> Origin:
    return Origin(
        artifact=path,
        kind=manifest.kind,
        fingerprint=content_fingerprint(Path(path)),
        verb=verb or "",
        command="" if verb is None else command_line(verb, VERBS[verb].config, manifest.config),
        cannot=_obstacle(Path(path), manifest, verb, inputs),
        inputs=inputs,
        fingerprints=dict(manifest.inputs),
        number_type=str(manifest.details.get("dtype", "")),
        settings=dict(manifest.config),
        versions=dict(manifest.versions),
    )


def _obstacle(path: Path, manifest: Manifest, verb: str | None, inputs: Sequence[Input]) -> str:
    """Return why an artifact cannot be made again; empty if it can."""
    if verb is None:
        verbs = " or ".join(verbs_writing(manifest.kind)) or "any verb"
        return f"its manifest does not hold the settings of {verbs}; Python may have made it"
    for source in inputs:
        flag = f"--{source.setting.replace('_', '-')}"
        if source.kind == MISSING:
            return f"{source.name} ({flag}) no longer exists"
        if source.kind == CHANGED:
            return f"{source.name} ({flag}) has changed since"
    if str(manifest.config.get("index")).startswith("milvus:"):
        return "its vectors lie in Milvus, where it would write over them"
    if len([*path.glob("plans/*")]) > 1:
        return "several commands have filled it, and its manifest names the last one only"
    return ""
