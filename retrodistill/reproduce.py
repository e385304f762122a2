"""Reproduce the numbers of a result card, which `evaluate --card` has written.

    python -m retrodistill.reproduce kl.yaml
    python -m retrodistill.reproduce kl.yaml --out again
    python -m retrodistill.reproduce kl.yaml --out again --from-scratch --tolerance 0

Runs that lie where the card says are measured again; those that are missing or have changed are
made again below --out, with all that they are made from. Run it again after a kill: what is
finished there is kept. The exit status is 2 where a number is not the card's.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import ReproduceConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(ReproduceConfig, reproduce, verb="reproduce", about=__doc__, words=words)


def reproduce(config: ReproduceConfig) -> None:
    """Get a card's numbers again, print them beside the card's, and raise where they differ."""
    from retrodistill.stages import preflight

    preflight.reproduce(config)  # before anything that takes long to import
    from retrodistill.stages.pipelines.reproduce.card_files import read_card
    from retrodistill.stages.pipelines.reproduce.reproduction import reproduce_card
    from retrodistill.stages.reporting.tables import print_table

    reproduction = reproduce_card(
        read_card(config.card_path),
        config.data,
        config.qrels,
        out=config.out,
        from_scratch=config.from_scratch,
        trust_custom_code=config.trust_custom_code,
    )
    if reproduction.remade:
        print_table(
            ("made again", "in", "compared with the card"),
            [
                (artifact, folder, f"differs: {difference}" if difference else "equal")
                for artifact, folder, difference in reproduction.remade
            ],
        )
    print_table(
        ("system", "measure", "card", "now", "difference"),
        [
            (system, metric, f"{before:.6f}", f"{now:.6f}", f"{now - before:+.2g}")
            for system, metric, before, now in reproduction.means
        ],
    )
    reproduction.check(config.tolerance)


if __name__ == "__main__":
    sys.exit(main())
