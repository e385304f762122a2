"""Recipes on written texts and on interactions: what tells each from its nearest neighbour."""

import json
from pathlib import Path

import numpy as np
import pytest
from fakes.corpus import save_small_collection
from safetensors.numpy import load_file

from retrodistill import train as verb
from retrodistill.base.manifest import Manifest
from retrodistill.data.store.runs import Run

TINY = "--batch-size 6 --query-tokens 16 --doc-tokens 32 --precision float32 --dropout 0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each query with three positives and two judged negatives; neighbours share a positive."""
    data = save_small_collection(tmp_path_factory.mktemp("written") / "data", train=12, test=4)
    rows = ["query-id\tcorpus-id\tscore"]
    for number in range(12):
        rows += [f"q{number}\td{number + offset}\t1" for offset in (0, 1, 20)]
        rows += [f"q{number}\td{number + offset}\t0" for offset in (35, 45)]
    (data / "qrels" / "train.tsv").write_text("\n".join(rows) + "\n")
    return data


def train(data: Path, student: Path, out: Path, words: str) -> list[dict[str, float]]:
    """Train, and return each step's losses."""
    command = f"--data beir:{data} --student {student} --out {out} {TINY} {words}"
    assert verb.main(command.split()) == 0
    losses: list[dict[str, float]] = Manifest.read(out).details["losses"]
    return losses


def test_syntriever_sums_over_its_positives(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The first stage as InfoNCE, which asks every positive to be near, not one of them."""
    stage = "--recipe syntriever --stage passages --max-steps 1 "
    (whole,) = train(folder, tiny_model, tmp_path / "a", stage)
    (one,) = train(folder, tiny_model, tmp_path / "b", stage + "--positives-per-query 1")
    plain = stage + "--objective contrastive(temperature=0.05)"
    (each,) = train(folder, tiny_model, tmp_path / "c", plain)
    assert whole["soft-nn"] < each["contrastive"] - 0.2
    assert whole["soft-nn"] < one["soft-nn"] - 0.2


def test_syntriever_is_pulled_to_the_student_that_it_starts_from(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """A pull towards something else, or none: it is 0 at the start alone."""
    queries = [f"q{number}" for number in range(12)]
    docs = [f"d{(number + step) % 60}" for number in range(12) for step in (20, 0, 1, 35, 45)]
    scores = np.tile(np.arange(5, 0, -1.0), 12)
    Run.from_columns(np.repeat(queries, 5).tolist(), docs, scores).write(tmp_path / "order")
    words = "--recipe syntriever --stage preferences --max-steps 6 --learning-rate 1e-3 --warmup 0 "
    words += f"--scores {tmp_path}/order --teacher previous=bi-encoder:{tiny_model} "
    words += "--teacher-precision float32"
    losses = train(folder, tiny_model, tmp_path / "s", words)
    assert losses[0]["batch-kl[previous]"] == pytest.approx(0.0, abs=1e-5)
    assert losses[-1]["batch-kl[previous]"] > 1e-3
    assert losses[-1]["partial-pl-in-batch"] < losses[0]["partial-pl-in-batch"]
    own = "--objective partial-pl(student_temperature=0.05) --positives teacher "
    own += f"--candidates-per-query 5 --pool 5 --max-steps 1 --scores {tmp_path}/order"
    (alone,) = train(folder, tiny_model, tmp_path / "t", own)
    assert losses[0]["partial-pl-in-batch"] > alone["partial-pl"] + 0.2


def test_beeformer_reads_documents_alone_and_learns(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Users' texts that shape the student; or a loss that does not fall on what it saw."""
    other = tmp_path / "other"
    (other / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        (other / name).write_text((folder / name).read_text())
    users = [json.dumps({"_id": f"q{number}", "text": f"user {number}"}) for number in range(16)]
    (other / "queries.jsonl").write_text("\n".join(users) + "\n")
    words = "--recipe beeformer --max-steps 12 --learning-rate 1e-3 --warmup 0"
    losses = train(folder, tiny_model, tmp_path / "a", words)
    train(other, tiny_model, tmp_path / "b", words)
    assert np.mean([row["elsa"] for row in losses[-3:]]) < losses[0]["elsa"]
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(np.array_equal(left[name], right[name]) for name in left)


def test_misleading_descriptions_are_negatives_of_their_text(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Valid and misleading descriptions exchanged, or the misleading ones unread."""
    exchanged = tmp_path / "exchanged"
    (exchanged / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        (exchanged / name).write_text((folder / name).read_text())
    first, *rows = (folder / "qrels" / "train.tsv").read_text().splitlines()
    flipped = [f"{row[:-1]}{1 - int(row[-1])}" for row in rows]
    (exchanged / "qrels" / "train.tsv").write_text("\n".join([first, *flipped]) + "\n")
    words = "--recipe abstract-descriptions --max-steps 8 --learning-rate 1e-3 --warmup 0"
    valid = train(folder, tiny_model, tmp_path / "a", words)
    wrong = train(exchanged, tiny_model, tmp_path / "b", words)
    assert valid[-1]["triplet"] < valid[0]["triplet"]
    assert wrong[0]["triplet"] != pytest.approx(valid[0]["triplet"], rel=1e-3)
    # The student of the valid ones is worse at the exchanged ones than it was.
    again = train(exchanged, tmp_path / "a", tmp_path / "c", words)
    assert again[0]["triplet"] > wrong[0]["triplet"]
    (exchanged / "qrels" / "train.tsv").write_text(
        "\n".join([first, *(row for row in rows if row.endswith("1"))]) + "\n"
    )
    unread = train(exchanged, tiny_model, tmp_path / "d", words.replace("steps 8", "steps 1"))
    assert unread[0]["triplet"] == 0
