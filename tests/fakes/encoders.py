"""Random late-interaction and sparse models of 32 dimensions, for tests without a download."""

from pathlib import Path
from typing import Any

import torch
from fakes.models import save_tiny_body, save_tokenizer
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import BertConfig, BertForMaskedLM


def save_tiny_late_interaction(
    folder: Path,
    *,
    skip: list[str] | None = None,
    prompts: dict[str, str] | None = None,
    similarity: str = "maxsim",
    normalise: bool = True,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Write a late-interaction model with random weights; `settings` are its transformer's."""
    body = Transformer(str(save_tiny_body(folder / "body", layers=2, seed=seed)), **settings)
    body.max_seq_length = 128
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weight = torch.randn(16, 32)
    head = Dense(
        32,
        16,
        bias=False,
        activation_function=torch.nn.Identity(),
        init_weight=weight,
        module_input_name="token_embeddings",
    )
    modules = [body, head, MultiVectorMask(skiplist_words=skip)]
    if normalise:
        modules.append(Normalize(module_input_name="token_embeddings"))
    model = MultiVectorEncoder(
        modules=modules, prompts=prompts, similarity_fn_name=similarity, device="cpu"
    )
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def save_tiny_language_model(folder: Path, *, seed: int = 0) -> Path:
    """Write a masked language model with random weights in transformers format."""
    tokenizer = save_tokenizer(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.05,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertForMaskedLM(config).save_pretrained(folder)
    return folder


def save_tiny_sparse(
    folder: Path,
    *,
    pooling: str = "max",
    activation: str = "relu",
    prompts: dict[str, str] | None = None,
    kept: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Write a SPLADE model with random weights; `settings` are its transformer's."""
    path = str(save_tiny_language_model(folder / "body", seed=seed))
    body = Transformer(path, transformer_task="fill-mask", **settings)
    return save_sparse([body, SpladePooling(pooling, activation)], folder, prompts, kept)


def save_sparse(
    modules: list[torch.nn.Module],
    folder: Path,
    prompts: dict[str, str] | None = None,
    kept: int | None = None,
) -> Path:
    """Write these modules as a sparse encoder; return its folder."""
    model = SparseEncoder(modules=modules, prompts=prompts, max_active_dims=kept, device="cpu")
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"
