"""Hidden states and attention of tokens, against what transformers gives for a text alone."""

from pathlib import Path

import pytest
import torch
from fakes.models import save_tiny_body
from torch import nn

from retrodistill.base.errors import ConfigError
from retrodistill.models.students.token_states import (
    TokenReader,
    attention_maps,
    captured,
    matched_layers,
)


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory):
    from transformers import AutoModel

    folder: Path = save_tiny_body(tmp_path_factory.mktemp("body"), layers=3)
    return AutoModel.from_pretrained(folder).eval()


def test_captured_states_are_those_of_transformers(body) -> None:
    """Layers that are off by one: the embeddings taken for the first layer's output."""
    ids = torch.tensor([[2, 40, 50, 60, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    expected = body(**inputs, output_hidden_states=True).hidden_states
    with captured(body, (0, 1, 3), 3) as capture:
        body(**inputs)
    torch.testing.assert_close(capture.states(), torch.stack([expected[i] for i in (0, 1, 3)]))
    attention = body.encoder.layer[2].attention.self
    vectors = [linear(expected[2]) for linear in (attention.query, attention.key, attention.value)]
    torch.testing.assert_close(capture.attention(), torch.stack(vectors))
    before = capture.hidden[1]
    body(**inputs)
    assert capture.hidden[1] is before  # no hook is left behind


def test_layers_are_matched_evenly_or_from_the_end() -> None:
    """A student's last layer that follows the teacher's first ones."""
    assert matched_layers(3, 12) == [(0, 0), (1, 4), (2, 8), (3, 12)]
    assert matched_layers(2, 3) == [(0, 0), (1, 2), (2, 3)]
    assert matched_layers(6, 12, (10,)) == [(6, 10)]
    assert matched_layers(3, 12, (0, 4, 8, 12)) == matched_layers(3, 12)
    for wrong in ((3, 1), (1, 1), (13,), (-1,), (1, 2, 3, 4, 5)):
        with pytest.raises(ConfigError, match="--states-layers"):
            matched_layers(3, 12, wrong)


def test_an_attention_of_one_map_is_refused() -> None:
    """Queries, keys and values cut out of one product at the wrong places."""
    fused = nn.ModuleDict({"Wqkv": nn.Linear(4, 12), "Wo": nn.Linear(4, 4)})
    with pytest.raises(ConfigError, match="queries, keys and values apart"):
        attention_maps(fused)


def test_chunks_of_other_lengths_are_one_batch(body) -> None:
    """Padding between the tokens of texts, or states of the chunk before."""
    chunks = [
        {
            "features": {
                "input_ids": torch.tensor(rows),
                "attention_mask": (torch.tensor(rows) > 0).long(),
            }
        }
        for rows in ([[2, 40, 50, 60, 3]], [[2, 41, 3], [2, 3, 0]])
    ]
    reader = TokenReader(body, (1, 3), 2, nn.Linear(32, 48))

    def read(features):
        return body(**features).last_hidden_state[:, 0]

    outputs = reader.keep(chunks, [reader.reading(read)(chunk["features"]) for chunk in chunks])
    signals = reader.signals()
    assert [output.shape for output in outputs] == [(1, 32), (2, 32)]
    assert signals["token_ids"].tolist() == [[2, 40, 50, 60, 3], [2, 41, 3, 0, 0], [2, 3, 0, 0, 0]]
    assert signals["token_mask"].sum(-1).tolist() == [5, 3, 2]
    assert signals["student_states"].shape == (2, 3, 5, 48)
    assert signals["attention_vectors"].shape == (3, 3, 5, 32)
    alone = body(torch.tensor([[2, 3]]), output_hidden_states=True).hidden_states
    for place, layer in enumerate((1, 3)):
        expected = reader.projection(alone[layer])
        actual = signals["student_states"][place, 2, :2]
        torch.testing.assert_close(actual, expected[0], atol=1e-5, rtol=1e-4)
    reader.clear()
    reader.keep(chunks[:1], [reader.reading(read)(chunks[0]["features"])])
    assert len(reader.signals()["token_ids"]) == 1
