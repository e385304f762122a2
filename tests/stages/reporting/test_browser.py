"""The page in a browser: what only a browser can tell."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fakes.reports import save_inputs, words

from retrodistill.report import main

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = save_inputs(tmp_path_factory.mktemp("inputs"))
    assert main(words(folder, folder / "out")) == 0
    return (folder / "out" / "report.html").as_uri()


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[Open]:
    """Open the page in a window; at the end, nothing was asked of a network or complained of."""
    requests: list[str] = []
    complaints: list[str] = []
    contexts = []

    def opened(width: int = 1200, scheme: str = "light") -> Any:
        size = {"width": width, "height": 800}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [asked for asked in requests if asked != url and not asked.startswith("data:")] == []
    assert complaints == []


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_the_page_never_scrolls_sideways(open_page: Open, width: int) -> None:
    """A table that pushes the text out of a phone, whether its parts are open or closed."""
    page = open_page(width)
    sizes = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    assert page.evaluate(sizes) == [width, width]
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate(sizes) == [width, width]
    boxes = page.evaluate("[...document.querySelectorAll('.box')].map(box => box.clientWidth)")
    assert max(boxes) <= width


def test_a_click_sorts_by_number_and_says_so(open_page: Open) -> None:
    """Headings that do nothing, or sort -0.5 above 0.25."""
    page = open_page()
    table = page.locator("#deltas table")
    for column in range(table.locator("thead th").count()):
        head = table.locator("thead th").nth(column)
        for order in ("descending", "ascending") if column else ("ascending", "descending"):
            head.locator("button").click()
            assert head.get_attribute("aria-sort") == order
            cells = table.locator(f"tbody tr > :nth-child({column + 1})")
            values = [cell.get_attribute("data-value") for cell in cells.all()]
            shown = [float(v) for v in values] if column else cells.all_inner_texts()
            assert shown == sorted(shown, reverse=order == "descending")
    assert table.locator("[aria-sort=none]").count() == table.locator("thead th").count() - 1


def test_queries_open_and_close_together(open_page: Open) -> None:
    """A button that does nothing."""
    page = open_page()
    button = page.locator("button.all")
    for state, name in ((3, "Close all"), (0, "Open all")):
        button.click()
        assert page.locator("#queries details[open]").count() == state
        assert button.inner_text() == name


def test_light_and_dark_can_both_be_read(open_page: Open) -> None:
    """White text on white: contrast of text is at least 4.5 : 1 in both, as WCAG AA asks."""
    grounds = []
    for scheme in ("light", "dark"):
        page = open_page(scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        pairs = page.evaluate(COLOURS)
        assert len(pairs) > 100
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        worst = min(pairs, key=lambda pair: _contrast(pair[1], pair[2]))
        assert _contrast(worst[1], worst[2]) >= 4.5, (scheme, worst)
    assert grounds[0] != grounds[1]


def test_the_keyboard_reaches_tables_and_sorts_them(open_page: Open) -> None:
    """A page for the mouse only."""
    page = open_page()
    page.locator("#systems thead button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#systems thead th").nth(1).get_attribute("aria-sort") == "descending"
    names = page.evaluate(
        "[...document.querySelectorAll('[role=region]')].map(one => one.getAttribute('aria-label'))"
    )
    assert all(names)


def test_a_printed_page_is_light(browser: Any, open_page: Open) -> None:
    """A dark page that empties a cartridge."""
    page = open_page(scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"


COLOURS = """
[...document.querySelectorAll('body *')].filter(one =>
  [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim())
  && one.getClientRects().length
  && !['SCRIPT', 'title'].includes(one.tagName)
).map(one => {
  let ground = one;
  while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)')
    ground = ground.parentElement;
  const style = getComputedStyle(one);
  const colour = one instanceof SVGElement ? style.fill : style.color;
  return [one.tagName + ' ' + one.textContent.slice(0, 30), colour,
    getComputedStyle(ground || document.body).backgroundColor];
})
"""


def _contrast(one: str, other: str) -> float:
    """Return WCAG's ratio of the luminances of two colours, `rgb(r, g, b)`."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
