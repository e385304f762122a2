"""Builds a student, its task and its batches from settings; saves it to a folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.stages.training.sources.joint import joint_of
from retrodistill.stages.training.sources.states import StateSource

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from retrodistill.data.datasets import Collection
    from retrodistill.models.students.kinds import StudentKind
    from retrodistill.models.students.tasks import Task
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.sources import SignalSource


def load_student(kind: str, model: str, device: "torch.device") -> Any:
    """Return a model of a kind of student to train, from a folder or a hub id.

    What the kind needs and the model lacks is new and random: the head of a cross-encoder, the
    projection of token vectors of a late-interaction model.
    """
    return STUDENT_KINDS[kind].load(model, device)


def start_student(
    student: str, settings: TrainSettings, collection: "Collection", device: "torch.device"
) -> Any:
    """Return the model to train: cut, pruned, with its pooling, prompts, towers, head, adapters.

    Raises:
        ConfigError: the model cannot be loaded, or cut so.

    """
    from retrodistill.models.students import adapters, experts, transforms
    from retrodistill.models.students.towers import side_modules

    kind: StudentKind = STUDENT_KINDS[settings.student_kind]
    whole = model = kind.load(student, device)
    if settings.keep_layers:
        model = transforms.keep_layers(model, settings.keep_layers)
    if settings.width is not None:
        model = transforms.narrow(model, settings.width)
    if settings.prune_vocabulary:
        texts = (text.full_text for side in (collection.queries, collection.docs) for text in side)
        model = transforms.prune_vocabulary(model, texts)
    if settings.pooling is not None:
        model = transforms.pooled(model, settings.pooling)
    if settings.freeze == "document" and settings.doc_student is None:
        model = transforms.two_towers(model, whole)
    if settings.doc_student is not None:
        documents = kind.load(settings.doc_student, device)
        if settings.doc_keep_layers:
            documents = transforms.keep_layers(documents, settings.doc_keep_layers)
        model = transforms.two_towers(model, documents)
    if settings.query_prompt is not None or settings.doc_prompt is not None:
        model = transforms.prompted(
            model, query=settings.query_prompt, document=settings.doc_prompt
        )
    model = experts.trained_experts(model)
    if settings.experts is not None:
        model = experts.with_experts(model, settings.experts, seed=settings.seed)
    model = kind.start(model, settings)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    if settings.lora_rank:
        model = adapters.add_lora(model, rank=settings.lora_rank, alpha=settings.lora_alpha)
        for layer in kind.new_layers(model):
            layer.requires_grad_(True)
    if settings.freeze:
        for module in side_modules(model, settings.freeze):
            module.requires_grad_(False)
            set_dropout(module, 0.0)
    return model


def constant_vectors(
    model: Any, settings: TrainSettings, collection: "Collection"
) -> "NDArray[np.float32] | None":
    """Return the vectors of all documents (C, D) if their tower is not trained, else None.

    They are those of the cache that embedding and mining share.
    """
    from retrodistill.data.store.vectors import doc_vectors

    if settings.freeze != "document":
        return None
    kind: StudentKind = STUDENT_KINDS[settings.student_kind]
    assert kind.encoder is not None  # `check_kind` has refused the others
    encoder = kind.encoder(
        model,
        max_tokens=min(model.max_seq_length or settings.doc_tokens, settings.doc_tokens),
        batch_tokens=settings.batch_tokens,
        precision=settings.precision,
    )
    return doc_vectors(encoder, collection.docs)


def build_task(
    model: Any,
    terms: "Sequence[LossTerm]",
    settings: TrainSettings,
    dtype: "torch.dtype",
    sources: "Sequence[SignalSource]" = (),
    *,
    doc_vectors: "NDArray[np.float32] | None" = None,
) -> "Task":
    """Return a model and its objective as a task.

    `doc_vectors` (C, D) are those of all documents, if their tower is not trained.

    Raises:
        ConfigError: the objective needs a signal that this kind of student does not have.

    """
    from retrodistill.models.students.tasks import SECOND, STUDENT_SIGNALS

    comparing = [term for term in terms if term.of_transfers]
    terms = [term for term in terms if not term.of_transfers]
    kind: StudentKind = STUDENT_KINDS[settings.student_kind]
    requested = {signal for term in terms for signal in term.signals}
    absent = (requested & STUDENT_SIGNALS) - kind.task.gives
    if absent:
        able = [name for name in STUDENT_KINDS if absent <= STUDENT_KINDS[name].task.gives]
        raise ConfigError(
            f"--student-kind {settings.student_kind} has no {', '.join(sorted(absent))}: choose "
            f"another objective, or --student-kind {' or '.join(able) or 'bi-encoder'}."
        )
    of_batch = {"teacher_batch_scores", "teacher_doc_vectors"}
    labelled = any("." in name for source in sources if source.live for name in source.gives)
    if not kind.task.reads_apart and (labelled or requested & of_batch):
        raise ConfigError(
            f"--student-kind {settings.student_kind} reads a query with its own candidates alone, "
            "but the objective compares it with all documents of a batch: use listwise-kl or "
            "margin-mse with --scores, or train a bi-encoder."
        )
    dimension = next((source.dimension for source in sources if source.dimension), None)
    task = kind.task.build(model, terms, settings, dtype, teacher_dimension=dimension)
    if doc_vectors is not None:
        task.keep_documents(doc_vectors, compared=settings.compare == "collection")
    if "layer_scores" in requested:
        if doc_vectors is not None:
            raise ConfigError(
                "layer_scores come from documents that are encoded in training, but --freeze "
                "document keeps their vectors. Drop layer-kl, or train both sides."
            )
        task.score_layers()
    states = next((source for source in sources if isinstance(source, StateSource)), None)
    if states is not None and requested & states.gives:
        task.tokens = states.reader(model, requested, settings)
    if SECOND & requested:
        task.read_twice()
    joint = joint_of(sources)
    task.joint = joint and joint.module
    task.live = tuple(source for source in sources if source.live and source is not joint)
    task = task.to(model.device)
    for source in sources:
        source.attach(task)
    return task if settings.inner_learning_rate is None else _adapting(task, comparing, settings)


def _adapting(task: "Task", comparing: "Sequence[LossTerm]", settings: TrainSettings) -> "Task":
    """Return a task whose weights are adapted from part to part of a batch."""
    from retrodistill.models.students.meta import MetaTask
    from retrodistill.objectives.objective import bind

    rate, steps = settings.inner_learning_rate, settings.inner_steps
    assert rate is not None
    return MetaTask(task, bind(comparing) if comparing else None, rate=rate, steps=steps)


def build_batches(
    model: Any,
    settings: TrainSettings,
    collection: "Collection",
    sources: "Sequence[SignalSource]" = (),
) -> Callable[..., dict[str, Any]]:
    """Return what turns examples, or texts alone, into the inputs of the task."""
    kind: StudentKind = STUDENT_KINDS[settings.student_kind]
    if settings.inner_learning_rate is not None:
        from retrodistill.models.students.meta import MetaBatch

        views = collection.meta_views
        return MetaBatch([kind.batches(model, view, settings, sources) for view in views])
    return kind.batches(model, collection, settings, sources)


def save_student(task: Any, settings: TrainSettings, folder: Path) -> None:
    """Write the trained model into a folder, in the format of sentence-transformers."""
    from retrodistill.models.inference import without_bars
    from retrodistill.models.students.adapters import merge_lora
    from retrodistill.models.students.experts import plain_experts
    from retrodistill.models.students.transforms import with_projection

    model = task.model.eval()
    if settings.lora_rank:
        model = merge_lora(model)
    model = plain_experts(model)
    if task.projection is not None and settings.projection == "keep":
        model = with_projection(model, task.projection.weight.detach())
    with without_bars():
        model.save(str(folder), safe_serialization=True)
    head = getattr(task, "head", None)
    if head is not None:
        head.save(folder)


def set_dropout(model: "torch.nn.Module", probability: float) -> None:
    """Set the dropout probability of every layer of a model that is about to be trained."""
    from torch import nn

    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = probability
        elif isinstance(getattr(layer, "dropout_prob", None), float):
            layer.dropout_prob = probability  # type: ignore[assignment]
