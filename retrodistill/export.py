"""Export a student to ONNX or OpenVINO, if it stays as good as it was.

    python -m retrodistill.export --model students/kl --data beir:handbook --out exports/kl
    python -m retrodistill.export --model students/kl --data beir:handbook --out exports/fast \\
        --format openvino --precision int8-static --min-speedup 2
    python -m retrodistill.export --model packaged:all-MiniLM-L6-v2 --data builtin:pydocs \\
        --precision int8 --out exports/minilm

The folder is the student's, with onnx/model.onnx or openvino/openvino_model.xml: what
SentenceTransformer(folder, backend="onnx") and servers load. Before it is written, the graph is
measured beside the float32 model in PyTorch on the documents and queries of --split: cosines,
nDCG@10, speed, bytes. The exit status is 1, and nothing is written, where a limit is not met.
"""

import sys
from collections.abc import Sequence

from retrodistill.base.command import run
from retrodistill.base.config import ExportConfig


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 1 the gate failed, 2 a user's mistake)."""
    return run(ExportConfig, export, verb="export", about=__doc__, words=words)


def export(config: ExportConfig) -> int:
    """Export, print what was measured, and return 1 if the gate failed, else 0."""
    from retrodistill.stages import preflight

    preflight.export(config)
    from retrodistill.stages.exporting.gate import COLUMNS
    from retrodistill.stages.pipelines import verbs
    from retrodistill.stages.reporting.tables import print_table

    exported = verbs.export(config)
    measured = exported.measured
    title = f"{measured.queries:,} queries, {measured.texts:,} {measured.noun}"
    print_table(COLUMNS, measured.rows(), title=title)
    for failure in measured.failures:
        print(f"Failed: {failure}")
    for difference in exported.differences:
        print(f"text-embeddings-inference: {difference}")
    print(f"{config.out} is not written." if measured.failures else config.out)
    if exported.url:
        print(f"Pushed: {exported.url}")
    return int(bool(measured.failures))


if __name__ == "__main__":
    sys.exit(main())
