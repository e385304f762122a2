"""The query log in two parts: queries to train on, and queries to judge."""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from retrodistill.base.errors import ConfigError
from retrodistill.base.files import new_folder
from retrodistill.base.manifest import Manifest, digest, digest_file, digest_files
from retrodistill.base.types import Doc
from retrodistill.data.datasets.queries import read_queries
from retrodistill.stages.pipelines.distil.plan import Layout
from retrodistill.stages.pipelines.steps import Step

SHARE = 0.5
"""Largest share of a log that is put aside."""


def log_step(layout: Layout) -> list[Step]:
    """Return the step that puts a part of the log aside, if it is to be judged."""
    if not layout.judges_log:
        return []
    config = layout.config
    assert config.queries is not None
    file = Path(config.queries.partition(",")[0])
    return [
        Step(
            name="log",
            config={"queries": config.queries, "held_out": config.held_out, "seed": config.seed},
            inputs=lambda: {"queries": digest_file(file)},
            outputs={"artifact": layout.out / "log"},
            make=partial(
                split_log, config.queries, layout.out / "log", config.held_out, config.seed
            ),
        )
    ]


def split_log(queries: str, out: Path, held_out: int, seed: int) -> None:
    """Write train.jsonl and held-out.jsonl: `held_out` queries drawn at random, and the others.

    Raises:
        ConfigError: the log has too few queries.

    """
    log = read_queries(queries).queries
    count = min(held_out, int(SHARE * len(log)))
    if count < 2:
        raise ConfigError(f"{queries} has {len(log):,} queries: too few to put some aside.")
    drawn = set(np.random.default_rng(seed).permutation(len(log))[:count].tolist())
    with new_folder(out, overwrite=True) as folder:
        _write(folder / "train.jsonl", (log[n] for n in range(len(log)) if n not in drawn))
        _write(folder / "held-out.jsonl", (log[n] for n in sorted(drawn)))
        Manifest(
            kind="queries",
            fingerprint=digest_files(folder),
            inputs={"queries": digest(*(query.text for query in log))},
            details={"held_out": count, "train": len(log) - count},
        ).write(folder)


def _write(path: Path, queries: Iterable[Doc] | Sequence[Doc]) -> None:
    lines = (json.dumps({"_id": query.id, "text": query.text}) for query in queries)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
