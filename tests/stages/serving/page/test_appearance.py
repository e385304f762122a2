"""Narrow and wide windows, light and dark, motion."""

import re

import pytest
from fakes.search_page import QUERY, Gate, Open, finished, link

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(open_page: Open, width: int) -> None:
    """A title or an id without spaces that pushes the text out of a phone."""
    sizes = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    page = open_page(width=width)
    page.locator(".welcome").wait_for()
    assert page.evaluate(sizes) == [width, width]
    page = finished(
        open_page(link(q="password router script", k=30, where="year > 0"), width=width)
    )
    page.click("#show-filters")
    for title in page.locator(".column.current .title").all():
        title.click()
    assert page.evaluate(sizes) == [width, width]
    docs = open_page("docs", width=width)
    docs.locator(".endpoint").first.wait_for()
    docs.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true; })")
    assert docs.evaluate(sizes) == [width, width]


def test_a_phone_shows_one_system_at_a_time(open_page: Open) -> None:
    """Three columns of two words each; tabs that only look like tabs."""
    page = finished(open_page(link(q=QUERY), width=360))
    tabs = page.get_by_role("tab")
    assert [tab.locator(".name").inner_text() for tab in tabs.all()] == [
        "Student",
        "BM25",
        "Teacher",
    ]
    assert all(re.search(r"\d m?s", tab.inner_text()) for tab in tabs.all())
    panels = page.locator("[role=tabpanel]:visible")
    assert [panel.get_attribute("data-system") for panel in panels.all()] == ["student"]
    tabs.nth(2).click()
    assert [panel.get_attribute("data-system") for panel in panels.all()] == ["teacher"]
    assert tabs.nth(2).get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowRight")
    assert [panel.get_attribute("data-system") for panel in panels.all()] == ["student"]
    assert page.evaluate("document.activeElement.id") == "tab-student"
    page.set_viewport_size({"width": 1280, "height": 800})
    assert page.locator(".column:visible").count() == 3
    assert page.locator("[role=tabpanel]").count() == 0


COLOURS = """
[...document.querySelectorAll('body *')].filter(node =>
  [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())
  && node.getClientRects().length && !node.closest('.hidden, .skip, option')
).map(node => {
  let ground = node;
  while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)')
    ground = ground.parentElement;
  return [node.tagName + ' ' + node.className + ' ' + node.textContent.slice(0, 30),
    getComputedStyle(node).color, getComputedStyle(ground || document.body).backgroundColor];
})
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_both_be_read(open_page: Open, scheme: str) -> None:
    """Grey on grey: contrast of text is at least 4.5 : 1 in both, as WCAG AA asks."""
    page = finished(open_page(link(q=QUERY, k=20, where="year > 0"), color_scheme=scheme))
    page.click("#show-filters")
    page.locator("#column-student .title").first.click()
    pairs = page.evaluate(COLOURS)
    welcome = open_page(color_scheme=scheme)
    welcome.locator(".welcome").wait_for()
    mistake = open_page(link(q=QUERY, where="x"), color_scheme=scheme)
    mistake.locator("#notice .error").wait_for()
    docs = open_page("docs", color_scheme=scheme)
    docs.locator(".endpoint").first.wait_for()
    pairs += [pair for each in (welcome, mistake, docs) for pair in each.evaluate(COLOURS)]
    assert len(pairs) > 300
    worst = min(pairs, key=lambda pair: contrast(pair[1], pair[2]))
    assert contrast(worst[1], worst[2]) >= 4.5, worst
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) > 0.5) == (scheme == "light")


def contrast(colour: str, ground: str) -> float:
    """Return WCAG's ratio of the luminances of two colours, `rgb(r, g, b)`."""
    high, low = sorted((luminance(colour), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    shares = [int(share) / 255 for share in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_nothing_moves_where_motion_is_unwelcome(open_page: Open, url: str) -> None:
    """A pulsing skeleton for who asked for none."""
    for motion, name in (("reduce", "none"), ("no-preference", "pulse")):
        page = open_page(ready=False, reduced_motion=motion)
        gate = Gate(page, lambda body: True)
        page.goto(url + link(q=QUERY))
        block = page.locator(".skeleton i").first
        block.wait_for()
        assert block.evaluate("node => getComputedStyle(node).animationName") == name
        gate.release()
