"""The chain of artifacts behind a run: each one's verb, settings, and what it was made from."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrodistill.base.manifest import FILE, Manifest, digest_file, digest_files
from retrodistill.base.registry import RETRIEVERS, TEACHERS
from retrodistill.data.store.runs import Run
from retrodistill.models.inference.models import HUB_ID, PREFIX
from retrodistill.stages.reporting.commands import KINDS, VERBS, command_line, verb_of

MODELS = frozenset({"student", "doc_student", "vectors", "model"})
"""Settings that name a model: a folder or a hub id."""

SPECS = frozenset({"retriever", "teacher"})
"""Settings that name one behind a colon, as in `dense:MODEL`."""

INPUTS: Mapping[str, tuple[str, ...]] = {
    "mine": ("retriever",),
    "score": ("candidates", "teacher", "import"),
    "train": ("scores", "preferences", "student", "doc_student", "vectors"),
    "embed": ("model", "attributes", "workload"),
    "search": ("index",),
    "fuse": ("run", "tune", "qrels"),
}
"""Verb -> its settings that name what was there before."""

GONE, CHANGED, PLAIN, FOLDER, NAME = "gone", "changed", "file", "folder", "name"
"""Kinds of inputs that are no artifacts of ours, or not any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """What a setting of a step names."""

    setting: str
    name: str
    """As the user gave it, without the kind of teacher or retriever before a colon."""

    kind: str
    """An artifact's kind, which has a step of its own; a `file`; a model's `folder` or `name`, such
    as a hub id; what is `gone`, or has `changed` since."""

    fingerprint: str = ""
    """Of a file's content, of the weights in a folder, or the step's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One artifact, and what made it."""

    artifact: str
    """Its folder, as the user gave it."""

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


def chain(paths: Sequence[Path]) -> list[Step]:
    """Return what made these artifacts, each after what it was made from.

    Raises:
        DataError: a manifest, or a score store's shard, is damaged.

    """
    steps: dict[str, Step] = {}

    def follow(path: str, above: frozenset[str]) -> None:
        if place(path) in steps:
            return
        above |= {place(path)}
        manifest = Manifest.read(Path(path))
        verb = verb_of(manifest.kind, manifest.config)
        inputs = [_input(one, Path(path), manifest, above) for one in named(verb, manifest.config)]
        for one in inputs:
            if is_ours(one):
                follow(one.name, above)
        steps[place(path)] = _step(path, manifest, verb, inputs)

    for path in paths:
        if (path / FILE).is_file():
            follow(str(path), frozenset())
    return list(steps.values())


def is_ours(one: Input) -> bool:
    """Tell whether an input has a step of its own."""
    return one.kind not in (GONE, CHANGED, PLAIN, FOLDER, NAME)


def named(verb: str | None, settings: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield setting, role in a manifest's `inputs`, and name of all that a step was made from."""
    for setting in INPUTS.get(verb or "", ()):
        value = settings.get(setting)
        values = value if isinstance(value, list | tuple) else [value] if value else []
        for number, text in enumerate(values, 1):
            name = str(text)
            if setting in SPECS:
                kind, _, name = name.partition(":")
                known = kind in RETRIEVERS or kind in TEACHERS
                name = name if known and kind != "lucene" else ""  # that one's is a language
            if name and (setting != "attributes" or Path(name).is_file()):
                yield setting, f"{setting} {number}" if verb == "fuse" else setting, name


def place(path: str | Path) -> str:
    """Return what tells an artifact's folder from others, however it is written."""
    return os.path.abspath(path)


def content_fingerprint(folder: Path) -> str:
    """Return the fingerprint of what an artifact holds now: a score store's is its run's.

    Raises:
        DataError: it is no artifact, or damaged.

    """
    manifest = Manifest.read(folder)
    is_run = manifest.kind in ("run", "scores")
    return Run.read(folder).fingerprint if is_run else manifest.fingerprint


def input_fingerprint(path: Path) -> str:
    """Return the hash of a file's content, or of the weights in a model's folder."""
    return digest_files(path, "*.safetensors") if path.is_dir() else digest_file(path)


def _input(
    one: tuple[str, str, str], artifact: Path, manifest: Manifest, above: frozenset[str]
) -> Input:
    setting, role, name = one
    path, is_model = Path(name), setting in MODELS | SPECS
    if not path.exists():
        by_name = HUB_ID.fullmatch(name) or name.startswith(f"{PREFIX}:")
        kind = NAME if is_model and by_name else GONE
        return Input(setting=setting, name=name, kind=kind)
    if not (path / FILE).is_file():
        kind = FOLDER if path.is_dir() else PLAIN
        return Input(setting=setting, name=name, kind=kind, fingerprint=input_fingerprint(path))
    kind, found = Manifest.read(path).kind, content_fingerprint(path)
    wanted = found if is_model else manifest.inputs.get(role, found)
    if setting == "model" and kind == "student":  # the index holds a copy of it
        wanted = digest_files(artifact / "model", "*.safetensors")
    if place(name) in above or wanted != found:
        kind = CHANGED
    return Input(setting=setting, name=name, kind=kind, fingerprint=found)


def _step(path: str, manifest: Manifest, verb: str | None, inputs: Sequence[Input]) -> Step:
    return Step(
        artifact=path,
        kind=manifest.kind,
        fingerprint=content_fingerprint(Path(path)),
        verb=verb or "",
        command="" if verb is None else command_line(verb, VERBS[verb], manifest.config),
        cannot=_hindrance(Path(path), manifest, verb, inputs),
        inputs=inputs,
        fingerprints=dict(manifest.inputs),
        number_type=str(manifest.details.get("dtype", "")),
        settings=dict(manifest.config),
        versions=dict(manifest.versions),
    )


def _hindrance(path: Path, manifest: Manifest, verb: str | None, inputs: Sequence[Input]) -> str:
    """Return why a step cannot be repeated; nothing if it can."""
    if verb is None:
        verbs = " or ".join(KINDS.get(manifest.kind, ())) or "any verb"
        return f"its manifest does not hold the settings of {verbs}; Python may have made it"
    for one in inputs:
        if one.kind in (GONE, CHANGED):
            said = "is gone" if one.kind == GONE else "is not what it was made from any more"
            return f"{one.name} (--{one.setting.replace('_', '-')}) {said}"
    if str(manifest.config.get("index")).startswith("milvus:"):
        return "its vectors lie in Milvus, where it would write over them"
    if len([*path.glob("plans/*")]) > 1:
        return "more than one command has filled it, and its manifest tells the last"
    return ""
