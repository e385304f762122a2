"""Several workers that do one job at once: processes of a machine, or tasks of Ray.

Each worker runs the whole job, as a single process would. The job's locks share its parts out (the
shards of a score store, the parts of a vector cache), so nothing passes between workers, and a
worker that returns has seen every part finished. Workers on several machines need the same paths
on a shared file system that has `flock` (NFSv4, Lustre and CephFS have it), and retrodistill on
each. A worker ends with the process that started it, however that ends.
"""

import ctypes
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext, redirect_stderr
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any

from retrodistill.base.config import Executor
from retrodistill.base.errors import ConfigError, MissingExtra, RetrodistillError
from retrodistill.base.logging import log

Job = Callable[[], object]
"""What a worker does, and does again in another's place; it can be pickled."""

Outcomes = Generator[tuple[int, Exception | None]]
"""Each worker's number and its error, as they end."""

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent ends."""

RETRIES = 3
"""How often Ray starts a task again whose process or node has died."""


OUT_OF_MEMORY = (
    "If the machine is out of memory, use fewer --workers or smaller batches; `--executor local` "
    "shows more."
)
UNSTARTED = (
    "Their own messages are above. A script that starts workers must do so below "
    '`if __name__ == "__main__":`, for each worker imports it.'
)


class WorkerDiedError(Exception):
    """A worker was killed, or crashed without an exception.

    `ended` tells whether it ended by itself, as where it cannot start, rather than by a signal.
    """

    def __init__(self, message: str, *, ended: bool = False) -> None:
        super().__init__(message)
        self.ended = ended


def execute(
    job: Job, *, executor: Executor = "local", workers: int | None = None, done: Callable[[], int]
) -> None:
    """Run a job in several workers, until one of them returns.

    What a worker that dies or fails leaves is done by the others. If all of them die they are
    started again, as long as `done`, the number of finished parts, grows. `workers` is one a GPU
    if it is not given, or one in all (with Ray: one a node).

    Raises:
        ConfigError: all workers die before they finish a part.
        MissingExtra: Ray is not installed.
        Exception: the first worker's error, if none returns.

    """
    if executor == "local":
        job()
        return
    crew = {"processes": processes, "ray": ray_tasks}[executor]
    while True:
        before = done()
        errors = []
        ended = False
        with closing(crew(job, workers)) as outcomes:
            for number, error in outcomes:
                if error is None:
                    return
                log.info(f"worker {number} ended: {error}")
                if isinstance(error, WorkerDiedError):
                    ended |= error.ended
                else:
                    errors.append(error)
        if errors:
            raise errors[0]
        if done() == before:
            hint = UNSTARTED if ended else OUT_OF_MEMORY
            raise ConfigError(f"all workers died before they finished a part. {hint}")
        log.info("no worker is left: they are started again and resume.")


def processes(job: Job, workers: int | None) -> Outcomes:
    """Start processes on this machine; yield how each ended, and stop the rest when closed.

    Each sees one GPU, if there are any, and has its share of the CPU's threads, or as many as
    OMP_NUM_THREADS says.
    """
    devices = visible_devices()
    workers = workers or max(1, len(devices))
    threads = str(max(1, len(os.sched_getaffinity(0)) // workers))
    threads = os.environ.get("OMP_NUM_THREADS", threads)
    context = get_context("spawn")
    packed = pickle.dumps(job)  # opened after the worker is set up: it may load a model
    crew = {}
    try:
        for number in range(workers):
            environment = {"OMP_NUM_THREADS": threads}
            if devices:
                environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_process, args=(packed, number, environment, theirs), daemon=True
            )
            process.start()
            theirs.close()
            crew[ours] = (number, process)
        while crew:
            for pipe in wait(list(crew)):
                assert isinstance(pipe, Connection)
                number, process = crew.pop(pipe)
                yield number, _said(pipe, process)
    finally:
        for _, process in crew.values():
            process.terminate()
            process.join()


def _said(pipe: Connection, process: Any) -> Exception | None:
    """Return a process's error, or how it died."""
    try:
        error: Exception | None = pipe.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        return WorkerDiedError(f"its process died with exit code {code}", ended=code > 0)
    return error


def _process(job: bytes, number: int, environment: dict[str, str], pipe: Connection) -> None:
    """Run a job in this process, which ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_parent()
    os.environ.update(environment)  # before the job imports torch
    pipe.send(_error_of(lambda: pickle.loads(job)(), number))


def _end_with_parent() -> None:
    """Have this process ended when its parent ends: by the kernel (Linux), and by a thread.

    The kernel does it at once, even where this process is in the middle of a long operation; the
    thread does it elsewhere, and where the parent has ended already.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    Thread(target=_wait_and_end, daemon=True).start()


def _wait_and_end() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _error_of(job: Job, number: int) -> Exception | None:
    """Run the job and return its error, in a form that can be sent to another process.

    Only worker 0 speaks: all have the same to say.
    """
    try:
        with (
            open(os.devnull, "w") if number else nullcontext(sys.stderr) as stderr,
            redirect_stderr(stderr),
        ):
            job()
    except RetrodistillError as error:
        return error
    except Exception as error:
        told = traceback.format_exc()
        if type(error).__module__ != "builtins":
            return RuntimeError(told)
        error.add_note(told)
        return error
    return None


def ray_tasks(job: Job, workers: int | None) -> Outcomes:
    """Start tasks on a Ray cluster; yield how each ended, and cancel the rest when closed.

    The cluster is the one that this process is connected to, else that of RAY_ADDRESS or of this
    machine, else one that lives for this call. A task has one GPU, if the cluster has any, and a
    share of the smallest node's CPUs.
    """
    if find_spec("ray") is None:
        raise MissingExtra("--executor ray needs the package ray: pip install 'retrodistill[ray]'.")
    ray = import_module("ray")
    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        ray.init(include_dashboard=False)
    refs = {}
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Resources"].get("CPU")]
        devices = int(sum(node.get("GPU", 0) for node in nodes))
        workers = workers or devices or len(nodes)
        share = min(int(node["CPU"]) for node in nodes) // -(-workers // len(nodes))
        task = ray.remote(_error_of).options(
            num_cpus=max(1, share),
            num_gpus=1 if devices else 0,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )
        refs = {task.remote(job, number): number for number in range(workers)}
        while refs:
            for ref in ray.wait(list(refs))[0]:
                number = refs.pop(ref)
                try:
                    yield number, ray.get(ref)
                except ray.exceptions.RayError as error:
                    yield number, WorkerDiedError(f"Ray gave it up ({type(error).__name__})")
    finally:
        for ref in refs:
            ray.cancel(ref, force=True)
        if ours:
            ray.shutdown()


def visible_devices() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [name.strip() for name in given.split(",")] if given else map(str, range(count))
    return list(named)[:count]
