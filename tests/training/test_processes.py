"""A training by two processes, as torchrun starts them."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small import save_small_collection

from retrodistill.datasets import load_collection
from retrodistill.manifest import Manifest
from retrodistill.mining import mine_candidates


@pytest.mark.slow
def test_two_processes_train_one_student(tiny_model: Path, tmp_path: Path) -> None:
    """Two processes that write into one folder, wait for each other, or see the same queries."""
    data = save_small_collection(tmp_path / "data")
    run = mine_candidates(load_collection(f"beir:{data}"), "train", depth=20, add_positives=True)
    run.write(tmp_path / "scores")
    words = f"--data beir:{data} --scores {tmp_path / 'scores'} --student {tiny_model} "
    words += f"--out {tmp_path / 's'} --batch-size 4 --max-steps 6 --candidates-per-query 4 "
    words += "--query-tokens 16 --doc-tokens 32 --save-steps 3 --learning-rate 1e-3 "
    words += "--objective listwise-kl-in-batch+contrastive"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
              "--master-port", port, "-m", "retrodistill.train"]  # fmt: skip
    done = subprocess.run([*launch, *words.split()], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "6 steps of 8 queries" in done.stderr
    losses = Manifest.read(tmp_path / "s", kind="student").details["losses"]
    assert losses[-1]["step"] == 6
    assert losses[-1]["contrastive"] < losses[0]["contrastive"]
    assert not (tmp_path / "s.checkpoints").exists()
