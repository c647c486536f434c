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
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from types import TracebackType
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
    """Worker processes of this machine."""

    def __init__(self, count: int) -> None:
        methods = multiprocessing.get_all_start_methods()
        method = "forkserver" if "forkserver" in methods else "spawn"
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["simsched.experiments.replicate"])
        self._before = multiprocessing.active_children()
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_settle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is not None:
            # A run cannot be asked to stop; what it did so far is worth nothing.
            for child in multiprocessing.active_children():
                if child not in self._before:
                    child.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def finished(self, tasks: Sequence[Task]) -> Iterator[Finished]:
        """The results, as they come."""
        futures = [self._pool.submit(run_task, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise SimschedError(
                "a worker process was killed (out of memory?): "
                "what was finished is kept, run again to go on, perhaps with fewer --jobs"
            ) from None


def _settle() -> None:
    """Ctrl-C is the parent's to handle; what is loaded by now is no garbage to look through."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()


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
