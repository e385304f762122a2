"""What tests of the search page do in a browser: open links, wait for answers, read the hits."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

Open = Callable[..., Any]
"""The fixture `open_page`."""

QUERY = "how do I reset my password"


def link(**fields: Any) -> str:
    return "#" + urlencode(fields)


def answer(url: str, **body: Any) -> Any:
    """Return what the API says, without the page."""
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(f"{url}search", json.dumps(body).encode(), headers)) as response:
        return json.load(response)


def hits(page: Any, system: str) -> Any:
    return page.locator(f"#column-{system} .hit")


def ids(page: Any, system: str) -> list[str]:
    hits(page, system).first.wait_for()
    return [hit.get_attribute("data-id") for hit in hits(page, system).all()]


def finished(page: Any, number: int = 3) -> Any:
    page.locator(f".columns:not(:has(.column:nth-child({number + 1})))").wait_for()
    page.locator(f".column:nth-child({number})").wait_for(state="attached")
    page.wait_for_function("() => !document.querySelector('.column:not([aria-busy=false])')")
    return page


def focused(page: Any) -> Any:
    """Return the document and the column of the hit that has the focus."""
    return page.evaluate(
        "[document.activeElement.closest('.hit')?.dataset.id, "
        "document.activeElement.closest('.column')?.dataset.system]"
    )


class Gate:
    """Holds the answers of requests until they are let through."""

    def __init__(self, page: Any, holds: Callable[[Any], bool]) -> None:
        self.waiting: list[tuple[Any, Any]] = []
        self.holds = holds
        page.route("**/search", self._take)

    def _take(self, route: Any) -> None:
        body = route.request.post_data_json
        if not self.holds(body):
            route.continue_()
            return
        self.waiting.append((route, body))

    def release(self) -> None:
        for route, _ in self.waiting:
            route.continue_()
        self.waiting = []
