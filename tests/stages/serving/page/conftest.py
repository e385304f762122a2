"""A server, a browser, and a window that notes every complaint and every request."""

from collections.abc import Iterator
from typing import Any

import pytest
from fakes.search_page import Open

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fakes.notes_server import serve


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Address of a server of the indexes `notes` and `bare`."""
    with serve() as address:
        yield address


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    """Address of a server whose key is `open sesame`."""
    with serve("open sesame") as address:
        yield address


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Open]:
    """Open an address in a window; at the end, nothing was complained of or asked elsewhere."""
    complaints: list[str] = []
    requests: list[str] = []
    contexts = []

    def opened(
        path: str = "", *, width: int = 1280, base: str = url, ready: bool = True, **options: Any
    ) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **options))
        contexts[-1].set_default_timeout(10_000)
        page = contexts[-1].new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        if ready:
            page.goto(base + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [asked for asked in requests if not asked.startswith("http://127.0.0.1:")] == []
    # A browser logs each answer that is an error by itself; some tests ask for them.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
