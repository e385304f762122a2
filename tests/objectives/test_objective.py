"""The text of an objective, and what reaches each loss."""

import pytest
import torch

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.objectives.objective import LossTerm, Signals, bind, inputs_of, parse_objective
from retrodistill.objectives.recipes import load_recipe, recipe_names


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("margin-mse", [("margin-mse", 1.0, {})]),
        (
            " listwise-kl + 0.1*contrastive ",
            [("listwise-kl", 1.0, {}), ("contrastive", 0.1, {})],
        ),
        (
            "2 * listwise-kl(student_temperature=0.05, teacher_temperature=2)"
            "+1e-3*contrastive(temperature=1)",
            [
                ("listwise-kl", 2.0, {"student_temperature": 0.05, "teacher_temperature": 2.0}),
                ("contrastive", 0.001, {"temperature": 1}),
            ],
        ),
        ("1e+2*contrastive", [("contrastive", 100.0, {})]),
        ("contrastive+margin-mse", [("contrastive", 1.0, {}), ("margin-mse", 1.0, {})]),
    ],
)
def test_an_objective_is_read_as_written(text: str, terms: list[tuple[str, float, dict]]) -> None:
    """A weight or a setting that goes to another term, or is lost."""
    assert [(t.name, t.weight, dict(t.settings)) for t in parse_objective(text)] == terms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listwise-kll", "Did you mean 'listwise-kl'"),
        ("listwise-kl(temprature=1)", "has no setting 'temprature'"),
        ("contrastive(temprature=1)", "Did you mean 'temperature'"),
        ("contrastive(temperature=0)", "must be above 0"),
        ("contrastive(temperature)", "must read key=value"),
        ("contrastive(temperature=x)", "must be like 0.05"),
        ("margin-mse(scaled=2)", "must be like False"),
        ("listwise-kl(squared=true)", r"weigh the term instead: 0\.1\*listwise-kl"),
        ("contrastive(squared=false)", "has no setting 'squared'"),
        ("top-k-kl(k=2.9)", "k must be a whole number, but it is 2.9"),
        ("contrastive(temperature=0.05,temperature=0.1)", "'temperature' is given twice"),
        ("contrastive(temperature=1e999)", "temperature must be finite"),
        ("decayed-contrastive(centre=-1e999)", "centre must be finite"),
        ("1e999*ranknet", "invalid weight '1e999'.*above 0"),
        ("-1*contrastive", "invalid weight '-1'.*drop it"),
        ("listwise-kl + 0*contrastive", "invalid weight '0'.*drop it"),
        ("1-1*contrastive", "invalid weight '1-1'"),
        ("listwise-kl(teacher_scores=old)", "Write teacher_scores=LABEL.scores, with --teacher"),
        ("listwise-kl(teacher_scores=old.batch_scores)", "Write teacher_scores=LABEL.scores"),
        ("batch-kl(teacher_batch_scores=old.scores)", "=LABEL.batch_scores"),
        ("listwise-kl(student_scores=old.scores)", "would train old"),
        ("contrastive(batch_scores=old.batch_scores)", "would train old.*dense, sparse, multi"),
        ("contrastive(batch_scores=sparse.scores)", "Write batch_scores=LABEL.batch_scores"),
        ("batch-kl(teacher_batch_scores=student.batch_scores)", "has the student learn from its"),
        ("contrastive(stop_gradient=true)", "stop_gradient is for scores of a trained model"),
        ("contrastive(start=1)", "start must be a share of the steps, from 0 to below 1"),
        ("contrastive(start=0.1) + ranknet(start=0.2)", "one term at least must start at 0"),
        ("", "is not understood"),
        ("listwise-kl + ", "is not understood"),
        ("listwise-kl listwise-kl", "is not understood"),
    ],
)
def test_a_wrong_objective_is_explained(text: str, message: str) -> None:
    """A misspelt setting that is silently ignored, so that the default trains."""
    with pytest.raises(ConfigError, match=message):
        parse_objective(text)


def test_an_older_objective_without_the_squared_temperature_is_still_read() -> None:
    """A model card or a script with `squared=false`, now the only behaviour, that is refused."""
    term, _ = parse_objective("listwise-kl(student_temperature=0.05,squared=false) + contrastive")
    assert dict(term.settings) == {"student_temperature": 0.05}


def test_a_missing_signal_is_named() -> None:
    """A distilling loss without teacher scores that fails deep inside with a KeyError."""
    signals = Signals(student_scores=torch.zeros(2, 3), mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"'margin-mse' needs teacher_scores.*--scores"):
        bind(parse_objective("margin-mse"))(signals)


def test_terms_are_weighted_and_summed_by_name() -> None:
    """A loss that is named twice and counted once."""
    signals = Signals(
        student_scores=torch.tensor([[2.0, 1.0]]),
        teacher_scores=torch.tensor([[5.0, 1.0]]),
        mask=torch.ones(1, 2, dtype=torch.bool),
    )
    terms = (LossTerm(name="margin-mse", weight=2.0), LossTerm(name="margin-mse", weight=1.0))
    assert bind(terms)(signals)["margin-mse"].item() == pytest.approx(27.0)


def test_a_term_asks_a_labelled_teacher() -> None:
    """Two teachers of which both terms learn the first."""
    text = "listwise-kl(teacher_scores=old.scores,student_temperature=1) + margin-mse"
    labelled, plain = terms = parse_objective(text)
    assert labelled.settings == {"student_temperature": 1.0}
    assert labelled.signals == ("student_scores", "old.scores", "mask")
    assert plain.signals == ("student_scores", "teacher_scores", "mask")
    assert inputs_of(terms) == ("--teacher old=TEACHER", "--scores")
    scores = torch.tensor([[2.0, 1.0]])
    signals = Signals(
        student_scores=scores,
        teacher_scores=scores + torch.tensor([3.0, 0.0]),
        mask=torch.ones(1, 2, dtype=torch.bool),
        **{"old.scores": scores},
    )
    values = bind(terms)(signals)
    assert values["listwise-kl[old]"].item() == pytest.approx(0.0)
    assert values["margin-mse"].item() == pytest.approx(9.0)
    with pytest.raises(DataError, match=r"old\.scores has N = 3, but student_scores has N = 2"):
        Signals(student_scores=scores, **{"old.scores": torch.zeros(1, 3)})
    with pytest.raises(DataError, match=r"unknown signal 'old\.mask'"):
        Signals(**{"old.mask": torch.zeros(1, 3)})


def test_a_term_of_a_head_reads_it_under_a_name_of_its_own() -> None:
    """Two heads' losses as one number in the log, or a head that needs a teacher of its name."""
    text = "batch-kl(teacher_batch_scores=student.batch_scores,batch_scores=sparse.batch_scores)"
    (term, plain) = parse_objective(f"{text} + contrastive")
    assert (term.key, plain.key) == ("sparse.batch-kl[student]", "contrastive")
    assert inputs_of([term]) == ()
    scores = {name: torch.randn(2, 3) for name in ("batch_scores", "sparse.batch_scores")}
    found = bind([term])(Signals(**scores))
    expected = bind(parse_objective("batch-kl"))(
        Signals(
            batch_scores=scores["sparse.batch_scores"],
            teacher_batch_scores=scores["batch_scores"],
        )
    )
    assert found["sparse.batch-kl[student]"] == expected["batch-kl"]


def test_a_term_takes_part_from_its_start() -> None:
    """A start that is a delay of the whole objective, or that a resume begins again."""
    terms = parse_objective("batch-kl + 0.5*batch-kl(student_temperature=1,start=0.25)")
    scores = {name: torch.randn(2, 3) for name in ("batch_scores", "teacher_batch_scores")}
    objective = bind(terms)

    def value(done: float) -> float:
        return sum(map(float, objective(Signals(**scores, progress=torch.tensor(done))).values()))

    assert value(0.0) == value(0.24) == float(bind(terms[:1])(Signals(**scores))["batch-kl"])
    assert value(0.25) == value(0.9) == sum(map(float, objective(Signals(**scores)).values()))
    assert value(0.25) > value(0.24)


def test_each_term_has_a_name_of_its_own() -> None:
    """Two KL terms as one number in the log, so that neither is seen to fall or to be absent."""
    plain, held, looked = (
        "listwise-kl",
        "teacher_scores=previous.scores",
        "teacher_scores=ema.scores",
    )
    text = f"{plain} + 2*{plain}({held}) + {plain}({looked}) + 3*{plain}(student_temperature=2)"
    terms = parse_objective(f"{text} + {plain}({held},student_temperature=2)")
    assert [term.key for term in terms] == [
        "listwise-kl",
        "listwise-kl[previous]",
        "listwise-kl[ema]",
        "listwise-kl[2]",
        "listwise-kl[previous,2]",
    ]
    names = ("student_scores", "teacher_scores", "previous.scores")
    scores = {name: torch.randn(2, 4) for name in names}
    signals = Signals(**scores, mask=torch.ones(2, 4, dtype=torch.bool))
    values = bind([terms[0], terms[1], terms[3]])(signals)
    for name, alias, weight in (("", "", 1), ("[previous]", f"({held})", 2)):
        (alone,) = bind(parse_objective(f"{weight}*{plain}{alias}"))(signals).values()
        assert values[f"listwise-kl{name}"] == alone
    assert len({*map(float, values.values())}) == 3


def test_the_names_of_every_recipes_terms_are_distinct() -> None:
    """A recipe whose log sums a term that its student is held back by with one that it learns."""
    for name in recipe_names():
        for stage in load_recipe(name).stages:
            keys = [term.key for term in parse_objective(stage.settings["objective"])]
            assert len(keys) == len({*keys}), (name, stage.name)
