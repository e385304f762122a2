"""Systems that put another one's best documents in a teacher's order."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from retrodistill.base.config import as_dict
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.data.rankings import reranked
from retrodistill.data.rankings.reranking import below
from retrodistill.data.store.runs import Run
from retrodistill.stages.pipelines.benchmark.plan import Reranked, System
from retrodistill.stages.pipelines.benchmark.work import Answer, AtWork, Made, Place


class RerankedAtWork(AtWork[Reranked]):
    """A teacher behind another system, whose cell must be finished.

    The scores lie in a store of this teacher and dataset, so that no pair is scored twice,
    whatever lists and depths ask for it.
    """

    def __init__(self, name: str, place: Place, system: Reranked, first: AtWork[System]) -> None:
        super().__init__(name, place, system)
        self.first = first

    @property
    def _first_cell(self) -> Manifest:
        return Manifest.read(self.place.folder("cells", self.system.of), kind="cell")

    @cached_property
    def _teacher(self) -> Teacher:
        from retrodistill.stages.scoring import load_teacher

        system = self.system
        teacher: Teacher = load_teacher(
            system.rerank,
            self.place.collection,
            options=system.option,
            max_tokens=system.max_tokens,
            batch_tokens=system.batch_tokens,
            precision=system.precision,
        )
        return teacher

    def inputs(self) -> dict[str, str]:
        """Return the fingerprints of the teacher and of the first stage's cell."""
        return {"teacher": self._teacher.fingerprint, "first": self._first_cell.fingerprint}

    def make(self) -> Made:
        """Score what has no score yet, and put it in front; the index is the first stage's."""
        from retrodistill.stages.scoring import score_candidates

        place, teacher = self.place, self._teacher
        first = Run.read(place.folder("runs", self.system.of))
        best = first.top(self.system.depth)
        store = score_candidates(
            place.collection,
            best,
            teacher,
            place.folder("scores", teacher.fingerprint[:16]),
            config=as_dict(self.system),
        )
        known = store.run().to_dict()
        scores = {
            query: {doc: known[query][doc] for doc in docs} for query, docs, _ in best.lists()
        }
        costs = self._first_cell.details
        return Made(
            run=reranked(first, Run.from_dict(scores, lineage=store.lineage)),
            inputs={"first run": first.fingerprint},
            config=as_dict(self.system),
            docs_per_second=costs["docs_per_second"],
            index_bytes=costs["index_bytes"],
        )

    def answer(self) -> Answer:
        """Return what asks the first stage, then the teacher."""
        first = self.first.answer()
        teacher, docs, depth = self._teacher, self.place.collection.docs, self.system.depth

        def find(query: Doc) -> Mapping[str, float]:
            ranked = sorted(first(query).items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
            found = [id for id, _ in ranked]  # equal scores as in a run, by id
            best = [docs.get(id) for id in found[:depth]]
            if not best:
                return {}
            scores = teacher.score(Pairs.of([query] * len(best), best))
            order = np.argsort(-scores, kind="stable")
            front = {found[place]: float(scores[place]) for place in order}
            return front | below(front, found[depth:])

        return find
