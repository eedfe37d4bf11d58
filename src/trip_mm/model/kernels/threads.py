"""Runs a compiled function on ranges of atoms, one range a thread, as many as torch uses."""

import functools
import itertools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_logger = logging.getLogger("trip_mm")


@functools.cache
def _pool(process: int, n_workers: int) -> ThreadPoolExecutor:
    """The threads of this process; a forked child makes its own."""
    return ThreadPoolExecutor(n_workers, thread_name_prefix="trip-mm-kernel")


def run(function: Callable[[int, int, int], None], bounds: NDArray[np.int64]) -> None:
    """Calls `function(worker, first, last)` on consecutive ranges that share the work evenly.

    Args:
        function: releases the GIL.
        bounds: cumulated work before each item, `[n_items + 1]`.
    """
    ranges = split(bounds, torch.get_num_threads())
    if len(ranges) == 1:
        function(0, *ranges[0])
        return
    pool = _pool(os.getpid(), len(ranges) - 1)
    others = [pool.submit(function, i + 1, *span) for i, span in enumerate(ranges[1:])]
    function(0, *ranges[0])
    for other in others:
        other.result()


def n_workers(bounds: NDArray[np.int64]) -> int:
    """Number of ranges that `run` makes."""
    return len(split(bounds, torch.get_num_threads()))


def split(bounds: NDArray[np.int64], n_parts: int) -> list[tuple[int, int]]:
    """Divides items into at most `n_parts` consecutive ranges of similar work."""
    n_items = len(bounds) - 1
    cuts = np.searchsorted(bounds, np.arange(1, n_parts) * (bounds[-1] / n_parts))
    edges = [0, *(int(cut) for cut in cuts), n_items]
    ranges = [(a, b) for a, b in itertools.pairwise(edges) if b > a]
    return ranges or [(0, n_items)]


@functools.cache
def announce(dtype_name: str) -> None:
    """Says once that the first call compiles."""
    _logger.info("loading the CPU kernels for %s (compiled at first use, then cached)", dtype_name)


def flat(tensor: torch.Tensor) -> NDArray[Any]:
    """All elements of a tensor as a flat array: a view where it is contiguous, else a copy."""
    elements: NDArray[Any] = tensor.detach().contiguous().numpy().reshape(-1)
    return elements
