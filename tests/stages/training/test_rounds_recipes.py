"""Recipes of rounds, from the state that their notes describe: what tells each from another."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fakes.corpus import save_small_collection
from fakes.encoders import save_tiny_late_interaction
from fakes.language_models import save_tiny_seq2seq
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from safetensors.numpy import load_file

from retrodistill import score, train
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.teachers.runs import RunTeacher
from retrodistill.objectives.objective import parse_objective
from retrodistill.objectives.recipes import load_recipe
from retrodistill.stages.scoring import compare_candidates, load_teacher, score_candidates
from retrodistill.stages.training.balance import RATIO

TINY = "--query-tokens 16 --doc-tokens 32 --precision float32 --dropout 0 --warmup 0 --batch-size 6"
CHAIN = ("bi-encoder", "cross-encoder", "larger-cross-encoder", "data-progressive")


@dataclass(frozen=True)
class Files:
    root: Path
    data: Path
    student: Path
    logits: Path
    """Scores of lists of 16 documents, the relevant one first: of two a cross-encoder is sure that
    they are relevant, of five it is not sure."""

    def train(self, out: str, words: str, *, student: Path | None = None) -> Manifest:
        """Train by the command, and return the student's manifest."""
        command = f"--data beir:{self.data} --student {student or self.student} {TINY} {words}"
        assert train.main([*command.split(), "--out", str(self.root / out)]) == 0
        return Manifest.read(self.root / out)

    def scored(self, name: str, teacher: str) -> Path:
        """Return a store of a teacher's scores of the lists, made by the command."""
        words = f"--data beir:{self.data} --candidates {self.logits} --teacher {teacher}"
        out = self.root / name
        assert score.main([*words.split(), "--precision", "float32", "--out", str(out)]) == 0
        return out


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A collection whose queries have answers, a student, lists, and a teacher's scores."""
    root = tmp_path_factory.mktemp("rounds-recipes")
    data = save_small_collection(root / "data")
    rows = [json.loads(line) for line in (data / "queries.jsonl").read_text().splitlines()]
    answers = [row | {"answer": f"{row['text'].split()[0]} and water"} for row in rows]
    (data / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    collection, draw = load_collection(f"beir:{data}"), random.Random(0)
    lists: dict[str, dict[str, float]] = {}
    for query in collection.query_ids("train"):
        (label,) = collection.relevant("train")[query]
        others = draw.sample([doc for doc in collection.docs.ids() if doc != label], 15)
        logits = [4.0, 3.0, *np.linspace(1.5, -1.5, 5), *np.linspace(-3.0, -8.0, 9)]
        lists[query] = dict(zip([label, *others], map(float, logits), strict=True))
    run = Run.from_dict(lists)
    score_candidates(collection, run, RunTeacher(run, scale="logit"), root / "logits")
    return Files(root, data, save_tiny_model(root / "start", layers=2), root / "logits")


def balanced(manifest: Manifest, *, but: str = "") -> bool:
    """Tell whether no term, but one, has less than 1 / RATIO of the gradient of another."""
    shares = manifest.details["gradient_shares"]
    own = [share for name, share in shares.items() if name != but]
    return bool(min(own) * RATIO > max(own))


def first(manifest: Manifest) -> dict[str, float]:
    """Return each term's value in the first step, and their sum as `all`."""
    row = {name: value for name, value in manifest.details["losses"][0].items() if name != "step"}
    return row | {"all": sum(row.values())}


def others(files: Files, name: str, scores: Path, depth: int, *, steps: int = 1) -> list[float]:
    """Return the first losses of plain InfoNCE, and of plain KL, on the same lists."""
    found = []
    for objective in ("contrastive", "listwise-kl"):
        words = f"--objective {objective} --candidates-per-query {depth} --pool 100 --scores"
        manifest = files.train(f"{name}-{objective}", f"{words} {scores} --max-steps {steps}")
        found.append(first(manifest)["all"])
    return found


def prod(files: Files, stage: str, out: str, words: str, start: Path | None = None) -> Manifest:
    """Train a stage of PROD from a student, which is what it is held to."""
    start = start or files.student
    given = f"--recipe prod --stage {stage} --scores {files.logits} "
    given += f"--teacher previous=bi-encoder:{start} --teacher-precision float32 {words}"
    return files.train(out, given, student=start)


@pytest.mark.slow
def test_prod_is_neither_infonce_nor_plain_kl(files: Files) -> None:
    """A chain of which a stage learns from labels alone, or is not held to the student before."""
    start, values, held = files.student, [], "listwise-kl[previous]"
    plain = {depth: others(files, f"prod-{depth}", files.logits, depth) for depth in (2, 16)}
    for stage in CHAIN:
        manifest = prod(files, stage, f"chain-{stage}", "--max-steps 2", start)
        start = files.root / f"chain-{stage}"
        row = first(manifest)
        assert row.keys() == {"contrastive", "listwise-kl", held, "all"}
        assert balanced(manifest, but=held)
        # held to the student that it starts from: nothing yet, as the notes say
        assert row[held] == pytest.approx(0.0, abs=1e-4)
        assert manifest.details["gradient_shares"][held] < 1e-2
        for other in plain[manifest.config["candidates_per_query"]]:
            assert row["all"] != pytest.approx(other, rel=0.05)
        values.append(row["listwise-kl"])
    assert values[0] != pytest.approx(values[1], rel=0.05)  # a teacher of cosines, and of logits


def test_prod_holds_on_to_the_student_before(files: Files) -> None:
    """Plain KL: a student that forgets as much as if nothing held it."""
    words = "--max-steps 12 --learning-rate 3e-3 --seed 1"
    held = prod(files, "cross-encoder", "held", words)
    objective = load_recipe("prod").stage("cross-encoder").settings["objective"].replace(" ", "")
    loose = objective.replace("16*", "16e-6*")
    free = prod(files, "cross-encoder", "free", f"{words} --objective {loose}")
    name = "listwise-kl[previous]"
    forgotten = [run.details["losses"][-1][name] for run in (held, free)]
    assert forgotten[0] < 0.8 * 1e6 * forgotten[1]
    assert first(held)["listwise-kl"] == pytest.approx(first(free)["listwise-kl"])


def test_the_last_stage_of_prod_draws_what_is_still_to_learn(files: Files) -> None:
    """All queries once more: the stage before under another name."""
    last = prod(files, "data-progressive", "last", "--max-steps 1")
    before = prod(files, "larger-cross-encoder", "before", "--max-steps 1")
    assert 0 < last.details["queries"] < before.details["queries"] == 24
    assert first(last)["listwise-kl"] != pytest.approx(first(before)["listwise-kl"], rel=1e-3)
    objectives = [manifest.config["objective"] for manifest in (last, before)]
    assert objectives[0] == objectives[1]


def test_pair_learns_from_pseudo_labels(files: Files) -> None:
    """InfoNCE on the labels, or on candidates of which the teacher is not sure."""
    stage = f"--recipe pair --stage passage-centric --scores {files.logits} --max-steps 1"
    manifest = files.train("pair", stage)
    row = first(manifest)
    assert row.keys() == {"contrastive", "passage-centric", "all"}
    assert balanced(manifest)
    plain = "--objective 0.9*contrastive+0.1*passage-centric --max-steps 1"
    for name, words in (("labels", ""), ("unsure", f"--scores {files.logits}")):
        other = first(files.train(f"pair-{name}", f"{plain} {words}"))
        for term in ("contrastive", "passage-centric"):
            assert row[term] != pytest.approx(other[term], rel=0.01)
    assert all(
        row["all"] != pytest.approx(other, rel=0.05)
        for other in others(files, "pair", files.logits, 8)
    )


def test_pair_moves_passages_apart_and_then_queries_alone(files: Files) -> None:
    """The passages' comparison dropped: InfoNCE of the queries in both stages."""
    words = f"--scores {files.logits} --max-steps 8 --learning-rate 1e-3"
    stage = f"--recipe pair --stage passage-centric {words}"
    labels = "--label-above 0.9 --label-below 0.1"
    both = files.train("pair-both", stage)
    alone = files.train(
        "pair-alone", f"--objective 0.9*contrastive+1e-6*passage-centric {labels} {words}"
    )
    ends = [manifest.details["losses"][-1] for manifest in (both, alone)]
    assert ends[0]["passage-centric"] / 0.1 < 0.98 * ends[1]["passage-centric"] / 1e-6
    second = files.train(
        "pair-second",
        "--recipe pair --stage query-centric --max-steps 2",
        student=files.root / "pair-both",
    )
    assert first(second).keys() == {"contrastive", "all"}
    assert second.details["queries"] == 24
    fresh = files.train("pair-fresh", "--recipe pair --stage query-centric --max-steps 2")
    assert first(second)["contrastive"] < first(fresh)["contrastive"]


def test_maker_scores_the_answer(files: Files) -> None:
    """The likelihood of the query, which is the teacher `generator`."""
    model = save_tiny_seq2seq(files.root / "t5")
    rows = {}
    for teacher in ("answer-likelihood", "generator"):
        store = files.scored(teacher, f"{teacher}:{model}")
        rows[teacher] = first(
            files.train(f"maker-{teacher}", f"--recipe maker --scores {store} --max-steps 2")
        )
    values = {name: row["listwise-kl"] for name, row in rows.items()}
    assert values["answer-likelihood"] != pytest.approx(values["generator"], rel=0.05)
    for other in others(files, "maker", files.root / "answer-likelihood", 16):
        assert values["answer-likelihood"] != pytest.approx(other, rel=0.05)


def test_fid_kd_is_taught_by_attention(files: Files) -> None:
    """KL to another teacher's scores, or at a temperature that cosines cannot follow."""
    readers = files.scored("reader", f"reader:{save_tiny_seq2seq(files.root / 'fid')}")
    found = {}
    for name, scores in (("reader", readers), ("logits", files.logits)):
        words = f"--recipe fid-kd --scores {scores} --max-steps 2 --learning-rate 1e-3"
        found[name] = files.train(f"fid-{name}", words)
    assert Run.read(readers).scale == "attention"
    values = {name: first(manifest)["listwise-kl"] for name, manifest in found.items()}
    assert values["reader"] != pytest.approx(values["logits"], rel=0.05)
    for other in others(files, "fid", readers, 32):
        assert values["reader"] != pytest.approx(other, rel=0.05)


def test_pairdistill_learns_from_comparisons(files: Files) -> None:
    """Preferences that are read and count for nothing: KL to the pointwise scores."""
    start = save_tiny_late_interaction(files.root / "late")
    collection = load_collection(f"beir:{files.data}")
    edges = []
    for seed in (0, 1):
        duo = save_tiny_cross_encoder(files.root / f"duo-{seed}", seed=seed)
        edges.append(files.root / f"preferences-{seed}")
        teacher = load_teacher(f"pairwise:{duo}", collection)
        compare_candidates(collection, Run.read(files.logits), teacher, edges[-1], opponents=4)
    words = f"--recipe pairdistill --scores {files.logits} --max-steps 2 --learning-rate 1e-3"
    rows = []
    for seed, preferences in enumerate(edges):
        out = f"pairdistill-{seed}"
        manifest = files.train(out, f"{words} --preferences {preferences}", student=start)
        assert balanced(manifest)
        rows.append(first(manifest))
    assert rows[0]["preference-kl"] != pytest.approx(rows[1]["preference-kl"], rel=0.01)
    for term in ("contrastive", "listwise-kl"):
        assert rows[0][term] == pytest.approx(rows[1][term], rel=1e-5)
    alone = f"{words} --objective contrastive(temperature=1.0)+listwise-kl"
    files.train("pairdistill-alone", alone, student=start)
    weights = [
        load_file(files.root / f"pairdistill-{name}" / "model.safetensors")
        for name in (0, 1, "alone")
    ]
    for number, left in enumerate(weights):
        for right in weights[:number]:
            assert any(not np.allclose(left[name], right[name], atol=1e-5) for name in left)
    terms = parse_objective(load_recipe("pairdistill").settings["objective"])
    assert [term.weight for term in terms] == [1.0, 1.0, 3.0]
