"""Queries from documents: titles, held-out documents, filters, and the folder with real loaders."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from retrodistill import generate_queries, load_collection
from retrodistill.base.config import GenerateSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest, digest
from retrodistill.base.types import Doc, Pairs
from retrodistill.data.datasets import Collection
from retrodistill.generate import main
from retrodistill.models.writers import Draft, WriterOptions
from retrodistill.stages.generating import GeneratedQueries
from retrodistill.stages.generating.filters import self_contained
from retrodistill.stages.generating.generate import sampled

LONG = "Turn the valve to the left, wait, and read the gauge. " * 12

PAGES = {
    "pump.md": f"# Cleaning the pump\n\n## Removing the cover\n\n{LONG}\n\n## Safety\n\n{LONG}",
    "boiler.md": f"# Starting the boiler\n\n## Bleeding air\n\n{LONG}\n\n## Safety\n\n{LONG}",
    "filter.md": f"# Changing filters\n\n## Introduction\n\n{LONG}\n\n## Ordering parts\n\n{LONG}",
    "notes_2024.txt": LONG,
    "valve.md": f"# Adjusting a valve\n\n{LONG}",
}


@pytest.fixture(scope="module")
def handbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handbook")
    for name, text in PAGES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def pages(handbook: Path) -> Collection:
    return load_collection(f"docs:{handbook},tokens=60")


def corpus(
    folder: Path, titles: Sequence[str], *, text: str = "some words of a text"
) -> Collection:
    """Return a collection in the BEIR layout, a document for each title."""
    rows = [
        {"_id": f"d{number}", "title": title, "text": f"some words of a text {number}"}
        for number, title in enumerate(titles)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_collection(f"beir:{folder}")


class Scripted:
    """Writes for each document what the test lays down, as a writer of one's own."""

    texts: Mapping[str, Sequence[str]] = {}

    def __init__(self, argument: str, docs: object, options: WriterOptions) -> None:
        self.fingerprint = digest("scripted", argument)

    def estimate(self, docs: Sequence[Doc]) -> str:
        return ""

    def write(self, docs: Sequence[Doc]) -> list[Draft]:
        return [
            Draft(text, "question", doc.id) for doc in docs for text in self.texts.get(doc.id, ())
        ]


def scripted(
    monkeypatch: pytest.MonkeyPatch, texts: Mapping[str, Sequence[str]], **settings: object
) -> GenerateSettings:
    """Return settings with a writer of one's own, `module:Class`."""
    monkeypatch.setattr(Scripted, "texts", texts)
    monkeypatch.setitem(sys.modules, "own_writers", _module())
    return GenerateSettings(writer=("own_writers:Scripted",), **settings)  # type: ignore[arg-type]


def _module() -> ModuleType:
    module = ModuleType("own_writers")
    module.Scripted = Scripted  # type: ignore[attr-defined]
    module.Favourite = Favourite  # type: ignore[attr-defined]
    return module


def texts_of(queries: GeneratedQueries) -> list[str]:
    return [query.text for split in queries.splits.values() for query in split]


def test_a_title_is_one_query_with_all_its_passages(pages: Collection) -> None:
    """Each passage of a file as a query of the same text: the others become false negatives."""
    queries = generate_queries(pages).queries
    (title,) = [query for query in queries if query.text == "Cleaning the pump"]
    passages = [id for id in pages.docs.ids() if id.startswith("pump.md#")]
    assert len(passages) > 3
    assert list(title.relevant) == passages
    assert title.source == passages[0]
    assert len({query.text for query in queries}) == len(queries)


def test_a_heading_is_relevant_to_its_own_passages(pages: Collection) -> None:
    """A heading that is judged relevant to the whole file, or is not written at all."""
    (heading,) = [q for q in generate_queries(pages).queries if q.text == "Removing the cover"]
    titles = [pages.docs.get(id).title for id in heading.relevant]
    assert set(titles) == {"Cleaning the pump - Removing the cover"}
    assert heading.kind == "heading"


def test_a_shared_heading_is_written_with_its_title(pages: Collection) -> None:
    """`Safety` alone, whose answer could be in any file."""
    texts = texts_of(generate_queries(pages))
    assert "Safety" not in texts
    assert {"Cleaning the pump Safety", "Starting the boiler Safety"} <= {*texts}


def test_names_of_nothing_are_dropped_and_counted(pages: Collection, tmp_path: Path) -> None:
    """Queries such as `notes_2024`, `Introduction`, or the site's name on every page."""
    queries = generate_queries(pages)
    assert not [text for text in texts_of(queries) if "notes" in text or "Introduction" in text]
    assert queries.dropped["file name"] == 1
    assert queries.dropped["boilerplate title"] == 1
    own = corpus(tmp_path / "c", [*["ACME Support Portal"] * 4, "Reset a router", "manual.pdf"])
    queries = generate_queries(own)
    assert texts_of(queries) == ["Reset a router"]
    assert queries.dropped["title of many documents"] == 1
    assert queries.dropped["file name"] == 1


def test_numbers_and_marks_of_a_heading_are_not_part_of_a_query(tmp_path: Path) -> None:
    own = corpus(tmp_path / "c", ["3.1 Installing the fan", "## **Oiling the fan**"])
    assert texts_of(generate_queries(own)) == ["Installing the fan", "Oiling the fan"]


def test_a_collection_without_titles_says_what_to_do(tmp_path: Path) -> None:
    """An empty folder of queries, and a training on nothing."""
    with pytest.raises(DataError, match=r"no titles.*--writer causal-lm:MODEL.*--queries FILE"):
        generate_queries(corpus(tmp_path / "c", ["", ""]))


def test_a_budget_keeps_the_title_and_spreads_the_headings(tmp_path: Path) -> None:
    """The first headings of a long file, and none of its end."""
    chapters = "\n\n".join(f"## Chapter of topic {letter}\n\n{LONG}" for letter in "ABCDEFG")
    (tmp_path / "long.md").write_text(f"# A long manual\n\n{chapters}")
    own = load_collection(f"docs:{tmp_path},tokens=60")
    queries = generate_queries(own, GenerateSettings(per_doc=3, near_duplicates=1))
    assert texts_of(queries) == ["A long manual", "Chapter of topic A", "Chapter of topic G"]
    assert queries.dropped["beyond --per-doc"] == 5


def test_the_held_out_documents_are_in_no_training_judgement(pages: Collection) -> None:
    """A student that is tested on documents whose titles it was trained on."""
    queries = generate_queries(pages, GenerateSettings(held_out=2, seed=1))
    assert queries.held_out
    aside = {doc.partition("#")[0] for query in queries.held_out for doc in query.relevant}
    trained = {doc.partition("#")[0] for query in queries.queries for doc in query.relevant}
    assert len(aside) == 2
    assert aside.isdisjoint(trained)
    assert not {q.text for q in queries.held_out} & {q.text for q in queries.queries}


def test_a_held_out_text_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The held-out question, word for word or nearly, with another document as its positive."""
    own = corpus(tmp_path / "c", [f"title {number}" for number in range(4)])
    (aside,) = sampled(4, 1, seed=0).tolist()
    others = [f"d{number}" for number in range(4) if number != aside]
    question = "how do I reset the main router at home"
    settings = scripted(
        monkeypatch,
        {
            f"d{aside}": [question],
            others[0]: ["How do I reset the main router at home?"],
            others[1]: ["how do I reset the main router at my home"],
            others[2]: ["what is a gateway"],
        },
        held_out=1,
    )
    queries = generate_queries(own, settings)
    assert [query.text for query in queries.queries] == ["what is a gateway"]
    assert queries.held_out is not None
    (held,) = queries.held_out
    assert set(held.relevant) == {f"d{aside}", others[0]}
    assert queries.dropped["equal to a held-out query"] == 1
    assert queries.dropped["nearly equal to another query"] == 1


def test_too_many_held_out_documents_are_refused(pages: Collection) -> None:
    with pytest.raises(ConfigError, match="--held-out 5 puts aside all of 5 documents"):
        generate_queries(pages, GenerateSettings(held_out=5))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("What does this passage say about valves?", "not self-contained"),
        ("what is described in the text above", "not self-contained"),
        ("According to the article, who won?", "not self-contained"),
        ("Which of the following is true of pumps?", "not self-contained"),
        ("what are the symptoms of this condition", "not self-contained"),
        ("what is new in medicine this year", ""),
        ("how to quote a passage in a text", ""),
        ("who wrote the article on gravity", ""),
        ("side effects of the above-knee amputation", "not self-contained"),  # the price
        ("valve", "fewer words than --min-words"),
        ("word " * 40, "more words than --max-words"),
    ],
)
def test_each_filter_of_one_query_drops_and_passes(
    text: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that drops nothing, or everything."""
    own = corpus(tmp_path / "c", ["one title", "two titles"])
    settings = scripted(monkeypatch, {"d0": [text], "d1": ["a harmless question"]})
    queries = generate_queries(own, settings)
    assert len(queries) == (1 if problem else 2)
    assert {name: count for name, count in queries.dropped.items() if count} == (
        {problem: 1} if problem else {}
    )
    assert self_contained(Draft(text, "", "d0")) in (problem, "")


def test_equal_queries_are_one_with_both_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second document as a false negative of a question that it answers too."""
    own = corpus(tmp_path / "c", ["one title", "two titles"])
    settings = scripted(monkeypatch, {"d0": ["Where is it?"], "d1": ["where is it"]})
    (query,) = generate_queries(own, settings).queries
    assert (query.text, query.relevant) == ("Where is it?", ("d0", "d1"))


def test_the_round_trip_drops_what_does_not_find_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that asks whether anything is found, not whether the source is."""
    own = corpus(tmp_path / "c", ["red apples", "green pears", "blue plums"])
    texts = {"d0": ["where do red apples grow"], "d1": ["where do blue plums grow"]}
    settings = scripted(monkeypatch, texts)
    assert len(generate_queries(own, settings)) == 2
    queries = generate_queries(own, replace(settings, round_trip=1))
    assert texts_of(queries) == ["where do red apples grow"]
    assert queries.dropped["not found again (--round-trip)"] == 1


def test_the_teacher_drops_what_its_source_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grade of another pair than query and source, or a filter that drops nothing."""
    own = corpus(tmp_path / "c", ["red apples", "green pears", "blue plums"])
    texts = {"d0": ["where do red apples grow"], "d1": ["where do blue plums grow"]}
    settings = scripted(monkeypatch, texts, teacher="bm25", min_score=0.5)
    queries = generate_queries(own, settings)
    assert texts_of(queries) == ["where do red apples grow"]
    assert queries.dropped["below --min-score"] == 1
    with pytest.raises(ConfigError, match="--teacher and --min-score need each other"):
        GenerateSettings(teacher="bm25")


def test_a_query_of_the_collection_is_not_generated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test query as a training query, under another id."""
    folder = tmp_path / "c"
    corpus(folder, ["red apples", "green pears"])
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "Who grows apples?"}\n')
    texts = {"d0": ["who grows apples", "where are apples grown"]}
    queries = generate_queries(load_collection(f"beir:{folder}"), scripted(monkeypatch, texts))
    assert texts_of(queries) == ["where are apples grown"]
    assert queries.dropped["equal to a query of the collection"] == 1


class Favourite:
    """A teacher that gives its favourite words the highest scores, as many as they come first."""

    scale = "unknown"
    unit = "pair"
    fingerprint = "favourite"

    def __init__(self, words: str) -> None:
        self.words = words.split(",")

    def score(self, pairs: Pairs) -> np.ndarray:
        texts = [pairs.docs[row].full_text for row in pairs.doc_rows]
        ranks = [[word in text for word in self.words] for text in texts]
        return np.array([-row.index(True) if True in row else -99 for row in ranks], np.float32)


def test_new_positives_are_those_that_the_rankers_agree_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source as positive although another document answers better; the best as negative."""
    titles = ["red apples", "sweet apples", "old apples", "blue plums"]
    own = corpus(tmp_path / "c", titles)
    settings = scripted(monkeypatch, {"d0": ["which apples are best"]})
    rankers = ("own_writers:Favourite:sweet,old,red", "own_writers:Favourite:sweet,red,old")
    rankers = (*rankers, "own_writers:Favourite:sweet,red")
    queries = generate_queries(own, replace(settings, relabel=3, ranker=rankers))
    (query,) = queries.queries
    assert (query.source, query.relevant, query.negatives) == ("d0", ("d1",), ("d2",))
    queries.write(tmp_path / "q")
    rows = (tmp_path / "q" / "qrels" / "generated.tsv").read_text().splitlines()[1:]
    assert rows == [f"{query.id}\td1\t1", f"{query.id}\td2\t0"]
    spec = f"beir:{tmp_path}/c,queries={tmp_path}/q/queries.jsonl,qrels={tmp_path}/q/qrels"
    assert load_collection(spec).relevant("generated") == {query.id: ["d1"]}


def test_the_source_is_no_negative_of_its_own_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hard negative from which the query was written, because two others answer it better."""
    own = corpus(tmp_path / "c", ["red apples", "sweet apples", "old apples", "blue plums"])
    settings = scripted(monkeypatch, {"d0": ["which apples are best"]})
    ranker = ("own_writers:Favourite:sweet,old,blue,red",)
    (query,) = generate_queries(own, replace(settings, relabel=3, ranker=ranker)).queries
    assert (query.source, query.relevant) == ("d0", ("d1",))
    assert query.negatives != ("d0",)
    assert len(query.negatives) == 1
    two = corpus(tmp_path / "two", ["red apples", "sweet apples"])
    (query,) = generate_queries(two, replace(settings, relabel=3, ranker=ranker)).queries
    assert (query.relevant, query.negatives) == (("d1",), ())


def test_each_ranker_has_its_own_settings() -> None:
    """A template of one language model that another reads, or that nobody reads."""
    rankers = ("generator:A", "causal-lm:B")
    settings = GenerateSettings(
        relabel=3, ranker=rankers, ranker_option=("causal-lm.template=Q: {query}=",)
    )
    assert settings.options_of("causal-lm:B") == ("template=Q: {query}=",)
    assert settings.options_of("generator:A") == ()
    with pytest.raises(ConfigError, match="is of none of the rankers \\(generator, causal-lm\\)"):
        replace(settings, ranker_option=("llm.max_cost=2",))


def test_no_held_out_document_becomes_a_positive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relabelling that brings back what was put aside."""
    own = corpus(tmp_path / "c", ["fine apples", "red apples", "old apples", "sweet apples"])
    (aside,) = sampled(4, 1, seed=0).tolist()
    words = own.docs[aside].title.split()[0]
    texts = {f"d{number}": [f"which apples are number {number}"] for number in range(4)}
    settings = scripted(monkeypatch, texts, held_out=1, near_duplicates=1)
    ranker = (f"own_writers:Favourite:{words}",)
    queries = generate_queries(own, replace(settings, relabel=4, ranker=ranker))
    trained = {doc for query in queries.queries for doc in (*query.relevant, *query.negatives)}
    assert len(queries.queries) == 3
    assert f"d{aside}" not in trained
    assert queries.held_out is not None
    assert queries.held_out[0].relevant == (f"d{aside}",)


def test_a_changed_folder_is_noticed(handbook: Path, tmp_path: Path) -> None:
    """Queries that were edited under a fingerprint of others."""
    out = tmp_path / "q"
    generate_queries(load_collection(f"docs:{handbook}")).write(out)
    Manifest.read(out).check_files(out)
    with (out / "qrels" / "generated.tsv").open("a") as stream:
        stream.write("g-1\td\t1\n")
    with pytest.raises(DataError, match="generated.tsv is damaged or was changed"):
        Manifest.read(out).check_files(out)


def test_nothing_left_is_an_error_with_the_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = corpus(tmp_path / "c", ["red apples"])
    with pytest.raises(DataError, match=r"no query is left of c: 1 fewer words than --min-words"):
        generate_queries(own, scripted(monkeypatch, {"d0": ["x"]}))


def test_the_sample_is_spread_and_follows_the_seed() -> None:
    """The first documents only, or the same ones whatever the seed."""
    rows = sampled(1000, 10, seed=3)
    assert (rows // 100).tolist() == list(range(10))
    assert rows.tolist() == sampled(1000, 10, seed=3).tolist() != sampled(1000, 10, seed=4).tolist()
    assert sampled(5, 9, seed=0).tolist() == sampled(5, None, seed=0).tolist() == list(range(5))
    assert len(np.unique(sampled(10, 9, seed=0))) == 9


def test_the_seed_reaches_sample_and_held_out(tmp_path: Path) -> None:
    """A --seed that changes nothing."""
    names = [f"all about subject number {n} and {n + 500}" for n in range(100)]
    own = corpus(tmp_path / "c", names)

    def drawn(seed: int) -> tuple[list[str], list[str]]:
        settings = GenerateSettings(docs=20, held_out=5, seed=seed, near_duplicates=1)
        queries = generate_queries(own, settings)
        return [q.id for q in queries.queries], [q.id for q in queries.held_out or ()]

    assert drawn(0) == drawn(0)
    assert drawn(0)[0] != drawn(1)[0]
    assert drawn(0)[1] != drawn(1)[1]
    assert [len(part) for part in drawn(0)] == [15, 5]


def test_the_folder_is_read_by_the_real_loaders(handbook: Path, tmp_path: Path) -> None:
    """Files that only their writer understands."""
    out, data = tmp_path / "queries", f"docs:{handbook},tokens=60"
    words = ["--data", data, "--held-out", "1", "--out", str(out), "--quiet"]
    assert main(words) == 0
    collection = load_collection(f"{data},queries={out}/queries.jsonl,qrels={out}/qrels")
    assert set(collection.splits) == {"generated", "held-out"}
    expected = generate_queries(load_collection(data), GenerateSettings(held_out=1))
    for split, queries in expected.splits.items():
        assert collection.query_ids(split) == [query.id for query in queries]
        relevant = {query.id: set(query.relevant) for query in queries}
        assert {query: {*docs} for query, docs in collection.relevant(split).items()} == relevant
        for query in queries:
            assert collection.queries.get(query.id).text == query.text
    row = json.loads((out / "queries.jsonl").read_text().splitlines()[0])
    assert row["metadata"] == {
        "writer": "titles",
        "kind": expected.queries[0].kind,
        "source": expected.queries[0].source,
    }
    manifest = Manifest.read(out, kind="queries")
    assert manifest.inputs == {"collection": load_collection(data).fingerprint}
    assert manifest.details["queries"] == {
        split: len(queries) for split, queries in expected.splits.items()
    }


def test_the_same_run_again_gives_the_same_bytes(handbook: Path, tmp_path: Path) -> None:
    """Ids of a counter or of a process's hash seed: stored scores no longer fit."""
    contents = []
    for name in ("first", "second"):
        words = ["--data", f"docs:{handbook}", "--out", str(tmp_path / name), "--quiet"]
        assert main([*words, "--held-out", "1"]) == 0
        paths = sorted(p for p in (tmp_path / name).rglob("*") if p.suffix in (".jsonl", ".tsv"))
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 5


def test_awkward_ids_come_back_as_they_were(tmp_path: Path) -> None:
    """An id with a quote or a space that the judgement file splits."""
    folder = tmp_path / "c"
    folder.mkdir()
    ids = ['d "1"', "d 2", "d,3"]
    rows = [{"_id": id, "title": f"name of {id} here", "text": "words"} for id in ids]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    generate_queries(load_collection(f"beir:{folder}")).write(tmp_path / "q")
    spec = f"beir:{folder},queries={tmp_path}/q/queries.jsonl,qrels={tmp_path}/q/qrels"
    relevant = load_collection(spec).relevant("generated")
    assert sorted(doc for docs in relevant.values() for doc in docs) == sorted(ids)
