"""Recipes of two views, from the commands that their notes name to a trained student."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes.encoders import save_tiny_sparse
from fakes.models import save_tiny_cross_encoder
from fakes.views import save_view

from retrodistill import convert, fuse, mine, score, train
from retrodistill.base.manifest import Manifest
from retrodistill.data.store.runs import Run

SHORT = "--max-steps 2 --batch-size 8 --query-tokens 32 --doc-tokens 48 --precision float32"


@pytest.fixture(scope="module")
def data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BEIR folder of the small collection with two rewrites of its queries, and a run beside it."""
    home = tmp_path_factory.mktemp("recipes")
    copied = home / "data"
    shutil.copytree(folder, copied)
    save_view(copied, "rewrite", sides=["queries"], mark="pressure")
    save_view(copied, "other", sides=["queries"], mark="blood")
    words = f"--data beir:{copied} --depth 20 --add-positives --out {home / 'run'}"
    assert mine.main(words.split()) == 0
    return copied


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"cross-encoder:{save_tiny_cross_encoder(tmp_path_factory.mktemp('teacher'))}"


def scored(data: Path, view: str | None, teacher: str) -> Path:
    """Return a score store of the run's pairs in the texts of a view, made by the command."""
    out = data.parent / f"scores-{view}"
    spec = f"beir:{data}" + (f",view={view}" if view else "")
    words = f"--data {spec} --candidates {data.parent / 'run'} --teacher {teacher} --out {out}"
    assert score.main([*words.split(), "--precision", "float32"]) == 0
    return out


def losses(words: str, out: Path) -> dict[str, float]:
    """Return the loss terms of the first steps of a training."""
    assert train.main([*words.split(), *SHORT.split(), "--out", str(out)]) == 0
    row: dict[str, float] = Manifest.read(out).details["losses"][0]
    return row


def test_disco_is_the_mean_over_rewrites_for_a_sparse_student_of_the_conversation(
    data: Path, teacher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One rewrite for the mean; scores of the conversation; a dense student; plain KL."""
    stores = {view: scored(data, view, teacher) for view in ("rewrite", "other", None)}
    members = f"--run {stores['rewrite']} --run {stores['other']} --norm none --as-store"
    mean = tmp_path / "mean"
    assert fuse.main([*members.split(), "--data", f"beir:{data}", "--out", str(mean)]) == 2
    assert "Name the view of one of them: --data ID,view=VIEW" in capsys.readouterr().err
    spec = f"beir:{data},view=rewrite"
    assert fuse.main([*members.split(), "--data", spec, "--out", str(mean)]) == 0
    runs = [Run.read(path).to_dict() for path in (stores["rewrite"], stores["other"], mean)]
    for query, docs in runs[2].items():
        for doc, value in docs.items():
            expected = (runs[0][query][doc] + runs[1][query][doc]) / 2
            assert value == pytest.approx(expected, abs=1e-5)
    student = save_tiny_sparse(tmp_path / "sparse")
    words = f"--recipe disco --data beir:{data} --student {student} --scores"
    refused = f"{words} {mean} --teacher-view other --out {tmp_path / 's'}"
    assert train.main(refused.split()) == 2
    assert "made from other texts than those of data, view other" in capsys.readouterr().err
    first = losses(f"{words} {mean} --teacher-view rewrite", tmp_path / "s")
    assert Manifest.read(tmp_path / "s").config["student_kind"] == "sparse"
    one = losses(f"{words} {stores['rewrite']} --teacher-view rewrite", tmp_path / "one")
    plain = losses(
        f"--objective listwise-kl+0.001*flops --student-kind sparse --candidates-per-query 16 "
        f"--learning-rate 2e-5 --data beir:{data} --student {student} --scores {stores[None]}",
        tmp_path / "plain",
    )
    values = [row["listwise-kl"] for row in (first, one, plain)]
    assert len({round(value, 4) for value in values}) == 3


def test_quill_is_taught_by_scores_of_queries_with_context(
    data: Path, teacher: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student that reads the context too, or a teacher that does not."""
    words = f"--context {data.parent / 'run'} --data beir:{data} --out {data}/queries.context.jsonl"
    assert convert.main([*words.split(), "--context-words", "6"]) == 0
    stores = [scored(data, view, teacher) for view in ("context", None)]
    runs = [Run.read(store) for store in stores]
    values = [run.table["score"].to_numpy() for run in runs]
    assert not np.allclose(*values)
    common = f"--data beir:{data} --student {tiny_model}"
    words = f"--recipe quill {common} --scores {stores[0]}"
    out = losses(f"{words} --teacher-view context", tmp_path / "s")
    refused = f"{words} --student-view context --out {tmp_path / 't'}"
    assert train.main(refused.split()) == 2
    assert "--teacher-view VIEW" in capsys.readouterr().err
    objective = "--objective listwise-kl(student_temperature=0.05) --candidates-per-query 16"
    plain = losses(f"{objective} {common} --scores {stores[1]}", tmp_path / "plain")
    assert out["listwise-kl"] != pytest.approx(plain["listwise-kl"], rel=1e-3)


def test_translate_distill_is_not_the_same_on_one_text_nor_infonce(
    data: Path, teacher: str, tiny_model: Path, tmp_path: Path
) -> None:
    """KL between two readings of one text; the labels of lists of 6, and no score."""
    store = scored(data, None, teacher)
    common = f"--data beir:{data} --student {tiny_model}"
    lists = "--candidates-per-query 6 --learning-rate 5e-6"
    translated = losses(
        f"--recipe translate-distill {common} --scores {store} --student-view rewrite",
        tmp_path / "s",
    )
    config = Manifest.read(tmp_path / "s").config
    assert (config["candidates_per_query"], config["learning_rate"]) == (6, 5e-6)
    plain = losses(f"--objective listwise-kl {lists} {common} --scores {store}", tmp_path / "p")
    infonce = losses(
        f"--objective contrastive(temperature=1) {lists} {common} --scores {store} "
        "--student-view rewrite",
        tmp_path / "c",
    )
    assert translated["listwise-kl"] != pytest.approx(plain["listwise-kl"], rel=1e-3)
    assert translated["listwise-kl"] != pytest.approx(infonce["contrastive"], rel=1e-2)
