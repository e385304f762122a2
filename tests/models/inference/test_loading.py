"""A malformed model is one sentence that names its folder; lengths are those that it can read."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.language_models import bart_tokenizer, save_tiny_seq2seq
from fakes.models import save_tiny_cross_encoder, save_tiny_model

from retrodistill.base.errors import ConfigError
from retrodistill.models.inference import positions
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.late_interaction import LateInteractionEncoder
from retrodistill.models.students.sparse import SparseTextEncoder
from retrodistill.models.teachers.cross_encoder import CrossEncoderTeacher
from retrodistill.models.teachers.generator import GeneratorTeacher

WRONG = (None, 7, -1, "x", [1], {"a": 1}, True)


def damages(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each JSON file with one value of a wrong type, or none, or a damaged whole."""
    for path in sorted(folder.rglob("*.json")):
        whole = path.read_text(encoding="utf-8")
        for broken in ("[" * 5000, "[]", "7", "null", '"x"', "{}", whole[: len(whole) // 2]):
            yield path, broken
        if path.name in ("tokenizer.json",):
            continue
        content = json.loads(whole)
        keys = content if isinstance(content, list) else [content]
        for number, key in enumerate(keys):
            for name in key:
                for value in WRONG[:: 1 + number % 2]:
                    yield path, json.dumps(changed(content, number, name, value))
                yield path, json.dumps(changed(content, number, name, ...))


def changed(content: Any, number: int, name: str, value: Any) -> Any:
    """Return JSON of which one value is another, or (`...`) missing."""
    copy = json.loads(json.dumps(content))
    key = copy[number] if isinstance(copy, list) else copy
    key.pop(name)
    return copy if value is ... else (key.update({name: value}), copy)[1]


LOADERS: dict[str, tuple[Callable[[Path], Path], Callable[[str], Any]]] = {
    "bi-encoder": (save_tiny_model, DenseEncoder),
    "cross-encoder": (save_tiny_cross_encoder, CrossEncoderTeacher),
    "sparse": (save_tiny_sparse, SparseTextEncoder),
    "late-interaction": (save_tiny_late_interaction, LateInteractionEncoder),
    "generator": (save_tiny_seq2seq, GeneratorTeacher),
}


@pytest.mark.filterwarnings("ignore")  # libraries warn of what they then take
@pytest.mark.parametrize("kind", LOADERS)
def test_a_damaged_folder_is_one_sentence(kind: str, tmp_path: Path) -> None:
    """A traceback of TypeError or KeyError from within a library: 54 cases of 350."""
    make, load = LOADERS[kind]
    whole = make(tmp_path / "whole")
    cases = list(damages(whole))
    refused = 0
    for number, (path, content) in enumerate(cases[:: max(1, len(cases) // 25)]):
        folder = tmp_path / f"{number}"
        shutil.copytree(whole, folder)
        (folder / path.relative_to(whole)).write_text(content, encoding="utf-8")
        try:
            load(str(folder))
        except ConfigError as error:
            refused += "\n" not in str(error)
    assert refused > 3


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("modules.json", [{"idx": 0}]),
        ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": 5}]),
        ("1_Pooling/config.json", {"embedding_dimension": "many", "pooling_mode": "mean"}),
        ("1_Pooling/config.json", {"pooling_mode": 7}),
        ("2_Normalize/config.json", {"module_input_name": 7}),
        ("config.json", {"model_type": "bert", "hidden_size": "32"}),
        ("config.json", {"model_type": "bert", "num_attention_heads": 5}),
    ],
)
def test_the_folder_is_named(tmp_path: Path, file: str, changes: Any) -> None:
    """A traceback that does not say which of several models it is about."""
    folder = save_tiny_model(tmp_path)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(json.dumps(changes))
    with pytest.raises(ConfigError, match=rf"model '{folder}' (cannot be loaded|has no)"):
        DenseEncoder(str(folder))


def test_a_missing_module_is_found_at_once(tmp_path: Path) -> None:
    """Weights of a layer behind the transformer that are gone, and drawn at random."""
    model = save_tiny_late_interaction(tmp_path)
    (path,) = model.glob("*_Dense/model.safetensors")
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        LateInteractionEncoder(str(model))


def test_positions_of_padding_are_not_for_tokens(tmp_path: Path) -> None:
    """An index error in the middle of a collection: RoBERTa has 514 positions for 512 tokens."""
    from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaModel

    tokenizer = bart_tokenizer()
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=34,
        pad_token_id=1,
        num_labels=1,
    )
    for name, kind in (("body", RobertaModel), ("head", RobertaForSequenceClassification)):
        kind(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(str(tmp_path / name))
    assert positions(RobertaModel(config)) == 32
    encoder = DenseEncoder(tmp_path / "body", max_tokens=32)
    encoder.encode_docs(["cell " * 300])
    DenseEncoder(tmp_path / "body").encode_docs(["cell " * 300])
    with pytest.raises(ConfigError, match="more than this model can read: 32 tokens"):
        DenseEncoder(tmp_path / "body", max_tokens=33)
    teacher = CrossEncoderTeacher(str(tmp_path / "head"), ModelOptions(max_tokens=256))
    assert teacher._max_tokens == 32
    teacher._logits(["cell " * 90], ["blood " * 90], (torch.zeros(1).long().numpy(),) * 2)
