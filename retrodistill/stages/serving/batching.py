"""Batches of what many requests ask for: one model, one thread, a budget of tokens.

A request submits its inputs as a job. One thread prepares what is waiting (it tokenises the texts
of all jobs in one call), another runs batches, so that the model never waits for a tokeniser. What
is due first is run first, and the rest of its batch is of similar length. The inputs of a large
job are due one after the other, at the speed that was measured, so that a single query is not
behind all of a thousand documents that came before it.
"""

import threading
import time
from bisect import insort
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

Input = TypeVar("Input", contravariant=True)

AT_ONCE = 1024
"""Inputs that are prepared in one call, at most; a job is not divided."""

WINDOW = 512
"""Inputs, in the order in which they are due, among which a batch finds similar lengths."""

LONGEST_WAIT = 30.0
"""Seconds that a client is asked to wait at most before it tries again."""


class OverloadedError(Exception):
    """The queue is full; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full: try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class WorkerDeadError(Exception):
    """The thread that should run the batches has ended."""


class InputError(Exception):
    """What went wrong with one input of a job."""

    def __init__(self, position: int, error: BaseException) -> None:
        super().__init__(f"input {position}: {error}")
        self.position = position
        self.error = error


class Engine(Protocol[Input]):
    """What a batcher drives: a model, or an index."""

    budget: int
    """Size of a batch: its inputs times its largest size."""

    def running(self) -> AbstractContextManager[None]:
        """Return what the thread that calls `run` enters before."""
        ...

    def prepare(self, key: Any, inputs: Sequence[Input]) -> Sequence[tuple[Any, int]]:
        """Return each input as `run` takes it, and its size, in tokens."""
        ...

    def run(self, key: Any, batch: Sequence[Any]) -> Sequence[Any]:
        """Return the result of each prepared input of one key; an exception where it has none."""
        ...


class Admission:
    """The one queue of a server, counted in texts: what does not fit is refused at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._lock = threading.Lock()
        self._rate = 0.0
        self._counted, self._since = 0, time.monotonic()

    def enter(self, count: int, *, urgent: bool = False) -> None:
        """Let inputs in, or raise OverloadedError; urgent ones always fit.

        So does whatever comes first: a request of more than the limit could never be answered.
        """
        with self._lock:
            if not urgent and self.held and self.held + count > self.limit:
                raise OverloadedError(self._retry_after())
            self.held += count

    def leave(self, count: int) -> None:
        """Let inputs out."""
        with self._lock:
            self.held -= count
            self._counted += count
            now = time.monotonic()
            if now - self._since >= 1:
                rate = self._counted / (now - self._since)
                self._rate = rate if not self._rate else 0.5 * (self._rate + rate)
                self._counted, self._since = 0, now

    def _retry_after(self) -> float:
        """Return the seconds after which half of the queue will be gone."""
        seconds = self.held / 2 / self._rate if self._rate else 1.0
        return float(min(LONGEST_WAIT, max(1.0, round(seconds))))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of a job, in the order of its inputs, and their size, in tokens."""

    results: list[Any]
    size: int


@dataclass(eq=False, slots=True)
class _Job:
    """The inputs of a request, and what is known of them so far."""

    key: Hashable
    inputs: Sequence[Any]
    future: "Future[Outcome]"
    arrived: float
    """Monotonic seconds; 0 is due first."""

    results: list[Any]
    missing: int
    size: int = 0

    def finish(self, position: int, result: Any) -> None:
        """Take a result; the last one completes the job, and an exception fails it."""
        with suppress(InvalidStateError):  # cancelled, or failed already
            if isinstance(result, BaseException):
                self.future.set_exception(InputError(position, result))
                return
            self.results[position] = result
            self.missing -= 1
            if not self.missing:
                self.future.set_result(Outcome(self.results, self.size))

    def fail(self, error: BaseException) -> None:
        """Fail as a whole."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(eq=False, slots=True)
class _Item:
    """A prepared input."""

    job: _Job
    position: int
    prepared: Any
    size: int
    due: float


@dataclass(slots=True)
class _Ready:
    """Prepared inputs of each key, in the order in which they are due."""

    by_key: dict[Hashable, list[_Item]] = field(default_factory=dict)
    count: int = 0

    def put(self, items: Sequence[_Item]) -> None:
        for item in items:
            insort(self.by_key.setdefault(item.job.key, []), item, key=lambda item: item.due)
        self.count += len(items)

    def first(self) -> _Item:
        """Return the input that is due first."""
        return min((items[0] for items in self.by_key.values()), key=lambda item: item.due)

    def take(self, budget: int) -> list[_Item]:
        """Take out the input that is due first, with others of its key and of similar length."""
        first = self.first()
        queue = self.by_key[first.job.key]
        near = sorted(queue[:WINDOW], key=lambda item: abs(item.size - first.size))
        batch: list[_Item] = []
        longest = 0
        for item in near:
            longest = max(longest, item.size)
            if batch and longest * (len(batch) + 1) > budget:
                break
            batch.append(item)
        taken = set(map(id, batch))
        remaining = [item for item in queue[:WINDOW] if id(item) not in taken] + queue[WINDOW:]
        if remaining:
            self.by_key[first.job.key] = remaining
        else:
            del self.by_key[first.job.key]
        self.count -= len(batch)
        return batch


@dataclass(frozen=True, slots=True)
class Ran:
    """A batch that was run, for metrics."""

    inputs: int
    size: int
    seconds: float


class Batcher(Generic[Input]):
    """Runs the inputs of many jobs in common batches of one engine.

    A batch is not held back for more to come, but for up to `wait` seconds for what has arrived
    and is being prepared. A batch that raises is run again input by input, so that only the one at
    fault fails. Cancelling the future of a job takes its inputs out of the queue.
    """

    def __init__(
        self,
        name: str,
        engine: Engine[Input],
        *,
        admission: Admission,
        wait: float = 0.002,
        observe: Callable[[Ran], None] | None = None,
    ) -> None:
        self.name = name
        self._engine = engine
        self._admission = admission
        self._wait = wait
        self._observe = observe
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._prepared = threading.Condition(self._lock)
        self._jobs: set[_Job] = set()  # neither done nor cancelled
        self._waiting: list[_Job] = []
        self._ready = _Ready()
        self._preparing = 0
        self._seconds = 0.0  # a unit of size, measured
        self._closing = False
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(
                target=self._guarded, args=(loop,), name=f"{name} {title}", daemon=True
            )
            for title, loop in (("prepares", self._prepare_jobs), ("runs", self._run_batches))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Tell whether both threads work."""
        return self._failure is None and all(thread.is_alive() for thread in self._threads)

    def submit(
        self, inputs: Sequence[Input], key: Hashable = None, *, urgent: bool = False
    ) -> "Future[Outcome]":
        """Queue the inputs of a request; return the future of all their results.

        It fails with `InputError` where one input does. Inputs of different keys never share a
        batch. What is urgent is due before everything else, and not refused.

        Raises:
            OverloadedError: the queue is full.
            WorkerDeadError: nobody would run them.

        """
        future: Future[Outcome] = Future()
        count = len(inputs)
        if not count:
            future.set_result(Outcome([], 0))
            return future
        self._admission.enter(count, urgent=urgent)
        future.add_done_callback(lambda _: self._admission.leave(count))
        job = _Job(
            key=key,
            inputs=inputs,
            future=future,
            arrived=0.0 if urgent else time.monotonic(),
            results=[None] * count,
            missing=count,
        )
        with self._lock:
            stopped = self._failure is not None or self._closing
            if not stopped:
                self._jobs.add(job)
                self._waiting.append(job)
                self._preparing += count
                self._arrived.notify()
        if stopped:
            job.fail(WorkerDeadError(f"{self.name} has stopped: {self._failure or 'closed'}"))
        else:
            future.add_done_callback(lambda _: self._jobs.discard(job))
        return future

    def close(self, timeout: float | None = None) -> None:
        """Finish what is queued, and stop; a batch that runs for longer (seconds) is left."""
        with self._lock:
            self._closing = True
            self._arrived.notify_all()
            self._prepared.notify_all()
        for thread in self._threads:
            thread.join(timeout)

    def _guarded(self, loop: Callable[[], None]) -> None:
        """Run a thread's loop; if it breaks, fail every job instead of leaving it."""
        try:
            loop()
        except BaseException as error:
            with self._lock:
                self._failure = error
                jobs = list(self._jobs)  # waiting, ready, or in the hands of either thread
                self._waiting, self._ready, self._preparing = [], _Ready(), 0
                self._arrived.notify_all()
                self._prepared.notify_all()
            for job in jobs:
                job.fail(WorkerDeadError(f"{self.name} has stopped: {error}"))

    def _prepare_jobs(self) -> None:
        while jobs := self._next_jobs():
            by_key: dict[Hashable, list[_Job]] = {}
            for job in jobs:
                if not job.future.done():
                    by_key.setdefault(job.key, []).append(job)
            items = [item for key, members in by_key.items() for item in self._items(key, members)]
            with self._lock:
                self._ready.put(items)
                self._preparing -= sum(len(job.inputs) for job in jobs)
                self._prepared.notify()

    def _next_jobs(self) -> list[_Job]:
        """Wait for jobs, and take some; none when the batcher is closing."""
        with self._lock:
            while not self._waiting and not self._closing and self._failure is None:
                self._arrived.wait()
            count = taken = 0
            while taken < len(self._waiting) and (not taken or count < AT_ONCE):
                count += len(self._waiting[taken].inputs)
                taken += 1
            jobs, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return jobs

    def _items(self, key: Hashable, jobs: Sequence[_Job]) -> list[_Item]:
        """Prepare the inputs of jobs in one call; if that fails, job by job."""
        inputs = [single for job in jobs for single in job.inputs]
        try:
            prepared = iter(self._engine.prepare(key, inputs))
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].fail(error)
                return []
            return [item for job in jobs for item in self._items(key, [job])]
        items = []
        for job in jobs:
            due = job.arrived
            for position in range(len(job.inputs)):
                content, size = next(prepared)
                items.append(_Item(job, position, content, size, due))
                job.size += size
                due += size * self._seconds
        return items

    def _run_batches(self) -> None:
        with self._engine.running():
            while batch := self._next_batch():
                pending = [item for item in batch if not item.job.future.done()]
                if pending:
                    self._run(pending)

    def _next_batch(self) -> list[_Item]:
        """Wait for prepared inputs, and take a batch; none when the batcher is closed."""
        with self._lock:
            while not self._ready.count:
                ended = self._closing and not self._waiting and not self._preparing
                if ended or self._failure is not None:
                    return []
                self._prepared.wait()
            until = time.monotonic() + self._wait
            while self._preparing and (seconds := until - time.monotonic()) > 0:
                if not self._prepared.wait(seconds):
                    break
            return self._ready.take(self._engine.budget)

    def _run(self, batch: Sequence[_Item]) -> None:
        began = time.monotonic()
        try:
            results = self._engine.run(batch[0].job.key, [item.prepared for item in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].job.finish(batch[0].position, error)
                return
            for item in batch:
                if not item.job.future.done():
                    self._run([item])
            return
        seconds, size = time.monotonic() - began, sum(item.size for item in batch)
        pace = seconds / max(1, size)
        self._seconds = pace if not self._seconds else 0.9 * self._seconds + 0.1 * pace
        for item, result in zip(batch, results, strict=True):
            item.job.finish(item.position, result)
        if self._observe is not None:
            self._observe(Ran(len(batch), size, seconds))
