"""Settings of `quickstart` and `doctor`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickstartConfig:
    """Settings of `python -m retrodistill.quickstart`."""

    data: str = "builtin:pydocs"
    """Collection to make a student for."""

    queries: str | None = None
    """Query log to distil from as well: a file of queries without labels."""

    model: str | None = None
    """Model to start from (default: packaged:all-MiniLM-L6-v2)."""

    out: Path = Path("quickstart")
    """Folder for all that is made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """Settings of `python -m retrodistill.doctor`."""

    json: bool = False
    """Print the findings as JSON."""
