"""The page of all losses."""

import re

from retrodistill.base.registry import LOSSES
from retrodistill.objectives.objective import LossTerm
from retrodistill.stages.reporting.methods import PAGE, methods_page


def test_the_committed_page_is_up_to_date() -> None:
    """A page that explains a loss as it was a year ago."""
    found = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    assert found == methods_page(), f"{PAGE} is out of date: run `make docs`"


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
