"""A causal language model that is trained to rerank, from the first batch to its scorer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.language_models import CHAT, save_tiny_causal
from fakes.models import save_tiny_cross_encoder

from retrodistill import train as verb
from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Pairs
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.teachers.causal import CausalTeacher
from retrodistill.objectives.objective import Signals, bind, parse_objective
from retrodistill.objectives.recipes import load_recipe
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import build_batches, build_task, start_student
from retrodistill.stages.training.material import gather_material
from retrodistill.stages.training.sources.scores import ScoreSource

CPU = torch.device("cpu")
PROMPT = "Query: {query} Document: {doc}\nRelevant (yes or no):"
TINY = TrainSettings(
    objective="ranknet",
    student_kind="causal-reranker",
    pair_prompt=PROMPT,
    answers=(" yes", " no"),
    candidates_per_query=4,
    batch_size=3,
    max_steps=2,
    doc_tokens=60,
    batch_tokens=200,
    dropout=0.0,
    precision="float32",
)
UNEVEN = Run.from_dict(
    {
        "q0": {"d0": 3.0, "d30": 2.0, "d31": 1.0, "d32": 0.5},
        "q1": {"d1": 3.0, "d30": 2.0},
        "q2": {"d2": 3.0, "d30": 2.0, "d33": 1.0},
    }
)
"""Lists of four, two and three documents."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("causal")
    return {
        "qwen": save_tiny_causal(root / "qwen"),
        "chat": save_tiny_causal(root / "chat", chat=CHAT),
        "neo": save_tiny_causal(root / "neo", "neo", marks=False),
    }


def student_scores(
    model: Path, collection: Collection, settings: TrainSettings
) -> tuple[Any, Any, torch.Tensor]:
    """Return the student, the examples of one batch, and the scores that reach the objective."""
    terms = parse_objective(settings.objective)
    source = ScoreSource(UNEVEN)
    material = gather_material(collection, "train", UNEVEN, terms, settings)
    student = start_student(str(model), settings, collection, CPU)
    task = build_task(student, terms, settings, torch.float32, [source])
    examples = list(material.schedule(student, replace(settings, max_steps=1)))
    seen: list[Signals] = []

    def spy(signals: Signals) -> dict[str, torch.Tensor]:
        seen.append(signals)
        return bind(terms)(signals)

    task._objective = spy
    batch = build_batches(student, settings, collection, [source])(examples)
    assert len(batch["pairs"]) > 1
    task(**batch)["loss"].backward()
    return student, examples, seen[0]["student_scores"].detach()


@pytest.mark.parametrize("name", ["qwen", "chat", "neo"])
@pytest.mark.parametrize("max_tokens", [40, 200])
def test_training_scores_as_the_teacher_will(
    name: str, max_tokens: int, models: dict[str, Path], collection: Collection, tmp_path: Path
) -> None:
    """Logits of padding, of another prompt, or of a document that is cut elsewhere, are trained.

    A score in a padded batch of the training is that of the pair alone under `causal-lm:FOLDER`.
    """
    own = {"pair_prompt": None, "answers": ()} if name == "chat" else {}
    settings = replace(TINY, doc_tokens=max_tokens, **own)
    student, examples, scores = student_scores(models[name], collection, settings)
    student.save(str(tmp_path / "s"))
    options = ModelOptions(max_tokens=max_tokens, precision="float32")
    teacher = CausalTeacher(str(tmp_path / "s"), options)
    assert scores.std() > 0.05
    for example, row in zip(examples, scores, strict=True):
        query = collection.queries[example.query]
        for number, doc in enumerate(example.docs.tolist()):
            alone = teacher.score(Pairs.of([query], [collection.docs[doc]]))
            assert row[number].item() == pytest.approx(alone.item(), abs=1e-4)


@pytest.mark.parametrize("changes", [{}, {"cache_gradients": True}])
def test_chunks_do_not_change_the_gradient(
    changes: dict[str, Any], models: dict[str, Path], collection: Collection
) -> None:
    """Left padding of the longest prompt that shifts the others' positions."""
    gradients = []
    for settings in (TINY, replace(TINY, batch_tokens=60, **changes)):
        student, _, _ = student_scores(models["neo"], collection, settings)
        gradients.append([p.grad for p in student.parameters() if p.grad is not None])
    for whole, apart in zip(*gradients, strict=True):
        torch.testing.assert_close(apart, whole, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("rank", [0, 4])
def test_it_learns_the_teachers_order(
    rank: int, models: dict[str, Path], collection: Collection, tmp_path: Path
) -> None:
    """A head that is not trained, or adapters that are not merged into what is saved."""
    settings = replace(TINY, max_steps=60, learning_rate=3e-3, lora_rank=rank)
    out = train_student(
        collection, models["qwen"], tmp_path / "s", sources=[UNEVEN], settings=settings
    )
    losses = [row["ranknet"] for row in Manifest.read(out).details["losses"]]
    assert losses[-1] < 0.2 < losses[0]
    card = (out / "README.md").read_text()
    assert "causal reranker" in card
    assert "CrossEncoder(" in card
    # the saved student, under the name of its teacher, orders as it was taught
    teacher = CausalTeacher(str(out), ModelOptions(max_tokens=60, precision="float32"))
    for query, docs, _ in UNEVEN.lists():
        pairs = Pairs.of(
            [collection.queries.get(query)] * len(docs), [collection.docs.get(doc) for doc in docs]
        )
        assert (np.diff(teacher.score(pairs)) < 0).all()


def test_the_command_measures_and_saves_it(
    folder: Path, models: dict[str, Path], collection: Collection, scores: Run, tmp_path: Path
) -> None:
    """A kind that the dev split measures under another prompt, or that a resume loses."""
    lists = {
        query: dict(zip(docs, map(float, values), strict=True))
        for query, docs, values in scores.lists()
    }
    lists |= {query: {"d1": 1.0, "d2": 0.5} for query in collection.query_ids("test")}
    run = Run.from_dict(lists)
    run.write(tmp_path / "scores", inputs={"collection": collection.fingerprint})
    words = f"--data beir:{folder} --scores {tmp_path / 'scores'} --student {models['qwen']}"
    words += f" --out {tmp_path / 's'} --recipe instruction-distillation --doc-tokens 80"
    words += " --batch-size 2 --max-steps 2 --candidates-per-query 4 --precision float32"
    words += " --dev-split test --dev-docs scored --eval-steps 1"
    assert verb.main(words.split()) == 0
    details = Manifest.read(tmp_path / "s", kind="student").details
    assert len(details["development"]["values"]) == 2
    prompt = load_recipe("instruction-distillation").settings["pair_prompt"]
    assert CausalTeacher(str(tmp_path / "s"))._prompt.text == prompt


def test_settings_of_a_prompt_are_refused_where_there_is_none(
    folder: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prompt that a bi-encoder accepts and ignores."""
    words = f"--data beir:{folder} --student {tiny_model} --out {tmp_path / 's'}"
    words += " --objective contrastive"
    assert verb.main([*words.split(), "--pair-prompt", PROMPT]) == 2
    assert "--pair-prompt is for --student-kind causal-reranker" in capsys.readouterr().err
    assert verb.main([*words.split(), "--answers", "yes"]) == 2
    assert "--answers are two words" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="not a ForCausalLM"):
        start_student(str(save_tiny_cross_encoder(tmp_path / "bert")), TINY, None, CPU)


def test_the_recipe_is_ranknet_and_no_other_loss() -> None:
    """A recipe that follows scores, which a permutation does not have."""
    settings = TrainSettings(**load_recipe("instruction-distillation").settings)
    (term,) = parse_objective(settings.objective)
    student = torch.tensor([[0.5, 1.0, -1.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    order, scaled = (torch.tensor([row]) for row in ([3.0, 2.0, 1.0], [9.0, 2.0, -40.0]))
    values = [term.function(student, each, mask).item() for each in (order, scaled)]
    assert values[0] == values[1]
    expected = np.log1p(np.exp([0.5, -1.5, -2.0])).mean()
    assert values[0] == pytest.approx(expected, rel=1e-6)
    (kl,) = parse_objective("listwise-kl")
    assert kl.function(student, order, mask).item() != pytest.approx(values[0], rel=0.05)
