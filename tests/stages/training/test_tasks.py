"""Tasks: what reaches the objective, whatever the student, the chunks and the processes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.models import save_tiny_model
from fakes.processes import in_two_processes
from torch import nn

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.batches import TrainingExample
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.kinds.late_interaction import batch_maxsim
from retrodistill.models.students.late_interaction import LateInteractionEncoder
from retrodistill.models.students.pair_head import PairHead, load_pair_head
from retrodistill.models.students.processes import gathered
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import build_batches, build_task, load_student
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.examples import Schedule
from retrodistill.stages.training.material import Material
from retrodistill.stages.training.sources.scores import ScoreSource
from retrodistill.stages.training.sources.vectors import VectorSource

TEACHER = [ScoreSource(Run.from_dict({"q0": {"d0": 1.0}}))]
"""Gives the scores of the examples themselves."""


CPU = torch.device("cpu")
SHORT = TrainSettings(
    candidates_per_query=4,
    batch_size=6,
    max_steps=3,
    query_tokens=16,
    doc_tokens=32,
    batch_tokens=64,
    dropout=0.0,
)


@pytest.fixture(scope="module")
def examples(collection: Collection, scores: Run) -> list[TrainingExample]:
    schedule = Schedule(gather(collection, "train", scores, pool=16), 6, per_query=4, seed=0)
    return [schedule[index] for index in range(6)]


def gradients(
    model: Path, collection: Collection, examples: list[TrainingExample], **changes: object
) -> tuple[float, list[torch.Tensor]]:
    """Return the loss of a batch, and the gradient of each weight, with dropout on."""
    settings = TrainSettings(
        query_tokens=16,
        doc_tokens=32,
        dropout=0.1,
        objective="listwise-kl + contrastive",
        **changes,
    )  # type: ignore[arg-type]
    student = load_student("bi-encoder", str(model), CPU)
    task = build_task(student, parse_objective(settings.objective), settings, torch.float32)
    batches = build_batches(student, settings, collection, TEACHER)
    task.train()
    torch.manual_seed(3)
    loss = task(**batches(examples))["loss"]
    loss.backward()
    return loss.item(), [
        parameter.grad for parameter in student.parameters() if parameter.grad is not None
    ]


def test_cached_gradients_are_those_of_the_full_batch(
    collection: Collection, examples: list[TrainingExample], tiny_model: Path
) -> None:
    """Gradient caching that differs from the full batch: other dropout, or a lost chunk."""
    plain_loss, plain = gradients(tiny_model, collection, examples, batch_tokens=64)
    cached_loss, cached = gradients(
        tiny_model, collection, examples, batch_tokens=64, cache_gradients=True
    )
    assert cached_loss == plain_loss
    assert len(cached) == len(plain) > 10
    for of_cached, of_plain in zip(cached, plain, strict=True):
        torch.testing.assert_close(of_cached, of_plain, rtol=0, atol=1e-7)


def seen_by(
    objective: str,
    settings: TrainSettings,
    model: Path,
    collection: Collection,
    examples: list[TrainingExample],
) -> list[Signals]:
    """Return the signals that reach an objective in one forward pass."""
    student = load_student(settings.student_kind, str(model), CPU)
    task = build_task(student, parse_objective(objective), settings, torch.float32)
    task.eval()
    seen: list[Signals] = []

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(parse_objective(objective))(signals)

    task._objective = spy
    task(**build_batches(student, settings, collection, TEACHER)(examples))
    return seen


def test_matryoshka_compares_the_first_dimensions(
    collection: Collection, examples: list[TrainingExample], tiny_model: Path
) -> None:
    """Truncated vectors that are not scaled to length 1 again, or of which only one size trains."""
    settings = TrainSettings(dims=(8, 16), query_tokens=16, doc_tokens=32)
    whole, short, half = seen_by("contrastive", settings, tiny_model, collection, examples)
    assert [signals["doc_vectors"].shape[1] for signals in (whole, short, half)] == [32, 8, 16]
    expected = nn.functional.normalize(whole["doc_vectors"][:, :8], dim=-1)
    torch.testing.assert_close(short["doc_vectors"], expected)
    task = build_task(
        load_student("bi-encoder", str(tiny_model), CPU),
        parse_objective("contrastive"),
        settings,
        torch.float32,
    ).eval()
    student = task.model
    loss = task(**build_batches(student, settings, collection, TEACHER)(examples))["loss"]
    contrastive = bind(parse_objective("contrastive"))
    terms = [contrastive(signals)["contrastive"] for signals in (whole, short, half)]
    torch.testing.assert_close(loss, torch.stack(terms).mean())


@pytest.mark.parametrize("dimension", [32, 48])
@pytest.mark.parametrize(
    "objective",
    [
        "leaf",
        "embed-distill",
        "ckd",
        "norm-and-direction",
        "class-mean-direction",
        "sinkhorn",
        "rkd-distance + rkd-angle",
        "in-batch-kl",
        "dse + listwise-kl",
        "rkd-distance + embed-distill",
    ],
)
def test_matryoshka_and_teachers_of_other_dimensions_fit_every_loss(
    objective: str,
    dimension: int,
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """A traceback in the first step, or short vectors that no term trains."""
    teacher = DenseEncoder(save_tiny_model(tmp_path / "t", dimension=dimension, seed=1))
    settings = TrainSettings(
        candidates_per_query=4,
        batch_size=4,
        max_steps=1,
        query_tokens=16,
        doc_tokens=32,
        dims=(16, 8),
        queue=8,
        objective=objective,
    )
    out = train_student(
        collection, tiny_model, tmp_path / "s", sources=[scores, teacher], settings=settings
    )
    losses = Manifest.read(out).details["losses"][-1]
    assert all(np.isfinite(value) for value in losses.values())
    follows = any(
        name in objective for name in ("leaf", "distill", "ckd", "norm", "class-mean", "sinkhorn")
    )
    assert DenseEncoder(out).dimension == (dimension if follows else 32)


def test_a_cut_vector_is_compared_with_the_teacher_by_what_is_left_of_it(
    collection: Collection, examples: list[TrainingExample], tiny_model: Path, tmp_path: Path
) -> None:
    """`--dims` beside a teacher's vectors that gives the whole vector's loss again and again."""
    teacher = DenseEncoder(save_tiny_model(tmp_path / "t", dimension=48, seed=1))
    rows = np.array([example.query for example in examples])
    vectors = VectorSource(teacher)
    settings = TrainSettings(dims=(8,), query_tokens=16, doc_tokens=32)
    terms = parse_objective("leaf")
    vectors.prepare(Material(collection=collection, queries=rows), terms, settings)
    model = load_student("bi-encoder", str(tiny_model), CPU)
    task = build_task(model, terms, settings, torch.float32, [vectors]).eval()
    seen: list[Signals] = []

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task._objective = spy
    task(**build_batches(model, settings, collection, [vectors])(examples))
    whole, short = seen
    weight = task.projection.weight
    torch.testing.assert_close(short["matched_doc_vectors"], short["doc_vectors"] @ weight[:, :8].T)
    torch.testing.assert_close(whole["matched_doc_vectors"], whole["doc_vectors"] @ weight.T)


def test_dims_are_for_the_vector_of_a_bi_encoder(
    collection: Collection, scores: Run, tmp_path: Path
) -> None:
    """The first words of a vocabulary trained as if they were a short vector."""
    model = save_tiny_sparse(tmp_path / "sparse")
    for kind in ("sparse", "late-interaction", "cross-encoder"):
        settings = TrainSettings(dims=(8,), student_kind=kind)
        with pytest.raises(ConfigError, match=f"--dims is for .* bi-encoder, not {kind}"):
            train_student(collection, model, tmp_path / "s", sources=[scores], settings=settings)


@pytest.mark.parametrize(
    ("kind", "save"),
    [("sparse", save_tiny_sparse), ("late-interaction", save_tiny_late_interaction)],
)
def test_other_students_score_as_their_library_does(
    kind: str,
    save: Callable[[Path], Path],
    collection: Collection,
    examples: list[TrainingExample],
    tmp_path: Path,
) -> None:
    """A sparse or late-interaction student trained on other scores than it will be searched by."""
    model = save(tmp_path)
    settings = TrainSettings(student_kind=kind, query_tokens=128, doc_tokens=128, batch_tokens=64)  # type: ignore[arg-type]
    (signals,) = seen_by("contrastive", settings, model, collection, examples)
    library = load_student(kind, str(model), CPU)
    dense = {"convert_to_sparse_tensor": False} if kind == "sparse" else {}
    for row, example in enumerate(examples):
        query = library.encode_query([collection.queries[example.query].full_text], **dense)
        docs = library.encode_document(collection.docs.full_texts(example.docs), **dense)
        expected = library.similarity(query, docs)[0]
        student_scores = signals["student_scores"][row, : len(example.docs)]
        np.testing.assert_allclose(student_scores.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "save", "objective"),
    [
        ("sparse", save_tiny_sparse, "margin-mse + 0.001*flops"),
        ("late-interaction", save_tiny_late_interaction, "listwise-kl + contrastive"),
    ],
)
def test_other_students_are_trained_and_saved(
    kind: str,
    save: Callable[[Path], Path],
    objective: str,
    collection: Collection,
    scores: Run,
    tmp_path: Path,
) -> None:
    """A student whose saved folder is that of another kind, or holds the weights of the start."""
    start = save(tmp_path)
    settings = TrainSettings(
        candidates_per_query=4,
        batch_size=4,
        max_steps=2,
        doc_tokens=32,
        query_tokens=16,
        learning_rate=1e-3,
        student_kind=kind,
    )  # type: ignore[arg-type]
    out = train_student(
        collection,
        start,
        tmp_path / "s",
        sources=[scores],
        settings=dataclasses.replace(settings, objective=objective),
    )
    before, after = (load_student(kind, str(folder), CPU).state_dict() for folder in (start, out))
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)


def test_a_late_interaction_student_starts_from_a_bi_encoder(
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A student that no command can start, or whose new projection is lost when it is saved."""
    settings = TrainSettings(
        candidates_per_query=4,
        batch_size=6,
        max_steps=8,
        query_tokens=16,
        doc_tokens=32,
        learning_rate=3e-3,
        dropout=0.0,
        student_kind="late-interaction",
    )
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[scores],
        settings=dataclasses.replace(
            settings, objective="listwise-kl + contrastive(temperature=1)"
        ),
    )
    assert "a new one to 128 dimensions is trained" in capsys.readouterr().err
    losses = Manifest.read(out).details["losses"]
    assert losses[-1]["contrastive"] < losses[0]["contrastive"]
    assert load_student("late-interaction", str(out), CPU).get_embedding_dimension() == 128
    assert "a new one" not in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is not a late-interaction model"):
        LateInteractionEncoder(str(tiny_model))


def test_a_text_without_tokens_scores_0() -> None:
    """An infinity, or 0 / 0, for a document of signs that do not count."""
    queries = torch.randn(2, 3, 4, requires_grad=True)
    docs = torch.randn(2, 3, 4) * torch.tensor([1.0, 0.0])[:, None, None]
    scores = batch_maxsim(queries, docs)
    assert scores[:, 1].tolist() == [0.0, 0.0]
    assert (scores[:, 0] != 0).all()
    scores.sum().backward()
    assert queries.grad is not None
    assert queries.grad.isfinite().all()


def test_maxsim_by_hand() -> None:
    """Query tokens (1,0), (0,1); document tokens (2,0), (0,-1), none: best 2 and 0, sum 2."""
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    docs = torch.tensor([[[2.0, 0.0], [0.0, -1.0], [0.0, 0.0]]])
    assert batch_maxsim(queries, docs).item() == 2.0
    assert batch_maxsim(queries, docs[:, 1:]).item() == -1.0


@pytest.mark.parametrize("keep", ["keep", "drop"])
def test_a_student_learns_the_space_of_a_larger_teacher(
    keep: str, collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A projection that is trained and then lost, so that the student is in no known space."""
    teacher = DenseEncoder(save_tiny_model(tmp_path / "teacher", dimension=48, seed=1))
    settings = TrainSettings(
        candidates_per_query=4,
        batch_size=6,
        max_steps=60,
        doc_tokens=32,
        query_tokens=16,
        learning_rate=5e-3,
        projection=keep,
        queue=8,
        dropout=0.0,
    )  # type: ignore[arg-type]
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[scores, teacher],
        settings=dataclasses.replace(settings, objective="leaf + ckd"),
    )
    student = DenseEncoder(out)
    assert student.dimension == (48 if keep == "keep" else 32)
    losses = Manifest.read(out).details["losses"]
    assert losses[-1]["leaf"] < 0.7 * losses[0]["leaf"]
    if keep == "keep":
        texts = collection.docs.full_texts(np.arange(6))
        cosines = (student.encode_docs(texts) * teacher.encode_docs(texts)).sum(1)
        untrained = DenseEncoder(save_tiny_model(tmp_path / "o", dimension=48, seed=2))
        assert (
            cosines.mean()
            > 0.1 + (untrained.encode_docs(texts) * teacher.encode_docs(texts)).sum(1).mean()
        )


def test_a_pair_head_is_kept_with_its_student(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A head that is trained and thrown away."""
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[scores],
        settings=dataclasses.replace(SHORT, objective="dse"),
    )
    head = load_pair_head(out)
    vectors = torch.randn(3, 32)
    assert head(vectors[:, None], vectors[None]).shape == (3, 3)
    with pytest.raises(ConfigError, match="has no head"):
        load_pair_head(tiny_model)
    assert not torch.equal(head.score.weight, PairHead(32).score.weight)


def test_an_objective_that_the_student_cannot_give_is_refused(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A cross-encoder asked for vectors, found out by a KeyError at the first step."""
    settings = TrainSettings(student_kind="cross-encoder", max_steps=1)
    with pytest.raises(ConfigError, match=r"cross-encoder has no doc_vectors, query_vectors"):
        train_student(
            collection,
            tiny_model,
            tmp_path / "s",
            sources=[scores],
            settings=dataclasses.replace(settings, objective="flops"),
        )
    with pytest.raises(ConfigError, match="--dims 64: the student has 32"):
        train_student(
            collection,
            tiny_model,
            tmp_path / "s",
            sources=[scores],
            settings=TrainSettings(dims=(64,)),
        )


def of_one_process(rank: int, world: int) -> dict[str, torch.Tensor]:
    """Return the rows of both processes in the order of one, and the gradient of its own."""
    rows = torch.arange(2.0 * (2 + rank)).reshape(2 + rank, 2) + 100 * rank
    rows.requires_grad_()
    every = gathered(rows)
    weight = torch.full((5, 1), 1.0 + rank)
    (every * weight).sum().backward()
    assert rows.grad is not None
    return {"every": every.detach(), "gradient": rows.grad}


@pytest.mark.slow
def test_processes_share_their_documents() -> None:
    """Negatives of other processes that come without gradients, or in an order that shifts rows."""
    of_process_0, of_process_1 = in_two_processes(of_one_process)
    assert of_process_0["every"][:, 0].tolist() == [0, 2, 100, 102, 104]
    assert of_process_1["every"][:, 0].tolist() == [100, 102, 104, 0, 2]
    # Each row is used by both processes, with weights 1 and 2.
    assert (of_process_0["gradient"] == 3).all()
    assert (of_process_1["gradient"] == 3).all()
