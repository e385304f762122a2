"""What a report was made from, and how to make it again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrodistill.base.manifest import FILE, Manifest, library_versions
from retrodistill.stages.reporting.chain import inputs_named, place
from retrodistill.stages.reporting.commands import command_of, verb_of
from retrodistill.stages.reporting.content import Block, Cell, Code, Section, Table, Text
from retrodistill.stages.reporting.results import system_names

FOLDERS = ("student", "index")
"""Roles whose inputs are folders of this kind."""

SHORT = 12
"""Characters of a fingerprint in the table; the manifests below have all."""

LONGEST = 20_000
"""Characters of a manifest that are shown."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input of a report."""

    role: str
    name: str
    path: str
    kind: str
    fingerprint: str
    manifest: Mapping[str, Any] | None = None
    """None for a file that has none."""


def source(role: str, name: str, path: Path, *, fingerprint: str = "") -> Source:
    """Return an input with its manifest; a plain file is identified by `fingerprint`.

    Raises:
        DataError: a folder has no manifest that can be read, or a student's or an index's is of
            another kind.

    """
    folder = role in FOLDERS
    if folder or path.is_dir():
        manifest = Manifest.read(path, kind=role if folder else None)
        return Source(role, name, str(path), manifest.kind, manifest.fingerprint, asdict(manifest))
    return Source(role, name, str(path), path.suffix.lstrip(".") or "file", fingerprint)


def folders(role: str, paths: Sequence[Path]) -> list[Source]:
    """Return the inputs of a role that are folders of one kind, named as systems are."""
    return [source(role, name, path) for name, path in system_names(paths).items()]


def provenance(sources: Sequence[Source], command: str) -> Section:
    """Return the inputs with their manifests, the versions, and the commands."""
    rows = [
        [
            Cell(text=one.name),
            Cell(text=one.role),
            Cell(text=one.kind),
            Cell(text=one.fingerprint[:SHORT] or "-"),
            Cell(text=one.path),
        ]
        for one in sources
    ]
    columns = ("input", "role", "kind", "fingerprint", "path")
    versions = library_versions()
    commands = commands_behind([one.path for one in sources])
    blocks: list[Block] = [
        Table(caption="Inputs", columns=columns, rows=rows),
        Text(text="Made with " + ", ".join(f"{name} {own}" for name, own in versions.items())),
        Code(title="Commands that make this again", text="\n".join([*commands, command])),
    ]
    blocks += [
        Code(title=f"{FILE} of {one.name} ({one.role})", text=_pretty(one.manifest), folded=True)
        for one in sources
        if one.manifest is not None
    ]
    data = {
        "inputs": [asdict(one) for one in sources],
        "versions": versions,
        "commands": [*commands, command],
    }
    return Section(key="provenance", title="Provenance", blocks=blocks, data=data)


def commands_behind(paths: Sequence[str]) -> list[str]:
    """Return the commands that made these artifacts, each after the commands of what it reads.

    What no command made is a comment line.
    """
    seen: set[str] = set()
    lines: dict[str, None] = {}

    def follow(path: str) -> None:
        if place(path) in seen or not (Path(path) / FILE).is_file():
            return
        seen.add(place(path))
        manifest = Manifest.read(Path(path))
        verb = verb_of(manifest.kind, manifest.config)
        for _, _, name in inputs_named(verb, manifest.config):
            follow(name)
        line = command_of({"kind": manifest.kind, "config": manifest.config})
        lines[line or f"# {path} was made by Python code, or by another tool"] = None

    for path in paths:
        follow(path)
    return list(lines)


def _pretty(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n... the rest is in report.json"
