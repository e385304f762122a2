"""Systems that put another one's best documents in a teacher's order."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from retrodistill.base.config import as_dict
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.data.rankings import reranked
from retrodistill.data.rankings.reranking import below, scores_for
from retrodistill.data.store.runs import Run
from retrodistill.stages.pipelines.benchmark.plan import RerankedSettings, SystemSettings
from retrodistill.stages.pipelines.benchmark.systems import (
    Answer,
    System,
    SystemResult,
    Workspace,
)


class RerankedSystem(System[RerankedSettings]):
    """A teacher behind another system, whose cell must be finished.

    The scores lie in a store of this teacher and dataset, so that no pair is scored twice,
    whatever lists and depths ask for it.
    """

    def __init__(
        self,
        name: str,
        workspace: Workspace,
        settings: RerankedSettings,
        first_stage: System[SystemSettings],
    ) -> None:
        super().__init__(name, workspace, settings)
        self.first_stage = first_stage

    @property
    def _first_cell(self) -> Manifest:
        return Manifest.read(self.workspace.folder("cells", self.settings.of), kind="cell")

    @property
    def _first_run(self) -> Run:
        return Run.read(self.workspace.folder("runs", self.settings.of))

    @cached_property
    def _teacher(self) -> Teacher:
        from retrodistill.stages.scoring import load_teacher

        settings = self.settings
        teacher: Teacher = load_teacher(
            settings.rerank,
            self.workspace.collection,
            options=settings.option,
            max_tokens=settings.max_tokens,
            batch_tokens=settings.batch_tokens,
            precision=settings.precision,
        )
        return teacher

    def inputs(self) -> dict[str, str]:
        """Return the fingerprints of the teacher, and of the first stage's cell and run."""
        return {
            "teacher": self._teacher.fingerprint,
            "first": self._first_cell.fingerprint,
            "first run": self._first_run.fingerprint,
        }

    def make(self) -> SystemResult:
        """Score what has no score yet, and put it in front; the index is the first stage's."""
        from retrodistill.stages.scoring import score_candidates

        workspace, teacher, first = self.workspace, self._teacher, self._first_run
        top = first.top(self.settings.depth)
        store = score_candidates(
            workspace.collection,
            top,
            teacher,
            workspace.folder("scores", teacher.fingerprint[:16]),
            config=as_dict(self.settings),
        )
        columns = (top.table["query_id"], top.table["doc_id"], scores_for(top, store.run()))
        costs = self._first_cell.details
        return SystemResult(
            run=reranked(first, Run.from_columns(*columns, lineage=store.lineage)),
            inputs={"first run": first.fingerprint},
            config=as_dict(self.settings),
            docs_per_second=costs["docs_per_second"],
            index_bytes=costs["index_bytes"],
        )

    def answer(self) -> Answer:
        """Return what asks the first stage, then the teacher."""
        first = self.first_stage.answer()
        teacher, docs, depth = (
            self._teacher,
            self.workspace.collection.docs,
            self.settings.depth,
        )

        def answer_query(query: Doc) -> Mapping[str, float]:
            # Candidates: equal scores in the order of a run, by id.
            hits = sorted(first(query).items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
            ids = [id for id, _ in hits]
            top = [docs.get(id) for id in ids[:depth]]
            if not top:
                return {}

            # The teacher's order in front, the first stage's below it.
            scores = teacher.score(Pairs.of([query] * len(top), top))
            order = np.argsort(-scores, kind="stable")
            front = {ids[position]: float(scores[position]) for position in order}
            return front | below(front, ids[depth:])

        return answer_query
