"""Settings of `quickstart` and `doctor`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartConfig:
    """Settings of `python -m retrodistill.quickstart`."""

    data: str = "builtin:pydocs"
    """Collection with train, dev and test queries."""

    queries: str | None = None
    """File of queries without labels to distil from (default: those of the dev split)."""

    model: str | None = None
    """Model to start from (default: packaged:all-MiniLM-L6-v2)."""

    out: Path = Path("quickstart")
    """Folder for all that is made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """Settings of `python -m retrodistill.doctor`."""

    json: bool = False
    """Print the findings as JSON."""
