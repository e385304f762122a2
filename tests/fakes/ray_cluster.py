"""Work on a cluster of two Ray nodes, one of which loses its plug midway."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CLUSTER = """
import sys, threading, time
from pathlib import Path
import psutil, ray
from ray.cluster_utils import Cluster

log, lines, *words = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
second = cluster.add_node(num_cpus=2)
ray.init(address=cluster.address)

def kill():
    while not Path(log).exists() or Path(log).read_text().count("\\n") < int(lines):
        time.sleep(0.01)
    raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:  # as if its plug were pulled
        process.kill()
    print("killed after", Path(log).read_text().count("\\n"))

killer = threading.Thread(target=kill, daemon=True)
killer.start()
WORK
killer.join()
ray.shutdown()
cluster.shutdown()
"""


def lose_a_node(
    work: str, words: Sequence[object], *, log: Path, lines: int, folder: Path, timeout: int
) -> tuple[set[str], set[str]]:
    """Run Python's lines of `work`, which find `words`; kill a node at line `lines` of the log.

    A line of the log starts with the name of who worked. `folder` is where modules are found.
    Return who worked before the end of the node, and who after.
    """
    environment = {
        "PYTHONPATH": str(folder),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # everything stays on the loopback device
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    script = CLUSTER.replace("WORK", work)
    done = subprocess.run(
        [sys.executable, "-c", script, str(log), str(lines), *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    message = re.search(r"killed after (\d+)", done.stdout)
    assert message is not None, done.stdout
    killed = int(message[1])
    workers = [line.split()[0] for line in log.read_text().splitlines()]
    return set(workers[:killed]), set(workers[killed:])
