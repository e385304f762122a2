"""How long the steps will take, from what the models do on a sample, before any of them runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrodistill.base.logging import log
from retrodistill.base.progress import duration
from retrodistill.stages.pipelines.distil.layout import Layout
from retrodistill.stages.pipelines.distil.plan import PlannedStep

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

SAMPLED = 48
"""Documents that are encoded to measure the speed."""

PAIRS = 16
"""Pairs that a teacher scores to measure its speed."""

PASSES = 3
"""A training step costs about as much as this many forward passes: one forward, two back."""

FREE = ("bm25", "bi-encoder", "run")
"""Teachers whose scores come from an index or from cached vectors."""

PAID = ("llm", "llm-pairwise", "llm-listwise")
"""Teachers behind an endpoint, whose time and price are those of the endpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speeds:
    """Seconds of a piece of work on this machine."""

    doc: float
    query: float
    pairs: dict[str, float]
    """Teacher -> seconds of a pair, of teachers that read pairs."""

    layers: int
    """Layers of the model."""

    other_docs: float
    """Seconds of a document with all bi-encoder teachers but the student."""


def log_estimate(layout: Layout, steps: Sequence[PlannedStep], outdated: Sequence[str]) -> None:
    """Measure the models on a sample, and log what is about to be done and how long it takes."""
    from retrodistill.data.datasets import load_collection

    if not outdated:
        log.info("every step was done with these settings; changed inputs are looked for.")
        return
    collection = load_collection(layout.config.data, queries=layout.config.queries)
    speeds = _speeds(layout, collection)
    total = 0.0
    log.info(f"{len(outdated)} of {len(steps)} steps are to be done:")
    for step in steps:
        if step.name in outdated:
            seconds, note = _work(layout, step, speeds)
            total += seconds
            log.info(f"  {step.name}: {note or duration(max(1.0, seconds))}")
    log.info(f"about {duration(max(1.0, total))} in all on this machine as it is now.")


def _speeds(layout: Layout, collection: "Collection") -> Speeds:
    """Return the speeds of the model and of the teachers that read pairs, by a small sample."""
    from retrodistill.base.types import Doc, Pairs
    from retrodistill.data.datasets.texts import spread_rows
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.models.students.towers import side_modules
    from retrodistill.models.teachers import load_teacher

    config = layout.config
    docs = [collection.docs[int(row)] for row in spread_rows(len(collection.docs), SAMPLED)]
    titles = [doc.title or " ".join(doc.text.split()[:10]) for doc in docs]

    def loaded(model: str) -> DenseEncoder:
        return DenseEncoder(model, max_tokens=config.max_tokens, precision=config.precision)

    def doc_seconds(encoder: DenseEncoder) -> float:
        texts = [doc.full_text for doc in docs]
        return _seconds(lambda: encoder.encode_docs(texts)) / len(texts)

    encoder = loaded(config.student)
    query = _seconds(lambda: encoder.encode_queries(titles)) / len(titles)
    pairs = {}
    for spec in layout.teachers:
        if spec.partition(":")[0] in FREE + PAID:
            continue
        teacher = load_teacher(
            spec, collection, max_tokens=config.max_tokens, precision=config.precision
        )
        sample = docs[:PAIRS]
        asked = [Doc(str(number), "", title) for number, title in enumerate(titles[:PAIRS])]
        work = Pairs.of(asked, sample)
        pairs[spec] = _seconds(lambda teacher=teacher, work=work: teacher.score(work)) / len(sample)
    body = side_modules(encoder.model, "document")[0]
    return Speeds(
        doc=doc_seconds(encoder),
        query=query,
        pairs=pairs,
        layers=int(getattr(body.model.config, "num_hidden_layers", 0)),
        other_docs=sum(doc_seconds(loaded(model)) for model in other_encoders(layout)),
    )


def other_encoders(layout: Layout) -> list[str]:
    """Return the models of bi-encoder teachers whose vectors of all documents are to be made."""
    specs = [spec.partition(":") for spec in dict.fromkeys(layout.config.teacher)]
    return [
        model for kind, _, model in specs if kind == "bi-encoder" and model != layout.config.student
    ]


def _work(layout: Layout, step: PlannedStep, speeds: Speeds) -> tuple[float, str]:
    """Return the seconds of a step, and a note instead of them where they are not known."""
    situation, config = layout.situation, step.config
    if step.verb == "embed":
        return situation.docs * speeds.doc, ""
    if step.verb == "mine":
        new = situation.docs * speeds.other_docs if step.name == "candidates" else 0.0
        return new + queries_of(layout, step) * speeds.query, ""
    if step.verb == "train":
        docs = 0 if config.freeze == "document" else 1
        docs *= config.candidates_per_query if config.scores else 1
        per_step = config.batch_size * (speeds.query + docs * speeds.doc)
        return _kept_share(layout, speeds) * PASSES * config.max_steps * per_step, ""
    if step.verb == "score":
        count = queries_of(layout, step) * layout.config.depth
        if config.teacher.partition(":")[0] in PAID:
            return 0.0, f"{count:,} pairs are sent to {config.teacher}"
        return count * speeds.pairs.get(config.teacher, 1e-5), ""
    if step.verb == "generate":
        models = [spec for spec in config.writer if spec != "titles"]
        number = min(situation.docs, config.docs or situation.docs)
        return 0.0, f"{number:,} documents are read by {', '.join(models)}" if models else ""
    if step.verb == "judge":
        return 0.0, f"{config.judge} judges up to {config.depth} documents of each run and query"
    return 1.0, ""


def _kept_share(layout: Layout, speeds: Speeds) -> float:
    """Return the share of the model's layers that the student keeps."""
    count = len(layout.config.keep_layers)
    return count / speeds.layers if count and speeds.layers else 1.0


def queries_of(layout: Layout, step: PlannedStep) -> int:
    """Return about how many queries are mined or scored in a step."""
    situation = layout.situation
    counts = {"dev": situation.dev, "test": situation.test, "held-out": layout.held_out}
    for measured in (layout.dev, layout.test):
        if measured is not None and step.name.startswith(f"{measured.folder}-"):
            return counts.get(measured.folder, layout.config.held_out)
    generated = (
        min(situation.docs, layout.config.max_generated) if situation.learns_generated else 0
    )
    return generated + situation.logged + situation.labelled


def _seconds(work: "object") -> float:
    """Return the time of the second of two calls."""
    assert callable(work)
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
