"""Result cards: what another person needs to get numbers again."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.manifest import FILE, digest, library_versions
from retrodistill.base.types import Qrels
from retrodistill.data.rankings.measures import MEASURES, parse_metric, parse_metrics
from retrodistill.stages.reporting.chain import Step, chain, input_fingerprint
from retrodistill.stages.reporting.environment import machine

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run

FORMAT = 1
FOREIGN = "Made by another tool: this card can only measure it again."
GAINS = {"ndcg": "the gain is the grade", "dcg": "the gain is the grade"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """The collection that was measured on."""

    data: str
    fingerprint: str
    docs_fingerprint: str
    docs: int
    queries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The judgements."""

    source: str
    """The collection, or a file."""

    split: str
    """Of the collection; empty for a file."""

    fingerprint: str
    queries: int
    pairs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A run and its numbers."""

    name: str
    run: str
    fingerprint: str
    """Of the rows, in whatever form they are stored."""

    queries: int
    rows: int
    identical_ids: int
    measures: Mapping[str, float]
    judged: Mapping[str, float] = field(default_factory=dict)
    """Share of the listed documents that are judged."""

    file: str = ""
    """Hash of the file's content, where the run is no folder of ours."""

    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """All that a card says."""

    format: int = FORMAT
    runs: Sequence[Measured]
    measures: Mapping[str, str]
    """What each measure is."""

    settings: Mapping[str, Any]
    """Of `evaluate_runs`."""

    judgements: Judged
    collection: Texts | None
    chain: Sequence[Step]
    """What made the runs, in the order in which it is made."""

    machine: Mapping[str, Any]
    """That measured; so are the versions."""

    versions: Mapping[str, str]


def make_card(
    evaluation: Mapping[str, Any],
    *,
    runs: "Mapping[str, Run]",
    paths: Mapping[str, Path],
    qrels: Qrels,
    source: str,
    split: str,
    collection: "Collection | None",
    settings: Mapping[str, Any],
) -> Card:
    """Return the card of an evaluation, as `Evaluation.to_dict` gives it.

    `settings` are those of `evaluate_runs`, `source` and `split` say where the judgements are from.

    Raises:
        DataError: something in the chain is damaged.

    """
    versions = library_versions()
    steps = [
        step if step.versions != versions else dataclasses.replace(step, versions={})
        for step in chain([*paths.values()])
    ]
    return Card(
        runs=[
            Measured(
                name=(name := own["name"]),
                run=str(paths[name]),
                fingerprint=runs[name].fingerprint,
                queries=len(runs[name].query_ids),
                rows=len(runs[name]),
                identical_ids=own["identical_ids"],
                measures=own["metrics"],
                judged=own["judged"],
                **_foreign(paths[name]),
            )
            for own in evaluation["systems"]
        ],
        measures={str(one): explained(str(one)) for one in parse_metrics(settings["metrics"])},
        settings=dict(settings),
        judgements=judged(qrels, source=source, split=split if collection else ""),
        collection=None if collection is None else texts_of(collection),
        chain=steps,
        machine=machine(),
        versions=versions,
    )


def judged(qrels: Qrels, *, source: str, split: str) -> Judged:
    """Return what a card says of judgements; their order does not count."""
    rows = sorted((q, doc, str(grade)) for q, docs in qrels.items() for doc, grade in docs.items())
    return Judged(
        source=source,
        split=split,
        fingerprint=digest(*(part for row in rows for part in row)),
        queries=sum(map(bool, qrels.values())),
        pairs=len(rows),
    )


def texts_of(collection: "Collection") -> Texts:
    """Return what a card says of a collection."""
    return Texts(
        data=collection.spec,
        fingerprint=collection.fingerprint,
        docs_fingerprint=collection.docs.fingerprint,
        docs=len(collection.docs),
        queries=len(collection.queries),
    )


def explained(metric: str) -> str:
    """Return what a measure is, with its settings and its source."""
    found = parse_metric(metric)
    measure = MEASURES[found.name]
    parts = [measure.definition]
    if found.cutoff:
        parts.append(f"of the first {found.cutoff} ranks")
    if found.name in GAINS:
        parts.append(GAINS[found.name])
    if "rel" in measure.keys:
        parts.append(f"relevant is a grade of {found.rel} or more")
    if "p" in measure.keys:
        parts.append(f"p is {found.p:g}")
    return f"{'; '.join(parts)} ({measure.source})"


def _foreign(path: Path) -> dict[str, str]:
    """Return the hash and the note of a run that is no folder of ours."""
    return {} if (path / FILE).is_file() else {"file": input_fingerprint(path), "note": FOREIGN}
