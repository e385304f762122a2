"""The plan of `distil`: what is refused before any work, and edits of plan.yaml."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.models import save_tiny_model

from retrodistill.base.config import DistilConfig
from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import load_collection
from retrodistill.stages.pipelines.distil import _fingerprint_of, distil
from retrodistill.stages.pipelines.distil.checks import check_steps
from retrodistill.stages.pipelines.distil.choice import Choice
from retrodistill.stages.pipelines.distil.estimate import other_encoders, queries_of
from retrodistill.stages.pipelines.distil.layout import Layout
from retrodistill.stages.pipelines.distil.log_split import log_step
from retrodistill.stages.pipelines.distil.page import verdict
from retrodistill.stages.pipelines.distil.plan import PlannedStep, plan_steps
from retrodistill.stages.pipelines.distil.plan_file import edited, write_plan
from retrodistill.stages.pipelines.distil.situation import Situation, look_at

DOCUMENTS = Situation(
    docs=400,
    files=400,
    titled=1.0,
    logged=0,
    labelled=0,
    dev=0,
    test=0,
    writers=("titles",),
    learns_generated=True,
)


def layout(out: Path, situation: Situation = DOCUMENTS, **changes: Any) -> Layout:
    config = DistilConfig(**({"data": "docs:handbook", "out": out} | changes))
    return Layout(config=config, situation=situation)


def planned(laid_out: Layout) -> list[PlannedStep]:
    """Return the steps with the edits of the plan of before, and write the plan, as a run does."""
    derived = plan_steps(laid_out)
    steps = edited(derived, laid_out.config.plan, laid_out.out)
    write_plan(laid_out.out, laid_out.config, steps, derived)
    return steps


def setting(steps: list[PlannedStep], step: str, name: str) -> Any:
    return next(getattr(each.config, name) for each in steps if each.name == step)


def edit(out: Path, step: str, /, **settings: Any) -> dict[str, Any]:
    """Change settings of a step in plan.yaml; return its steps."""
    content = yaml.safe_load((out / "plan.yaml").read_text())
    content["plan"][step] |= settings
    (out / "plan.yaml").write_text(yaml.safe_dump(content))
    plan: dict[str, Any] = content["plan"]
    return plan


def test_a_plan_given_with_another_out_reads_nothing_of_the_first(tmp_path: Path) -> None:
    """Every path of app/plan.yaml was taken for an edit: `--out app2` trained on app's scores."""
    first, second = tmp_path / "app", tmp_path / "app2"
    planned(layout(first))
    plan = edit(first, "student-distilled", learning_rate=0.5)
    steps = planned(layout(second, plan=plan, steps=77))
    assert setting(steps, "student-distilled", "scores") == second / "scores" / "mean"
    assert setting(steps, "student-distilled", "learning_rate") == 0.5
    assert setting(steps, "student-distilled", "max_steps") == 77, "a changed top is no edit"
    assert f"{first}/" not in (second / "plan.yaml").read_text()


def test_a_folder_that_was_moved_keeps_its_edits_and_no_path_of_before(tmp_path: Path) -> None:
    """A moved folder read the artifacts of where it had been, or lost its edits."""
    planned(layout(tmp_path / "app"))
    edit(tmp_path / "app", "student-distilled", learning_rate=0.5)
    (tmp_path / "app").rename(tmp_path / "moved")
    steps = planned(layout(tmp_path / "moved"))
    assert setting(steps, "candidates", "out") == tmp_path / "moved" / "runs" / "candidates"
    assert setting(steps, "scores-bm25", "candidates") == tmp_path / "moved/runs/candidates"
    assert setting(steps, "student-distilled", "learning_rate") == 0.5


def test_an_edit_stays_until_it_is_taken_back(tmp_path: Path) -> None:
    """An edit was lost with the next run, or could not be undone."""
    planned(layout(tmp_path))
    edit(tmp_path, "student-distilled", max_steps=7)
    for _ in range(2):
        steps = planned(layout(tmp_path, steps=50))
        assert setting(steps, "student-distilled", "max_steps") == 7
    edit(tmp_path, "student-distilled", max_steps=50)
    steps = planned(layout(tmp_path, steps=60))
    assert setting(steps, "student-distilled", "max_steps") == 60


def test_the_folder_of_a_step_cannot_be_edited(tmp_path: Path) -> None:
    """A step wrote elsewhere, and the steps after it read what lay in its old folder."""
    planned(layout(tmp_path))
    edit(tmp_path, "candidates", out=str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="step candidates: the out of a step cannot be changed"):
        planned(layout(tmp_path))


def test_a_plan_of_another_command_is_not_taken_over(tmp_path: Path) -> None:
    """plan.yaml of a benchmark was overwritten, as any folder with a plan.yaml was ours."""
    (tmp_path / "plan.yaml").write_text("embed/scifact:\n  model: small\n")
    with pytest.raises(ConfigError, match="is not a plan of `distil`"):
        planned(layout(tmp_path))


def save_collection(folder: Path, *, titles: bool, splits: tuple[str, ...] = ()) -> str:
    """Write 40 documents and a query for each split; return the collection's id."""
    (folder / "qrels").mkdir(parents=True)
    docs = ({"_id": f"d{n}", "title": f"title {n}" * titles, "text": f"t{n}"} for n in range(40))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    queries = ({"_id": f"q-{split}", "text": f"Query of {split}"} for split in splits)
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    for split in splits:
        judgement = f"query-id\tcorpus-id\tscore\nq-{split}\td1\t1\n"
        (folder / "qrels" / f"{split}.tsv").write_text(judgement)
    return f"beir:{folder}"


def situation_of(data: str, out: Path, **changes: Any) -> Situation:
    return look_at(DistilConfig(data=data, out=out, **changes))


def test_options_that_generated_queries_need_are_refused_before_any_work(tmp_path: Path) -> None:
    """`queries= is given twice` came after the documents had been embedded."""
    data = save_collection(tmp_path / "c", titles=True)
    (tmp_path / "log.txt").write_text("a query\n")
    (tmp_path / "judged.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    with pytest.raises(ConfigError, match="give the query log as --queries"):
        situation_of(f"{data},queries={tmp_path / 'log.txt'}", tmp_path / "app")
    with pytest.raises(ConfigError, match="take the place of qrels="):
        situation_of(f"{data},qrels={tmp_path / 'judged.tsv'}", tmp_path / "app")


def test_a_split_that_is_named_and_absent_is_refused(tmp_path: Path) -> None:
    """`--test-split tset` was measured on generated queries, and nothing said so."""
    data = save_collection(tmp_path / "c", titles=True, splits=("test",))
    assert situation_of(data, tmp_path / "app").has_test
    with pytest.raises(ConfigError, match="--test-split: .* has no split 'tset'. It has: test"):
        situation_of(data, tmp_path / "app", test_split="tset")


@pytest.mark.parametrize("measured", ["dev_split", "test_split"])
def test_no_split_is_trained_and_measured_on(tmp_path: Path, measured: str) -> None:
    """`--test-split train` measured on the queries whose labels had trained the student."""
    with pytest.raises(ConfigError, match="is trained on"):
        DistilConfig(data="docs:handbook", out=tmp_path, **{measured: "train"})  # type: ignore[arg-type]


def test_a_judged_query_of_the_log_is_not_trained_on(tmp_path: Path) -> None:
    """A text under two ids, or a labelled query in the log, was trained on and then measured."""
    data = save_collection(tmp_path / "c", titles=True, splits=("train",))
    log = tmp_path / "log, of May.csv"
    rows = [f"{n},Question {n % 20}" if n < 20 else f"{n},question  {n % 20}" for n in range(40)]
    log.write_text("\n".join(["session,text", *rows, "90,query of TRAIN"]) + "\n")
    laid_out = layout(
        tmp_path / "app",
        replace(DOCUMENTS, logged=41),
        data=data,
        queries=f"{log},id=session",
        judge="llm:judge",
        held_out=100,
    )
    (step,) = log_step(laid_out)
    assert "collection" in step.inputs(), "labels that are added later split it again"
    step.make()

    def texts(name: str) -> list[str]:
        lines = (tmp_path / "app" / "log" / name).read_text().splitlines()
        return [json.loads(line)["text"].casefold() for line in lines]

    held_out, train = texts("held-out.jsonl"), texts("train.jsonl")
    assert len(held_out) == len(set(held_out)) == 10
    assert len(train) == 21
    assert set(held_out).isdisjoint(train)
    assert "query of train" in train
    steps = plan_steps(laid_out)
    assert setting(steps, "queries", "data") == f"{data},queries={laid_out.judged_log}"


@pytest.mark.parametrize(
    ("changes", "step", "why"),
    [
        ({"judge": "reader:m"}, "held-out-judgements", "compares the documents of a list"),
        ({"keep_layers": (0, 7)}, "student-cut", "the model has 2 layers"),
    ],
)
def test_what_a_late_step_would_refuse_is_refused_first(
    tmp_path: Path, changes: dict[str, Any], step: str, why: str
) -> None:
    """A judge of whole lists failed after all trainings; a layer too many, after embedding."""
    model = str(save_tiny_model(tmp_path / "model", layers=2))
    steps = plan_steps(layout(tmp_path / "app", student=model, **changes))
    names = [each.name for each in steps]
    with pytest.raises(ConfigError, match=f"step {step}: .*{why}"):
        check_steps(steps, names)
    check_steps(steps, set(names) - {step})


def test_a_run_checks_its_steps_before_the_first(tmp_path: Path) -> None:
    """The checks of steps stood unused, and the first steps ran for hours."""
    data = save_collection(tmp_path / "c", titles=True)
    with pytest.raises(ConfigError, match="step held-out-judgements"):
        distil(DistilConfig(data=data, out=tmp_path / "app", judge="reader:m"))
    assert {path.name for path in (tmp_path / "app").iterdir()} == {"plan.yaml", "steps"}


def test_an_edit_is_checked_as_well(tmp_path: Path) -> None:
    """A setting that was edited in plan.yaml was read when its step began, hours later."""
    planned(layout(tmp_path))
    edit(tmp_path, "scores-bm25", option=["k1=1.2"])
    with pytest.raises(ConfigError, match="step scores-bm25: --option 'k1=1.2'"):
        check_steps(planned(layout(tmp_path)), {"scores-bm25"})


@pytest.mark.parametrize("out", ["app", "runs/candidates/app"])
def test_the_estimate_counts_the_queries_of_each_step(tmp_path: Path, out: str) -> None:
    """3,000 test queries were estimated as 200, and in some folders as those of the training."""
    situation = replace(DOCUMENTS, logged=50, labelled=10, dev=30, test=3000)
    laid_out = layout(tmp_path / out, situation, teacher=("bm25", "cross-encoder:m"), rounds=2)
    counts = {
        step.name: queries_of(laid_out, step)
        for step in plan_steps(laid_out)
        if step.verb in ("mine", "score")
    }
    assert counts["candidates"] == counts["scores-cross-encoder"] == 460
    assert counts["round-2-candidates"] == counts["round-2-scores-bm25"] == 460
    assert counts["test-candidates"] == counts["test-scores-cross-encoder"] == 3000


def test_the_estimate_has_the_documents_of_other_encoders(tmp_path: Path) -> None:
    """A teacher of 0.6B parameters embeds all documents, and the estimate was that of a student."""
    teachers = ("bm25", "bi-encoder:small", "bi-encoder:large", "cross-encoder:m")
    laid_out = layout(tmp_path, student="small", teacher=teachers)
    assert other_encoders(laid_out) == ["large"]
    assert other_encoders(layout(tmp_path, student="small")) == []


def test_judged_queries_are_measured_with_their_texts(tmp_path: Path) -> None:
    """Held-out queries had no text where they were judged, so none was compared with training."""
    data = save_collection(tmp_path / "c", titles=True)
    laid_out = layout(tmp_path / "app", data=data, judge="llm:judge")
    for folder, name, text in (
        ("queries", "held-out.jsonl", '{"_id": "g-1", "text": "a query"}'),
        ("judgements/qrels", "judged.tsv", "query-id\tcorpus-id\tscore\ng-1\td1\t2"),
    ):
        (tmp_path / "app" / folder).mkdir(parents=True)
        (tmp_path / "app" / folder / name).write_text(f"{text}\n")
    assert laid_out.test is not None
    collection = load_collection(laid_out.with_judgements(laid_out.test))
    assert collection.query_ids("judged") == ["g-1"]


def test_new_weights_under_an_old_name_are_chosen_anew(tmp_path: Path) -> None:
    """student/ kept the weights of before where --student was a plain folder that had changed."""
    (tmp_path / "model.safetensors").write_bytes(b"old")
    before = _fingerprint_of(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"new")
    assert _fingerprint_of(str(tmp_path)) != before
    assert _fingerprint_of("packaged:all-MiniLM-L6-v2") == {}


def test_documents_are_as_long_in_the_index_as_in_training(tmp_path: Path) -> None:
    """A model of 16 tokens trained with vectors of 16, and was served with vectors of 32."""
    model = str(save_tiny_model(tmp_path / "model", layers=2, max_tokens=16))
    data = save_collection(tmp_path / "c", titles=True)
    changes = {"data": data, "student": model, "max_tokens": 32}
    situation = situation_of(out=tmp_path / "app", **changes)
    steps = plan_steps(layout(tmp_path / "app", situation, **changes))
    assert setting(steps, "index-untouched", "max_tokens") == 16
    assert setting(steps, "candidates", "max_tokens") == 16
    assert situation_of(data, tmp_path / "app").limit == 256, "of the packaged model"


def test_a_choice_by_the_queries_that_are_reported_is_told(tmp_path: Path) -> None:
    """The best of two students on the test split was reported as if other queries had chosen it."""
    means = {"untouched": 0.5, "distilled": 0.6}
    systems = [{"name": name, "metrics": {"ndcg@10": mean}} for name, mean in means.items()]
    evaluation = {"systems": systems, "tests": [], "settings": {"queries": 9}}
    choice = Choice(name="distilled", values=means)
    for dev, told in ((0, True), (30, False)):
        lines = verdict(evaluation, choice, layout(tmp_path, replace(DOCUMENTS, dev=dev, test=9)))
        assert any("have also chosen" in line for line in lines) == told
