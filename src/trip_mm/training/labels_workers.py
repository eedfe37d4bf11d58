"""Where labels are computed: in this process, in several, or on the workers of a Dask cluster.

Each function takes tasks (a number and what to compute on), hands them out and yields the results
as they come. The caller writes them down, so that a lost worker costs its task once more and
nothing is ever written twice.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

from trip_mm.errors import ConfigError, DataError, MissingDependencyError

T = TypeVar("T")
R = TypeVar("R")

_TASKS_PER_WORKER = 2
_CONNECT_TIMEOUT_S = 20


def compute_here(
    compute: Callable[[T], R], tasks: Iterator[tuple[int, T]]
) -> Iterator[tuple[int, R]]:
    """Computes one task after the other."""
    for number, task in tasks:
        yield number, compute(task)


def compute_in_processes(
    compute: Callable[[T], R], tasks: Iterator[tuple[int, T]], processes: int
) -> Iterator[tuple[int, R]]:
    """Computes on several processes of this machine; `compute` must pickle."""
    # spawn: a forked child inherits the OpenMP state of the libraries loaded here.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        pending: dict[Future[R], int] = {}
        while True:
            for number, task in islice(tasks, _TASKS_PER_WORKER * processes - len(pending)):
                pending[pool.submit(compute, task)] = number
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()


def compute_on_cluster(
    compute: Callable[[T], R], tasks: Iterator[tuple[int, T]], address: str
) -> Iterator[tuple[int, R]]:
    """Computes on the workers of a Dask scheduler; `compute` must pickle.

    Workers may come and go: Dask gives the tasks of a lost worker to another one. They need
    trip-mm and the program that labels, but no file of this machine.

    Args:
        compute: from a task to its result.
        tasks: numbers and tasks; at most two per worker's thread are handed out at a time.
        address: of the scheduler, such as `tcp://10.0.0.1:8786`.

    Raises:
        MissingDependencyError: Dask is not installed.
        ConfigError: nothing answers at the address.
        DataError: the scheduler was lost, or workers died again and again on one task.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise MissingDependencyError(
            "--scheduler needs Dask; pip install 'trip-mm[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"scheduler {address}: no answer ({error}); start one with `dask scheduler`"
        ) from None
    numbers: dict[Any, int] = {}
    with client:
        finished = as_completed()
        try:
            while True:
                n_threads = sum(client.nthreads().values())
                room = max(_TASKS_PER_WORKER * n_threads, 1) - len(numbers)
                for number, task in islice(tasks, max(room, 0)):
                    future = client.submit(compute, task, pure=False)
                    numbers[future] = number
                    finished.add(future)
                if not numbers:
                    return
                future = next(finished)
                yield numbers.pop(future), future.result()
        except KilledWorker as error:
            raise DataError(f"workers of {address} died on a task: {error}") from None
        except (CancelledError, OSError) as error:
            raise DataError(
                f"scheduler {address} was lost ({type(error).__name__}); what is finished is kept: "
                "run the same command again"
            ) from None
