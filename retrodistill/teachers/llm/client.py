"""Questions to an OpenAI-compatible endpoint: asked once, whatever happens meanwhile."""

import json
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from retrodistill.errors import ConfigError, DataError, MissingExtra
from retrodistill.manifest import cache_folder, digest
from retrodistill.progress import bar, say
from retrodistill.teachers.llm.answers import Answer, Failure, Malformed, parse_completion
from retrodistill.teachers.llm.cache import AnswerCache
from retrodistill.teachers.llm.limits import Account, Pace, Stopped, asked_wait
from retrodistill.teachers.llm.settings import Settings

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

Item = TypeVar("Item")
Result = TypeVar("Result")

FIRST_WAIT = 0.5
"""Back-off before the second try, in seconds; it doubles from try to try."""

SHORTEST_KEY = 8
"""Characters of a key that is a secret; local servers are given shorter words."""

LONGEST_WAIT = 600.0
"""An endpoint that asks for a longer pause than these seconds is given up."""

BYTES_PER_TOKEN = 3
"""For estimates of cost, before an endpoint has counted."""


class Client:
    """Asks one model, in several threads; answers are kept, and a kept one costs nothing.

    A model is known by its name alone: whoever serves another model under the same name, there
    or elsewhere, must delete the kept answers.

    Raises:
        MissingExtra: the package openai is not installed.
        ConfigError: the address is none, the key is missing, or the cache cannot be used.

    """

    def __init__(self, model: str, settings: Settings, *, top: int) -> None:
        self._key = os.environ.get("OPENAI_API_KEY", "")
        self._endpoint = _connect(settings.url, self._key, settings.timeout)
        self._model = model
        self._settings = settings
        self._top = top
        self._limit_name = "max_tokens"
        self._cache = AnswerCache(cache_folder("llm") / "answers.sqlite")
        self._pace = Pace(settings.requests_per_minute)
        self._account = Account(settings.max_cost, settings.price_in, settings.price_out)
        self._jitter = random.Random(os.getpid())  # processes shall not come back all at once

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return `work(item)` of each item, in order, done by several threads.

        The first error ends it: what is on its way is still awaited and kept, nothing else is
        asked. What was paid is said at the end.
        """

        def guarded(item: Item) -> Result:
            try:
                return work(item)
            except BaseException:
                self._pace.stop()
                raise

        paid = self._account.answers
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
            if self._account.answers > paid:
                say(f"{self._model}: {self._account.summary()}")
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise min(errors, key=lambda error: isinstance(error, Stopped))
        return [future.result() for future in futures]

    def ask(self, prompt: str, read: Callable[[Answer], Result], *, about: str) -> Result:
        """Return what `read` makes of the model's answer.

        Only an answer that `read` accepts is kept; after `Malformed` the model is asked again.

        Raises:
            ConfigError: the endpoint refuses the request or cannot be reached, or it would pass
                the limit on cost.
            DataError: no answer was usable.

        """
        body = self._body(prompt)
        key = digest(json.dumps(body, sort_keys=True))
        kept = self._cache.get(key)
        if kept is not None:
            with suppress(Malformed):
                value = read(kept)
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
        """Return an answer of the endpoint, and pay for it."""
        size = len(body["messages"][0]["content"].encode()) // BYTES_PER_TOKEN + 1
        longest = self._settings.answer_tokens
        self._pace.wait()
        with self._account.reserved(size, longest) as pay:
            text = self._post(body, about)
            try:
                answer = parse_completion(text)
            except Malformed:
                pay(size, longest)
                raise
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
            raise Failure(f"no answer from {self._endpoint.base_url}: {reason}") from None
        except APIStatusError as error:
            if limit == "max_tokens" and "max_completion_tokens" in str(error):
                self._limit_name = "max_completion_tokens"  # OpenAI's newer models want it so
                return self._post(body, about)
            raise self._refused(error, about) from None

    def _refused(self, error: "APIStatusError", about: str) -> Exception:
        """Return what an HTTP error means: ask again, or give up."""
        said = " ".join(self._without_key(error.message).split())[:500]
        broke = "insufficient_quota" in (error.type, error.code)
        if error.status_code in (408, 409, 429) or error.status_code >= 500:
            if not broke:
                wait = asked_wait(error.response.headers)
                asked = f" (it asks for a pause of {wait:,.0f} s)" if wait else ""
                return Failure(said + asked, wait=wait)
        hint = {
            401: " Set OPENAI_API_KEY.",
            404: " Are the model's name and the option url right?",
        }.get(error.status_code, "")
        if "logprobs" in said:
            hint = " Lower the option top_logprobs, or take llm with grades=true or llm-listwise."
        return ConfigError(
            f"{self._endpoint.base_url} refuses the question about {about}: {said}.{hint} "
            "All earlier answers are kept."
        )

    def _given_up(self, failure: Failure, tries: int, about: str) -> Exception:
        if isinstance(failure, Malformed):
            return DataError(
                f"{self._model} gave no usable answer about {about} in {tries} tries: {failure}. "
                "Word the instruction differently, raise answer_tokens or retries, or leave the "
                "candidate out. All earlier answers are kept."
            )
        return ConfigError(
            f"{self._model} gave no answer about {about} in {tries} tries: {failure}. Is the "
            "endpoint up? If it has too much to do, lower concurrency or set "
            "requests_per_minute. All earlier answers are kept: run it again."
        )

    def _rest(self, failure: Failure, failures: int) -> None:
        """Wait before the next try: as long as was asked for, else longer each time."""
        if failure.wait is not None:
            self._pace.hold(failure.wait)
        else:
            backoff = min(FIRST_WAIT * 2.0 ** (failures - 1), 60.0)
            self._pace.sleep(backoff * self._jitter.uniform(0.5, 1.0))

    def _without_key(self, text: str) -> str:
        """Return what the endpoint said, should it repeat the key; `none` and the like are none."""
        return text.replace(self._key, "[key]") if len(self._key) >= SHORTEST_KEY else text


def _connect(url: str, key: str, timeout: float) -> "OpenAI":
    try:
        from openai import OpenAI
    except ImportError as error:
        raise MissingExtra(
            "teachers behind an endpoint need the package openai: pip install 'retrodistill[llm]'"
        ) from error
    url = url or os.environ.get("OPENAI_BASE_URL", "")
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ConfigError(f"option url must be as http://localhost:8000/v1, but it is {url!r}.")
    if "@" in parts.netloc:
        raise ConfigError(
            f"option url holds a name or password for {parts.hostname}, and would be written to "
            "manifests. Set OPENAI_API_KEY instead."
        )
    if not url and not key:
        raise ConfigError(
            "no endpoint to ask: set OPENAI_API_KEY for OpenAI's own, or give the option url "
            "(or OPENAI_BASE_URL) of another, as http://localhost:8000/v1."
        )
    return OpenAI(api_key=key or "none", base_url=url or None, timeout=timeout, max_retries=0)
