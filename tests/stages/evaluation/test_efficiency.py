"""What a system costs: times, percentiles, bytes."""

from pathlib import Path

import pytest

from retrodistill.stages.evaluation.efficiency import files_bytes, percentiles, times_ms


def test_percentiles_by_hand() -> None:
    """Of 0, 1, ..., 10 at p95: place 0.95 * 10 = 9.5, between 9 and 10; the mean of all is 5."""
    found = percentiles([float(value) for value in (3, 1, 2, 0, 4, 10, 9, 8, 7, 6, 5)])
    assert found == {"p50": 5.0, "p95": 9.5, "p99": pytest.approx(9.9), "mean": 5.0}
    assert percentiles([2.0]) == {"p50": 2.0, "p95": 2.0, "p99": 2.0, "mean": 2.0}


def test_every_item_is_timed_after_the_first_ones() -> None:
    """A cold start among the times, or items that are left out of them."""
    asked: list[int] = []
    times = times_ms(asked.append, [1, 2, 3], warm=2)
    assert asked == [1, 2, 1, 2, 3]
    assert len(times) == 3
    assert min(times) >= 0


def test_bytes_are_those_of_all_files(tmp_path: Path) -> None:
    """Files of subfolders that are not counted."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "sub" / "b.x").write_bytes(b"45")
    assert files_bytes(tmp_path) == 5
    assert files_bytes(tmp_path, "*.x") == 2
