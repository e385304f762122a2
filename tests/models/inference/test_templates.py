"""Prompts whose parts are tokenised apart, against tokenisers that are given the whole."""

import numpy as np
import pytest
from fakes.language_models import bart_tokenizer, byte_tokenizer, texts, word_tokenizer
from fakes.models import save_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError
from retrodistill.models.inference.templates import Template, one_token, shares, special_tokens

PLAIN = "question: {query} context: {doc}"
TEMPLATES = {
    "reader": PLAIN,
    "generator": "Passage: {doc}. Please write a question. {query}",
    "chat": "<|im_start|>user\n<Query>: {query}\n<Document>: {doc}<|im_end|>\n<|im_start|>yes\n",
    "lines": "A: {query}\nB:\n{doc}\n\nRelevant:",
    "bare": "{query} {doc}",
}
FAMILIES = {"unigram": word_tokenizer, "bytes": byte_tokenizer, "bart": bart_tokenizer}


def prepending_tokenizer():
    """Return one that puts a mark before every text, as those of the first Llamas do."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = word_tokenizer().get_vocab()
    scores = [(word, -3.0 if len(word) > 1 else -6.0) for word in sorted(words, key=words.get)]
    tokenizer = Tokenizer(models.Unigram([*scores, ("\n", -6.0)], unk_id=2))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


FAMILIES["prepending"] = prepending_tokenizer


@pytest.fixture(scope="module", params=["wordpiece", *FAMILIES])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    if request.param == "wordpiece":
        return save_tokenizer(tmp_path_factory.mktemp("wordpiece"))
    return FAMILIES[request.param]()


def filled(template: Template, queries: list[str], docs: list[str]):
    """Return the prompts of the i-th query with the i-th document."""
    rows = np.arange(len(queries))
    return template.fill({"query": (queries, rows), "doc": (docs, rows)})


@pytest.mark.parametrize("name", TEMPLATES)
def test_joined_tokens_are_those_of_the_whole_text(name: str, tokenizer) -> None:
    """A word that is another token at the seam than in the prompt that a model was trained on."""
    queries, docs = texts(30, words=6), texts(30, seed=1)
    if name in ("lines", "generator"):  # a sign before a sign or a line's end may merge with it
        queries, docs = ([text.rstrip(".?)") for text in side] for side in (queries, docs))
    special = special_tokens(tokenizer)
    template = Template(
        tokenizer, TEMPLATES[name], ("query", "doc"), max_tokens=400, special=special
    )
    prompts = filled(template, queries, docs)
    for i, (query, doc) in enumerate(zip(queries, docs, strict=True)):
        whole = TEMPLATES[name].replace("{query}", query).replace("{doc}", doc)
        assert prompts.ids(i) == tokenizer(whole)["input_ids"]
        assert prompts.lengths[i] == len(prompts.ids(i))


@pytest.mark.parametrize("max_tokens", [40, 47, 60])
def test_a_cut_takes_the_documents_end_and_nothing_else(max_tokens: int, tokenizer) -> None:
    """A prompt that lost its last words, so that the model was never asked for an answer."""
    text = "Query: {query} Document: {doc}\nRelevant (yes or no):"
    queries, docs = texts(20, words=2), texts(20, words=60, seed=3)
    whole = filled(Template(tokenizer, text, ("query", "doc"), max_tokens=4000), queries, docs)
    cut = filled(Template(tokenizer, text, ("query", "doc"), max_tokens=max_tokens), queries, docs)
    first, with_tail = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("insulin", "insulin\nRelevant (yes or no):")
    )
    tail = with_tail[len(first) :]
    for i in range(20):
        ids, full = cut.ids(i), whole.ids(i)
        assert len(ids) == cut.lengths[i] == min(len(full), max_tokens)
        end = len(ids) - len(tail)
        assert ids[end:] == tail
        assert ids[:end] == full[:end]
    assert (cut.lengths < whole.lengths).sum() > 5


def test_a_long_query_leaves_room_for_the_document() -> None:
    """A query of a whole page that pushes every document out of the prompt."""
    tokenizer = word_tokenizer()
    template = Template(tokenizer, PLAIN, ("query", "doc"), max_tokens=40)
    prompts = filled(template, ["blood " * 300], ["insulin " * 300])
    words = tokenizer.convert_ids_to_tokens(prompts.ids(0))
    assert words.count("▁blood") == template.room // 2
    assert words.count("▁insulin") == template.room - template.room // 2
    assert len(words) == 40


sizes = st.lists(st.tuples(*[st.integers(-2, 30)] * 3), min_size=1, max_size=9)


@given(sizes, st.integers(6, 60), st.booleans())
def test_shares_fit_and_waste_nothing(
    sizes: list[tuple[int, int, int]], room: int, steady: bool
) -> None:
    """Two documents of which one is cut though the other leaves it room, or a prompt too long."""
    whole, queries = np.array(sizes).T, np.array([True, False, False])
    sizes_kept = shares(whole, queries, room, steady=steady)
    assert (sizes_kept <= whole).all()
    assert (sizes_kept.clip(min=0).sum(0) <= room).all()
    assert (sizes_kept[0] >= np.minimum(whole[0], room // 2)).all()
    assert not steady or (sizes_kept[0] <= room // 2).all()
    cut = (sizes_kept[1 if steady else 0 :] < whole[1 if steady else 0 :]).any(0)
    doc_room = room - sizes_kept.clip(min=0).sum(0)
    assert (doc_room[cut] <= 1).all()
    swapped = shares(whole[[0, 2, 1]], queries, room, steady=steady)
    assert (swapped == sizes_kept[[0, 2, 1]]).all()


@pytest.mark.parametrize(
    ("text", "max_tokens", "message"),
    [
        ("Query: {query}", 50, "needs {query} and {doc}, once each"),
        ("{query} {doc} {doc}", 50, "once each"),
        (PLAIN, 7, "too little of --max-tokens 7"),
    ],
)
def test_templates_that_cannot_be_filled_are_explained(
    text: str, max_tokens: int, message: str
) -> None:
    """A traceback for a template without the document, or scores of empty documents."""
    with pytest.raises(ConfigError, match=message):
        Template(word_tokenizer(), text, ("query", "doc"), max_tokens=max_tokens)


def test_an_answer_of_several_tokens_is_refused() -> None:
    """The logit of the first letter of an answer, taken for the answer's."""
    tokenizer = byte_tokenizer()
    assert one_token(tokenizer, "yes", "\n") == tokenizer.convert_tokens_to_ids("yes")
    assert one_token(tokenizer, " yes", ":") == tokenizer.convert_tokens_to_ids("Ġyes")
    with pytest.raises(ConfigError, match="must be one token"):
        one_token(tokenizer, "unbelievably")
