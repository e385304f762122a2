"""What a server serves: models, indexes and a reranker, opened from folders."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config.serve import ServeSettings, named
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.models.students.truncated import Truncated, shortened
from retrodistill.stages.serving.batching import Admission, Batcher, Outcome
from retrodistill.stages.serving.engines import RerankEngine, SearchEngine, TextEngine
from retrodistill.stages.serving.lexical import Lexical
from retrodistill.stages.serving.live_index import LiveIndex
from retrodistill.stages.serving.metrics import Metrics

if TYPE_CHECKING:
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.models.students.towers import Side

CALLS = 8
"""Threads for what is neither a model's batch nor an index's: BM25, sets, documents, reloading."""


@dataclass(eq=False, slots=True)
class ServedModel:
    """An encoder, the batches of its texts, and the sizes that its vectors may have."""

    name: str
    encoder: "DenseEncoder"
    texts: Batcher[str]
    dimensions: tuple[int, ...]
    """The native one first, then Matryoshka sizes."""

    created: int = field(default_factory=lambda: int(time.time()))

    def embed(self, texts: Sequence[str], side: "Side") -> "Future[Outcome]":
        """Return the future of vectors of shape (native dimension,)."""
        return self.texts.submit(texts, side)


@dataclass(eq=False, slots=True)
class ServedIndex:
    """An index whose documents may change, its model, and BM25 over its texts."""

    name: str
    live: LiveIndex
    model: ServedModel | None
    """None for students without dense vectors, whose searcher encodes for itself."""

    nearest: Batcher[Any] | None
    lexical: Lexical | None
    """None where the texts are not at hand."""

    @property
    def methods(self) -> list[str]:
        """Names of the ways to search it, the default first."""
        manifest = self.live.searcher.manifest
        assert manifest is not None
        first = "dense" if self.model is not None else str(manifest.details["retriever"])
        return [first, "bm25", "hybrid"] if self.lexical is not None else [first]

    @property
    def dimension(self) -> int | None:
        """Size of the vectors in the index."""
        return None if self.model is None else self.live.searcher.index.dimension

    def shortened(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return native vectors as they are in the index, shape (n, dimension)."""
        encoder = self.live.searcher.encoder
        if not isinstance(encoder, Truncated):
            return vectors
        return shortened(vectors, encoder.dimension, normalised=encoder.normalised)


@dataclass(eq=False, slots=True)
class ServedReranker:
    """A teacher, and the batches of its pairs."""

    name: str
    engine: RerankEngine
    pairs: Batcher[Any]
    local: bool
    """Whether it runs here, and is not asked over the network."""

    created: int = field(default_factory=lambda: int(time.time()))


class Served:
    """All that one application serves, from opening to closing.

    A request uses it within `in_use`, so that `close` waits for the requests that began before a
    reload, and none of them is lost.
    """

    def __init__(
        self,
        indexes: Sequence[ServedIndex],
        models: Sequence[ServedModel],
        reranker: ServedReranker | None,
    ) -> None:
        self.indexes = {index.name: index for index in indexes}
        self.models = {model.name: model for model in models}
        self.reranker = reranker
        self.calls = ThreadPoolExecutor(CALLS, thread_name_prefix="calls")
        self._idle = Condition()
        self._users = 0

    @property
    def workers(self) -> list[Batcher[Any]]:
        """Every batcher."""
        nearest = [index.nearest for index in self.indexes.values() if index.nearest is not None]
        rerankers = [self.reranker.pairs] if self.reranker is not None else []
        return [model.texts for model in self.models.values()] + nearest + rerankers

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep it open within the block."""
        with self._idle:
            self._users += 1
        try:
            yield
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def close(self) -> None:
        """Wait for the requests that use it, and stop its threads."""
        with self._idle:
            self._idle.wait_for(lambda: not self._users)
        for worker in self.workers:
            worker.close()
        self.calls.shutdown()
        for index in self.indexes.values():
            index.live.close()


def open_served(
    settings: ServeSettings, *, admission: Admission, metrics: Metrics
) -> Served:
    """Open all folders and models of the settings.

    Raises:
        ConfigError: two have one name, or a model cannot be loaded.
        DataError: a folder is no index, or is damaged.

    """
    opener = _Opener(settings, admission, metrics)
    indexes = [
        opener.index(name, folder, first=not position)
        for position, (name, folder) in enumerate(named(settings.index, "--index").items())
    ]
    models = [index.model for index in indexes if index.model is not None]
    for name, model in named(settings.model, "--model").items():
        if name in {index.name for index in indexes}:
            raise ConfigError(f"--model {name} has the name of an index: write NAME={model}.")
        models.append(opener.loaded(name, model))
    return Served(indexes, models, opener.reranker())


@dataclass(frozen=True, slots=True)
class _Opener:
    settings: ServeSettings
    admission: Admission
    metrics: Metrics

    def index(self, name: str, folder: str, *, first: bool) -> ServedIndex:
        """Open an index folder."""
        live = LiveIndex.open(
            Path(folder).expanduser(),
            name=name,
            changes=self.settings.changes,
            data=self.settings.data if first else None,
            precision=self.settings.precision,
        )
        lexical = Lexical(live) if live.searcher.docs is not None else None
        if live.encoder is None:
            return ServedIndex(name, live, None, None, lexical)
        whole = live.encoder.encoder if isinstance(live.encoder, Truncated) else live.encoder
        model = self._served(name, whole, (live.searcher.index.dimension,), folder)
        nearest = self._batcher(f"{name} search", SearchEngine(live.search))
        return ServedIndex(name, live, model, nearest, lexical)

    def loaded(self, name: str, model: str) -> ServedModel:
        """Load a model that has no index."""
        from retrodistill.models.students.dense import DenseEncoder

        encoder = DenseEncoder(
            model, max_tokens=self.settings.max_tokens, precision=self.settings.precision
        )
        return self._served(name, encoder, (), model)

    def reranker(self) -> ServedReranker | None:
        """Load the teacher that reranks."""
        spec = self.settings.reranker
        if spec is None:
            return None
        from retrodistill.models.teachers import load_teacher, takes

        if takes(spec, "collection"):
            raise ConfigError(
                f"--reranker {spec} scores the documents of one collection only, but a server is "
                "sent any text. Take another, such as cross-encoder:MODEL."
            )
        limit = {} if self.settings.max_tokens is None else {"max_tokens": self.settings.max_tokens}
        teacher = load_teacher(
            spec,
            None,  # type: ignore[arg-type]  # checked above
            batch_tokens=self.settings.batch_tokens,
            precision=self.settings.precision,
            **limit,
        )
        engine = RerankEngine(teacher)
        name = Path(spec.partition(":")[2]).name or spec
        local = not spec.startswith("llm")
        return ServedReranker(name, engine, self._batcher(f"{name} rerank", engine), local)

    def _served(
        self, name: str, encoder: "DenseEncoder", cut: tuple[int, ...], source: str
    ) -> ServedModel:
        engine = TextEngine(encoder, batch_tokens=self.settings.batch_tokens)
        sizes = {*cut, *_trained_sizes(source)} - {encoder.dimension}
        dimensions = (encoder.dimension, *sorted(sizes, reverse=True))
        return ServedModel(name, encoder, self._batcher(f"{name} encode", engine), dimensions)

    def _batcher(self, name: str, engine: Any) -> Batcher[Any]:
        observe = self.metrics.observer(name)
        return Batcher(name, engine, admission=self.admission, observe=observe)


def _trained_sizes(source: str) -> tuple[int, ...]:
    """Return the Matryoshka sizes that the student behind a folder was trained with."""
    for folder in (source, _model_of(source)):
        try:
            config = Manifest.read(Path(folder)).config
        except (DataError, OSError):
            continue
        if sizes := config.get("dims"):
            return tuple(int(size) for size in sizes)
    return ()


def _model_of(folder: str) -> str:
    """Return the model that an index folder was made with, as it was named then."""
    try:
        return str(Manifest.read(Path(folder)).details.get("model", ""))
    except (DataError, OSError):
        return ""
