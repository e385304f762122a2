"""Served models as systems of an evaluation: their runs, their time, and what is behind them.

What is served is often not what was proven: another folder, another number type, queries that are
read as documents. Nothing fails then, the measures alone fall.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.data.rankings.metrics import parse_metrics
from retrodistill.data.store.lineage import spec_lineage
from retrodistill.data.store.runs import Run
from retrodistill.models.retrievers import load_retriever, retrieved_run
from retrodistill.stages.evaluation.efficiency import percentiles, times_ms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from retrodistill.base.types import Qrels
    from retrodistill.data.datasets import Collection
    from retrodistill.models.retrievers.endpoints import ServedRetriever
    from retrodistill.models.retrievers.endpoints.embeddings import EndpointEncoder
    from retrodistill.models.students.dense import DenseEncoder

DEPTH = 100
"""Documents of a query, if no measure looks deeper."""

TIMED_QUERIES = 50
"""Queries that are sent one at a time, for their time."""

COMPARED = 64
"""Documents, and queries, whose vectors are compared with a local model's."""

LENGTHS = 1.05
"""Largest ratio of documents' served and local lengths to each other: a scale that all share
changes no ranking by inner product, but one that differs from document to document does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Likeness:
    """How close served vectors of one side are to a local model's."""

    texts: int
    lowest: float
    """Least cosine."""

    mean: float
    spread: float
    """Largest by smallest ratio of a served and a local length."""


def depth_of(metrics: str) -> int:
    """Return how many documents of a query the measures look at, at least DEPTH."""
    return max([DEPTH, *(metric.cutoff or 0 for metric in parse_metrics(metrics))])


def connect(
    collection: "Collection", names: Mapping[str, str], *, taken: Sequence[str] = ()
) -> "dict[str, ServedRetriever]":
    """Return the retriever behind each endpoint's address, all of which have answered.

    Raises:
        ConfigError: a name is taken, or a server cannot be reached.
        DataError: an answer is malformed.

    """
    for name in names:
        if name in taken:
            raise ConfigError(f"a run and an endpoint are called {name!r}: name it, NAME=URL.")
    served: dict[str, Any] = {}
    for name, address in names.items():
        served[name] = load_retriever(f"endpoint:{address}", collection.docs)
    return served


def served_run(
    retriever: "ServedRetriever",
    collection: "Collection",
    qrels: "Qrels",
    *,
    depth: int,
    address: str,
) -> Run:
    """Return the run of an endpoint for the judged queries.

    Raises:
        DataError: it finds nothing, an answer is malformed, or the server's model changes.

    """
    ids = collection.queries.ids(_judged_rows(collection, qrels))
    spec = f"endpoint:{address}"
    run = retrieved_run(retriever, collection, ids, k=depth, name=spec)
    if not len(run):
        raise DataError(f"{address} finds no document for any of {len(ids):,} queries.")
    return Run(run.table, lineage=spec_lineage(spec))


def query_ms(
    retriever: "ServedRetriever", collection: "Collection", qrels: "Qrels"
) -> dict[str, float]:
    """Return p50, p95, p99, mean of the milliseconds of a request, and how many were `queries`.

    Judged queries are sent one after another; the time is from the request to the read answer.
    """
    times = times_ms(retriever.ask, _sampled_queries(collection, qrels, TIMED_QUERIES))
    return percentiles(times) | {"queries": len(times)}


def served_encoders(retrievers: "Mapping[str, ServedRetriever]") -> "dict[str, EndpointEncoder]":
    """Return the encoder behind each embeddings endpoint.

    Raises:
        ConfigError: there is none.

    """
    from retrodistill.models.retrievers.endpoints import ServedEmbeddings

    encoders = {
        name: retriever.encoder
        for name, retriever in retrievers.items()
        if isinstance(retriever, ServedEmbeddings)
    }
    if not encoders:
        raise ConfigError(
            f"--against compares vectors, and {', '.join(retrievers)} gives hits. Give the "
            "server's embeddings endpoint too."
        )
    return encoders


def compare_with(
    served: "EndpointEncoder", model: "DenseEncoder", collection: "Collection", qrels: "Qrels"
) -> dict[str, Likeness]:
    """Return how close an endpoint's vectors are to a model's, for documents and for queries.

    Raises:
        DataError: the vectors have more dimensions than the model's.

    """
    from retrodistill.models.retrievers.endpoints.embeddings import has_text
    from retrodistill.models.students.truncated import Truncated

    if served.dimension > model.dimension:
        raise DataError(
            f"{served.address.url} serves vectors of {served.dimension} dimensions, but "
            f"{model.name} has {model.dimension}: it serves another model."
        )
    local = Truncated(model, served.dimension, normalised=model.normalised)
    sample = collection.docs.full_texts(spread_rows(len(collection.docs), COMPARED))
    docs = [*filter(has_text, sample)]
    queries = _sampled_queries(collection, qrels, COMPARED)
    return {
        "documents": _likeness(served.encode_docs(docs), local.encode_docs(docs)),
        "queries": _likeness(served.encode_queries(queries), local.encode_queries(queries)),
    }


def differences(
    likeness: Mapping[str, Likeness], *, url: str, model: str, least: float
) -> list[str]:
    """Return a sentence for each way in which an endpoint does not serve a model."""
    sentences = []
    for side, found in likeness.items():
        if not found.lowest >= least:  # NaN too
            sentences.append(
                f"{url} does not serve {model}: the least cosine of {side} is {found.lowest:.4f}, "
                f"below {least:g}. Is it the same folder, with the prompts of both sides?"
            )
    spread = likeness["documents"].spread
    if not spread <= LENGTHS:
        sentences.append(
            f"{url} does not serve {model}: lengths of documents differ by a factor of up to "
            f"{spread:.2f}. Does one of the two normalise its vectors?"
        )
    return sentences


def likeness_table(
    by_endpoint: Mapping[str, Mapping[str, Likeness]],
) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table of likenesses."""
    columns = ["endpoint", "side", "texts", "least cosine", "mean cosine"]
    return columns, [
        [name, side, str(found.texts), f"{found.lowest:.6f}", f"{found.mean:.6f}"]
        for name, likeness in by_endpoint.items()
        for side, found in likeness.items()
    ]


def _judged_rows(collection: "Collection", qrels: "Qrels") -> "NDArray[np.int64]":
    """Return the rows of the judged queries whose texts the collection has."""
    rows = collection.queries.find([query for query, docs in qrels.items() if docs])
    if not (rows >= 0).any():
        raise DataError(f"{collection.name} has the text of no judged query to ask a server.")
    return np.sort(rows[rows >= 0])


def _sampled_queries(collection: "Collection", qrels: "Qrels", count: int) -> list[str]:
    """Return the texts of some of the judged queries, evenly spread."""
    from retrodistill.models.retrievers.endpoints.embeddings import has_text

    rows = _judged_rows(collection, qrels)
    texts = collection.queries.full_texts(rows[spread_rows(len(rows), count)])
    return [*filter(has_text, texts)]


def _likeness(served: "NDArray[np.float32]", local: "NDArray[np.float32]") -> Likeness:
    from retrodistill.models.retrievers.endpoints.embeddings import cosines

    values = cosines(served, local)
    ratios = np.linalg.norm(served, axis=1) / np.maximum(np.linalg.norm(local, axis=1), 1e-12)
    return Likeness(
        texts=len(values),
        lowest=float(values.min()),
        mean=float(values.mean()),
        spread=float(ratios.max() / ratios.min()),
    )
