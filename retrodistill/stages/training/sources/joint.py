"""A teacher that is trained together with its student: `train --joint-teacher`."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log
from retrodistill.base.manifest import digest, digest_files
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.data.store.lineage import Lineage, model_lineage
from retrodistill.objectives.labels import JOINT, LABELLED, OWN
from retrodistill.stages.training.sources import SignalSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from retrodistill.data.datasets import Collection as Texts
    from retrodistill.models.students.batches import BatchRows
    from retrodistill.models.students.joint import JointModel
    from retrodistill.models.students.kinds import StudentKind
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.material import Material


class JointTeacher(SignalSource):
    """Scores of a second model, which is trained with the student and saved beside it.

    It is any kind of student: a cross-encoder reads each query with its own candidates, the others
    read each text of a batch once. A term has its scores in a teacher's place, and sends a
    gradient into it unless it says `stop_gradient=true`; or in the student's place, and then it
    trains this model alone.
    """

    name = "joint-teacher"
    about = "a joint teacher"
    gives = frozenset(f"{JOINT}.{name}" for name in OWN.values())
    live = True
    opens_late = True

    def __init__(self, spec: str) -> None:
        self.spec = spec
        kind, self.start = STUDENT_KINDS.split(spec)
        self.kind: StudentKind = kind
        if not self.start:
            raise ConfigError(f"--joint-teacher {spec} has no model: write {spec}:MODEL.")
        names = {f"{JOINT}.{name}" for signal, name in OWN.items() if signal in kind.task.gives}
        self.gives = frozenset(names if kind.task.reads_apart else {f"{JOINT}.scores"})
        self._module: JointModel | None = None

    @classmethod
    def open(cls, name: str, settings: TrainSettings) -> Self:
        """Return the joint teacher of `cross-encoder:MODEL`; it is loaded later."""
        return cls(name)

    @property
    def fingerprint(self) -> str:
        """Hash of the model that it starts from."""
        folder = Path(self.start)
        start = digest_files(folder, "*.safetensors") if folder.is_dir() else self.start
        return digest(self.kind.name, start)

    @property
    def lineage(self) -> Lineage:
        """What the model that it starts from was trained on."""
        return model_lineage(self.start)

    @property
    def teachers(self) -> Sequence[str]:
        """Its name, as an objective has it, and the model that it starts from."""
        return (f"{JOINT}={self.spec}",)

    @property
    def module(self) -> "JointModel":
        """The model in training, once it is loaded."""
        assert self._module is not None
        return self._module

    def settings(self, settings: TrainSettings) -> TrainSettings:
        """Return the settings of its own training: what shapes the student alone is not its."""
        rate, reranks = settings.teacher_learning_rate, self.kind.doc_scorer is None
        return replace(
            settings,
            student_kind=self.spec.removesuffix(f":{self.start}"),
            keep_layers=(),
            width=None,
            prune_vocabulary=False,
            pooling=None,
            query_prompt=None,
            doc_prompt=None,
            doc_student=None,
            doc_keep_layers=(),
            freeze=None,
            compare="batch",
            dims=(),
            query_tokens=settings.teacher_tokens,
            doc_tokens=settings.teacher_tokens,
            precision=settings.teacher_precision,
            learning_rate=settings.learning_rate if rate is None else rate,
            dev_docs="scored" if settings.dev_split and reranks else settings.dev_docs,
        )

    def prepare(
        self, material: "Material", terms: "Sequence[LossTerm]", settings: TrainSettings
    ) -> None:
        """Check that its lists are more than a positive, and log what a step costs.

        Raises:
            ConfigError: they are not.

        """
        lists = any(f"{JOINT}.scores" in term.signals for term in terms)
        if lists and (material.lists is None or not material.lists.scored):
            raise ConfigError(
                "--joint-teacher: a loss over a query's list needs its candidates, but without "
                "--scores a list is the labelled document alone. Give --scores: any run will do, "
                "such as one that was mined."
            )
        if lists and not self.kind.task.reads_apart:
            pairs = settings.batch_size * settings.candidates_per_query
            log.info(
                f"--joint-teacher {self.spec} is trained on up to {pairs:,} pairs of a query and a "
                f"document in each of {material.steps(settings):,} steps."
            )

    def load(
        self,
        collection: "Texts",
        terms: "Sequence[LossTerm]",
        settings: TrainSettings,
        device: "torch.device",
    ) -> "JointModel":
        """Return the model as a module to train, from where it starts.

        Raises:
            ConfigError: it cannot be loaded, or lacks a signal that the objective asks for.

        """
        from retrodistill.models.inference import body_dtype
        from retrodistill.models.students.joint import JointModel
        from retrodistill.stages.training.building import start_student

        adapted = self.settings(settings)
        model = start_student(self.start, adapted, collection, device)
        task = self.kind.task.build(model, (), adapted, body_dtype(adapted.precision, device))
        requested = self.gives & {signal for term in terms for signal in term.signals}
        if f"{JOINT}.layer_scores" in requested:
            task.score_layers()
        collate = self.kind.batches(model, collection, adapted, ())
        self._module = JointModel(task, collate, requested)
        return self._module

    def of(self, batch: "BatchRows", student: "dict[str, Tensor] | None") -> "dict[str, Tensor]":
        """Return its scores of a batch, as the student's task does once in a forward pass."""
        signals: dict[str, Tensor] = self.module(batch)
        return signals


def joint_of(sources: "Sequence[SignalSource]") -> JointTeacher | None:
    """Return the joint teacher, if there is one among the sources."""
    return next((source for source in sources if isinstance(source, JointTeacher)), None)


def check_joint(joint: JointTeacher, terms: "Sequence[LossTerm]", settings: TrainSettings) -> None:
    """Check that the joint teacher is trained, and can score what the student is compared on.

    Raises:
        ConfigError: it would be a teacher that nothing trains, or scores other documents.

    """
    trained = any(
        JOINT in _labels(term, OWN) or (JOINT in _labels(term, LABELLED) and not term.stop_gradient)
        for term in terms
    )
    if not trained:
        raise ConfigError(
            f"objective {settings.objective!r} stops every gradient of the joint teacher, so "
            "nothing trains it. Add a loss of its own, such as "
            "listwise-ce(student_scores=joint.scores), or give it as --teacher."
        )
    if settings.compare == "collection" and joint.kind.task.reads_apart:
        raise ConfigError(
            f"--joint-teacher {joint.spec} scores the documents of a batch, and --compare "
            "collection makes each batch the whole collection. Omit --compare."
        )


def _labels(term: "LossTerm", signals: Collection[str]) -> set[str]:
    """Return the labels of the models in the place of these signals."""
    return {alias.partition(".")[0] for name, alias in term.aliases.items() if name in signals}
