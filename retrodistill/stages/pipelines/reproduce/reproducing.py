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
from retrodistill.stages.pipelines.reproduce.content import (
    FOREIGN,
    Card,
    Judged,
    Measured,
    Texts,
    judged,
    texts_of,
)
from retrodistill.stages.pipelines.reproduce.repeating import make, steps_to_make, what_differs
from retrodistill.stages.reporting.chain import place
from retrodistill.stages.reporting.environment import machine
from retrodistill.stages.reporting.tables import print_table

REMADE = 0.005
"""Largest difference of a mean where a chain was made again and its runs came out otherwise: sums
of float32 depend on the processor and on the number of threads."""


@dataclass(frozen=True, slots=True)
class Again:
    """What a card measured, as it is here now."""

    card: Card
    qrels: Qrels
    runs: Mapping[str, Run]
    made: Sequence[tuple[str, str, str]]
    """Artifact, where it was made again, and what of it is another than the card says."""

    complaints: Sequence[str]
    """How judgements and texts differ from the card's."""

    @property
    def equal(self) -> bool:
        """Whether every run is the card's, row by row."""
        return all(self.runs[own.name].fingerprint == own.fingerprint for own in self.card.runs)

    def differences(
        self, systems: Mapping[str, Mapping[str, float]]
    ) -> list[tuple[str, str, float, float]]:
        """Return system, measure, the card's mean and the one of now."""
        return [
            (own.name, metric, float(was), systems[own.name].get(metric, math.nan))
            for own in self.card.runs
            for metric, was in own.measures.items()
        ]

    def print(self, systems: Mapping[str, Mapping[str, float]]) -> None:
        """Print what was made again, and the means beside the card's."""
        if self.made:
            rows = [(*one, f"other: {what}" if what else "equal") for *one, what in self.made]
            print_table(("made again", "in", "to the card's"), rows)
        print_table(
            ("system", "measure", "card", "now", "difference"),
            [
                (system, metric, f"{was:.6f}", f"{now:.6f}", f"{now - was:+.2g}")
                for system, metric, was, now in self.differences(systems)
            ],
        )

    def check(
        self, systems: Mapping[str, Mapping[str, float]], tolerance: float | None = None
    ) -> None:
        """Raise DataError unless texts, judgements and means are the card's.

        Where no `tolerance` is given it is 0, and REMADE if a run was made again and has come out
        otherwise.
        """
        allowed = tolerance if tolerance is not None else 0.0 if self.equal else REMADE
        said = [
            f"{system}: {metric} is {now:.6f}, but the card has {was:.6f}"
            for system, metric, was, now in self.differences(systems)
            if not abs(now - was) <= allowed
        ]
        if said and allowed:
            said.append(f"A difference of {allowed:g} is allowed")
        if said := [*self.complaints, *said]:
            raise DataError(f"not reproduced. {'. '.join(said)}.")


def again(
    card: Card,
    data: str | None = None,
    qrels: Path | None = None,
    *,
    out: Path | None = None,
    anew: bool = False,
    trust_custom_code: bool = False,
) -> Again:
    """Return a card's judgements and runs; runs that are not there are made again, in `out`.

    What lies where the card says, with the card's fingerprint, is taken as it is, unless `anew`.
    `data` and `qrels` are where collection and judgements lie now. Code that is not part of
    retrodistill runs only with `trust_custom_code`.

    Raises:
        ConfigError: something is to be made, but there is no `out`, or it exists already.
        DataError: what a step needs is missing or changed, or it cannot be repeated; or the
            texts or judgements differ, and something is to be made.

    """
    tell_machine(card)
    with nullcontext() if trust_custom_code else registered_only():
        judgements, complaints = _inputs(card, data, qrels)
        for line in complaints:
            log.info(f"{line}.")
        todo = steps_to_make(card.chain, [own.run for own in card.runs], anew=anew)
        if anew and not todo:
            raise DataError(f"there is nothing to make anew. {FOREIGN}")
        if todo and complaints:
            raise DataError(f"nothing is made again, for {'; '.join(complaints)}.")
        moved = {card.collection.data: data} if card.collection is not None and data else {}
        made = make(todo, card.chain, out, moved) if todo else {}
        differing = [
            (step.artifact, str(made[place(step.artifact)]), what_differs(step, made))
            for step in todo
        ]
        runs = {own.name: _run(own, made) for own in card.runs}
        return Again(card, judgements, runs, differing, complaints)


def tell_machine(card: Card) -> None:
    """Say which versions and which parts of the machine are others than the card's."""
    both: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "versions": (card.versions, library_versions()),
        "machine": (card.machine, machine()),
    }
    for what, (there, own) in both.items():
        lines = [
            f"{name} {there.get(name, 'none')} (here {own.get(name, 'none')})"
            for name in {**there, **own}
            if there.get(name) != own.get(name)
        ]
        if lines:
            log.info(f"other {what} than the card's: {', '.join(lines)}.")


def _inputs(card: Card, data: str | None, qrels: Path | None) -> tuple[Qrels, list[str]]:
    """Return the judgements, and how they and the texts differ from the card's."""
    collection, texts, was = None, card.collection, card.judgements
    if texts is not None and qrels is None:
        collection = load_collection(data or texts.data)
        found = collection.qrels(was.split)
        source = collection.spec
    elif data is not None:
        raise ConfigError(f"the card's judgements are the file {was.source}: give --qrels.")
    else:
        found, source = read_qrels(qrels or Path(was.source)), str(qrels or was.source)
    complaints = list(_other_judgements(was, judged(found, source=source, split=was.split)))
    if collection is not None and texts is not None:
        complaints += _other_texts(texts, texts_of(collection))
    return found, complaints


def _other_judgements(was: Judged, now: Judged) -> Iterator[str]:
    if was.fingerprint != now.fingerprint:
        yield (
            f"the judgements of {' '.join(filter(None, (now.source, now.split)))} are others: "
            f"{now.pairs:,} of {now.queries:,} queries, the card has {was.pairs:,} of "
            f"{was.queries:,} (fingerprint {now.fingerprint[:12]}, wanted {was.fingerprint[:12]})"
        )


def _other_texts(was: Texts, now: Texts) -> Iterator[str]:
    if was.docs_fingerprint != now.docs_fingerprint:
        yield f"the documents of {now.data} are others: {now.docs:,}, the card has {was.docs:,}"
    elif was.fingerprint != now.fingerprint:
        yield f"the queries of {now.data} are others: {now.queries:,}, the card has {was.queries:,}"


def _run(own: Measured, made: Mapping[str, Path]) -> Run:
    path = made.get(place(own.run), Path(own.run))
    if own.note and not path.exists():
        raise DataError(f"{own.run} is not here. {own.note}")
    run = Run.read(path)
    if path == Path(own.run) and run.fingerprint != own.fingerprint:
        raise DataError(
            f"{own.run} holds another run than the card's (fingerprint {run.fingerprint[:12]}, "
            f"wanted {own.fingerprint[:12]}). {own.note}".rstrip()
        )
    return run
