"""Models with a side for queries and one for documents: prompts, limits, batches, two towers."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.models.inference import (
    body_dtype,
    model_digest,
    module_digest,
    positions,
    reserved,
    run_model,
    token_batches,
)

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Side = Literal["query", "document"]
"""Role of a text in a search; a model may treat the two differently."""

SIDES: tuple[Side, ...] = ("query", "document")

LIMITS = ("query_length", "document_length")
"""Settings of a transformer that limit one side's tokens."""

WINDOW = 2048
"""Texts that are tokenised, and sorted by length, at a time."""


def side_modules(model: Any, side: Side) -> list[Any]:
    """Return the modules that a text of a side runs through, in order.

    Raises:
        ConfigError: a Router of the model has no route for this side.

    """
    from sentence_transformers.base.modules import Router

    modules: list[Any] = []
    for module in model:
        modules += _chosen(module, side) if isinstance(module, Router) else [module]
    return modules


def side_length(model: Any, side: Side) -> int | None:
    """Return the token limit that a model sets for one side alone, if it does."""
    name = "query_length" if side == "query" else "document_length"
    return getattr(side_modules(model, side)[0], name, None)


def embedding_dimension(modules: list[Any]) -> int:
    """Return the dimension of what comes out of modules in order; 0 if none of them declares it."""
    sized = [module for module in modules if hasattr(module, "get_embedding_dimension")]
    return int(sized[-1].get_embedding_dimension() or 0) if sized else 0


def is_normalised(model: Any, *sides: Side) -> bool:
    """Tell whether the vectors of these sides, by default of both, have length 1."""
    from sentence_transformers.base.modules import Normalize

    return all(isinstance(side_modules(model, side)[-1], Normalize) for side in sides or SIDES)


def side_prompts(model: "SentenceTransformer") -> tuple[str, str]:
    """Return the prompts of queries and of documents, as the model's library chooses them."""
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name or "", "")
    names = ("document", "passage", "corpus")
    doc = next((prompts[name] for name in names if name in prompts), default)
    return prompts.get("query", default) or "", doc or ""


def fingerprint(model: "SentenceTransformer | CrossEncoder") -> str:
    """Return a hash of a model's weights, its modules' settings and its tokenizer.

    It does not depend on the folder or the device.
    """
    from sentence_transformers.base.modules import Transformer

    whole = model_digest(repr(model), _config(model), model.tokenizer, model)
    bodies = [body for body in model.modules() if isinstance(body, Transformer)]
    if len(bodies) < 2:
        return whole
    return digest(
        whole, *(model_digest(repr(body), body.config, body.tokenizer, body) for body in bodies)
    )


def side_fingerprint(model: Any, side: Side) -> str:
    """Return a hash of what a side's texts run through: weights, settings and tokenizers.

    It is that of a plain model for a Router whose route is a copy of it, in memory or loaded
    again. Prompts, token limits and the number type are not in it.
    """
    from sentence_transformers.base.modules import Transformer

    digests = []
    for module in side_modules(model, side):
        if not isinstance(module, Transformer):
            digests.append(module_digest(repr(module), module))
            continue
        settings = module.get_config_dict()
        shaping = {name: settings[name] for name in settings if name not in LIMITS}
        structure = f"{type(module.model).__name__} {shaping}"
        with reserved(module.tokenizer):
            digests.append(model_digest(structure, module.config, module.tokenizer, module))
    return digest(*digests)


def two_towers(
    query_model: "SentenceTransformer", doc_model: "SentenceTransformer"
) -> "SentenceTransformer":
    """Return one model that reads queries as the first model does, and documents as the second.

    It is a Router of sentence-transformers with the routes `query` and `document`, whose weights
    are copies: the towers share none, even if the two models are the same. Each keeps its prompt
    and its token limit. A text without a side is read as a document.

    Raises:
        ConfigError: their vectors differ in dimension.

    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    sides = [side_modules(query_model, "query"), side_modules(doc_model, "document")]
    sizes = [
        (model.get_embedding_dimension(), embedding_dimension(side))
        for model, side in zip((query_model, doc_model), sides, strict=True)
    ]
    if sizes[0] != sizes[1]:
        shown = ["{} dimensions (of {})".format(*size) for size in sizes]
        raise ConfigError(
            f"queries would have {shown[0]} and documents {shown[1]}, but they are compared with "
            "each other. Take two models of one dimension."
        )
    query, doc = (copy.deepcopy(side) for side in sides)
    return SentenceTransformer(
        modules=[Router.for_query_document(query, doc)],
        prompts={"query": side_prompts(query_model)[0], "document": side_prompts(doc_model)[1]},
        similarity_fn_name=doc_model.similarity_fn_name,
        truncate_dim=doc_model.truncate_dim,
        device=str(doc_model.device),
    )


def tower_bytes(folder: Path) -> dict[str, int] | None:
    """Return the bytes of the weights that a query and a document are read with, from a folder.

    None where the folder has no two towers: either is read with all of it. Modules that the
    towers share count in both.
    """

    def weights(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))

    for path in Path(folder).rglob("router_config.json"):
        routes = json.loads(path.read_text(encoding="utf-8"))["structure"]
        if not {*SIDES} <= routes.keys():
            return None
        modules = {module for names in routes.values() for module in names}
        sizes = {module: weights(path.parent / module) for module in modules}
        shared = weights(Path(folder)) - sum(sizes.values())
        return {side: shared + sum(sizes[module] for module in routes[side]) for side in SIDES}
    return None


class Towers:
    """An encoder whose outputs are the library's own, batch by batch, a side at a time.

    Texts get their side's prompt, are tokenised, expanded and masked by the library itself, as in
    its `encode_query` and `encode_document`. The transformer runs in `precision`, what follows it
    in float32. `max_tokens` cuts the end of longer documents, in tokens with the special ones, if
    that is less than the model's own limit; queries are cut at the model's own limit only.
    `swap` may replace a side's modules by faster ones that give the same. `settings` go to the
    modules that take them.

    Threads may encode at the same time.
    """

    fingerprint: str
    """Hash of the weights, the modules' settings, tokenizer, prompts, limits and number type."""

    def __init__(
        self,
        model: Any,
        *,
        max_tokens: int | None = None,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
        swap: Callable[[list[Any]], list[Any]] = lambda modules: modules,
        **settings: Any,
    ) -> None:
        self.model = model.eval()
        self._swap = swap
        self.dtype = body_dtype(precision, model.device)
        self.batch_tokens = batch_tokens
        self.doc_tokens = _doc_limit(side_modules(model, "document")[0], max_tokens)
        self._settings = settings
        modules = [module for module in model.modules() if hasattr(module, "config_keys")]
        shaping = [module.get_config_dict() for module in modules]
        shaping += [
            dict(zip(SIDES, side_prompts(model), strict=True)),
            self.doc_tokens,
            self.dtype,
            settings,
        ]
        self.fingerprint = digest(fingerprint(model), repr(shaping))

    def outputs(
        self, texts: Sequence[str], side: Side
    ) -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
        """Yield positions of texts and the model's outputs for them, longest texts first.

        A batch has at most `batch_tokens` padded tokens (a longer text is a batch of its own).
        """
        import torch

        limit = self.doc_tokens if side == "document" else None
        modules = self._swap(side_modules(self.model, side))
        for start in range(0, len(texts), WINDOW):
            window = texts[start : start + WINDOW]
            batches = side_batches(
                self.model, window, side, max_tokens=limit, batch_tokens=self.batch_tokens
            )
            for rows, features in batches:
                moved = {
                    name: value.to(self.model.device) if torch.is_tensor(value) else value
                    for name, value in features.items()
                }
                with torch.inference_mode():
                    outputs = run_model(modules, moved, self.dtype, task=side, **self._settings)
                yield start + rows, outputs


def side_batches(
    model: Any, texts: Sequence[str], side: Side, *, max_tokens: int | None, batch_tokens: int
) -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
    """Yield positions of texts and their padded features, longest texts first.

    The library itself adds the side's prompt, tokenises, cuts and expands the texts. `max_tokens`
    counts special tokens too (default: the model's own limit).
    """
    import torch

    prompt = side_prompts(model)[SIDES.index(side)] or None
    limit = {} if max_tokens is None else {"max_length": max_tokens}
    with reserved(side_modules(model, side)[0].tokenizer):
        features = model.preprocess(list(texts), prompt=prompt, task=side, **limit)
    # Which tokens are read, (texts, tokens).
    read = features["attention_mask"].bool()
    if "query_expansion_positions" in features:
        read = read | features["query_expansion_positions"]
    for rows in token_batches(read.sum(1).numpy(), batch_tokens):
        chosen = torch.from_numpy(rows)
        columns = read[chosen].any(0)
        yield (
            rows,
            {
                name: value[chosen][:, columns] if torch.is_tensor(value) else value
                for name, value in features.items()
            },
        )


def _chosen(router: Any, side: Side) -> Any:
    """Return the modules of a Router's route, chosen as its library does for text."""
    routes = router.route_mappings
    keys = ((side, "text"), (side, None), (None, "text"), (None, None))
    names = [routes[key] for key in keys if key in routes] + [side, "text"]
    for name in names:
        if name in router.sub_modules:
            return router.sub_modules[name]
    raise ConfigError(
        f"this model has routes for {', '.join(router.sub_modules)}, but none for a {side}. "
        "Give a model with the routes query and document."
    )


def _doc_limit(body: Any, max_tokens: int | None) -> int:
    """Return the lowest of the requested limit and those of the model, in tokens."""
    limits = (
        max_tokens,
        getattr(body, "document_length", None) or getattr(body, "max_seq_length", None),
        positions(body.model) if hasattr(body, "model") else None,
    )
    return min(limit for limit in limits if limit)


def _config(model: "SentenceTransformer | CrossEncoder") -> Any:
    """Return the settings of the transformer in a model."""
    assert model.transformers_model is not None
    return model.transformers_model.config
