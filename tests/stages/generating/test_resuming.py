"""A run that is killed, and run again: nothing is lost, nothing half-written is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fakes.corpus import save_small_collection
from fakes.llm_server import Reply, completion, serve


def answer(prompt: str) -> Reply:
    doc = prompt.rpartition("Document: ")[2].partition("\n")[0]
    return completion(f"what is known about {' '.join(doc.split()[:4])}?")


def slow(prompt: str) -> Reply:
    reply = answer(prompt)
    reply.delay = 0.15
    return reply


def command(corpus: Path, out: Path) -> list[str]:
    words = ["--data", f"beir:{corpus}", "--writer", "llm:m", "--held-out", "3", "--quiet"]
    words += ["--option", "concurrency=2", "--near-duplicates", "1", "--out", str(out)]
    return [sys.executable, "-m", "retrodistill.generate", *words]


def content(out: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(out.rglob("*")) if path.suffix in (".jsonl", ".tsv")]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    """Answers that are paid twice, or half a folder that passes for a whole one."""
    corpus = save_small_collection(tmp_path / "corpus", docs=30, train=4, test=2)

    def environment(url: str, cache: str) -> dict[str, str]:
        paths = {"OPENAI_BASE_URL": url, "RETRODISTILL_CACHE": str(tmp_path / cache)}
        return {**os.environ, **paths}

    with serve(slow) as server:
        killed = subprocess.Popen(
            command(corpus, tmp_path / "killed"), env=environment(server.url, "one")
        )
        deadline = time.monotonic() + 60
        while len(server) < 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        asked = len(server)
        assert 10 <= asked < 30
    assert not (tmp_path / "killed").exists()
    with serve(answer) as server:
        for cache in ("one", "two"):
            before = len(server)
            out = tmp_path / ("killed" if cache == "one" else "whole")
            subprocess.run(command(corpus, out), env=environment(server.url, cache), check=True)
            paid = len(server) - before
            assert paid <= 30 - (asked - 2) if cache == "one" else paid == 30
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert {*content(tmp_path / "whole")} == {
        "queries.jsonl",
        "generated.jsonl",
        "held-out.jsonl",
        "qrels/generated.tsv",
        "qrels/held-out.tsv",
    }
    leftovers = [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not leftovers
