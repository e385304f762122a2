"""What a collection offers to learn from and to measure on."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from retrodistill.base.config import DistilConfig
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.datasets.options import take_options
from retrodistill.data.datasets.sections import files_of
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.models.inference import model_path

SAMPLED = 1000
"""Documents whose titles are looked at."""

WORDS = 2
"""Words that a title has to have to be a query."""

TITLED = 0.2
"""Share of documents with a title from which on titles are written as queries."""

ENOUGH = 200
"""Queries of a log, or with labels, from which on titles are not trained on by default: on SciFact
809 queries of a log gave more alone than with 5,156 titles (`benchmarks/bench_distil.py`)."""

FEW_DOCUMENTS = 32
"""With fewer documents there is nothing to rank."""

LIMITS = (
    ("sentence_bert_config.json", "max_seq_length"),
    ("tokenizer_config.json", "model_max_length"),
)
"""Files of a model, and their settings that limit its texts, in the library's order."""

NOTHING = (
    "there is nothing to learn from: no query log, no labels in split {split!r}, and {titles}. "
    "Give a query log (--queries FILE), or let a language model write queries "
    "(--writer causal-lm:MODEL or llm:NAME). The first words of documents do not serve as queries: "
    "students that were trained on them did not become better."
)

UNMEASURED = (
    "there is nothing to measure a student with: the collection has no judgements in the splits "
    "{dev!r} or {test!r}, and no query is generated that could be held out. Give --judge llm:NAME "
    "for the queries of a log, let titles or a language model write queries (--writer), or put "
    "some of the labelled queries into qrels/{dev}.tsv."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """Counts and splits of a collection that decide what is done with it."""

    docs: int
    files: int
    """Documents that the passages are parts of."""

    titled: float
    """Share of the documents with a title of WORDS words or more."""

    logged: int
    """Queries of the log."""

    labelled: int
    """Queries of the training split with a relevant document."""

    dev: int
    test: int
    """Queries of the dev and of the test split with a relevant document."""

    writers: tuple[str, ...]
    """What writes queries from the documents."""

    learns_generated: bool
    """Whether generated queries are trained on; else they are there to measure with alone."""

    limit: int | None = None
    """Longest text that --student is made for, in tokens; None if its folder does not say."""

    @property
    def generates(self) -> bool:
        """Return whether queries are written from the documents."""
        return bool(self.writers)

    @property
    def has_dev(self) -> bool:
        """Return whether the dev split has judgements."""
        return self.dev > 0

    @property
    def has_test(self) -> bool:
        """Return whether the test split has judgements."""
        return self.test > 0

    @property
    def judged(self) -> bool:
        """Return whether there are judgements to measure with."""
        return self.has_dev or self.has_test

    @property
    def sentence(self) -> str:
        """Return what is there, for the log."""
        parts = [
            f"{self.docs:,} documents ({self.titled:.0%} with a title)",
            f"{self.logged:,} queries of a log",
            f"{self.labelled:,} labelled queries to train on",
        ]
        splits = [name for name, has in (("dev", self.has_dev), ("test", self.has_test)) if has]
        judged = " and ".join(splits)
        parts.append(f"judgements to measure with: {judged}" if judged else "no judgements")
        return ", ".join(parts) + "."


def look_at(config: DistilConfig) -> Situation:
    """Return the situation of a collection.

    Raises:
        ConfigError: there is nothing to learn from, or --data or a split does not fit.
        DataError: there are too few documents.

    """
    options = take_options(config.data, ("queries", "qrels"))[1]
    if "queries" in options:
        raise ConfigError(
            f"--data {config.data}: give the query log as --queries {options['queries']}. For "
            "queries with judgements make a BEIR folder: corpus.jsonl, queries.jsonl, "
            "qrels/test.tsv."
        )
    collection = load_collection(config.data, queries=config.queries)
    docs = collection.docs
    if len(docs) < FEW_DOCUMENTS:
        raise DataError(
            f"{config.data} has {len(docs):,} documents; give at least {FEW_DOCUMENTS}."
        )
    rows = spread_rows(len(docs), SAMPLED)
    titled = sum(len(docs[int(row)].title.split()) >= WORDS for row in rows) / len(rows)
    logged, labelled = len(collection.file_queries), _labelled(collection, config.split)
    dev, test = (_labelled(collection, name) for name in (config.dev_split, config.test_split))
    judged = dev + test > 0
    enough = not config.writer and logged + labelled >= ENOUGH
    measurable = judged or (logged > 0 and config.judge is not None)
    writers = _writers(config, titled) if not (enough and measurable) else ()
    if "qrels" in options and (writers or config.judge):
        raise ConfigError(
            f"--data {config.data}: generated queries and machine judgements take the place of "
            "qrels=. Put the file into the collection's folder qrels/, or give --writer none and "
            "no --judge."
        )
    _check_splits(config, collection)
    situation = Situation(
        docs=len(docs),
        files=len(set(files_of(docs))),
        titled=titled,
        logged=logged,
        labelled=labelled,
        dev=dev,
        test=test,
        writers=writers,
        learns_generated=bool(writers) and not enough,
        limit=_limit(config.student),
    )
    if not (writers or logged or labelled):
        titles = f"{titled:.0%} of the documents have a title"
        if "none" in config.writer:
            titles = "no --writer may write any"
        raise ConfigError(NOTHING.format(split=config.split, titles=titles))
    if not (measurable or writers):
        raise ConfigError(UNMEASURED.format(dev=config.dev_split, test=config.test_split))
    if config.judge is not None and judged:
        log.warning(
            f"--judge {config.judge} is not asked: the collection has judgements to measure with."
        )
    if config.judge is not None and not judged and config.rounds > 1:
        raise ConfigError(
            "--rounds above 1 needs judgements of people, or held-out queries: --judge judges the "
            "results of the first round, and what a later one finds would count as irrelevant."
        )
    return situation


def _limit(student: str) -> int | None:
    """Return the token limit in a model's folder, which training does not exceed."""
    folder = Path(model_path(student))
    for name, setting in LIMITS:
        for file in sorted(folder.glob(f"**/{name}")):
            limit = json.loads(file.read_text(encoding="utf-8")).get(setting)
            if isinstance(limit, int):
                return limit
    return None


def _writers(config: DistilConfig, titled: float) -> tuple[str, ...]:
    """Return what writes queries from documents; titles only where documents have some."""
    writers = config.writer or ("titles",)
    if writers == ("none",) or (writers == ("titles",) and titled < TITLED):
        return ()
    return writers


def _check_splits(config: DistilConfig, collection: Collection) -> None:
    """Raise ConfigError for a split that was asked for by a name of its own and does not exist."""
    usual = {item.name: item.default for item in fields(config)}
    for setting in ("split", "dev_split", "test_split"):
        name = getattr(config, setting)
        if name != usual[setting] and name not in collection.splits:
            raise ConfigError(
                f"--{setting.replace('_', '-')}: {config.data} has no split {name!r}. It has: "
                f"{', '.join(collection.splits) or 'none'}."
            )


def _labelled(collection: Collection, split: str) -> int:
    """Return how many queries of a split have a relevant document, 0 if there is no such split."""
    if split not in collection.splits:
        return 0
    return sum(bool(docs) for docs in collection.relevant(split).values())
