"""A live teacher: what it scores, what it costs, and that nothing of it reaches the student."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import models as fake_models
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.language_models import save_tiny_causal
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from safetensors import safe_open
from sentence_transformers import SentenceTransformer

from retrodistill import train
from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Pairs
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.late_interaction import LateInteractionEncoder
from retrodistill.models.students.pair_head import PairHead
from retrodistill.models.teachers import load_teacher
from retrodistill.models.teachers.late_interaction import LateInteractionTeacher
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.stages.reporting.chain import inputs_named
from retrodistill.stages.reporting.commands import command_of
from retrodistill.stages.training import loop, train_student
from retrodistill.stages.training.building import build_batches, build_task, load_student
from retrodistill.stages.training.checks import with_perplexity
from retrodistill.stages.training.material import gather_material
from retrodistill.stages.training.sources.teacher import TeacherSource, check_live


def save_pair_head(folder: Path) -> Path:
    model = save_tiny_model(folder, layers=1, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        PairHead(32).save(model)
    return model


OBJECTIVE = "batch-kl(student_temperature=1) + batch-margin-mse"
TINY = TrainSettings(
    objective=OBJECTIVE,
    candidates_per_query=4,
    batch_size=4,
    max_steps=4,
    query_tokens=16,
    doc_tokens=32,
    dropout=0.0,
    precision="float32",
    teacher_precision="float32",
)
SAVE: dict[str, Callable[[Path], Path]] = {
    "late-interaction": lambda folder: save_tiny_late_interaction(folder, seed=1),
    "bi-encoder": lambda folder: save_tiny_model(folder, layers=1, dimension=48, seed=1),
    "pair-head": lambda folder: save_pair_head(folder),
    "sparse": lambda folder: save_tiny_sparse(folder, seed=1),
    "cross-encoder": lambda folder: save_tiny_cross_encoder(folder, seed=1),
    "causal-lm": lambda folder: save_tiny_causal(folder),
}

UNEVEN = Run.from_dict(
    {
        "q0": {"d0": 3.0, "d30": 2.0, "d31": 1.0, "d32": 0.5},
        "q1": {"d1": 3.0, "d30": 2.0},
        "q2": {"d2": 3.0, "d30": 2.0, "d33": 1.0},
    }
)
"""Lists of four, two and three documents; one of them is a candidate of all three queries."""


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A late-interaction teacher, as a flag names it."""
    return f"late-interaction:{SAVE['late-interaction'](tmp_path_factory.mktemp('late'))}"


def seen_by(
    source: TeacherSource | list[TeacherSource],
    collection: Collection,
    student: Path,
    settings: TrainSettings = TINY,
    scores: Run = UNEVEN,
) -> tuple[list[Signals], Any]:
    """Return the signals that reach the objective in one forward pass of all queries, and them."""
    sources = source if isinstance(source, list) else [source]
    terms = parse_objective(settings.objective)
    material = gather_material(collection, "train", scores, terms, settings)
    for each in sources:
        each.prepare(material, terms, settings)
    model = load_student("bi-encoder", str(student), torch.device("cpu"))
    task = build_task(model, terms, settings, torch.float32, sources).eval()
    examples = list(material.schedule(model, replace(settings, batch_size=3, max_steps=1)))
    seen: list[Signals] = []

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task._objective = spy
    task(**build_batches(model, settings, collection, sources)(examples))["loss"].backward()
    return seen, examples


@pytest.mark.parametrize("kind", list(SAVE))
def test_every_document_of_the_batch_is_scored_for_every_query(
    kind: str, collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """Columns in another order, padding as a column, or scores of a query's own list alone."""
    spec = f"{kind}:{SAVE[kind](tmp_path)}"
    (signals,), examples = seen_by(TeacherSource(spec), collection, tiny_model)
    rows = np.unique(np.concatenate([example.docs for example in examples]))
    assert len(rows) == 7
    assert not signals["mask"].all()
    teacher = load_teacher(spec, collection, precision="float32")
    for example, scores in zip(examples, signals["teacher_batch_scores"], strict=True):
        for row, score in zip(rows, scores, strict=True):
            pair = Pairs.of([collection.queries[example.query]], [collection.docs[int(row)]])
            assert score.item() == pytest.approx(teacher.score(pair)[0], rel=1e-4, abs=1e-4)


def test_a_wider_teacher_has_its_own_tokenizer_and_prompts(
    collection: Collection, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that reads the student's tokens, or its prompt, and scores noise."""
    words = fake_models.vocabulary()
    special = len(fake_models.SPECIAL)
    shuffled = [*words[:special], *reversed(words[special:])]
    with monkeypatch.context() as patch:
        patch.setattr(fake_models, "vocabulary", lambda: shuffled)
        folder = save_tiny_model(
            tmp_path, dimension=48, prompts={"query": "find: ", "document": "read: "}, seed=1
        )
    library = SentenceTransformer(str(folder), device="cpu")
    student = SentenceTransformer(str(tiny_model), device="cpu")
    ids = [model.tokenizer("blood")["input_ids"] for model in (library, student)]
    assert ids[0] != ids[1]
    settings = replace(TINY, query_prompt="heart ", doc_prompt="liver ")
    (signals,), examples = seen_by(
        TeacherSource(f"bi-encoder:{folder}"), collection, tiny_model, settings
    )
    queries = collection.queries.full_texts(np.array([each.query for each in examples]))
    rows = np.unique(np.concatenate([example.docs for example in examples]))
    docs = collection.docs.full_texts(rows)
    expected = library.encode_query(queries) @ library.encode_document(docs).T
    np.testing.assert_allclose(signals["teacher_batch_scores"], expected, rtol=1e-4, atol=1e-5)


def test_a_text_is_read_once_whatever_its_queries_and_the_student_s_dimensions(
    late: str, collection: Collection, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate of three queries encoded three times; all of it again for each of --dims."""
    read: list[str] = []
    encode_docs = LateInteractionEncoder.encode_docs

    def counted(self: LateInteractionEncoder, texts: Any) -> Any:
        read.extend(texts)
        return encode_docs(self, texts)

    source = TeacherSource(late)
    monkeypatch.setattr(LateInteractionEncoder, "encode_docs", counted)
    seen, _ = seen_by(source, collection, tiny_model, replace(TINY, dims=(8, 16)))
    assert len(seen) == 3
    read.remove("a")  # the model is tried with it when it is loaded
    assert len(read) == len(set(read)) == 7


def test_only_the_student_learns_and_is_saved(
    collection: Collection, scores: Run, tiny_model: Path, late: str, tmp_path: Path
) -> None:
    """A teacher that drifts with its student, that drops tokens, or that doubles its folder."""
    teacher = LateInteractionTeacher(late.partition(":")[2])
    model = teacher._encoder.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sizes = []

    class Spied(TeacherSource):
        def of(self, batch: Any, student: Any) -> dict[str, torch.Tensor]:
            assert not any(module.training for module in model.modules())
            signals = super().of(batch, student)
            assert not signals["teacher_batch_scores"].requires_grad
            checkpoints = tmp_path / "s.checkpoints"
            for path in checkpoints.glob("checkpoint-*/model.safetensors"):
                with safe_open(path, "pt") as tensors:
                    sizes.append(len(tensors.keys()))
            return signals

    settings = replace(TINY, save_steps=1, learning_rate=1e-2)
    out = train_student(
        collection,
        tiny_model,
        tmp_path / "s",
        sources=[scores, Spied(teacher)],
        settings=settings,
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in model.parameters())
    student = SentenceTransformer(str(out), device="cpu")
    start = SentenceTransformer(str(tiny_model), device="cpu")
    assert student.state_dict().keys() == start.state_dict().keys()
    assert set(sizes) == {len(start.state_dict())}
    assert Manifest.read(out).inputs["teacher"] == teacher.fingerprint


def test_a_teacher_in_memory_is_wrapped_and_shapes_the_student(
    collection: Collection, scores: Run, tiny_model: Path, late: str, tmp_path: Path
) -> None:
    """A teacher that is asked and not learned from: the same student under the opposite teacher."""

    class Opposite(LateInteractionTeacher):
        def score(self, pairs: Pairs) -> np.ndarray:
            return -super().score(pairs)

    folder = late.partition(":")[2]
    prints = set()
    for number, teacher in enumerate((LateInteractionTeacher(folder), Opposite(folder))):
        out = train_student(
            collection,
            tiny_model,
            tmp_path / f"{number}",
            sources=[scores, teacher],
            settings=TINY,
        )
        manifest = Manifest.read(out)
        prints.add(manifest.fingerprint)
        assert "teacher_perplexity" in manifest.details
        assert f"`{type(teacher).__name__}`" in (out / "README.md").read_text()
    assert len(prints) == 2


class Killed(Exception):
    """The machine has gone."""


def test_a_killed_and_resumed_training_is_the_uninterrupted_one(
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    late: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another teacher in the second half, or random numbers that loading the teacher has drawn."""
    settings = replace(TINY, save_steps=2, dropout=0.1)

    def trained(name: str, spec: str = late, *, resume: bool = False) -> Path:
        sources = [scores, TeacherSource(spec)]
        return train_student(
            collection,
            tiny_model,
            tmp_path / name,
            sources=sources,
            settings=settings,
            resume=resume,
        )

    def kill(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop._Bar, "on_save", kill, raising=False)
        with pytest.raises(Killed):
            trained("s")
    other = f"late-interaction:{save_tiny_late_interaction(tmp_path / 'other', seed=2)}"
    with pytest.raises(ConfigError, match="other settings: teacher "):
        trained("s", other, resume=True)
    resumed = Manifest.read(trained("s", resume=True))
    assert resumed.fingerprint == Manifest.read(trained("whole")).fingerprint
    assert resumed.fingerprint != Manifest.read(trained("else", other)).fingerprint


def test_a_student_of_a_live_teacher_says_so(
    folder: Path,
    tiny_model: Path,
    scores: Run,
    late: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command that cannot be repeated, a card without its teacher, a cost that nobody saw."""
    scores.write(tmp_path / "scores")
    words = f"--data beir:{folder} --scores {tmp_path / 'scores'} --student {tiny_model} "
    words += f"--teacher {late} --out {tmp_path / 's'} --max-steps 2 --batch-size 4 "
    words += "--candidates-per-query 4 --doc-tokens 32 --query-tokens 16 --objective batch-kl"
    assert train.main(words.split()) == 0
    assert "reads up to 4 queries and 16 documents in each of 2 steps" in capsys.readouterr().err
    manifest = Manifest.read(tmp_path / "s", kind="student")
    assert f"--teacher {late}" in (command_of(asdict(manifest)) or "")
    card = (tmp_path / "s" / "README.md").read_text()
    assert card.count("| teacher | `late-interaction:model` |") == 1
    assert "fingerprint of the teacher" in card


def test_a_teacher_of_pairs_costs_what_is_allowed(
    collection: Collection, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours of a cross-encoder, B x M pairs a step, that no line announces or bounds."""
    spec = f"cross-encoder:{SAVE['cross-encoder'](tmp_path)}"
    seen_by(TeacherSource(spec), collection, tiny_model)
    assert "reads up to 64 pairs of a query and a document" in capsys.readouterr().err
    dear = replace(TINY, teacher_pairs=63)
    with pytest.raises(ConfigError, match=r"4 x 16 = 64 pairs a step, above --teacher-pairs 63"):
        check_live(spec, dear)
    with pytest.raises(ConfigError, match=r"8 x 16 = 128 pairs a step"):
        check_live(spec, replace(TINY, teacher_pairs=64), processes=2)
    check_live("late-interaction:any", dear)


def test_a_teacher_of_whole_lists_is_refused(tmp_path: Path, collection: Collection) -> None:
    """A score that depends on which other documents the process has drawn."""
    pairwise = load_teacher(f"pairwise:{save_tiny_cross_encoder(tmp_path)}", collection)
    for teacher in (pairwise, "llm-listwise:m", "bm25"):
        with pytest.raises(ConfigError, match="cannot score while the student trains"):
            check_live(teacher, TINY)


def test_a_score_that_is_no_number_is_named(
    collection: Collection, tiny_model: Path, late: str
) -> None:
    """A loss of NaN from one overflow of a teacher, and weights of NaN after it."""

    class Overflowing(LateInteractionTeacher):
        def score(self, pairs: Pairs) -> np.ndarray:
            scores = super().score(pairs)
            scores[0] = np.inf
            return scores

    source = TeacherSource(Overflowing(late.partition(":")[2]))
    with pytest.raises(DataError, match=r"query 'q0' with document 'd0' as inf.*float32"):
        seen_by(source, collection, tiny_model)


def test_without_scores_the_batch_is_the_labelled_documents(
    collection: Collection, tiny_model: Path, late: str, tmp_path: Path
) -> None:
    """A live teacher that is refused because nobody has scored anything before."""
    out = train_student(
        collection, tiny_model, tmp_path / "s", sources=[TeacherSource(late)], settings=TINY
    )
    losses = Manifest.read(out).details["losses"]
    assert all(row["batch-kl"] > 0 and row["batch-margin-mse"] > 0 for row in losses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "contrastive"}, "learns nothing from a live teacher.*Drop the teacher"),
        ({"student_kind": "cross-encoder"}, "--student-kind cross-encoder reads a query with its"),
        (
            {"objective": "batch-kl + margin-mse(teacher_scores=old.scores)"},
            "asks for old.scores: give --teacher old=TEACHER",
        ),
        (
            {"freeze": "document", "compare": "collection"},
            "--compare collection makes each batch the whole collection",
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(
    changes: dict[str, Any],
    message: str,
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    late: str,
    tmp_path: Path,
) -> None:
    """A flag that is ignored, or a traceback in the first step."""
    start = tiny_model
    if "student_kind" in changes:
        start = save_tiny_cross_encoder(tmp_path / "start")
    with pytest.raises(ConfigError, match=message):
        train_student(
            collection,
            start,
            tmp_path / "s",
            sources=[scores, TeacherSource(late)],
            settings=replace(TINY, **changes),
        )


def test_the_recipes_are_not_what_they_would_silently_become(
    collection: Collection, scores: Run, tiny_model: Path, late: str
) -> None:
    """TCT-ColBERT as its cross-entropy or as a KL over own lists; TAS-B as its pairwise half."""
    both = replace(TINY, objective=f"{OBJECTIVE} + contrastive(temperature=1)")
    (signals,), examples = seen_by(TeacherSource(late), collection, tiny_model, both, scores)
    rows = np.unique(np.concatenate([example.docs for example in examples]))
    columns = np.stack([np.searchsorted(rows, example.docs) for example in examples])
    own = signals["teacher_batch_scores"].gather(1, torch.from_numpy(columns))
    scored = Signals(**signals, teacher_scores=own)

    def value(objective: str) -> float:
        return sum(term.item() for term in bind(parse_objective(objective))(scored).values())

    live = value("batch-kl(student_temperature=1)")
    assert live != pytest.approx(value("contrastive(temperature=1)"), rel=0.05)
    assert live != pytest.approx(value("listwise-kl(student_temperature=1)"), rel=0.05)
    whole = value("batch-margin-mse")
    assert whole != pytest.approx(value("margin-mse"), rel=0.05)


def test_several_teachers_have_labels_and_weights(
    collection: Collection, tiny_model: Path, late: str, tmp_path: Path
) -> None:
    """Two terms of one teacher, weights that are lost, or the scores of another query's list."""
    dense = f"bi-encoder:{SAVE['bi-encoder'](tmp_path)}"
    sources = [TeacherSource(late), TeacherSource(dense, label="old")]
    objective = (
        "0.7*batch-kl + 0.3*batch-kl(teacher_batch_scores=old.batch_scores) "
        "+ margin-mse(teacher_scores=old.scores)"
    )
    settings = replace(TINY, objective=objective)
    (signals,), examples = seen_by(sources, collection, tiny_model, settings)
    rows = np.unique(np.concatenate([example.docs for example in examples]))
    for row, example in enumerate(examples):
        columns = np.searchsorted(rows, example.docs)
        own = signals["old.batch_scores"][row, torch.from_numpy(columns)]
        assert torch.equal(signals["old.scores"][row, : len(columns)], own)
    values = bind(parse_objective(objective))(signals)
    single = bind(parse_objective("batch-kl"))
    each = [
        single(Signals(**{**signals, "teacher_batch_scores": signals[name]}))["batch-kl"].item()
        for name in ("teacher_batch_scores", "old.batch_scores")
    ]
    assert each[0] != pytest.approx(each[1], rel=0.01)
    assert values["batch-kl"].item() == pytest.approx(0.7 * each[0])
    assert values["batch-kl[old]"].item() == pytest.approx(0.3 * each[1])
    stored = Signals(**signals, teacher_scores=signals["old.scores"])
    expected = bind(parse_objective("margin-mse"))(stored)["margin-mse"]
    assert values["margin-mse[old]"].item() == pytest.approx(expected.item())


def test_labels_are_given_on_the_command_line(
    folder: Path, tiny_model: Path, late: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second teacher that replaces the first, or that manifest or card lose."""
    dense = f"bi-encoder:{SAVE['bi-encoder'](tmp_path)}"
    words = f"--data beir:{folder} --student {tiny_model} --out {tmp_path / 's'} --max-steps 2 "
    words += f"--batch-size 4 --doc-tokens 32 --query-tokens 16 --teacher {late} "
    assert train.main([*words.split(), "--objective", "batch-kl", "--teacher", dense]) == 2
    assert "two sources of teacher are given" in capsys.readouterr().err
    objective = "batch-kl+batch-margin-mse(teacher_batch_scores=old.batch_scores)"
    words += f"--teacher old={dense} --objective {objective}"
    assert train.main(words.split()) == 0
    manifest = Manifest.read(tmp_path / "s", kind="student")
    prints = [manifest.inputs[name] for name in ("teacher", "teacher-old")]
    assert len({*prints}) == 2
    command = command_of(asdict(manifest)) or ""
    assert f"--teacher {late}" in command
    assert f"--teacher old={dense}" in command
    named = [name for setting, _, name in inputs_named("train", manifest.config)]
    assert {late.partition(":")[2], dense.partition(":")[2]} <= {*named}
    card = (tmp_path / "s" / "README.md").read_text()
    assert card.count("| teacher | `old=bi-encoder:model` |") == 1


def test_a_live_bi_encoder_gives_what_its_stored_vectors_give(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Two names of one loss that differ by a cut, a prompt or an order of documents."""
    folder = save_tiny_model(tmp_path, dimension=48, prompts={"query": "find: "}, seed=1)
    rows = []
    for objective, source in (
        ("batch-kl(teacher_temperature=0.05)", TeacherSource(f"bi-encoder:{folder}")),
        ("in-batch-kl", DenseEncoder(folder, precision="float32")),
    ):
        out = train_student(
            collection,
            tiny_model,
            tmp_path / objective,
            sources=[scores, source],
            settings=replace(TINY, objective=objective),
        )
        losses = Manifest.read(out).details["losses"]
        rows.append([value for row in losses for name, value in row.items() if name != "step"])
    assert rows[0] == pytest.approx(rows[1], rel=1e-4)


def test_the_perplexity_of_stored_scores_is_not_that_of_a_live_teacher(
    collection: Collection, scores: Run
) -> None:
    """MaxSims divided by a temperature that was found for logits."""
    objective = (
        "listwise-kl + batch-kl + "
        "0.5*listwise-kl(teacher_scores=old.scores,teacher_temperature=0.05)"
    )
    terms = parse_objective(objective)
    settings = replace(TINY, objective=objective, teacher_perplexity=2.0)
    material = gather_material(collection, "train", scores, terms, settings)
    own, live, old = with_perplexity(terms, scores, material, settings)
    assert own.settings["teacher_temperature"] > 0
    assert not live.settings
    assert old.settings == {"teacher_temperature": 0.05}


def test_a_teacher_that_is_one_hot_or_flat_is_reported_before_the_first_step(
    collection: Collection, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cosines at a temperature of 1: hours of a loss that teaches the mean of the batch."""
    source = TeacherSource(f"bi-encoder:{SAVE['bi-encoder'](tmp_path)}")
    settings = replace(TINY, objective="batch-kl + batch-margin-mse", dims=(8,))
    seen_by(source, collection, tiny_model, settings)
    messages = capsys.readouterr().err
    assert messages.count("batch-kl: at teacher_temperature 1 the teacher spreads half") == 1
    assert "of the 7 best documents and more, so its lists are nearly flat" in messages
    assert "batch-margin-mse: the teacher's scores are bounded" in messages
