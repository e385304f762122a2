"""A model is whole, or it is refused: no part of a teacher is drawn at random."""

import json
from pathlib import Path

import pytest
import torch
from fakes.encoders import (
    save_tiny_language_model,
    save_tiny_late_interaction,
    save_tiny_sparse,
)
from fakes.language_models import CHAT, save_tiny_causal, save_tiny_seq2seq
from fakes.models import save_tiny_body, save_tiny_cross_encoder, save_tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import Collection
from retrodistill.models.students.cross_encoder import load_cross_encoder
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.teachers import load_teacher


def without(folder: Path, *names: str) -> Path:
    """Take the weights whose name holds one of these from a folder's checkpoint."""
    (path,) = folder.glob("model.safetensors")
    weights = load_file(path)
    remaining = {key: value for key, value in weights.items() if not any(n in key for n in names)}
    assert len(remaining) < len(weights)
    save_file(remaining, path, metadata={"format": "pt"})
    return folder


def test_a_bi_encoder_is_no_cross_encoder(collection: Collection, tmp_path: Path) -> None:
    """Random scores, stored as a teacher's: nDCG@10 0.294 where BM25 had 0.725, and no word."""
    path = save_tiny_model(tmp_path)
    with pytest.raises(ConfigError, match=r"no ranking head.*classifier.*bi-encoder:"):
        load_teacher(f"cross-encoder:{path}", collection)
    with pytest.raises(ConfigError, match="no ranking head"):
        load_teacher(f"cross-encoder:{save_tiny_body(tmp_path / 'bare')}", collection)


def test_a_new_cross_encoder_starts_from_a_plain_body(tmp_path: Path) -> None:
    """The refusal must not take away what training needs."""
    from retrodistill.stages.training.building import load_student

    for folder in (save_tiny_body(tmp_path / "bare"), save_tiny_model(tmp_path)):
        assert load_student("cross-encoder", str(folder), torch.device("cpu")).num_labels == 1
    broken = without(save_tiny_body(tmp_path / "broken"), "layer.1.output")
    with pytest.raises(ConfigError, match="no complete body"):
        load_student("cross-encoder", str(broken), torch.device("cpu"))
    path = save_tiny_cross_encoder(tmp_path / "whole")
    assert load_cross_encoder(str(path), torch.device("cpu")).num_labels == 1


@pytest.mark.parametrize("kind", ["cross-encoder", "bi-encoder", "sparse", "late-interaction"])
def test_a_checkpoint_without_some_weights_is_refused(
    kind: str, collection: Collection, tmp_path: Path
) -> None:
    """A head, or a layer, that is drawn at random at each load."""
    folder, lacking = {
        "cross-encoder": lambda: (save_tiny_cross_encoder(tmp_path), "classifier"),
        "bi-encoder": lambda: (save_tiny_model(tmp_path), "layer.1.attention"),
        "sparse": lambda: (save_tiny_sparse(tmp_path), "cls.predictions.transform"),
        "late-interaction": lambda: (save_tiny_late_interaction(tmp_path), "layer.1.output"),
    }[kind]()
    load_teacher(f"{kind}:{folder}", collection)
    without(folder, lacking)
    with pytest.raises(ConfigError, match="checkpoint lacks|cannot be loaded"):
        load_teacher(f"{kind}:{folder}", collection)


def test_language_models_are_whole(collection: Collection, tmp_path: Path) -> None:
    """A causal model, a reader and a generator whose layers are random numbers."""
    causal = without(save_tiny_causal(tmp_path / "causal", chat=CHAT), "layers.1.mlp")
    seq2seq = without(save_tiny_seq2seq(tmp_path / "seq2seq"), "decoder.block.1.layer.1")
    for spec in (f"causal-lm:{causal}", f"generator:{causal}"):
        with pytest.raises(ConfigError, match="lacks"):
            load_teacher(spec, collection)
    for name in ("reader", "generator", "pairwise"):
        with pytest.raises(ConfigError, match="lacks"):
            load_teacher(f"{name}:{seq2seq}", collection)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapted_model_is_whole(tmp_path: Path) -> None:
    """Weights of an adapter are not in the body's checkpoint, and are not random."""
    peft = pytest.importorskip("peft")

    body = save_tiny_body(tmp_path / "body")
    adapted = peft.get_peft_model(
        AutoModel.from_pretrained(body),
        peft.LoraConfig(target_modules=["query"], r=2, task_type="FEATURE_EXTRACTION"),
    )
    adapted.save_pretrained(str(tmp_path / "adapter"))
    AutoTokenizer.from_pretrained(body).save_pretrained(str(tmp_path / "adapter"))
    first, second = (DenseEncoder(tmp_path / "adapter").fingerprint for _ in range(2))
    assert first == second


def test_two_loads_are_one_model(tmp_path: Path) -> None:
    """A pooler that nobody reads, drawn at random: the store refuses its own teacher."""
    folder = save_tiny_language_model(tmp_path / "mlm")
    first, second = (DenseEncoder(folder).fingerprint for _ in range(2))
    assert first == second


def test_a_wrong_size_in_the_config_is_refused(collection: Collection, tmp_path: Path) -> None:
    """Weights that do not fit are thrown away by some loaders."""
    folder = save_tiny_cross_encoder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert AutoConfig.from_pretrained(folder).num_hidden_layers == 3
    with pytest.raises(ConfigError, match="lacks"):
        load_teacher(f"cross-encoder:{folder}", collection)
