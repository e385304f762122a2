"""The commands of the README, one after the other, on a small collection."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from fakes.corpus import save_small_collection

from retrodistill.data.store.runs import Run

Command = Callable[[str], str]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a verb's line in tmp_path, and return what it printed on stdout."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> str:
        verb, *words = line.split()
        status = import_module(f"retrodistill.{verb}").main(words)
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return run


def test_the_main_job_from_documents_to_a_measured_student(
    command: Command, tmp_path: Path, tiny_model: Path
) -> None:
    """Stages whose artifacts do not fit each other, though each passes its own tests."""
    save_small_collection(tmp_path / "data")
    data, model = "--data beir:data", str(tiny_model)
    command(
        f"mine {data} --retriever bm25 --retriever dense:{model} --depth 20 "
        "--add-positives --out runs/train"
    )
    command(
        f"train {data} --scores runs/train --student {model} --keep-layers 0,5 "
        "--student-kind cross-encoder --objective contrastive(temperature=1) "
        "--max-steps 2 --out teacher"
    )
    for teacher in ("bm25", f"bi-encoder:{model}", "cross-encoder:teacher"):
        name = teacher.partition(":")[0]
        command(f"score {data} --candidates runs/train --teacher {teacher} --out scores/{name}")
    command(
        f"fuse {data} --run scores/bm25 --run scores/bi-encoder --run scores/cross-encoder "
        "--weight 2 --weight 1 --weight 1 --as-store --out scores/mean"
    )
    command(
        f"train {data} --scores scores/mean --student {model} --keep-layers 0,5 "
        f"--vectors {model} --max-steps 2 --out students/kl "
        "--objective listwise-kl+0.1*contrastive+embed-distill"
    )
    command(f"embed {data} --model students/kl --index hnsw --out indexes/kl")
    assert "d" in command("search --index indexes/kl blood --k 5")
    command(f"search --index indexes/kl {data} --split test --k 20 --out runs/kl")
    command(f"mine {data} --split test --depth 20 --out runs/bm25")
    command("fuse --run runs/bm25 --run runs/kl --out runs/both")
    table = command(
        f"evaluate {data} --split test --run runs/bm25 --run runs/kl "
        "--metrics ndcg@10,mrr@10,recall@100 --json report.json"
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert [system["name"] for system in report["systems"]] == ["bm25", "kl"]
    assert "ndcg@10" in table
    rows = {part["name"]: part["settings"]["queries"] for part in report["subsets"]}
    assert rows["documents unseen in training"] == 8  # of 8: no test document is labelled in train
    learned = {"teacher": 24, "kl": 24}  # the student's own queries, and its teacher's
    for name in ("scores/mean", "students/kl", "indexes/kl", "runs/kl", "runs/both"):
        details = json.loads((tmp_path / name / "manifest.json").read_text())["details"]
        records = {one["student"]: one["queries"] for one in details["lineage"]["records"]}
        assert records == (learned if name != "scores/mean" else {"teacher": 24}), name
        assert details["lineage"]["unrecorded"] == [tiny_model.name], name
    manifest = json.loads((tmp_path / "students" / "kl" / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"collection", "scores", "vectors"}


def first_words(folder: Path) -> list[str]:
    """Return the first three words of each document."""
    lines = (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return [" ".join(json.loads(line)["text"].split()[:3]) for line in lines]


def test_unlabelled_queries_go_down_the_chain(
    command: Command, tmp_path: Path, tiny_model: Path
) -> None:
    """A query log that cannot be mined, or is lost between mining and training."""
    save_small_collection(tmp_path / "data")
    for name in ("queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        (tmp_path / "data" / name).unlink()
    log = first_words(tmp_path / "data")[:20]
    (tmp_path / "log.txt").write_text("\n".join(log) + "\n")
    data = "--data beir:data --queries log.txt"
    command(f"mine {data} --depth 10 --out runs/log")
    command(
        f"score {data} --candidates runs/log --teacher bi-encoder:{tiny_model} --out scores/log"
    )
    command(
        f"train {data} --scores scores/log --student {tiny_model} --keep-layers 0 "
        "--objective listwise-kl --max-steps 2 --out students/kl"
    )
    command("embed --data beir:data --model students/kl --out indexes/kl")
    command(f"search {data} --index indexes/kl --k 5 --out runs/kl")
    assert len(Run.read(tmp_path / "runs" / "kl").query_ids) == 20
    assert command("search --index indexes/kl --queries log.txt --k 1").count("\n") == 40


def test_every_query_is_mined_judged_or_not(command: Command, tmp_path: Path) -> None:
    """Queries without judgements left out of `--split all`, or a log's without a split."""
    save_small_collection(tmp_path / "data", docs=20, train=4, test=2)
    with (tmp_path / "data" / "queries.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"_id": "unjudged", "text": "water"}) + "\n")
    words = first_words(tmp_path / "data")[0]
    (tmp_path / "log.tsv").write_text(f"u1\t{words}\n")

    def mined(line: str) -> list[str]:
        command(f"mine --data beir:data --depth 3 --overwrite --out run {line}")
        return Run.read(tmp_path / "run").query_ids

    assert set(mined("")) == {"q0", "q1", "q2", "q3"}
    assert set(mined("--split all")) >= {"q0", "q1", "q2", "q3", "q4", "q5"}
    assert mined("--queries log.tsv") == ["u1"]
    assert set(mined("--split test --queries log.tsv")) == {"q4", "q5", "u1"}
    status = import_module("retrodistill.mine").main(
        ["--data", "beir:data", "--queries", "log.tsv", "--add-positives", "--out", "other"]
    )
    assert status == 2


def test_documents_are_searched_without_an_index(
    command: Command, tmp_path: Path, tiny_model: Path
) -> None:
    """A first hit that needs an index folder, or that differs from the index folder's."""
    save_small_collection(tmp_path / "data", docs=20, train=4, test=2)
    words = first_words(tmp_path / "data")[0]
    for system in ("--retriever bm25", f"--retriever bm25 --retriever dense:{tiny_model}"):
        status = import_module("retrodistill.search").main(
            ["--data", "beir:data", *system.split(), words, "--k", "2"]
        )
        assert status == 0
    (tmp_path / "handbook").mkdir()
    (tmp_path / "handbook" / "guide.md").write_text("# Reset\n\nHold the water button.")
    assert "guide.md  Reset Hold the water button." in command(
        "search --data docs:handbook --retriever bm25 button --by-document"
    )
    command(f"embed --data beir:data --model {tiny_model} --out index")
    with_index = command("search --index index water --k 3")
    assert command(f"search --data beir:data --model {tiny_model} water --k 3") == with_index
    assert with_index.splitlines()[0] == "water"
    command(f"search --data beir:data --model {tiny_model} --out runs/model")
    command("search --data beir:data --index index --out runs/index")
    found, wanted = (Run.read(tmp_path / "runs" / name) for name in ("model", "index"))
    assert [row[:2] for row in found.lists()] == [row[:2] for row in wanted.lists()]


def test_what_is_cut_is_said_at_each_stage(
    command: Command,
    tmp_path: Path,
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Documents of which embed, score and train read the first words, without a word."""
    save_small_collection(tmp_path / "data", docs=20, train=4, test=2)
    command("mine --data beir:data --depth 5 --add-positives --out run")

    def said(line: str) -> str:
        verb, *words = line.split()
        assert import_module(f"retrodistill.{verb}").main(words) == 0
        return " ".join(capsys.readouterr().err.split())

    embed = f"embed --data beir:data --model {tiny_model} --max-tokens 8 --out index"
    assert "20 of 20 documents are longer than 8 tokens" in said(embed)
    score = (
        f"score --data beir:data --candidates run --out scores --teacher bi-encoder:{tiny_model}"
    )
    assert "texts are longer than 9 tokens" in said(f"{score} --max-tokens 9")
    train = (
        f"train --data beir:data --scores run --student {tiny_model} --max-steps 1 --out student"
    )
    assert "documents are longer than 8 tokens" in said(f"{train} --doc-tokens 8")
