"""Answers of an endpoint, and log-odds from their most likely tokens."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrodistill.base.errors import ConfigError

Tokens = Sequence[tuple[str, float]]
"""The most likely tokens at one position, with their log-probabilities in nats."""

MARKS = " \t\r\n▁ĠĊ*_\"'`.,:;!()[]{}<>#"
"""Characters around a word within its token, spaces in the writing of tokenizers included."""

IMPOSSIBLE = -9999.0
"""Log-probability that chat completions report for a token that is too unlikely."""

LEAST_REST = 1e-6
"""Least probability of all unlisted tokens together: float32's accuracy."""


THOUGHTS = "<think>", "</think>"
"""Marks that some models write around their thoughts."""


class Failure(Exception):
    """No usable answer came, but one may come if the request is repeated.

    `wait` is the time to let pass before, in seconds (None: the client's own back-off). `sent`
    says that the endpoint has the question, and may have done the work.
    """

    def __init__(self, reason: str, *, wait: float | None = None, sent: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.sent = sent


class Malformed(Failure):
    """The endpoint answered, but not in the required form."""

    def __init__(self, answer: str, expected: str) -> None:
        super().__init__(f"expected {expected}, but the answer begins {answer[:100]!r}", wait=0.0)


class Reported(Exception):
    """The endpoint reports an error in the body of a response that says it went well.

    `code` is the HTTP status that it names, 0 if it names none.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as it is cached."""

    text: str
    tops: Sequence[Tokens] | None
    """The most likely tokens at each position of the answer; None if the endpoint gives none."""

    tokens_in: int | None
    """Tokens that the endpoint counted in the question; None if it does not count."""

    tokens_out: int | None
    """Tokens that the endpoint counted in the answer."""

    @property
    def conclusion(self) -> str:
        """The text without the thoughts that some models write before it."""
        return self.text.rpartition(THOUGHTS[1])[2].strip()

    def dump(self) -> str:
        """Return the answer as JSON."""
        return json.dumps([self.text, self.tops, self.tokens_in, self.tokens_out])

    @classmethod
    def load(cls, dumped: str) -> "Answer":
        """Read back what `dump` wrote."""
        return cls(*json.loads(dumped))


def parse_completion(body: str) -> Answer:
    """Return the answer in the body of a chat completion.

    Raises:
        Malformed: the body is not one.
        Reported: the body is an error.

    """
    try:
        reply = json.loads(body)
        if "choices" not in reply and reply.get("error"):
            raise _reported(reply["error"])
        choice = reply["choices"][0]
        text = choice["message"].get("content") or ""
        usage = reply.get("usage") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        tops = _tops(choice.get("logprobs"))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Malformed(body, "a chat completion") from None
    if not isinstance(text, str):
        raise Malformed(body, "a text")
    return Answer(text, tops, *(count if isinstance(count, int) else None for count in counts))


def _reported(error: Any) -> Reported:
    """Return what an error in a response's body says."""
    details = error if isinstance(error, dict) else {"message": error}
    code = details.get("code")
    message = str(details.get("message") or error)
    return Reported(message, code if isinstance(code, int) else 0)


def _tops(logprobs: Any) -> list[Tokens] | None:
    """Return the finite entries of `top_logprobs` at each position, None if there are none."""
    tops: list[Tokens] = [
        [
            (str(entry["token"]), float(entry["logprob"]))
            for entry in position.get("top_logprobs") or []
            if math.isfinite(entry["logprob"]) and entry["logprob"] > IMPOSSIBLE
        ]
        for position in (logprobs or {}).get("content") or []
    ]
    return tops if any(tops) else None


def log_odds(answer: Answer, first: str, second: str, *, cased: bool = False) -> float:
    """Return log p(first) - log p(second) at the position where the answer says either, in nats.

    Thoughts do not count. That position is the start, if the answer starts with one of the words
    alone; else the last one whose most likely token is one of them, if no other position has the
    other word; without any, the first that lists one of them. A word's probability is the sum
    over its tokens, ignoring the marks around them and, unless `cased`, their case. A word that
    is not listed there has at most the probability of the last listed token, and at most what is
    left beside the listed ones: the smaller is taken.

    Raises:
        ConfigError: the endpoint gives no log-probabilities.
        Malformed: the answer says neither word, or both, or breaks off within thoughts.

    """
    words = (first, second)
    if answer.tops is None and answer.text.strip():
        raise ConfigError(
            "the endpoint's answers carry no top_logprobs, and the score is made of them. Take "
            "another endpoint, the teacher llm with the option grades=true, or llm-listwise."
        )
    tops = _after_thoughts([top for top in answer.tops or () if top])
    bare = [[(_bare(token, cased=cased), value) for token, value in top] for top in tops]
    likeliest = [_likeliest(top) for top in bare]
    telling = [position for position, word in enumerate(likeliest) if word in words]
    if not telling:
        telling = [n for n, top in enumerate(bare) if any(token in words for token, _ in top)][:1]
    elif not _alone("".join(map(_likeliest, tops[telling[0] + 1 :]))) or any(
        likeliest[: telling[0]]
    ):
        if len({likeliest[position] for position in telling}) > 1:
            raise Malformed(answer.text, f"either {first} or {second}")
        telling = telling[-1:]
    if not telling:
        raise Malformed(answer.text, f"{first} or {second}")
    return _difference(bare[telling[0]], words)


def _difference(top: Tokens, words: tuple[str, str]) -> float:
    """Return the difference of two words' log-probabilities at one position."""
    unlisted = max(1.0 - math.fsum(math.exp(value) for _, value in top), LEAST_REST)
    unseen = min(math.log(unlisted), min(value for _, value in top))
    values = [
        math.log(math.fsum(chances)) if chances else unseen
        for chances in (
            [math.exp(value) for token, value in top if token == word] for word in words
        )
    ]
    return values[0] - values[1]


def _after_thoughts(tops: Sequence[Tokens]) -> Sequence[Tokens]:
    """Return the positions behind a model's thoughts; none if it is still thinking."""
    tokens = [_likeliest(top) for top in tops]
    text = "".join(tokens)
    opened, closed = (text.rfind(mark) for mark in THOUGHTS)
    if opened > closed:
        return []
    if closed < 0:
        return tops
    end, position = closed + len(THOUGHTS[1]), 0
    while end > 0:
        end -= len(tokens[position])
        position += 1
    return tops[position:]


def _likeliest(top: Tokens) -> str:
    """Return the most likely token of a position."""
    return max(top, key=lambda entry: entry[1])[0]


def _alone(text: str) -> bool:
    """Tell whether no sentence continues in the text after a word."""
    return re.match(r"[ ▁Ġ]*[^\W\d_]", text) is None


def _bare(token: str, *, cased: bool) -> str:
    word = token.strip(MARKS)
    return word if cased else word.lower()
