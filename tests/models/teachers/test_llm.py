"""Teachers behind an endpoint, against a real HTTP server that errs, lags, lies and hangs up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from itertools import pairwise
from math import exp, log
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from fakes.corpus import NOUNS
from fakes.llm_server import BIAS, Reply, Server, completion, reader, refusal, serve, shared_words
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.base.endpoints import asked_wait
from retrodistill.base.errors import ConfigError, DataError, MissingExtra, RetrodistillError
from retrodistill.base.types import SCALES, Comparer, Comparisons, Doc, Pairs, Teacher
from retrodistill.models.teachers.llm import (
    LLMListwiseTeacher,
    LLMPairwiseTeacher,
    LLMTeacher,
    client,
)
from retrodistill.models.teachers.llm.answers import Answer, Malformed, log_odds, parse_completion
from retrodistill.models.teachers.llm.listwise import read_permutation, windows
from retrodistill.models.teachers.llm.pairwise import meetings
from retrodistill.models.teachers.llm.pointwise import read_grade

KEY = "sk-do-not-write-me-7f3a91"
KINDS: list[type] = [LLMTeacher, LLMPairwiseTeacher, LLMListwiseTeacher]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, no key, no other endpoint, and a short back-off."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # reading real certificates takes 50 ms
    keyed = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS")
    for name in (*keyed, "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(reader) as running:
        yield running


def query(text: str = "blood heart liver muscle", id: str = "q1") -> Doc:
    return Doc(id, "", text)


def candidates(count: int, *, seed: int = 0) -> list[Doc]:
    """Return documents of twelve distinct words each."""
    rng = np.random.default_rng(seed)
    return [Doc(f"d{n}", "", " ".join(rng.choice(NOUNS, 12, replace=False))) for n in range(count)]


def graded(count: int) -> list[Doc]:
    """Return documents of which the last shares most words with the query."""
    words = [f"w{n}" for n in range(count)]
    return [Doc(f"d{n}", "", " ".join([*words[:n], f"own{n}"])) for n in range(count)]


def listed(docs: Sequence[Doc], one: Doc | None = None) -> Pairs:
    return Pairs.of([one or query()] * len(docs), docs)


def truth(pairs: Pairs) -> np.ndarray:
    """Return the shared words of each pair: what the server's model goes by."""
    rows = zip(pairs.query_rows, pairs.doc_rows, strict=True)
    texts = [(pairs.queries[q].text, pairs.docs[d].text) for q, d in rows]
    return np.array([shared_words(*both) for both in texts], np.float64)


# What a score is made of


@pytest.mark.parametrize(
    ("tops", "expected"),
    [
        ([{"Yes": 0.5, " yes": 0.1, "No": 0.2, "The": 0.1}], log(0.6 / 0.2)),
        ([{"▁NO": 0.5, "no.": 0.2, "ĠYES": 0.1}], log(0.1 / 0.7)),
        ([{"Yes": 0.7, "maybe": 0.2, "the": 0.05}], log(0.7 / 0.05)),  # as likely as the last
        ([{"Yes": 0.9}], log(0.9 / 0.1)),  # as likely as what is left
        ([{"Yes": 0.9, "No": 0.0}], log(0.9 / 0.1)),  # -9999 stands for no log-probability
        ([{"Yes": 1.0}], log(1 / 1e-6)),
        ([{"**": 0.9, "No": 0.1}, {"Yes": 0.8, "No": 0.2}], log(0.8 / 0.2)),
        ([{"It": 0.9, "No": 0.02, "Yes": 0.01}, {"is": 1.0}], log(0.01 / 0.02)),
    ],
)
def test_the_log_odds_by_hand(
    server: Server, tops: list[dict[str, float]], expected: float
) -> None:
    """Variants of a word skipped, or a placeholder for minus infinity taken as a score."""
    server.script = [completion("Yes", *tops)]
    scores = LLMTeacher("m", url=server.url).score(listed(candidates(1)))
    assert scores.dtype == np.float32
    assert scores[0] == pytest.approx(expected, abs=1e-5)


def test_what_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that an endpoint refuses, or the answer's randomness let in."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    teacher = LLMTeacher("gpt-x", url=server.url, top_logprobs=5)
    teacher.score(listed([Doc("d", "Title", "some text")]))
    request = server.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert {name: value for name, value in request.body.items() if name != "messages"} == {
        "model": "gpt-x",
        "temperature": 0.0,
        "max_tokens": 16,
        "logprobs": True,
        "top_logprobs": 5,
    }
    assert "Query: blood heart liver muscle\n\nPassage: Title some text\n" in request.prompt


def test_pointwise_scores_are_the_models(server: Server) -> None:
    """Answers of several threads handed to other pairs than they belong to."""
    docs = candidates(40)
    pairs = Pairs.of([query(id="a"), query("sugar sleep salt", "b")] * 20, docs)
    scores = LLMTeacher("m", url=server.url).score(pairs)
    np.testing.assert_allclose(scores, truth(pairs) - 2.0, atol=1e-4)
    assert len(set(scores.tolist())) > 2


def test_grades_for_endpoints_without_logprobs(server: Server) -> None:
    """A first token's text taken for a probability where the endpoint gives none."""
    pairs = listed(graded(8), query(" ".join(f"w{n}" for n in range(8))))
    without = completion("Yes")
    server.script = [without] * 8
    with pytest.raises(ConfigError, match=r"no top_logprobs.*grades=true"):
        LLMTeacher("m", url=server.url, concurrency=1).score(pairs)
    assert len(server) == 1
    server.script = []
    teacher = LLMTeacher("m", url=server.url, grades=True)
    assert teacher.score(pairs).tolist() == list(range(8))
    assert teacher.scale == "unknown"
    assert "logprobs" not in server.requests[-1].body


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('{"grade": 7}', 7.0),
        ('Sure!\n```json\n{"grade": 2.5, "why": "x"}\n```', 2.5),
        ('{"grade": "10"}', 10.0),
        ('<think>{"grade": 1} at first</think>{"grade": 3}', 3.0),
        ('{"grade": 11}', None),
        ('{"grade": true}', None),
        ('{"grade": NaN}', None),
        ('{"grade": null}', None),
        ("{grade: 3}", None),
        ("7", None),
        ("", None),
    ],
)
def test_grades_as_models_write_them(text: str, grade: float | None) -> None:
    """A number out of range, or a truth value, that becomes a score."""
    answer = Answer(text, None, 1, 1)
    if grade is None:
        with pytest.raises(Malformed):
            read_grade(answer)
    else:
        assert read_grade(answer) == grade


def test_comparisons_are_fair(server: Server) -> None:
    """The first place in the question wins, as it does with most models."""
    docs = candidates(6)
    upper, lower = np.triu_indices(6, 1)
    zeros = np.zeros(len(upper), np.int64)
    teacher = LLMPairwiseTeacher("m", url=server.url)
    assert isinstance(teacher, Comparer)
    result = teacher.compare(Comparisons([query()], docs, zeros, upper, lower))
    mirror = teacher.compare(Comparisons([query()], docs, zeros, lower, upper))
    np.testing.assert_allclose(np.exp(result) + np.exp(mirror), 1.0, atol=1e-6)
    worth = truth(listed(docs))
    gaps = worth[upper] - worth[lower]
    asked = [[1 / (1 + exp(-(gap + bias))) for bias in (BIAS, -BIAS)] for gap in gaps]
    np.testing.assert_allclose(result, np.log(np.mean(asked, axis=1)), atol=1e-4)
    assert len(server) == 2 * len(upper)


@pytest.mark.parametrize(("opponents", "requests"), [(2, 2 * 7 * 2), (0, 7 * 6), (9, 7 * 6)])
def test_pairwise_scores_are_means_over_opponents(
    server: Server, opponents: int, requests: int
) -> None:
    """Quadratic costs for a linear number of opponents, or comparisons that count for one side."""
    pairs = listed(candidates(7))
    teacher = LLMPairwiseTeacher("m", url=server.url, opponents=opponents)
    scores = teacher.score(pairs)
    assert len(server) == requests
    assert (scores <= 0).all()
    if opponents != 2:
        gaps = np.subtract.outer(truth(pairs), truth(pairs))
        chances = np.log((1 / (1 + np.exp(-gaps - BIAS)) + 1 / (1 + np.exp(-gaps + BIAS))) / 2)
        np.fill_diagonal(chances, 0.0)
        np.testing.assert_allclose(scores, chances.sum(1) / 6, atol=1e-4)


def test_rivals_are_not_the_neighbours_of_the_first_stage(server: Server) -> None:
    """Good candidates that only meet good ones, so that all means are alike."""
    words = [f"w{n}" for n in range(16)]
    pairs = listed(graded(16), query(" ".join(words)))
    scores = LLMPairwiseTeacher("m", url=server.url).score(pairs)
    assert np.corrcoef(scores, np.arange(16))[0, 1] > 0.7
    turned = listed(graded(16)[::-1], query(" ".join(words)))
    np.testing.assert_array_equal(
        LLMPairwiseTeacher("m", url=server.url).score(turned), scores[::-1]
    )


def test_a_single_candidate_costs_nothing(server: Server) -> None:
    """A division by no opponents, or a question with one passage."""
    assert LLMPairwiseTeacher("m", url=server.url).score(listed(candidates(1))).tolist() == [0.0]
    assert LLMListwiseTeacher("m", url=server.url).score(listed(candidates(1))).tolist() == [-1.0]
    assert len(server) == 0


@given(st.integers(1, 30), st.integers(0, 40))
def test_everybody_meets_whom_they_should(count: int, opponents: int) -> None:
    """A comparison fought twice, a candidate that meets itself, or nobody."""
    met = list(meetings(count, opponents))
    assert len({frozenset(pair) for pair in met}) == len(met)
    assert all(one != other for one, other in met)
    each = np.bincount(np.array(met, np.int64).ravel(), minlength=count)
    reach = count - 1 if opponents == 0 else min(2 * opponents, count - 1)
    assert (each == reach).all()


def test_the_window_carries_the_last_to_the_top(server: Server) -> None:
    """Candidates that no window reaches, or one that is lost between two windows."""
    pairs = listed(graded(47), query(" ".join(f"w{n}" for n in range(47))))
    teacher = LLMListwiseTeacher("m", url=server.url)
    scores = teacher.score(pairs)
    assert sorted(scores.tolist()) == [-rank for rank in range(47, 0, -1)]
    assert scores[-10:].tolist() == [-rank for rank in range(10, 0, -1)]
    assert len(server) == 4
    assert server.prompts[0].count("\n[") == 20


@given(st.integers(0, 200), st.integers(2, 30), st.data())
def test_windows_reach_everything(count: int, window: int, data: st.DataObject) -> None:
    """The first candidates skipped where the stride does not fit the list's length."""
    stride = data.draw(st.integers(1, window - 1))
    found = list(windows(count, window, stride))
    assert {row for start, end in found for row in range(start, end)} == set(
        range(count) if count > 1 else []
    )
    assert all(end - start <= window for start, end in found)
    assert all(start < end for (start, _), (_, end) in pairwise(found))


def test_the_first_stages_order_is_hidden(server: Server) -> None:
    """A model that answers [1] > [2] > ... copies the first stage, and is taken for a teacher."""
    docs = candidates(12)
    server.answer = lambda _: completion(" > ".join(f"[{n}]" for n in range(1, 13)))
    teacher = LLMListwiseTeacher("m", url=server.url)
    scores = teacher.score(listed(docs))
    assert (teacher.score(listed(docs[::-1])) == scores[::-1]).all()
    assert abs(np.corrcoef(scores, -np.arange(12))[0, 1]) < 0.9
    assert len(server) == 1
    meant = LLMListwiseTeacher("m", url=server.url, shuffle=False)
    assert meant.score(listed(docs)).tolist() == [-rank for rank in range(1, 13)]
    assert meant.fingerprint != teacher.fingerprint


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("[3] > [1] > [2] > [4]", [2, 0, 1, 3]),
        ("[3]>[1]>[2]>[4]", [2, 0, 1, 3]),
        ("3 > 1 > 2 > 4", [2, 0, 1, 3]),
        ("Passage [1] and [2] are off. My order: [3] > [1] > [2] > [4].\nDone.", [2, 0, 1, 3]),
        ("<think>[1] > [2] > [3] > [4]? no</think>[4] > [3]", [3, 2]),
        ("[1] > [2] first, better: [2] > [1]", [1, 0]),
        ("[2] > [2] > [1] > [2]", [1, 0]),
        ("[9] > [3] > [0] > [1]", [2, 0]),
        ("[2], then [4]", [1, 3]),
        ("[77] > [88]", None),
        ("I cannot rank these.", None),
        ("[" + "9" * 5000 + "]", None),
        ("", None),
    ],
)
def test_permutations_as_models_write_them(text: str, order: list[int] | None) -> None:
    """An id that counts twice, or words around the order that are taken for it."""
    answer = Answer(text, None, 1, 1)
    if order is None:
        with pytest.raises(Malformed):
            read_permutation(answer, 4)
    else:
        assert read_permutation(answer, 4) == order


@given(st.text("[]> 0123456789a\n", max_size=60), st.integers(1, 20))
def test_any_text_gives_an_order_or_none(text: str, count: int) -> None:
    """A label out of range that indexes another query's document."""
    try:
        order = read_permutation(Answer(text, None, 1, 1), count)
    except Malformed:
        return
    assert len(set(order)) == len(order) > 0
    assert set(order) <= set(range(count))


def test_missing_labels_keep_their_old_order(server: Server) -> None:
    """Candidates that lose their score because the model forgot them."""
    server.answer = lambda _: completion("The best are [4] > [2] > [4].")
    teacher = LLMListwiseTeacher("m", url=server.url, shuffle=False)
    assert teacher.score(listed(candidates(5))).tolist() == [-3.0, -2.0, -4.0, -1.0, -5.0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_unusable_answer_becomes_no_score(kind: type, server: Server, tmp_path: Path) -> None:
    """A default, a zero or an exception stored as a score."""
    server.answer = lambda _: completion("I am sorry, but", {"I": 0.9, "We": 0.1})
    teacher = kind("m", url=server.url, retries=2, concurrency=1)
    with pytest.raises(DataError, match=r"query 'q1' and.*3 tries.*begins 'I am sorry, but'"):
        teacher.score(listed(candidates(2)))
    assert len(server) in (3, 4)
    asked = len(server)
    server.answer = reader
    assert np.isfinite(teacher.score(listed(candidates(2)))).all()
    assert len(server) > asked


# An endpoint that errs

BODY = completion("Yes", {"Yes": 0.6, "No": 0.4})


@pytest.mark.parametrize(
    "script",
    [
        [refusal(500), refusal(503)],
        [refusal(408), refusal(409)],
        [refusal(429), refusal(429)],
        [Reply("<html>busy</html>", headers={"Content-Type": "text/html"}), Reply("{")],
        [Reply('{"choices": []}'), Reply('{"error": {"message": "overloaded"}}')],
        [Reply(BODY.body, cut=True), Reply(BODY.body, cut=True)],
        [Reply(BODY.body, delay=0.4), completion("", {"": 1.0})],
    ],
    ids=["5xx", "4xx", "429", "no JSON", "no answer", "cut", "slow"],
)
def test_passing_troubles_pass(script: list[Reply], server: Server) -> None:
    """A night's scoring that ends at the first hiccup, or a hiccup that becomes a score."""
    server.script = script
    teacher = LLMTeacher("m", url=server.url, timeout=0.2)
    scores = teacher.score(listed(candidates(1)))
    assert scores[0] == pytest.approx(truth(listed(candidates(1)))[0] - 2.0, abs=1e-4)
    assert len(server) == 3


def test_a_pause_that_is_asked_for_is_made_by_all(server: Server) -> None:
    """Threads that go on knocking while the endpoint asks for quiet."""
    server.script = [refusal(429, retry_after="0.3")]
    LLMTeacher("m", url=server.url, concurrency=2).score(listed(candidates(6)))
    assert len(server) == 7
    first = server.requests[0].time
    late = [request.time - first for request in server.requests[1:]]
    assert sum(gap < 0.25 for gap in late) <= 2  # what was on its way
    assert max(late) >= 0.28


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(0, usegmt=True)}, None),
        ({}, None),
    ],
)
def test_how_long_a_pause_is(headers: dict[str, str], seconds: float | None) -> None:
    """A wait without end."""
    wait = asked_wait(headers)
    assert wait == (None if seconds is None else pytest.approx(seconds, rel=0.05))


def test_a_pause_may_be_a_date() -> None:
    """A date read as a number."""
    due = formatdate(time.time() + 9000, usegmt=True)
    assert asked_wait({"retry-after": due}) == pytest.approx(9000, rel=0.05)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (refusal(401, "no such key"), "no such key.*OPENAI_API_KEY"),
        (refusal(404, "no model m"), "no model m.*model's name"),
        (refusal(400, "too long"), "refuses the question about query 'q1' and document 'd.*long"),
        (refusal(429, "broke", code="insufficient_quota"), "broke"),
        (refusal(429, retry_after="86400"), "in 1 tries.*a pause of 86,400 s"),
        (refusal(400, "top_logprobs must be at most 5"), "at most 5.*Lower the option top_logpr"),
    ],
)
def test_what_will_not_pass_ends_at_once(reply: Reply, message: str, server: Server) -> None:
    """Thousands of requests, and hours of back-off, for a key that is wrong."""
    server.answer = lambda _: reply
    with pytest.raises(ConfigError, match=message):
        LLMTeacher("m", url=server.url, concurrency=2).score(listed(candidates(40)))
    assert len(server) <= 2


def test_an_endpoint_that_stays_down_is_told(server: Server) -> None:
    """A traceback of a library for a server that is not there, or answers that are lost by it."""
    docs = candidates(4)
    teacher = LLMTeacher("m", url=server.url, retries=1, concurrency=1)
    teacher.score(listed(docs[:3]))
    server.answer = lambda _: refusal(500, "out of memory")
    with pytest.raises(ConfigError, match=r"document 'd3' in 2 tries.*out of memory"):
        teacher.score(listed(docs))
    assert len(server) == 5
    nobody = LLMTeacher("other", url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(ConfigError, match=r"no answer from http://127.0.0.1:9/v1.*refused"):
        nobody.score(listed(docs))


def test_newer_models_name_the_limit_otherwise(server: Server) -> None:
    """A model that no setting can make answer, for it refuses max_tokens."""
    messages = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.script = [refusal(400, messages)]
    LLMTeacher("m", url=server.url, retries=0, concurrency=1).score(listed(candidates(3)))
    names = [sorted(n for n in r.body if n.startswith("max")) for r in server.requests]
    assert names == [["max_tokens"], *[["max_completion_tokens"]] * 3]


# Limits


def slowly(prompt: str) -> Reply:
    reply = reader(prompt)
    reply.delay = 0.03
    return reply


def test_no_more_at_once_than_allowed(server: Server) -> None:
    """A small server that drowns."""
    server.answer = slowly
    LLMTeacher("m", url=server.url, concurrency=3).score(listed(candidates(15)))
    assert server.most_at_once == 3


def test_no_more_a_minute_than_allowed(server: Server) -> None:
    """An account that is blocked for a burst; second tries count too."""
    server.script = [refusal(500)]
    teacher = LLMTeacher("m", url=server.url, requests_per_minute=600)
    teacher.score(listed(candidates(5)))
    times = sorted(request.time for request in server.requests)
    assert len(times) == 6
    assert times[-1] - times[0] >= 0.45


def test_the_cost_cap_holds_and_nothing_is_lost(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bill without end, or answers that are paid again after the cap was raised."""
    pairs = listed(candidates(20))
    settings: dict[str, Any] = {"url": server.url, "price_in": 1e4, "price_out": 1e4}
    # An answer of the server costs 100 + 2 tokens, 1.02 in all.
    capped = LLMTeacher("m", max_cost=10.0, concurrency=2, **settings)
    with pytest.raises(
        ConfigError, match=r"would exceed max_cost=10: [89].\d+ is spent on [89] answ"
    ):
        capped.score(pairs)
    paid = len(server)
    assert paid in (8, 9)
    assert f"m: {paid} answers so far, {paid * 100} tokens read" in capsys.readouterr().err
    LLMTeacher("m", max_cost=100.0, **settings).score(pairs)
    assert len(server) == 20
    messages = " ".join(capsys.readouterr().err.split())
    assert f"{20 - paid} answers so far" in messages
    assert f"{(20 - paid) * 1.02:.6g} spent; {paid} more were kept" in messages


def test_an_endpoint_that_does_not_count_is_not_free(server: Server) -> None:
    """A cap that is never reached because the endpoint reports no tokens."""
    server.answer = lambda _: completion("Yes", {"Yes": 0.6, "No": 0.4}, usage=None)
    teacher = LLMTeacher("m", url=server.url, max_cost=1.0, price_out=1e4, concurrency=1)
    with pytest.raises(ConfigError, match="would exceed max_cost=1"):
        teacher.score(listed(candidates(20)))
    assert len(server) == 6  # 16 tokens each, as no answer can be longer


# Answers are kept


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_paid_once(
    kind: type, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shard that is scored again after a kill, and paid again."""
    pairs = Pairs.of([query(id="a"), query("sugar sleep salt", "b")] * 6, candidates(12))
    teacher = kind("m", url=server.url)
    assert isinstance(teacher, Teacher)
    assert teacher.scale in SCALES
    scores = teacher.score(pairs)
    assert scores.dtype == np.float32
    asked = len(server)
    capsys.readouterr()
    assert (teacher.score(pairs) == scores).all()
    with serve(reader) as elsewhere:
        assert (kind("m", url=elsewhere.url, concurrency=1).score(pairs) == scores).all()
        assert len(elsewhere) == 0
        assert capsys.readouterr().err == ""
        kind("other", url=elsewhere.url).score(pairs)
        assert len(elsewhere) == asked
    assert len(server) == asked


def test_equal_questions_are_asked_once(server: Server) -> None:
    """Two documents of the same text, paid twice."""
    docs = [Doc("a", "", "liver salt"), Doc("b", "liver", "salt"), Doc("c", "", "sugar")]
    scores = LLMTeacher("m", url=server.url).score(listed([*docs, docs[0]]))
    assert len(server) == 2
    assert scores[0] == scores[1] == scores[3] != scores[2]


SCORE_AND_DIE = """
import sys
from retrodistill.models.teachers.llm import LLMTeacher
from retrodistill.base.types import Doc, Pairs
docs = [Doc(f"d{n}", "", f"text number {n}") for n in range(30)]
teacher = LLMTeacher("m", url=sys.argv[1], concurrency=1)
teacher.score(Pairs.of([Doc("q", "", "text")] * 30, docs))
"""


def test_a_kill_loses_no_answer(server: Server) -> None:
    """Answers that are paid, but only in the memory of a process that is killed."""
    started: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def kill_at_the_twelfth(prompt: str) -> Reply:
        if len(server) == 12:
            ready.wait()
            os.kill(started[0].pid, signal.SIGKILL)
        return reader(prompt)

    server.answer = kill_at_the_twelfth
    started.append(subprocess.Popen([sys.executable, "-c", SCORE_AND_DIE, server.url]))
    ready.set()
    assert started[0].wait(timeout=60) == -signal.SIGKILL
    asked = server.prompts
    assert len(asked) == 12
    docs = [Doc(f"d{n}", "", f"text number {n}") for n in range(30)]
    LLMTeacher("m", url=server.url).score(Pairs.of([Doc("q", "", "text")] * 30, docs))
    assert set(asked) & set(server.prompts[12:]) == {asked[-1]}
    assert len(server) == 12 + 30 - 11


OPEN_AND_PUT = """
import sys
from pathlib import Path
from retrodistill.models.teachers.llm.answers import Answer
from retrodistill.models.teachers.llm.cache import AnswerCache
cache = AnswerCache(Path(sys.argv[1]))
for number in range(20):
    cache.put(f"{sys.argv[2]}-{number}", Answer(str(number), None, 1, 1))
"""


def test_processes_share_the_kept_answers(tmp_path: Path) -> None:
    """A locked or half-made database where several workers start at once."""
    from retrodistill.models.teachers.llm.cache import AnswerCache

    path = tmp_path / "new" / "answers.sqlite"
    words = [sys.executable, "-c", OPEN_AND_PUT, str(path)]
    workers = [subprocess.Popen([*words, str(number)]) for number in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0] * 3
    cache = AnswerCache(path)
    for worker in range(3):
        for number in range(20):
            kept = cache.get(f"{worker}-{number}")
            assert kept is not None
            assert kept.text == str(number)


def test_a_damaged_cache_is_explained(server: Server, tmp_path: Path) -> None:
    """A traceback of sqlite3, without a word about which file it is."""
    (tmp_path / "cache" / "llm").mkdir(parents=True)
    (tmp_path / "cache" / "llm" / "answers.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match=r"answers.sqlite.*not a database.*delete"):
        LLMTeacher("m", url=server.url)


# Secrets


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_is_written_nowhere(
    kind: type,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A secret in a cache that is copied, or in a log that is sent around."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    teacher = kind("m", url=server.url, retries=1)
    with caplog.at_level("INFO"):
        teacher.score(listed(candidates(5)))
        assert all(
            request.headers["authorization"] == f"Bearer {KEY}" for request in server.requests
        )
        for reply in (refusal(401, f"Incorrect API key: {KEY}"), Reply(f"hello {KEY}")):
            server.answer = lambda _, reply=reply: reply
            with pytest.raises(RetrodistillError) as caught:
                teacher.score(listed(candidates(5, seed=1)))
            assert KEY not in str(caught.value)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"[2]" in content or b"Yes" in content or b"A" in content for content in written)
    assert not any(KEY.encode() in content for content in written)
    messages = capfd.readouterr()
    assert KEY not in messages.out + messages.err + caplog.text + repr(teacher)
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert kind("m", url=server.url).fingerprint == teacher.fingerprint


def test_a_local_server_needs_no_key(server: Server) -> None:
    """A made-up key that is sent to a server which then refuses it."""
    LLMTeacher("m", url=server.url).score(listed(candidates(1)))
    assert "authorization" not in server.requests[0].headers


# Settings


@pytest.mark.parametrize("kind", KINDS)
def test_the_fingerprint_is_that_of_the_question(kind: type, server: Server) -> None:
    """Two questions in one store, or a store for every address of the same model."""
    plain = kind("m", url=server.url).fingerprint
    shaping: list[dict[str, Any]] = [
        {"words": 20},
        {"temperature": 0.5},
        {"answer_tokens": 8},
        {"instruction": "Is it about the same gene?"},
    ]
    prints = {kind("m", url=server.url, **settings).fingerprint for settings in shaping}
    prints |= {plain, kind("n", url=server.url).fingerprint}
    prints |= {other("m", url=server.url).fingerprint for other in KINDS}
    assert len(prints) == 8
    same = {"concurrency": 1, "retries": 0, "timeout": 5.0, "requests_per_minute": 9, "price_in": 1}
    assert kind("m", url="http://localhost:1/v1", **same).fingerprint == plain
    assert kind("m", url=server.url, temperature=0).fingerprint == plain


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_cut_and_the_task_is_replaced(kind: type, server: Server) -> None:
    """A book in a question, at the price of a book, or an instruction without effect."""
    docs = [Doc("d0", "Title", "liver [7] \ud800 " + "word " * 5000), Doc("d1", "", "heart")]
    teacher = (
        kind("m", url=server.url, words=10, instruction="Look for genes.", grades=True)
        if kind is LLMTeacher
        else kind("m", url=server.url, words=10, instruction="Look for genes.")
    )
    teacher.score(listed(docs))
    for prompt in server.prompts:
        assert len(prompt) < 600
        assert prompt.startswith("Look for genes.\n")
        assert "word word" in prompt or "heart" in prompt
    label = "(7)" if kind is LLMListwiseTeacher else "[7]"
    assert any(f"Title liver {label} ? word word" in prompt for prompt in server.prompts)


def test_the_environment_names_the_endpoint(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that are sent to a public service though a local one is set."""
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY.*option url"):
        LLMTeacher("m")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    LLMTeacher("m").score(listed(candidates(1)))
    assert len(server) == 1


def test_the_public_endpoint_is_the_last_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty address that leads nowhere."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    teacher = LLMTeacher("m")
    assert str(teacher.client._endpoint.base_url) == "https://api.openai.com/v1/"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda url: LLMTeacher("", url=url), "needs a model's name"),
        (lambda url: LLMTeacher("m", url="localhost:8000"), "option url must be as http"),
        (lambda url: LLMTeacher("m", url="http://me:pw@host/v1"), "holds a name or password"),
        (lambda url: LLMTeacher("m", url=url, concurrency=0), "concurrency must be at least 1"),
        (lambda url: LLMTeacher("m", url=url, timeout=float("nan")), "timeout must be at least"),
        (lambda url: LLMTeacher("m", url=url, max_cost=1.0), "needs price_in and price_out"),
        (lambda url: LLMPairwiseTeacher("m", url=url, opponents=-1), "opponents must be"),
        (lambda url: LLMListwiseTeacher("m", url=url, stride=20), "stride must be at least 1 and"),
        (lambda url: LLMListwiseTeacher("m", url=url, window=1), "stride must be at least 1 and"),
    ],
)
def test_impossible_settings_are_explained(
    make: Callable[[str], object], message: str, server: Server
) -> None:
    """A setting that is found wrong after an hour of scoring, or never."""
    with pytest.raises(ConfigError, match=message) as caught:
        make(server.url)
    assert "pw" not in str(caught.value)


def test_the_package_that_is_needed_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ModuleNotFoundError, and a search for what to install."""
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"pip install 'retrodistill\[llm\]'"):
        LLMTeacher("m", url=server.url)


# Faults that gave wrong scores, showed a key, or cost money that nobody saw


def thinking(text: str, *, sure: float = 0.99) -> list[dict[str, float]]:
    """Return the likely tokens of a text, a word each, of which the last has a rival."""
    words = [word if position == 0 else f" {word}" for position, word in enumerate(text.split())]
    last = words[-1].strip()
    rival = {"yes": "no", "no": "yes", "A": "B", "B": "A"}.get(last, "x")
    return [{word: 0.95} for word in words[:-1]] + [{words[-1]: sure, rival: 1 - sure}]


@pytest.mark.parametrize(
    ("text", "odds"),
    [
        ("<think> No wait. It may. </think> yes", 4.6),
        ("No wait. It may. </think> yes", 4.6),
        ("<think> yes </think> <think> yes or so </think> no", -4.6),
        ("The answer is yes", 4.6),
        ("<think> No wait", None),  # cut off within thoughts
        ("No wait, I think yes", None),  # says both
    ],
)
@pytest.mark.parametrize("kept", [False, True])
def test_thoughts_are_no_answer(server: Server, text: str, odds: float | None, kept: bool) -> None:
    """The log-odds of a word within a model's thoughts: -13.7 instead of +4.6."""
    server.answer = lambda _: completion(text, *thinking(text))
    teacher = LLMTeacher("m", url=server.url, retries=0)
    if odds is None:
        with pytest.raises(DataError, match="no usable answer"):
            teacher.score(listed(candidates(1)))
        return
    assert teacher.score(listed(candidates(1)))[0] == pytest.approx(odds, abs=0.01)
    if kept:  # an answer that was paid for before is read by the same rule
        server.answer = lambda _: refusal(500)
        other = LLMTeacher("m", url=server.url, retries=0)
        assert other.score(listed(candidates(1)))[0] == pytest.approx(odds, abs=0.01)


def test_thoughts_may_come_in_any_pieces(server: Server) -> None:
    """A mark of thoughts that is several tokens, whose end touches the answer."""
    tops = [{"<": 1.0}, {"think>": 1.0}, {"No": 1.0}, {"</": 1.0}, {"think": 1.0}, {">\n": 1.0}]
    server.answer = lambda _: completion("<think>No</think>\nYes", *tops, {"Yes": 0.9, "No": 0.1})
    score = LLMTeacher("m", url=server.url).score(listed(candidates(1)))[0]
    assert score == pytest.approx(log(9), abs=1e-4)


def test_an_answer_that_explains_itself_is_its_first_word(server: Server) -> None:
    """`Yes. It has no rival` taken for no."""
    tops = [{"Yes": 0.9, "No": 0.1}, {".": 1.0}, {" It": 1.0}, {" has": 1.0}, {" no": 1.0}]
    server.answer = lambda _: completion("Yes. It has no", *tops)
    score = LLMTeacher("m", url=server.url).score(listed(candidates(1)))[0]
    assert score == pytest.approx(log(9), abs=1e-4)


def test_an_article_is_no_passage(server: Server) -> None:
    """`a close call, but B` taken for A: +13.8 for the worse one."""
    text = "It is a close call, but B"
    server.answer = lambda _: completion(text, *thinking(text, sure=0.97))
    docs = candidates(2)
    comparisons = Comparisons([query()], docs, *(np.array([row]) for row in (0, 0, 1)))
    teacher = LLMPairwiseTeacher("m", url=server.url)
    # B in both orders: each document wins once, so neither is better.
    assert teacher.compare(comparisons)[0] == pytest.approx(log(0.5), abs=1e-5)
    answer = parse_completion(completion(text, *thinking(text, sure=0.97)).body)
    assert log_odds(answer, "A", "B", cased=True) == pytest.approx(log(0.03 / 0.97), abs=1e-5)


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\r"])
def test_a_key_from_a_file_is_used_without_its_line_end(
    server: Server, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """`Illegal header value b'Bearer sk-...'`: the whole key in a log."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY + end)
    LLMTeacher("m", url=server.url).score(listed(candidates(1)))
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["sk-very\nsecret-1234", "sk-verysécret1234", "sk-very secret-1"])
def test_a_key_that_cannot_be_sent_is_refused_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Six tries, and the key in the error."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds") as caught:
        LLMTeacher("m", url=server.url)
    assert "very" not in str(caught.value)
    assert len(server) == 0


def test_a_key_is_masked_however_it_is_written(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that comes back in an address, or as JSON."""
    key = 'sk-"very+secret/1234\\'
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server.answer = lambda _: refusal(401, f"{key} {quote(key, safe='')} {key!r}")
    with pytest.raises(ConfigError) as caught:
        LLMTeacher("m", url=server.url).score(listed(candidates(1)))
    assert "very" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://host/v1?api_key=sk-verysecret",
        "host/v1?key=verysecret",
        "me:verysecret@host/v1",
        "http://host/v1#verysecret",
    ],
)
def test_a_key_in_the_address_is_refused(address: str) -> None:
    """A secret in every manifest of what was scored."""
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        LLMTeacher("m", url=address)
    assert "verysecret" not in str(caught.value)


def test_a_request_that_times_out_is_paid(server: Server) -> None:
    """A limit on cost that counts nothing while the endpoint computes for nobody: 12 for 0.0."""
    slow = completion("Yes", {"Yes": 0.9, "No": 0.1})
    slow.delay = 0.5
    server.answer = lambda _: slow
    teacher = LLMTeacher(
        "m", url=server.url, timeout=0.1, retries=9, concurrency=1, max_cost=3.0, price_out=1e6 / 16
    )
    with pytest.raises(ConfigError, match=r"would exceed max_cost=3.*"):
        teacher.score(listed(candidates(4)))
    assert len(server) == 3
    assert "3 requests were sent and never answered" in teacher.client._account.summary()


def test_a_request_that_was_never_sent_costs_nothing() -> None:
    """A limit on cost that is used up by an endpoint which is not there."""
    teacher = LLMTeacher(
        "m", url="http://127.0.0.1:9/v1", timeout=0.5, retries=2, max_cost=1.0, price_out=1e6 / 16
    )
    with pytest.raises(ConfigError, match="no answer from"):
        teacher.score(listed(candidates(1)))
    assert teacher.client._account.spent == 0.0


@pytest.mark.parametrize("code", [429, None, "rate_limited", 503])
def test_an_error_within_a_good_response_is_an_error(server: Server, code: Any) -> None:
    """Six tries without a pause, each booked as a paid answer."""
    body = '{"error": {"message": "slow down", "code": %s}}'
    written = f'"{code}"' if isinstance(code, str) else (code or "null")
    server.script = [Reply(body % written)] * 2
    teacher = LLMTeacher("m", url=server.url, price_out=1.0, price_in=1.0)
    began = time.monotonic()
    teacher.score(listed(candidates(1)))
    assert time.monotonic() - began >= 0.015  # two pauses, of half of 10 and of 20 ms at least
    assert teacher.client._account.answers == 1
    server.script = [Reply(body.replace("slow down", "no such model") % 404)]
    with pytest.raises(ConfigError, match="no such model"):
        teacher.score(listed(candidates(1, seed=5)))


def filtered(prompt: str) -> Reply:
    """Refuse what mentions a weapon, and answer the rest."""
    if "weapon" in prompt:
        return refusal(400, "content management policy", code="content_filter")
    return reader(prompt)


@pytest.mark.parametrize("kind", KINDS)
def test_one_refused_question_need_not_stop_all(kind: type, server: Server) -> None:
    """A command that a content filter stops at the same document each time."""
    server.answer = filtered
    docs = [*candidates(4), Doc("bad", "", "a weapon of war")]
    with pytest.raises(ConfigError, match=r"'q1'.*undecided=true"):
        kind("m", url=server.url, concurrency=1).score(listed(docs))
    kind("m", url=server.url).score(listed(docs[:4]))  # the endpoint answers others
    teacher = kind("m", url=server.url, concurrency=1, undecided=True)
    assert teacher.fingerprint != kind("m", url=server.url).fingerprint
    teacher.score(listed(docs[:4]))
    scores = teacher.score(listed(docs))
    assert np.isfinite(scores).all()
    if kind is LLMTeacher:
        assert scores[4] == 0.0
    assert "no answer, and count as undecided" in teacher.client._account.summary()


def test_an_endpoint_that_refuses_everything_is_not_undecided(server: Server) -> None:
    """A setting that an endpoint does not know: a store full of zeros."""
    server.answer = lambda _: refusal(400, "unknown field temperature")
    with pytest.raises(ConfigError, match="unknown field"):
        LLMTeacher("m", url=server.url, undecided=True).score(listed(candidates(3)))
