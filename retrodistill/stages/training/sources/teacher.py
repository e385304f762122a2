"""A teacher that scores a batch's documents while the student trains: `train --teacher`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.calls import split_label
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.registry import TEACHERS
from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.data.store.lineage import Lineage, own_lineage
from retrodistill.objectives.labels import JOINT, STUDENT
from retrodistill.stages.training.sources import SignalSource

if TYPE_CHECKING:
    from torch import Tensor

    from retrodistill.base.config import TrainSettings
    from retrodistill.data.datasets import Collection
    from retrodistill.models.students.batches import BatchRows
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.material import Material

LIVE = ("late-interaction", "bi-encoder", "pair-head", "sparse", "cross-encoder", "causal-lm")
"""Teachers that can score any query with any document, at no price but time."""


class TeacherSource(SignalSource):
    """Scores of every query of a batch with every distinct document of the batch.

    The teacher stays outside the trained module: it has a tokenizer, a number type and, as an
    object, a device of its own, is in evaluation mode, and neither receives a gradient nor is saved
    with the student. Each process scores the queries of all processes with its own documents, and
    all share the scores: no process reads the documents of another.

    A bi-encoder scores by the vectors of each of its layers as well, where a loss asks for them.

    With a label, its signals are `LABEL.batch_scores`, `LABEL.layer_scores` and, of a query's own
    candidates, `LABEL.scores`, and a training may have several.
    """

    name = "teacher"
    about = "a live teacher"
    gives = frozenset({"teacher_batch_scores", "teacher_layer_scores"})
    live = True
    opens_late = True

    def __init__(self, teacher: Teacher | str, *, label: str | None = None) -> None:
        if label in (JOINT, STUDENT):
            raise ConfigError(
                f"--teacher {label}=...: {label} is the label of the "
                f"{'teacher that is trained, --joint-teacher' if label == JOINT else 'student'}. "
                "Give another label."
            )
        if label is not None:
            self.name = f"teacher-{label}"
            self.about = f"the teacher {label}"
        self._prefix = "teacher_" if label is None else f"{label}."
        names = {"batch_scores"} if label is None else {"batch_scores", "scores"}
        if _scores_layers(teacher):
            names.add("layer_scores")
        self.gives = frozenset(f"{self._prefix}{name}" for name in names)
        self.label = label
        self.spec = teacher if isinstance(teacher, str) else type(teacher).__name__
        self._teacher = None if isinstance(teacher, str) else teacher
        self._collection: Collection | None = None
        self._unseen: Sequence[LossTerm] = ()
        """Terms of its scores, until the first batch has been looked at."""
        self._layers = False
        """Whether a term asks for the scores of each layer."""
        self._batch: BatchRows | None = None
        self._scores: Tensor | None = None

    @classmethod
    def wraps(cls, value: object) -> bool:
        """Tell whether this is a teacher that scores pairs."""
        return isinstance(value, Teacher)

    @classmethod
    def check(cls, name: str, settings: "TrainSettings") -> None:
        """Check that the teacher can score the training's batches, and at what cost."""
        check_live(name, settings)

    @classmethod
    def open(cls, name: str, settings: "TrainSettings") -> Self:
        """Return the teacher of `late-interaction:MODEL` or `LABEL=...`; it is loaded later."""
        label, spec = split_label(name)
        return cls(spec, label=label)

    @property
    def teacher(self) -> Teacher:
        """The teacher, once it is prepared."""
        assert self._teacher is not None
        return self._teacher

    @property
    def fingerprint(self) -> str:
        """Hash of all that shapes a score."""
        return self.teacher.fingerprint

    @property
    def lineage(self) -> Lineage:
        """What the teacher was trained on."""
        return own_lineage(self._teacher)

    @property
    def teachers(self) -> Sequence[str]:
        """Name of the teacher, as it was given."""
        return (self.spec if self.label is None else f"{self.label}={self.spec}",)

    def prepare(
        self, material: "Material", terms: "Sequence[LossTerm]", settings: "TrainSettings"
    ) -> None:
        """Check what a step costs, and load the teacher.

        Raises:
            ConfigError: the teacher cannot be loaded or used so, or reads too many pairs a step.

        """
        from retrodistill.models.students.processes import world_size
        from retrodistill.models.teachers import load_teacher

        part = self.spec if self._teacher is None else self._teacher
        check_live(part, settings, processes=world_size())
        if self._teacher is None:
            self._teacher = load_teacher(
                self.spec,
                material.collection,
                max_tokens=settings.teacher_tokens,
                batch_tokens=settings.batch_tokens,
                precision=settings.teacher_precision,
            )
        self._collection = material.collection
        requested = {signal for term in terms for signal in term.signals}
        self._unseen = [term for term in terms if f"{self._prefix}batch_scores" in term.signals]
        self._layers = f"{self._prefix}layer_scores" in requested
        steps = material.steps(settings)
        queries, docs = texts_a_step(settings, world_size())
        work = f"{queries:,} queries and {docs:,} documents"
        if not _reads_alone(self._teacher):
            work = f"{queries * docs:,} pairs of a query and a document"
        log.info(f"--teacher {self.spec} reads up to {work} in each of {steps:,} steps.")

    def of(self, batch: "BatchRows", student: "dict[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return `teacher_batch_scores` (B, M), of the documents of all processes.

        With a label, `LABEL.batch_scores`, and `LABEL.scores` (B, N) of the query's candidates.
        Where a term asks for them, `teacher_layer_scores` or `LABEL.layer_scores` (K, B, M).
        """
        if self._batch is not batch:  # a student of several dimensions asks once for each
            assert student is not None
            self._batch, self._scores = batch, self._of_all(batch, student["batch_scores"].device)
        assert self._scores is not None
        scores = self._scores[-1]
        signals = {"batch_scores": scores}
        if self.label is not None:
            signals["scores"] = scores.gather(1, _columns(batch).to(scores.device))
        if self._layers:
            signals["layer_scores"] = self._scores
        return {f"{self._prefix}{name}": value for name, value in signals.items()}

    def _of_all(self, batch: "BatchRows", device: Any) -> "Tensor":
        """Return the scores (K, B, M) of this process's queries, columns as in `SharedRows`.

        K are the layers that are compared, or the teacher's own scores alone.
        """
        import torch

        from retrodistill.models.students.processes import SharedRows, gathered, is_main
        from retrodistill.stages.training.checks import check_live_scores

        own_queries, own_docs = (
            torch.from_numpy(rows).to(device) for rows in (batch.queries, batch.docs)
        )
        # The queries of all processes, in the same order in each of them.
        queries = torch.unique(gathered(own_queries))
        scores = self._grid(queries.cpu().numpy(), batch.docs)
        if is_main():
            check_live_scores(self._unseen, scores[-1])
        self._unseen = ()
        # (documents, queries, layers): the columns of this process, then those of all.
        columns = SharedRows(own_docs)(torch.from_numpy(scores.T.copy()).to(device))
        return columns[:, torch.searchsorted(queries, own_queries)].permute(2, 1, 0)

    def _grid(self, query_rows: NDArray[np.int64], doc_rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the scores (layers, queries, documents) of rows of the collection."""
        assert self._collection is not None
        queries = [self._collection.queries[row] for row in query_rows.tolist()]
        docs = [self._collection.docs[row] for row in doc_rows.tolist()]
        if self._layers:
            teacher: Any = self.teacher
            scores: NDArray[np.float32] = teacher.score_layers(queries, docs)
        else:
            scores = score_all(self.teacher, queries, docs)[None]
        if not np.isfinite(scores).all():
            layer, query, doc = np.argwhere(~np.isfinite(scores))[0]
            raise DataError(
                f"--teacher {self.spec} scores query {queries[query].id!r} with document "
                f"{docs[doc].id!r} as {scores[layer, query, doc]}, which nothing can be learned "
                "from. Try --teacher-precision float32."
            )
        return scores


def _columns(batch: "BatchRows") -> "Tensor":
    """Return the column (B, N) of each candidate, 0 for padding: own documents come first."""
    import torch

    width = max(len(example.docs) for example in batch.examples)
    columns = torch.zeros(len(batch.examples), width, dtype=torch.long)
    for row, example in enumerate(batch.examples):
        positions = np.searchsorted(batch.docs, example.docs)
        columns[row, : len(positions)] = torch.from_numpy(positions)
    return columns


def score_all(teacher: Teacher, queries: Sequence[Doc], docs: Sequence[Doc]) -> NDArray[np.float32]:
    """Return a teacher's scores of each query with each document, (queries, documents)."""
    if hasattr(teacher, "score_all"):
        scores: NDArray[np.float32] = teacher.score_all(queries, docs)
        return scores
    query_rows = np.repeat(np.arange(len(queries)), len(docs))
    doc_rows = np.tile(np.arange(len(docs)), len(queries))
    pairs = Pairs(tuple(queries), tuple(docs), query_rows, doc_rows)
    return teacher.score(pairs).reshape(len(queries), len(docs))


def texts_a_step(settings: "TrainSettings", processes: int = 1) -> tuple[int, int]:
    """Return how many queries, and how many documents, a process's teacher reads at most a step."""
    return settings.batch_size * processes, settings.batch_size * settings.candidates_per_query


def check_live(teacher: Teacher | str, settings: "TrainSettings", *, processes: int = 1) -> None:
    """Check that a teacher can score the batches of a training.

    Raises:
        ConfigError: it scores before training only, or reads more pairs a step than is allowed.

    """
    if isinstance(teacher, str):
        teacher = split_label(teacher)[1]
    name = teacher if isinstance(teacher, str) else type(teacher).__name__
    kind = name.partition(":")[0]
    part = TEACHERS.split(teacher)[0] if isinstance(teacher, str) else teacher
    stored = isinstance(teacher, str) and kind in TEACHERS and kind not in LIVE
    if stored or getattr(part, "unit", None) == "list":
        raise ConfigError(
            f"--teacher {name} cannot score while the student trains: take one of "
            f"{', '.join(LIVE)}. Or score the candidates before training: retrodistill score "
            f"--teacher {name}, then train --scores."
        )
    if settings.compare == "collection":
        raise ConfigError(
            "--teacher scores the documents of a batch, and --compare collection makes each batch "
            "the whole collection. Omit --compare, or use a teacher's --vectors or --scores."
        )
    queries, docs = texts_a_step(settings, processes)
    if not _reads_alone(part) and queries * docs > settings.teacher_pairs:
        raise ConfigError(
            f"--teacher {name} reads each query of a batch with each of its documents: "
            f"{queries:,} x {docs:,} = {queries * docs:,} pairs a step, above --teacher-pairs "
            f"{settings.teacher_pairs:,}. Lower --batch-size or --candidates-per-query, raise "
            "--teacher-pairs, or take a late-interaction or bi-encoder teacher, which reads each "
            "text once."
        )


def _scores_layers(teacher: Teacher | str) -> bool:
    """Tell whether a teacher has scores by each of its layers."""
    if isinstance(teacher, str):
        return teacher.startswith("bi-encoder:")
    return bool(getattr(teacher, "scores_layers", False))


def _reads_alone(teacher: Any) -> bool:
    """Tell whether a teacher, or its class, reads each text once, however many pairs it is in."""
    return bool(getattr(teacher, "reads_alone", False))
