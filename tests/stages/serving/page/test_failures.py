"""Keys, full queues, servers that are gone, nothing found, what an index lacks."""

import json
from typing import Any

import pytest
from fakes.search_page import QUERY, Open, finished, ids, link

pytestmark = pytest.mark.slow


def test_a_key_is_asked_for_and_stays_in_the_tab(open_page: Open, locked: str) -> None:
    """A key in the address or in storage that outlives the tab; a wrong key kept silently."""
    page = open_page(link(q=QUERY), base=locked)
    dialog = page.get_by_role("dialog", name="This server asks for a key")
    dialog.wait_for()
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.get_by_text("The server does not accept this key.").wait_for()
    page.fill("#key", "open sesame")
    page.keyboard.press("Enter")
    finished(page)
    assert len(ids(page, "teacher")) == 10
    assert not dialog.is_visible()
    assert "sesame" not in page.url
    assert page.evaluate("[Object.values(sessionStorage), localStorage.length]") == [
        ["open sesame"],
        0,
    ]
    page.reload()
    finished(page)
    page.goto(f"{locked}docs")
    page.locator(".endpoint").first.wait_for()
    other = open_page(base=locked)
    other.get_by_role("dialog").wait_for()
    other.locator("#key-cancel").click()
    assert "key" in other.locator("#notice").inner_text()
    other.get_by_role("button", name="Try again").click()
    other.get_by_role("dialog").wait_for()


def test_a_key_that_expires_is_asked_for_again(open_page: Open, url: str) -> None:
    """A page that must be loaded again when the server's keys change."""
    page = finished(open_page(link(q=QUERY)))
    body = json.dumps({"error": {"message": "Unknown API key."}})
    refused = lambda route: route.fulfill(status=401, body=body)
    page.route("**/search", refused)
    page.fill("#query", "lost phone")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.unroute("**/search", refused)
    page.fill("#key", "new")
    page.keyboard.press("Enter")
    finished(page)
    assert len(ids(page, "student")) == 10


def test_a_busy_server_is_named_and_can_be_asked_again(open_page: Open, url: str) -> None:
    """One full queue that hides the answers of the others."""
    page = open_page(ready=False)
    full = json.dumps({"error": {"message": "The queue is full."}})
    busy = True

    def answer_(route: Any) -> None:
        if busy and route.request.post_data_json["method"] == "bm25":
            route.fulfill(status=429, headers={"Retry-After": "3"}, body=full)
        else:
            route.continue_()

    page.route("**/search", answer_)
    page.goto(url + link(q=QUERY))
    column = page.locator("#column-bm25")
    column.get_by_text("The queue is full. Try again in 3 seconds.").wait_for()
    assert len(ids(page, "student")) == len(ids(page, "teacher")) == 10
    busy = False
    column.get_by_role("button", name="Try again").click()
    assert len(ids(page, "bm25")) == 10
    assert column.locator(".error").count() == 0


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (None, "The server does not answer. Is it still running?"),
        (
            {"status": 502, "body": "<html>Bad gateway</html>"},
            "answered with status 502",
        ),
        ({"status": 503, "body": "{}"}, "The server is not ready."),
        ({"status": 200, "body": "<html>"}, "The answer is not JSON."),
    ],
)
def test_a_server_that_is_gone_is_named(
    open_page: Open, url: str, reply: dict[str, Any] | None, message: str
) -> None:
    """A page that searches forever."""
    page = finished(open_page(link(q=QUERY)))
    answer_ = lambda route: route.fulfill(**reply) if reply else route.abort()
    page.route("**/search", answer_)
    page.fill("#query", "lost phone")
    page.keyboard.press("Enter")
    notice = page.locator("#notice")
    notice.get_by_text(message).wait_for()
    assert page.locator(".hit").count() == 0
    page.unroute("**/search", answer_)
    notice.get_by_role("button", name="Try again").click()
    finished(page)
    assert page.locator("#notice .error").count() == 0


def test_a_server_that_is_gone_at_the_start(open_page: Open, url: str) -> None:
    """An empty page."""
    page = open_page(ready=False)
    gone = lambda route: route.abort()
    page.route("**/indexes", gone)
    page.goto(url)
    page.get_by_text("The server does not answer.").wait_for()
    page.unroute("**/indexes", gone)
    page.get_by_role("button", name="Try again").click()
    page.locator(".welcome").wait_for()


def test_no_hit_is_said_and_filters_can_be_dropped(open_page: Open) -> None:
    """An empty column without a word."""
    page = finished(open_page(link(q="zzzz", where="year = 1900")))
    assert page.get_by_text("No document matches the query and the filters.").count() == 3
    page.get_by_role("link", name="Search without the filters").first.click()
    finished(page)
    assert len(ids(page, "student")) == 10
    assert (
        page.locator("#column-bm25 .empty").inner_text() == "No document matches. Try other words."
    )


def test_an_index_without_texts_shows_what_it_has(open_page: Open) -> None:
    """Columns that can only fail; a lack that nobody explains."""
    page = finished(open_page(link(q=QUERY, index="bare")), 1)
    assert page.locator("#systems").is_hidden()
    notes = page.locator(".notes").inner_text()
    assert "Start the server with --data COLLECTION" in notes
    assert "Start the server with --reranker TEACHER" in notes
    assert page.locator("#column-student .title").all_inner_texts() == ids(page, "student")
    page.select_option("#index", "notes")
    finished(page)
    assert page.locator(".notes").inner_text().strip() == ""


def test_an_unknown_index_is_named(open_page: Open) -> None:
    """A link to an index of another server that silently searches the default one."""
    page = open_page(link(q=QUERY, index="gone"))
    page.get_by_text("There is no index named gone here. Served: notes, bare.").wait_for()
    page.get_by_role("link", name="Search notes instead").click()
    finished(page)


def test_set_expressions_go_to_the_student(open_page: Open) -> None:
    """Operators that are searched for as words; marks on what was excluded."""
    page = open_page()
    bodies: list[Any] = []
    page.on("request", lambda r: r.post_data and bodies.append(json.loads(r.post_data)))
    page.check("#sets")
    assert "NOT children" in page.locator("#sets-help").inner_text()
    page.fill("#query", '"reset" AND password NOT router')
    page.keyboard.press("Enter")
    finished(page, 2)
    assert [(body["method"], body["sets"]) for body in bodies] == [("dense", True), ("bm25", True)]
    marks = {mark.lower() for mark in page.locator("mark").all_inner_texts()}
    assert "reset" in marks
    assert not marks & {"and", "not", "router"}
