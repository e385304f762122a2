"""The commands of the README, one after the other, on a small collection."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from small import save_small_collection

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
    command(f"mine {data} --retriever bm25 --retriever dense:{model} --depth 20 "
                      "--add-positives --out runs/train")  # fmt: skip
    command(f"train {data} --scores runs/train --student {model} --keep-layers 0,5 "
                      "--student-kind cross-encoder --objective contrastive(temperature=1) "
                      "--max-steps 2 --out teacher")  # fmt: skip
    for teacher in ("bm25", f"bi-encoder:{model}", "cross-encoder:teacher"):
        name = teacher.partition(":")[0]
        command(f"score {data} --candidates runs/train --teacher {teacher} "
                          f"--out scores/{name}")  # fmt: skip
    command(f"score {data} --ensemble scores/bm25 --ensemble scores/bi-encoder "
                      "--ensemble scores/cross-encoder --weight 2 --weight 1 --weight 1 "
                      "--out scores/mean")  # fmt: skip
    command(f"train {data} --scores scores/mean --student {model} --keep-layers 0,5 "
                      f"--vectors {model} --max-steps 2 --out students/kl "
                      "--objective listwise-kl+0.1*contrastive+embed-distill")  # fmt: skip
    command(f"embed {data} --model students/kl --index hnsw --out indexes/kl")
    assert "d" in command("search --index indexes/kl blood --k 5")
    command(f"search --index indexes/kl {data} --split test --k 20 --out runs/kl")
    command(f"mine {data} --split test --depth 20 --out runs/bm25")
    command("fuse --run runs/bm25 --run runs/kl --out runs/both")
    table = command(f"evaluate {data} --split test --run runs/bm25 --run runs/kl "
                              "--metrics ndcg@10,mrr@10,recall@100 --json report.json")  # fmt: skip
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
