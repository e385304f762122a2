"""Pages that are generated from the code."""

import re
import sys
from pathlib import Path

import retrodistill
from retrodistill.__main__ import VERBS
from retrodistill.base import registry
from retrodistill.base.registry import LOSSES
from retrodistill.objectives.objective import LossTerm
from retrodistill.objectives.recipes import recipe_names

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
import generate
from losses import methods_page


def test_every_verb_flag_recipe_and_part_is_on_a_page() -> None:
    """A table that is written by hand, and lacks what was added last."""
    flags, parts, recipes = generate.flags_page(), generate.parts_page(), generate.recipes_page()
    for verb in VERBS:
        assert f"\n## {verb}\n" in flags
    assert "`--negative-sampling TEXT`" in flags
    for table in generate.TABLES:
        for name in getattr(registry, table):
            assert f"| `{name or '(no suffix)'}` |" in parts
    for name in recipe_names():
        assert f"\n## {name}\n" in recipes


def test_every_public_name_is_in_the_reference() -> None:
    """A public function that only its source explains."""
    page = generate.python_page()
    for name in set(retrodistill.__all__) - {"__version__"}:
        assert f":: {name}\n" in page


def test_the_page_tells_what_each_loss_needs_and_takes() -> None:
    """A loss that is left out, an alias explained as another loss, a link that leads nowhere."""
    page = methods_page()
    headings = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert sorted(headings) == sorted(LOSSES)
    assert set(re.findall(r"\]\(#(.+?)\)", page)) == set(headings)
    sections = dict(zip(headings, re.split(r"^### .+$", page, flags=re.MULTILINE)[1:], strict=True))
    assert sections["plackett-luce"].strip().startswith("Another name of [listmle](#listmle).")
    for name in LOSSES:
        if "Another name" not in sections[name]:
            assert all(f"`{signal}` (" in sections[name] for signal in LossTerm(name=name).signals)
            assert "Source:" in sections[name]
    assert "`own_negatives=True`" in sections["contrastive"]
    assert "- To give: labels" in sections["contrastive"]


def test_formulas_stay_as_they_were_written() -> None:
    """Two products in a line of prose that Markdown turns into italics; a block that it wraps."""
    page = methods_page()
    assert "\n    tau_kj    = (1 + cos(p+_k, p-_j)) / 2\n" in page
    prose = [line for line in page.splitlines() if not line.startswith("    ")]
    outside = re.sub(r"`[^`]*`", "", "\n".join(prose))
    assert not re.search(r"(?<!\\)[*<]", outside)
