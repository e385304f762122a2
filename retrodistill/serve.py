"""Serve students over HTTP: embeddings, search, reranking, and a page to search with.

    python -m retrodistill.serve --index indexes/kl
    python -m retrodistill.serve --index kl=indexes/kl --index old=indexes/old \\
        --reranker cross-encoder:MODEL --port 8080
    python -m retrodistill.serve --index indexes/kl --changes changes --api-key-file keys.txt
    python -m retrodistill.serve --model students/kl

`/v1/embeddings` and `/v1/models` are OpenAI's interface, `/rerank` that of Cohere and Jina;
`/search` is the whole pipeline. `/` is a page for people, `/docs` describes the interface,
`/metrics` is for Prometheus. SIGHUP opens all folders again without losing a request.
"""

import os
import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import ServeConfig

KERNELS = ("LRU_CACHE_CAPACITY", "64")
"""Environment variable, and value, of how many oneDNN kernels PyTorch keeps: one for each shape of
a batch, 1,024 by default, which are a gigabyte in time."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 stopped, 2 a mistake of the user)."""
    return run(ServeConfig, serve, verb="serve", about=__doc__, words=words)


def serve(config: ServeConfig) -> None:
    """Serve until the process is asked to end; requests that run are answered then."""
    from retrodistill.stages import preflight

    preflight.serve(config)
    os.environ.setdefault(*KERNELS)  # read when torch is loaded
    from retrodistill.stages.serving.server import run_server

    run_server(config)


if __name__ == "__main__":
    sys.exit(main())
