"""Tables from a name to the place of its code."""

import inspect
import subprocess
import sys

import pytest

from retrodistill.base import registry
from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import LOSSES, Registry

TABLES = {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}
ENTRIES = [(table, name) for table, entries in TABLES.items() for name in entries]


@pytest.mark.parametrize(("table", "name"), ENTRIES)
def test_every_entry_resolves(table: str, name: str) -> None:
    """A path that lost its module fails only when a user first asks for that name."""
    assert TABLES[table][name] is not None


def test_unknown_name_names_the_nearest() -> None:
    """A KeyError of one word sends the user into the source."""
    with pytest.raises(ConfigError, match=r"unknown objective 'margin_mse'.*'margin-mse'"):
        LOSSES["margin_mse"]


def test_membership_imports_nothing_and_never_raises() -> None:
    """Mapping's own `in` asks by [], which raises ConfigError here, not KeyError."""
    table = Registry("part", {"broken": "no.such.module:part"})
    assert "broken" in table
    assert "absent" not in table
    assert 3 not in table


def test_a_path_is_a_part_of_one_s_own() -> None:
    """A user's own loss needs no change of this package."""
    assert LOSSES["math:sqrt"](4) == 2


@pytest.mark.parametrize(
    "path", ["no_such_module:part", "math:no_such_part", ":part", "math:", ".math:sqrt"]
)
def test_path_that_leads_nowhere(path: str) -> None:
    """A mistyped path is the user's mistake: exit status 2, not a traceback."""
    with pytest.raises(ConfigError, match="read as module:attribute"):
        LOSSES[path]


def test_a_broken_entry_of_our_own_is_a_crash() -> None:
    """Our own defect must not be blamed on the user's spelling."""
    with pytest.raises(ModuleNotFoundError):
        Registry("part", {"broken": "no.such.module:part"})["broken"]


def test_split_keeps_every_colon_of_the_argument() -> None:
    """`hf:org/data:split` and a Windows path lose their end otherwise."""
    table = Registry("part", {"root": "math:sqrt"})
    part, argument = table.split("root:a:b/c")
    assert part(9) == 3
    assert argument == "a:b/c"
    assert table.split("root")[1] == ""


def test_split_of_an_unknown_name() -> None:
    """`bier:scifact` must name beir, not fail as a module."""
    with pytest.raises(ConfigError):
        Registry("part", {"root": "math:sqrt"}).split("rot")


@pytest.mark.parametrize(
    ("table", "spec", "near"),
    [
        (registry.TEACHERS, "crossencoder:M", "cross-encoder"),
        (registry.TEACHERS, "Cross_Encoder:M", "cross-encoder"),
        (registry.TEACHERS, "colbert:M", "late-interaction"),
        (registry.RETRIEVERS, "bi-encoder:M", "dense"),
        (registry.LOSSES, "infonce", "contrastive"),
        (registry.LOSSES, "InfoNCE", "contrastive"),
        (registry.LOSSES, "mse", "margin-mse"),
        (registry.LOSSES, "kl", "listwise-kl"),
        (registry.LOSSES, "KLDiv", "listwise-kl"),
        (registry.INDEXES, "ivfpq", "ivf-pq"),
    ],
)
def test_other_spellings_and_words_of_the_field_are_understood(
    table: Registry, spec: str, near: str
) -> None:
    """`infonce` without a hint, `mse` answered by 'dse', and all 35 names after the right one."""
    with pytest.raises(ConfigError, match=f"Did you mean '{near}'\\?$"):
        table.split(spec)


def test_every_alias_is_of_a_name() -> None:
    """A hint that names what is not there."""
    for table in TABLES.values():
        assert set(table._aliases.values()) <= set(table)


@pytest.mark.parametrize("name", LOSSES)
def test_a_signature_read_from_the_source_is_the_function_s(name: str) -> None:
    """A setting checked against something else than what is called."""
    expected = inspect.signature(LOSSES[name]).parameters.values()
    read = LOSSES.signature(name).parameters.values()
    assert [(p.name, p.kind, p.default) for p in read] == [
        (p.name, p.kind, p.default) for p in expected
    ]


def test_a_part_of_one_s_own_has_a_signature() -> None:
    """A user's loss whose settings cannot be checked."""
    assert list(LOSSES.signature("textwrap:dedent").parameters) == ["text"]


def test_all_objectives_are_checked_without_torch() -> None:
    """One default that is no literal, and every typo costs the import of torch again."""
    script = (
        "import sys; from retrodistill.base.registry import LOSSES; "
        "[LOSSES.signature(name) for name in LOSSES]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
