"""What a training draws its batches from: lists of candidates, or every text alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.stages.training.candidates import CandidateLists, gather, judged_elsewhere
from retrodistill.stages.training.checks import check_teacher
from retrodistill.stages.training.examples import Example, Schedule, Text, TextSchedule
from retrodistill.stages.training.processes import world_size
from retrodistill.stages.training.sampling import Rows, query_clusters
from retrodistill.stages.training.sources import Sources, check_labels, needs_lists

if TYPE_CHECKING:
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.preferences import Preferences


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Material:
    """The queries of a training, and either their lists or the documents beside them."""

    sources: Sources

    queries: Rows
    """Rows of the queries that are trained on."""

    lists: CandidateLists | None = None
    """Their candidates; None if every text of the collection stands alone."""

    preferences: "Preferences | None" = None

    perplexities: dict[str, float] = field(default_factory=dict)
    """Median perplexity of the teacher's lists, by loss."""

    @property
    def count(self) -> int:
        """Return how many items an epoch has: queries with their lists, or texts."""
        docs = 0 if self.lists is not None else len(self.sources.collection.docs)
        return len(self.queries) + docs

    def steps(self, settings: TrainSettings) -> int:
        """Return how many steps are planned."""
        if settings.max_steps > 0:
            return settings.max_steps
        return math.ceil(self.count * settings.epochs / step_size(settings))

    def sentence(self, settings: TrainSettings) -> str:
        """Return what will be trained on."""
        steps, size = self.steps(settings), step_size(settings)
        if self.lists is None:
            return (
                f"{len(self.queries):,} queries and {len(self.sources.collection.docs):,} "
                f"documents, {steps:,} steps of {size} texts."
            )
        return (
            f"{len(self.queries):,} queries, {steps:,} steps of {size} queries with up to "
            f"{settings.candidates_per_query} documents."
        )

    def schedule(self, model: Any, settings: TrainSettings) -> Sequence[Example] | Sequence[Text]:
        """Return every item of the training in order; `model` is the student before it."""
        size = step_size(settings)
        length = self.steps(settings) * size
        if self.lists is None:
            docs = len(self.sources.collection.docs)
            return TextSchedule(self.queries, docs, length, seed=settings.seed)
        return Schedule(
            self.lists,
            length,
            per_query=settings.candidates_per_query,
            positives=settings.positives_per_query,
            seed=settings.seed,
            order=settings.order,
            draw=settings.draw,
            batch_size=size,
            clusters=self._topics(model, settings),
        )

    def _topics(self, model: Any, settings: TrainSettings) -> Rows | None:
        """Return the cluster of each query, by the vectors of the student before its training."""
        from retrodistill.models.students.dense import DenseEncoder

        if settings.order != "clusters":
            return None
        encoder = DenseEncoder(model, precision=settings.precision)
        texts = self.sources.collection.queries.full_texts(self.queries)
        count = settings.clusters or max(1, len(texts) // (10 * settings.batch_size))
        return query_clusters(encoder.encode_queries(texts), count, seed=settings.seed)


def step_size(settings: TrainSettings) -> int:
    """Return how many queries, or texts, a step has over all processes."""
    return settings.batch_size * world_size()


def prepare(terms: "Sequence[LossTerm]", settings: TrainSettings, sources: Sources) -> Material:
    """Return what to train on, and log what of it can teach the objective.

    Raises:
        ConfigError: a filter or an order is for what there is not.
        DataError: there is nothing to train on, or no label although the objective needs some.

    """
    if sources.scores is None and not needs_lists(terms):
        return _texts(settings, sources)
    lists = gather(
        sources.collection,
        sources.split,
        sources.scores,
        pool=settings.pool,
        positives=settings.positives,
        unlabelled_splits=settings.unlabelled_split,
        dev_split=settings.dev_split,
        drop_weak_queries=settings.drop_weak_queries,
        false_negatives=settings.false_negatives,
    )
    labelled = int(lists.labelled.sum())
    check_labels(terms, settings, sources.split, labelled, len(lists))
    return Material(
        sources=sources,
        queries=lists.queries,
        lists=lists,
        preferences=_preferences(sources, lists),
        perplexities=_perplexities(terms, settings, sources, lists),
    )


def _texts(settings: TrainSettings, sources: Sources) -> Material:
    """Return every document, and every query that no other split measures with."""
    if settings.order != "shuffled":
        raise ConfigError(
            f"--order {settings.order} orders queries with lists, but objective "
            f"{settings.objective!r} learns from texts alone. Give --scores, or omit --order."
        )
    collection = sources.collection
    others = judged_elsewhere(
        collection, sources.split, settings.unlabelled_split, dev_split=settings.dev_split
    )
    measured = collection.queries.find(sorted(set().union(*others.values())))
    queries = np.setdiff1d(np.arange(len(collection.queries)), measured)
    if not len(queries) + len(collection.docs):
        raise DataError(f"{collection.name} has no text to learn from.")
    return Material(sources=sources, queries=queries)


def _preferences(sources: Sources, lists: CandidateLists) -> "Preferences | None":
    from retrodistill.stages.training.preferences import Preferences

    if sources.preferences is None:
        return None
    preferences = Preferences(sources.preferences, sources.collection)
    preferences.check(lists)
    return preferences


def _perplexities(
    terms: "Sequence[LossTerm]", settings: TrainSettings, sources: Sources, lists: CandidateLists
) -> dict[str, float]:
    if sources.scores is None:
        return {}
    queries = sources.collection.queries.ids(lists.queries)
    return check_teacher(terms, sources.scores.select(queries), first=settings.pool + 1)
