"""The query log in two parts: queries to train on, and queries to judge."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from retrodistill.base.errors import ConfigError
from retrodistill.base.files import new_folder
from retrodistill.base.manifest import Manifest, digest, digest_file, digest_files
from retrodistill.base.types import Doc
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.datasets.options import path_options
from retrodistill.data.datasets.queries import OPTIONS, read_queries
from retrodistill.stages.pipelines.distil.layout import Layout
from retrodistill.stages.pipelines.steps import Step

SHARE = 0.5
"""Largest share of a log that is put aside."""


def log_step(layout: Layout) -> list[Step]:
    """Return the step that puts a part of the log aside, if it is to be judged."""
    if not layout.judges_log:
        return []
    config = layout.config
    assert config.queries is not None
    file, _ = path_options(config.queries, OPTIONS, where=f"--queries {config.queries}")
    settings: dict[str, Any] = {
        "queries": config.queries,
        "held_out": config.held_out,
        "seed": config.seed,
    }

    def collection() -> Collection:
        return load_collection(config.data)

    return [
        Step(
            name="log",
            config=settings,
            inputs=lambda: {"queries": digest_file(file), "collection": collection().fingerprint},
            outputs={"artifact": layout.out / "log"},
            make=lambda: split_log(collection(), out=layout.out / "log", **settings),
        )
    ]


def split_log(collection: Collection, *, queries: str, out: Path, held_out: int, seed: int) -> None:
    """Write train.jsonl and held-out.jsonl: `held_out` queries drawn at random, and the others.

    Queries of one text, under several ids or in other case, stay together, and those that the
    collection has, perhaps with labels to train on, are not put aside.

    Raises:
        ConfigError: the log has too few queries.

    """
    log = read_queries(queries).queries
    texts = [_folded(query) for query in log]
    own = {_folded(query) for query in collection.queries}
    new = [text for text in dict.fromkeys(texts) if text not in own]
    count = min(held_out, int(SHARE * len(new)))
    if count < 2:
        raise ConfigError(
            f"{queries} has {len(new):,} queries that the collection has not: too few to put some "
            "aside."
        )
    drawn = {new[n] for n in np.random.default_rng(seed).permutation(len(new))[:count]}
    aside: dict[str, Doc] = {}
    for query, text in zip(log, texts, strict=True):
        if text in drawn:
            aside.setdefault(text, query)
    train = [query for query, text in zip(log, texts, strict=True) if text not in drawn]
    with new_folder(out, overwrite=True) as folder:
        _write(folder / "train.jsonl", train)
        _write(folder / "held-out.jsonl", aside.values())
        Manifest(
            kind="queries",
            fingerprint=digest_files(folder),
            inputs={"queries": digest(*(query.text for query in log))},
            details={"held_out": count, "train": len(train)},
        ).write(folder)


def _folded(query: Doc) -> str:
    """Return the text of a query as it is compared: without case and more than single blanks."""
    return " ".join(query.full_text.casefold().split())


def _write(path: Path, queries: Iterable[Doc]) -> None:
    lines = (json.dumps({"_id": query.id, "text": query.text}) for query in queries)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
