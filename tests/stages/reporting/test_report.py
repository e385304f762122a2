"""The report: what it says, what it leaves out, and what it must not let through."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fakes import reports as inputs
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.data.datasets import load_collection
from retrodistill.data.rankings.unseen import NO_DOUBLE, UNSEEN
from retrodistill.data.store.runs import Run
from retrodistill.report import main
from retrodistill.stages.evaluation import Evaluation, evaluate_runs
from retrodistill.stages.evaluation.seen import seen_in_training
from retrodistill.stages.evaluation.significance import compare
from retrodistill.stages.reporting import latex, markdown, report
from retrodistill.stages.reporting.cases import CaseLimits, score_points, worst_cases
from retrodistill.stages.reporting.content import Code, Figure, Report, Section, Table, Text
from retrodistill.stages.reporting.markup import CONTROL, Html, tag
from retrodistill.stages.reporting.sections import MOST_BARS, deltas, headline, training

SETTINGS = {"confidence": 0.95, "ignore_identical_ids": False}
VOID = {"br", "img", "input", "link", "meta"}


class Outline(HTMLParser):
    """A page's elements, its text, and whether every element is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return inputs.save_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report") / "out"
    assert main(inputs.words(folder, made)) == 0
    return made


@pytest.fixture(scope="module")
def page(out: Path) -> Outline:
    return Outline((out / "report.html").read_text(encoding="utf-8"))


def test_all_parts_and_files_are_there(out: Path, page: Outline) -> None:
    """A part that is dropped without a word, so that nobody misses what it would have shown."""
    assert sorted(path.name for path in out.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
        "report.tex",
    ]
    parts = [
        "systems",
        "tests",
        "unseen",
        "deltas",
        "cost",
        "fidelity",
        "training",
        "tuning",
        "queries",
        "provenance",
    ]
    assert [own["id"] for name, own in page.elements if name == "section"] == parts
    sections = json.loads((out / "report.json").read_text())["sections"]
    assert set(sections) == set(parts) - {"systems", "tests", "unseen"}


def test_nothing_of_the_data_becomes_markup(page: Outline) -> None:
    """A document that holds a script, which runs when the report is opened."""
    assert [name for name, _ in page.elements].count("script") == 1
    assert not {name for name, _ in page.elements} & {"img", "iframe", "object", "embed", "form"}
    assert inputs.EVIL in page.text
    assert " ".join(inputs.BREAKS.split()) in page.text
    assert not [key for _, own in page.elements for key in own if key.startswith("on")]


def test_the_page_needs_nothing_but_itself(page: Outline) -> None:
    """A style sheet from elsewhere: the page is bare on a plane, and tells who reads it."""
    for name, own in page.elements:
        for key in ("src", "href", "action", "data", "poster", "srcset"):
            assert (own.get(key) or "#").startswith(("#", "data:,")), (name, own)
    [policy] = [own["content"] for _, own in page.elements if "http-equiv" in own]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_the_json_is_that_of_evaluate(out: Path, folder: Path) -> None:
    """Numbers of a report that are not those of `evaluate` for the same runs."""
    found = json.loads((out / "report.json").read_text())
    runs = {
        "strong": Run.read(folder / "strong"),
        "weak_<b>&": Run.read(folder / "weak_<b>&.jsonl"),
        "teacher": Run.read(folder / "teacher"),
    }
    lines = (folder / "data" / "qrels" / "test.tsv").read_text().splitlines()[1:]
    qrels: dict[str, dict[str, int]] = {}
    for query, doc, grade in (line.split("\t") for line in lines):
        qrels.setdefault(query, {})[doc] = int(grade)
    collection = load_collection(f"beir:{folder / 'data'}")
    seen = seen_in_training(collection, qrels, runs)
    wanted = evaluate_runs(qrels, runs, seen=seen).to_dict()
    sections = found.pop("sections")
    assert found == json.loads(json.dumps(wanted))
    assert sections["deltas"]["systems"]["weak_<b>&"]["worse"] == 3
    assert sections["cost"]["pareto"] == ["strong", "weak_<b>&"]
    assert sections["fidelity"]["strong"]["measures"]["tau"] == 1.0
    curve = sections["training"]["ndcg@10 on dev"]["student"]
    assert curve == [[1, 0.4], [2, 0.7], [4, 0.6]]
    assert [row["recall"] for row in sections["tuning"]["index"]] == [0.5, 0.75, 0.875]


def test_the_queries_that_lost_most_come_first(out: Path, page: Outline) -> None:
    """A list of losses that begins with small ones, or shows gains."""
    queries = json.loads((out / "report.json").read_text())["sections"]["queries"]
    assert queries["systems"] == ["teacher", "weak_<b>&"]
    lost = [(row["query"], row["values"]) for row in queries["queries"]]
    assert [query for query, _ in lost] == ["q3", "q1", inputs.EVIL]
    assert [values[1] for _, values in lost] == pytest.approx([0.0, 0.5, 0.6309], abs=1e-4)
    assert "Relevant, and not shown in the list of weak_<b>&" in page.text  # d3 of q3
    assert "relevant (2)" in page.text
    assert "judged not relevant (0)" in page.text


def test_the_table_is_sortable_and_named(page: Outline) -> None:
    """A table that a screen reader cannot name, or that sorts 10 before 9."""
    tables = [name for name, _ in page.elements].count("table")
    assert [name for name, _ in page.elements].count("caption") == tables
    heads = [own for name, own in page.elements if name == "th" and own["scope"] == "col"]
    assert {own["aria-sort"] for own in heads} == {"none"}
    numbers = [own["data-value"] for name, own in page.elements if "data-value" in own]
    assert all(re.fullmatch(r"-?[\d.e+-]+", number or "") for number in numbers)
    assert "0.0" in numbers


def test_only_judgements_and_a_run_are_needed(folder: Path, tmp_path: Path) -> None:
    """A report that asks for what a beginner does not have."""
    (tmp_path / "qrels.txt").write_text("q1 0 d2 1\n")
    words = ["--qrels", str(tmp_path / "qrels.txt"), "--run", str(folder / "strong")]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    page = Outline((tmp_path / "out" / "report.html").read_text())
    names = [own["id"] for name, own in page.elements if name == "section"]
    assert names == ["systems", "unseen", "provenance"]  # whose training is unknown


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--baseline", "strnog"], "Did you mean 'strong'?"),
        (["--latency", "strong"], "--latency is written name=ms"),
        (["--latency", "strong=nan"], "--latency is written name=ms"),
        (["--latency", "other=3"], "no system is called 'other'"),
        (["--student", "{folder}/index"], "is of kind 'index', but 'student' was wanted"),
        (["--index", "{folder}/data"], "is not an index folder"),
        (["--depth", "0"], "--depth must be at least 1"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    extra: list[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A traceback, or half a report, for a typing error."""
    words = ["--data", f"beir:{folder / 'data'}", "--run", str(folder / "strong")]
    extra = [word.format(folder=folder) for word in extra]
    assert main([*words, *extra, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_replaced(
    folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of other things that is gone."""
    before = (out / "report.html").read_bytes()
    assert main(inputs.words(folder, out)) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*inputs.words(folder, out), "--overwrite"]) == 0
    assert (out / "report.html").read_bytes() == before  # seeds and order are fixed


def test_markdown_and_latex_show_the_text_as_it_is(out: Path) -> None:
    """A name that opens a column, a formula or a tag in a paper."""
    text = (out / "report.md").read_text()
    assert not re.search(r"(?<!\\)<(?!/?sup>|br>)", text.partition("## Provenance")[0])
    assert r"weak\_\<b\>&amp;" in text
    assert r"A \| title" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows
    paper = (out / "report.tex").read_text()
    assert r"weak\_\textless{}b\textgreater{}\&" in paper
    assert r"\toprule" in paper
    body = paper[paper.index(r"\midrule") : paper.index(r"\bottomrule")]
    cells = [line for line in body.splitlines()[1:-1] if "addlinespace" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in cells} == {6}
    assert paper.count("{") - paper.count(r"\{") == paper.count("}") - paper.count(r"\}")


def test_escapes_by_hand() -> None:
    """One special letter that was forgotten."""
    assert latex.escape("50% of $a_b^c & {x}\\y~#") == (
        r"50\% of \$a\_b\textasciicircum{}c \& \{x\}\textbackslash{}y\textasciitilde{}\#"
    )
    assert markdown.escape("1. *a* [b](c) <d> | `e`\n# f") == (
        r"1\. \*a\* \[b\](c) \<d\> \| \`e\` \# f"
    )
    assert markdown.escape("- a & b") == r"\- a &amp; b"
    assert markdown.escape("0.5 -1") == "0.5 -1"
    assert markdown.escape("-0.5") == "-0.5"
    assert markdown.escape("===") == r"\==="


@given(st.text())
def test_any_text_comes_out_of_an_element_as_it_went_in(text: str) -> None:
    """A letter that leaves its element, or its attribute."""
    page = Outline(tag("p", text, title=text))
    wanted = CONTROL.sub("\ufffd", text)
    assert page.text.replace("\r\n", "\n") == wanted.replace("\r\n", "\n")
    assert page.elements == [("p", {"title": wanted})]


def test_markup_is_not_escaped_twice() -> None:
    """A page that shows its own tags."""
    assert tag("p", tag("b", "<"), [Html("<br>"), None]) == "<p><b>&lt;</b><br></p>"
    assert tag("meta", charset="x") == '<meta charset="x">'
    assert tag("p", hidden=True, title=None, id=False) == "<p hidden></p>"


def test_the_marks_name_who_is_beaten() -> None:
    """A star on the wrong system, or on a difference that chance explains."""
    low = dict.fromkeys("12345678", 0.2)
    for gains, mark in (([0.1, 0.2] * 4, "a"), ([0.9, -0.8] * 4, "")):
        high = {query: 0.2 + gain for query, gain in zip(low, gains, strict=True)}
        rows = {"x": {"map": low}, "y": {"map": high}}
        tests = compare("map", {name: own["map"] for name, own in rows.items()})
        ends = {name: {"map": (0.0, 1.0)} for name in rows}
        found = Evaluation(rows, tests, ends, settings=SETTINGS).to_dict()
        table = headline(found, queries=8).blocks[0]
        assert isinstance(table, Table)
        assert [row[1].marks for row in table.rows] == ["", mark]
        assert [row[1].best for row in table.rows] == [False, True]


def test_large_inputs_stay_small() -> None:
    """A page of a hundred megabytes for MS MARCO, or one that hides that it left something out."""
    queries = [f"q{number}" for number in range(5000)]
    base = dict.fromkeys(queries, 0.5)
    other = {query: number / 5000 for number, query in enumerate(queries)}
    part = deltas({"a": {"m": base}, "b": {"m": other}}, "m", "a")
    figure = part.blocks[1]
    assert isinstance(figure, Figure)
    assert figure.svg.count("<rect") <= MOST_BARS
    assert f"each bar of {MOST_BARS} stands for several" in figure.caption
    assert part.data["systems"]["b"]["worse"] == 2500
    scores = {query: {f"d{doc}": float(doc) for doc in range(50)} for query in queries[:400]}
    run = Run.from_dict(scores)
    qrels = {query: {"d1": 1} for query in scores}
    relevant, rest = score_points(run, run, qrels)
    assert (len(relevant), len(rest)) == (300, 1500)
    assert all(a == b for a, b in relevant + rest)
    assert (relevant, rest) == score_points(run, run, qrels)
    lost = dict.fromkeys(scores, 0.0)
    cases, worse = worst_cases(
        {"a": dict.fromkeys(scores, 1.0), "b": lost},
        {"a": run, "b": run},
        qrels,
        metric="m",
        systems=("a", "b"),
        limits=CaseLimits(queries=25, depth=10),
    )
    assert (len(cases), worse) == (25, 400)
    assert {len(side) for case in cases for side in case.lists} == {10}
    assert all([hit.rank for hit in case.missed] == [49] for case in cases)


def test_the_rows_of_unseen_queries_are_in_every_form(folder: Path, tmp_path: Path) -> None:
    """A page that shows gains of memory, where only the JSON says what is left without them."""
    data = folder / "data"
    (data / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td4\t1\n")
    words = ["--data", f"beir:{data}", "--run", str(folder / "strong"), "--trained-on", "train"]
    words += ["--run", str(folder / "weak_<b>&.jsonl"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {part["name"]: part for part in found["subsets"]}
    # q3 was trained on; d4 was relevant there, and is so to q4 in test.
    assert {name: part["settings"]["queries"] for name, part in rows.items()} == {
        NO_DOUBLE: 3,
        UNSEEN: 3,
    }
    strong, weak = (
        {s["name"]: s["metrics"] for s in rows[NO_DOUBLE]["systems"]}[name]["ndcg@10"]
        for name in ("strong", "weak_<b>&")
    )
    assert (strong, weak) == (1.0, pytest.approx((0.5 + 0.63093 + 1) / 3, abs=1e-5))
    page = Outline((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    texts = [
        page.text,
        *((tmp_path / "out" / f"report.{end}").read_text() for end in ("md", "tex")),
    ]
    for text in texts:
        assert text.count(NO_DOUBLE) >= 2
        assert f"{weak:.4f}" in text
    assert f"{UNSEEN}, ndcg@10: paired t test" in page.text
    assert (tmp_path / "out" / "report.tex").read_text().count("\\label{tab:unseen}") == 1


def test_no_form_holds_control_characters() -> None:
    """A document with a NUL, for which `grep` calls report.md a binary file."""
    text = "a\x00b\x1b[31mc\x85d"
    assert markdown.escape(text) == "a\ufffdb\ufffd\\[31mc\ufffdd"
    section = Section(key="x", title="x", blocks=[Code(title="x", text="a\x00\nb")])
    shown = markdown.as_markdown(Report(title="t", about="", evaluation={}, sections=[section]))
    assert "a\ufffd\nb" in shown
    assert not CONTROL.search(shown)


def test_losses_that_are_no_numbers_do_not_break_the_page() -> None:
    """A NaN among the losses: every point of the plot is at NaN, and the JSON cannot be read."""
    rows = [
        {"step": step, "kl": loss, "nce": 1.0 / step}
        for step, loss in ((1, 2.0), (2, 1.0), (3, math.nan), (4, math.inf))
    ]
    values = [[1, 0.5], [2, math.nan]]
    development = {"split": "dev", "metric": "ndcg@10", "step": 1, "value": 0.5, "values": values}
    part = training({"kl": {"details": {"losses": rows, "development": development}}})
    assert part is not None
    figures = [block for block in part.blocks if isinstance(block, Figure)]
    assert len(figures) == 3
    assert all("nan" not in figure.svg and "inf" not in figure.svg for figure in figures)
    assert json.loads(json.dumps(part.data, allow_nan=False))["kl"]["kl"] == [[1, 2.0], [2, 1.0]]
    [said] = [block.text for block in part.blocks if isinstance(block, Text)]
    assert said == "kl: kl is no finite number at step 3: the training diverged."
    only = training({"kl": {"details": {"losses": [{"step": 1, "kl": math.nan}]}}})
    assert only is not None
    assert [type(block) for block in only.blocks] == [Text]


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    """NaN in report.json, which a browser and every strict parser refuse."""
    evaluation = {"systems": [{"name": "a", "metrics": {"ndcg@10": math.nan}}], "tests": ()}
    page = Report(title="t", about="a", evaluation=evaluation, sections=[])
    report.write_report(page, tmp_path / "out")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "out" / "report.json").read_text()
    systems = json.loads(text, parse_constant=refuse)["systems"]
    assert systems == [{"name": "a", "metrics": {"ndcg@10": None}}]


def test_the_lost_queries_name_their_system_and_how_to_see_others(page: Outline) -> None:
    """Queries of the last --run, which the reader takes for those of all systems."""
    assert "weak_<b>& is worse than teacher on" in page.text
    assert "--system shows another system's queries: strong." in page.text


def test_rows_of_a_table_keep_their_lines_under_a_column_that_stays() -> None:
    """Collapsed borders belong to the table: they scroll away from below a sticky column."""
    style = (Path(report.__file__).parent / "page.css").read_text()
    assert "position: sticky; left: 0" in style
    assert "border-collapse: separate; border-spacing: 0" in style
