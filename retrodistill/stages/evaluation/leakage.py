"""Does the test split stand in the train split? Equal and nearly equal texts on both sides.

A measure on queries that were trained on says how well a student remembers. Texts are compared
as words: in lower case, NFKC, without punctuation. A script that puts no spaces between words is
one word to this, so that only equal texts are found in it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import hash64
from retrodistill.base.progress import bar
from retrodistill.base.types import Doc
from retrodistill.data.rankings.doubles import Sets, most_alike
from retrodistill.data.store.words import jaccard, shingles, words_of

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection, Texts

PART = 4096
"""Texts whose shingles are in memory at a time, of those that pass by."""


class Double(NamedTuple):
    """The text that is most like another."""

    exact: bool
    """Whether the words are the same, in the same order."""

    similarity: float
    """Jaccard similarity of the shingles; 1 for an exact one."""

    row: int
    """Where it stands."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its double."""

    exact: bool
    similarity: float
    id: str
    text: str
    double_id: str
    double_text: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many texts of one kind have a double; each is counted once, as the first that fits."""

    what: str
    total: int
    same: int
    """Under the same id."""

    exact: int
    """Under another id: the same words in the same order."""

    near: int
    """Under another id: a similarity of at least the threshold."""

    examples: Sequence[Example]
    """The most alike under different ids."""

    same_positive: int | None = None
    """Of queries with a double in the other split: those that share a relevant document."""

    @property
    def share(self) -> float:
        """Share of the texts that have a double of any kind."""
        return (self.same + self.exact + self.near) / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Leakage:
    """What the train and the test split have in common."""

    train: str
    test: str
    threshold: float
    overlaps: Sequence[Overlap]

    def table(self) -> tuple[list[str], list[list[str | None]]]:
        """Return the columns and rows of a table of the counts."""
        columns = ["", "all", "same id", "equal", "near", "share", "same positive"]
        rows = []
        for o in self.overlaps:
            label = None if o.same_positive is None else f"{o.same_positive:,}"
            counts = [f"{count:,}" for count in (o.total, o.same, o.exact, o.near)]
            rows.append([o.what, *counts, f"{o.share:.1%}", label])
        return columns, rows

    def quotations(self, width: int = 160) -> Iterator[str]:
        """Yield the lines that show the examples, each text cut to a width in characters."""
        for overlap in self.overlaps:
            for pair in overlap.examples:
                yield f"{overlap.what}, similarity {pair.similarity:.2f}"
                for id, text in ((pair.id, pair.text), (pair.double_id, pair.double_text)):
                    line = " ".join(text.split())
                    yield f"  {id}: {line if len(line) <= width else line[: width - 4] + ' ...'}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, with the shares."""
        rows = [asdict(row) | {"share": row.share} for row in self.overlaps]
        return asdict(self) | {"overlaps": rows}


def find_leakage(
    collection: "Collection",
    train: str = "train",
    test: str = "test",
    *,
    threshold: float = 0.8,
    query_shingle: int = 1,
    shingle: int = 3,
    examples: int = 5,
) -> Leakage:
    """Return how many test queries, and their relevant documents, have a double in training.

    Two texts are near duplicates if the Jaccard similarity of their shingles reaches the
    threshold: runs of `query_shingle` words for queries, which are short (one word that is
    changed changes as many of their shingles), and of `shingle` words for documents. Questions
    of one template come close too: see the examples, and `same_positive`.

    A query also leaks if it is nearly the title, the text, or both, of its own relevant document,
    in either split: then matching words is all that there is to learn.

    Raises:
        ConfigError: there is no such split, both are the same, or a setting is out of range.
        DataError: a judged query has no text.

    """
    if train == test:
        raise ConfigError(f"leakage lies between two splits, but both are {test!r}.")
    queries = {split: collection.query_ids(split) for split in (train, test)}
    relevant = {split: collection.relevant(split) for split in (train, test)}
    docs = {
        split: list(dict.fromkeys(chain(*labels.values()))) for split, labels in relevant.items()
    }
    overlaps = []
    for kind, texts, ids, width in (
        ("queries", collection.queries, queries, query_shingle),
        ("positives", collection.docs, docs, shingle),
    ):
        same = set(ids[train]).intersection(ids[test])
        sides = [_read(texts, [id for id in ids[test] if id not in same]), _read(texts, ids[train])]
        doubles = nearest(*(t for _, t in sides), threshold=threshold, shingle=width)
        found = [_example(sides, row, double) for row, double in doubles.items()]
        overlap = _overlap(f"{test} {kind} in {train}", len(ids[test]), found, examples)
        overlap = replace(overlap, same=len(same))
        if kind == "queries":
            pairs = [(id, id) for id in same] + [(pair.id, pair.double_id) for pair in found]
            alike = [set(relevant[test][a]).intersection(relevant[train][b]) for a, b in pairs]
            overlap = replace(overlap, same_positive=sum(map(bool, alike)))
        overlaps.append(overlap)
    for split in (test, train):
        found = list(_copies(collection, relevant[split], threshold, query_shingle))
        description = f"{split} queries that copy a positive"
        overlaps.append(_overlap(description, len(queries[split]), found, examples))
    return Leakage(train, test, threshold, overlaps)


def nearest(
    texts: Sequence[str], others: Sequence[str], *, threshold: float = 0.8, shingle: int = 3
) -> dict[int, Double]:
    """Return the likeliest double of each text that has one among the others.

    An equal text is likelier than one of the same shingles. The texts are held in memory as
    hashes of their shingles, the others pass by part by part; no pair is missed.

    Raises:
        ConfigError: the threshold does not lie between 0.1 and 1, or a shingle has no word.

    """
    if not 0.1 <= threshold <= 1:
        raise ConfigError(f"threshold must lie between 0.1 and 1, but it is {threshold}.")
    if shingle < 1:
        raise ConfigError(f"a shingle must have at least 1 word, but it has {shingle}.")
    keys = [" ".join(words_of(text)) for text in texts]
    equal = dict.fromkeys(filter(None, keys), -1)
    with bar("comparing texts", len(others)) as advance:

        def parts() -> Iterator[Sets]:
            for start in range(0, len(others), PART):
                block = [" ".join(words_of(text)) for text in others[start : start + PART]]
                for position, key in enumerate(block, start):
                    if equal.get(key) == -1:
                        equal[key] = position
                yield _hashed(block, shingle)
                advance(len(block))

        blocks = (keys[start : start + PART] for start in range(0, len(keys), PART))
        sets = Sets.joined(_hashed(block, shingle) for block in blocks)
        similarity, positions = most_alike(sets, parts(), least=threshold)
    doubles = {}
    for row, key in enumerate(keys):
        position = equal.get(key, -1)
        if position >= 0:
            doubles[row] = Double(exact=True, similarity=1.0, row=position)
        elif positions[row] >= 0:
            doubles[row] = Double(False, float(similarity[row]), int(positions[row]))
    return doubles


def _hashed(texts: Sequence[str], width: int) -> Sets:
    """Return hashes of the shingles of texts that are words with a space between each two."""
    return Sets.of(hash64(sorted(shingles(text.split(), width))) for text in texts)


def _copies(
    collection: "Collection", relevant: Mapping[str, Sequence[str]], threshold: float, width: int
) -> Iterator[Example]:
    """Yield the queries that are nearly the title, the text, or both, of a relevant document."""
    queries = _by_id(collection.queries, relevant)
    docs = _by_id(collection.docs, chain(*relevant.values()))
    for query_id, positives in relevant.items():
        words = words_of(queries[query_id].full_text)
        query_shingles = shingles(words, width)
        likest = Example(False, 0.0, query_id, queries[query_id].full_text, "", "")
        for doc in (docs[id] for id in positives):
            for text in dict.fromkeys((doc.title, doc.text, doc.full_text)):
                doc_words = words_of(text)
                overlap = (words == doc_words, jaccard(query_shingles, shingles(doc_words, width)))
                if overlap > (likest.exact, likest.similarity):
                    likest = Example(*overlap, query_id, likest.text, doc.id, text)
        if likest.similarity >= threshold:
            yield likest


def _by_id(texts: "Texts", ids: Iterable[str]) -> dict[str, Doc]:
    import pyarrow as pa

    docs, _ = texts.distinct(pa.chunked_array([pa.array(list(ids), pa.string())]))
    return {doc.id: doc for doc in docs}


def _overlap(what: str, total: int, found: Sequence[Example], examples: int) -> Overlap:
    exact = sum(pair.exact for pair in found)
    worst = sorted(found, key=lambda pair: (pair.exact, pair.similarity), reverse=True)[:examples]
    return Overlap(what, total, same=0, exact=exact, near=len(found) - exact, examples=worst)


def _read(texts: "Texts", ids: list[str]) -> tuple[list[str], list[str]]:
    return ids, texts.full_texts(texts.rows(ids))


def _example(sides: Sequence[tuple[list[str], list[str]]], row: int, double: Double) -> Example:
    (ids, texts), (double_ids, doubles) = sides
    match = double.row
    return Example(*double[:2], ids[row], texts[row], double_ids[match], doubles[match])
