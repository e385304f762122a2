"""Names of the systems of a table, and the table of an evaluation on the terminal."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodistill.base.errors import ConfigError, did_you_mean
from retrodistill.base.logging import log
from retrodistill.stages.reporting.tables import print_table

TESTS = {"t": "paired t test", "fisher": "Fisher's randomisation test"}
SUBSETS = "all queries, and those that no training behind the systems has seen"
CORRECTIONS = {"holm": "Holm", "tukey": "Tukey", "none": "not corrected"}


def system_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Return a name for each run: its folder or file stem, then suffix and parents if needed."""
    wholes = {Path(os.path.abspath(path)): path for path in paths}
    found: dict[str, Path] = {}
    for depth in range(1, max((len(whole.parts) for whole in wholes), default=0) + 1):
        for short in (_stem, lambda whole: whole.name):
            found = {
                "/".join([*whole.parts[-depth:-1], short(whole)]): path
                for whole, path in wholes.items()
            }
            if len(found) == len(wholes):
                return found
    return found


def known_system(name: str, systems: Collection[str]) -> str:
    """Return a system's name, or raise ConfigError with the nearest."""
    if name not in systems:
        hint = did_you_mean(name, systems)
        raise ConfigError(f"no system is called {name!r}.{hint} There are: {', '.join(systems)}.")
    return name


def print_results(evaluation: Mapping[str, Any]) -> None:
    """Print an evaluation, as `Evaluation.to_dict` gives it.

    The systems, their tests, then the same on queries that training has not seen, and what is to
    be said of it.
    """
    systems, tests = evaluation["systems"], evaluation["tests"]
    metrics, judged = list(systems[0]["metrics"]), list(systems[0]["judged"])
    settings = evaluation["settings"]
    confidence = f"{settings['confidence']:.0%}"
    rows: list[tuple[str, ...]] = []
    for one in systems:
        means = [*one["metrics"].values(), *(one["judged"][name] for name in judged)]
        rows.append((one["name"], *(f"{mean:.4f}" for mean in means)))
        ends = [span_text(*one["intervals"][name]) for name in metrics]
        rows.append(("", *ends, *("" for _ in judged)))
    print_table(
        ("system", *metrics, *judged),
        rows,
        title=f"{settings['queries']} judged queries; below a mean, its {confidence} interval",
        best=metrics if len(systems) > 1 else (),
    )
    if "caution" in settings:
        print(f"Note: {settings['caution']}.")
    _print_tests(tests)
    print_unseen(evaluation)


def caution_of(evaluation: Mapping[str, Any]) -> str:
    """Return in brackets what a reader must know of judgements that no human made."""
    caution = evaluation["settings"].get("caution", "")
    return f" ({caution})" if caution else ""


def print_unseen(evaluation: Mapping[str, Any], *, tests: bool = True, notes: bool = True) -> None:
    """Print the systems on queries that training has not seen, and what is to be said of it."""
    subsets = evaluation.get("subsets", [])
    if subsets:
        columns, lines = subset_rows(evaluation)
        print_table(columns, lines, title=SUBSETS)
    for subset in subsets if tests else ():
        _print_tests(subset["tests"], title=f"{subset['name']}, ")
    for sentence in evaluation.get("training", {}).get("notes", ()) if notes else ():
        log.info(sentence)
    for sentence in evaluation.get("warnings", ()):
        log.warning(sentence)


def subset_rows(
    evaluation: Mapping[str, Any], *, repeated: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of all systems on all queries and on those unseen in training.

    A subset without a query has a row that says so. Its name stands in its first row, or is
    `repeated` in each.
    """
    metrics = list(evaluation["systems"][0]["metrics"])
    whole = {"name": "all", "settings": evaluation["settings"], "systems": evaluation["systems"]}
    rows: list[list[str]] = []
    for part in (whole, *evaluation["subsets"]):
        name, count = part["name"], f"{part['settings']['queries']:,}"
        if not part["systems"]:
            rows.append([name, count, "no query is left", *("-" for _ in metrics)])
        for place, one in enumerate(part["systems"]):
            head = ["", ""] if place and not repeated else [name, count]
            rows.append([*head, one["name"], *(f"{one['metrics'][m]:.4f}" for m in metrics)])
    return ["queries", "number", "system", *metrics], rows


def _print_tests(tests: Sequence[Mapping[str, Any]], *, title: str = "") -> None:
    """Print the paired tests between systems, if there are any."""
    if not tests:
        return
    correction = CORRECTIONS[tests[0]["correction"]]
    columns = ("metric", "a", "b", "a - b", "interval", "win/tie/loss", "p", f"p ({correction})")
    compared = [
        (
            test["metric"],
            test["a"],
            test["b"],
            f"{test['difference']:+.4f}",
            span_text(*test["interval"], sign="+"),
            "/".join(str(test[count]) for count in ("wins", "ties", "losses")),
            p_text(test["p"]),
            p_text(test["p_corrected"]),
        )
        for test in tests
    ]
    print_table(columns, compared, title=f"{title}{TESTS[tests[0]['test']]}")


def span_text(low: float, high: float, *, sign: str = "-") -> str:
    """Return an interval's ends; a `sign` of + marks those above 0, too."""
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


def p_text(value: float) -> str:
    """Return a probability with four decimals; none of them is called 0."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem
