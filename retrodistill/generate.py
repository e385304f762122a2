"""Generate queries from documents: titles and headings, or what a language model would ask.

    python -m retrodistill.generate --data docs:handbook --out queries
    python -m retrodistill.generate --data docs:handbook --writer titles --writer causal-lm:MODEL \\
        --docs 5000 --held-out 50 --round-trip 20 --out queries
    python -m retrodistill.generate --data docs:handbook --writer llm:NAME --kind question \\
        --kind claim --option max_cost=2 --option price_in=0.1 --option price_out=0.4 --out queries

Writes queries with their source documents as judgements, for use with the same documents:
`--data docs:handbook,queries=queries/queries.jsonl,qrels=queries/qrels --split generated`.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import GenerateConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(GenerateConfig, generate, verb="generate", about=__doc__, words=words)


def generate(config: GenerateConfig) -> None:
    """Generate, write the queries, and print their folder."""
    from retrodistill.stages import preflight

    preflight.generate(config)
    from retrodistill.stages.pipelines import verbs

    verbs.generate(config)
    print(config.out)


if __name__ == "__main__":
    sys.exit(main())
