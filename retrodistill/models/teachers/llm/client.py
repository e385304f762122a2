"""Requests to an OpenAI-compatible endpoint: cached, retried, and paid for once."""

import json
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from retrodistill.base.endpoints import (
    LONGEST_WAIT,
    Pace,
    Stopped,
    api_key,
    asked_wait,
    check_address,
    without_key,
)
from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.base.logging import log
from retrodistill.base.manifest import cache_folder, digest
from retrodistill.base.progress import bar
from retrodistill.models.teachers.llm.answers import (
    Answer,
    Failure,
    Malformed,
    Reported,
    parse_completion,
)
from retrodistill.models.teachers.llm.cache import AnswerCache
from retrodistill.models.teachers.llm.limits import Account
from retrodistill.models.teachers.llm.settings import Settings

if TYPE_CHECKING:
    from openai import OpenAI

Item = TypeVar("Item")
Result = TypeVar("Result")

FIRST_WAIT = 0.5
"""Back-off before the second try, in seconds; it doubles from try to try."""

KEY = "OPENAI_API_KEY"
"""Environment variable of the key."""

BYTES_PER_TOKEN = 3
"""For estimates of cost, before an endpoint has counted."""

AGAIN = (408, 409, 429)
"""HTTP errors, beside those of 500 and more, after which a question may be asked again."""

ONE_QUESTION = (400, 413, 422)
"""HTTP errors that may be about one question: its content, or its length."""

NOT_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "LocalProtocolError",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
    }
)
"""Errors of httpx (or httpx2) after which the endpoint cannot have read the question."""


class _OneQuestion(Exception):
    """An error about one question: `reason` is the message without its advice."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason} {advice}")
        self.reason = reason


class Unanswered(_OneQuestion, ConfigError):
    """The endpoint refuses one question, but may answer others."""


class Unusable(_OneQuestion, DataError):
    """No answer to one question is usable, however often it is asked."""


class NoAnswer(_OneQuestion, ConfigError):
    """No answer to one question comes, however often it is asked: a timeout, or an overload."""


class Client:
    """Asks one model in several threads; answers are cached, and a cached one costs nothing.

    A model is identified by its name alone: to serve another model under the same name, delete
    the cached answers.

    Raises:
        MissingExtra: the package openai is not installed.
        ConfigError: the address is malformed or holds a secret, the key is missing or cannot be
            sent, or the cache cannot be used.

    """

    def __init__(self, model: str, settings: Settings, *, top: int) -> None:
        self._key = api_key(KEY)
        self._endpoint = _connect(settings.url, self._key, settings.timeout)
        self._model = model
        self._settings = settings
        self._top = top
        self._limit_name = "max_tokens"
        self._cache = AnswerCache(cache_folder("llm") / "answers.sqlite")
        self._pace = Pace(settings.requests_per_minute)
        self._account = Account(settings.max_cost, settings.price_in, settings.price_out)
        self._jitter = random.Random(os.getpid())  # so that processes do not retry all at once

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return `work(item)` of each item, in order, done by several threads.

        The first error ends it: requests under way are still awaited and cached, no other is
        sent. Logs the cost at the end.
        """

        def guarded(item: Item) -> Result:
            try:
                return work(item)
            except BaseException:
                self._pace.stop()
                raise

        asked = self._account.asked
        self._pace.resume()
        try:
            with (
                ThreadPoolExecutor(self._settings.concurrency) as pool,
                bar(f"asking {self._model}", len(items)) as advance,
            ):
                futures = [pool.submit(guarded, item) for item in items]
                try:
                    for _ in as_completed(futures):
                        advance(1)
                except BaseException:  # Ctrl-C
                    self._pace.stop()
                    raise
        finally:
            if self._account.asked > asked:
                log.info(f"{self._model}: {self._account.summary()}")
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise min(errors, key=lambda error: isinstance(error, Stopped))
        return [future.result() for future in futures]

    def ask(
        self,
        prompt: str,
        read: Callable[[Answer], Result],
        *,
        about: str,
        undecided: Result | None = None,
    ) -> Result:
        """Return the result of `read` on the model's answer.

        Only an answer that `read` accepts is cached; after `Malformed` the model is asked again.
        With the setting `undecided`, a question without an answer gets `undecided`,
        if the endpoint has answered others.

        Raises:
            ConfigError: the endpoint refuses the request or cannot be reached, or it would pass
                the limit on cost.
            DataError: no answer was usable.

        """
        try:
            return self._asked(prompt, read, about)
        except (Unanswered, Unusable):
            if not self._settings.undecided or undecided is None or not self._account.has_answers:
                raise
            self._account.undecided()
            return undecided

    def _asked(self, prompt: str, read: Callable[[Answer], Result], about: str) -> Result:
        body = self._body(prompt)
        key = digest(json.dumps(body, sort_keys=True))
        cached = self._cache.get(key)
        if cached is not None:
            with suppress(Malformed):
                value = read(cached)
                self._account.hit()
                return value
        failures = 0
        while True:
            try:
                answer = self._answer(body, about)
                value = read(answer)
            except Failure as failure:
                failures += 1
                if failures > self._settings.retries or (failure.wait or 0.0) > LONGEST_WAIT:
                    raise self._given_up(failure, failures, about) from None
                self._rest(failure, failures)
            else:
                self._cache.put(key, answer)
                return value

    def _body(self, prompt: str) -> dict[str, Any]:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self._settings.temperature,
            "max_tokens": self._settings.answer_tokens,
        }
        return body | ({"logprobs": True, "top_logprobs": self._top} if self._top else {})

    def _answer(self, body: dict[str, Any], about: str) -> Answer:
        """Return an answer of the endpoint, and count its cost."""
        size = len(body["messages"][0]["content"].encode()) // BYTES_PER_TOKEN + 1
        longest = self._settings.answer_tokens
        self._pace.wait()
        with self._account.reserved(size, longest) as pay:
            try:
                answer = parse_completion(self._post(body, about))
            except Malformed:
                pay(size, longest)
                raise
            except Failure as failure:
                if failure.sent:  # the endpoint may still compute and bill it
                    pay(size, longest, answered=False)
                raise
            except Reported as error:
                raise self._refused(self._without_key(str(error)), error.code, about) from None
            counts = answer.tokens_in, answer.tokens_out
            pay(
                size if counts[0] is None else counts[0],
                longest if counts[1] is None else counts[1],
            )
        return answer

    def _post(self, body: dict[str, Any], about: str) -> str:
        """Return the body of the endpoint's response."""
        from openai import APIConnectionError, APIStatusError, Omit

        limit = self._limit_name
        sent = {limit if name == "max_tokens" else name: value for name, value in body.items()}
        headers = {} if self._key else {"Authorization": Omit()}
        try:
            completions = self._endpoint.chat.completions.with_raw_response
            text = completions.create(**sent, extra_headers=headers).http_response.text
            return self._without_key(text)
        except APIConnectionError as error:
            reason = self._without_key(str(error.__cause__ or error)) or "it hung up"
            causes = {kind.__name__ for kind in type(error.__cause__).__mro__}
            reason = f"no answer from {self._endpoint.base_url}: {reason}"
            raise Failure(reason, sent=NOT_SENT.isdisjoint(causes)) from None
        except APIStatusError as error:
            if limit == "max_tokens" and "max_completion_tokens" in str(error):
                self._limit_name = "max_completion_tokens"  # OpenAI's newer models require it
                return self._post(body, about)
            wait = asked_wait(error.response.headers)
            broke = "insufficient_quota" in (error.type, error.code)
            message = self._without_key(error.message)
            raise self._refused(message, error.status_code, about, wait=wait, final=broke) from None

    def _refused(
        self,
        message: str,
        status: int,
        about: str,
        *,
        wait: float | None = None,
        final: bool = False,
    ) -> Exception:
        """Return the exception for an error: ask again, or give up. A status of 0 is unknown."""
        reason = " ".join(message.split())[:500]
        if not final and (status in AGAIN or status >= 500 or not status):
            asked = f" (it asks for a pause of {wait:,.0f} s)" if wait else ""
            return Failure(reason + asked, wait=wait)
        hint = {
            401: " Set OPENAI_API_KEY.",
            404: " Are the model's name and the option url right?",
        }.get(status, "")
        text = f"{self._endpoint.base_url} refuses the question about {about}: {reason}."
        if "logprobs" in reason:
            hint = " Lower the option top_logprobs, or take llm with grades=true or llm-listwise."
        elif status in ONE_QUESTION:
            return Unanswered(
                text,
                "If it is about these texts alone, leave the document out of the candidates, or "
                "set the option undecided=true to continue without an answer. All earlier answers "
                "are kept.",
            )
        return ConfigError(f"{text}{hint} All earlier answers are kept.")

    def _given_up(self, failure: Failure, tries: int, about: str) -> Exception:
        if isinstance(failure, Malformed):
            return Unusable(
                f"{self._model} gave no usable answer about {about} in {tries} tries: {failure}.",
                "Word the instruction differently, raise answer_tokens or retries, skip the "
                "candidate, or set undecided=true. All earlier answers are kept.",
            )
        return NoAnswer(
            f"{self._model} gave no answer about {about} in {tries} tries: {failure}.",
            "Is the endpoint up? If it is overloaded, lower concurrency or set "
            "requests_per_minute. All earlier answers are kept: run it again.",
        )

    def _rest(self, failure: Failure, failures: int) -> None:
        """Wait before the next try: as long as the endpoint requested, else longer each time."""
        if failure.wait is not None:
            self._pace.hold(failure.wait)
        else:
            backoff = min(FIRST_WAIT * 2.0 ** (failures - 1), 60.0)
            self._pace.sleep(backoff * self._jitter.uniform(0.5, 1.0))

    def _without_key(self, text: str) -> str:
        """Return a message of the endpoint with the key removed, should it repeat the key."""
        return without_key(text, self._key)


def _connect(url: str, key: str, timeout: float) -> "OpenAI":
    try:
        from openai import OpenAI
    except ImportError as error:
        raise MissingExtra(
            "teachers behind an endpoint need the package openai: pip install 'retrodistill[llm]'"
        ) from error
    url = url or os.environ.get("OPENAI_BASE_URL", "")
    if url:
        check_address(url, name="option url", variable=KEY, example="http://localhost:8000/v1")
    if not url and not key:
        raise ConfigError(
            "no endpoint to ask: set OPENAI_API_KEY for OpenAI's own, or give the option url "
            "(or OPENAI_BASE_URL) of another, as http://localhost:8000/v1."
        )
    return OpenAI(api_key=key or "none", base_url=url or None, timeout=timeout, max_retries=0)
