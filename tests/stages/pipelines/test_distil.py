"""`distil`: from documents to a measured student, resumed, changed, and refused."""

from pathlib import Path

import pytest
from fakes.corpus import save_titled_corpus
from fakes.models import save_tiny_model

from retrodistill.base.config import DistilConfig
from retrodistill.stages.pipelines.distil import distil


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model"), layers=2))


def settings(corpus: Path, model: str, out: Path, **changes: object) -> DistilConfig:
    values = {"data": f"beir:{corpus}", "student": model, "out": out, "steps": 4, "depth": 10}
    return DistilConfig(**(values | {"held_out": 20, "max_tokens": 32} | changes))  # type: ignore[arg-type]


def test_documents_alone_become_a_measured_student(tmp_path: Path, model: str) -> None:
    """A corpus without queries or judgements stopped at the first step that asked for a split."""
    out = tmp_path / "app"
    result = distil(settings(save_titled_corpus(tmp_path / "corpus"), model, out))
    assert result is not None
    assert {"plan.yaml", "student", "index", "report.html", "report.json"} <= {
        path.name for path in out.iterdir()
    }
