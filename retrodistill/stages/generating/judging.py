"""What models say about queries: whether they find their documents, and which answers them best."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

from retrodistill.base.config import GenerateSettings
from retrodistill.base.logging import log
from retrodistill.base.types import Retriever, RetrieverOptions, Teacher
from retrodistill.models.retrievers import load_retriever
from retrodistill.models.teachers import load_teacher
from retrodistill.stages.generating.filters import graded, round_trip
from retrodistill.stages.generating.queries import GeneratedQuery
from retrodistill.stages.generating.relabel import relabelled

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts

LOST = "not found again (--round-trip)"
LOW = "below --min-score"


@dataclass(frozen=True, slots=True)
class Judges:
    """The models of --round-trip, --relabel and --min-score, each None where it is not used."""

    docs: "Texts"
    settings: GenerateSettings
    retriever: Retriever | None
    rankers: Sequence[Teacher]
    teacher: Teacher | None

    @classmethod
    def load(cls, collection: "Collection", settings: GenerateSettings) -> "Judges":
        """Return the models that the settings name.

        Raises:
            ConfigError: a name or an option is unknown, or a model cannot be loaded.

        """
        retriever = teacher = None
        precision = settings.precision
        if settings.round_trip is not None or settings.relabel is not None:
            options = RetrieverOptions(precision=precision)
            retriever = load_retriever(settings.retriever, collection.docs, options)
        rankers = [
            load_teacher(spec, collection, options=settings.options_of(spec), precision=precision)
            for spec in settings.ranker
        ]
        if settings.teacher is not None:
            own = settings.teacher_option
            teacher = load_teacher(settings.teacher, collection, options=own, precision=precision)
        return cls(collection.docs, settings, retriever, rankers, teacher)

    def passing(
        self, queries: Sequence[GeneratedQuery], dropped: Counter[str], *, forbidden: set[str]
    ) -> list[GeneratedQuery]:
        """Return the queries that pass, with new positives if these are wanted.

        No forbidden document becomes a positive or a negative.
        """
        k, relabel = self.settings.round_trip, self.settings.relabel
        if k is not None and self.retriever is not None:
            found = [*round_trip(queries, self.docs, self.retriever, k)]
            dropped[LOST] += found.count(False)
            queries = [*compress(queries, found)]
        if relabel is not None and self.retriever is not None and queries:
            queries = relabelled(
                queries, self.docs, self.retriever, self.rankers, k=relabel, forbidden=forbidden
            )
            moved = sum(query.source not in query.relevant for query in queries)
            log.info(f"--relabel: {moved:,} of {len(queries):,} queries have another positive.")
        if self.settings.min_score is not None and self.teacher is not None and queries:
            high = graded(queries, self.docs, self.teacher, self.settings.min_score)
            dropped[LOW] += high.count(False)
            queries = [*compress(queries, high)]
        return [*queries]
