"""Judgements by a language model over real HTTP, and by a teacher's scores."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.judges import Overlap
from fakes.llm_server import Reply, Server, completion, refusal, serve, shared_words

from retrodistill import evaluate, judge, report
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.models.teachers.llm import Rubric, client
from retrodistill.models.teachers.llm.answers import Answer, Malformed
from retrodistill.models.teachers.llm.grading import read_rubric_grade

Scores = Mapping[str, Mapping[str, float]]

FIRST = {f"q{n}": {f"d{n}": 3.0, f"d{n + 1}": 2.0, f"d{n + 2}": 1.0} for n in range(24, 32)}
SECOND = {f"q{n}": {f"d{n + 1}": 9.0, f"d{n + 3}": 8.0, f"d{n}": 7.0} for n in range(24, 32)}
THIRD = {f"q{n}": {f"d{n + 3}": 9.0, f"d{n + 2}": 8.0, f"d{n + 1}": 7.0} for n in range(24, 32)}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, no key, no other endpoint, and a short back-off."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)


def overlap(prompt: str) -> int:
    """Return the shared words of a question's texts."""
    query = re.search(r"^Query: (.*)$", prompt, re.MULTILINE)
    passage = re.search(r"^Passage: (.*)$", prompt, re.MULTILINE)
    assert query is not None
    assert passage is not None
    return shared_words(query[1], passage[1])


def grader(prompt: str) -> Reply:
    """Answer as a model that grades by the number of shared words."""
    return completion(json.dumps({"grade": min(3, overlap(prompt))}))


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(grader) as running:
        yield running


def written(folder: Path, *runs: Scores) -> list[str]:
    """Return the flags of runs, each written as a TREC file."""
    words = []
    for number, scores in enumerate(runs):
        path = folder / f"run{number}.trec"
        Run.from_dict(scores).to_trec(path)
        words += ["--run", str(path)]
    return words


def judged(place: Path, folder: Path, server: Server, *words: str, runs: int = 2) -> int:
    """Run `judge` in this process; return its status."""
    flags = written(place, *(FIRST, SECOND, THIRD)[:runs])
    flags += ["--data", f"beir:{folder}", "--out", str(place / "out"), "--judge", "llm:m"]
    flags += ["--option", f"url={server.url}", "--option", "retries=1", "--depth", "2"]
    return judge.main([*flags, *words])


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# The whole path


def test_from_runs_to_an_evaluation(
    tmp_path: Path, folder: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Judgements that no loader reads, or that a report passes off as people's."""
    assert judged(tmp_path, folder, server, "--split", "test") == 0
    out = tmp_path / "out"
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == str(out)
    assert "With fewer than 3 runs (2 here), a tau of their order says nothing" in said
    assert "saw the first 2 of each list" in said
    assert "kappa on these is undefined" in said
    # the loader reads what the server said
    spec = f"beir:{folder},qrels={out / 'qrels'}"
    collection = load_collection(spec)
    qrels = collection.qrels("judged")
    assert {query: {*docs} for query, docs in qrels.items()} == {
        f"q{n}": {f"d{n}", f"d{n + 1}", f"d{n + 3}"} for n in range(24, 32)
    }
    human = collection.qrels("test")
    for row in lines(out / "judgements.jsonl"):
        query, doc = str(row["query_id"]), str(row["doc_id"])
        words = collection.queries.get(query).text, collection.docs.get(doc).full_text
        assert qrels[query][doc] == row["grade"] == min(3, shared_words(*words))
        assert json.loads(str(row["answer"])) == {"grade": row["grade"]}
        assert row["judge"] == "llm:m"
        assert row.get("human_grade") == human[query].get(doc)
    assert len(lines(out / "judgements.jsonl")) == len(server) == 24
    assert not (out / "unjudged.jsonl").exists()
    details = Manifest.read(out, kind="judgements").details
    assert details["agreement"]["tau"] is None
    assert details["agreement"]["judged"]["pairs"] == 8
    assert details["agreement"]["assumed"]["pairs"] == 24
    # `evaluate` reads them, and says whose they are
    words = ["--data", spec, "--run", str(tmp_path / "run0.trec")]
    words += ["--run", str(tmp_path / "run1.trec"), "--metrics", "ndcg@10"]
    note = "judged by llm:m, not by people"
    result = tmp_path / "result.json"
    assert evaluate.main([*words, "--split", "judged", "--json", str(result)]) == 0
    assert note in capsys.readouterr().out
    assert json.loads(result.read_text())["settings"]["caution"] == note
    assert evaluate.main([*words, "--split", "test", "--json", str(result)]) == 0
    assert note not in capsys.readouterr().out
    assert "caution" not in json.loads(result.read_text())["settings"]
    file = ["--qrels", str(out / "qrels" / "judged.tsv"), *words[2:]]
    page = tmp_path / "page"
    assert report.main([*file, "--queries", "0", "--out", str(page)]) == 0
    for name in ("report.html", "report.md", "report.tex", "report.json"):
        assert note in (page / name).read_text()


def test_generated_queries_are_named_as_such(tmp_path: Path, folder: Path) -> None:
    """A gain on queries that were written from the documents, read as one on users' queries."""
    made = tmp_path / "made"
    (made / "qrels").mkdir(parents=True)
    (made / "qrels" / "new.tsv").write_text("q1\td1\t1\n")
    Manifest(kind="queries", fingerprint="x").write(made)
    collection = load_collection(f"beir:{folder},qrels={made / 'qrels'}")
    assert "generated from documents" in collection.made_by_machine("new")
    assert collection.made_by_machine("test") == ""


def test_a_benchmark_says_it_too(folder: Path, tmp_path: Path) -> None:
    """A page of systems, measured by a machine's grades, that does not say so."""
    from retrodistill.stages.pipelines.benchmark import _evaluation

    Manifest(kind="judgements", fingerprint="x", details={"judge": "llm:m"}).write(tmp_path)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "judged.tsv").write_text("q24\td24\t1\n")
    Run.from_dict(FIRST).write(tmp_path / "run")
    workspace: Any = SimpleNamespace(
        collection=load_collection(f"beir:{folder},qrels={tmp_path / 'qrels'}"),
        dataset=SimpleNamespace(split="judged"),
        folder=lambda kind, name: tmp_path / "run",
    )
    settings = _evaluation(workspace, ["a"], []).settings
    assert settings["caution"] == "judged by llm:m, not by people"
    workspace.dataset.split = "test"
    assert "caution" not in _evaluation(workspace, ["a"], []).settings


# What is asked


def test_a_judge_sees_no_system(
    tmp_path: Path, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that reads a rank or a score, and grades what the better system has found."""
    assert judged(tmp_path, folder, server) == 0
    grades = (tmp_path / "out" / "qrels" / "judged.tsv").read_text()
    turned = [
        {query: {doc: -score * 7 for doc, score in docs.items()} for query, docs in run.items()}
        for run in (FIRST, SECOND)
    ]
    flags = ["--data", f"beir:{folder}", "--judge", "llm:m", "--option", "concurrency=1"]
    for number, runs in enumerate(([FIRST, SECOND], turned, [SECOND, FIRST])):
        with serve(grader) as other:
            (tmp_path / f"{number}").mkdir()
            words = [*written(tmp_path / f"{number}", *runs), "--out", str(tmp_path / f"o{number}")]
            monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / f"cache{number}"))
            words += ["--depth", "3", "--option", f"url={other.url}"]
            assert judge.main([*flags, *words]) == 0
            prompts = other.prompts
        if number == 0:
            wanted = prompts
        assert prompts == wanted
    assert all(prompt.count("Passage: ") == 1 for prompt in prompts)
    assert not [prompt for prompt in prompts if re.search(r"run\d|trec|rank|d2\d", prompt)]
    deeper = (tmp_path / "o0" / "qrels" / "judged.tsv").read_text()
    assert {*grades.splitlines()} < {*deeper.splitlines()}


def test_ties_are_pooled_by_their_rule(
    tmp_path: Path, folder: Path, collection: Collection
) -> None:
    """A pool of the first two of three equal scores that follows the order of a file's lines."""
    from retrodistill.base.config import JudgeSettings
    from retrodistill.stages.judging.pool import pooled

    pools = []
    settings = JudgeSettings(judge="llm:m", depth=2)
    for order in (("d1", "d2", "d3"), ("d3", "d1", "d2")):
        path = tmp_path / "run.trec"
        rows = [f"q1 Q0 {doc} {rank} 1.0 t" for rank, doc in enumerate(order, 1)]
        path.write_text("\n".join(rows) + "\n")
        pools.append(pooled(collection, {"run": Run.read(path)}, settings).to_dict())
    assert pools[0] == pools[1] == {"q1": {"d3": 0.0, "d2": 0.0}}


def test_the_draw_of_queries(tmp_path: Path, folder: Path, collection: Collection) -> None:
    """A draw that another order of runs changes: the second command pays for other queries."""
    from retrodistill.base.config import JudgeSettings
    from retrodistill.stages.judging.pool import drawn as draw
    from retrodistill.stages.judging.pool import pooled

    turned = dict(reversed(FIRST.items()))
    drawn = []
    for seed, runs in ((0, (FIRST, SECOND)), (0, (SECOND, turned)), (1, (FIRST, SECOND))):
        named = {str(number): Run.from_dict(run) for number, run in enumerate(runs)}
        settings = JudgeSettings(judge="llm:m", max_queries=3, seed=seed)
        drawn.append(pooled(collection, named, settings, split="test").query_ids)
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 3
    orders = [*FIRST], [*reversed(FIRST)]  # a set of ids has another order in every process
    assert draw(collection, orders[0], 3, 0) == draw(collection, orders[1], 3, 0) == drawn[0]


def test_another_rubric_is_another_question(tmp_path: Path, folder: Path, server: Server) -> None:
    """An answer under one rubric, taken from the cache for another."""
    assert judged(tmp_path, folder, server) == 0
    assert len(server) == 24
    first = Manifest.read(tmp_path / "out")
    assert judged(tmp_path, folder, server, "--overwrite") == 0
    assert len(server) == 24
    assert Manifest.read(tmp_path / "out").fingerprint == first.fingerprint
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("Judge {for} a lawyer.\n1 = useful\n0 = useless\n")
    server.answer = lambda prompt: completion("1" if overlap(prompt) else "0")
    assert judged(tmp_path, folder, server, "--overwrite", "--rubric", str(rubric)) == 0
    assert len(server) == 48
    assert "Judge {for} a lawyer." in server.prompts[-1]
    second = Manifest.read(tmp_path / "out")
    assert second.details["rubric"] != first.details["rubric"]
    assert second.details["highest"] == 1
    assert {*second.details["grades"]} <= {"0", "1"}


@pytest.mark.parametrize("text", ["relevant or not", "0: no\n2: yes", "0: no", "1: a\n1: b"])
def test_a_rubric_without_its_grades(text: str) -> None:
    """A rubric whose highest grade is guessed."""
    with pytest.raises(ConfigError, match="each on a line of its own"):
        Rubric.parse(text)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('{"grade": 2}', 2),
        ('{"grade": "2"}', 2),
        ('```json\n{"grade": 2.0}\n```', 2),
        ('I first thought {"grade": 3}, but {"grade": 1}', 1),
        ('<think>{"grade": 3}</think>{"grade": 0}', 0),
        ("on a scale of 0 to 3: 1", 1),
        ("The passage is about it.\n##final score: 2", 2),
        ("**Grade:** 3.", 3),
        ("2", 2),
        ("On a scale of 0 to 3, this is hard to say", None),
        ("3 reasons speak for it", None),
        ("Grades: 0, 1, 2, 3", None),
        ("score: 1/3", None),
        ("0-3", None),
        ('{"grade": 4}', None),
        ('{"grade": 1.5}', None),
        ('{"grade": true}', None),
        ('{"grade": null}', None),
        ('{"grade": N}', None),
        ("-1", None),
        ("score: 12", None),
        ("no", None),
        ("", None),
    ],
)
def test_grades_as_models_write_them(text: str, grade: int | None) -> None:
    """The 3 of `0 to 3` taken for the grade, or nothing taken for 0."""
    answer = Answer(text, None, 1, 1)
    if grade is None:
        with pytest.raises(Malformed):
            read_rubric_grade(answer, 3)
    else:
        assert read_rubric_grade(answer, 3) == grade


# Failures


def failing(prompt: str) -> Reply:
    """Refuse, talk or hang where the first word of a passage says so."""
    words = re.search(r"^Passage: (.*)$", prompt, re.MULTILINE)
    assert words is not None
    number = sum(map(ord, words[1])) % 8
    if number == 0:
        return refusal(400, "content filter")
    if number == 1:
        return completion("It is hard to say: 0 of 3?")
    if number == 2:
        reply = grader(prompt)
        reply.delay = 1.0
        return reply
    return grader(prompt)


def test_a_failure_is_no_grade(
    tmp_path: Path, folder: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A timeout, a refusal or small talk counted as grade 0."""
    server.answer = failing
    flags = ["--option", "timeout=0.3", "--max-failed", "0.9"]
    assert judged(tmp_path, folder, server, *flags) == 0
    assert "are unjudged, not grade 0" in capsys.readouterr().err.replace("\n", " ")
    out = tmp_path / "out"
    missing = {(row["query_id"], row["doc_id"]): row for row in lines(out / "unjudged.jsonl")}
    assert {row["failure"] for row in missing.values()} == {
        "refused",
        "unusable answer",
        "no answer",
    }
    assert not [row for row in missing.values() if "grade" in row]
    qrels = load_collection(f"beir:{folder},qrels={out / 'qrels'}").qrels("judged")
    pairs = {(query, doc) for query, docs in qrels.items() for doc in docs}
    assert not pairs & {*missing}
    assert len(pairs) + len(missing) == 24
    unjudged = Manifest.read(out).details["unjudged"]
    assert sum(unjudged.values()) == len(missing)
    # the second run asks for these only
    server.answer = grader
    asked = len(server)
    assert judged(tmp_path, folder, server, "--overwrite") == 0
    assert len(server) - asked == len(missing)
    assert not (out / "unjudged.jsonl").exists()
    assert len(lines(out / "judgements.jsonl")) == 24


def test_too_many_failures_are_an_error(
    tmp_path: Path, folder: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of the few easy pairs, or a bill for an endpoint that talks and never grades."""
    talk = completion("It is hard to say: 0 of 3?")
    server.answer = lambda prompt: grader(prompt) if len(server) <= 5 else talk
    flags = ["--option", "concurrency=1", "--max-failed", "0.1"]
    assert judged(tmp_path, folder, server, *flags) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert "3 of 24 pairs have no grade so far (3 unusable answer), and at most 2 may" in said
    assert "undecided" not in said  # the advice of `score`, which `judge` refuses
    assert not (tmp_path / "out").exists()
    assert len(server) == 5 + 3 * 2  # each failing pair is asked again once
    good = server.prompts[:5]
    server.answer = grader
    assert judged(tmp_path, folder, server) == 0
    assert {*good}.isdisjoint(server.prompts[11:])
    assert len(server) == 11 + 24 - 5


def test_the_limit_on_cost_holds(
    tmp_path: Path, folder: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pool that costs ten times the limit, since failures are allowed."""
    prices = ["max_cost=0.001", "price_in=1", "price_out=0", "concurrency=1"]
    options = [word for price in prices for word in ("--option", price)]
    assert judged(tmp_path, folder, server, *options, "--max-failed", "0.9") == 2
    assert "would exceed max_cost" in capsys.readouterr().err
    assert 0 < len(server) < 24
    asked = len(server)
    assert judged(tmp_path, folder, server) == 0
    assert len(server) == 24 > asked


def test_a_kill_loses_no_answer(tmp_path: Path, folder: Path, server: Server) -> None:
    """Answers that were paid, and are asked for again after a kill."""
    started: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()

    def kill_at_the_ninth(prompt: str) -> Reply:
        if len(server) == 9:
            ready.wait()
            os.kill(started[0].pid, signal.SIGKILL)
        return grader(prompt)

    server.answer = kill_at_the_ninth
    words = [*written(tmp_path, FIRST, SECOND), "--data", f"beir:{folder}", "--judge", "llm:m"]
    words += ["--out", str(tmp_path / "out"), "--depth", "2", "--option", f"url={server.url}"]
    command = [sys.executable, "-m", "retrodistill.judge", *words, "--option", "concurrency=1"]
    started.append(subprocess.Popen(command, cwd=Path(judge.__file__).parents[1]))
    ready.set()
    assert started[0].wait(timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    asked = server.prompts
    assert len(asked) == 9
    assert judge.main(words) == 0
    assert {*asked} & {*server.prompts[9:]} == {asked[-1]}
    assert len(server) == 9 + 24 - 8


def test_queries_of_a_file(
    tmp_path: Path, folder: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A query log without judgements: refused, or judged together with another split's queries."""
    (tmp_path / "log.jsonl").write_text('{"_id": "new", "text": "blood heart"}\n')
    words = written(tmp_path, {**FIRST, "new": {"d1": 1.0, "d2": 0.5}})
    words += ["--data", f"beir:{folder}", "--queries", str(tmp_path / "log.jsonl")]
    words += ["--judge", "llm:m", "--option", f"url={server.url}", "--out", str(tmp_path / "out")]
    assert judge.main(words) == 0
    assert len(server) == 2
    assert "agreement" not in capsys.readouterr().out
    rows = lines(tmp_path / "out" / "judgements.jsonl")
    assert [(row["query_id"], row["doc_id"]) for row in rows] == [("new", "d2"), ("new", "d1")]


# Teachers that give scores


def test_scores_become_grades(
    tmp_path: Path, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thresholds on probabilities compared with logits, and scores paid twice."""
    monkeypatch.setattr(Overlap, "scored", 0)
    words = [*written(tmp_path, FIRST, SECOND), "--data", f"beir:{folder}", "--depth", "2"]
    words += ["--judge", "fakes.judges:Overlap:x", "--out", str(tmp_path / "out"), "--overwrite"]
    assert judge.main([*words, "--grades", "0.1,0.5,0.9"]) == 0
    rows = lines(tmp_path / "out" / "judgements.jsonl")
    # 8 (share - 0.5) is -4, -2, 0, 2 or 4: probabilities 0.02, 0.12, 0.5, 0.88, 0.98
    expected = {-4.0: 0, -2.0: 1, 0.0: 2, 2.0: 2, 4.0: 3}
    assert {row["score"] for row in rows} >= {4.0, -4.0}
    assert [row["grade"] for row in rows] == [expected[float(str(row["score"]))] for row in rows]
    assert Overlap.scored == 24
    hashed = rows[0]["rubric"]
    assert judge.main([*words, "--quantiles", "0.5"]) == 0
    rows = lines(tmp_path / "out" / "judgements.jsonl")
    assert Overlap.scored == 24
    middle = sorted(float(str(row["score"])) for row in rows)[11:13]
    assert [row["grade"] for row in rows] == [
        int(float(str(row["score"])) >= sum(middle) / 2) for row in rows
    ]
    assert rows[0]["rubric"] != hashed
    assert judge.main([*words, "--grades", "0.5,3"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--judge fakes.judges:Listwise:x --grades 0.5", "compares the documents of a list"),
        ("--judge llm-listwise:m --grades 0.5", "compares the documents of a list"),
        ("--judge run:run0.trec --grades 0.5", "is one of the runs that are judged"),
        ("--judge llm:m --option undecided=true", "make a grade of a missing answer"),
        ("--judge bm25", "say from which score on"),
        ("--judge bm25 --rubric run0.trec", "reads no --rubric"),
        ("--judge llm:m --grades 0.5", "gives grades by a rubric"),
        ("--judge llm:m --rubric run0.trec", "must say what the grades"),
        ("--judge bm25 --grades 0.5,0.4", "must be ascending numbers"),
        ("--judge bm25 --grades nan", "must be ascending numbers"),
        ("--judge bm25 --quantiles 0.5,1.5", "between 0 and 1"),
        ("--judge llm:m --split none", "has no split 'none'"),
        ("--judge llm:m --split train", "has no query of train"),
        ("--judge llm:m --max-failed 5", "is a share of the pairs"),
    ],
)
def test_what_cannot_judge(
    words: str,
    message: str,
    tmp_path: Path,
    folder: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mistake that is reported after the pool was paid, or never."""
    monkeypatch.chdir(tmp_path)
    flags = [*written(tmp_path, FIRST), "--data", f"beir:{folder}", "--out", "out"]
    if "llm:" in words:
        flags += ["--option", f"url={server.url}"]
    assert judge.main([*flags, *words.split()]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert len(server) == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"q24": {"elsewhere": 1.0}}, r"not of data: 1 of its 1 document ids.*'elsewhere'"),
        ({"q999": {"d1": 1.0}}, r"not of data: 1 of its 1 query ids.*'q999'"),
    ],
)
def test_a_run_of_another_collection(
    scores: Scores, message: str, collection: Collection, tmp_path: Path, server: Server
) -> None:
    """Documents of one collection, judged by the texts that another has under their ids."""
    from retrodistill.base.config import JudgeSettings
    from retrodistill.stages.judging.judging import judge_runs

    settings = JudgeSettings(judge="llm:m", option=(f"url={server.url}",))
    runs = {"a": Run.from_dict(FIRST), "b": Run.from_dict(scores)}
    with pytest.raises(DataError, match=message):
        judge_runs(collection, runs, settings, tmp_path / "out")
    # equal ids, but other texts
    Run.from_dict(FIRST).write(
        tmp_path / "run", inputs={"collection": "other"}, config={"data": "beir:other"}
    )
    with pytest.raises(DataError, match="another collection than data"):
        judge_runs(collection, {"run": Run.read(tmp_path / "run")}, settings, tmp_path / "out")
    assert len(server) == 0
