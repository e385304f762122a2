"""The OpenAPI document of the application: as FastAPI makes it, but true."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

KEYLESS = ("/healthz", "/readyz")

SCHEME = {"type": "http", "scheme": "bearer"}


def document(app: FastAPI, *, keys: bool) -> dict[str, Any]:
    """Return the document: FastAPI's 422 is 400 here, and keys are asked for where they are set."""
    content = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = content.setdefault("components", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    for path, methods in content["paths"].items():
        for name, operation in methods.items():
            operation["responses"].pop("422", None)
            changing = path == "/reload" or name in ("put", "delete")
            if changing or (keys and path not in KEYLESS):
                operation["security"] = [{"key": []}]
    components["securitySchemes"] = {"key": SCHEME}
    return content
