"""One syntax and one form of error for objectives, negative sampling and metrics."""

import pytest

from retrodistill.base.calls import parse_call
from retrodistill.base.errors import ConfigError
from retrodistill.data.rankings.measures import parse_metric
from retrodistill.objectives.objective import parse_objective
from retrodistill.stages.training.sampling import parse_negative_sampling

PARSERS = {
    "contrastive": parse_objective,
    "simans": parse_negative_sampling,
    "rbp@10": parse_metric,
}


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("focal", "focal", {}),
        (" focal ( gamma = 2, alpha=x ) ", "focal", {"gamma": "2", "alpha": "x"}),
        ("my_lab.losses:focal(gamma=2,)", "my_lab.losses:focal", {"gamma": "2"}),
        ("focal()", "focal", {}),
        ("focal(where=a=b)", "focal", {"where": "a=b"}),
    ],
)
def test_a_name_and_its_settings_are_read_as_written(
    text: str, name: str, settings: dict[str, str]
) -> None:
    """A setting that is lost, or that keeps the spaces around it."""
    call = parse_call(text, "loss", example="focal(gamma=2)")
    assert (call.name, call.settings) == (name, settings)


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("(unknown=1)", "'{name}' has no setting 'unknown'.* It has: "),
        ("(p)", r"'{name}': setting 'p' must read key=value\."),
        ("(p=)", "'{name}': setting 'p=' must read key=value"),
        ("(p=0.5,p=0.6)", "'{name}': setting 'p' is given twice"),
        ("(p=(1))", r"is not understood. Write name\(key=value, ...\), as in `"),
        ("(p=1", "is not understood"),
    ],
)
def test_all_of_them_report_a_mistake_alike(name: str, settings: str, message: str) -> None:
    """Three parsers with three messages, of which one keeps the last of two values silently."""
    with pytest.raises(ConfigError, match=message.format(name=name)):
        PARSERS[name](name + settings)
