"""Hits: whose they are, what they show, how they compare; documents are text."""

from typing import Any

import pytest
from fakes.notes_server import HOSTILE, HOSTILE_TEXT, HOSTILE_TITLE, LONG, RIGHT_TO_LEFT
from fakes.search_page import QUERY, Open, answer, finished, hits, ids, link

pytestmark = pytest.mark.slow

NO_RANK, APOSTROPHE = "\u2013", "\u2019"


def test_a_typed_query_is_answered_by_each_system(open_page: Open, url: str) -> None:
    """A column that shows another system's hits, or a score or a time that is made up."""
    page = open_page()
    sent: dict[str, Any] = {}

    def note(response: Any) -> None:
        if response.url.endswith("/search"):
            body = response.request.post_data_json
            names = {"dense": "student", "hybrid": "teacher"}
            sent[names.get(body["method"], body["method"])] = response.json()

    page.on("response", note)
    page.locator("#query").type(QUERY)
    page.keyboard.press("Enter")
    finished(page)
    for system, asked in [
        ("student", {"method": "dense"}),
        ("bm25", {"method": "bm25"}),
        ("teacher", {"method": "hybrid", "rerank": True}),
    ]:
        expected = answer(url, query=QUERY, index="notes", k=10, **asked)["hits"]
        assert ids(page, system) == [hit["id"] for hit in expected]
        shown = page.locator(f"#column-{system} .score").all_inner_texts()
        for text, hit in zip(shown, expected, strict=True):
            assert float(text.split()[-1]) == pytest.approx(hit["score"], rel=1e-3)
        time = page.locator(f"#column-{system} .time").inner_text()
        scale = {"ms": 1.0, "s": 1000.0}[time.split()[1]]
        assert float(time.split()[0]) * scale == pytest.approx(
            sent[system]["took_ms"]["total"], rel=0.1, abs=0.06
        )
    ratio = sent["teacher"]["took_ms"]["total"] / sent["student"]["took_ms"]["total"]
    slow, fast = ("teacher", "student") if ratio > 1 else ("student", "teacher")
    assert f"The {slow} took" in page.locator("#comparison").inner_text()
    assert f"as long as the {fast}" in page.locator("#comparison").inner_text()


def test_each_hit_shows_its_rank_with_the_others(open_page: Open, url: str) -> None:
    """Arrows that point the wrong way: ▲ means that the other system ranks it higher."""
    page = finished(open_page(link(q=QUERY)))
    ranks = {
        "student": [hit["id"] for hit in answer(url, query=QUERY)["hits"]],
        "bm25": [hit["id"] for hit in answer(url, query=QUERY, method="bm25")["hits"]],
        "teacher": [
            hit["id"] for hit in answer(url, query=QUERY, method="hybrid", rerank=True)["hits"]
        ],
    }
    changes = set()
    for system, documents in ranks.items():
        others = [other for other in ranks if other != system]
        for rank, document in enumerate(documents):
            markers = hits(page, system).nth(rank).locator(".marker")
            assert [m.get_attribute("data-system") for m in markers.all()] == others
            for marker, other in zip(markers.all(), others, strict=True):
                text = marker.inner_text().split("\n")[-1].replace(" ", "")
                if document not in ranks[other]:
                    assert text.endswith(NO_RANK)
                    changes.add("absent")
                    continue
                gain = rank - ranks[other].index(document)
                arrow = f"▲{gain}" if gain > 0 else f"▼{-gain}" if gain else "="
                assert (
                    marker.get_attribute("title")
                    .split("rank ")[1]
                    .startswith(str(ranks[other].index(document) + 1))
                )
                assert marker.locator(".arrow").inner_text() == arrow
                changes.add(arrow[0])
    assert changes >= {"absent", "▲", "▼", "="}
    shared = len(set(ranks["student"]) & set(ranks["teacher"]))
    assert (
        f"{shared} of them in the teacher{APOSTROPHE}s 10"
        in page.locator("#column-student").inner_text()
    )


def test_documents_are_text_and_never_markup(open_page: Open) -> None:
    """A document that runs a script in the reader's browser, or whose tags are swallowed."""
    page = finished(open_page(link(q="router script title password", k=50)))
    for system in ("student", "bm25", "teacher"):
        hit = page.locator(f'#column-{system} .hit[data-id="{HOSTILE}"]')
        assert hit.locator(".title").text_content() == HOSTILE_TITLE
        hit.locator(".title").click()
        assert hit.locator(".text").text_content() == HOSTILE_TEXT
    assert page.locator("main script, main img, main b").count() == 0
    assert page.title() == "router script title password · retrodistill"
    assert page.evaluate("window.hacked") is None


def test_the_policy_stops_markup_whatever_the_page_does(browser: Any, url: str) -> None:
    """A later change of the page that builds HTML from strings, and works."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.evaluate("try { document.body.innerHTML = '<b>x</b>'; window.parsed = true } catch { }")
    assert page.evaluate("window.parsed") is None
    context.close()


def test_a_query_is_text_too(open_page: Open) -> None:
    """A link that runs a script in the browser of who opens it."""
    query = "<img src=x onerror=\"document.title='run'\">"
    page = open_page(link(q=query, where="</code><script>1</script>"))
    page.locator("#notice .error").wait_for()
    assert page.locator("#query").input_value() == query
    assert page.locator("main img, main script, form script").count() == 0
    assert page.title().startswith(query)


def test_matched_words_are_marked_and_the_excerpt_shows_them(open_page: Open) -> None:
    """An excerpt that always shows the beginning, or marks `the`; inflected forms unmarked."""
    page = finished(open_page(link(q="the router forgets its settings", k=30)))
    hit = page.locator('#column-student .hit[data-id="manager"]')
    excerpt = hit.locator(".excerpt").inner_text()
    assert "router forgets its settings" in excerpt
    assert not excerpt.startswith("A password manager")
    assert len(excerpt) < 400
    marks = {mark.lower() for mark in page.locator("#column-student mark").all_inner_texts()}
    assert marks >= {"router", "forgets", "settings"}
    assert not marks & {"the", "its"}
    page = finished(open_page(link(q="reset", k=30)))
    assert {"Resetting", "reset"} <= set(page.locator("#column-student mark").all_inner_texts())


@pytest.mark.parametrize(
    ("query", "document", "marked"),
    [("パスワードの再設定", "japanese", "パスワード"), ("كلمة المرور", "arabic", "كلمة")],
)
def test_words_of_other_scripts_are_marked(
    open_page: Open, query: str, document: str, marked: str
) -> None:
    """Marks for English only."""
    page = finished(open_page(link(q=query, k=30)))
    hit = page.locator(f'#column-student .hit[data-id="{document}"]')
    assert marked in hit.locator("mark").all_inner_texts()


def test_right_to_left_text_is_laid_out_so(open_page: Open) -> None:
    """Arabic with its full stop on the wrong side."""
    page = finished(open_page(link(q="password", k=30)))
    text = page.locator('#column-student .hit[data-id="arabic"] .excerpt')
    assert text.text_content() == RIGHT_TO_LEFT
    assert text.evaluate("node => getComputedStyle(node).direction") == "rtl"


def test_a_hit_opens_to_its_whole_text_and_attributes(open_page: Open) -> None:
    """A text that stays cut."""
    page = finished(open_page(link(q=QUERY, k=30)))
    hit = page.locator('#column-student .hit[data-id="manager"]')
    title = hit.locator(".title")
    assert title.get_attribute("aria-expanded") == "false"
    title.click()
    assert title.get_attribute("aria-expanded") == "true"
    assert hit.locator(".text").text_content() == LONG
    assert not hit.locator(".excerpt").is_visible()
    assert hit.locator("dl").inner_text().split("\n")[2:4] == ["year", "2021"]
    title.click()
    assert hit.locator(".excerpt").is_visible()
    assert not hit.locator(".text").is_visible()
    assert (
        page.locator('#column-student .hit[data-id="untitled"] .title').inner_text() == "untitled"
    )
