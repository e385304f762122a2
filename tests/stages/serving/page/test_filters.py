"""Filters, and the conditions that they become."""

from typing import Any

import pytest
from fakes.notes_server import HOSTILE, NOTES, QUOTED_SOURCE
from fakes.search_page import QUERY, Open, finished, ids, link

from retrodistill.data.filters import Among, Compare, Missing, all_of, parse_where

pytestmark = pytest.mark.slow


def conditions_sent(page: Any) -> list[Any]:
    """Collect the conditions of the requests that a page sends from now on."""
    sent: list[Any] = []

    def note(request: Any) -> None:
        if request.url.endswith("/search"):
            sent.append(request.post_data_json.get("where"))

    page.on("request", note)
    return sent


def test_filters_become_conditions_that_the_server_understands(open_page: Open) -> None:
    """A value with quotes that breaks the condition; an end date whose day is left out."""
    page = finished(open_page(link(q=QUERY)))
    sent = conditions_sent(page)
    page.click("#show-filters")
    box = page.locator("[data-name=source] input[type=checkbox]")
    if page.locator("[data-name=source] summary").count():
        page.click("[data-name=source] summary")
    names = [one.get_attribute("data-value") for one in box.all()]
    assert set(names) == {note[3]["source"] for note in NOTES}
    counted = page.locator("[data-name=source] label", has_text="handbook").locator(".count")
    assert counted.inner_text() == "5"
    box.nth(names.index(QUOTED_SOURCE)).check()
    finished(page)
    assert parse_where(sent[-1]) == Among("source", (QUOTED_SOURCE,))
    assert ids(page, "student") == [HOSTILE]
    page.fill("[data-name=published] [data-side=to]", "2024-02-29")
    page.keyboard.press("Tab")
    finished(page)
    assert ids(page, "student") == [HOSTILE]  # it is of that day
    page.fill("[data-name=published] [data-side=to]", "2024-02-28")
    page.keyboard.press("Tab")
    page.locator("#column-student .empty").wait_for()
    page.locator("#chips button").nth(1).click()
    box.nth(names.index("handbook")).check()
    page.fill("[data-name=year] [data-side=from]", "2023")
    page.fill("[data-name=stars] [data-side=to]", "4.5")
    page.check("[data-name=tags] [data-value=accounts]")
    page.check("[data-name=reviewed] [data-value=true]")
    finished(page)
    assert parse_where(sent[-1]) == all_of(
        [
            Among("source", ("handbook", QUOTED_SOURCE)),
            Compare("year", ">=", 2023),
            Compare("stars", "<=", 4.5),
            Among("tags", ("accounts",)),
            Among("reviewed", (True,)),
        ]
    )
    assert ids(page, "student") == ["reset"]
    assert page.locator("#show-filters").inner_text() == "Filters (6)"
    page.get_by_text("Remove all").click()
    finished(page)
    assert sent[-1] is None
    assert page.locator("#filters :checked").count() == 0


NASTY = [
    '"',
    "'",
    "\\",
    '\\"',
    "a\nb",
    "\t",
    "`",
    ") or (true",
    "\u2028",
    "🔐",
    "کلمه",
    "\x00",
    "é",
]


def test_conditions_are_escaped_as_the_server_reads_them(open_page: Open) -> None:
    """A value or a name that ends its quotes, and with them the filter."""
    page = open_page()
    compose = """([filters, attributes, free]) =>
      import('/page/where.js').then(where => where.compose(filters, attributes, free))"""
    names = ["plain", "a.b", "my field", "and", "IN", "`", "a`b``", "1st", "größe", '"', "x = 1"]
    for name in names:
        filters = {name: {"values": NASTY, "from": "", "to": ""}}
        composed = page.evaluate(compose, [filters, {name: {"type": "str"}}, ""])
        assert parse_where(composed) == Among(name, tuple(NASTY))
    filters = {
        "n": {"values": [], "from": "-1e3", "to": "2.50"},
        "when": {"values": [], "from": "2023-12-31", "to": "2023-12-31"},
        "tick": {"values": ["true", "false"], "from": "", "to": ""},
        "odd": {"values": [], "from": "1 or 2", "to": ""},
    }
    types = {"n": "float", "when": "date", "tick": "bool", "odd": "int"}
    attributes = {name: {"type": kind} for name, kind in types.items()}
    expected = [
        Compare("n", ">=", -1000.0),
        Compare("n", "<=", 2.5),
        Compare("when", ">=", "2023-12-31"),
        Compare("when", "<", "2024-01-01"),
        Among("tick", (True, False)),
        Compare("odd", ">=", "1 or 2"),
    ]
    assert parse_where(page.evaluate(compose, [filters, attributes, ""])) == all_of(expected)
    days = [{"value": "2024-02-28", "documents": 1}, {"value": "2024-02-29", "documents": 2}]
    dated = {"day": {"type": "str", "values": days, "distinct": 2}}
    filters_of_day = {"day": {"values": [], "from": "2024-02-28", "to": "2024-02-29"}}
    assert parse_where(page.evaluate(compose, [filters_of_day, dated, ""])) == all_of(
        [Compare("day", ">=", "2024-02-28"), Compare("day", "<", "2024-03-01")]
    )
    free = "year is missing or lang = 'de'"
    composed = page.evaluate(compose, [filters, attributes, free])
    assert parse_where(composed) == all_of([parse_where(free), *expected])
    assert page.evaluate(compose, [{}, {}, f" {free} "]) == free


def test_a_mistake_in_a_condition_is_explained(open_page: Open) -> None:
    """Three columns of the same error, or none; an error that stays after it is corrected."""
    page = finished(open_page(link(q=QUERY)))
    sent = conditions_sent(page)
    page.click("#show-filters")
    page.fill("#where", "year = x")
    page.keyboard.press("Enter")
    notice = page.locator("#notice .error")
    notice.wait_for()
    assert "at column 8 of the filter" in notice.text_content()
    assert notice.get_by_role("button").count() == 0
    assert page.locator(".error").count() == 1 or not page.locator(".columns").is_visible()
    assert page.locator("#where").get_attribute("aria-invalid") == "true"
    page.fill("#where", "year is missing")
    page.keyboard.press("Enter")
    finished(page)
    assert notice.count() == 0
    assert page.locator("#where").get_attribute("aria-invalid") is None
    assert parse_where(sent[-1]) == Missing("year")
    assert ids(page, "student") == ["untitled"]


def test_a_filter_that_an_index_lacks_is_not_dropped(open_page: Open) -> None:
    """A link whose filter is ignored: it shows more than whoever sent it meant."""
    page = open_page(link(q=QUERY) + "&is.colour=red")
    page.locator("#notice .error").wait_for()
    assert "colour" in page.locator("#notice").inner_text()
    page.locator("#chips button", has_text="colour: red").click()
    finished(page)
