"""Workers that fill one store at once, and those that die at it."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fakes.corpus import save_small_collection
from fakes.ray_cluster import lose_a_node

from retrodistill.base import executor
from retrodistill.base.config import MineSettings, ScoreConfig
from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.base.executor import execute, visible_devices
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.runs import Run
from retrodistill.score import score
from retrodistill.stages.mining import mine_candidates

TEACHER = '''
"""Teachers that write down whom and what they are asked, and meet their end as they are told."""

import os, signal, time
from pathlib import Path
import numpy as np
from retrodistill.base.errors import DataError

class Steady:
    """10 ms a call; waits at the start until there are two of its kind."""

    scale, unit, fingerprint = "logit", "pair", "steady"
    crew = 2

    def __init__(self, argument, collection, **_):
        self.log, self.calls = Path(argument), 0
        (self.log.parent / f"worker-{os.getpid()}").touch()
        end = time.monotonic() + 60
        while len(list(self.log.parent.glob("worker-*"))) < self.crew and time.monotonic() < end:
            time.sleep(0.01)

    def score(self, pairs):
        self.calls += 1
        time.sleep(0.01)
        rows = zip(pairs.query_rows, pairs.doc_rows)
        ids = [f"{pairs.queries[q].id} {pairs.docs[d].id}" for q, d in rows]
        with open(self.log, "a") as log:
            log.write("".join(f"{os.getpid()} {pair}\\n" for pair in ids))
        self.end()
        return np.array([float(len(pair)) for pair in ids], np.float32)

    def end(self):
        pass

class Slow(Steady):
    def end(self):
        time.sleep(0.1)

class OneDies(Steady):
    def end(self):
        if self.calls == 3 and not self.log.with_suffix(".dead").exists():
            self.log.with_suffix(".dead").touch()
            os.kill(os.getpid(), signal.SIGKILL)

class Alone(Steady):
    crew = 1

class DiesLate(Alone):
    def end(self):
        if self.calls == 25:
            os.kill(os.getpid(), signal.SIGKILL)

class DiesAtOnce(Alone):
    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Refuses(Alone):
    def end(self):
        raise DataError("the moon is full")

class Breaks(Alone):
    def end(self):
        class StrangeError(Exception):
            pass
        raise StrangeError("cannot be pickled")
'''
SHARD = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_collection(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture(scope="module")
def candidates(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("candidates") / "run"
    mine_candidates(
        load_collection(f"beir:{data}"), "train", settings=MineSettings(depth=10)
    ).write(folder)
    return folder


class Job:
    """A scoring job with one of the teachers above, and what it leaves."""

    def __init__(self, folder: Path, data: Path, candidates: Path) -> None:
        self.folder, self.data, self.candidates = folder, f"beir:{data}", candidates
        self.log, self.out = folder / "log", folder / "scores"
        (folder / "executor_teachers.py").write_text(TEACHER)

    def run(self, teacher: str, name: executor.Executor = "processes", workers: int = 2) -> None:
        config = ScoreConfig(
            data=self.data,
            candidates=self.candidates,
            teacher=f"executor_teachers:{teacher}:{self.log}",
            out=self.out,
            shard_pairs=SHARD,
        )
        shards = self.out / "shards"
        execute(
            partial(score, config),
            executor=name,
            workers=workers,
            done=lambda: len(list(shards.glob("*.parquet"))),
        )

    def asked(self) -> Counter[str]:
        return Counter(line.split(" ", 1)[1] for line in self.log.read_text().splitlines())

    def workers(self) -> set[str]:
        return {line.split()[0] for line in self.log.read_text().splitlines()}

    def check_table(self, extra: int) -> None:
        """The table is that of an undisturbed run, and at most `extra` pairs were paid twice."""
        wanted = {
            query: {doc: float(len(f"{query} {doc}")) for doc in own}
            for query, own in Run.read(self.candidates).to_dict().items()
        }
        assert Run.read(self.out).to_dict() == wanted
        assert len(Run.read(self.out)) == sum(map(len, wanted.values()))
        asked = self.asked()
        assert sum(asked.values()) - len(asked) <= extra


@pytest.fixture
def job(
    tmp_path: Path, data: Path, candidates: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Job]:
    monkeypatch.syspath_prepend(tmp_path)
    return Job(tmp_path, data, candidates)


def test_processes_share_one_store(job: Job) -> None:
    """Two workers that score the same pairs twice, or one that does it all."""
    job.run("Steady")
    job.check_table(extra=0)
    assert len(job.workers()) == 2
    assert str(os.getpid()) not in job.workers()


def test_what_a_killed_worker_leaves_is_done(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    """A job that waits for ever, or ends with holes, after the system has killed one process."""
    job.run("OneDies")
    job.check_table(extra=SHARD)
    assert "died with exit code -9" in capsys.readouterr().err
    assert len(job.workers()) == 2


def test_workers_that_all_die_are_started_anew(job: Job) -> None:
    """A night's work lost to one crash, where starting again would have gone on."""
    job.run("DiesLate", workers=1)
    assert len(job.workers()) == 2
    job.check_table(extra=SHARD)


SCRIPT = """
import os, sys, time
from functools import partial
from pathlib import Path
from retrodistill.base.executor import execute

def note_and_wait(folder):
    Path(folder, str(os.getpid())).write_text(os.environ["OMP_NUM_THREADS"])
    time.sleep(60)

def main():
    execute(partial(note_and_wait, sys.argv[1]), executor="processes", workers=2, done=int)

GUARD
    main()
"""


def started(script: Path, folder: Path, **environment: str) -> subprocess.Popen[str]:
    words = [sys.executable, str(script), str(folder)]
    return subprocess.Popen(words, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


def noted(folder: Path, count: int) -> list[Path]:
    """Wait until so many workers have written their names, and return the files."""
    end = time.monotonic() + 60
    while len(names := list(folder.iterdir())) < count and time.monotonic() < end:
        time.sleep(0.02)
    return names


def test_no_worker_outlives_a_killed_command(tmp_path: Path) -> None:
    """Orphans that hold a GPU's memory, and go on asking a paid model (69 shards after the end)."""
    (tmp_path / "script.py").write_text(SCRIPT.replace("GUARD", 'if __name__ == "__main__":'))
    folder = tmp_path / "workers"
    folder.mkdir()
    with started(tmp_path / "script.py", folder, OMP_NUM_THREADS="7") as process:
        workers = noted(folder, 2)
        process.kill()
    assert len(workers) == 2
    assert [path.read_text() for path in workers] == ["7", "7"], "the user's number of threads"
    end = time.monotonic() + 10
    while (alive := [path.name for path in workers if is_alive(path.name)]) and (
        time.monotonic() < end
    ):
        time.sleep(0.02)
    assert alive == []


def is_alive(process: str) -> bool:
    """Tell whether a process runs; one that has ended may wait for its parent to look."""
    try:
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_script_without_a_guard_is_explained(tmp_path: Path) -> None:
    """Advice about memory to somebody whose script starts workers that start workers."""
    (tmp_path / "script.py").write_text(SCRIPT.replace("GUARD", "if True:"))
    with started(tmp_path / "script.py", tmp_path) as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "if __name__ ==" in said.splitlines()[-1]
    assert "out of memory" not in said


def test_a_job_that_cannot_be_opened_is_the_users_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That all workers died, where a model's folder is not there on the workers."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "only_on_a_worker.py").write_text(
        "from retrodistill.base.errors import DataError\n\n"
        "class Job:\n"
        "    def __reduce__(self):\n"
        "        return fail, ()\n\n"
        "def fail():\n"
        "    raise DataError('the files are gone')\n"
    )
    from only_on_a_worker import Job as Lost  # type: ignore[import-not-found]

    with pytest.raises(DataError, match="^the files are gone$"):
        execute(Lost(), executor="processes", workers=1, done=int)


def test_workers_that_only_die_are_given_up(job: Job) -> None:
    """Processes that are started for ever, each of which dies at once."""
    with pytest.raises(ConfigError, match="all workers died .* fewer --workers"):
        job.run("DiesAtOnce", workers=1)


def test_an_error_of_the_user_comes_back_as_itself(job: Job) -> None:
    """A traceback of multiprocessing in place of the one sentence that helps."""
    with pytest.raises(DataError, match=r"^the moon is full$"):
        job.run("Refuses", workers=1)


def test_an_error_of_a_library_comes_back_readable(job: Job) -> None:
    """An exception that cannot be sent, which then looks like a killed worker."""
    with pytest.raises(RuntimeError, match="StrangeError: cannot be pickled"):
        job.run("Breaks", workers=1)


def test_a_missing_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ModuleNotFoundError instead of the command that helps."""
    monkeypatch.setattr(executor, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install"):
        execute(int, executor="ray", done=int)


def test_devices_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers on GPUs that a scheduler has given to somebody else."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, MIG-7")
    assert visible_devices() == ["3", "MIG-7"]


SCORING = """
from functools import partial
from retrodistill.base.config import ScoreConfig
from retrodistill.base.executor import execute
from retrodistill.score import score

data, candidates, teacher, out = words
config = ScoreConfig(
    data=data, candidates=Path(candidates), teacher=teacher, out=Path(out), shard_pairs=5
)
shards = Path(out, "shards")
done = lambda: len(list(shards.glob("*.parquet")))
execute(partial(score, config), executor="ray", workers=2, done=done)
"""


@pytest.mark.slow
def test_a_ray_node_that_dies_is_replaced(job: Job) -> None:
    """Shards of a lost node that nobody scores, or a job that waits for the node for ever."""
    pytest.importorskip("ray")
    words = [job.data, job.candidates, f"executor_teachers:Slow:{job.log}", job.out]
    before, after = lose_a_node(
        SCORING, words, log=job.log, lines=40, folder=job.folder, timeout=180
    )
    job.check_table(extra=SHARD)
    assert len(before) == 2
    assert len(after) == 1
