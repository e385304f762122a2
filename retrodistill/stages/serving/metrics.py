"""What `/metrics` counts, in Prometheus's text form."""

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from retrodistill.stages.serving.batching import Admission, Ran

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
TOKENS = tuple(2**power for power in range(3, 18))


class Metrics:
    """Counters of one application."""

    def __init__(self, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        settings: dict[str, Any] = {"namespace": "retrodistill", "registry": self.registry}
        self.requests = Counter(
            "requests", "Requests by path and status.", ["path", "status"], **settings
        )
        self.seconds = Histogram(
            "request_seconds", "Seconds to an answer.", ["path"], buckets=SECONDS, **settings
        )
        self.batch_inputs = Histogram(
            "batch_inputs", "Inputs of a batch.", ["worker"], buckets=COUNTS, **settings
        )
        self.batch_size = Histogram(
            "batch_tokens",
            "Tokens of a model's batch, documents of a reranker's, queries of an index's.",
            ["worker"],
            buckets=TOKENS,
            **settings,
        )
        self.batch_seconds = Histogram(
            "batch_seconds", "Seconds of a batch.", ["worker"], buckets=SECONDS, **settings
        )
        queue = Gauge("queue_inputs", "Inputs that are queued or being run.", **settings)
        queue.set_function(lambda: admission.held)
        limit = Gauge("queue_limit", "Inputs that may be queued.", **settings)
        limit.set(admission.limit)

    def observer(self, worker: str) -> "Callable[[Ran], None]":
        """Return the function that takes a worker's batches."""
        inputs = self.batch_inputs.labels(worker)
        size = self.batch_size.labels(worker)
        seconds = self.batch_seconds.labels(worker)

        def observe(batch: Ran) -> None:
            inputs.observe(batch.inputs)
            size.observe(batch.size)
            seconds.observe(batch.seconds)

        return observe

    def text(self) -> bytes:
        """Return the numbers as they are now."""
        return generate_latest(self.registry)
