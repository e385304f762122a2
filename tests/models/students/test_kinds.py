"""A model that was saved as one kind, and is opened as another."""

import json
import shutil
from pathlib import Path

import pytest
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.models import save_tiny_body, save_tiny_cross_encoder, save_tiny_model

from retrodistill import embed
from retrodistill.base.errors import ConfigError
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.kinds import kind_of


@pytest.mark.parametrize("save", [save_tiny_sparse, save_tiny_late_interaction])
def test_other_kinds_are_not_mean_pooled(save, tmp_path: Path) -> None:
    """An index of vectors that nobody trained: the body of a SPLADE model with mean pooling."""
    with pytest.raises(ConfigError, match="does not make one vector for a text"):
        DenseEncoder(save(tmp_path / "model"))


def test_a_model_that_reranks_is_not_embedded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cross-encoder's body with mean pooling, served as a student."""
    model = save_tiny_cross_encoder(tmp_path / "model")
    out = tmp_path / "index"
    assert embed.main(f"--data beir:{folder} --model {model} --out {out}".split()) == 2
    assert "score with --teacher cross-encoder:" in capsys.readouterr().err
    assert not out.exists()


def test_a_ranking_model_of_plain_transformers_is_refused(tmp_path: Path) -> None:
    """A folder without the library's files names its kind in its architectures only."""
    model = save_tiny_cross_encoder(tmp_path / "model")
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    for file in ("modules.json", "config_sentence_transformers.json"):
        (bare / file).unlink(missing_ok=True)
    assert json.loads((bare / "config.json").read_text())["architectures"][0].endswith(
        "ForSequenceClassification"
    )
    with pytest.raises(ConfigError, match="It is a cross-encoder"):
        DenseEncoder(bare)


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (save_tiny_model, "bi-encoder"),
        (save_tiny_sparse, "sparse"),
        (save_tiny_late_interaction, "late-interaction"),
        (save_tiny_cross_encoder, "cross-encoder"),
        (save_tiny_body, "bi-encoder"),
    ],
)
def test_a_saved_model_has_the_kind_that_it_was_saved_as(save, name: str, tmp_path: Path) -> None:
    """A sparse student that is embedded, or a bare transformer that no kind claims."""
    assert kind_of(str(save(tmp_path / "model"))).name == name
