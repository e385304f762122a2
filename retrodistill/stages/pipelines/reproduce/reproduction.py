"""From a result card to its numbers: measured again, or made again from the start."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.manifest import library_versions
from retrodistill.base.registry import registered_only
from retrodistill.base.types import Qrels
from retrodistill.data.datasets import load_collection
from retrodistill.data.qrels import read_qrels
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation import evaluate_runs
from retrodistill.stages.pipelines.reproduce.card import (
    FOREIGN,
    Card,
    CardCollection,
    CardJudgements,
    CardRun,
    card_collection,
    card_judgements,
)
from retrodistill.stages.pipelines.reproduce.remaking import (
    differences_to_card,
    origins_to_remake,
    remake,
)
from retrodistill.stages.reporting.chain import place
from retrodistill.stages.reporting.environment import machine

REMADE_TOLERANCE = 0.005
"""Largest difference of a mean where a chain was made again and its runs came out otherwise: sums
of float32 depend on the processor and on the number of threads."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The measures of a card's runs as they are here now, beside the card's."""

    card: Card
    runs: Mapping[str, Run]
    systems: Mapping[str, Mapping[str, float]]
    """System -> measure -> mean."""

    remade: Sequence[tuple[str, str, str]]
    """Artifact, where it was made again, and what differs from the card; empty if it is equal."""

    mismatches: Sequence[str]
    """How judgements and texts differ from the card's."""

    @property
    def equal(self) -> bool:
        """Whether every run is the card's, row by row."""
        return all(self.runs[run.name].fingerprint == run.fingerprint for run in self.card.runs)

    @property
    def means(self) -> list[tuple[str, str, float, float]]:
        """System, measure, the card's mean and the present one."""
        return [
            (run.name, metric, float(before), self.systems[run.name].get(metric, math.nan))
            for run in self.card.runs
            for metric, before in run.measures.items()
        ]

    def check(self, tolerance: float | None = None) -> None:
        """Raise DataError unless texts, judgements and means are the card's.

        The default `tolerance` is 0, and REMADE_TOLERANCE if a run was made again and has come out
        otherwise.
        """
        if tolerance is None:
            tolerance = 0.0 if self.equal else REMADE_TOLERANCE
        problems = [
            f"{system}: {metric} is {now:.6f}, but the card has {before:.6f}"
            for system, metric, before, now in self.means
            if not abs(now - before) <= tolerance
        ]
        if problems and tolerance:
            problems.append(f"A difference of {tolerance:g} is allowed")
        if problems := [*self.mismatches, *problems]:
            raise DataError(f"not reproduced. {'. '.join(problems)}.")


def reproduce_card(
    card: Card,
    data: str | None = None,
    qrels: Path | None = None,
    *,
    out: Path | None = None,
    from_scratch: bool = False,
    trust_custom_code: bool = False,
) -> Reproduction:
    """Measure a card's runs, after making again in `out` those that are not there.

    What lies where the card says, with the card's fingerprint, is taken as it is, unless
    `from_scratch`. `data` and `qrels` are where collection and judgements lie now. Code that is not
    part of retrodistill runs only with `trust_custom_code`.

    Raises:
        ConfigError: something is to be made, but there is no `out`, or it holds something else.
        DataError: what a step needs is missing or changed, or it cannot be repeated; or the
            texts or judgements differ, and something is to be made.

    """
    log_environment(card)
    with nullcontext() if trust_custom_code else registered_only():
        judgements, mismatches = _judgements(card, data, qrels)
        for line in mismatches:
            log.info(f"{line}.")
        remade = origins_to_remake(
            card.chain, [run.run for run in card.runs], from_scratch=from_scratch
        )
        if from_scratch and not remade:
            raise DataError(f"there is nothing to make from scratch. {FOREIGN}")
        if remade and mismatches:
            raise DataError(f"nothing is made again, for {'; '.join(mismatches)}.")
        moved = {card.collection.data: data} if card.collection is not None and data else {}
        folders = remake(remade, card.chain, out, moved) if remade else {}
        runs = {run.name: _run(run, folders) for run in card.runs}
    return Reproduction(
        card,
        runs,
        evaluate_runs(judgements, runs, **card.settings).systems,
        [
            (origin.artifact, str(folder), differences_to_card(origin, folder))
            for origin in remade
            for folder in [folders[place(origin.artifact)]]
        ],
        mismatches,
    )


def log_environment(card: Card) -> None:
    """Log which versions and which properties of the machine differ from the card's."""
    environments: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "versions": (card.versions, library_versions()),
        "machine": (card.machine, machine()),
    }
    for title, (there, here) in environments.items():
        differences = [
            f"{name} {there.get(name, 'none')} (here {here.get(name, 'none')})"
            for name in {**there, **here}
            if there.get(name) != here.get(name)
        ]
        if differences:
            log.info(f"{title} other than the card's: {', '.join(differences)}.")


def _judgements(card: Card, data: str | None, qrels: Path | None) -> tuple[Qrels, list[str]]:
    """Return the judgements, and how they and the texts differ from the card's."""
    collection, recorded = None, card.judgements
    if card.collection is not None and qrels is None:
        collection = load_collection(data or card.collection.data)
        judgements = collection.qrels(recorded.split)
        source = collection.spec
    elif data is not None:
        raise ConfigError(f"the card's judgements are the file {recorded.source}: give --qrels.")
    else:
        source = str(qrels or recorded.source)
        judgements = read_qrels(Path(source))
    current = card_judgements(judgements, source=source, split=recorded.split)
    mismatches = [*_judgement_mismatches(recorded, current)]
    if collection is not None and card.collection is not None:
        mismatches += _text_mismatches(card.collection, card_collection(collection))
    return judgements, mismatches


def _judgement_mismatches(before: CardJudgements, now: CardJudgements) -> Iterator[str]:
    if before.fingerprint != now.fingerprint:
        yield (
            f"the judgements of {' '.join(filter(None, (now.source, now.split)))} differ from the "
            f"card's: {now.pairs:,} of {now.queries:,} queries, the card has {before.pairs:,} of "
            f"{before.queries:,} (fingerprint {now.fingerprint[:12]}, the card has "
            f"{before.fingerprint[:12]})"
        )


def _text_mismatches(before: CardCollection, now: CardCollection) -> Iterator[str]:
    if before.docs_fingerprint != now.docs_fingerprint:
        texts, counts = "documents", (now.docs, before.docs)
    elif before.fingerprint != now.fingerprint:
        texts, counts = "queries", (now.queries, before.queries)
    else:
        return
    yield (
        f"the {texts} of {now.data} differ from the card's: {counts[0]:,}, the card has "
        f"{counts[1]:,}"
    )


def _run(recorded: CardRun, folders: Mapping[str, Path]) -> Run:
    """Return a run of the card, made again or as it lies where the card says."""
    path = folders.get(place(recorded.run), Path(recorded.run))
    if recorded.note and not path.exists():
        raise DataError(f"{recorded.run} does not exist here. {recorded.note}")
    run = Run.read(path)
    if path == Path(recorded.run) and run.fingerprint != recorded.fingerprint:
        raise DataError(
            f"{recorded.run} is not the card's run (fingerprint {run.fingerprint[:12]}, the card "
            f"has {recorded.fingerprint[:12]}). {recorded.note}".rstrip()
        )
    return run
