"""Generate queries: sample documents, let writers write, filter, and put documents aside."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import GenerateSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.registry import WRITERS
from retrodistill.data.datasets.sections import files_of
from retrodistill.data.rankings.near import repeats
from retrodistill.data.store.words import words_of
from retrodistill.models.writers import Draft, check_options
from retrodistill.stages.generating.judging import Judges
from retrodistill.stages.generating.queries import GeneratedQueries, GeneratedQuery
from retrodistill.stages.generating.writing import sampled, written

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts

DEFAULTS = GenerateSettings()

REPEATED = "equal to another query"
KNOWN = "equal to a query of the collection"
HELD_OUT = "equal to a held-out query"
NEAR = "nearly equal to another query"


def generate_queries(
    collection: "Collection", settings: GenerateSettings = DEFAULTS
) -> GeneratedQueries:
    """Return queries that the collection's documents answer, with judgements.

    Queries with the same words are one query, relevant to the documents of all. A query with a
    relevant document that is put aside is held out, and what repeats it is dropped from the rest.

    Raises:
        ConfigError: a writer or the retriever is unknown, or more documents are to be put aside
            than there are.
        DataError: there are no documents, or nothing to write from, or no query passes.

    """
    docs = collection.docs
    for spec in settings.writer:
        WRITERS.split(spec)
    check_options(settings.writer, settings.option)
    if not len(docs):
        raise DataError(f"{collection.name} has no documents.")
    rows = sampled(len(docs), settings.docs, seed=settings.seed)
    aside = _put_aside(docs, rows, settings)
    judges = Judges.load(collection, settings)
    dropped: Counter[str] = Counter()
    drafts = written(docs.take(rows), docs, settings, dropped)
    queries = _merged(drafts, dropped)
    queries = _new(queries, collection.queries, dropped)
    held, rest = _split(queries, aside, dropped)
    held, rest = _without_repeats(held, rest, settings.near_duplicates, dropped)
    held = judges.passing(held, dropped, forbidden=set())
    rest = judges.passing(rest, dropped, forbidden=aside)
    _log(rest, held if aside else None, dropped)
    if not rest:
        raise DataError(
            f"no query is left of {collection.name}: {_counts(dropped)}. Loosen the filters, or "
            "take another writer: --writer causal-lm:MODEL or llm:NAME."
        )
    if aside and not held:
        log.warning("the documents put aside have no query: the split held-out is empty.")
    elif held and {query.writer for query in held} == {"titles"}:
        log.warning(
            "the held-out queries are titles, which stand in their own documents: any lexical "
            "retriever finds them. Measure with the questions of a language model, or real ones."
        )
    return GeneratedQueries(
        queries=rest,
        held_out=held if aside else None,
        dropped=dropped,
        inputs={"collection": collection.fingerprint},
        details={"documents": len(rows), "documents_put_aside": len(aside)},
    )


def _put_aside(docs: "Texts", rows: NDArray[np.int64], settings: GenerateSettings) -> set[str]:
    """Return the ids of the documents whose queries are held out: files with all their passages."""
    if settings.held_out is None:
        return set()
    files = files_of(docs)
    written = list(dict.fromkeys(files[row] for row in rows.tolist()))
    if settings.held_out >= len(written):
        raise ConfigError(
            f"--held-out {settings.held_out} puts aside all of {len(written):,} documents, which "
            "leaves none to train on. Lower it, or raise --docs."
        )
    places = sampled(len(written), settings.held_out, seed=settings.seed)
    chosen = {written[place] for place in places.tolist()}
    return {id for id, file in zip(docs.ids(), files, strict=True) if file in chosen}


def _merged(
    drafts: Iterable[tuple[str, str, Draft]], dropped: Counter[str]
) -> list[GeneratedQuery]:
    """Return one query for all drafts with the same words, relevant to the documents of each."""
    first: dict[str, tuple[str, str, Draft]] = {}
    relevant: dict[str, list[str]] = {}
    for spec, fingerprint, draft in drafts:
        key = " ".join(words_of(draft.text))
        dropped[REPEATED] += key in first
        first.setdefault(key, (spec, fingerprint, draft))
        relevant.setdefault(key, []).extend((draft.source, *draft.relevant))
    return [
        GeneratedQuery.of(
            " ".join(draft.text.split()),
            writer=spec,
            fingerprint=fingerprint,
            kind=draft.kind,
            relevant=relevant[key],
        )
        for key, (spec, fingerprint, draft) in first.items()
    ]


def _new(
    queries: Sequence[GeneratedQuery], known: "Texts", dropped: Counter[str]
) -> list[GeneratedQuery]:
    """Return the queries without those that the collection has, which a split may test with."""
    words = {" ".join(words_of(query.full_text)) for query in known}
    new = [query for query in queries if " ".join(words_of(query.text)) not in words]
    if words:
        dropped[KNOWN] += len(queries) - len(new)
    return new


def _split(
    queries: Sequence[GeneratedQuery], aside: set[str], dropped: Counter[str]
) -> tuple[list[GeneratedQuery], list[GeneratedQuery]]:
    """Return the queries with a document that is put aside, and the others."""
    held = [query for query in queries if not aside.isdisjoint(query.relevant)]
    if aside:
        dropped[HELD_OUT] += sum(not aside.issuperset(query.relevant) for query in held)
    return held, [query for query in queries if aside.isdisjoint(query.relevant)]


def _without_repeats(
    held: Sequence[GeneratedQuery],
    rest: Sequence[GeneratedQuery],
    threshold: float,
    dropped: Counter[str],
) -> tuple[list[GeneratedQuery], list[GeneratedQuery]]:
    """Return both parts without the queries that nearly repeat another; held-out ones stay."""
    doubles = repeats([query.text for query in (*held, *rest)], threshold=threshold)
    dropped[NEAR] += len(doubles)
    return (
        [query for place, query in enumerate(held) if place not in doubles],
        [query for place, query in enumerate(rest, len(held)) if place not in doubles],
    )


def _log(
    rest: Sequence[GeneratedQuery], held: Sequence[GeneratedQuery] | None, dropped: Counter[str]
) -> None:
    more = "" if held is None else f" and {len(held):,} held out"
    log.info(f"{len(rest):,} queries{more}; dropped: {_counts(dropped)}.")


def _counts(dropped: Counter[str]) -> str:
    counts = [f"{count:,} {problem}" for problem, count in dropped.items() if count]
    return ", ".join(counts) or "none"
