"""A reader's cross-attention, against a plain loop and against the scores before the softmax."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.language_models import pairs_of, save_tiny_causal, save_tiny_seq2seq

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import SCALES, Doc, Pairs, Teacher
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.teachers.reader import ReaderTeacher

FAMILIES = ("t5", "bart")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("reader")
    return {name: save_tiny_seq2seq(root / name, name) for name in FAMILIES}


def load(folder: Path) -> tuple[Any, Any]:
    """Return a float64 model and its tokenizer."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = AutoModelForSeq2SeqLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager"
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def read(model: Any, tokenizer: Any, query: Doc, docs: list[Doc]) -> tuple[Any, list[int]]:
    """Return the outputs for one query's passages, and the passages' lengths."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    encoded = []
    with torch.no_grad():
        for doc in docs:
            text = f"question: {query.text} title: {doc.title} context: {doc.text}"
            inputs = tokenizer(text, return_tensors="pt")
            encoded.append(model.get_encoder()(**inputs).last_hidden_state[0])
        bart = model.config.model_type == "bart"
        begin = [tokenizer.eos_token_id, tokenizer.bos_token_id] if bart else [0]
        outputs = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=torch.cat(encoded)[None]),
            decoder_input_ids=torch.tensor([begin]),
            output_attentions=True,
        )
    return outputs, [len(states) for states in encoded]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("batch_tokens", [30, 4096])
def test_scores_equal_a_plain_loop(name: str, batch_tokens: int, folders: dict[str, Path]) -> None:
    """Attention to padding, to the tokens of the next passage, or of one layer only."""
    pairs = pairs_of(2, 6)
    teacher = ReaderTeacher(
        str(folders[name]), ModelOptions(precision="float32", batch_tokens=batch_tokens)
    )
    scores = teacher.score(pairs)
    for query, positions in pairs.by_query():
        docs = [pairs.docs[row] for row in pairs.doc_rows[positions]]
        outputs, sizes = read(*load(folders[name]), query, docs)
        layers = [layer[0, :, -1].numpy() for layer in outputs.cross_attentions]
        for position, end, size in zip(positions, np.cumsum(sizes), sizes, strict=True):
            expected = np.mean([np.log(layer[:, end - size : end]) for layer in layers])
            assert scores[position] == pytest.approx(expected, abs=1e-4)
        assert scores[positions].std() > 1e-3


def test_within_a_query_it_is_the_published_score_plus_a_constant(
    folders: dict[str, Path],
) -> None:
    """Another target than the published one, which averages attention before the softmax."""
    import torch

    pairs = pairs_of(1, 6)
    teacher = ReaderTeacher(str(folders["t5"]), ModelOptions(precision="float32"))
    model, tokenizer = load(folders["t5"])
    layers = []

    def before_softmax(attention: Any, args: Any, options: Any) -> None:
        heads = (attention.n_heads, attention.key_value_proj_dim)
        query = attention.q(args[0])[0, -1].unflatten(-1, heads)
        key = attention.k(options["key_value_states"])[0].unflatten(-1, heads)
        layers.append(torch.einsum("hd,lhd->lh", query, key).mean(1).numpy())

    for block in model.decoder.block:
        cross = block.layer[1].EncDecAttention
        cross.register_forward_pre_hook(before_softmax, with_kwargs=True)
    _, sizes = read(model, tokenizer, pairs.queries[0], list(pairs.docs))
    passages = np.split(np.mean(layers, axis=0), np.cumsum(sizes)[:-1])
    published = np.array([passage.mean() for passage in passages])
    values = teacher.score(pairs)
    np.testing.assert_allclose(values - values.mean(), published - published.mean(), atol=1e-4)


def test_passages_compete_within_their_own_query_only(folders: dict[str, Path]) -> None:
    """A score that depends on the passages of another query in the same call."""
    teacher = ReaderTeacher(str(folders["t5"]), ModelOptions(precision="float32"))
    assert isinstance(teacher, Teacher)
    assert teacher.unit == "list"
    assert teacher.scale in SCALES
    pairs = pairs_of(3, 5)
    mixed = np.random.default_rng(0).permutation(len(pairs))
    shuffled = Pairs(pairs.queries, pairs.docs, pairs.query_rows[mixed], pairs.doc_rows[mixed])
    together = teacher.score(pairs)
    assert (teacher.score(pairs) == together).all()
    np.testing.assert_allclose(teacher.score(shuffled), together[mixed], atol=1e-4)
    for query, positions in pairs.by_query():
        docs = [pairs.docs[row] for row in pairs.doc_rows[positions]]
        alone = teacher.score(Pairs.of([query] * len(docs), docs))
        np.testing.assert_allclose(alone, together[positions], atol=1e-4)


def test_short_lists_and_long_passages(folders: dict[str, Path]) -> None:
    """A list of one that divides by nothing, or a passage that is read behind the cut."""
    teacher = ReaderTeacher(str(folders["t5"]), ModelOptions(max_tokens=40, precision="float32"))
    query, long = Doc("q", "", "blood pressure"), "cancer " * 99
    (alone,) = teacher.score(Pairs.of([query], [Doc("d", "", "insulin")]))
    assert -10 < alone < 0
    assert teacher.score(Pairs.of([], [])).shape == (0,)
    docs = [Doc("a", "", long), Doc("b", "", long + "insulin"), Doc("c", "", "insulin " + long)]
    same, cut, different = teacher.score(Pairs.of([query] * 3, docs))
    assert same == pytest.approx(cut, abs=1e-5)
    assert abs(same - different) > 1e-5


def test_scores_stay_finite_where_attention_vanishes(tmp_path: Path) -> None:
    """The log of an attention of zero, which the store refuses after hours of work."""
    import torch
    from transformers import T5ForConditionalGeneration

    folder = save_tiny_seq2seq(tmp_path / "t5")
    model = T5ForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        for block in model.decoder.block:
            block.layer[1].EncDecAttention.q.weight.mul_(1e4)
    model.save_pretrained(folder)
    scores = ReaderTeacher(str(folder), ModelOptions(precision="float32")).score(pairs_of(1, 5))
    assert np.isfinite(scores).all()
    assert scores.min() < -20


@pytest.mark.filterwarnings("ignore:this cpu has no bfloat16")
def test_a_bfloat16_body_gives_nearly_the_same(folders: dict[str, Path]) -> None:
    """Attention in half precision that is another ranking."""
    pairs = pairs_of(1, 12)
    exact, fast = (
        ReaderTeacher(str(folders["t5"]), ModelOptions(precision=precision)).score(pairs)
        for precision in ("float32", "bfloat16")
    )
    assert 0 < np.abs(exact - fast).max() < exact.std()


def test_the_fingerprint_is_that_of_the_scores(folders: dict[str, Path], tmp_path: Path) -> None:
    """Two readers that share a store because their folders have the same name."""
    t5 = str(folders["t5"])
    teachers = [
        ReaderTeacher(t5),
        ReaderTeacher(t5, ModelOptions(max_tokens=99)),
        ReaderTeacher(str(save_tiny_seq2seq(tmp_path / "t5", seed=1))),
    ]
    assert len({teacher.fingerprint for teacher in teachers}) == 3
    assert ReaderTeacher(t5).fingerprint == teachers[0].fingerprint


def test_what_does_not_fit_is_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    """A causal model asked for cross-attention that it does not have."""
    causal = str(save_tiny_causal(tmp_path / "lm"))
    for model, settings, message in [
        ("", {}, "needs a model"),
        (causal, {}, "needs an encoder-decoder, but .* is a causal"),
        (
            str(folders["bart"]),
            {"options": ModelOptions(max_tokens=513)},
            "more than this model can read",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            ReaderTeacher(model, **settings)
