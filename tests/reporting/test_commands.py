"""Commands in a report: typed again, they are the same settings."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from retrodistill.command import parse
from retrodistill.config import (
    EmbedConfig,
    FuseConfig,
    MineConfig,
    ReportConfig,
    ScoreConfig,
    SearchConfig,
    TrainConfig,
    as_dict,
)
from retrodistill.reporting.commands import command_of, command_of_settings

SETTINGS = [
    ("mine", "run", MineConfig(data="beir:x y", out=Path("r"), retriever=("bm25", "dense:m"))),
    ("search", "run", SearchConfig(index=Path("i"), data="d", out=Path("r"), k=100)),
    ("score", "scores", ScoreConfig(out=Path("s"), data="d", candidates=Path("c"), teacher="bm25")),
    ("embed", "index", EmbedConfig(data="d", model="it's", out=Path("i"), max_tokens=64)),
    ("train", "student", TrainConfig(data="d", student="m", out=Path("s"), scores=Path("t"),
                                     keep_layers=(0, 2, 5), cache_gradients=True)),
    ("fuse", "run", FuseConfig(run=(Path("a"), Path("b")), out=Path("r"), weights="0.4,0.6")),
]  # fmt: skip


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
