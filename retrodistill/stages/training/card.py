"""The model card of a student: what it is, how to use it, and what it was made from.

Everything comes from the student's manifest. Paths are cut to their last component, so that a
published card reveals nothing of the computer that it was written on.
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodistill.base.calls import split_label
from retrodistill.base.config import TrainSettings, as_dict
from retrodistill.base.errors import RetrodistillError
from retrodistill.base.files import write_atomically
from retrodistill.base.manifest import FILE, Manifest
from retrodistill.base.registry import SIGNAL_SOURCES, STUDENT_KINDS
from retrodistill.models.students.kinds import DENSE, CardText, StudentKind

CARD = "README.md"
QUERY, DOC = "how high may blood pressure be", "Blood pressure above 140 mmHg is called high."


def write_card(
    folder: Path, manifest: Manifest, *, name: str, teachers: Sequence[str] = ()
) -> None:
    """Write README.md into a student's folder, over the one of its library."""
    text = model_card(manifest, name=name, teachers=teachers)
    write_atomically(folder / CARD, text.encode(errors="replace"))


def model_card(manifest: Manifest, *, name: str, teachers: Sequence[str] = ()) -> str:
    """Return the card of a student: metadata of the hub, then Markdown.

    `name` is the student's name, `teachers` are the names of the teachers behind its scores, as
    `teachers_of` returns them. The manifest's `config` holds the settings of the training, its
    `details` the results: `losses`, and `development` with split, metric, step and value, if there
    was one.
    """
    config = manifest.config
    kind: StudentKind = STUDENT_KINDS[str(config.get("student_kind", DENSE))]
    sections = [
        _metadata(config, kind),
        f"# {_plain(name)}\n\n{_about(config, kind)}",
        f"## Use\n\n{_usage(name, kind.card)}",
        f"## Objective\n\n{_objective(str(config.get('objective', '')))}",
        f"## Data\n\n{_data(manifest, teachers)}",
        f"## Training\n\n{_training(manifest)}",
        f"## Citation\n\n{_citation(manifest)}",
    ]
    return "\n\n".join(sections) + "\n"


def teachers_of(store: Path) -> list[str]:
    """Return the names of the teachers behind a score store or run, from its manifests.

    Those of a fusion are of its runs; without a manifest there are no names.
    """
    try:
        config = Manifest.read(store).config
    except RetrodistillError:
        return []
    if runs := config.get("run") or config.get("ensemble"):  # older stores have the second
        members = [Path(member) for member in runs]
        named = [teachers_of(member) or [shown(member.name)] for member in members]
        return list(dict.fromkeys(name for names in named for name in names))
    for key in ("teacher", "import", "retriever"):
        value = config.get(key)
        if value:
            return [
                shown(str(teacher)) for teacher in (value if isinstance(value, list) else [value])
            ]
    return []


def is_hub_id(text: str) -> bool:
    """Tell whether this names a model of the hub rather than a folder."""
    return bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text)) and not _exists(text)


def shown(text: str) -> str:
    """Return a name as it was typed, of a path its last component: `beir:/data/nq` -> `beir:nq`."""
    kind, colon, argument = text.partition(":")
    if colon and re.fullmatch(r"[a-z][\w-]+", kind):
        keep = kind in ("irds", "hf") and not _exists(argument) and argument[:1] not in "/~."
        return text if keep else f"{kind}:{shown(argument)}"
    if is_hub_id(text):
        return text
    return re.split(r"[\\/]+", text.rstrip("\\/"))[-1]


def _labelled(text: str) -> str:
    """Return a name as `shown` does, behind the label that it may have."""
    label, name = split_label(text)
    return f"{label}={shown(name)}" if label else shown(name)


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, no home, a null byte
        return False


def _metadata(config: Mapping[str, Any], kind: StudentKind) -> str:
    import yaml

    fields: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": kind.card.pipeline,
        "tags": ["sentence-transformers", *kind.card.tags, "distillation", "retrodistill"],
    }
    student = str(config.get("student", ""))
    if is_hub_id(student):
        fields["base_model"] = student
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _about(config: Mapping[str, Any], kind: StudentKind) -> str:
    start = _code(shown(str(config["student"]))) if config.get("student") else "a model"
    layers = config.get("keep_layers")
    cut = f" cut to the layers {_code(_joined(layers))}" if layers else ""
    return (
        f"A [sentence-transformers](https://www.sbert.net) {kind.noun}, trained with retrodistill "
        f"from {start}{cut}. {kind.about}"
    )


def _usage(name: str, card: CardText) -> str:
    lines = (
        f"from sentence_transformers import {card.library_class}",
        f"model = {card.library_class}({json.dumps(name, ensure_ascii=False)})",
        f"scores = {card.usage.format(query=json.dumps(QUERY), doc=json.dumps(DOC))}",
    )
    parts = [_usage(f"{name}/{folder}", part) for folder, part in card.parts]
    return "\n\n".join([_fenced("\n".join(lines), "python"), *parts])


def _objective(text: str) -> str:
    lines = [_code(text)]
    for name, about, source in _losses(text):
        lines.append(f"- {_code(name)}: {_plain(about)}" + (f" Source: {source}" if source else ""))
    return "\n\n".join([lines[0], "\n".join(lines[1:])]).strip()


def _losses(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each loss of an objective once: name, first sentence of its docstring, source."""
    from retrodistill.objectives.objective import parse_objective

    try:
        terms = parse_objective(text)
    except RetrodistillError:
        return
    for term in {term.name: term for term in terms}.values():
        docstring = inspect.getdoc(term.function) or ""
        source = re.search(r"^Source: (.+?)(?:\n\n|\Z)", docstring, re.DOTALL | re.MULTILINE)
        citation = " ".join(source[1].split()) if source else ""
        yield term.name, docstring.partition("\n")[0], citation


def _data(manifest: Manifest, teachers: Sequence[str]) -> str:
    config = manifest.config
    rows = [("split", str(config.get("split", "")))]
    # live teachers are named with the others, below
    views = ("teacher_view", "student_view", "meta_view")
    roles = ("data", *views, *(name for name in SIGNAL_SOURCES if name != "teacher"))
    for role in filter(config.get, roles):
        value = config[role]
        names = value if isinstance(value, list) else [value]
        rows += [(role.replace("_", " "), _labelled(str(name))) for name in names]
    if "queries" in manifest.details:
        rows.append(("queries", f"{manifest.details['queries']:,}"))
    if "documents" in manifest.details:
        rows.append(("documents", f"{manifest.details['documents']:,}"))
    rows += [("teacher", _labelled(name)) for name in teachers]
    lineage = manifest.details.get("lineage", {})
    rows += [
        (
            f"trained on, by {record.get('student') or 'name'}",
            f"{record['queries']:,} queries of {record.get('collection')}, {record.get('split')}",
        )
        for record in lineage.get("records", ())
    ]
    rows += [("training not recorded", shown(name)) for name in lineage.get("unrecorded", ())]
    rows += [(f"fingerprint of the {role}", value) for role, value in manifest.inputs.items()]
    return _table(("", ""), rows)


def _training(manifest: Manifest) -> str:
    config, details = manifest.config, manifest.details
    done = []
    if "steps" in details:
        steps, planned = details["steps"], details.get("planned_steps", details["steps"])
        done = [("steps", f"{steps:,}" + (f" of {planned:,}" if planned != steps else ""))]
    done += [(name, str(details[name])) for name in ("seconds", "dtype") if name in details]
    done += [(name, str(config[name])) for name in ("recipe", "stage") if config.get(name)]
    for name in ("batch_size", "candidates_per_query", "learning_rate", "seed"):
        if name in config:
            done.append((name, str(config[name])))
    listed = {name for name, _ in done} | {"objective", "student_kind", "keep_layers"}
    done += [row for row in _changed(config) if row[0] not in listed]
    blocks = [_table(("", ""), done)]
    losses = details.get("losses") or ()
    if losses:
        early, late = losses[0], losses[-1]
        names = [name for name in early if name != "step" and name in late]
        head = ("loss", f"to step {early['step']}", f"to step {late['step']}")
        blocks.append(
            _table(head, [(name, f"{early[name]:.4f}", f"{late[name]:.4f}") for name in names])
        )
    shares = details.get("gradient_shares") or {}
    if len(shares) > 1:
        rows = [(name, f"{share:.1%}") for name, share in shares.items()]
        blocks.append(_table(("loss", "share of the gradient before the first step"), rows))
    dev = details.get("development")
    if dev:
        blocks.append(
            f"Measured while training, on the split {_code(str(dev['split']))}: "
            f"{_code(str(dev['metric']))} {dev['value']:.4f} at step {dev['step']:,}, whose "
            "weights these are."
            + (
                " Only a part of the documents was searched, so the value is optimistic."
                if dev.get("docs") == "scored"
                else ""
            )
        )
        unseen = dev.get("unseen") or ()
        if unseen:
            cells = [
                (
                    row["name"],
                    f"{row['queries']:,}",
                    "no query" if row["value"] is None else f"{row['value']:.4f}",
                )
                for row in unseen
            ]
            blocks.append(_table(("of these queries", "number", str(dev["metric"])), cells))
    if "teacher_cosine" in details:
        blocks.append(f"Mean cosine to the teacher's vectors: {details['teacher_cosine']:.3f}.")
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return "\n\n".join([*blocks, f"Versions: {versions}. More is in {_code(FILE)}."])


def _changed(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings of a training that are not the defaults."""
    defaults = as_dict(TrainSettings())
    for item in dataclasses.fields(TrainSettings):
        value = config.get(item.name, defaults[item.name])
        value = list(value) if isinstance(value, tuple) else value
        if value != defaults[item.name]:
            text = _joined(value) if isinstance(value, list) else str(value)
            yield item.name, shown(text) if item.name == "doc_student" else text


def _citation(manifest: Manifest) -> str:
    version = manifest.versions.get("retrodistill", "")
    entries = [
        f"@software{{retrodistill,\n  title = {{retrodistill}},\n  version = {{{version}}}\n}}"
    ]
    papers: dict[str, list[str]] = {}
    for name, _, source in _losses(str(manifest.config.get("objective", ""))):
        for paper in re.findall(r"arXiv:(\d{4}\.\d{4,5})", source):
            papers.setdefault(paper, []).append(name)
    for paper, names in papers.items():
        entries.append(
            f"@misc{{arxiv-{paper},\n  eprint = {{{paper}}},\n  archivePrefix = {{arXiv}},\n"
            f"  url = {{https://arxiv.org/abs/{paper}}},\n  note = {{{', '.join(names)}}}\n}}"
        )
    return _fenced("\n\n".join(entries), "bibtex")


def _joined(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values)


def _plain(text: str) -> str:
    """Return text with Markdown's special characters escaped, in one line."""
    return re.sub(r"([\\`*_\[\]<>#|~])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Return text as inline code, even if it has backticks."""
    line = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if len(fence) > 1 else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""


def _fenced(code: str, language: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{language}\n{code}\n{fence}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are code."""
    lines = ["| " + " | ".join(map(_plain, head)) + " |", "|" + "---|" * len(head)]
    for title, *values in rows:
        cells = [_plain(title), *(_code(cell).replace("|", "\\|") for cell in values)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
