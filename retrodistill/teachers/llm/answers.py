"""What an endpoint answers, and what its most likely tokens tell."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrodistill.errors import ConfigError

Tokens = Sequence[tuple[str, float]]
"""The most likely tokens at one position, with their log-probabilities in nats."""

MARKS = " \t\r\n▁ĠĊ*_\"'`.,:;!()[]{}<>#"
"""What may stand around a word within its token, spaces in the writing of tokenizers included."""

IMPOSSIBLE = -9999.0
"""What the chat-completions form writes for a token that is too unlikely for a number."""

LEAST_REST = 1e-6
"""Probability that is always taken to be left beside the listed tokens: float32's accuracy."""


class Failure(Exception):
    """No usable answer came, but one may come if the endpoint is asked again.

    `wait` is the time to let pass before, in seconds (None: the client's own back-off).
    """

    def __init__(self, reason: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Malformed(Failure):
    """The endpoint answered, but not what it was asked for."""

    def __init__(self, answer: str, wanted: str) -> None:
        super().__init__(f"wanted {wanted}, but the answer begins {answer[:100]!r}", wait=0.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: what is kept of it."""

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
        return self.text.rpartition("</think>")[2].strip()

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps([self.text, self.tops, self.tokens_in, self.tokens_out])

    @classmethod
    def load(cls, kept: str) -> "Answer":
        """Read back what `dump` wrote."""
        return cls(*json.loads(kept))


def parse_completion(body: str) -> Answer:
    """Return the answer in the body of a chat completion.

    Raises:
        Malformed: the body is none.

    """
    try:
        reply = json.loads(body)
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


def log_odds(answer: Answer, first: str, second: str) -> float:
    """Return log p(first) - log p(second) at the position where the answer says either, in nats.

    That is the first position whose most likely token is one of the two words, or else the first
    that lists one of them. A word's probability is the sum over its tokens, whatever their case
    and the marks around them. A word that is not listed there has at most the probability of the
    last listed token, and at most what is left beside the listed ones: the smaller is taken.

    Raises:
        ConfigError: the endpoint gives no log-probabilities.
        Malformed: neither word is among the likely tokens anywhere.

    """
    words = (first, second)
    if answer.tops is None and answer.text.strip():
        raise ConfigError(
            "the endpoint's answers carry no top_logprobs, and the score is made of them. Take "
            "another endpoint, the teacher llm with the option grades=true, or llm-listwise."
        )
    tops = [[(_bare(token), value) for token, value in top] for top in answer.tops or () if top]
    telling = [top for top in tops if max(top, key=lambda entry: entry[1])[0] in words]
    telling = telling or [top for top in tops if any(token in words for token, _ in top)]
    if not telling:
        raise Malformed(answer.text, f"{first} or {second}")
    top = telling[0]
    rest = max(1.0 - math.fsum(math.exp(value) for _, value in top), LEAST_REST)
    unseen = min(math.log(rest), min(value for _, value in top))
    values = [
        math.log(math.fsum(found)) if found else unseen
        for found in ([math.exp(value) for token, value in top if token == word] for word in words)
    ]
    return values[0] - values[1]


def _bare(token: str) -> str:
    return token.strip(MARKS).lower()
