"""`builtin:pydocs`: a collection that comes with every installation, for a first try.

`builtin:pydocs` has about 2,500 documents from the standard library, numpy, scipy, scikit-learn,
networkx and pandas; `builtin:pydocs-full` has all documented functions of all supported packages.
The content depends on the installed versions, and so does the fingerprint. Documents have the
attributes `package` and `module`.
"""

import platform
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version

from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import pydocs
from retrodistill.data.datasets.cache import cached_texts
from retrodistill.data.datasets.collection import Collection
from retrodistill.data.datasets.texts import Texts, TextSource
from retrodistill.data.qrels import Judgements

NAMES = ("pydocs", "pydocs-full")
SPLITS = ("train", "dev", "test")
DISTRIBUTIONS = {"sklearn": "scikit-learn"}
"""Package -> name of its distribution, where they differ."""

EDITION = "1"
"""Part of the cache key: raise it when `pydocs` extracts other pairs from the same source."""


def load(name: str) -> Collection:
    """Return a built-in collection.

    Raises:
        ConfigError: the name is unknown.

    """
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean builtin:{near[0]}?" if near else ""
        raise ConfigError(f"unknown builtin:{name}.{hint} Known: {', '.join(NAMES)}.")

    @cache
    def found() -> list[pydocs.Pair]:
        return list(pydocs.pairs(cut=name == "pydocs"))

    docs, queries = cached_texts(
        name,
        docs=TextSource(
            lambda: (pair.doc for pair in found()),
            lambda row: found()[row].doc.id,
            lambda: ((pair.doc.id, pair.attributes) for pair in found()),
        ),
        queries=TextSource(
            lambda: (pair.query for pair in found()), lambda row: found()[row].query.id
        ),
        key=["builtin", name, EDITION, platform.python_version(), *_versions()],
    )
    return Collection(
        name,
        docs=docs,
        queries=queries,
        judgements={split: partial(_judgements, queries, split) for split in SPLITS},
    )


def _judgements(queries: Texts, split: str) -> Judgements:
    """Return the judgements of a split; a query's id contains that of its one document."""
    docs = (id.removeprefix("q:") for id in queries.ids())
    return {f"q:{doc}": {doc: 1} for doc in docs if pydocs.split(doc) == split}


def _versions() -> Iterator[str]:
    """Yield the version of each installed package that documents are taken from."""
    for package in pydocs.PACKAGES:
        try:
            yield f"{package} {version(DISTRIBUTIONS.get(package, package))}"
        except PackageNotFoundError:
            continue
