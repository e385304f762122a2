"""Which query comes next (orders), and which of its candidates come with it (sampling).

Both draw from a generator that is seeded by the position alone, independent of earlier positions:
a resumed training has the batches of an uninterrupted one.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.calls import parse_call
from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import Registry

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

BINS = 10
EVEN = 0.1
"""Share of the importance draw's chances that is spread evenly, so that no weight explodes."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Traits:
    """What a query order may depend on."""

    margins: Floats
    """Of each query: its best positive's teacher score less its best other candidate's."""

    batch_size: int = 1
    """Queries of one step."""

    clusters: Rows | None = None
    """Number of each query's cluster."""


QueryOrder = Callable[[Traits, int, np.random.Generator], Rows]
"""Gives an epoch's order of all queries, from the position at which the epoch starts."""

NegativeSampling = Callable[[Floats, float, int, np.random.Generator], tuple[Rows, Floats]]
"""Draws `count` of a pool by its teacher scores, best first, and the positive's score.

Gives distinct positions in the pool, fewer if it holds no more, and the logarithms of their
weights.
"""


def shuffled(traits: Traits, start: int, random: np.random.Generator) -> Rows:
    """All queries at random."""
    return random.permutation(len(traits.margins))


def hard_first(traits: Traits, start: int, random: np.random.Generator) -> Rows:
    """A curriculum: queries of small teacher margin first, equal ones at random.

    The hardest are those whose best other candidate the teacher puts above every positive.
    """
    return np.lexsort((random.random(len(traits.margins)), traits.margins))


def clustered(traits: Traits, start: int, random: np.random.Generator) -> Rows:
    """Batches of one cluster each, so that in-batch negatives are of the query's own topic.

    Every query comes once. What is left of clusters that their batches do not use up forms mixed
    batches, of few clusters each; some of it fills the batch that the epoch before left open.

    Raises:
        ConfigError: there are no clusters.

    Source: Hofstaetter et al. 2021, arXiv:2104.06967 (TAS-B).

    """
    if traits.clusters is None:
        raise ConfigError("query order 'clusters' needs the cluster of each query.")
    size = traits.batch_size
    # Queries cluster by cluster, clusters and queries at random.
    owners = random.permutation(int(traits.clusters.max()) + 1)[traits.clusters]
    rows = random.permutation(len(owners))
    rows = rows[np.argsort(owners[rows], kind="stable")]
    # Whole batches of one cluster, and what is left over of each.
    counts = np.bincount(owners)
    owners = owners[rows]
    within = np.arange(len(rows)) - (np.cumsum(counts) - counts)[owners]
    whole = within < (counts // size * size)[owners]
    batches, leftovers = rows[whole].reshape(-1, size), rows[~whole]
    # The leftovers fill the open batch of the epoch before, then mixed batches.
    opening = -start % size
    if len(leftovers) < opening and len(batches):
        batches, leftovers = batches[:-1], np.concatenate([leftovers, batches[-1]])
    head, leftovers = leftovers[:opening], leftovers[opening:]
    cut = len(leftovers) // size * size
    mixed = leftovers[:cut].reshape(-1, size)
    batches = random.permutation(np.concatenate([batches, mixed]))
    return np.concatenate([head, batches.ravel(), leftovers[cut:]])


def query_clusters(vectors: NDArray[np.float32], count: int, *, seed: int = 0) -> Rows:
    """Return the number of each vector's cluster, by k-means over batches of the vectors.

    Raises:
        ConfigError: there are fewer vectors than clusters.

    """
    from sklearn.cluster import MiniBatchKMeans

    if not 1 <= count <= len(vectors):
        raise ConfigError(
            f"{len(vectors):,} queries cannot form {count:,} clusters. Give a smaller --clusters."
        )
    means = MiniBatchKMeans(count, random_state=seed, batch_size=4096, n_init=1)
    return np.asarray(means.fit_predict(vectors), np.int64)


def uniform(
    scores: Floats, positive: float, count: int, random: np.random.Generator
) -> tuple[Rows, Floats]:
    """Each candidate with the same chance."""
    positions = random.permutation(len(scores))[:count]
    return positions, np.zeros(len(positions))


def margin_bins(
    scores: Floats, positive: float, count: int, random: np.random.Generator, *, bins: int = BINS
) -> tuple[Rows, Floats]:
    """Easy and hard pairs alike, however many the pool holds of each.

    The range of the query's margins to its positive is cut into `bins` of equal width. A bin
    that still holds candidates is drawn, then one of them.

    Raises:
        ConfigError: `bins` is below 1.

    Source: Hofstaetter et al. 2021, arXiv:2104.06967 (TAS-B balanced; 10 bins).

    """
    if bins < 1:
        raise ConfigError(f"margin-bins: bins must be at least 1, but it is {bins}.")
    # Each candidate's bin.
    margins = positive - scores
    low, high = (margins.min(), margins.max()) if len(margins) else (0.0, 0.0)
    numbers = np.minimum((margins - low) / ((high - low) or 1.0) * bins, bins - 1).astype(int)
    owners = numbers.tolist()
    # The bins as stacks, shuffled.
    stacks: dict[int, list[int]] = {}
    for position in random.permutation(len(scores)).tolist():
        stacks.setdefault(owners[position], []).append(position)
    # A bin, then the top of its stack.
    filled = list(stacks.values())
    positions = []
    for chance in random.random(min(count, len(scores))).tolist():
        number = int(chance * len(filled))
        positions.append(filled[number].pop())
        if not filled[number]:
            del filled[number]
    return np.array(positions, np.int64), np.zeros(len(positions))


def simans(
    scores: Floats,
    positive: float,
    count: int,
    random: np.random.Generator,
    *,
    a: float = 1.0,
    b: float = 0.0,
) -> tuple[Rows, Floats]:
    """Ambiguous candidates: those that score near the positive.

    One after the other, with p_j proportional to exp(-a ((t_j - t_positive) / d - b)^2), where d
    is the standard deviation of the pool's scores: a teacher of logits and one of probabilities
    give the same draw. `b` below 0 keeps off what may be relevant too.

    Raises:
        ConfigError: `a` is not above 0.

    Source: Zhou et al. 2022, arXiv:2210.11773, where scores are a retriever's and are not divided:
    with `a` = 1, scores from 0 to 1 would be drawn nearly uniformly. Defaults unverified.

    """
    if not a > 0:
        raise ConfigError(f"simans: a must be above 0, but it is {a}.")
    # The largest of log p + Gumbel noise are such a draw, and nothing underflows.
    gaps = (scores - positive) / (scores.std() or 1.0)
    keys = random.gumbel(size=len(scores)) - a * (gaps - b) ** 2
    positions = np.argsort(-keys)[:count]
    return positions, np.zeros(len(positions))


def importance(
    scores: Floats,
    positive: float,
    count: int,
    random: np.random.Generator,
    *,
    keep: float = 0.5,
    temperature: float = 1.0,
) -> tuple[Rows, Floats]:
    """The teacher's best and a weighted sample of the others, which together represent the pool.

    A share `keep` of the `count` goes to the best. Of the others, j is drawn with a known
    probability pi_j, proportional to 0.9 softmax(t / temperature)_j + 0.1 / n, but never above 1,
    and weighs 1 / pi_j. So sums over what is drawn have the sum over the whole pool as their mean:

        E[ sum over the drawn j of exp(log_weight_j) f_j ] = sum over the pool of f_j

    for whatever numbers f, such as the student's exp(s_j). Nothing is drawn twice. The draw takes
    fixed steps along the probabilities laid end to end in random order.

    Raises:
        ConfigError: `keep` is not from 0 to below 1, or the temperature not above 0.

    Source: Horvitz and Thompson 1952 and Madow 1949 (systematic sampling) for the weights and the
    draw; sampling a teacher's tail instead of cutting it off: "Sparse Logit Sampling",
    arXiv:2503.16870 (from its abstract). The even share is this package's own.

    """
    if not (0 <= keep < 1 and temperature > 0):
        raise ConfigError(
            f"importance: keep must be from 0 to below 1 and temperature above 0, "
            f"but they are {keep} and {temperature}."
        )
    if len(scores) <= count:
        return np.arange(len(scores)), np.zeros(len(scores))
    # The best, without a draw; then those whose share would be more than 1, which come first
    # as shares fall.
    best = int(keep * count)
    shares = _shares(scores[best:] / temperature)
    tails = shares[::-1].cumsum()[::-1]
    certain = int(np.argmin((count - best - np.arange(len(shares))) * shares >= tails))
    # The probability of each of the others, and a systematic sample of them.
    remaining = count - best - certain
    chances = remaining * shares[certain:] / tails[certain]
    order = random.permutation(len(chances))
    ends = chances[order].cumsum()
    steps = (random.random() + np.arange(remaining)) * (ends[-1] / remaining)
    drawn = order[np.minimum(np.searchsorted(ends, steps, side="right"), len(ends) - 1)]
    undrawn = best + certain
    positions = np.concatenate([np.arange(undrawn), undrawn + drawn])
    return positions, np.concatenate([np.zeros(undrawn), -np.log(chances[drawn])])


def _shares(logits: Floats) -> Floats:
    masses = np.exp(logits - logits[0])
    shares: Floats = (1 - EVEN) * masses / masses.sum() + EVEN / len(masses)
    return shares


QUERY_ORDERS = Registry(
    "query order",
    {
        "shuffled": f"{__name__}:shuffled",
        "clusters": f"{__name__}:clustered",
        "hard-first": f"{__name__}:hard_first",
    },
)

NEGATIVE_SAMPLINGS = Registry(
    "negative sampling",
    {
        "uniform": f"{__name__}:uniform",
        "margin-bins": f"{__name__}:margin_bins",
        "importance": f"{__name__}:importance",
        "simans": f"{__name__}:simans",
    },
)


def parse_negative_sampling(text: str) -> NegativeSampling:
    """Return the sampling of a name, with settings in brackets: `simans(a=0.5,b=-1)`.

    Raises:
        ConfigError: the name or a setting is unknown, or a setting is out of range.

    """
    call = parse_call(text, NEGATIVE_SAMPLINGS.kind, example="simans(a=0.5)")
    function: Callable[..., Any] = NEGATIVE_SAMPLINGS[call.name]
    parameters = inspect.signature(function).parameters.values()
    types = {p.name: type(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}
    call.check_keys(types)
    settings = {}
    for key, value in call.settings.items():
        try:
            settings[key] = types[key](value)
        except ValueError:
            raise ConfigError(
                f"{call.kind} {call.name!r}: {key} must be a number, but it is {value!r}."
            ) from None
    sampling: NegativeSampling = partial(function, **settings)
    sampling(np.zeros(1), 0.0, 1, np.random.default_rng(0))  # refuses a setting out of range now
    return sampling
