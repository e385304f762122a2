"""Plots: that what is drawn is what was measured."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.stages.reporting import plots
from retrodistill.stages.reporting.plots import Scale

numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))


def test_pareto_by_hand() -> None:
    """A system on the line that another one beats in both."""
    points = [(1.0, 0.3), (2.0, 0.5), (2.0, 0.4), (3.0, 0.5), (4.0, 0.6), (0.5, 0.1)]
    assert plots.pareto(points) == [(0.5, 0.1), (1.0, 0.3), (2.0, 0.5), (4.0, 0.6)]


def test_a_scale_by_hand() -> None:
    """Points at the wrong place, between ticks that look right."""
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert scale(2.5) == 125.0
    assert scale.ticks() == [0, 2, 4, 6, 8, 10]
    log = Scale(1.0, 100.0, 0.0, 200.0, log=True)
    assert log(10.0) == pytest.approx(100.0)
    assert log.ticks() == [1, 10, 100]


@given(st.lists(numbers, min_size=1))
def test_all_values_are_within_the_axes_and_ticks_are_few(values: list[float]) -> None:
    """A point outside of the plot; a division by zero where all values are equal."""
    scale = Scale.of(values, 50, 400)
    assert all(50 <= scale(value) <= 400 for value in values)
    assert 2 <= len(scale.ticks()) <= 7
    assert all(49.9 <= scale(tick) <= 400.1 for tick in scale.ticks())


@given(st.lists(st.floats(1e-3, 1e5), min_size=1))
def test_a_logarithmic_axis_holds_its_values_too(values: list[float]) -> None:
    """An axis without a single tick, for values within one decade."""
    scale = Scale.of(values, 0, 300, log=True)
    assert all(0 <= scale(value) <= 300 for value in values)
    assert len(scale.ticks()) >= 2


def test_bars_stand_on_zero_in_order() -> None:
    """A loss drawn as a gain: the two are told apart by side and by colour."""
    svg = plots.bars([("b", -0.5), ("a", 1.0), ("same", 0.0)], label="x")
    found = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" [^>]*height="([\d.]+)" class="(\w+)"', svg)
    (x_up, y_up, high, up), (x_down, y_down, deep, down) = found
    assert (up, down) == ("up", "down")
    assert float(x_up) < float(x_down)
    assert float(y_up) + float(high) == pytest.approx(float(y_down), abs=0.02)
    assert float(high) == pytest.approx(2 * float(deep), abs=0.05)
    assert "<title>b: -0.5000</title>" in svg


def test_an_empty_series_keeps_the_looks_of_the_others() -> None:
    """A student that is blue in one plot and orange in the next."""
    svg = plots.lines({"a": [], "b": [(0, 1.0), (1, 2.0)]}, x_label="step", label="loss")
    assert 'class="line s1"' in svg
    assert 'class="line s0"' not in svg


def test_names_of_close_points_do_not_cover_each_other() -> None:
    """Two systems of the same speed whose names cannot be read."""
    points = {"first": (10.0, 0.5), "second": (10.0, 0.5), "third": (10.1, 0.5)}
    svg = plots.named_points(points, x_label="ms", label="m")
    heights = [float(y) for y in re.findall(r'y="([\d.]+)"[^>]*class="name"', svg)]
    assert min(abs(a - b) for i, a in enumerate(heights) for b in heights[:i]) > 12
    assert all(math.isfinite(height) for height in heights)
