"""Is one system better than another, or lucky with these queries? Paired tests over queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retrodistill.errors import ConfigError

Test = Literal["t", "fisher", "none"]
Values = NDArray[np.float64]

FLIPS = 10_000
"""Random sign assignments of Fisher's test: p is known to about 0.002 at 0.05."""


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

    p_holm: float
    """`p` corrected by Holm's method over all pairs of systems of this metric."""

    test: str


def compare(
    metric: str, values: Mapping[str, Mapping[str, float]], *, test: Test = "t"
) -> list[Comparison]:
    """Return a comparison of each pair of systems; `values` is system -> query id -> value.

    Source: Smucker, Allan and Carterette 2007, "A comparison of statistical significance tests
    for information retrieval evaluation"; Holm 1979 for the correction.

    Raises:
        ConfigError: there is no such test.

    """
    if test not in get_args(Test):
        raise ConfigError(f"test must be one of {', '.join(get_args(Test))}, but it is {test!r}.")
    if test == "none":
        return []
    measure = paired_t if test == "t" else fisher
    rows = {name: np.array([*own.values()], np.float64) for name, own in values.items()}
    pairs = list(combinations(rows, 2))
    found = [measure(rows[a], rows[b]) for a, b in pairs]
    return [
        Comparison(metric, a, b, float((rows[a] - rows[b]).mean()), p, corrected, test)
        for (a, b), p, corrected in zip(pairs, found, holm(found), strict=True)
    ]


def paired_t(a: Values, b: Values) -> float:
    """Return the two-sided p of Student's paired t test; 1 for equal values or a single query."""
    from scipy.stats import ttest_rel

    gaps = a - b
    if len(gaps) < 2 or not gaps.any():
        return 1.0
    if np.allclose(gaps, gaps[0], rtol=1e-9, atol=0):
        return 0.0
    return float(ttest_rel(a, b).pvalue)


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
