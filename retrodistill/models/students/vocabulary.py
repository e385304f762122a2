"""Students with fewer words: the vocabulary cut to what a corpus uses."""

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log
from retrodistill.models.students.layers import unlike_config
from retrodistill.models.students.towers import side_prompts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from torch import nn
    from transformers import PreTrainedModel

TEXTS = 1024
"""Texts that are tokenised at a time."""

Ids = Mapping[int, int]
"""Number of a kept token in the old vocabulary -> its number in the new one."""


def prune_vocabulary(
    model: "SentenceTransformer", texts: Iterable[str], *, least: int = 1
) -> "SentenceTransformer":
    """Return a copy of the model whose vocabulary is what these texts use, and log its size.

    Kept are the tokens that occur at least `least` times, those of the model's prompts, the
    special ones, and every piece of a single character or byte, so that other texts can be read
    too, in shorter pieces. A text of kept tokens keeps its vector exactly; with `least` 1 these
    are all the texts. Texts are counted whole, however short the model cuts them, and
    without the prompts.

    WordPiece, Unigram and BPE vocabularies are cut. Of a BPE, the pieces that lead to a kept one
    stay too; of a Unigram its least likely piece, for it sets the price of unknown characters.

    Raises:
        ConfigError: `least` is below 1, the model has two towers or no transformer, or its
            tokenizer or its embeddings are of a kind that cannot be cut.

    """
    if least < 1:
        raise ConfigError(f"least must be at least 1, but got {least}.")
    body, tokenizer = _parts(model)
    plain = _plain(tokenizer)
    counts = Counter(token for ids in _tokenised(plain, texts) for token in ids)
    prompts = {token for ids in _tokenised(plain, side_prompts(model)) for token in ids}
    used = {token for token, count in counts.items() if count >= least} | prompts
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    embeddings: Any = body.get_input_embeddings()
    rows = embeddings.num_embeddings
    named = {id for id in _named_ids(body.config).values() if id < rows}
    tokens = sorted(_closed(state, used | named | set(tokenizer.all_special_ids)))
    ids = {old: new for new, old in enumerate(tokens)}

    small = copy.deepcopy(model)
    module: Any = small[0]
    module.processor = _smaller_tokenizer(tokenizer, _renumbered(state, ids))
    _cut_embeddings(module.model, ids)
    log.info(
        f"vocabulary: {len(ids):,} of {rows:,} tokens kept, "
        f"{_megabytes(small):.1f} MB of {_megabytes(model):.1f}."
    )
    return small


def _parts(model: "SentenceTransformer") -> "tuple[PreTrainedModel, Any]":
    """Return the model's body and tokenizer, if both can be cut."""
    module: Any = model[0]
    body, tokenizer = getattr(module, "model", None), getattr(module, "tokenizer", None)
    if body is None or tokenizer is None or tokenizer is not module.processor:
        raise ConfigError(
            f"this model starts with {type(module).__name__}, whose vocabulary cannot be cut. "
            "Give a model on a transformer; of two towers, prune each before joining them."
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so its vocabulary cannot be cut."
        )
    if body.get_output_embeddings() is not None:
        raise ConfigError(
            f"{type(body).__name__} also predicts words, so its vocabulary cannot be cut."
        )
    return body, tokenizer


def _plain(tokenizer: Any) -> "Tokenizer":
    """Return a copy of the tokenizer's backend that neither cuts nor pads."""
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain


def _tokenised(plain: "Tokenizer", texts: Iterable[str]) -> Iterator[list[int]]:
    """Yield the tokens of each text, without special ones around them."""
    stream = iter(texts)
    while window := list(islice(stream, TEXTS)):
        yield from (row.ids for row in plain.encode_batch(window, add_special_tokens=False))


def _named_ids(config: Any) -> dict[str, int]:
    """Return the tokens that a config names, such as `pad_token_id`."""
    values = config.to_dict().items()
    return {k: v for k, v in values if k.endswith("_token_id") and isinstance(v, int)}


def _closed(state: Mapping[str, Any], used: set[int]) -> set[int]:
    """Return the tokens to keep: the used ones, and what any text needs."""
    model = state["model"]
    tokens = used | {token["id"] for token in state["added_tokens"]}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        tokens |= {model["unk_id"], int(np.argmin(scores))} - {None}
        pieces = {piece: id for id, (piece, _) in enumerate(model["vocab"])}
    elif model["type"] in ("WordPiece", "BPE"):
        pieces = model["vocab"]
        tokens |= {pieces[piece] for piece in [model.get("unk_token")] if piece in pieces}
    else:
        raise ConfigError(
            f"a vocabulary of the kind {model['type']} cannot be cut, only one of WordPiece, "
            "Unigram or BPE."
        )
    tokens |= {id for piece, id in pieces.items() if _is_single(piece, model)}
    if model["type"] == "BPE":
        tokens |= _parts_of(tokens, model)
    return tokens


def _is_single(piece: str, model: Mapping[str, Any]) -> bool:
    """Tell whether a piece is one character or one byte, within a word or at its start."""
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    bare = piece.removeprefix(prefix).removesuffix(suffix)
    is_byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
    return len(bare) <= 1 or is_byte


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the two parts and the result of each merge of a BPE."""
    prefix = model.get("continuing_subword_prefix") or ""
    for merge in model["merges"]:
        start, end = merge.split(" ") if isinstance(merge, str) else merge
        yield start, end, start + end.removeprefix(prefix)


def _parts_of(tokens: set[int], model: Mapping[str, Any]) -> set[int]:
    """Return the pieces of a BPE that merges join, step by step, to a kept one."""
    pieces_of: dict[str, set[str]] = {}
    for start, end, whole in _merges(model):
        pieces_of.setdefault(whole, set()).update((start, end))
    names = {id: piece for piece, id in model["vocab"].items()}
    reached: set[str] = set()
    waiting = [names[id] for id in tokens if id in names]
    while waiting:
        piece = waiting.pop()
        if piece not in reached:
            reached.add(piece)
            waiting.extend(pieces_of.get(piece, ()))
    return {model["vocab"][piece] for piece in reached}


def _renumbered(state: Mapping[str, Any], ids: Ids) -> dict[str, Any]:
    """Return a tokenizer's state with the kept tokens only, by their new numbers."""
    new: dict[str, Any] = copy.deepcopy(dict(state))
    model = new["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in ids]
        model["unk_id"] = ids.get(model["unk_id"])
    else:
        pieces = {piece: ids[old] for piece, old in model["vocab"].items() if old in ids}
        model["vocab"] = dict(sorted(pieces.items(), key=lambda item: item[1]))
    if model["type"] == "BPE":
        merges = zip(model["merges"], _merges(model), strict=True)
        model["merges"] = [m for m, made in merges if all(piece in pieces for piece in made)]
    for token in new["added_tokens"]:
        token["id"] = ids[token["id"]]
    if new["padding"]:
        new["padding"]["pad_id"] = ids[new["padding"]["pad_id"]]
    if new["post_processor"]:
        _renumber_processor(new["post_processor"], ids)
    return new


def _renumber_processor(processor: dict[str, Any], ids: Ids) -> None:
    """Give the special tokens that a post-processor adds their new numbers."""
    for nested in processor.get("processors", []):
        _renumber_processor(nested, ids)
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [ids[old] for old in token["ids"]]
    for name in ("cls", "sep"):
        if name in processor:
            piece, old = processor[name]
            processor[name] = [piece, ids[old]]


def _smaller_tokenizer(tokenizer: Any, state: Mapping[str, Any]) -> Any:
    """Return a tokenizer of the same class and settings with another state.

    It is loaded from a folder, as the student will be.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            if file.name not in ("tokenizer.json", "tokenizer_config.json"):
                file.unlink()
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings.pop("added_tokens_decoder", None)
        path.write_text(json.dumps(settings), encoding="utf-8")
        (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
        small = type(tokenizer).from_pretrained(folder)
    small.name_or_path = tokenizer.name_or_path
    model = state["model"]
    pieces = model["vocab"] if isinstance(model["vocab"], dict) else dict(model["vocab"])
    expected = set(pieces) | {token["content"] for token in state["added_tokens"]}
    if set(small.get_vocab()) != expected:
        raise ConfigError(
            f"{type(tokenizer).__name__} cannot be loaded again with a smaller vocabulary."
        )
    return small


def _cut_embeddings(body: "PreTrainedModel", ids: Ids) -> None:
    """Cut the embeddings of a model in place to the rows of the kept tokens."""
    import torch
    from torch import nn

    old: Any = body.get_input_embeddings()
    if max(ids) >= old.num_embeddings:
        raise ConfigError(
            f"the tokenizer has tokens up to {max(ids)}, but the model only {old.num_embeddings} "
            "embeddings. Repair the model first."
        )
    for module in body.modules():
        offset = None if isinstance(module, nn.Embedding) else getattr(module, "padding_idx", None)
        if offset is not None and ids[offset] != offset and _counts_from_padding(module):
            raise ConfigError(
                f"{type(body).__name__} counts positions from the number of its padding token, "
                "which would change: its vocabulary cannot be cut."
            )
    padding = old.padding_idx
    new = nn.Embedding(len(ids), old.embedding_dim, None if padding is None else ids[padding])
    new.weight = nn.Parameter(old.weight.detach()[torch.tensor(list(ids))].clone())
    body.set_input_embeddings(new.to(old.weight.device))
    body.config.vocab_size = len(ids)
    for name, id in _named_ids(body.config).items():
        setattr(body.config, name, ids.get(id, id))
    if unlike_config(body):
        raise ConfigError(
            f"{type(body).__name__} cannot be loaded again with a smaller vocabulary: "
            f"{unlike_config(body)[0]} depends on it too."
        )


def _counts_from_padding(module: "nn.Module") -> bool:
    return hasattr(module, "position_embeddings")


def _megabytes(model: "nn.Module") -> float:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 1e6
