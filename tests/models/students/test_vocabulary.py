"""A smaller vocabulary gives the texts that it was made from the vectors that they had."""

from pathlib import Path

import numpy as np
import pytest
from fakes.models import SPECIAL, WORDS, save_tiny_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from retrodistill.base.errors import ConfigError
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.transforms import prune_vocabulary, two_towers

TEXTS = ["Vitamin D and asthma.", "printing a list of files", "unhealthiest", "42", ""]
OTHERS = ["the cancer of the lung", "an infection (virus)", "zebra-fish 7"]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_model), device="cpu")


def reloaded(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    model.save(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu")


def test_the_corpus_keeps_its_vectors(model: SentenceTransformer, tmp_path: Path) -> None:
    """Rows that moved and tokens that did not give vectors of the right shape, and of noise."""
    small = reloaded(prune_vocabulary(model, iter(TEXTS)), tmp_path)
    assert len(small.tokenizer) < len(model.tokenizer) / 2
    rows = small.transformers_model.get_input_embeddings().num_embeddings
    assert rows == len(small.tokenizer) == small.transformers_model.config.vocab_size
    np.testing.assert_array_equal(small.encode(TEXTS), model.encode(TEXTS))
    assert small.max_seq_length == model.max_seq_length


def test_only_what_is_used_stays(model: SentenceTransformer) -> None:
    vocabulary = prune_vocabulary(model, ["vitamin vitamin asthma"], least=2).tokenizer.get_vocab()
    assert "vitamin" in vocabulary
    assert "asthma" not in vocabulary
    assert "##ing" not in vocabulary
    assert {*SPECIAL, "a", "z", "##z", "9", "("} <= set(vocabulary)


def test_other_texts_can_be_read(model: SentenceTransformer) -> None:
    """Without single letters, every word that the corpus lacks would be the one unknown word."""
    small = prune_vocabulary(model, TEXTS)
    for text in OTHERS:
        ids = small.tokenizer(text)["input_ids"]
        assert small.tokenizer.unk_token_id not in ids
        assert small.tokenizer.decode(ids, skip_special_tokens=True) == model.tokenizer.decode(
            model.tokenizer(text)["input_ids"], skip_special_tokens=True
        )


def test_prompts_are_read_as_before(tmp_path: Path) -> None:
    """A prompt that falls into letters is another prompt than the model was trained with."""
    prompts = {"query": "search query: ", "document": "the document: "}
    model = SentenceTransformer(str(save_tiny_model(tmp_path, prompts=prompts)), device="cpu")
    small = DenseEncoder(prune_vocabulary(model, TEXTS), precision="float32")
    wide = DenseEncoder(model, precision="float32")
    np.testing.assert_array_equal(small.encode_queries(TEXTS), wide.encode_queries(TEXTS))
    np.testing.assert_array_equal(small.encode_docs(TEXTS), wide.encode_docs(TEXTS))


def test_the_original_is_left_alone(model: SentenceTransformer) -> None:
    before, size = model.encode(OTHERS), len(model.tokenizer)
    prune_vocabulary(model, TEXTS)
    assert len(model.tokenizer) == size == model.transformers_model.config.vocab_size
    np.testing.assert_array_equal(model.encode(OTHERS), before)


def test_the_sizes_are_logged(
    model: SentenceTransformer, capsys: pytest.CaptureFixture[str]
) -> None:
    small = prune_vocabulary(model, TEXTS)
    messages = capsys.readouterr().err
    assert f"{len(small.tokenizer)} of {len(model.tokenizer)} tokens kept" in messages


def trained(kind: str, folder: Path) -> SentenceTransformer:
    """Return a random model with a tokenizer of a kind, trained on the words of the tests."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [" ".join(WORDS)] * 3 + TEXTS + OTHERS
    if kind == "Unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.post_processor = (
        processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
        if kind == "Unigram"
        else processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=128,
    )
    fast.save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    RobertaModel(config).save_pretrained(folder)
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("kind", ["Unigram", "BPE"])
def test_other_kinds_of_vocabulary(kind: str, tmp_path: Path) -> None:
    """A piece that is only a step on the way to a word is needed as much as the word."""
    model = trained(kind, tmp_path / "model")
    small = reloaded(prune_vocabulary(model, TEXTS), tmp_path / "small")
    assert len(small.tokenizer) < len(model.tokenizer)
    np.testing.assert_array_equal(small.encode(TEXTS), model.encode(TEXTS))
    for text in OTHERS:
        ids = small.tokenizer(text)["input_ids"]
        assert small.tokenizer.unk_token_id not in ids
        assert small.tokenizer.decode(ids, skip_special_tokens=True).strip() == text


@pytest.mark.parametrize("roberta", [False, True])
def test_a_padding_token_that_moves(roberta: bool, tmp_path: Path) -> None:
    """Padding with what is now a word is read as text; RoBERTa's positions hang on its number."""
    words = ["cell", "blood", "bone", "c", "##e", "##l"]
    ids = {piece: id for id, piece in enumerate([*words, *SPECIAL])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    ).save_pretrained(tmp_path / "model")
    kind, config = (RobertaModel, RobertaConfig) if roberta else (BertModel, BertConfig)
    kind(
        config(
            vocab_size=len(ids),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            initializer_range=0.5,
            pad_token_id=ids["[PAD]"],
        )
    ).save_pretrained(tmp_path / "model")
    model = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    texts = ["cell", "cell bone cell cell"]
    if roberta:
        with pytest.raises(ConfigError, match="counts positions from the number of its padding"):
            prune_vocabulary(model, texts)
        return
    small = reloaded(prune_vocabulary(model, texts), tmp_path / "small")
    assert "blood" not in small.tokenizer.get_vocab()
    config = small.transformers_model.config
    assert config.pad_token_id == small.tokenizer.pad_token_id == ids["[PAD]"] - 1
    assert small.transformers_model.get_input_embeddings().padding_idx == config.pad_token_id
    np.testing.assert_array_equal(small.encode(texts), model.encode(texts))


def test_models_without_such_a_vocabulary_are_refused(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    static = SentenceTransformer(
        modules=[StaticEmbedding(model.tokenizer, embedding_dim=8)], device="cpu"
    )
    for refused in (static, two_towers(model, model)):
        with pytest.raises(ConfigError, match="whose vocabulary cannot be cut"):
            prune_vocabulary(refused, TEXTS)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "cell": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[UNK]", model_max_length=16
    ).save_pretrained(tmp_path)
    BertModel(
        BertConfig(
            vocab_size=2,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="of the kind WordLevel"):
        prune_vocabulary(SentenceTransformer(str(tmp_path), device="cpu"), TEXTS)


def test_least_must_be_a_count(model: SentenceTransformer) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        prune_vocabulary(model, TEXTS, least=0)
