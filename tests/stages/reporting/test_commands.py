"""Commands in a report: typed again, they are the same settings."""

import json
import shlex
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from fakes.corpus import save_small_collection

from retrodistill.base.command import parse
from retrodistill.base.config import (
    EmbedConfig,
    FuseConfig,
    JudgeConfig,
    MineConfig,
    ReportConfig,
    ScoreConfig,
    SearchConfig,
    TrainConfig,
    as_dict,
)
from retrodistill.data.store.runs import Run
from retrodistill.stages.reporting.commands import command_of, command_of_settings
from retrodistill.stages.reporting.provenance import commands_behind

SETTINGS = [
    ("mine", "run", MineConfig(data="beir:x y", out=Path("r"), retriever=("bm25", "dense:m"))),
    ("search", "run", SearchConfig(index=Path("i"), data="d", out=Path("r"), k=100)),
    ("search", "run", SearchConfig(index=Path("i"), query_model="q", data="d", out=Path("r"))),
    ("score", "scores", ScoreConfig(out=Path("s"), data="d", candidates=Path("c"), teacher="bm25")),
    ("embed", "index", EmbedConfig(data="d", model="it's", out=Path("i"), max_tokens=64)),
    (
        "train",
        "student",
        TrainConfig(
            data="d",
            student="m",
            out=Path("s"),
            scores=("t", "ce=u"),
            keep_layers=(0, 2, 5),
            cache_gradients=True,
        ),
    ),
    (
        "judge",
        "judgements",
        JudgeConfig(
            data="d",
            run=(Path("a"), Path("b")),
            judge="cross-encoder:m",
            out=Path("j"),
            grades="0.3,0.6",
            max_failed=0.2,
        ),
    ),
    ("fuse", "run", FuseConfig(run=(Path("a"), Path("b")), out=Path("r"), weight=(0.4, 0.6))),
]


@pytest.mark.parametrize(("verb", "kind", "config"), SETTINGS, ids=lambda value: str(value)[:6])
def test_the_command_gives_the_settings_back(verb: str, kind: str, config: Any) -> None:
    """A command to reproduce that leaves out what made the difference."""
    line = command_of({"kind": kind, "config": as_dict(config)})
    assert line == command_of_settings(verb, config)
    words = shlex.split(line or "")
    assert words[:3] == ["python", "-m", f"retrodistill.{verb}"]
    assert parse(type(config), words[3:], verb, "") == config


def test_the_report_itself_can_be_made_again() -> None:
    """Its own command without the system that it was about."""
    config = ReportConfig(
        run=(Path("a"), Path("b c")), qrels=Path("q"), latency=("a=2",), queries=3
    )
    words = shlex.split(command_of_settings("report", config))
    assert parse(ReportConfig, words[3:], "report", "") == config


def test_settings_of_no_command_give_none() -> None:
    """A command that was made up for a run which came from elsewhere."""
    assert command_of({"kind": "run", "config": {}}) is None
    assert command_of({"kind": "run", "config": {"steps": 3}}) is None
    assert command_of({"kind": "collection", "config": {"data": "x", "out": "y"}}) is None


def test_a_recipe_does_not_come_back_over_what_overrode_it() -> None:
    """A flag that set the default again, left out, so that the recipe's value returns."""
    config = TrainConfig(data="d", student="m", out=Path("s"), recipe="simlm-kd")
    line = command_of({"kind": "student", "config": as_dict(config)})
    assert line is not None
    assert "recipe" not in line


def test_the_commands_of_a_report_run_in_a_fresh_folder(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands in an order in which the second needs what the fourth makes, or that miss a step."""

    def run(line: str) -> None:
        verb, *words = shlex.split(line.removeprefix("python -m retrodistill."))
        assert import_module(f"retrodistill.{verb}").main(words) == 0, line

    def report_of(folder: Path) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((folder / "report" / "report.json").read_text())
        return content

    first, fresh = tmp_path / "first", tmp_path / "fresh"
    for folder in (first, fresh):
        save_small_collection(folder / "data")
        shutil.copytree(tiny_model, folder / "tiny")
    monkeypatch.chdir(first)
    data, exact = "--data beir:data", "--precision float32"
    run(f"mine {data} --depth 10 --out runs/train")
    run(f"score {data} --candidates runs/train --teacher bm25 --out scores/bm25 {exact}")
    run(f"score {data} --candidates runs/train --teacher bi-encoder:tiny --out scores/tiny {exact}")
    run(f"fuse {data} --run scores/bm25 --run scores/tiny --as-store --out scores/mean")
    run(f"train {data} --scores scores/mean --student tiny --max-steps 2 --out students/kl {exact}")
    run(f"embed {data} --model students/kl --out indexes/kl {exact}")
    run(f"search --index indexes/kl {data} --k 20 --out runs/kl {exact}")
    run(f"mine {data} --split test --depth 20 --out runs/bm25")
    run("fuse --run runs/bm25 --run runs/kl --weight 0.4 --weight 0.6 --out runs/both")
    (first / "foreign.trec").write_text("q24 Q0 d24 1 1.0 tag\n")
    run(f"report {data} --run runs/both --run runs/kl --run foreign.trec --index indexes/kl")
    commands = report_of(first)["sections"]["provenance"]["commands"]
    assert len(commands) == 10

    shutil.copy("foreign.trec", fresh)
    monkeypatch.chdir(fresh)
    for command in commands:
        run(command)
    assert report_of(fresh)["sections"]["provenance"]["commands"] == commands
    assert report_of(fresh)["systems"] == report_of(first)["systems"]
    for name in ("both", "kl", "bm25"):
        assert Run.read(fresh / "runs" / name).fingerprint == (
            Run.read(first / "runs" / name).fingerprint
        )


def test_what_no_command_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of commands that looks complete, and whose first one does not find its input."""
    monkeypatch.chdir(tmp_path)
    Run.from_dict({"q": {"d": 1.0}}).write(Path("own"))
    config = FuseConfig(run=(Path("own"), Path("own")), out=Path("both"))
    Run.from_dict({"q": {"d": 2.0}}).write(Path("both"), config=as_dict(config))
    assert commands_behind(["both", "own"]) == [
        "# own was made by Python code, or by another tool",
        "python -m retrodistill.fuse --run own --run own --out both",
    ]
