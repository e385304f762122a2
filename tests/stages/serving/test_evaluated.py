"""Our server, measured by `evaluate --endpoint`: what is served is what was proven."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fakes.serving import KEY, Folders, Running, running

from retrodistill import evaluate, search
from retrodistill.base.config import ServeSettings


@pytest.fixture(scope="module")
def served(folders: Folders) -> Iterator[Running]:
    """Serve an index of a model with prompts, and one of two towers, to whoever has the key."""
    settings = ServeSettings(
        index=(f"kl={folders.main}", f"pair={folders.pair}"),
        reranker=f"cross-encoder:{folders.reranker}",
        precision="float32",
    )
    with running(settings, keys=[KEY]) as server:
        yield server


@pytest.mark.parametrize(("name", "model"), [("kl", "model"), ("pair", "towers")])
def test_a_served_student_is_the_local_one(
    name: str,
    model: str,
    served: Running,
    folders: Folders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prompts, towers, lengths or ids that are others behind HTTP: only the measures would fall."""
    monkeypatch.setenv("RETRODISTILL_API_KEY", KEY)
    folder, data, out = getattr(folders, model), f"beir:{folders.data}", tmp_path / "local"
    words = ["--data", data, "--model", str(folder), "--precision", "float32", "--k", "100"]
    assert search.main([*words, "--out", str(out)]) == 0
    url = served.url.rstrip("/")
    words = ["--data", data, "--run", str(out), "--against", str(folder), "--metrics", "mrr,map"]
    words += ["--endpoint", f"vectors={url}/v1,model={name}"]
    words += ["--endpoint", f"hits={url}/search,index={name}"]
    words += ["--endpoint", f"reranked={url}/search,index={name},rerank=20"]
    assert evaluate.main([*words, "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    means = {system["name"]: system["metrics"] for system in report["systems"]}
    assert means["vectors"] == pytest.approx(means["local"])
    assert means["hits"] == pytest.approx(means["local"])
    assert means["reranked"] != pytest.approx(means["local"], abs=1e-4)


def test_the_other_index_is_noticed(
    served: Running,
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A deployment of last month's student, which answers as well as any."""
    monkeypatch.setenv("RETRODISTILL_API_KEY", KEY)
    words = ["--data", f"beir:{folders.data}", "--against", str(folders.model)]
    address = f"{served.url.rstrip('/')}/v1"
    assert evaluate.main([*words, "--endpoint", f"{address},model=pair"]) == 1
    assert "does not serve" in capsys.readouterr().err
    assert evaluate.main([*words, "--endpoint", address]) == 2
    assert "serves kl, pair: choose with the option model=NAME" in capsys.readouterr().err
