"""Batches of many requests: nobody gets another's result, waits forever, or pays for another."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrodistill.stages.serving.batching import (
    Admission,
    Batcher,
    InputError,
    OverloadedError,
    WorkerDeadError,
)

SOON = 10.0
"""Seconds within which every future of these tests is done."""


class FatalError(BaseException):
    """What ends a thread, as a signal or an exit does."""


class Upper:
    """An engine that writes texts in capitals, and keeps what it was given.

    A text with `bad` raises, one with `nan` has no result, `unreadable` cannot be prepared, and
    `fatal` ends the thread. `gate` holds every batch back while it is closed.
    """

    def __init__(self, budget: int = 64) -> None:
        self.budget = budget
        self.batches: list[tuple[Any, list[str]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.seconds = 0.0

    def running(self) -> AbstractContextManager[None]:
        return nullcontext()

    def prepare(self, key: Any, inputs: Sequence[str]) -> list[tuple[str, int]]:
        if any("lethal" in text for text in inputs):
            raise FatalError("the tokenizer's thread ends")
        if any("unreadable" in text for text in inputs):
            raise ValueError("this cannot be tokenised")
        return [(text, max(1, len(text))) for text in inputs]

    def run(self, key: Any, batch: Sequence[str]) -> list[Any]:
        self.entered.set()
        self.gate.wait(SOON)
        time.sleep(self.seconds * len(batch))
        self.batches.append((key, list(batch)))
        if any("fatal" in text for text in batch):
            raise FatalError("the thread ends")
        if any("bad" in text for text in batch):
            raise ValueError("one of these is bad")
        return [
            ArithmeticError("not a number") if "nan" in text else (key, text.upper())
            for text in batch
        ]

    @property
    def ran(self) -> list[str]:
        return [text for _, batch in self.batches for text in batch]


@contextmanager
def batching(
    engine: Upper, *, limit: int = 10_000, **options: Any
) -> Iterator[tuple[Batcher[str], Admission]]:
    """Run a batcher in the block; at its end nothing is held, and the threads are gone."""
    admission = Admission(limit)
    batcher = Batcher("upper", engine, admission=admission, **options)
    try:
        yield batcher, admission
    finally:
        engine.gate.set()
        batcher.close()
    assert admission.held == 0
    assert not any(thread.is_alive() for thread in batcher._threads)


def results(future: "Future[Any]") -> list[Any]:
    return future.result(SOON).results


def held_back(engine: Upper, batcher: Batcher[str]) -> "Future[Any]":
    """Let the engine be busy with one input until its gate opens."""
    engine.gate.clear()
    future = batcher.submit(["first"])
    assert engine.entered.wait(SOON)
    return future


def test_each_of_many_threads_gets_its_own_results() -> None:
    """Results of a common batch that go to the wrong request: silent, and only under load."""
    engine = Upper()

    def ask(thread: int) -> bool:
        right = []
        for turn in range(20):
            texts = [f"{thread} {turn} {word}" * (1 + word % 3) for word in range(1 + turn % 7)]
            key = "query" if (thread + turn) % 2 else "document"
            answer = results(batcher.submit(texts, key))
            right.append(answer == [(key, text.upper()) for text in texts])
        return all(right)

    with batching(engine) as (batcher, _), ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(32)))
    assert len(engine.batches) < len(engine.ran)  # they did share batches


def test_a_batch_keeps_to_the_budget_and_to_one_key() -> None:
    """Too large a batch runs out of memory; a mixed one reads queries by the documents' prompt."""
    engine = Upper(budget=40)
    seen: list[Any] = []
    with batching(engine, observe=seen.append) as (batcher, _):
        first = held_back(engine, batcher)
        futures = [
            batcher.submit(["x" * (1 + (7 * row) % 23) for row in range(30)], key)
            for key in ("query", "document", "query")
        ]
        engine.gate.set()
        wait([first, *futures], SOON)
    for _, batch in engine.batches:
        assert len(batch) * max(map(len, batch)) <= 40
    assert max(len(batch) for _, batch in engine.batches) > 4  # similar lengths are together
    assert all(
        key == at
        for future, at in zip(futures, ("query", "document", "query"), strict=True)
        for key, _ in results(future)
    )
    assert sum(ran.inputs for ran in seen) == 91
    assert sum(ran.size for ran in seen) == sum(map(len, engine.ran))


def test_an_input_beyond_the_budget_runs_alone() -> None:
    """A text longer than a batch that waits forever for a batch that holds it."""
    engine = Upper(budget=10)
    with batching(engine) as (batcher, _):
        assert results(batcher.submit(["a", "x" * 50, "b"]))[1] == (None, "X" * 50)
    assert ["x" * 50] in [batch for _, batch in engine.batches]


def test_a_bad_input_fails_alone() -> None:
    """One request's bad text that fails everybody's who shared its batch."""
    engine = Upper()
    with batching(engine) as (batcher, _):
        first = held_back(engine, batcher)
        good, bad, other = (batcher.submit(texts) for texts in (["a"], ["b", "bad"], ["c", "d"]))
        engine.gate.set()
        assert results(good) == [(None, "A")]
        assert results(other) == [(None, "C"), (None, "D")]
        with pytest.raises(InputError, match="one of these is bad") as caught:
            bad.result(SOON)
        first.result(SOON)
    assert caught.value.position == 1
    assert sorted(engine.batches[1][1]) == ["a", "b", "bad", "c", "d"]


def test_an_input_without_a_result_says_which() -> None:
    """NaN as a vector, or an error that leaves the user to find which of 2,048 texts it was."""
    with batching(Upper()) as (batcher, _):
        neighbour = batcher.submit(["fine"])
        with pytest.raises(InputError, match="input 2: not a number") as caught:
            batcher.submit(["a", "b", "nan", "d"]).result(SOON)
        assert results(neighbour) == [(None, "FINE")]
    assert caught.value.position == 2
    assert isinstance(caught.value.error, ArithmeticError)


def test_a_text_that_cannot_be_prepared_fails_its_request_alone() -> None:
    """A tokenizer that refuses a text, and with it all that were tokenised in the same call."""
    engine = Upper()
    with batching(engine) as (batcher, _):
        held_back(engine, batcher)
        futures = [batcher.submit([text]) for text in ("a", "unreadable", "b")]
        engine.gate.set()
        assert results(futures[0]) == [(None, "A")]
        assert results(futures[2]) == [(None, "B")]
        with pytest.raises(ValueError, match="cannot be tokenised"):
            futures[1].result(SOON)
        assert batcher.alive


def test_a_cancelled_job_never_reaches_the_engine() -> None:
    """Work for clients that are gone, which holds up those who still wait."""
    engine = Upper()
    with batching(engine) as (batcher, admission):
        held_back(engine, batcher)
        gone, stays = batcher.submit(["gone"] * 5), batcher.submit(["stays"])
        assert admission.held == 7
        assert gone.cancel()
        assert admission.held == 2
        engine.gate.set()
        assert results(stays) == [(None, "STAYS")]
        with pytest.raises(CancelledError):
            gone.result(SOON)
    assert "gone" not in engine.ran


def test_a_job_that_is_cancelled_while_it_runs_hurts_nobody() -> None:
    """Setting the result of a cancelled future raises, which would end the thread."""
    engine = Upper()
    with batching(engine) as (batcher, _):
        running = held_back(engine, batcher)
        assert running.cancel()
        engine.gate.set()
        assert results(batcher.submit(["next"])) == [(None, "NEXT")]
        assert batcher.alive


def test_a_full_queue_refuses_at_once_and_says_when_to_return() -> None:
    """A queue without end: memory grows, and everybody's answer comes too late."""
    engine = Upper()
    with batching(engine, limit=4) as (batcher, admission):
        held_back(engine, batcher)
        waiting = batcher.submit(["a", "b", "c"])
        with pytest.raises(OverloadedError) as caught:
            batcher.submit(["d"])
        assert 1 <= caught.value.retry_after <= 30
        assert admission.held == 4
        urgent = batcher.submit(["probe"], urgent=True)
        engine.gate.set()
        assert results(urgent) == [(None, "PROBE")]
        waiting.result(SOON)
        assert results(batcher.submit(["d"])) == [(None, "D")]


def test_a_request_larger_than_the_queue_is_answered_when_nothing_else_is_there() -> None:
    """A client that is told to try again later, forever."""
    with batching(Upper(), limit=4) as (batcher, _):
        assert len(results(batcher.submit(["a"] * 9))) == 9


def test_what_is_urgent_is_run_first() -> None:
    """A busy server that looks dead to whoever asks whether it is ready."""
    engine = Upper(budget=5)
    with batching(engine) as (batcher, _):
        held_back(engine, batcher)
        futures = [batcher.submit(["later"]) for _ in range(5)]
        futures.append(batcher.submit(["probe"], urgent=True))
        time.sleep(0.05)  # the other thread prepares it meanwhile
        engine.gate.set()
        wait(futures, SOON)
    assert engine.ran.index("probe") == 1


@pytest.mark.parametrize("word", ["fatal", "lethal"])
def test_a_dead_thread_fails_all_that_wait(word: str) -> None:
    """Requests that wait for a thread that has ended: a server that hangs and says nothing."""
    engine = Upper(budget=8)
    with batching(engine) as (batcher, _):
        held_back(engine, batcher)
        futures = [batcher.submit([f"text {row}"] * 3, key=row) for row in range(4)]
        futures += [batcher.submit([word], key="x"), batcher.submit(["behind"], key="y")]
        engine.gate.set()
        done, pending = wait(futures, SOON)
        assert not pending
        failures = [future.exception() for future in done]
        assert any(isinstance(failure, WorkerDeadError) for failure in failures)
        assert not batcher.alive
        with pytest.raises(WorkerDeadError, match="upper has stopped"):
            batcher.submit(["late"]).result(SOON)


def test_an_engine_that_returns_too_little_fails_what_it_was_given() -> None:
    """Two results for three inputs: the third request would wait until its deadline."""

    class Short(Upper):
        def run(self, key: Any, batch: Sequence[str]) -> list[Any]:
            return super().run(key, batch)[:-1]

    with batching(Short()) as (batcher, _):
        with pytest.raises(WorkerDeadError):
            batcher.submit(["a", "b", "c"]).result(SOON)
        assert not batcher.alive


def test_an_engine_that_prepares_too_little_fails_what_it_was_given() -> None:
    """As above, before the batch."""

    class Short(Upper):
        def prepare(self, key: Any, inputs: Sequence[str]) -> list[tuple[str, int]]:
            return super().prepare(key, inputs)[:-1]

    with batching(Short()) as (batcher, _), pytest.raises(WorkerDeadError):
        batcher.submit(["a", "b", "c"]).result(SOON)


def test_a_large_job_does_not_hold_up_a_single_query() -> None:
    """First come, first served: a query that waits for a thousand documents before it."""
    engine = Upper(budget=8)
    engine.seconds = 0.002
    with batching(engine) as (batcher, _):
        for _ in range(5):
            results(batcher.submit(["warm"] * 2))  # the pace is measured
        large = batcher.submit(["document"] * 400)
        time.sleep(0.05)
        small = batcher.submit(["query"])
        assert results(small) == [(None, "QUERY")]
        assert not large.done()
        assert engine.ran.index("query") < 100
        assert results(large) == [(None, "DOCUMENT")] * 400


def test_close_finishes_what_is_queued() -> None:
    """A restart that loses the requests it had accepted."""
    engine = Upper(budget=8)
    with batching(engine) as (batcher, _):
        held_back(engine, batcher)
        futures = [batcher.submit([f"text {row}"]) for row in range(20)]
        closing = threading.Thread(target=batcher.close)
        closing.start()
        engine.gate.set()
        closing.join(SOON)
        assert [results(future) for future in futures] == [
            [(None, f"TEXT {row}")] for row in range(20)
        ]
        with pytest.raises(WorkerDeadError, match="closed"):
            batcher.submit(["late"]).result(SOON)


def test_no_inputs_are_no_work() -> None:
    """An empty job that nobody ever completes."""
    with batching(Upper()) as (batcher, _):
        assert results(batcher.submit([])) == []


@given(
    jobs=st.lists(
        st.tuples(
            st.lists(st.sampled_from(["a", "bb", "bad", "nan", "unreadable", "x" * 9]), max_size=6),
            st.sampled_from(["query", "document"]),
            st.booleans(),
            st.booleans(),
        ),
        max_size=12,
    ),
    limit=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_whatever_comes_everybody_is_answered_and_the_queue_is_empty_again(
    jobs: list[tuple[list[str], str, bool, bool]], limit: int
) -> None:
    """A count that leaks by each failed or cancelled input: after a week all is refused."""
    engine = Upper(budget=12)
    with batching(engine, limit=limit) as (batcher, admission):
        kept: list[tuple[Future[Any], list[str], str]] = []
        for texts, key, cancelled, urgent in jobs:
            try:
                future = batcher.submit(texts, key, urgent=urgent)
            except OverloadedError:
                continue
            if cancelled and future.cancel():
                continue
            kept.append((future, texts, key))
        for future, texts, key in kept:
            if any(word in texts for word in ("bad", "nan", "unreadable")):
                assert isinstance(future.exception(SOON), (InputError, ValueError))
            else:
                assert results(future) == [(key, text.upper()) for text in texts]
        eventually(lambda: admission.held == 0)
        assert batcher.alive


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds: callbacks of a future come after its result."""
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)
