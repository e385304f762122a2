"""Tables, as they come out of a pipe."""

import pytest

from retrodistill.stages.reporting.tables import markdown_table, print_table


def test_cells_of_each_kind_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A missing value that ends a long run with a traceback, or a name read as markup."""
    rows = [("run[a]", 0.25, None), ("[red]b", "0.5", 1234.5)]
    print_table(("system", "map", "docs/s"), rows, best=("map", "docs/s"), title="[all]")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "[all]"
    assert [cell.strip() for cell in lines[4].split("│")[1:-1]] == ["run[a]", "0.2500", "-"]
    assert [cell.strip() for cell in lines[5].split("│")[1:-1]] == ["[red]b", "0.5", "1,234.5"]
    print_table(("system", "map"), [], best=("map",))


def test_a_wide_table_is_not_cut_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers that became dots in the log of a job."""
    columns = ["system", *(f"recall@1000(rel={level})" for level in range(1, 12))]
    print_table(columns, [["s" * 60, *["0.1234"] * 11]])
    out = capsys.readouterr().out
    assert out.count("0.1234") == 11
    assert "…" not in out


def test_the_best_value_of_a_column_is_bold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best as a string: "9" above "10"."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_table(("system", "map"), [("a", "9"), ("b", "10"), ("c", None)], best=("map",))
    body = [line for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert ["\x1b[1m" in line for line in body] == [False, True, False]


def test_markdown_by_hand() -> None:
    """A bar in a name that opens a column."""
    wanted = "| s | map |\n| --- | --: |\n| a\\|b | 0.5000 |\n| c | - |"
    assert markdown_table(("s", "map"), [("a|b", 0.5), ("c", None)]) == wanted
