"""The files that other loaders and servers read, and what they would refuse."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.models import save_tiny_model

from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.exporting.layout import differences, read_layout, write_portable

BERT = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 512}
SERVED: dict[str, Any] = {
    "config.json": BERT,
    "tokenizer.json": True,
    "model.safetensors": True,
    "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
    "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
    "modules.json": [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "config_sentence_transformers.json": {"prompts": {"query": "", "document": ""}},
}
RERANKER: dict[str, Any] = {
    **SERVED,
    "config.json": BERT
    | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    },
    "config_sentence_transformers.json": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
}
DENSE = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}


def test_a_folder_that_is_served_as_it_is() -> None:
    """A check that always complains is not read."""
    assert differences(SERVED) == []
    assert differences(RERANKER) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokenizer.json": None}, "fast tokenizer"),
        ({"config.json": {"architectures": ["BertModel"], "model_type": "bert"}}, "max_position"),
        ({"config.json": BERT | {"model_type": "funnel"}}, "not served: it has no body 'funnel'"),
        ({"model.safetensors": None}, "neither safetensors weights nor an ONNX graph"),
        ({"model.safetensors": None, "onnx/model.onnx": True}, "by its ONNX builds only"),
        ({"sentence_bert_config.json": {}}, "does not say max_seq_length"),
        ({"1_Pooling/config.json": {"pooling_mode": ["cls", "max"]}}, "cannot pool by cls, max"),
        ({"1_Pooling/config.json": {"pooling_mode_max_tokens": True}}, "cannot pool by max"),
        (
            {"1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": False}},
            "pools the tokens of a prompt",
        ),
        ({"modules.json": SERVED["modules.json"][:2]}, "ask with normalize false"),
        (
            {"modules.json": [*SERVED["modules.json"], {"path": "3", "type": "my.WordWeights"}]},
            "does not compute the module WordWeights",
        ),
        (
            {
                "modules.json": [*SERVED["modules.json"], DENSE],
                "2_Dense/config.json": {"activation_function": "torch.nn.modules.activation.ReLU"},
            },
            "no activation torch.nn.modules.activation.ReLU",
        ),
        (
            {"modules.json": [*SERVED["modules.json"], DENSE], "onnx/model.onnx": True},
            "leave the Dense modules out",
        ),
        (
            {"config_sentence_transformers.json": {"prompts": {"query": "find "}}},
            "prompt_name query",
        ),
        (
            {"sentence_bert_config.json": {"max_seq_length": 9, "query_length": 4}},
            "does not read query_length",
        ),
    ],
)
def test_each_rule_has_its_sentence(changes: dict[str, Any], sentence: str) -> None:
    """A model that a server refuses, or reads otherwise, and nothing said so."""
    files = {name: content for name, content in (SERVED | changes).items() if content is not None}
    assert [text for text in differences(files) if sentence in text]
    assert len(differences(files)) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config.json": RERANKER["config.json"] | {"id2label": None}}, "id2label and label2id"),
        (
            {"config_sentence_transformers.json": {"activation_fn": "torch.nn.Identity"}},
            "raw_scores true",
        ),
    ],
)
def test_rules_of_rerankers(changes: dict[str, Any], sentence: str) -> None:
    """Logits that a server turns into other numbers without a word."""
    (text,) = differences(RERANKER | changes)
    assert sentence in text


def test_the_library_s_own_layout_is_made_portable(tmp_path: Path) -> None:
    """Newer files, which older servers refuse or pool otherwise, would be exported as they are."""
    folder = save_tiny_model(tmp_path, prompts={"query": "find "})
    texts = ["heart and blood", "vitamin " * 200]
    before = DenseEncoder(folder).encode_queries(texts)
    assert "pooling_mode_mean_tokens" not in (folder / "1_Pooling/config.json").read_text()
    write_portable(folder, 128)
    modules = json.loads((folder / "modules.json").read_text())
    assert [module["type"].rpartition(".")[0] for module in modules] == [
        "sentence_transformers.models"
    ] * 3
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] is True
    assert pooling["pooling_mode_cls_token"] is False
    assert pooling["word_embedding_dimension"] == 32
    limit = {"max_seq_length": 128, "do_lower_case": False}
    assert json.loads((folder / "sentence_bert_config.json").read_text()) == limit
    np.testing.assert_array_equal(DenseEncoder(folder).encode_queries(texts), before)
    write_portable(folder, 128)  # once more changes nothing
    assert json.loads((folder / "1_Pooling/config.json").read_text()) == pooling
    (text,) = differences(read_layout(folder))
    assert "prompt_name query" in text


def test_settings_of_a_side_stay(tmp_path: Path) -> None:
    """A limit of queries alone is in the newer file only: the older form would lose it."""
    folder = save_tiny_model(tmp_path)
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"query_length": 16}))
    write_portable(folder, 128)
    body = json.loads(path.read_text())
    assert (body["query_length"], body["max_seq_length"]) == (16, 128)
    assert "modality_config" in body
