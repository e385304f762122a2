"""`rounds`: what each round mines, scores, trains from and keeps; stopped, killed, refused."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.corpus import save_small_collection
from fakes.counting import asked
from fakes.language_models import save_tiny_seq2seq
from fakes.models import save_tiny_cross_encoder, save_tiny_model

from retrodistill.base.config import MineSettings, RoundsConfig
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest, digest_files
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import PreferenceStore
from retrodistill.rounds import main
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.pipelines.rounds.layout import START
from retrodistill.stages.pipelines.rounds.pipeline import look_at, run_rounds
from retrodistill.stages.pipelines.rounds.stopping import kept_of
from retrodistill.stages.pipelines.rounds.stores import united
from retrodistill.stages.pipelines.rounds.trainings import trainings_of
from retrodistill.stages.pipelines.steps import sound_fingerprint

SMALL = ("max_steps=4", "batch_size=4", "learning_rate=0.003", "doc_tokens=32")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with the splits train and dev, and a tiny model in `m/model`."""
    folder = tmp_path_factory.mktemp("rounds")
    data = save_small_collection(folder / "data")
    (data / "qrels" / "test.tsv").rename(data / "qrels" / "dev.tsv")
    save_tiny_model(folder / "m", layers=2)
    return folder


def settings(place: Path, out: Path, **changes: object) -> RoundsConfig:
    values: dict[str, object] = {
        "data": f"beir:{place / 'data'}",
        "student": str(place / "m" / "model"),
        "recipe": "listwise-kl",
        "teacher": (f"fakes.counting:CountingTeacher:{out.parent / 'asked.txt'}",),
        "out": out,
        "rounds": 3,
        "patience": 3,
        "depth": 6,
        "set_": SMALL,
        "precision": "float32",
    }
    return RoundsConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def app(place: Path, tmp_path_factory: pytest.TempPathFactory) -> RoundsConfig:
    """Settings of three rounds that have run."""
    config = settings(place, tmp_path_factory.mktemp("app") / "app")
    run_rounds(config)
    return config


def pairs(run: Path) -> set[str]:
    return {f"{query} {doc}" for query, docs, _ in Run.read(run).lists() for doc in docs}


def report_of(config: RoundsConfig) -> dict[str, object]:
    return dict(json.loads((config.out / "report.json").read_text())["rounds"])


def made(out: Path) -> dict[str, int]:
    records = (out / "steps").glob("*/manifest.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in records}


def test_each_round_mines_with_the_student_of_the_round_before(app: RoundsConfig) -> None:
    """A round that mines with the first student again, and finds what was scored already."""
    collection = load_collection(app.data)
    rounds = app.out / "rounds"
    students = [app.student, *(str(rounds / str(number) / "student") for number in (1, 2))]
    mined = []
    for number, student in enumerate(students, 1):
        mining = MineSettings(
            retriever=(f"dense:{student}",), depth=6, add_positives=True, precision="float32"
        )
        expected = mine_candidates(collection, "train", mining)
        run = Run.read(rounds / str(number) / "candidates")
        assert run.fingerprint == expected.fingerprint
        mined.append(run.fingerprint)
    assert len({*mined}) == 3


def test_a_pair_is_scored_once_in_all_rounds(app: RoundsConfig) -> None:
    """Scores of the first round that are paid for in each of the others."""
    requests = asked(app.out.parent / "asked.txt")
    rounds = app.out / "rounds"
    lists = [pairs(rounds / str(number) / "lists") for number in (1, 2, 3)]
    assert lists[0] < lists[1] < lists[2]
    assert len(requests) == len({*requests})
    assert {*requests} == lists[2]
    new = [row["new"] for row in report_of(app)["students"][1:]]  # type: ignore[index]
    assert new == [len(lists[0]), len(lists[1] - lists[0]), len(lists[2] - lists[1])]
    (store,) = (app.out / "scores").iterdir()
    assert pairs(store) == lists[2]
    stored = Run.read(store).to_dict()
    for number in (1, 2, 3):
        scores = Run.read(rounds / str(number) / "scores")
        assert pairs(rounds / str(number) / "scores") == lists[number - 1]
        assert scores.scale == "logit"
        for query, docs in scores.to_dict().items():
            assert docs == {doc: stored[query][doc] for doc in docs}


def test_a_round_trains_the_student_of_the_round_before(
    app: RoundsConfig, place: Path, tmp_path: Path
) -> None:
    """`--rounds` that trains the same thing three times, or --start first that goes on."""
    rounds = app.out / "rounds"
    weights = {digest_files(rounds / str(n) / "student", "*.safetensors") for n in (1, 2, 3)}
    assert len(weights) == 3
    for number in (2, 3):
        manifest = Manifest.read(rounds / str(number) / "student")
        assert manifest.config["student"] == str(rounds / str(number - 1) / "student")
        assert manifest.config["scores"] == [str(rounds / str(number) / "scores")]
    shutil.copytree(app.out, tmp_path / "app")
    first = settings(place, tmp_path / "app", rounds=2, start="first", teacher=app.teacher)
    run_rounds(first)
    manifest = Manifest.read(tmp_path / "app" / "rounds" / "2" / "student")
    assert manifest.config["student"] == app.student
    mined = [Run.read(out / "rounds" / "2" / "candidates") for out in (app.out, first.out)]
    assert mined[0].fingerprint == mined[1].fingerprint  # still by the student of round 1


def test_the_best_student_of_the_dev_split_is_kept(app: RoundsConfig) -> None:
    """The weights of another round than the one with the highest value."""
    report = json.loads((app.out / "report.json").read_text())
    values = {row["name"]: row["value"] for row in report["rounds"]["students"]}
    measured = {system["name"]: system["metrics"]["ndcg@10"] for system in report["systems"]}
    assert measured == pytest.approx(values)
    kept = max(values, key=lambda name: values[name])
    assert report["rounds"]["kept"] == kept
    number = kept.removeprefix("round ")
    student = Path(app.student) if kept == START else app.out / "rounds" / number / "student"
    assert digest_files(app.out / "student", "*.safetensors") == digest_files(
        student, "*.safetensors"
    )
    assert {subset["name"] for subset in report["subsets"]} >= {"no near double in training"}
    assert "new pairs" in (app.out / "report.html").read_text()


def test_the_same_again_does_nothing(app: RoundsConfig) -> None:
    """A resumed pipeline that trains or scores once more."""
    before, requests = made(app.out), asked(app.out.parent / "asked.txt")
    report = (app.out / "report.json").read_bytes()
    run_rounds(app)
    assert made(app.out) == before
    assert asked(app.out.parent / "asked.txt") == requests
    assert (app.out / "report.json").read_bytes() == report


def test_a_changed_setting_asks_for_no_known_score(app: RoundsConfig, tmp_path: Path) -> None:
    """Scores that are thrown away with the student that found the candidates."""
    shutil.copytree(app.out, tmp_path / "app")
    before = asked(app.out.parent / "asked.txt")
    changed = dataclasses.replace(app, out=tmp_path / "app", set_=(*SMALL, "seed=1"), rounds=2)
    try:
        run_rounds(changed)
        requests = asked(app.out.parent / "asked.txt")
        assert len(requests) == len({*requests})
        rounds = tmp_path / "app" / "rounds"
        fresh = pairs(rounds / "2" / "lists") - {*before}
        assert {*requests[len(before) :]} == fresh
    finally:
        (app.out.parent / "asked.txt").write_text("".join(f"{line}\n" for line in before))


def test_lists_of_the_latest_round_alone(place: Path, tmp_path: Path) -> None:
    """--candidates latest that trains on what the student has left behind."""
    config = settings(place, tmp_path / "app", rounds=2, candidates="latest")
    run_rounds(config)
    rounds = config.out / "rounds"
    assert pairs(rounds / "2" / "scores") == pairs(rounds / "2" / "candidates")
    assert len(asked(tmp_path / "asked.txt")) == len({*asked(tmp_path / "asked.txt")})
    new = pairs(rounds / "2" / "lists") - pairs(rounds / "1" / "lists")
    assert report_of(config)["students"][2]["new"] == len(new)  # type: ignore[index]


def test_lists_are_joined_with_the_latest_first() -> None:
    """A pair that is there twice, or an order in which old candidates push out new ones."""
    latest = Run.from_dict({"q1": {"d3": 2.0, "d1": 1.0}, "q3": {"d9": 0.0}})
    earlier = Run.from_dict({"q2": {"d5": 9.0}, "q1": {"d1": 9.0, "d2": 8.0}})
    joined = united(latest, earlier)
    assert {query: [*docs] for query, docs in joined.to_dict().items()} == {
        "q1": ["d3", "d1", "d2"],
        "q3": ["d9"],
        "q2": ["d5"],
    }
    assert united(latest, None).to_dict()["q1"] == {"d3": 0.0, "d1": -1.0}


def test_rounds_end_when_they_bring_nothing(place: Path, tmp_path: Path) -> None:
    """A round more for every one that was worse, or a first one that ends all."""
    layout = look_at(settings(place, tmp_path / "app", rounds=5, patience=2, min_delta=0.01))
    values = {START: 0.5, "round 1": 0.52}
    assert not kept_of(layout, values).stops
    values["round 2"] = 0.525  # too little to count, and yet the best
    kept = kept_of(layout, values)
    assert (kept.name, kept.stops) == ("round 2", "")
    values["round 3"] = 0.51
    kept = kept_of(layout, values)
    assert kept.name == "round 2"
    assert kept.stops == "2 rounds without a gain in ndcg@10 of 0.01"
    values |= {"round 3": 0.531, "round 4": 0.531}
    kept = kept_of(layout, values)
    assert (kept.name, kept.stops) == ("round 3", "")
    assert kept_of(layout, {START: 0.5, "round 1": 0.4, "round 2": 0.4}).name == START
    assert kept_of(layout, {START: 0.5, "round 1": 0.4, "round 2": 0.4}).stops


def test_a_cut_student_is_cut_once_and_kept_below_the_whole_model(
    place: Path, tmp_path: Path
) -> None:
    """Layers that are cut from a student that lacks them already; the whole model handed back."""
    config = settings(place, tmp_path / "app", rounds=2, set_=(*SMALL, "keep_layers=1"))
    layout = look_at(config)
    assert kept_of(layout, {START: 0.5, "round 1": 0.4, "round 2": 0.3}).name == "round 1"
    result = run_rounds(config)
    assert result.paid
    for number in (1, 2):
        folder = config.out / "rounds" / str(number) / "student"
        assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 1


def test_stages_are_trained_in_order_within_a_round(place: Path, tmp_path: Path) -> None:
    """A second stage that starts from the start model, or takes the settings of the first."""
    config = settings(
        place,
        tmp_path / "app",
        recipe="pair",
        rounds=1,
        set_=(*SMALL, "query-centric.max_steps=3", "passage-centric.label_below=0.6"),
    )
    run_rounds(config)
    first, second = (
        Manifest.read(config.out / "rounds" / "1" / stage / "student")
        for stage in ("passage-centric", "query-centric")
    )
    assert second.config["student"] == str(
        config.out / "rounds" / "1" / "passage-centric" / "student"
    )
    assert [first.config["max_steps"], second.config["max_steps"]] == [4, 3]
    assert [first.config["stage"], second.config["stage"]] == ["passage-centric", "query-centric"]
    names = [row["name"] for row in report_of(config)["students"]]  # type: ignore[union-attr]
    assert names == [START, "round 1, passage-centric", "round 1, query-centric"]


@pytest.mark.slow
def test_prod_climbs_its_chain_of_teachers(place: Path, tmp_path: Path) -> None:
    """A stage that learns from another's teacher, or is held to the start model; no last stage."""
    teachers = {
        "bi-encoder": f"bi-encoder:{save_tiny_model(tmp_path / 'be', dimension=48, seed=3)}",
        "cross-encoder": f"cross-encoder:{save_tiny_cross_encoder(tmp_path / 'ce', seed=1)}",
        "larger-cross-encoder": f"fakes.counting:CountingTeacher:{tmp_path / 'asked.txt'}",
    }
    config = settings(
        place,
        tmp_path / "app",
        recipe="prod",
        teacher=tuple(f"{label}={teacher}" for label, teacher in teachers.items()),
        rounds=1,
        set_=(*SMALL, "dropout=0", "max_steps=3", "data-progressive.student_ranks=1,6"),
    )
    run_rounds(config)
    start, stores = config.student, []
    for stage in (*teachers, "data-progressive"):
        folder = config.out / "rounds" / "1" / stage
        manifest = Manifest.read(folder / "student")
        assert manifest.config["student"] == start
        assert manifest.config["teacher"] == [f"previous=bi-encoder:{start}"]
        assert manifest.config["scores"] == [str(folder / "scores")]
        losses = [row["listwise-kl[previous]"] for row in manifest.details["losses"]]
        assert losses[0] == pytest.approx(0.0, abs=1e-4)
        assert losses[-1] > losses[0]
        start = str(folder / "student")
        stores.append(Run.read(folder / "scores").scale)
    assert stores == ["cosine", "logit", "logit", "logit"]
    assert len({*(config.out / "scores").iterdir()}) == 3


def test_without_a_teacher_the_candidates_are_hard_negatives(place: Path, tmp_path: Path) -> None:
    """Labels alone with the negatives of the batch, where the student's own were mined for it."""
    config = settings(place, tmp_path / "app", recipe="contrastive", teacher=(), rounds=2)
    run_rounds(config)
    manifest = Manifest.read(config.out / "rounds" / "2" / "student")
    assert manifest.config["scores"] == [str(config.out / "rounds" / "2" / "lists")]
    assert not (config.out / "scores").exists()


def test_a_reader_reads_whole_lists_again_where_one_passage_is_new(
    place: Path, tmp_path: Path
) -> None:
    """Attention that was shared among other passages than those of the list it is used for."""
    reader = save_tiny_seq2seq(tmp_path / "t5")
    config = settings(
        place, tmp_path / "app", recipe="fid-kd", teacher=(f"reader:{reader}",), rounds=2
    )
    run_rounds(config)
    rounds = config.out / "rounds"
    lists = [Run.read(rounds / str(number) / "lists").to_dict() for number in (1, 2)]
    changed = {query for query in lists[1] if {*lists[1][query]} != {*lists[0][query]}}
    new = sum(len(lists[1][query]) for query in changed)
    assert report_of(config)["students"][2]["new"] == new  # type: ignore[index]
    scores = [Run.read(rounds / str(number) / "scores").to_dict() for number in (1, 2)]
    for query, docs in scores[1].items():
        same = all(scores[0][query][doc] == docs[doc] for doc in scores[0][query])
        assert same == (query not in changed)


def test_preferences_are_asked_for_once(place: Path, tmp_path: Path) -> None:
    """Comparisons of the first round that are paid for again, or a round without its own."""
    duo = save_tiny_cross_encoder(tmp_path / "duo")
    config = settings(
        place,
        tmp_path / "app",
        recipe="pairdistill",
        comparer=f"pairwise:{duo}",
        opponents=2,
        rounds=2,
        depth=4,
        set_=(*SMALL, "student_kind=bi-encoder"),
    )
    run_rounds(config)
    (whole,) = (config.out / "preferences").iterdir()
    edges = []
    for folder in (whole, *(config.out / "rounds" / n / "preferences" for n in "12")):
        table = PreferenceStore.open(folder).edges()
        edges.append({tuple(row.values())[:3]: row["log_p"] for row in table.to_pylist()})
    assert edges[1].items() | edges[2].items() == edges[0].items()
    compared = [row["compared"] for row in report_of(config)["students"][1:]]  # type: ignore[index]
    assert compared == [len(edges[1]), len(edges[2].keys() - edges[1].keys())]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": ()}, "needs scores: give --teacher"),
        ({"teacher": ("a=bm25",)}, "no stage asks for 'a'"),
        ({"recipe": "pairdistill"}, "needs preferences: give --comparer"),
        ({"recipe": "leaf"}, "needs --vectors, which rounds do not give"),
        ({"recipe": "tct-colbert"}, "needs --teacher, which rounds do not give"),
        ({"set_": ("max_step=3",)}, "Did you mean 'max_steps'"),
        ({"set_": ("max_steps",)}, "must read NAME=VALUE"),
        ({"set_": ("second.max_steps=3",)}, "unknown stage 'second'. The recipe has no stages"),
        ({"set_": ("dev_split=dev",)}, "a round's queries are those of --split"),
        ({"stage": ("first",)}, "has no stages"),
        ({"option": ("x.y=1",)}, "there is no teacher x"),
    ],
)
def test_what_rounds_cannot_do_is_said_before_any_work(
    place: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    """A recipe that trains as another one, because it is not given what it needs."""
    with pytest.raises(ConfigError, match=message):
        trainings_of(settings(place, tmp_path / "app", **changes))


def test_students_that_do_not_retrieve_are_refused(place: Path, tmp_path: Path) -> None:
    """A reranker that is asked to mine, after the scores are paid for."""
    reranker = settings(place, tmp_path / "app", set_=("student_kind=cross-encoder",))
    with pytest.raises(ConfigError, match="does not retrieve by itself"):
        look_at(reranker)
    with pytest.raises(ConfigError, match="split 'def'|Did you mean|no split"):
        look_at(settings(place, tmp_path / "app", dev_split="def"))


@pytest.mark.slow
def test_killed_rounds_end_as_undisturbed_ones(
    app: RoundsConfig, place: Path, tmp_path: Path
) -> None:
    """A pair that is scored twice, or another student, for a kill at a bad moment."""
    config = settings(place, tmp_path / "app")
    flags = {
        "data": config.data,
        "student": config.student,
        "recipe": config.recipe,
        "teacher": config.teacher[0],
        "out": config.out,
        "rounds": 3,
        "patience": 3,
        "depth": 6,
        "precision": "float32",
    }
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    words += [word for text in config.set_ for word in ("--set", text)]
    command = [sys.executable, "-m", "retrodistill.rounds", *words]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    random.seed(0)
    moments = ["round-1-scores", "round-1-student", "round-2-candidates", "round-3-scores"]
    for step in moments:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        deadline = time.monotonic() + 200
        while not (config.out / "steps" / step).exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(random.random() / 5)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert done.returncode in (0, 1), done.stderr.decode()
    parts = [f"rounds/{n}/{name}" for n in (1, 2, 3) for name in ("lists", "scores", "student")]
    for part in (*parts, "student", "runs/dev/round-3"):
        assert sound_fingerprint(config.out / part) == sound_fingerprint(app.out / part), part
    for name in ("kept", "students"):
        assert report_of(config)[name] == report_of(app)[name]
    # Only a pair of a shard that a kill has met is asked for again; none is stored twice.
    (store,) = (config.out / "scores").iterdir()
    rows = Run.read(store)
    assert len(rows) == len(pairs(app.out / "rounds" / "3" / "lists"))
    repeated = len(asked(tmp_path / "asked.txt")) - len(rows)
    assert repeated <= sum(row["new"] or 0 for row in report_of(app)["students"])  # type: ignore[union-attr]


def test_the_command_prints_what_was_kept(
    app: RoundsConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table without the reason why it ends."""
    words = f"--data {app.data} --student {app.student} --recipe {app.recipe} --out {app.out} "
    words += f"--teacher {app.teacher[0]} --rounds 3 --patience 3 --depth 6 --precision float32"
    status = main([*words.split(), *(word for text in app.set_ for word in ("--set", text))])
    text = capsys.readouterr().out
    assert status == int(not report_of(app)["paid"])
    assert "Ended after 3 trainings: --rounds 3." in text
    assert "new pairs" in text
    assert "round 3" in text
