"""What a training draws its batches from: lists of candidates, or single texts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.models.students.batches import TrainingExample, TrainingText
from retrodistill.models.students.processes import world_size
from retrodistill.models.students.token_states import TOKEN_VECTORS, TOKENS
from retrodistill.stages.training.candidate_lists import CandidateLists
from retrodistill.stages.training.candidates import CandidateFilters, gather, judged_elsewhere
from retrodistill.stages.training.examples import Schedule, TextSchedule
from retrodistill.stages.training.sampling import Rows, Traits, query_clusters

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run
    from retrodistill.objectives.objective import LossTerm


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Material:
    """The queries of a training, and either their lists or the documents beside them."""

    collection: "Collection"
    """The texts that the student reads; its `teacher_view` are those that a teacher reads."""

    split: str = "train"

    queries: Rows
    """Rows of the queries that are trained on."""

    lists: CandidateLists | None = None
    """Their candidates; None where every text of the collection is trained on alone."""

    @property
    def count(self) -> int:
        """Return how many items an epoch has: queries with their lists, or texts."""
        docs = 0 if self.lists is not None else len(self.collection.docs)
        return len(self.queries) + docs

    def steps(self, settings: TrainSettings) -> int:
        """Return how many steps are planned."""
        if settings.max_steps > 0:
            return settings.max_steps
        return math.ceil(self.count * settings.epochs / step_size(settings))

    def as_taught(self) -> "Material":
        """Return the same with the texts that a teacher reads."""
        return replace(self, collection=self.collection.teacher_view)

    def sentence(self, settings: TrainSettings) -> str:
        """Return what will be trained on."""
        steps, size = self.steps(settings), step_size(settings)
        if self.lists is None:
            return (
                f"{len(self.queries):,} queries and {len(self.collection.docs):,} documents, "
                f"{steps:,} steps of {size} texts."
            )
        return (
            f"{len(self.queries):,} queries, {steps:,} steps of {size} queries with up to "
            f"{settings.candidates_per_query} documents."
        )

    def schedule(
        self, model: Any, settings: TrainSettings
    ) -> Sequence[TrainingExample] | Sequence[TrainingText]:
        """Return every item of the training in order; `model` is the student before it."""
        size = step_size(settings)
        length = self.steps(settings) * size
        if self.lists is None:
            docs = len(self.collection.docs)
            return TextSchedule(self.queries, docs, length, seed=settings.seed)
        return Schedule(
            self.lists,
            length,
            per_query=settings.candidates_per_query,
            positives=settings.positives_per_query,
            seed=settings.seed,
            query_order=settings.query_order,
            negative_sampling=settings.negative_sampling,
            traits=Traits(
                margins=self.lists.margins,
                batch_size=size,
                clusters=self._topics(model, settings),
            ),
        )

    def _topics(self, model: Any, settings: TrainSettings) -> Rows | None:
        """Return the cluster of each query, by the vectors of the student before its training."""
        if settings.query_order != "clusters":
            return None
        encoder = STUDENT_KINDS[settings.student_kind].encoder(model, precision=settings.precision)
        texts = self.collection.queries.full_texts(self.queries)
        count = settings.clusters or max(1, len(texts) // (10 * settings.batch_size))
        return query_clusters(encoder.encode_queries(texts), count, seed=settings.seed)


def step_size(settings: TrainSettings) -> int:
    """Return how many queries, or texts, a step has over all processes."""
    return settings.batch_size * world_size()


def gather_material(
    collection: "Collection",
    split: str,
    scores: "Run | None",
    terms: "Sequence[LossTerm]",
    settings: TrainSettings,
) -> Material:
    """Return what to train on.

    Raises:
        ConfigError: a filter or an order does not fit the scores or their absence.
        DataError: there is nothing to train on, or no label although the objective needs some.

    """
    reads_apart = STUDENT_KINDS[settings.student_kind].task.reads_apart
    if scores is None and reads_apart and not _needs_lists(terms):
        return _texts(collection, split, settings)
    lists = gather(
        collection,
        split,
        scores,
        pool=settings.pool,
        positives=settings.positives,
        unlabelled_splits=settings.unlabelled_split,
        dev_split=settings.dev_split,
        filters=CandidateFilters(
            drop_weak_queries=settings.drop_weak_queries,
            false_negatives=settings.false_negatives,
            label_above=settings.label_above,
            label_below=settings.label_below,
        ),
    )
    labelled = int(lists.labelled.sum())
    _check_labels(terms, settings, split, labelled, len(lists))
    return Material(collection=collection, split=split, queries=lists.queries, lists=lists)


def _texts(collection: "Collection", split: str, settings: TrainSettings) -> Material:
    """Return every document, and every query that no other split measures with."""
    if settings.query_order != "shuffled":
        raise ConfigError(
            f"--query-order {settings.query_order} orders queries with lists, but objective "
            f"{settings.objective!r} learns from texts alone. Give --scores, or omit --query-order."
        )
    judged = judged_elsewhere(
        collection, split, settings.unlabelled_split, dev_split=settings.dev_split
    )
    measured = collection.queries.find(sorted(set().union(*judged.values())))
    queries = np.setdiff1d(np.arange(len(collection.queries)), measured)
    if not len(queries) + len(collection.docs):
        raise DataError(f"{collection.name} has no text to learn from.")
    return Material(collection=collection, split=split, queries=queries)


def _check_labels(
    terms: "Sequence[LossTerm]", settings: "TrainSettings", split: str, labelled: int, queries: int
) -> None:
    """Check that there is a label, if the objective learns from labels; log how many lack one.

    Raises:
        DataError: none of the queries has a labelled positive.

    """
    from retrodistill.objectives.objective import inputs_of

    if "labels" not in inputs_of(terms):
        return
    if not labelled:
        raise DataError(
            f"objective {settings.objective!r} learns from labels, but none of {queries:,} queries "
            f"has a relevant document in split {split!r}. Drop what needs labels, or take the "
            "teacher's best document for the positive: --positives labels-or-teacher."
        )
    if labelled < queries:
        log.info(
            f"{labelled:,} of {queries:,} queries have labels; the others learn from the teacher."
        )


def _needs_lists(terms: "Sequence[LossTerm]") -> bool:
    """Tell whether an objective looks at queries' lists of documents, not at single texts alone."""
    alone = (
        *("query_vectors", "doc_vectors", "queue_vectors", "span_vectors"),
        *("attention_vectors", "_states"),
    )
    signals = {signal for term in terms for signal in term.signals} - TOKENS - TOKEN_VECTORS
    signals -= {"teacher_token_vectors"}
    return not all(signal.endswith(alone) for signal in signals)
