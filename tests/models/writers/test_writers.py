"""Writers: a contract over all of them, prompts, models of transformers and behind an endpoint."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.corpus import save_small_collection
from fakes.language_models import save_tiny_causal
from fakes.llm_server import Reply, Server, completion, refusal, serve

from retrodistill import load_collection
from retrodistill.base.config import GenerateSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.registry import WRITERS
from retrodistill.base.types import Doc
from retrodistill.data.datasets import Collection
from retrodistill.models.writers import WriterOptions, check_options, load_writer
from retrodistill.models.writers.causal_lm import CausalWriter
from retrodistill.models.writers.llm import LLMWriter
from retrodistill.models.writers.prompts import FOLDER, read_prompts
from retrodistill.models.writers.titles import TitlesWriter
from retrodistill.stages.generating import generate_queries


def about(prompt: str) -> Reply:
    """Answer with a question about the first words of the last document."""
    doc = re.findall(r"^Document: (.+)$", prompt, re.MULTILINE)[-1]
    return completion(f"what is known about {' '.join(doc.split()[:3])}?")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    with serve(about) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        yield running


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_causal(tmp_path_factory.mktemp("causal") / "model")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = save_small_collection(
        tmp_path_factory.mktemp("small") / "corpus", docs=12, train=6, test=2
    )
    for path in (folder / "qrels").glob("*.tsv"):
        path.unlink()
    return load_collection(f"beir:{folder}")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A folder with short prompts, for models that read few tokens."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    for kind, label in (("question", "Query"), ("title", "title")):
        text = f"Document: blood liver\n{label}: heart muscle\n\nDocument: {{doc}}\n{label}:\n"
        (folder / f"{kind}.txt").write_text(text)
    return folder


def short(prompts: Path, *kinds: str, **options: Any) -> WriterOptions:
    return WriterOptions(
        **{
            "prompts": read_prompts(kinds, prompts),
            "max_tokens": 200,
            "precision": "float32",
            **options,
        }
    )


ARGUMENTS = {"titles": "titles", "causal-lm": "causal-lm:{causal}", "llm": "llm:m"}


@pytest.mark.parametrize("name", WRITERS)
def test_the_contract_of_writers(
    name: str, causal: Path, small: Collection, server: Server, prompts: Path
) -> None:
    """A writer of documents' texts in another order, or another query at each call."""
    spec = ARGUMENTS[name].format(causal=causal)
    options = short(prompts)
    writer = load_writer(spec, small.docs, options)
    docs = [small.docs[row] for row in (7, 2, 9)]
    assert isinstance(writer.estimate(docs), str)
    drafts = writer.write(docs)
    assert drafts
    assert [draft.source for draft in drafts] == [doc.id for doc in docs]
    assert all(draft.kind for draft in drafts)
    assert not [draft for draft in drafts if "\n" in draft.text]
    again = load_writer(spec, small.docs, options)
    assert again.write(docs) == drafts
    assert again.fingerprint == writer.fingerprint
    assert len({load_writer(ARGUMENTS[n].format(causal=causal), small.docs, options).fingerprint
                for n in WRITERS}) == len(WRITERS)  # fmt: skip


def test_every_kind_has_a_sound_prompt() -> None:
    """A prompt without examples, or whose examples are not read as such."""
    of_queries = {"passage", "reasoning", "distractor"}
    kinds = {path.stem for path in FOLDER.glob("*.txt")} - of_queries
    assert kinds == {
        *("question", "claim", "keywords", "title", "instruction"),
        *("description", "misdescription"),
    }
    prompts = (*read_prompts([*kinds]), *read_prompts([*of_queries], slot="{query}"))
    for prompt in prompts:
        assert len(prompt.examples) == len(prompt.topics) == 3
        assert all(prompt.topics)
        for example in prompt.examples:
            assert prompt.is_copied(example.upper(), "another document")


def test_a_query_about_an_example_is_a_copy() -> None:
    """A small model that answers about the honey of the prompt, not about the document."""
    (prompt,) = read_prompts(())
    assert prompt.is_copied("what is the best way to make a liquid honey?", "hydrogels in mice")
    assert not prompt.is_copied("what makes liquid honey set?", "Honey is liquid at first.")
    assert not prompt.is_copied("which liquid cools a reactor?", "Sodium cools it.")


def test_prompts_of_ones_own_come_first(prompts: Path) -> None:
    question, claim = read_prompts(("question", "claim"), prompts)
    assert question.label == "Query:"
    assert claim.label == "Claim:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Document: x\nQuery:", r"must hold \{doc\} once.*0 times"),
        ("{doc} {doc}\nQuery:", r"must hold \{doc\} once.*2 times"),
        ("Document: {doc}\nQuery", "must end with a line such as `Question:`"),
        ("Query for {doc}:", "must end with a line"),
    ],
)
def test_malformed_prompts_are_named(text: str, message: str, tmp_path: Path) -> None:
    """A prompt without the document: the same query for each."""
    (tmp_path / "odd.txt").write_text(text)
    with pytest.raises(DataError, match=rf"odd.txt {message}"):
        read_prompts(("odd",), tmp_path)


def test_a_kind_without_a_prompt_says_where_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--kind questions.*'question'.*FOLDER/questions.txt"):
        read_prompts(("questions",))
    with pytest.raises(ConfigError, match="has no file KIND.txt"):
        read_prompts((), tmp_path)


def test_options_reach_the_writers_that_have_them(small: Collection, server: Server) -> None:
    """A setting that is passed over by all, or refused because one of two lacks it."""
    own = ("words=3", "concurrency=1")
    check_options(("titles", "llm:m"), own)
    assert isinstance(load_writer("titles", small.docs, own=own), TitlesWriter)
    writer = load_writer("llm:m", small.docs, own=own)
    assert isinstance(writer, LLMWriter)
    assert (writer.words, writer.concurrency) == (3, 1)
    with pytest.raises(ConfigError, match=r"--option 'wrods=3'.*Did you mean 'words'"):
        check_options(("titles", "llm:m"), ("wrods=3",))
    with pytest.raises(ConfigError, match="words must be of type int"):
        check_options(("llm:m",), ("words=few",))
    with pytest.raises(ConfigError, match="titles has no settings of its own"):
        check_options(("titles",), ("words=3",))
    with pytest.raises(ConfigError, match="--kind and --prompts are for language models"):
        GenerateSettings(kind=("claim",))


def test_an_endpoint_is_asked_about_each_document_and_kind(
    small: Collection, server: Server
) -> None:
    """The prompt without its document or its task; queries for the wrong document."""
    options = WriterOptions(prompts=read_prompts(("question", "claim")))
    docs = [small.docs[0], small.docs[1]]
    drafts = load_writer("llm:m", small.docs, options).write(docs)
    assert [(draft.source, draft.kind) for draft in drafts] == [
        (doc.id, kind) for doc in docs for kind in ("question", "claim")
    ]
    for draft, doc in zip(drafts, [doc for doc in docs for _ in range(2)], strict=True):
        assert draft.text == f"what is known about {' '.join(doc.full_text.split()[:3])}?"
    assert len(server) == 4
    asked = [prompt for prompt in server.prompts if docs[0].text in prompt]
    assert any("Write one question for the last document" in prompt for prompt in asked)
    assert any("Write one claim for the last document" in prompt for prompt in asked)
    assert not [prompt for prompt in asked if "{doc}" in prompt]


def test_several_queries_are_asked_for_at_once(small: Collection, server: Server) -> None:
    server.answer = lambda prompt: completion('Here:\n1. "what one?"\n2. what two?\n3. what three?')
    drafts = load_writer("llm:m", small.docs, WriterOptions(per_doc=2)).write([small.docs[0]])
    assert [draft.text for draft in drafts] == ["what one?", "what two?"]
    assert "Write 2 different ones" in server.prompts[0]


def test_a_copied_example_is_marked(small: Collection, server: Server) -> None:
    """Few-shot examples in the training data, each judged relevant to another document."""
    server.answer = lambda prompt: completion("How do I make hard honey liquid again?")
    (draft,) = load_writer("llm:m", small.docs).write([small.docs[0]])
    assert draft.problem == "copied from the prompt"


def test_what_was_answered_is_not_paid_again(small: Collection, server: Server) -> None:
    """A second run, or one that resumes, pays for all answers once more."""
    docs = [small.docs[row] for row in range(4)]
    first = load_writer("llm:m", small.docs).write(docs)
    assert load_writer("llm:m", small.docs).write([*docs, small.docs[5]])[:4] == first
    assert len(server) == 5
    server.script = [refusal(500), completion(""), completion("what now?")]
    assert load_writer("llm:m", small.docs).write([small.docs[6]])[0].text == "what now?"


def test_the_limit_on_cost_stops_the_writing(small: Collection, server: Server) -> None:
    """A bill without a bound."""
    own = ("price_in=1000", "price_out=1000", "max_cost=1", "concurrency=1", "answer_tokens=200")
    writer = load_writer("llm:m", small.docs, own=own)
    docs = [small.docs[row] for row in range(12)]
    assert "to pay" in writer.estimate(docs)
    with pytest.raises(ConfigError, match="max_cost"):
        writer.write(docs)
    assert 0 < len(server) < 12


def test_a_refused_document_may_have_no_query(small: Collection, server: Server) -> None:
    bad = small.docs[1].text
    server.answer = lambda prompt: refusal(400) if bad in prompt else about(prompt)
    docs = [small.docs[row] for row in range(3)]
    with pytest.raises(ConfigError, match="document 'd1'"):
        load_writer("llm:m", small.docs, own=("concurrency=1",)).write(docs)
    drafts = load_writer("llm:m", small.docs, own=("undecided=true", "concurrency=1")).write(docs)
    assert [draft.source for draft in drafts] == ["d0", "d2"]


def plain_greedy(writer: CausalWriter, ids: list[int], steps: int) -> list[int]:
    """Return the likeliest tokens, one by one, each from a fresh pass over the whole text."""
    import torch

    written: list[int] = []
    with torch.inference_mode():
        for _ in range(steps):
            logits = writer._model(input_ids=torch.tensor([[*ids, *written]])).logits
            written.append(int(logits[0, -1].argmax()))
            if written[-1] in writer._ends:
                break
    return written


def test_batches_write_what_one_prompt_alone_does(
    causal: Path, small: Collection, prompts: Path
) -> None:
    """Padding that a model reads, or rows that come back in the order of their lengths."""
    options = short(prompts, batch_tokens=100_000)
    writer = CausalWriter(str(causal), small.docs, options, answer_tokens=8)
    docs = [Doc("a", "", "blood"), Doc("b", "", "liver " * 30), Doc("c", "heart", "salt sugar")]
    filled = writer._filled(0, docs)
    drafts = writer.write(docs)
    assert [draft.source for draft in drafts] == ["a", "b", "c"]
    for row, draft in enumerate(drafts):
        text, ended = writer._line(plain_greedy(writer, filled.ids(row), 8))
        assert draft.text == " ".join(text.split()) or not draft.text
        assert ended == (draft.problem != "unfinished answer")


def test_samples_follow_the_seed_and_are_several(
    causal: Path, small: Collection, prompts: Path
) -> None:
    """A seed that does nothing; the same query three times."""
    docs = [small.docs[row] for row in range(3)]

    def texts(seed: int) -> list[str]:
        options = short(prompts, per_doc=3, seed=seed)
        own = ("temperature=1.5", "answer_tokens=6")
        writer = load_writer(f"causal-lm:{causal}", small.docs, options, own=own)
        return [draft.text for draft in writer.write(docs)]

    assert len(texts(0)) == 9
    assert texts(0) == texts(0) != texts(1)
    assert len({*texts(0)}) > 3
    with pytest.raises(ConfigError, match=r"same query 3 times.*--option temperature=0.8"):
        load_writer(f"causal-lm:{causal}", small.docs, short(prompts, per_doc=3))


def test_an_answer_without_an_end_is_marked(
    causal: Path, small: Collection, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a sentence as a query, because the model wrote on."""
    writer = CausalWriter(str(causal), small.docs, short(prompts), answer_tokens=4)
    monkeypatch.setattr(writer, "_ends", [0])
    drafts = writer.write([small.docs[row] for row in range(6)])
    assert {draft.problem for draft in drafts} & {"unfinished answer"}
    newline = writer._model.tokenizer("\n")["input_ids"]
    assert {*newline} <= {*CausalWriter(str(causal), small.docs, short(prompts))._ends}


def test_a_stopped_run_resumes_after_its_last_batch(
    causal: Path, small: Collection, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of generation lost, or other queries after a crash than without one."""
    docs = [small.docs[row] for row in range(12)]
    options = short(prompts, batch_tokens=100)

    def written(cache: str, stop_after: int | None = None) -> tuple[list[Any], int]:
        monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / cache))
        writer = CausalWriter(str(causal), small.docs, options, answer_tokens=8)
        calls = 0
        generated = writer._generated

        def counted(*words: Any, **named: Any) -> Any:
            nonlocal calls
            if calls == stop_after:
                raise KeyboardInterrupt
            calls += 1
            return generated(*words, **named)

        monkeypatch.setattr(writer, "_generated", counted)
        try:
            return writer.write(docs), calls
        except KeyboardInterrupt:
            return [], calls

    whole, batches = written("whole")
    assert batches > 4
    assert written("killed", stop_after=3) == ([], 3)
    assert written("killed") == (whole, batches - 3)
    assert written("killed") == (whole, 0)


def test_a_language_model_writes_through_the_stage(small: Collection, server: Server) -> None:
    settings = GenerateSettings(writer=("titles", "llm:m"), min_words=1, near_duplicates=1)
    queries = generate_queries(small, settings).queries
    assert {query.writer for query in queries} == {"titles", "llm:m"}
    rows = [json.loads(query.line()) for query in queries]
    assert {row["metadata"]["kind"] for row in rows} == {"title", "question"}


def test_a_prompt_of_queries_speaks_of_the_query() -> None:
    """The words `the last document` beside a query, and a slot that stays in the prompt."""
    (passage,) = read_prompts(("passage",), slot="{query}")
    question = passage.question("how do pumps work?", 1)
    assert "Query: how do pumps work?" in question
    assert question.endswith("Write one passage for the last query, on one line, and nothing else.")
    assert "{query}" not in question
    with pytest.raises(ConfigError, match="claim is written for a document, but here a query"):
        read_prompts(("claim",), slot="{query}")


def test_a_passage_depends_on_its_query(causal: Path, small: Collection, tmp_path: Path) -> None:
    """The slot of the query left empty: the same passage for each."""
    text = "Query: blood liver\nPassage: heart muscle\n\nQuery: {query}\nPassage:\n"
    (tmp_path / "passage.txt").write_text(text)
    prompts = read_prompts(("passage",), tmp_path, slot="{query}")
    options = WriterOptions(prompts=prompts, max_tokens=200, precision="float32")
    writer = load_writer(f"causal-lm:{causal}", small.queries, options)
    drafts = writer.write([small.queries[row] for row in (0, 1, 2)])
    assert len({draft.text for draft in drafts}) > 1
    assert [draft.source for draft in drafts] == [small.queries[row].id for row in (0, 1, 2)]
