"""Rows beside "all": the judged queries that no training behind the systems has seen.

A system that was trained on a query, or on one that is nearly the same, or for which its document
was called relevant, may remember instead of rank. So systems are measured again on the queries
without a near double in training, and on those whose relevant documents are unseen there. In a
table of several systems the training data of all of them count for each, so that rows compare.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Qrels
from retrodistill.data.rankings.unseen import NO_DOUBLE, THRESHOLD, UNSEEN, unseen_queries
from retrodistill.data.store.lineage import Lineage, Record, joined, lineage_of

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run
    from retrodistill.stages.evaluation import Evaluation

SHIFT = 0.02
"""Change of a gain, from all queries to a subset, that is warned of."""

TURN = 0.005
"""The same where the gain changes its sign."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of the training behind systems, and the queries that it has not seen."""

    subsets: Mapping[str, Sequence[str]]
    """Name of a row -> its queries, in the order of the judgements."""

    threshold: float
    records: Sequence[Record] = ()
    untrained: Sequence[str] = ()
    """Systems without any record; of those in `unrecorded` the training is unknown."""

    unrecorded: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """System -> models and runs behind it that have no record."""

    without_text: int = 0
    """Judged queries that the collection does not hold: they are in no subset."""

    def notes(self) -> list[str]:
        """Return a sentence for all that the rows do not know."""
        sentences = []
        unknown = [name for name in self.unrecorded if name in self.untrained]
        if unknown:
            sentences.append(
                f"training data unknown: {', '.join(unknown)} (no record of "
                f"{_listed(self.unrecorded, unknown)}). Name it with --trained-on."
            )
        behind = [name for name in self.unrecorded if name not in unknown]
        if behind:
            sentences.append(
                f"training data before the recorded one is unknown: {', '.join(behind)} (no "
                f"record of {_listed(self.unrecorded, behind)})."
            )
        if self.records and not self.subsets:
            sentences.append(
                "the training data are known, but not the queries' texts: give --data for the rows "
                f"{NO_DOUBLE!r} and {UNSEEN!r}."
            )
        if self.subsets and self.without_text:
            sentences.append(
                f"{self.without_text:,} judged queries have no text here, so no row but all has "
                "them."
            )
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Return what is known, as plain values; the queries are in the subsets."""
        return {
            "threshold": self.threshold,
            "records": [record.to_dict() for record in self.records],
            "untrained": list(self.untrained),
            "unrecorded": {name: list(names) for name, names in self.unrecorded.items()},
            "notes": self.notes(),
        }


def seen_in_training(
    collection: "Collection | None",
    qrels: Qrels,
    runs: "Mapping[str, Run]",
    *,
    trained_on: Sequence[str] = (),
    threshold: float = THRESHOLD,
) -> Seen:
    """Return the judged queries that the training behind any of the runs has not seen.

    `trained_on` are splits of the collection, or student folders, beside what the runs' lineages
    hold; `threshold` is the least Jaccard similarity of two queries' words that makes them near
    doubles. Without a collection there are no texts, so no subsets.

    Raises:
        ConfigError: the threshold does not lie above 0 and up to 1, or a name in `trained_on` is
            neither a split nor a folder that has a record.

    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"near_double must lie above 0 and up to 1, but it is {threshold}.")
    named = named_training(trained_on, collection)
    lineages = {name: run.lineage for name, run in runs.items()}
    records = joined([*lineages.values(), named]).records
    untrained = [name for name, own in lineages.items() if not own.records]
    unrecorded = {name: own.unrecorded for name, own in lineages.items() if own.unrecorded}
    if named.records:  # the user has said what is unknown
        unrecorded = {name: own for name, own in unrecorded.items() if name not in untrained}
    subsets: Mapping[str, Sequence[str]] = {}
    without_text = 0
    if records and collection is not None:
        judged = [query for query, docs in qrels.items() if docs]
        without_text = int((collection.queries.find(judged) < 0).sum())
        subsets = unseen_queries(collection, qrels, records, threshold=threshold)
    return Seen(
        subsets=subsets,
        threshold=threshold,
        records=records,
        untrained=untrained,
        unrecorded=unrecorded,
        without_text=without_text,
    )


def named_training(names: Sequence[str], collection: "Collection | None") -> Lineage:
    """Return the training data that --trained-on names: splits of the collection, or folders.

    Raises:
        ConfigError: a name is neither, or a folder has no record of its training.

    """
    lineages = []
    for name in names:
        if collection is not None and name in collection.splits:
            lineages.append(Lineage((_record_of_split(collection, name),)))
        elif Path(name).is_dir():
            lineage = lineage_of(Path(name))
            if not lineage.records:
                raise ConfigError(
                    f"--trained-on {name}: this folder has no record of its training. Name the "
                    "split that it was trained on."
                )
            lineages.append(lineage)
        else:
            splits = ", ".join(collection.splits) if collection is not None else "none: give --data"
            raise ConfigError(
                f"--trained-on {name} is neither a folder nor a split of --data, which has: "
                f"{splits}."
            )
    return joined(lineages)


def warnings_of(evaluation: "Evaluation") -> list[str]:
    """Return a sentence for each gain that is much another one on queries unseen in training.

    A gain is that over the baseline, else over the first untrained system, else over the first
    one, in the first metric; a single system's is its mean. Much another: it differs by more than
    SHIFT, or has the other sign and differs by more than TURN.
    """
    means = evaluation.systems
    reference = reference_of(evaluation)
    metric = next(iter(means[reference]))
    sentences = []
    for name in [other for other in means if other != reference] or [reference]:
        whole = _gain(means, name, reference, metric)
        for title, subset in evaluation.subsets.items():
            if not subset.per_query:
                continue
            gain = _gain(subset.systems, name, reference, metric)
            change = abs(gain - whole)
            if change > SHIFT or (gain * whole < 0 and change > TURN):
                over = f"its gain over {reference} in {metric}" if len(means) > 1 else metric
                sentences.append(
                    f"{name}: {over} is {_signed(whole, len(means))} on all queries, but "
                    f"{_signed(gain, len(means))} on those with {title}."
                )
    return sentences


def reference_of(evaluation: "Evaluation") -> str:
    """Return the system that the gains of the others are measured against."""
    baseline = evaluation.settings.get("baseline")
    known: list[str] = [*evaluation.training.get("untrained", ()), *evaluation.per_query]
    return baseline or known[0]


def _gain(
    means: Mapping[str, Mapping[str, float]], name: str, reference: str, metric: str
) -> float:
    base = means[reference][metric] if name != reference else 0.0
    return means[name][metric] - base


def _signed(value: float, systems: int) -> str:
    return f"{value:+.4f}" if systems > 1 else f"{value:.4f}"


def _listed(unrecorded: Mapping[str, Sequence[str]], systems: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(other for name in systems for other in unrecorded[name]))


def _record_of_split(collection: "Collection", split: str) -> Record:
    """Return what a training on a whole split would record."""
    relevant = collection.relevant(split)
    queries = collection.queries.full_texts(collection.queries.rows(list(relevant)))
    texts = [collection.docs.full_texts(collection.docs.rows(docs)) for docs in relevant.values()]
    return Record.of(queries, texts, collection=collection.name, split=split, student="")
