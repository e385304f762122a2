"""The gate: an exported graph beside the float32 model in PyTorch, on the same texts in turns."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import EvaluationSettings, ExportConfig, MineSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import Qrels
from retrodistill.data.store.runs import Run
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.teachers.cross_encoder import CrossEncoderTeacher
from retrodistill.stages.evaluation import Evaluation, evaluate_runs
from retrodistill.stages.evaluation.efficiency import files_bytes
from retrodistill.stages.exporting.graphs import FILES

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

COLUMNS = ("", "PyTorch float32", "exported", "difference", "limit")
METRIC = "ndcg@10"
TOP = 10
PAIRS = 20
"""Documents of BM25 that a cross-encoder reranks for a query, with the relevant ones."""
BLOCK = 128
"""Texts that one model encodes before it is the other's turn; fewer, down to SMALLEST, where there
would be less than TURNS turns."""
TURNS = 5
SMALLEST = 16
SINGLE = 40
"""Queries that are encoded one by one, for the time of a single one."""

TORCH, EXPORTED = "PyTorch", "exported"
Item = TypeVar("Item")
Values = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a graph keeps of a model, and what it gains."""

    queries: int
    texts: int
    """Documents encoded, or pairs scored."""
    noun: str
    likeness: str
    """`cosine` of vectors, or `r` of scores."""
    mean_cosine: float
    min_cosine: float
    """Over texts; of scores, where there is one r, the same as the mean."""
    ndcg: Mapping[str, float]
    p: float
    """Of the paired t test between the two."""
    per_second: Mapping[str, float]
    speedup: float
    """Median over blocks of texts of how many times as fast the graph is."""
    single_ms: Mapping[str, float]
    bytes: Mapping[str, int]
    limits: Mapping[str, float]

    @property
    def loss(self) -> float:
        """Return the nDCG@10 that is lost; negative where it is gained."""
        return self.ndcg[TORCH] - self.ndcg[EXPORTED]

    @property
    def failures(self) -> list[str]:
        """Return a sentence for each limit that is not met; NaN meets none."""
        least, most, speed = (self.limits[name] for name in ("cosine", "loss", "speedup"))
        failures = []
        if not self.min_cosine >= least:
            failures.append(
                f"the lowest {self.likeness} is {self.min_cosine:.5f}, below {least:g} "
                "(--min-cosine)."
            )
        if not self.loss <= most:
            failures.append(
                f"nDCG@10 falls by {self.loss:.4f}, by more than {most:g} (--max-loss)."
            )
        if not self.speedup >= speed:
            failures.append(
                f"it is {self.speedup:.2f} times as fast, below {speed:g} (--min-speedup)."
            )
        return failures

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return the table below COLUMNS."""
        rates, single, sizes = self.per_second, self.single_ms, self.bytes
        scores = self.likeness == "r"
        return [
            (
                "r of the scores" if scores else "lowest cosine",
                "1",
                f"{self.min_cosine:.5f}",
                "" if scores else f"mean {self.mean_cosine:.5f}",
                f"at least {self.limits['cosine']:g}",
            ),
            (
                "nDCG@10",
                f"{self.ndcg[TORCH]:.4f}",
                f"{self.ndcg[EXPORTED]:.4f}",
                f"{-self.loss:+.4f} (p {self.p:.2g})",
                f"loss at most {self.limits['loss']:g}",
            ),
            (
                f"{self.noun}/s",
                f"{rates[TORCH]:,.1f}",
                f"{rates[EXPORTED]:,.1f}",
                f"{self.speedup:.2f} times",
                f"at least {self.limits['speedup']:g}",
            ),
            (
                f"ms for one {'pair' if scores else 'query'}",
                f"{single[TORCH]:.1f}",
                f"{single[EXPORTED]:.1f}",
                f"{single[TORCH] / single[EXPORTED]:.2f} times",
                "",
            ),
            (
                "MB",
                f"{sizes[TORCH] / 1e6:.1f}",
                f"{sizes[EXPORTED] / 1e6:.1f}",
                f"{sizes[EXPORTED] / sizes[TORCH]:.0%}",
                "",
            ),
        ]


def check_split(collection: "Collection", split: str) -> None:
    """Raise ConfigError if a collection has no such split to measure on."""
    if split not in collection.splits:
        raise ConfigError(
            f"{collection.name} has no split {split!r} to measure an export on. It has: "
            f"{', '.join(collection.splits) or 'none'}. Give one with --split; one that is kept "
            "for a report decides nothing."
        )


def measure(
    collection: "Collection",
    config: ExportConfig,
    models: Mapping[str, Any],
    folder: Path,
) -> Measured:
    """Measure the models TORCH and EXPORTED, whose graph and weights lie in a folder.

    Raises:
        DataError: the split has no judgements, or the graph gives NaN or infinity.

    """
    from sentence_transformers import CrossEncoder

    is_pair = isinstance(models[TORCH], CrossEncoder)
    values = (_score if is_pair else _encode)(collection, config, models)
    torch_bytes = files_bytes(folder, "*.safetensors")
    graph = (folder / FILES[config.format]).parent
    limits = {
        "cosine": config.lowest_cosine,
        "loss": config.max_loss,
        "speedup": config.lowest_speedup,
    }
    sizes = {TORCH: torch_bytes, EXPORTED: files_bytes(graph)}
    return Measured(bytes=sizes, limits=limits, **values)


def chosen_queries(collection: "Collection", config: ExportConfig, most: int) -> Qrels:
    """Return the judgements of at most `most` of the split's queries, drawn at random.

    Raises:
        DataError: none has a judgement.

    """
    qrels = collection.qrels(config.split)
    ids = [query for query in collection.query_ids(config.split) if qrels[query]]
    if not ids:
        raise DataError(f"split {config.split!r} of {collection.name} has no judgements.")
    drawn = np.random.default_rng(config.seed).permutation(len(ids))[:most]
    return {ids[index]: qrels[ids[index]] for index in np.sort(drawn)}


def chosen_docs(collection: "Collection", config: ExportConfig, qrels: Qrels) -> NDArray[np.int64]:
    """Return rows of documents in random order: all that are relevant, and others to --max-docs."""
    relevant = {doc for docs in qrels.values() for doc, grade in docs.items() if grade > 0}
    rows = collection.docs.find(sorted(relevant))
    rows = np.unique(rows[rows >= 0])
    rng = np.random.default_rng(config.seed)
    others = np.setdiff1d(np.arange(len(collection.docs)), rows)
    more = rng.permutation(others)[: max(0, config.max_docs - len(rows))]
    return rng.permutation(np.concatenate([rows, more]))


def in_turns(
    work: Mapping[str, Callable[[Sequence[Item]], Values]], items: Sequence[Item]
) -> tuple[dict[str, Values], dict[str, list[float]]]:
    """Return what each does of the items, and the seconds of each block, in turns.

    A block is done by one after the other, each time another one first, so that what else the
    machine does meets both. The first items are done once before.
    """
    count = max(len(items) // BLOCK, min(TURNS, len(items) // SMALLEST), 1)
    blocks = np.array_split(np.arange(len(items)), count)
    results: dict[str, list[Values]] = {name: [] for name in work}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for run in work.values():
        run(items[:4])
    for number, block in enumerate(blocks):
        names = [*work] if number % 2 == 0 else [*reversed([*work])]
        part = items[block[0] : block[-1] + 1]
        for name in names:
            started = time.perf_counter()
            results[name].append(work[name](part))
            seconds[name].append(time.perf_counter() - started)
    return {name: np.concatenate(parts) for name, parts in results.items()}, seconds


def _encode(
    collection: "Collection", config: ExportConfig, models: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what was measured of two bi-encoders: vectors, an exact search, and times."""
    qrels = chosen_queries(collection, config, config.max_queries)
    rows = chosen_docs(collection, config, qrels)
    encoders = {
        name: DenseEncoder(model, batch_tokens=config.batch_tokens, precision="float32")
        for name, model in models.items()
    }
    ids = list(qrels)
    queries = [collection.queries.get(query).full_text for query in ids]
    texts = collection.docs.full_texts(rows)
    docs, seconds = in_turns(
        {name: encoder.encode_docs for name, encoder in encoders.items()}, texts
    )
    asked, _ = in_turns(
        {name: encoder.encode_queries for name, encoder in encoders.items()}, queries
    )
    _check_finite(docs[EXPORTED], asked[EXPORTED])
    cosines = np.concatenate([_cosines(docs), _cosines(asked)])
    doc_ids = collection.docs.ids(rows)
    runs = {name: _search(ids, asked[name], doc_ids, docs[name]) for name in encoders}
    singles = [[query] for query in queries[:SINGLE]]
    return {
        "queries": len(ids),
        "texts": len(rows),
        "noun": "documents",
        "likeness": "cosine",
        "mean_cosine": float(cosines.mean()),
        "min_cosine": float(cosines.min()),
        **_quality(qrels, runs),
        **_speed(seconds, len(rows)),
        "single_ms": _single_ms(
            {name: encoder.encode_queries for name, encoder in encoders.items()}, singles
        ),
    }


def _score(
    collection: "Collection", config: ExportConfig, models: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what was measured of two cross-encoders: scores of BM25's best, and times."""
    from retrodistill.stages.scoring.candidates import pairs_of

    qrels = chosen_queries(
        collection, config, min(config.max_queries, config.max_docs // PAIRS or 1)
    )
    table = candidates(collection, config, [*qrels]).table
    teachers = {
        name: CrossEncoderTeacher(
            model,
            ModelOptions(
                max_tokens=model.max_seq_length or 512,
                batch_tokens=config.batch_tokens,
                precision="float32",
            ),
        )
        for name, model in models.items()
    }
    # Blocks of consecutive rows, which share queries, as reranking has them.
    work = {
        name: lambda rows, teacher=teacher: teacher.score(pairs_of(collection, table.take(rows)))
        for name, teacher in teachers.items()
    }
    scores, seconds = in_turns(work, list(range(len(table))))
    _check_finite(scores[EXPORTED])
    likeness = float(np.corrcoef(scores[TORCH], scores[EXPORTED])[0, 1])
    runs = {
        name: Run.from_columns(table["query_id"], table["doc_id"], values)
        for name, values in scores.items()
    }
    return {
        "queries": len(qrels),
        "texts": len(table),
        "noun": "pairs",
        "likeness": "r",
        "mean_cosine": likeness,
        "min_cosine": likeness,
        **_quality(qrels, runs),
        **_speed(seconds, len(table)),
        "single_ms": _single_ms(work, [[row] for row in range(min(SINGLE, len(table)))]),
    }


def candidates(collection: "Collection", config: ExportConfig, query_ids: Sequence[str]) -> Run:
    """Return the best documents of BM25 for queries, and their relevant ones."""
    from retrodistill.stages.mining import mine_candidates

    settings = MineSettings(retriever=("bm25",), depth=PAIRS, add_positives=True)
    return mine_candidates(collection, config.split, settings).select(query_ids)


def _search(query_ids: Sequence[str], queries: Values, doc_ids: Sequence[str], docs: Values) -> Run:
    """Return the best documents of each query by inner product."""
    depth = min(TOP, len(doc_ids))
    scores = queries @ docs.T
    best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    return Run.from_columns(
        np.repeat(np.array(query_ids, object), depth).tolist(),
        [doc_ids[row] for row in best.ravel().tolist()],
        np.take_along_axis(scores, best, axis=1).ravel(),
    )


def _quality(qrels: Qrels, runs: Mapping[str, Run]) -> dict[str, Any]:
    settings = EvaluationSettings(metrics=METRIC, baseline=TORCH)
    evaluation: Evaluation = evaluate_runs(qrels, runs, settings)
    means = {name: metrics[METRIC] for name, metrics in evaluation.systems.items()}
    return {"ndcg": means, "p": evaluation.tests[0].p}


def _speed(seconds: Mapping[str, Sequence[float]], texts: int) -> dict[str, Any]:
    blocks = len(seconds[TORCH])
    ratios = [a / b for a, b in zip(seconds[TORCH], seconds[EXPORTED], strict=True)]
    rates = {name: texts / blocks / statistics.median(values) for name, values in seconds.items()}
    return {"per_second": rates, "speedup": statistics.median(ratios)}


def _single_ms(
    work: Mapping[str, Callable[[Any], Values]], singles: Sequence[Any]
) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in work}
    for item in singles:
        for name, run in work.items():
            started = time.perf_counter()
            run(item)
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def _cosines(vectors: Mapping[str, Values]) -> NDArray[np.float64]:
    one, other = (vectors[name].astype(np.float64) for name in (TORCH, EXPORTED))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: NDArray[np.float64] = (one * other).sum(1) / np.maximum(lengths, 1e-30)
    return cosines


def _check_finite(*values: Values) -> None:
    if not all(np.isfinite(part).all() for part in values):
        raise DataError(
            "the exported graph gives NaN or infinity for a text. Export in float32, or to another "
            "--format."
        )
