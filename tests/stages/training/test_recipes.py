"""Every recipe is trained, from the command, on few documents and a random student."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.corpus import save_small_collection
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.language_models import save_tiny_causal
from fakes.models import save_tiny_body, save_tiny_cross_encoder, save_tiny_model
from fakes.views import save_view

from retrodistill import train as verb
from retrodistill.base.config import TrainSettings
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.runs import Run
from retrodistill.objectives.objective import needs_of, parse_objective
from retrodistill.objectives.recipes import load_recipe, recipe_names
from retrodistill.stages.scoring import compare_candidates, load_teacher
from retrodistill.stages.training.balance import RATIO

STUDENTS: dict[str, Callable[[Path], Path]] = {
    "bi-encoder": lambda folder: save_tiny_model(folder, layers=2),
    "sparse": save_tiny_sparse,
    "late-interaction": save_tiny_late_interaction,
    "cross-encoder": save_tiny_cross_encoder,
    "causal-reranker": save_tiny_causal,
    "hybrid": lambda folder: save_tiny_model(folder, layers=1),
}
SMALL_ON_PURPOSE = {
    ("disco", "flops"),
    ("splade-distil", "flops"),
    ("m3-self", "sparse.contrastive"),
    ("m3-self", "sparse.batch-kl[student]"),
    ("syntriever", "batch-kl[previous]"),
    ("prod", "listwise-kl[previous]"),
}


TRAININGS = [
    f"{name} {stage.name}".rstrip() for name in recipe_names() for stage in load_recipe(name).stages
]
"""Every stage of every recipe: `pair query-centric`; a recipe without stages is one: `leaf`."""


def settings_of(training: str) -> Mapping[str, Any]:
    """Return the settings of a recipe, or of one of its stages."""
    name, _, stage = training.partition(" ")
    return load_recipe(name).stage(stage or None).settings


def needs(training: str) -> tuple[str, ...]:
    return needs_of(TrainSettings(**settings_of(training)))


@dataclass(frozen=True)
class Files:
    data: Path
    scores: Path
    preferences: Path
    vectors: Path
    states: Path
    teacher: str
    joint_teachers: dict[str, str]
    students: dict[str, Path]

    def words(self, training: str, out: Path) -> list[str]:
        """Return the command that trains by a recipe, and by nothing that it does not need."""
        kind = TrainSettings(**settings_of(training)).student_kind
        words = f"--recipe {training.replace(' ', ' --stage ')} --data beir:{self.data} "
        words += f"--student {self.students[kind]} "
        words += f"--out {out} --max-steps 2 --batch-size 4 --query-tokens 16 --doc-tokens 32 "
        words += "--precision float32"
        words += " --dims 16" if settings_of(training).get("dims") else ""
        for need in set(needs(training)) - {"labels", "--joint-teacher", "--meta-view"}:
            flag, _, label = need.partition(" ")  # --teacher LABEL=TEACHER
            words += f" {flag} {label.removesuffix('TEACHER')}"
            words += f"{getattr(self, flag.removeprefix('--'))}"
        if "--joint-teacher" in needs(training):
            of_batch = "joint.batch_scores" in settings_of(training)["objective"]
            words += " --teacher-tokens 48 --joint-teacher "
            words += self.joint_teachers["bi-encoder" if of_batch else "cross-encoder"]
        if "--meta-view" in needs(training):
            parts = ("own", "backwards", "own+backwards")
            words += "".join(f" --meta-view {part}" for part in parts)
            words = words.replace("--batch-size 4", "--batch-size 6")
        if load_recipe(training.partition(" ")[0]).views:
            words += " --student-view backwards"
        return words.split()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A collection with several positives, judged negatives, unlabelled queries; teachers."""
    folder = tmp_path_factory.mktemp("recipes")
    data = save_small_collection(folder / "data")
    with (data / "qrels" / "train.tsv").open("a", encoding="utf-8") as rows:
        rows.writelines(
            f"q{query}\td{query + offset}\t1\n" for query in range(12) for offset in (1, 2, 3)
        )
        rows.writelines(f"q{query}\td{query + 30}\t0\n" for query in range(24))
    with (data / "queries.jsonl").open("a", encoding="utf-8") as rows:
        rows.writelines(
            json.dumps({"_id": f"u{number}", "text": "blood pressure and diet"}) + "\n"
            for number in range(6)
        )
    save_view(data, "backwards")
    collection = load_collection(f"beir:{data}")
    queries = [f"q{number}" for number in range(24)] + [f"u{number}" for number in range(6)]
    random = np.random.default_rng(0)
    docs = [f"d{(number + step) % 60}" for number in range(len(queries)) for step in range(20)]
    scores = Run.from_columns(np.repeat(queries, 20).tolist(), docs, random.random(len(docs)))
    scores.write(folder / "scores")
    duo = load_teacher(f"pairwise:{save_tiny_cross_encoder(folder / 'duo')}", collection)
    compare_candidates(collection, scores.top(4), duo, folder / "preferences", opponents=2)
    return Files(
        data,
        folder / "scores",
        folder / "preferences",
        save_tiny_model(folder / "vectors", layers=1, dimension=48, seed=1),
        save_tiny_body(folder / "states", layers=2, dimension=48, seed=1),
        f"late-interaction:{save_tiny_late_interaction(folder / 'teacher', seed=1)}",
        {
            "cross-encoder": f"cross-encoder:{save_tiny_cross_encoder(folder / 'joint', seed=1)}",
            "bi-encoder": f"bi-encoder:{save_tiny_model(folder / 'deep', layers=4, seed=1)}",
        },
        {kind: save(folder / kind) for kind, save in STUDENTS.items()},
    )


@pytest.mark.parametrize("training", TRAININGS)
def test_every_recipe_trains_each_of_its_terms(training: str, files: Files, tmp_path: Path) -> None:
    """A method that is another one: a term without a gradient, or with 1/400 of another's.

    Or one that stops at the first batch: without a label, beside a teacher of more dimensions.
    """
    assert verb.main(files.words(training, tmp_path / "s")) == 0
    details = Manifest.read(tmp_path / "s").details
    recipe = load_recipe(training.partition(" ")[0])
    of_joint = details.get("joint_teacher", {}).get("gradient_shares", {})
    for term in parse_objective(settings_of(training)["objective"]):
        for row in details["losses"][int(term.start > 0) :]:  # of two steps
            assert np.isfinite(row[term.key])
            assert row[term.key] != 0
        if (recipe.name, term.key) in SMALL_ON_PURPOSE:
            assert term.key in recipe.notes
            assert "small on purpose" in " ".join(recipe.notes.split())
        else:
            found = [each for each in (details["gradient_shares"], of_joint) if term.key in each]
            assert found
            for shares in found:
                assert shares[term.key] > max(shares.values()) / RATIO


def test_what_a_recipe_needs_is_what_its_settings_go_by() -> None:
    """A list that names `labels` for a method that is refused without scores."""
    assert needs("simans") == ("labels", "--scores")
    assert needs("specialise") == ("--scores",)
    assert needs("margin-mse") == ("--scores",)
    assert needs("pairdistill") == ("labels", "--scores", "--preferences")
    assert needs("leaf") == ("--vectors",)
    assert needs("rankers-distilled language-model") == ("--states",)
    assert needs("rankers-distilled ranker") == ("--scores", "labels")
    assert needs("tct-colbert") == ("--teacher", "labels")
    assert needs("rocketqav2") == ("--joint-teacher", "--scores", "labels")
    assert needs("lead") == ("labels", "--joint-teacher")
    assert needs("maml-align") == ("labels", "--meta-view")
    assert needs("tas-b") == ("--scores", "--teacher", "labels")


@pytest.mark.parametrize(
    "training",
    ["simans", "tas-b", "tct-colbert", "gpl", "fid-kd", "ckd", "rocketqav2", "lead"],
)
def test_a_recipe_is_refused_without_what_it_needs(
    training: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A method that trains as another one where its teacher is not given."""
    words = files.words(training, tmp_path / "s")
    flags = [flag for flag in needs(training) if flag.startswith("--")]
    for flag in flags:
        index = words.index(flag)
        assert verb.main([*words[:index], *words[index + 2 :]]) == 2
        assert flag in capsys.readouterr().err
