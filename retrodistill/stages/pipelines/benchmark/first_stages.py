"""Systems that search all documents: an inverted index of words, or an index of vectors."""

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from retrodistill.base.config import MineConfig, SearchConfig, as_dict
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Doc
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.data.store.lineage import spec_lineage
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation.efficiency import files_bytes, per_second
from retrodistill.stages.pipelines.benchmark.plan import Dense, Words
from retrodistill.stages.pipelines.benchmark.work import Answer, AtWork, Made

if TYPE_CHECKING:
    from retrodistill.models.retrievers.bm25 import Lexicon
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.models.students.sparse import SparseTextEncoder
    from retrodistill.stages.mining.retrievers import Postings
    from retrodistill.stages.searching import Searcher

TIMED_DOCS = 256
"""Documents, spread over the collection, whose encoding is timed."""


class WordsAtWork(AtWork[Words]):
    """An inverted index in memory; single queries make the run."""

    @cached_property
    def _encoder(self) -> "SparseTextEncoder | None":
        from retrodistill.models.students.sparse import SparseTextEncoder

        system = self.system
        _, _, model = system.retriever.partition(":")
        return (
            SparseTextEncoder(model, max_tokens=system.max_tokens, precision=system.precision)
            if model
            else None
        )

    @cached_property
    def _index(self) -> "Lexicon | Postings":
        from retrodistill.models.retrievers.bm25 import Lexicon
        from retrodistill.stages.mining.retrievers import Postings

        docs = self.place.collection.docs
        return Postings(self._encoder, docs) if self._encoder else Lexicon(docs.full_texts())

    def inputs(self) -> dict[str, str]:
        """Return the fingerprint of the sparse model, if there is one."""
        return {"model": self._encoder.fingerprint} if self._encoder else {}

    def make(self) -> Made:
        """Index the documents, and ask query by query."""
        started = time.perf_counter()
        index = self._index
        seconds = time.perf_counter() - started
        answer, place = self.answer(), self.place
        answers = {query.id: answer(query) for query in place.queries}
        run = Run.from_dict(answers, lineage=spec_lineage(self.system.retriever)).top(place.k)
        config = MineConfig(
            data=place.dataset.data,
            split=place.dataset.split,
            depth=place.k,
            out=place.folder("runs", self.name),
            retriever=(self.system.retriever,),
            max_tokens=self.system.max_tokens,
            precision=self.system.precision,
        )
        return Made(
            run=run,
            config=as_dict(config),
            docs_per_second=len(place.collection.docs) / seconds,
            index_bytes=index.nbytes,
        )

    def answer(self) -> Answer:
        """Return what asks the inverted index."""
        index, docs, k = self._index, self.place.collection.docs, self.place.k

        def find(query: Doc) -> Mapping[str, float]:
            rows, scores = index.top(query.full_text, k)
            return dict(zip(docs.ids(rows), scores.tolist(), strict=True))

        return find


class DenseAtWork(AtWork[Dense]):
    """A model, and an index folder of its vectors."""

    @property
    def _folder(self) -> Path:
        return self.place.folder("indexes", self.name)

    @cached_property
    def _encoder(self) -> "DenseEncoder":
        from retrodistill.models.students.dense import DenseEncoder

        system = self.system
        return DenseEncoder(
            system.model,
            max_tokens=system.max_tokens,
            batch_tokens=system.batch_tokens,
            precision=system.precision,
        )

    @cached_property
    def _searcher(self) -> "Searcher":
        from retrodistill.stages.searching import Searcher

        return Searcher.open(self._folder, precision=self.system.precision, with_texts=False)

    def inputs(self) -> dict[str, str]:
        """Return the model's fingerprint."""
        return {"model": self._encoder.fingerprint}

    def make(self) -> Made:
        """Embed the collection, search for the split, and time the encoding of some documents."""
        from retrodistill.stages.indexing import embed_collection
        from retrodistill.stages.indexing.embedding import INDEX
        from retrodistill.stages.searching import search_run

        place, system, docs = self.place, self.system, self.place.collection.docs
        embed_collection(
            place.collection,
            self._encoder,
            out=self._folder,
            index=system.index,
            recall=system.recall,
            dimensions=system.dimensions,
            config=as_dict(system.embedding(place.dataset, self._folder)),
            overwrite=True,
        )
        sample = docs.full_texts(spread_rows(len(docs), TIMED_DOCS))
        run = search_run(self._searcher, place.collection, place.dataset.split, place.k)
        config = SearchConfig(
            index=self._folder,
            data=place.dataset.data,
            split=place.dataset.split,
            k=place.k,
            out=place.folder("runs", self.name),
            precision=system.precision,
        )
        return Made(
            run=run,
            inputs={"index": Manifest.read(self._folder).fingerprint},
            config=as_dict(config),
            docs_per_second=per_second(self._encoder.encode_docs, sample),
            index_bytes=files_bytes(self._folder / INDEX),
        )

    def answer(self) -> Answer:
        """Return what encodes a query and searches the index folder."""
        searcher, k = self._searcher, self.place.k

        def find(query: Doc) -> Mapping[str, float]:
            [ids], [scores] = searcher.find([query.full_text], k)
            return dict(zip(ids, scores.tolist(), strict=True))

        return find
