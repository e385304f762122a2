"""The ways of queries and documents through a model: one for both, or two of a Router."""

from typing import Any, Literal

from retrodistill.base.errors import ConfigError

Side = Literal["query", "document"]
"""A text's part in a search, which a model may treat differently."""

SIDES: tuple[Side, ...] = ("query", "document")


def side_modules(model: Any, side: Side) -> list[Any]:
    """Return the modules that a text of a side passes, in order.

    Raises:
        ConfigError: a Router of the model has no route for this side.

    """
    from sentence_transformers.base.modules import Router

    modules: list[Any] = []
    for part in model:
        modules += _chosen(part, side) if isinstance(part, Router) else [part]
    return modules


def side_length(model: Any, side: Side) -> int | None:
    """Return the longest text of a side that a model sets for it alone, in tokens, if it does."""
    name = "query_length" if side == "query" else "document_length"
    return getattr(side_modules(model, side)[0], name, None)


def embedding_dimension(modules: list[Any]) -> int:
    """Return how many numbers come out of modules in order; 0 if none of them says."""
    named = [part for part in modules if hasattr(part, "get_embedding_dimension")]
    return int(named[-1].get_embedding_dimension() or 0) if named else 0


def _chosen(router: Any, side: Side) -> Any:
    """Return a side's modules of a Router, chosen as its library does for text."""
    mapped = router.route_mappings
    keys = ((side, "text"), (side, None), (None, "text"), (None, None))
    names = [mapped[key] for key in keys if key in mapped] + [side, "text"]
    for name in names:
        if name in router.sub_modules:
            return router.sub_modules[name]
    raise ConfigError(
        f"this model has routes for {', '.join(router.sub_modules)}, but none for a {side}. "
        "Give a model with the routes query and document."
    )


def is_normalised(model: Any) -> bool:
    """Tell whether the vectors of both sides have length 1."""
    from sentence_transformers.base.modules import Normalize

    return all(isinstance(side_modules(model, side)[-1], Normalize) for side in SIDES)
