"""Say what this computer and environment offer, and how to get what is missing.

    python -m retrodistill.doctor
    python -m retrodistill.doctor --json

Nothing is changed, and nothing reaches the network. Put the output into a bug report.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import DoctorConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(DoctorConfig, doctor, verb="doctor", about=__doc__, words=words)


def doctor(config: DoctorConfig) -> None:
    """Print the findings, as lines or as JSON."""
    import json
    from dataclasses import asdict

    from retrodistill.stages.reporting.environment import as_lines, examine

    findings = examine()
    if config.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(as_lines(findings))


if __name__ == "__main__":
    sys.exit(main())
