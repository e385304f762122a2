"""The page's files as they are served: what a browser is told about them, and what they contain."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed")

from retrodistill.stages.serving.page import FILES, HEADERS, MEDIA_TYPES, is_current, page_routes

ROOT = Path(__file__).parents[3]
SOURCES = sorted(FILES.iterdir())
SCRIPTS = [path for path in SOURCES if path.suffix == ".js"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    from fakes.notes_server import running
    from starlette.applications import Starlette

    with running(Starlette(routes=page_routes())) as address:
        yield address


def fetch(address: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request("GET", parts.path, headers=headers)
    response = connection.getresponse()
    fetched = response.read()
    connection.close()
    return response.status, {name.lower(): v for name, v in response.getheaders()}, fetched


@pytest.mark.parametrize("path", ["", "docs", *(f"page/{path.name}" for path in SOURCES)])
def test_every_file_has_its_type_and_policy(url: str, path: str) -> None:
    """A script as text/plain, which nosniff stops; a file that a policy does not cover."""
    status, headers, content = fetch(url + path)
    name = {"": "index.html", "docs": "docs.html"}.get(path, path.removeprefix("page/"))
    assert status == 200
    assert content == (FILES / name).read_bytes()
    assert headers["content-type"] == MEDIA_TYPES[Path(name).suffix]
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= headers.items()


def test_an_unchanged_file_is_not_sent_again(url: str) -> None:
    """A cache that shows yesterday's page after an update, or a page that is sent each time."""
    _, headers, _ = fetch(f"{url}page/page.js")
    assert headers["cache-control"] == "no-cache"
    for tag in (headers["etag"], f"W/{headers['etag']}", f'"other", {headers["etag"]}', "*"):
        status, again, content = fetch(f"{url}page/page.js", **{"If-None-Match": tag})
        assert (status, content, again["etag"]) == (304, b"", headers["etag"])
    assert fetch(f"{url}page/page.js", **{"If-None-Match": '"other"'})[0] == 200
    assert not is_current("", headers["etag"])


@pytest.mark.parametrize(
    "path", ["page/", "page/page.py", "page/..%2fpage.py", "page/%2e%2e/page.py"]
)
def test_no_other_file_is_served(url: str, path: str) -> None:
    """A path that leads out of the folder."""
    assert fetch(url + path)[0] == 404


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_files_name_only_files_that_exist_and_no_other_host(path: Path) -> None:
    """A font or a script of another host; an import of a file that was renamed."""
    text = path.read_text(encoding="utf-8")
    hosts = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"http://www\.w3\.org", "", text)))
    assert hosts == set()
    loaded = re.findall(r"""from '\./([^']+)'|(?:src|href)="page/([^"]+)\"""", text)
    assert {one or other for one, other in loaded} <= {source.name for source in SOURCES}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_parse_html(path: Path) -> None:
    """A title that becomes markup, in a browser without trusted types."""
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function"
    )
    assert re.findall(forbidden, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", ["index.html", "docs.html"])
def test_pages_have_no_inline_code(name: str) -> None:
    """A handler or a style that the policy would stop."""
    text = (FILES / name).read_text(encoding="utf-8")
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", text) == []


@pytest.mark.slow
def test_the_wheel_has_every_file(tmp_path: Path) -> None:
    """An installed server whose page is a 404."""
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    wheel = next(builder.WheelBuilder(str(ROOT)).build(directory=str(tmp_path)))
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"retrodistill/stages/serving/page/{path.name}" for path in SOURCES} <= names
