"""Where independent tasks are computed: this process, several of them, or a Dask cluster.

The caller gets the results as they come and writes them down, so that a lost worker costs its task
once more and nothing is ever written twice.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from trip_mm.dependencies import require
from trip_mm.errors import ConfigError, DataError

Key = TypeVar("Key")
Task = TypeVar("Task")
Result = TypeVar("Result")

_TASKS_PER_WORKER = 2
_CONNECT_TIMEOUT_S = 20


@dataclass(frozen=True)
class Workers:
    """Where to compute.

    Attributes:
        processes: on this machine; 1 computes in the calling process.
        scheduler: address of a Dask scheduler, such as `tcp://10.0.0.1:8786`; None for none.

    Raises:
        ConfigError: both several processes and a scheduler.
        MissingDependencyError: a scheduler, and Dask is not installed.
    """

    processes: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        """Refuses two places at once."""
        if self.scheduler is not None and self.processes > 1:
            raise ConfigError(
                f"--processes {self.processes} and --scheduler {self.scheduler}: the workers of "
                "the scheduler compute, so leave --processes out"
            )
        if self.scheduler is not None:
            require("distributed", "--scheduler needs Dask", "cluster")


def results(
    workers: Workers,
    function: Callable[[Task], Result],
    tasks: Iterable[tuple[Key, Task]],
    name: Callable[[Key], str] = str,
) -> Generator[tuple[Key, Result], None, None]:
    """Yields the result of every task under its key, as they finish.

    Close it (`contextlib.closing`) to stop early: tasks in work are given up.

    Args:
        workers: where to compute.
        function: from a task to its result; it and the tasks must pickle, unless this process
            computes.
        tasks: keys and tasks, independent of each other; at most two per worker are taken at once.
        name: from a key to what an error calls the task.

    Raises:
        ConfigError: nothing answers at its address.
        DataError: the scheduler was lost, or workers died again and again on one task, which is
            named.
    """
    if workers.scheduler is not None:
        return _on_cluster(function, iter(tasks), workers.scheduler, name)
    if workers.processes > 1:
        return _in_processes(function, iter(tasks), workers.processes, name)
    return ((key, function(task)) for key, task in tasks)


def _in_processes(
    function: Callable[[Task], Result],
    tasks: Iterator[tuple[Key, Task]],
    processes: int,
    name: Callable[[Key], str],
) -> Generator[tuple[Key, Result], None, None]:
    """Computes in processes; what a dying one took with it is tried once more, one at a time."""
    while lost := (yield from _until_one_dies(function, tasks, processes)):
        deadly = []
        for key, task in lost:
            if (yield from _until_one_dies(function, iter([(key, task)]), 1)):
                deadly.append(name(key))
        if deadly:
            raise DataError(
                f"{', '.join(deadly)}: the process that computes it died twice, the second time "
                "with no other beside it (out of memory, killed, or a crash of the program that "
                "computes); what is finished is kept: run the same command again with more memory, "
                "or leave this out"
            )


def _until_one_dies(
    function: Callable[[Task], Result], tasks: Iterator[tuple[Key, Task]], processes: int
) -> Generator[tuple[Key, Result], None, list[tuple[Key, Task]]]:
    """Yields results until there is no task left or a process dies; returns what it took along."""
    pending: dict[Future[Result], tuple[Key, Task]] = {}
    lost: list[tuple[Key, Task]] = []
    with _pool(processes) as pool:
        while True:
            room = 0 if lost else _TASKS_PER_WORKER * processes - len(pending)
            for item in islice(tasks, room):
                try:
                    pending[pool.submit(function, item[1])] = item
                except BrokenProcessPool:
                    lost.append(item)
                    break
            if not pending:
                return lost
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                item = pending.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    lost.append(item)
                else:
                    yield item[0], result


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose workers end at once when this process dies, or when the block is left early."""
    # spawn: a forked child inherits the OpenMP state of the libraries loaded here.
    context = multiprocessing.get_context("spawn")
    leash, held_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, context, _end_with, (leash,))
    try:
        yield pool
        pool.shutdown()
    finally:
        # After an exception nobody waits for what is still computed.
        held_end.close()
        pool.shutdown(cancel_futures=True)
        leash.close()


def _end_with(leash: Connection) -> None:
    """Prepares a worker: it ends when the other end of the pipe is closed.

    The kernel closes it when the process that holds it dies, whatever the cause. A worker waiting
    for its next task would otherwise never notice.
    """
    # Ctrl-C reaches every process of a terminal; the one that holds the leash decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.connection.wait([leash])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_cluster(
    function: Callable[[Task], Result],
    tasks: Iterator[tuple[Key, Task]],
    address: str,
    name: Callable[[Key], str],
) -> Generator[tuple[Key, Result], None, None]:
    """Computes on a cluster whose workers may come and go.

    Dask gives the tasks of a lost worker to another one. Workers need trip-mm and the programs that
    compute, but no file of this machine.
    """
    from distributed import Client, KilledWorker, as_completed

    try:
        client = Client(address, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"scheduler {address}: no answer ({error}); start one with `dask scheduler`"
        ) from None
    keys: dict[Any, Key] = {}
    with client:
        finished = as_completed()
        try:
            while True:
                n_threads = sum(client.nthreads().values())
                room = max(_TASKS_PER_WORKER * n_threads, 1) - len(keys)
                for key, task in islice(tasks, max(room, 0)):
                    # pure=False: equal tasks must not share a cached result of another version.
                    future = client.submit(function, task, pure=False)
                    keys[future] = key
                    finished.add(future)
                if not keys:
                    return
                future = next(finished)
                key = keys.pop(future)
                try:
                    result = future.result()
                except KilledWorker as error:
                    raise DataError(
                        f"{name(key)}: {error.last_worker.address} and other workers of {address} "
                        "died on it (out of memory, killed, or a crash of the program that "
                        "computes); what is finished is kept: run the same command again with more "
                        "memory for each worker, or leave this out"
                    ) from None
                yield key, result
        except (CancelledError, OSError) as error:
            raise DataError(
                f"scheduler {address} was lost ({type(error).__name__}); what is finished is kept: "
                "run the same command again"
            ) from None
