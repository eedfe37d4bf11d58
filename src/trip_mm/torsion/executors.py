"""Where the pieces of a benchmark run: this process, processes beside it, or a Dask cluster."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TypeVar

from trip_mm.errors import BackendError, ConfigError, MissingDependencyError

Task = TypeVar("Task")
Result = TypeVar("Result")

_CONNECT_TIMEOUT_S = 30


@dataclass(frozen=True)
class Workers:
    """Where to compute.

    Attributes:
        processes: on this machine; 1 computes in the calling process.
        scheduler: address of a Dask scheduler, such as `tcp://host:8786`; empty for none.

    Raises:
        ConfigError: both several processes and a scheduler.
    """

    processes: int = 1
    scheduler: str = ""

    def __post_init__(self) -> None:
        if self.scheduler and self.processes > 1:
            raise ConfigError("give either --processes or --scheduler, not both")


def outcomes(
    workers: Workers, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[tuple[Task, Result]]:
    """Yields every task with its result as they finish.

    Args:
        workers: where to compute.
        function: of a module, so that other processes find it.
        tasks: independent of each other; a Dask cluster gets them by pickle.

    Raises:
        BackendError: the scheduler does not answer.
        MissingDependencyError: a scheduler is named and Dask is not installed.
    """
    if workers.scheduler:
        return _on_cluster(workers.scheduler, function, tasks)
    if workers.processes > 1:
        return _in_processes(workers.processes, function, tasks)
    return ((task, function(task)) for task in tasks)


def _in_processes(
    processes: int, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[tuple[Task, Result]]:
    # spawn: a forked child inherits the OpenMP state of the libraries loaded here.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {pool.submit(function, task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _on_cluster(
    address: str, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[tuple[Task, Result]]:
    try:
        from distributed import Client
        from distributed import as_completed as as_dask_completed
    except ImportError:
        raise MissingDependencyError(
            "--scheduler needs Dask; pip install 'trip-mm[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise BackendError(
            f"Dask scheduler {address}: does not answer ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        # pure=False: equal tasks of two runs must not share a cached result of another version.
        futures = client.map(function, tasks, pure=False)
        task_of = {future.key: task for future, task in zip(futures, tasks, strict=True)}
        for future, result in as_dask_completed(futures, with_results=True):
            yield task_of[future.key], result
