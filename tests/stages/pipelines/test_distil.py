"""`distil`: from documents to a measured student, resumed, changed, and refused where it must be."""

import json
import random
from pathlib import Path

import pytest
import yaml
from fakes.models import WORDS, save_tiny_model

from retrodistill.base.config import DistilConfig
from retrodistill.base.errors import ConfigError
from retrodistill.distil import main
from retrodistill.stages.pipelines.distil import distil

NOUNS = [word for word in WORDS if len(word) > 4]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model"), layers=2))


def save_corpus(folder: Path, *, docs: int = 80, titles: bool = True) -> Path:
    """Write documents with titles of three of their words, and nothing else."""
    drawn = random.Random(1)
    folder.mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(docs):
            words = drawn.sample(NOUNS, 14)
            title = " ".join(words[:3]) if titles else ""
            row = {"_id": f"d{number}", "title": title, "text": " ".join(words[2:])}
            stream.write(json.dumps(row) + "\n")
    return folder


def settings(corpus: Path, model: str, out: Path, **changes: object) -> DistilConfig:
    values = {"data": f"beir:{corpus}", "student": model, "out": out, "steps": 4, "depth": 10}
    return DistilConfig(**(values | {"held_out": 20, "max_tokens": 32} | changes))  # type: ignore[arg-type]


def test_documents_alone_become_a_measured_student(tmp_path: Path, model: str) -> None:
    """A corpus without queries or judgements stopped at the first step that asked for a split."""
    out = tmp_path / "app"
    result = distil(settings(save_corpus(tmp_path / "corpus"), model, out))
    assert result is not None
    assert {"plan.yaml", "student", "index", "report.html", "report.json"} <= {
        path.name for path in out.iterdir()
    }
