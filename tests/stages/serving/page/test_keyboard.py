"""The keyboard, the focus, and names for who listens."""

import re

import pytest
from fakes.search_page import QUERY, Open, finished, focused, hits, ids, link

pytestmark = pytest.mark.slow


def test_the_keyboard_does_it_all(open_page: Open) -> None:
    """A page for the mouse only; keys that write letters into the query."""
    page = open_page()
    page.locator(".welcome").wait_for()
    page.focus(".brand")
    page.keyboard.press("/")
    page.keyboard.type("reset/jk?")
    assert page.locator("#query").input_value() == "reset/jk?"
    page.fill("#query", QUERY)
    page.keyboard.press("Enter")
    finished(page)
    order = ids(page, "student")
    page.keyboard.press("ArrowDown")
    assert focused(page) == [order[0], "student"]
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    assert focused(page) == [order[1], "student"]
    page.keyboard.press("Enter")
    assert hits(page, "student").nth(1).locator(".text").is_visible()
    page.keyboard.press("Enter")
    assert not hits(page, "student").nth(1).locator(".text").is_visible()
    page.keyboard.press("k")
    page.keyboard.press("l")
    beside = ids(page, "bm25")  # the same document, or the one of the same rank
    assert focused(page) == [order[0] if order[0] in beside else beside[0], "bm25"]
    page.keyboard.press("ArrowLeft")
    assert focused(page)[1] == "student"
    hits(page, "student").first.locator(".title").focus()
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.press("Escape")
    assert page.locator("#query").input_value() == QUERY
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    page.keyboard.press("f")
    assert page.locator("#filters").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("s")
    page.locator(".like").wait_for()


def test_the_focus_is_seen_and_stays_in_the_filters(open_page: Open) -> None:
    """A focus that is lost with each change of a filter, or that nobody sees."""
    page = finished(open_page(link(q=QUERY)))
    page.click("#show-filters")
    page.focus("[data-name=source] [data-value=handbook]")
    page.keyboard.press("Space")
    finished(page)
    assert page.evaluate("document.activeElement.dataset.value") == "handbook"
    page.focus("#systems [value=bm25]")
    page.keyboard.press("Space")
    finished(page, 2)
    assert page.evaluate("document.activeElement.value") == "bm25"
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("j")
    style = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"[{style}.outlineStyle, {style}.outlineWidth]") == ["solid", "2px"]


NAMELESS = """[...document.querySelectorAll('input, select, button, a')].filter(node =>
  !(node.labels?.length && node.labels[0].textContent.trim())
  && !node.getAttribute('aria-label') && !node.textContent.trim()).map(node => node.outerHTML)"""


def test_every_control_has_a_name_and_results_are_announced(open_page: Open) -> None:
    """A field that a screen reader calls `edit text`; hits that come in silence."""
    page = finished(open_page(link(q=QUERY)))
    page.click("#show-filters")
    assert page.evaluate(NAMELESS) == []
    assert page.locator("#live").get_attribute("aria-live") == "polite"
    live = page.locator("#live").text_content()
    assert re.fullmatch(r"(Student|BM25|Teacher): 10 hits in [\d.]+ m?s\.", live)
    assert page.get_by_role("region", name="Student").count() == 1
    assert page.get_by_role("search").count() == 1
    docs = open_page("docs")
    docs.locator(".endpoint").first.wait_for()
    assert docs.evaluate(NAMELESS) == []
