"""Queries read from what a language model writes."""

import pytest

from retrodistill.models.writers.answers import bare_query, queries_in


@pytest.mark.parametrize(
    ("written", "query"),
    [
        ("what is a valve?", "what is a valve?"),
        ("1. what is a valve?", "what is a valve?"),
        ("(2) what is a valve?", "what is a valve?"),
        ("- what is a valve?", "what is a valve?"),
        ("Question: what is a valve?", "what is a valve?"),
        ("**Question 1:** what is a valve?", "what is a valve?"),
        ('3) "what is a valve?"', "what is a valve?"),
        ("\u201cwhat is a valve?\u201d", "what is a valve?"),
        ("**what is a valve?**", "what is a valve?"),
        ("  what\tis a\u00a0valve? ", "what is a valve?"),
        ("Query: Question: what is a valve?", "what is a valve?"),
        ('what is a "valve"', 'what is a "valve"'),
        ('"hot" and "cold" valves', '"hot" and "cold" valves'),
        ("3D printing of valves", "3D printing of valves"),
        ("2.5 inch valves", "2.5 inch valves"),
        ("2001: a space odyssey", "2001: a space odyssey"),
        ("-20 degrees and valves", "-20 degrees and valves"),
        ("question answering systems", "question answering systems"),
        ("", ""),
        ('""', ""),
    ],
)
def test_only_the_query_is_left(written: str, query: str) -> None:
    """Numbers, labels and quotes that a student learns as words of a query; or words of it lost."""
    assert bare_query(written, label="Question:") == query


def test_an_answer_of_several_lines_is_several_queries() -> None:
    """Preambles, blank lines and repeats as queries; more of them than were asked for."""
    text = 'Sure! Here are three:\n\n1. "what is it?"\n2. who made it\n2. who made it\n3. why'
    assert queries_in(text, label="Question:", count=2) == ["what is it?", "who made it"]
    assert queries_in(text, label="Question:", count=9) == [
        "what is it?",
        "who made it",
        "why",
    ]
    assert queries_in("```\nwhat is it\n```", label="Q:", count=1) == ["what is it"]
    assert queries_in('["what is it", "1. why"]', label="Q:", count=5) == ["what is it", "why"]
    assert queries_in("[1] what is it", label="Q:", count=5) == ["[1] what is it"]
    assert queries_in("Here you are:\n\n", label="Q:", count=5) == []
