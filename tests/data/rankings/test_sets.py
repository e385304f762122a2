"""Set operations over queries: what a text means, and what becomes of the lists."""

from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from retrodistill.base.errors import ConfigError
from retrodistill.data.rankings.sets import (
    MAX_OPERATORS,
    Operation,
    PlainQuery,
    Query,
    evaluate_sets,
    intersect,
    min_max,
    parse_sets,
    ranked,
    subtract,
    texts_of,
    unite,
)

LISTS = {
    "a": {"d1": 30.0, "d2": 20.0, "d3": 10.0, "d4": 0.0},
    "b": {"d3": 0.9, "d2": 0.5, "d5": 0.1},
    "c": {"d2": 7.0},
}


def find(texts: list[str], depth: int) -> list[dict[str, float]]:
    return [dict(ranked(LISTS[text])[:depth]) for text in texts]


def shown(query: Query) -> str:
    """Return a query with all its brackets."""
    if isinstance(query, PlainQuery):
        return query.text
    return f"({shown(query.left)} {query.name} {shown(query.right)})"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a AND b OR c", "((a and b) or c)"),
        ("a OR b AND c", "(a or (b and c))"),
        ("a NOT b AND c", "((a not b) and c)"),
        ("a AND NOT (b OR c)", "(a not (b or c))"),
        ("a OR b OR c", "((a or b) or c)"),
        ('"effects of vitamin D" AND asthma NOT children', None),
        ('"this AND that" (OR) OR b', ConfigError),
        ('"this AND (that)" in one AND b', "(this AND (that) in one and b)"),
        ("ANDROID phones AND NOTHING", "(ANDROID phones and NOTHING)"),
        ("(a)AND(b)", "(a and b)"),
    ],
)
def test_a_text_is_read_as_it_is_meant(text: str, wanted: str | type | None) -> None:
    """An AND that binds looser than OR: documents that no one asked for."""
    if wanted is ConfigError:
        with pytest.raises(ConfigError, match="not understood"):
            parse_sets(text)
        return
    found = shown(parse_sets(text))
    assert found == (wanted or "((effects of vitamin D and asthma) not children)")


@pytest.mark.parametrize(
    "text",
    [
        "salt and pepper or not (TNF) alpha",
        'a 5" pipe (left',
        "  spaces  stay ",
        'the "whole" phrase',
        "",
    ],
)
def test_plain_queries_keep_their_words(text: str) -> None:
    """An everyday query that loses its `not`, or fails for a bracket."""
    assert parse_sets(text) == PlainQuery(text)


def test_a_phrase_alone_loses_its_quotes_and_keeps_its_words() -> None:
    """The way out for a query that holds an operator of its own."""
    assert parse_sets('"TO BE OR NOT TO BE"') == PlainQuery("TO BE OR NOT TO BE")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("NOT b", "NOT b"),
        ("a AND", "its end"),
        ("a AND OR b", "OR b"),
        ("a AND (b OR c", "its end"),
        ("a AND b) OR c", r"\) OR c"),
        ('a AND "b', '"b'),
        ('a AND ""', '""'),
        ("a (b) AND c", r"\(b\) AND c"),
        ("(" * 21 + "a" + ")" * 21 + " AND b", "20 brackets"),
        (" OR ".join(["a"] * 1500), "200 operators.*1,499"),
    ],
)
def test_mistakes_name_their_place(text: str, place: str) -> None:
    """Half of a query that is searched for, as if the rest had not been typed."""
    with pytest.raises(ConfigError, match=place):
        parse_sets(text)


def test_operations_by_hand() -> None:
    """a is 1, 2/3, 1/3, 0 and b is 1, 1/2, 0, for their own documents."""
    a, b = min_max(LISTS["a"]), min_max(LISTS["b"])
    assert a == pytest.approx({"d1": 1, "d2": 2 / 3, "d3": 1 / 3, "d4": 0})
    assert intersect(a, b) == pytest.approx({"d2": 1 / 3, "d3": 1 / 3})
    assert intersect(a, b, "minimum") == pytest.approx({"d2": 1 / 2, "d3": 1 / 3})
    assert unite(a, b) == pytest.approx({"d1": 1, "d2": 2 / 3, "d3": 1, "d4": 0, "d5": 0})
    assert subtract(a, b, 1) == pytest.approx({"d1": 1, "d2": 1 / 3, "d4": 0})
    assert min_max(LISTS["c"]) == {"d2": 1.0}
    assert min_max({}) == {}


def test_a_query_is_evaluated_by_hand() -> None:
    """Excluded documents that come back, and ties that another machine breaks otherwise."""
    assert evaluate_sets("a AND b", find, 10) == [
        ("d3", pytest.approx(1 / 3)),
        ("d2", pytest.approx(1 / 3)),
    ]
    assert [doc for doc, _ in evaluate_sets("a NOT b", find, 10)] == ["d1", "d4"]
    assert [doc for doc, _ in evaluate_sets("(a OR b) NOT c", find, 2)] == ["d3", "d1"]
    assert evaluate_sets("a", find, 2) == [("d1", 30.0), ("d2", 20.0)]
    assert evaluate_sets("a AND a", find, 1) == [("d1", 1.0)]


def test_each_text_is_searched_once_and_deeper_than_the_result() -> None:
    """An AND of two first pages, which share nothing."""
    asked = []

    def noted(texts: list[str], depth: int) -> list[dict[str, float]]:
        asked.append((texts, depth))
        return find(texts, depth)

    evaluate_sets("a AND (b NOT a)", noted, 3)
    evaluate_sets("a", noted, 3)
    assert asked == [(["a", "b"], 1000), (["a"], 3)]
    tree = parse_sets("a AND (b NOT a)")
    assert isinstance(tree, Operation)
    assert texts_of(tree) == ["a", "b"]


def test_as_many_operators_as_are_allowed() -> None:
    """A limit that Python's recursion reaches first."""
    assert evaluate_sets(" OR ".join(["a"] * (MAX_OPERATORS + 1)), find, 1) == [("d1", 1.0)]
    with pytest.raises(ConfigError, match="k must be at least 1"):
        evaluate_sets("a OR b", find, -1)


@pytest.mark.realdata
def test_and_finds_what_two_real_queries_share(shared_data: Path) -> None:
    """An AND that is no better than either of its parts.

    Pairs of Cranfield queries with three relevant documents or more in common, by BM25: nDCG@10 of
    those is 0.296 for AND, 0.234 and 0.235 for the queries alone.
    """
    from retrodistill.data.datasets import load_collection
    from retrodistill.models.retrievers.bm25 import Lexicon

    collection = load_collection(f"beir:{shared_data / 'cranfield'}")
    lexicon, ids = Lexicon(collection.docs.full_texts()), collection.docs.ids()
    relevant = {query: set(docs) for query, docs in collection.relevant("test").items()}
    pairs = [
        (a, b) for a, b in combinations(sorted(relevant), 2) if len(relevant[a] & relevant[b]) >= 3
    ]
    assert len(pairs) > 100
    texts = {query: collection.queries.get(query).full_text for query in relevant}
    kept: dict[str, dict[str, float]] = {}

    def search(queries: list[str], depth: int) -> list[dict[str, float]]:
        for query in queries:
            if query not in kept:
                rows, scores = lexicon.top(query, 1000)
                kept[query] = {ids[row]: float(s) for row, s in zip(rows, scores, strict=True)}
        return [dict(ranked(kept[query])[:depth]) for query in queries]

    values = defaultdict(list)
    for a, b in pairs:
        both = relevant[a] & relevant[b]
        queries = {"a": texts[a], "b": texts[b], "and": f'"{texts[a]}" AND "{texts[b]}"'}
        for name, query in queries.items():
            docs = [doc for doc, _ in evaluate_sets(query, search, 10)]
            gains = [float(doc in both) / np.log2(rank + 2) for rank, doc in enumerate(docs)]
            best = (1 / np.log2(np.arange(2, min(10, len(both)) + 2))).sum()
            values[name].append(sum(gains) / best)
    means = {name: float(np.mean(row)) for name, row in values.items()}
    assert means["and"] > max(means["a"], means["b"]) + 0.03, means
