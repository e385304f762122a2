"""What a server serves: models, indexes and a reranker, opened from folders."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config.serve import ServeSettings, named
from retrodistill.base.errors import ConfigError, DataError, RetrodistillError
from retrodistill.base.manifest import Manifest
from retrodistill.models.indexes.base import VectorIndex
from retrodistill.models.indexes.validation import no_attributes
from retrodistill.models.students.truncated import Truncated, shortened
from retrodistill.stages.serving.batching import Admission, Batcher, Outcome
from retrodistill.stages.serving.engines import RerankEngine, SearchEngine, TextEngine
from retrodistill.stages.serving.lexical import Lexical
from retrodistill.stages.serving.live.index import LiveIndex
from retrodistill.stages.serving.metrics import Metrics

if TYPE_CHECKING:
    from retrodistill.data.filters import Expression
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.models.students.towers import Side

EXAMPLES = 5
"""Queries of a collection that the page shows."""

WARMED = 50_000
"""Documents up to which BM25 is made at the start, and not by the first search that needs it."""

LONGEST_BATCH = 30.0
"""Seconds after which a model that is closed is taken to hang, and left."""

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

    examples: list[str]
    """A few queries of its collection."""

    @property
    def methods(self) -> list[str]:
        """Names of the ways to search it, the default first."""
        manifest = self.live.searcher.manifest
        assert manifest is not None
        first = "dense" if self.model is not None else str(manifest.details["retriever"])
        return [first, "bm25", "hybrid"] if self.lexical is not None else [first]

    def allowed(self, where: "Expression | None") -> set[str] | None:
        """Return the ids of the documents that fit a condition; None: all.

        Raises:
            ConfigError: the index has no attributes, or not those of the condition.

        """
        if where is None:
            return None
        with self.live.reading():
            attributes = self.live.attributes
            if attributes is None:
                raise no_attributes(where)
            index = self.live.searcher.index
            assert isinstance(index, VectorIndex)  # others have no attributes of their own
            return set(compress(index.ids, attributes.matching(where)))

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

    A request is between `enter` and `leave`, so that `close` waits for the requests that began
    before a reload, and none of them is lost.
    """

    def __init__(
        self,
        indexes: Sequence[ServedIndex],
        models: Sequence[ServedModel],
        reranker: ServedReranker | None,
    ) -> None:
        self.indexes = {index.name: index for index in indexes}
        self.own_models = models
        """Models without an index."""
        of_indexes = [index.model for index in indexes if index.model is not None]
        self.models = {model.name: model for model in (*of_indexes, *models)}
        self.reranker = reranker
        self.calls = ThreadPoolExecutor(CALLS, thread_name_prefix="calls")
        for index in indexes:
            if index.lexical is not None and len(index.live) <= WARMED:
                self.calls.submit(index.lexical.warm)
        self._idle = Condition()
        self._users = 0
        self._closed = False

    @property
    def workers(self) -> list[Batcher[Any]]:
        """Every batcher."""
        nearest = [index.nearest for index in self.indexes.values() if index.nearest is not None]
        rerankers = [self.reranker.pairs] if self.reranker is not None else []
        return [model.texts for model in self.models.values()] + nearest + rerankers

    def enter(self) -> bool:
        """Keep it open until `leave`; False: it is closed already."""
        with self._idle:
            self._users += not self._closed
            return not self._closed

    def leave(self) -> None:
        """Let it be closed."""
        with self._idle:
            self._users -= 1
            self._idle.notify_all()

    def close(self, *, kept: "Served | None" = None) -> None:
        """Wait for the requests that use it, and stop its threads but for those that are kept."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._users)
        for worker in self.workers:
            if kept is None or worker not in kept.workers:
                worker.close(LONGEST_BATCH)
        self.calls.shutdown()
        if kept is None:
            for index in self.indexes.values():
                index.live.close()


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens what the settings name, with batchers of one queue and one set of counters."""

    settings: ServeSettings
    admission: Admission
    metrics: Metrics

    def all(self) -> Served:
        """Open every folder and model.

        Raises:
            ConfigError: two have one name, or a model cannot be loaded.
            DataError: a folder is not an index, or is damaged.

        """
        indexes = [
            self.index(name, folder)
            for name, folder in named(self.settings.index, "--index").items()
        ]
        models = [
            self.loaded(name, model)
            for name, model in named(self.settings.model, "--model").items()
        ]
        return Served(indexes, models, self.reranker())

    def again(self, served: Served) -> Iterator[Served]:
        """Open everything again, part by part; yield what to serve after each.

        An index is opened and has caught up with its changes before it takes the place of the
        former one, which serves meanwhile.

        Raises:
            RetrodistillError: a part cannot be opened; it and those after it stay as they were.

        """
        for name, index in served.indexes.items():
            fresh = self._served_index(name, index.live.reopened())
            indexes = {**served.indexes, name: fresh}
            served = Served([*indexes.values()], served.own_models, served.reranker)
            yield served
        for name, model in named(self.settings.model, "--model").items():
            own = {model.name: model for model in served.own_models}
            own[name] = self.loaded(name, model)
            served = Served([*served.indexes.values()], [*own.values()], served.reranker)
            yield served
        if served.reranker is not None:
            yield Served([*served.indexes.values()], served.own_models, self.reranker())

    def index(self, name: str, folder: str) -> ServedIndex:
        """Open an index folder."""
        live = LiveIndex.open(
            Path(folder).expanduser(),
            name=name,
            changes=self.settings.changes,
            data=self._data(name),
            precision=self.settings.precision,
        )
        return self._served_index(name, live)

    def _data(self, name: str) -> str | None:
        """Return the collection that has the texts of an index: --data is for the first."""
        is_first = name == next(iter(named(self.settings.index, "--index")))
        return self.settings.data if is_first else None

    def _served_index(self, name: str, live: LiveIndex) -> ServedIndex:
        manifest = live.searcher.manifest
        assert manifest is not None
        spec = self._data(name) or manifest.details.get("data")
        examples = _examples(spec) if live.has_texts else []
        lexical = Lexical(live) if live.has_texts else None
        from retrodistill.models.students.dense import DenseEncoder

        if live.encoder is None:
            return ServedIndex(name, live, None, None, lexical, examples)
        whole = live.encoder.encoder if isinstance(live.encoder, Truncated) else live.encoder
        assert isinstance(whole, DenseEncoder)
        source = str(manifest.details.get("model", ""))
        model = self._served(name, whole, (live.searcher.index.dimension,), source)
        nearest = self._batcher(f"{name} search", SearchEngine(live.search))
        return ServedIndex(name, live, model, nearest, lexical, examples)

    def loaded(self, name: str, model: str) -> ServedModel:
        """Load a model that has no index."""
        from retrodistill.models.students.dense import DenseEncoder

        encoder = DenseEncoder(
            model, max_tokens=self.settings.max_tokens, precision=self.settings.precision
        )
        return self._served(name, encoder, (), model)

    def reranker(self) -> ServedReranker | None:
        """Load the teacher that reranks."""
        if self.settings.reranker is None:
            return None
        ((name, spec),) = named([self.settings.reranker], "--reranker").items()
        from retrodistill.models.teachers import load_teacher, takes

        if takes(spec, "collection"):
            raise ConfigError(
                f"--reranker {spec} scores the documents of one collection only, but a server is "
                "sent any text. Take another, such as cross-encoder:MODEL."
            )
        limit: dict[str, Any] = (
            {} if self.settings.max_tokens is None else {"max_tokens": self.settings.max_tokens}
        )
        teacher = load_teacher(
            spec,
            None,  # type: ignore[arg-type]  # checked above
            batch_tokens=self.settings.batch_tokens,
            precision=self.settings.precision,
            **limit,
        )
        engine = RerankEngine(teacher)
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


def _trained_sizes(model: str) -> tuple[int, ...]:
    """Return the Matryoshka sizes that a student was trained with, if its folder records them."""
    try:
        sizes = Manifest.read(Path(model)).config.get("dims") or ()
    except (DataError, OSError):
        return ()
    return tuple(int(size) for size in sizes)


def _examples(spec: str | None) -> list[str]:
    """Return a few queries of the collection that an index was made from."""
    from retrodistill.data.datasets.collection import load_collection

    if not spec:
        return []
    try:
        queries = load_collection(spec).queries
        return [queries[row].text for row in range(min(EXAMPLES, len(queries)))]
    except RetrodistillError:
        return []
