"""Result cards: what another person needs to get the numbers of an evaluation again."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.manifest import FILE, digest, library_versions
from retrodistill.base.types import Qrels
from retrodistill.data.rankings.measures import MEASURES, parse_metric, parse_metrics
from retrodistill.stages.reporting.chain import Origin, chain, input_fingerprint
from retrodistill.stages.reporting.environment import machine

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run

FORMAT = 1
FOREIGN = "Made by another tool: this card can only measure it again."
GAINS = {"ndcg": "the gain is the grade", "dcg": "the gain is the grade"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CardCollection:
    """The collection that the runs were measured on."""

    data: str
    fingerprint: str
    docs_fingerprint: str
    docs: int
    queries: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CardJudgements:
    """The judgements that the runs were measured against."""

    source: str
    """The collection, or a file."""

    split: str
    """Of the collection; empty for a file."""

    fingerprint: str
    queries: int
    pairs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CardRun:
    """A run and its measures."""

    name: str
    run: str
    fingerprint: str
    """Of the rows, in whatever format they are stored."""

    queries: int
    rows: int
    identical_ids: int
    measures: Mapping[str, float]
    judged: Mapping[str, float] = field(default_factory=dict)
    """Share of the listed documents that are judged."""

    file: str = ""
    """Hash of the file's content, where the run is not an artifact of ours."""

    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """The whole content of a result card."""

    format: int = FORMAT
    runs: Sequence[CardRun]
    measures: Mapping[str, str]
    """The definition of each measure."""

    settings: Mapping[str, Any]
    """Of `evaluate_runs`."""

    judgements: CardJudgements
    collection: CardCollection | None
    chain: Sequence[Origin]
    """What made the runs, each artifact after what it was made from."""

    machine: Mapping[str, Any]
    """Where the runs were measured; so are the versions."""

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
        DataError: an artifact of the chain is damaged.

    """
    versions = library_versions()
    origins = [
        origin if origin.versions != versions else dataclasses.replace(origin, versions={})
        for origin in chain([*paths.values()])
    ]
    return Card(
        runs=[
            CardRun(
                name=(name := system["name"]),
                run=str(paths[name]),
                fingerprint=runs[name].fingerprint,
                queries=len(runs[name].query_ids),
                rows=len(runs[name]),
                identical_ids=system["identical_ids"],
                measures=system["metrics"],
                judged=system["judged"],
                **_foreign(paths[name]),
            )
            for system in evaluation["systems"]
        ],
        measures={
            str(metric): measure_definition(str(metric))
            for metric in parse_metrics(settings["metrics"])
        },
        settings=dict(settings),
        judgements=card_judgements(qrels, source=source, split=split if collection else ""),
        collection=None if collection is None else card_collection(collection),
        chain=origins,
        machine=machine(),
        versions=versions,
    )


def card_judgements(qrels: Qrels, *, source: str, split: str) -> CardJudgements:
    """Return what a card records of judgements; their order does not matter."""
    rows = sorted((q, doc, str(grade)) for q, docs in qrels.items() for doc, grade in docs.items())
    return CardJudgements(
        source=source,
        split=split,
        fingerprint=digest(*(column for row in rows for column in row)),
        queries=sum(map(bool, qrels.values())),
        pairs=len(rows),
    )


def card_collection(collection: "Collection") -> CardCollection:
    """Return what a card records of a collection."""
    return CardCollection(
        data=collection.spec,
        fingerprint=collection.fingerprint,
        docs_fingerprint=collection.docs.fingerprint,
        docs=len(collection.docs),
        queries=len(collection.queries),
    )


def measure_definition(metric: str) -> str:
    """Return the definition of a measure, with its settings and its source."""
    parsed = parse_metric(metric)
    measure = MEASURES[parsed.name]
    clauses = [measure.definition]
    if parsed.cutoff:
        clauses.append(f"of the first {parsed.cutoff} ranks")
    if parsed.name in GAINS:
        clauses.append(GAINS[parsed.name])
    if "rel" in measure.keys:
        clauses.append(f"relevant is a grade of {parsed.rel} or more")
    if "p" in measure.keys:
        clauses.append(f"p is {parsed.p:g}")
    return f"{'; '.join(clauses)} ({measure.source})"


def _foreign(path: Path) -> dict[str, str]:
    """Return the hash and the note of a run that is not an artifact of ours."""
    return {} if (path / FILE).is_file() else {"file": input_fingerprint(path), "note": FOREIGN}
