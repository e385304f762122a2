"""The search page and the API's page as routes: no inline code, nothing from another host.

    app = Starlette(routes=page_routes())

`page` holds the files, which are served as they are: HTML, CSS and JavaScript modules without a
build step. The page shows what documents contain by text nodes only; the policy below makes the
browser enforce that.
"""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

FILES = Path(__file__).parent / "page"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PAGES = {"/": "index.html", "/docs": "docs.html"}
"""Path -> file that has an address of its own; the files that they load are at /page/NAME."""

POLICY = (
    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content-Security-Policy: scripts and styles of this server only, and no HTML made of strings."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Headers of every file; `no-cache` asks again each time, and the ETag makes that answer short."""


def page_routes() -> "list[Route]":
    """Return the routes of `/`, `/docs` and `/page/NAME`, which need no key.

    The files are read once, so a running server serves one version of them.
    """
    from starlette.routing import Route

    routes = [Route(path, _endpoint(FILES / name)) for path, name in PAGES.items()]
    assets = sorted(path for path in FILES.iterdir() if path.suffix in MEDIA_TYPES)
    return routes + [Route(f"/page/{path.name}", _endpoint(path)) for path in assets]


def _endpoint(path: Path) -> "Callable[[Request], Awaitable[Response]]":
    """Return an endpoint that answers with a file, or with 304 to a client that has it."""
    from starlette.responses import Response

    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}
    media_type = MEDIA_TYPES[path.suffix]

    async def respond(request: "Request") -> Response:
        if is_current(request.headers.get("If-None-Match", ""), tag):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return respond


def is_current(condition: str, tag: str) -> bool:
    """Return whether a header `If-None-Match` holds a file's tag; proxies may have weakened it."""
    tags = {entry.strip().removeprefix("W/") for entry in condition.split(",")}
    return tag in tags or "*" in tags
