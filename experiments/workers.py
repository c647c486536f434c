"""
Who runs the replications: this process, local worker processes, or a Dask cluster.

All three take the same tasks and yield the same results, in whatever order they end; what a task
yields depends on the task alone.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from importlib import import_module
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, Protocol, Self

from simsched.errors import SimschedError
from simsched.experiments.replicate import Finished, Task, run_task


class Workers(Protocol):
    """Runs tasks; used in a `with` block, which leaves none of them behind."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: Any) -> None: ...
    def finished(self, tasks: Sequence[Task]) -> Iterator[Finished]:
        """The results, as they come."""
        ...


def workers_for(jobs: int | None, cluster: str | None) -> Workers:
    """
    The workers that were asked for.

    Args:
        jobs: processes; None takes all cores, 1 this process alone.
        cluster: address of a Dask scheduler, instead of local processes.

    """
    if cluster is not None:
        return DaskCluster(cluster)
    count = jobs if jobs is not None else os.cpu_count() or 1
    return HereAlone() if count == 1 else LocalProcesses(count)


class HereAlone:
    """The calling process, one task after another."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def finished(self, tasks: Sequence[Task]) -> Iterator[Finished]:
        """The results in the order of the tasks."""
        for task in tasks:
            yield run_task(task)


class LocalProcesses:
    """
    Worker processes of this machine: one pipe and at most one task each.

    No threads and no shared queue, so that they can be ended at any moment: with the standard
    executor, an interruption while a task is on its way to a dying worker can hang for ever.
    """

    def __init__(self, count: int) -> None:
        methods = multiprocessing.get_all_start_methods()
        method = "forkserver" if "forkserver" in methods else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(["simsched.experiments.replicate"])
        self._count = count
        self._workers: dict[Connection, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # A run cannot be asked to stop; what it did so far is worth nothing.
        for process in self._workers.values():
            process.terminate()
        for pipe, process in self._workers.items():
            process.join()
            pipe.close()
        self._workers.clear()

    def finished(self, tasks: Sequence[Task]) -> Iterator[Finished]:
        """The results, as they come."""
        waiting = deque(tasks)
        while len(self._workers) < min(self._count, len(tasks)):
            self._start()
        idle = deque(self._workers)
        busy: list[Connection] = []
        try:
            while waiting or busy:
                while waiting and idle:
                    pipe = idle.popleft()
                    pipe.send(waiting.popleft())
                    busy.append(pipe)
                for ready in connection.wait(busy):
                    assert isinstance(ready, Connection)
                    busy.remove(ready)
                    idle.append(ready)
                    yield _result_of(ready.recv())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise SimschedError(
                "a worker process was killed (out of memory?): "
                "what was finished is kept, run again to go on, perhaps with fewer --jobs"
            ) from None

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        self._workers[ours] = process


def _work(pipe: Connection) -> None:
    """A worker's life: tasks in, results or errors out, until the pipe closes."""
    # Ctrl-C is the parent's to handle; what is loaded by now is no garbage to look through.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer: Finished | SimschedError | str = run_task(task)
        except SimschedError as error:
            answer = SimschedError(f"{error} ({'; '.join(error.__notes__)})")
        except Exception:
            answer = traceback.format_exc()
        pipe.send(answer)


def _result_of(answer: Finished | SimschedError | str) -> Finished:
    if isinstance(answer, SimschedError):
        raise answer
    if isinstance(answer, str):
        raise RuntimeError(f"a replication failed in a worker process:\n{answer}")
    return answer


class DaskCluster:
    """The workers of a Dask cluster."""

    def __init__(self, address: str) -> None:
        try:
            self._dask: Any = import_module("distributed")
        except ImportError:
            raise SimschedError(
                "--cluster needs the extra `cluster`: pip install 'simsched[cluster]'"
            ) from None
        try:
            self._client = self._dask.Client(address, timeout="10s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise SimschedError(f"--cluster {address}: cannot be reached: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def finished(self, tasks: Sequence[Task]) -> Iterator[Finished]:
        """The results, as they come."""
        # pure=False: a key by content would have to hash whole scenarios.
        futures = [self._client.submit(run_task, task, pure=False) for task in tasks]
        for future in self._dask.as_completed(futures, loop=self._client.loop):
            result: Finished = future.result()
            yield result
