"""Links, back and forward, similar documents."""

import json
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from fakes.notes_server import HOSTILE, HOSTILE_TITLE
from fakes.search_page import Open, finished, focused, ids, link

pytestmark = pytest.mark.slow


def test_a_link_holds_the_whole_state(open_page: Open, url: str) -> None:
    """A link that opens another search than the one that was copied."""
    page = open_page()
    page.fill("#query", "reset & 100 % + “new” #1")
    page.select_option("#k", "5")
    page.click("#show-filters")
    page.check("[data-name=source] [data-value=handbook]")
    page.fill("[data-name=year] [data-side=from]", "2022")
    page.fill("#where", 'not tags = "network"')
    page.keyboard.press("Enter")
    page.uncheck("#systems [value=bm25]")
    page.check("#systems [value=hybrid]")
    finished(page)
    shown = {system: ids(page, system) for system in ("student", "hybrid", "teacher")}
    assert 0 < len(shown["student"]) <= 5
    again = finished(open_page(page.url.removeprefix(url)))
    assert {system: ids(again, system) for system in shown} == shown
    assert again.locator("#column-bm25").count() == 0
    assert again.locator("#query").input_value() == "reset & 100 % + “new” #1"
    assert again.locator("#k").input_value() == "5"
    again.click("#show-filters")
    assert again.locator("[data-name=source] [data-value=handbook]").is_checked()
    assert again.locator("[data-name=year] [data-side=from]").input_value() == "2022"
    assert again.locator("#where").input_value() == 'not tags = "network"'
    assert again.url == page.url


def test_back_and_forward_repeat_searches(open_page: Open) -> None:
    """A way back that leaves the page, or shows the old query above new hits."""
    page = open_page()
    titles = []
    for query in ("printer lamp", "lost phone"):
        page.fill("#query", query)
        page.keyboard.press("Enter")
        finished(page)
        titles.append(ids(page, "student"))
    page.go_back()
    finished(page)
    assert page.locator("#query").input_value() == "printer lamp"
    assert ids(page, "student") == titles[0] != titles[1]
    page.go_back()
    page.locator(".welcome").wait_for()
    page.go_forward()
    page.go_forward()
    page.locator('#column-student .hit[data-id="phone"]').wait_for()
    assert ids(page, "student") == titles[1]
    page.focus("#query")
    page.keyboard.press("Enter")  # the same search makes no further entry
    finished(page)
    page.go_back()
    page.wait_for_function("() => document.querySelector('#query').value === 'printer lamp'")


def test_similar_documents_and_the_way_back(open_page: Open, url: str) -> None:
    """An id with a slash or a # that leads elsewhere; a way back that loses the hit."""
    page = finished(open_page(link(q="router", k=50)))
    hit = page.locator(f'#column-student .hit[data-id="{HOSTILE}"]')
    hit.locator(".similar").click()
    page.locator(".like").wait_for()
    with urlopen(f"{url}similar/{quote(HOSTILE, safe='')}?index=notes&k=50") as response:
        expected = [hit["id"] for hit in json.load(response)["hits"]]
    assert ids(page, "student") == expected
    assert HOSTILE not in expected
    page.get_by_role("heading", name=HOSTILE_TITLE).wait_for()
    assert page.locator(".column").count() == 1
    page.locator("#column-student .title").first.click()
    assert "year" in page.locator("#column-student dl").first.inner_text()
    page.locator(".back").click()
    finished(page)
    assert page.locator("#query").input_value() == "router"
    assert focused(page) == [HOSTILE, "student"]
