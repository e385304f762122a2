"""Is one system better than another, or lucky with these queries? Paired tests over queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, did_you_mean

Test = Literal["t", "fisher", "none"]
Correction = Literal["holm", "tukey", "none"]
Values = NDArray[np.float64]
Interval = tuple[float, float]
Key = TypeVar("Key")

FLIPS = 10_000
"""Random assignments of Fisher's and Tukey's test: p is known to about 0.002 at 0.05."""

RESAMPLES = 2_000
"""Bootstrap samples: the ends of a 95% interval stand on its 50 lowest and highest means."""

LEVEL = 0.95
"""Confidence of the intervals."""

TIE = 1e-9
"""Two values of a query that differ by at most this are equal."""

BLOCK = 1 << 22
"""Random numbers that are held at a time."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems, one metric, the same queries."""

    metric: str
    a: str
    b: str
    difference: float
    """Mean of `a` less mean of `b`."""

    p: float
    """Two-sided probability of such a difference between equal systems."""

    test: str

    p_corrected: float
    """The probability after `correction`."""

    correction: str

    interval: Interval
    """Bootstrap interval of the difference, of confidence `LEVEL`."""

    wins: int
    """Queries with a higher value of `a`, by more than the threshold of a tie."""

    ties: int
    losses: int


def compare(
    metric: str,
    values: Mapping[str, Mapping[str, float]],
    *,
    test: Test = "t",
    correction: Correction = "holm",
    baseline: str | None = None,
    tie: float = TIE,
    means: Mapping[str, Values] | None = None,
    seed: int = 0,
) -> list[Comparison]:
    """Return a comparison of each pair of systems; `values` is system -> query id -> value.

    With `baseline`, each other system is compared with this one only, as `a` with `b`. `means`
    are those of `resampled_means`, if they are there already.

    Holm's method corrects over the pairs that are compared; Tukey's test asks the same of all
    systems together, whatever `test` says of a single pair and whichever pairs are shown.

    Raises:
        ConfigError: there is no such test, correction or baseline, or `tie` is negative.

    Source: Smucker, Allan and Carterette 2007, "A comparison of statistical significance tests
    for information retrieval evaluation"; Holm 1979; `tukey` has its own.

    """
    for name, value, known in (("test", test, Test), ("correction", correction, Correction)):
        if value not in get_args(known):
            raise ConfigError(
                f"{name} must be one of {', '.join(get_args(known))}, but it is {value!r}."
            )
    if not tie >= 0:
        raise ConfigError(f"tie must be 0 or more, but it is {tie}.")
    if baseline is not None:
        check_baseline(baseline, [*values])
    if test == "none":
        return []
    rows = {name: np.array([*own.values()], np.float64) for name, own in values.items()}
    pairs = list(combinations(rows, 2))
    if baseline is not None:
        pairs = [(name, baseline) for name in rows if name != baseline]
    if not pairs:
        return []
    means = resampled_means(values, seed=seed) if means is None else means
    measure = paired_t if test == "t" else fisher
    found = [measure(rows[a], rows[b], **({} if test == "t" else {"seed": seed})) for a, b in pairs]
    corrected = holm(found)
    if correction == "tukey":
        corrected = tukey(np.stack([*rows.values()], axis=1), _places(rows, pairs), seed=seed)
    elif correction == "none":
        corrected = found
    comparisons = []
    for place, (a, b) in enumerate(pairs):
        gaps = rows[a] - rows[b]
        wins, losses = int((gaps > tie).sum()), int((gaps < -tie).sum())
        comparisons.append(
            Comparison(
                metric,
                a,
                b,
                float(gaps.mean()),
                found[place],
                test,
                corrected[place],
                correction,
                interval(means[a] - means[b]),
                wins,
                len(gaps) - wins - losses,
                losses,
            )
        )
    return comparisons


def check_baseline(name: str, systems: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest name, if no system is called so."""
    if name not in systems:
        hint = did_you_mean(name, systems)
        raise ConfigError(
            f"there is no system {name!r} to compare with.{hint} There are: {', '.join(systems)}."
        )


def paired_t(a: Values, b: Values) -> float:
    """Return the two-sided p of Student's paired t test; 1 for equal values or a single query.

    No p is below 2^(1 - n), that of n gaps of one sign: the test takes equal gaps of few queries
    for certainty.
    """
    from scipy.stats import ttest_rel

    gaps = a - b
    if len(gaps) < 2 or not gaps.any():
        return 1.0
    least = 2.0 ** (1 - len(gaps))
    if np.allclose(gaps, gaps[0], rtol=1e-9, atol=0):
        return least
    return max(least, float(ttest_rel(a, b).pvalue))


def fisher(a: Values, b: Values, *, seed: int = 0) -> float:
    """Return the two-sided p of Fisher's randomisation test, by FLIPS random sign changes."""
    gaps = a - b
    if not gaps.any():
        return 1.0
    generator = np.random.default_rng(seed)
    observed = abs(gaps.sum()) * (1 - 1e-12)
    extreme = 0
    for start in range(0, FLIPS, 500):
        flips = min(500, FLIPS - start)
        signs = generator.integers(0, 2, size=(flips, len(gaps)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ gaps) >= observed).sum())
    return (extreme + 1) / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected by Holm's step-down method, in their order."""
    order = np.argsort(p_values)
    corrected = np.empty(len(p_values))
    highest = 0.0
    for step, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[place]))
        corrected[place] = highest
    return corrected.tolist()


def tukey(values: Values, pairs: Sequence[tuple[int, int]], *, seed: int = 0) -> list[float]:
    """Return the p of each pair of columns by Tukey's HSD with randomisation.

    `values` has a row for each query and a column for each system. In each of FLIPS rounds, every
    row is shuffled by itself, as if all systems were one; p is the share of rounds in which the
    best and the worst mean lie at least as far apart as the two that are asked for. With two
    systems this is Fisher's test.

    Source: Carterette 2012, "Multiple testing in statistical analysis of systems-based information
    retrieval experiments".

    """
    sums = values.sum(0)
    observed = np.array([abs(sums[a] - sums[b]) for a, b in pairs]) * (1 - 1e-9)
    generator = np.random.default_rng(seed)
    extreme = np.zeros(len(pairs), np.int64)
    rounds = max(1, BLOCK // values.size)
    for start in range(0, FLIPS, rounds):
        block = np.broadcast_to(values, (min(rounds, FLIPS - start), *values.shape))
        ranges = np.ptp(generator.permuted(block, axis=2).sum(1), axis=1)
        extreme += (ranges[:, None] >= observed).sum(0)
    return ((extreme + 1) / (FLIPS + 1)).tolist()  # type: ignore[no-any-return]


def resampled_means(
    values: Mapping[Key, Mapping[str, float]], *, seed: int = 0
) -> dict[Key, Values]:
    """Return each row's means over RESAMPLES samples of the queries, drawn with replacement.

    All rows share the samples, so the difference of two systems' means is a paired one.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    table = np.stack([np.array([*own.values()], np.float64) for own in values.values()], axis=1)
    queries = len(table)
    generator = np.random.default_rng(seed)
    means = np.empty((RESAMPLES, table.shape[1]))
    samples = max(1, BLOCK // queries)
    for start in range(0, RESAMPLES, samples):
        count = min(samples, RESAMPLES - start)
        drawn = generator.integers(0, queries, size=(count, queries))
        drawn += np.arange(count)[:, None] * queries
        counts = np.bincount(drawn.reshape(-1), minlength=count * queries).reshape(count, queries)
        means[start : start + count] = counts.astype(np.float64) @ table / queries
    return dict(zip(values, means.T, strict=True))


def interval(means: Values) -> Interval:
    """Return the percentile interval of resampled means, of confidence LEVEL."""
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def _places(rows: Mapping[str, Values], pairs: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    places = {name: place for place, name in enumerate(rows)}
    return [(places[a], places[b]) for a, b in pairs]
