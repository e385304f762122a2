"""Answers come when they come: fast before slow, newer over older."""

from typing import Any

import pytest
from fakes.search_page import QUERY, Gate, Open, answer, finished, ids, link

pytestmark = pytest.mark.slow


def test_a_fast_system_is_shown_before_a_slow_one(open_page: Open, url: str) -> None:
    """A student that waits for its teacher."""
    page = open_page(ready=False)
    gate = Gate(page, lambda body: body.get("rerank") is True)
    page.goto(url + link(q=QUERY))
    assert len(ids(page, "student")) == len(ids(page, "bm25")) == 10
    page.locator("#column-teacher .skeleton").wait_for()
    assert "Searching…" in page.locator("#column-teacher").inner_text()
    assert page.locator("#column-teacher").get_attribute("aria-busy") == "true"
    assert page.locator("#column-student .marker[data-system=teacher]").count() == 0
    gate.release()
    assert len(ids(page, "teacher")) == 10
    assert page.locator("#column-teacher .skeleton").count() == 0
    assert page.locator("#column-student .marker[data-system=teacher]").count() == 10


def test_a_late_answer_never_replaces_a_newer_one(open_page: Open, url: str) -> None:
    """The hits of the first query below the second: answers that come in another order."""
    page = open_page()
    page.evaluate(
        """() => {
          const send = window.fetch;
          window.held = [];
          window.aborted = 0;
          window.fetch = async (path, options) => {
            if (!options.body?.includes('printer')) return send(path, options);
            options.signal.addEventListener('abort', () => { window.aborted++; });
            const { signal, ...rest } = options;  // a network that has sent it all already
            const response = await send(path, rest);
            await new Promise(resolve => window.held.push(resolve));
            return response;
          };
        }"""
    )
    page.fill("#query", "printer lamp")
    page.keyboard.press("Enter")
    page.wait_for_function("() => window.held.length === 3")
    page.fill("#query", "lost phone")
    page.keyboard.press("Enter")
    finished(page)
    before = ids(page, "student")
    assert page.evaluate("window.aborted") == 3
    page.evaluate("window.held.forEach(resolve => resolve())")
    page.wait_for_timeout(200)
    expected = [hit["id"] for hit in answer(url, query="lost phone")["hits"]]
    assert ids(page, "student") == before == expected


def test_a_slow_search_counts_its_seconds(open_page: Open, url: str) -> None:
    """A page that looks broken while a server works; old hits below a new query."""
    page = open_page(ready=False)
    gate = Gate(page, lambda body: "phone" in body["query"])
    page.goto(url + link(q=QUERY))
    finished(page)
    page.fill("#query", "lost phone")
    page.keyboard.press("Enter")
    page.locator("#column-student .skeleton").wait_for()
    assert page.locator(".hit").count() == 0
    page.get_by_text("Searching… 2 s").first.wait_for()
    gate.release()
    finished(page)


def test_many_searches_at_once_leave_one_result(open_page: Open, url: str) -> None:
    """A race that mixes the hits of two searches: type, change filters and go back quickly."""
    page = open_page()
    for number in range(12):
        page.fill("#query", f"reset number {number}")
        page.keyboard.press("Enter")
        if number % 4 == 3:
            page.go_back()
    page.fill("#query", "lost phone")
    page.keyboard.press("Enter")
    finished(page)
    for system, asked in (("student", {}), ("bm25", {"method": "bm25"})):
        expected = [hit["id"] for hit in answer(url, query="lost phone", **asked)["hits"]]
        assert ids(page, system) == expected


def test_what_is_typed_while_the_page_loads_is_kept(open_page: Open, url: str) -> None:
    """A query that vanishes under the fingers, or an Enter that does nothing."""
    page = open_page(ready=False)
    waiting: list[Any] = []
    page.route("**/indexes", lambda route: waiting.append(route))
    page.goto(url)
    page.get_by_text("Asking the server what it serves").wait_for()
    page.fill("#query", "lost phone")
    page.keyboard.press("Enter")
    page.keyboard.type("s")
    waiting[0].continue_()
    finished(page)
    assert page.locator("#query").input_value() == "lost phones"
    assert ids(page, "student") == [hit["id"] for hit in answer(url, query="lost phone")["hits"]]
