"""Systems that search all documents: a lexical index in memory, or a folder of vectors."""

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from retrodistill.base.config import IndexSettings, MineConfig, SearchConfig, as_dict
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Doc, Retriever, RetrieverOptions
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.data.store.lineage import spec_lineage
from retrodistill.data.store.runs import Run
from retrodistill.models.retrievers import load_retriever
from retrodistill.stages.evaluation.efficiency import files_bytes, per_second
from retrodistill.stages.pipelines.benchmark.plan import DenseSettings, LexicalSettings
from retrodistill.stages.pipelines.benchmark.systems import Answer, System, SystemResult

if TYPE_CHECKING:
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.stages.searching import Searcher

TIMED_DOCS = 256
"""Documents, spread over the collection, whose encoding is timed."""


class LexicalSystem(System[LexicalSettings]):
    """A retriever of the registry; single queries make the run."""

    @cached_property
    def _retriever(self) -> Retriever:
        settings = self.settings
        options = RetrieverOptions(max_tokens=settings.max_tokens, precision=settings.precision)
        return load_retriever(settings.retriever, self.workspace.collection.docs, options)

    def inputs(self) -> dict[str, str]:
        """Return the fingerprint of the model, if there is one."""
        _, _, model = self.settings.retriever.partition(":")
        return {"model": self._retriever.fingerprint} if model else {}

    def make(self) -> SystemResult:
        """Index the documents, and ask query by query."""
        started = time.perf_counter()
        index_bytes = self._retriever.nbytes  # indexes the documents
        seconds = time.perf_counter() - started
        answer, workspace, settings = self.answer(), self.workspace, self.settings
        answers = {query.id: answer(query) for query in workspace.queries}
        run = Run.from_dict(answers, lineage=spec_lineage(settings.retriever)).top(workspace.k)
        config = MineConfig(
            data=workspace.dataset.data,
            split=workspace.dataset.split,
            depth=workspace.k,
            out=workspace.folder("runs", self.name),
            retriever=(settings.retriever,),
            max_tokens=settings.max_tokens,
            precision=settings.precision,
        )
        return SystemResult(
            run=run,
            config=as_dict(config),
            docs_per_second=len(workspace.collection.docs) / seconds,
            index_bytes=index_bytes,
        )

    def answer(self) -> Answer:
        """Return what asks the index for one query."""
        retriever, docs, k = self._retriever, self.workspace.collection.docs, self.workspace.k

        def answer_query(query: Doc) -> Mapping[str, float]:
            ((rows, scores),) = retriever.top([query.full_text], k)
            return dict(zip(docs.ids(rows), scores.tolist(), strict=True))

        return answer_query


class DenseSystem(System[DenseSettings]):
    """A model, and an index folder of its vectors."""

    @property
    def index_folder(self) -> Path:
        """The folder of the vectors."""
        return self.workspace.folder("indexes", self.name)

    @cached_property
    def _encoder(self) -> "DenseEncoder":
        from retrodistill.models.students.dense import DenseEncoder

        settings = self.settings
        return DenseEncoder(
            settings.model,
            max_tokens=settings.max_tokens,
            batch_tokens=settings.batch_tokens,
            precision=settings.precision,
        )

    @cached_property
    def _searcher(self) -> "Searcher":
        from retrodistill.stages.searching import Searcher

        return Searcher.open(self.index_folder, precision=self.settings.precision, with_texts=False)

    def inputs(self) -> dict[str, str]:
        """Return the model's fingerprint."""
        return {"model": self._encoder.fingerprint}

    def make(self) -> SystemResult:
        """Embed the collection, search for the split, and time the encoding of some documents."""
        from retrodistill.models.indexes.folder import INDEX
        from retrodistill.stages.indexing import embed_collection
        from retrodistill.stages.searching import search_run

        workspace, settings, folder = self.workspace, self.settings, self.index_folder
        docs = workspace.collection.docs
        embed_collection(
            workspace.collection,
            self._encoder,
            out=folder,
            config=as_dict(settings.embedding(workspace.dataset, folder)),
            overwrite=True,
            settings=IndexSettings(
                index=settings.index, recall=settings.recall, dimensions=settings.dimensions
            ),
        )
        sample = docs.full_texts(spread_rows(len(docs), TIMED_DOCS))
        run = search_run(self._searcher, workspace.collection, workspace.dataset.split, workspace.k)
        config = SearchConfig(
            index=folder,
            data=workspace.dataset.data,
            split=workspace.dataset.split,
            k=workspace.k,
            out=workspace.folder("runs", self.name),
            precision=settings.precision,
        )
        return SystemResult(
            run=run,
            inputs={"index": Manifest.read(folder).fingerprint},
            config=as_dict(config),
            docs_per_second=per_second(self._encoder.encode_docs, sample),
            index_bytes=files_bytes(folder / INDEX),
        )

    def answer(self) -> Answer:
        """Return what encodes a query and searches the index folder."""
        searcher, k = self._searcher, self.workspace.k

        def answer_query(query: Doc) -> Mapping[str, float]:
            [ids], [scores] = searcher.find([query.full_text], k)
            return dict(zip(ids, scores.tolist(), strict=True))

        return answer_query
