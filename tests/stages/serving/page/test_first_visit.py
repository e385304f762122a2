"""The first visit, command lines, and the API's page."""

import json
import re
import shutil
import subprocess
from typing import Any
from urllib.request import urlopen

import pytest
from fakes.notes_server import EXAMPLES, NOTES
from fakes.search_page import Open, answer, finished, ids

pytestmark = pytest.mark.slow


def run_in_shell(line: str) -> Any:
    if shutil.which("curl") is None:
        pytest.skip("no program `curl` on the PATH")
    done = subprocess.run(
        ["sh", "-c", line.replace("curl ", "curl -sS ", 1)], capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_a_first_visit_shows_what_is_served(open_page: Open, url: str) -> None:
    """An empty field and no idea what to type; a curl line that does not run."""
    page = open_page()
    page.locator(".welcome").wait_for()
    text = page.locator("main").inner_text()
    assert f"Search {len(NOTES)} documents" in text
    with urlopen(f"{url}indexes") as response:
        models = {index["model"] for index in json.load(response)["indexes"]}
    assert models
    assert all(model in text for model in models)
    assert page.evaluate("document.activeElement.id") == "query"
    line = page.locator(".welcome pre").inner_text()
    first = answer(url, query=EXAMPLES[0], index="notes", k=5)
    assert [hit["id"] for hit in run_in_shell(line)["hits"]] == [h["id"] for h in first["hits"]]
    page.get_by_role("link", name=EXAMPLES[1]).click()
    finished(page)
    assert page.locator("#query").input_value() == EXAMPLES[1]


def test_a_search_is_copied_as_link_and_command(open_page: Open) -> None:
    """A command that a quote in the query breaks, or worse, continues."""
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    query = "it's \"$HOME\" `id` \\ 'x'; echo"
    page.fill("#query", query)
    page.keyboard.press("Enter")
    finished(page)
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    page.get_by_role("button", name="Copy as curl").click()
    page.wait_for_function("() => [...document.querySelectorAll('button')]"
                           ".filter(b => b.textContent === 'Copied').length === 2")  # fmt: skip
    line = page.evaluate("navigator.clipboard.readText()")
    assert json.loads(subprocess.run(
        ["sh", "-c", line.replace("curl ", "printf '%s\\0' ", 1)], capture_output=True, check=True
    ).stdout.split(b"\0")[-2])["query"] == query  # fmt: skip
    assert [hit["id"] for hit in run_in_shell(line)["hits"]] == ids(page, "student")


def test_the_api_page_shows_every_endpoint(open_page: Open, url: str) -> None:
    """An endpoint, a parameter or a default that the page forgets."""
    page = open_page("docs")
    page.locator(".endpoint").first.wait_for()
    with urlopen(f"{url}openapi.json") as response:
        spec = json.load(response)
    expected = {f"{m.upper()} {path}" for path, item in spec["paths"].items() for m in item}
    heads = [head.inner_text().split() for head in page.locator(".endpoint > h2").all()]
    assert {" ".join(head) for head in heads} == expected
    search = page.locator("#post-search")
    text = search.inner_text()
    for name, schema in spec["components"]["schemas"]["SearchRequest"]["properties"].items():
        assert re.search(rf"^{name}\b", text, re.MULTILINE)
        assert schema.get("description", "").split("`")[0].strip() in text
    assert "at most 1000" in text
    for name in spec["components"]["schemas"]["SearchRequest"].get("required", []):
        assert f"{name} required" in text
    assert run_in_shell(search.locator("pre").first.inner_text())["hits"]
    page.get_by_role("link", name="GET /similar/{id}").click()
    assert page.url.endswith("docs#get-similar-id")
    assert page.locator("#get-similar-id").evaluate("n => n.getBoundingClientRect().top") < 400
