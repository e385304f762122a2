"""A fingerprint sees all that shapes a score, and nothing else."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.language_models import byte_tokenizer, pairs_of
from fakes.models import save_tiny_cross_encoder, save_tiny_model

from retrodistill.models.inference.fingerprints import model_digest, tokenizer_rules, weights_digest
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.teachers.cross_encoder import CrossEncoderTeacher


def change(file: str, **settings: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        change("tokenizer_config.json", do_lower_case=False),
        change("tokenizer_config.json", truncation_side="left"),
        change("tokenizer_config.json", padding_side="left"),
    ],
    ids=["case", "cut", "padding"],
)
def test_a_tokenizer_is_more_than_its_vocabulary(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """One store for two teachers: scores 0.66 beside 0.92 for the same pair."""
    folder = save_tiny_cross_encoder(tmp_path)
    before = CrossEncoderTeacher(str(folder), ModelOptions(max_tokens=12)).fingerprint
    assert CrossEncoderTeacher(str(folder), ModelOptions(max_tokens=12)).fingerprint == before
    damage(folder)
    assert CrossEncoderTeacher(str(folder), ModelOptions(max_tokens=12)).fingerprint != before


def test_merges_and_templates_count() -> None:
    """Other tokens of the same vocabulary."""
    tokenizer = byte_tokenizer()
    before = tokenizer_rules(tokenizer)
    tokenizer("a text", truncation=True, max_length=3)
    assert tokenizer_rules(tokenizer) == before
    tokenizer.chat_template = "{{ messages }}"
    assert tokenizer_rules(tokenizer) != before
    tokenizer.chat_template = None
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"].pop()
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(state))
    assert tokenizer_rules(tokenizer) != before


def test_use_does_not_change_it(tmp_path: Path) -> None:
    """The length of the last call stays in a tokenizer, and in the file that is saved."""
    folder = save_tiny_model(tmp_path)
    encoder = DenseEncoder(folder)
    encoder.encode_docs(["a test " * 100, "b"])
    encoder.save(tmp_path / "copy")
    assert DenseEncoder(encoder.model).fingerprint == encoder.fingerprint
    assert DenseEncoder(tmp_path / "copy").fingerprint == encoder.fingerprint


def test_weights_are_hashed_one_by_one(tmp_path: Path) -> None:
    """A second copy of all weights: 28 GB for a model of 7 billion."""
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(16)))
    config = type("Config", (), {"to_dict": lambda self: {}})()
    tokenizer = byte_tokenizer()
    model_digest("", config, tokenizer, model)
    tracemalloc.start()
    model_digest("", config, tokenizer, model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 21, f"{peak:,} bytes beside 4 MiB of weights"


def test_each_number_counts() -> None:
    weights = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    changed = weights.clone()
    changed[1, 2] = 7
    assert weights_digest(weights) == weights_digest(weights.clone())
    assert weights_digest(weights) != weights_digest(changed)
    assert weights_digest(weights.T) != weights_digest(weights)
    assert weights_digest(torch.tensor(1.0)) != weights_digest(torch.empty(0))


def test_pairs_are_scored_as_before(tmp_path: Path) -> None:
    """Two loads of one folder give one fingerprint and equal scores."""
    folder = str(save_tiny_cross_encoder(tmp_path))
    first, second = (
        CrossEncoderTeacher(folder, ModelOptions(precision="float32")) for _ in range(2)
    )
    assert first.fingerprint == second.fingerprint
    pairs = pairs_of(2, 3)
    np.testing.assert_array_equal(first.score(pairs), second.score(pairs))
