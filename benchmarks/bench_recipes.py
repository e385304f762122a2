"""Every recipe that scores, labels or models allow, from one start and one budget, on two sets.

    python benchmarks/bench_scifact.py --data SCIFACT --work /tmp/scifact --only none
    python benchmarks/bench_recipes.py scifact --work /tmp/scifact --encoder BGE \\
        --reranker MS_MARCO \\
        > benchmarks/results/recipes-scifact_MACHINE_YYYYMM.jsonl
    python benchmarks/bench_recipes.py medquad --work /tmp/medquad --data MEDQUAD \\
        --encoder BGE --reranker MS_MARCO > benchmarks/results/recipes-medquad_MACHINE_YYYYMM.jsonl
    python benchmarks/tables.py RESULTS.jsonl --also recall@100,texts,read,seconds --sort

`sets.py` says what a set is: texts, splits, the teacher's scores, the models that teach live. On
SciFact the student has the six layers of all-MiniLM-L6-v2 and a teacher that is little better; on
MedQuAD it has three of them, and MS_MARCO, a cross-encoder, reads a sample of the collection.

A recipe is run by its name as it is but for the budget of STEPS steps of BATCH queries with DOCS
documents of TOKENS tokens, a learning rate for each depth, and temperatures for a student of
cosines where its notes ask for them (COSINES). Stages share the steps, each from the student of the
one before; nothing is mined between them. Students of other kinds retrieve as they are, rerankers
put the first documents of the teacher's list in order; both stand beside InfoNCE of their kind.
Recipes are missing that need what is not here: a masked language model (splade-distil), views,
written or compared texts, interactions, a reader's or a language model's scores.

One JSON line a run as it ends, and one a system and row of queries (`rows.py`): means over the
seeds, the paired test against InfoNCE of the same kind, and `p_offline` against the recipe that
learns the same from stored scores (OFFLINE). `texts` is how many went through a model with
gradients in a training, `read` how many without (teachers and first passes), `seconds` and
`cpu_seconds` what it took, with one process on a machine that may be shared. What is finished in
--work is not done again.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rows
import sets
import torch
from torch.nn.modules.module import register_module_forward_hook
from transformers.models.bert.modeling_bert import BertEmbeddings

import retrodistill as rd
from retrodistill.base.config import TrainSettings
from retrodistill.models.inference import body_dtype, pick_device
from retrodistill.models.students.kinds import DENSE, kind_of
from retrodistill.objectives.objective import inputs_of, parse_objective
from retrodistill.objectives.recipes import Stage, load_recipe
from retrodistill.stages.evaluation.fidelity import fidelity
from retrodistill.stages.training.sources.joint import JointTeacher
from retrodistill.stages.training.sources.states import StateSource
from retrodistill.stages.training.sources.teacher import TeacherSource

STEPS, BATCH, TOKENS, DOCS, POOL, RERANKED = 24, 12, 48, 4, 16, 20
PAIR_TOKENS = 2 * TOKENS
JOINT_RATE = 1e-5
"""Learning rate of a joint teacher, which is trained already."""
QUEUE = 1024
"""Teacher vectors of other documents beside the batch, for ckd."""
METRICS = "ndcg@10,recall@100"
UNTRAINED, INFO_NCE = "untrained", "contrastive"
KINDS = {
    "contrastive late-interaction": {
        "student_kind": "late-interaction",
        "objective": "contrastive(temperature=1)",
    },
    "contrastive cross-encoder": {
        "student_kind": "cross-encoder",
        "objective": "contrastive(temperature=1)",
    },
}
"""InfoNCE of the other kinds, whose scores are no cosines."""
COSINES = {
    "gpl": "margin-mse(student_temperature=0.05)",
    "margin-mse": "margin-mse(student_temperature=0.05)",
    "tas-b": "margin-mse(student_temperature=0.05) + 0.75*batch-margin-mse("
    "student_temperature=0.05,teacher_temperature=0.05)",
    "tct-colbert": "batch-kl(student_temperature=0.05,teacher_temperature=0.05)"
    " + 0.1*contrastive(temperature=0.05)",
}
"""Objectives whose temperatures are for unbounded scores, as their notes say."""
OFFLINE = {
    "ema": INFO_NCE,
    "m3-self": INFO_NCE,
    "pair": INFO_NCE,
    "simcse": UNTRAINED,
    "in-batch-teacher": "embed-distill",
    "lead": "listwise-kl",
    "prod": "listwise-kl",
    "rocketqav2": "listwise-kl",
    "tas-b": "margin-mse",
    "tct-colbert": "in-batch-teacher",
}
"""What learns the same without the mechanism: from stored scores or vectors, or labels."""
RECIPES = (
    *("contrastive", "listwise-kl", "margin-mse", "m3-kd", "arm", "simans", "simlm-kd", "gpl"),
    *("specialise", "listmle", "lambdarank", "approx-ndcg", "dse"),
    *("embed-distill", "leaf", "ckd", "rkd", "in-batch-teacher"),
    *("tct-colbert", "tas-b", "lead", "rocketqav2", "prod", "pair", "ema", "simcse", "m3-self"),
    *("contrastive late-interaction", "colbert-kd"),
    *("contrastive cross-encoder", "rankgpt", "rankers-distilled"),
)
SKIPPED_STAGES = ("larger-cross-encoder",)
"""There is one reranker."""


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the texts that go through BERTs: `texts` with gradients, `read` without."""
    found = {"texts": 0, "read": 0}

    def count(module: torch.nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, BertEmbeddings):  # a model's own call may pass hooks by
            found["texts" if torch.is_grad_enabled() else "read"] += len(output)

    hook = register_module_forward_hook(count)
    try:
        yield found
    finally:
        hook.remove()


def stages_of(name: str) -> Sequence[Stage]:
    """Return the trainings of a recipe, or of InfoNCE of another kind."""
    if name in KINDS:
        settings = load_recipe(INFO_NCE).stage(None).settings
        return [Stage(name="", about=name, settings={**settings, **KINDS[name]})]
    return [stage for stage in load_recipe(name).stages if stage.name not in SKIPPED_STAGES]


def settings_of(name: str, stage: Stage, given: sets.Set, steps: int, seed: int) -> TrainSettings:
    """Return a stage's settings within the budget."""
    own = dict(stage.settings)
    if name in COSINES:
        own["objective"] = COSINES[name]
    if "positives_per_query" in own:
        own["positives_per_query"] = min(own["positives_per_query"], DOCS // 2)
    if "ckd" in own["objective"]:
        own["queue"] = QUEUE
    if "joint." in own["objective"]:
        own |= {"teacher_learning_rate": JOINT_RATE, "teacher_tokens": PAIR_TOKENS}
    pairs = own.get("student_kind") == "cross-encoder"
    budget: dict[str, Any] = {
        "candidates_per_query": DOCS,
        "pool": min(own.get("pool", POOL), POOL),
        "batch_size": BATCH,
        "max_steps": steps,
        "learning_rate": given.learning_rate,
        "dropout": own.get("dropout", 0.1 if "simcse" in own["objective"] else 0.0),
        "query_tokens": TOKENS,
        "doc_tokens": PAIR_TOKENS if pairs else TOKENS,
        "cache_gradients": False,
        "seed": seed,
    }
    return TrainSettings(**(own | budget))


def sources_of(
    stage: Stage, settings: TrainSettings, given: sets.Set, previous: str, reranker: str
) -> Iterator[Any]:
    """Yield what a stage learns from; `previous` is the student that it starts from."""
    terms = parse_objective(settings.objective)
    needs = inputs_of(terms)
    if settings.false_negatives is not None:
        yield given.shares()  # the filter is a share of the best score
    elif settings.label_above is not None:
        yield given.probabilities
    else:
        yield given.encoder_scores if stage.teacher == "bi-encoder" else given.scores
    if "--vectors" in needs:
        yield rd.DenseEncoder(given.vectors, max_tokens=TOKENS)
    if "--teacher" in needs:
        yield TeacherSource(f"bi-encoder:{given.vectors}")
    if "--teacher previous=TEACHER" in needs:
        yield TeacherSource(f"bi-encoder:{previous}", label="previous")
    if "joint.batch_scores" in settings.objective:
        yield JointTeacher(f"bi-encoder:{given.vectors}")
    elif "joint.scores" in settings.objective:
        yield JointTeacher(f"cross-encoder:{reranker}")
    if "--states" in needs:
        yield StateSource(given.vectors)


def searched(student: Path, given: sets.Set) -> rd.Run:
    """Return what a student finds for the test queries, or how it reorders the teacher's list."""
    kind = kind_of(str(student))
    if "dse" in student.parent.name or kind.retriever is None:
        teacher = "pair-head" if "dse" in student.parent.name else kind.teacher
        best = given.listed().top(RERANKED)
        ranker = rd.load_teacher(f"{teacher}:{student}", given.searched, max_tokens=PAIR_TOKENS)
        return rd.score_candidates(given.searched, best, ranker, student.parent / "scores").run()
    retriever = "dense" if kind.name == "hybrid" else kind.retriever
    return rd.mine_candidates(
        given.searched,
        "test",
        settings=rd.MineSettings(
            retriever=(f"{retriever}:{student}",), depth=100, max_tokens=TOKENS
        ),
    )


def fidelity_to(given: sets.Set, run: rd.Run) -> float:
    """Return the mean Spearman correlation of a run's scores with the teacher's."""
    return float(fidelity(run, given.judge, measures=("spearman",)).means["spearman"])


def measured(
    name: str, seed: int, given: sets.Set, folder: Path, reranker: str
) -> tuple[rd.Run, dict[str, Any]]:
    """Train and search, unless both are in the folder; return the run and what it took."""
    note = folder / "measured.json"
    if not note.exists():
        student, made = sets.START, {"seconds": 0.0, "cpu_seconds": 0.0, "texts": 0, "read": 0}
        stages = () if name == UNTRAINED else stages_of(name)
        clocks = time.perf_counter(), time.process_time()
        with counted() as texts:
            for place, stage in enumerate(stages):
                settings = settings_of(name, stage, given, STEPS // len(stages), seed)
                if place == 0:
                    settings = dataclasses.replace(settings, keep_layers=given.layers)
                sources = sources_of(stage, settings, given, student, reranker)
                student = str(
                    rd.train_student(
                        given.collection,
                        student,
                        folder / f"student{place}",
                        sources=list(sources),
                        settings=settings,
                        overwrite=True,
                    )
                )
        made |= texts
        made["seconds"] = round(time.perf_counter() - clocks[0], 1)
        made["cpu_seconds"] = round(time.process_time() - clocks[1], 1)
        if name == UNTRAINED:
            student = str(cut(given, folder / "student0"))
        searched(Path(student), given).write(folder / "run", overwrite=True)
        made["number_type"] = str(body_dtype("auto", pick_device())).removeprefix("torch.")
        note.write_text(json.dumps(made), encoding="utf-8")
    made = json.loads(note.read_text(encoding="utf-8"))
    run = rd.Run.read(folder / "run")
    made["fidelity"] = round(fidelity_to(given, run), 4)
    print(json.dumps({"system": name, "seed": seed, **made}), flush=True)
    return run, made


def cut(given: sets.Set, folder: Path) -> Path:
    """Return the start without the layers that a student does not keep, untrained."""
    settings = TrainSettings(
        objective="contrastive(temperature=0.05)",
        keep_layers=given.layers,
        max_steps=1,
        learning_rate=0.0,
        batch_size=2,
        doc_tokens=TOKENS,
        query_tokens=TOKENS,
    )
    return rd.train_student(
        given.collection,
        sets.START,
        folder,
        sources=[given.scores],
        settings=settings,
        overwrite=True,
    )


def baseline_of(name: str) -> str:
    """Return InfoNCE of the same kind of student."""
    if name == UNTRAINED:
        return INFO_NCE
    kind = stages_of(name)[-1].settings.get("student_kind", DENSE)
    for own, settings in KINDS.items():
        if settings["student_kind"] == kind:
            return own
    return INFO_NCE


def main() -> None:
    """Run what is missing in --work, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("set", choices=("scifact", "medquad"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="MedQuAD")
    parser.add_argument("--encoder", required=True, help="bi-encoder that teaches on medquad")
    parser.add_argument("--reranker", required=True, help="cross-encoder: teacher, joint teacher")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipes", help="comma-separated (default: all that can be run)")
    options = parser.parse_args()
    work: Path = options.work
    given = (
        sets.scifact(work)
        if options.set == "scifact"
        else sets.medquad(work, options.data, options.encoder, options.reranker)
    )
    chosen = options.recipes.split(",") if options.recipes else RECIPES
    names = dict.fromkeys((UNTRAINED, INFO_NCE, *chosen))
    runs: dict[str, list[rd.Run]] = {}
    made: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for name in names:
            if name == UNTRAINED and seed:
                continue
            folder = work / "recipes" / f"{name.replace(' ', '-')}-{seed}"
            run, took = measured(name, seed, given, folder, options.reranker)
            runs.setdefault(name, []).append(run)
            made.setdefault(name, []).append(took)
    offline = {name: OFFLINE.get(name, name) for name in names}
    offline = {name: other if other in names else name for name, other in offline.items()}
    shared = {
        "set": options.set,
        "steps": STEPS,
        "batch": BATCH,
        "tokens": TOKENS,
        **rows.machine(),
    }
    both = (
        rows.lines(given.searched, runs, against=against, metrics=METRICS, trained_on=("train",))
        for against in ({name: baseline_of(name) for name in names}, offline)
    )
    for line, other in zip(*both, strict=True):
        name = line["system"]
        if "p" in other:
            line |= {"offline": other["against"], "p_offline": other["p"]}
        if line["queries"] == rows.ALL:
            for key in ("fidelity", "texts", "read", "seconds", "cpu_seconds"):
                line[key] = round(float(np.mean([own[key] for own in made[name]])), 4)
        line["number_type"] = made[name][0]["number_type"]
        if name != UNTRAINED:
            stages = stages_of(name)
            line["objective"] = [
                settings_of(name, stage, given, STEPS, 0).objective for stage in stages
            ]
        print(json.dumps(line | shared), flush=True)


if __name__ == "__main__":
    sys.exit(main())
