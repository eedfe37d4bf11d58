"""Quantum chemistry computes on one thread and leaves the threads of the process as they were."""

import json
import os
import subprocess
import sys

import pytest

CALCULATE = """
import numpy as np
from trip_mm.training.labels_methods import find_method
def alkane(n):
    rows = [(6, 1.25 * k, 0.85 * (k % 2), 0.0) for k in range(n)]
    for k in range(n):
        up = 1 if k % 2 else -1
        rows += [(1, 1.25 * k, 0.85 * (k % 2) + 0.6 * up, 0.9 * side) for side in (1, -1)]
    rows += [(1, -0.9, 0.6, 0.0), (1, 1.25 * (n - 1) + 0.9, 0.85 * ((n - 1) % 2) + 0.6, 0.0)]
    return np.array([row[0] for row in rows]), np.array([row[1:] for row in rows])
numbers, positions = alkane({n_carbons})
method = find_method({method!r})
"""

MEASURE = """
import time
before = time.process_time(), time.thread_time()
method.calculate(numbers, positions, 0)
spent = time.process_time() - before[0], time.thread_time() - before[1]
"""

PRINT = """
import json, os, torch
print(json.dumps([torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS"), spent]))
"""


def outcome(code: str, **environment: str) -> tuple[int, str | None, list[float]]:
    """Runs code in a process of its own: threads of torch, OMP_NUM_THREADS, CPU seconds."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    n_threads, variable, spent = json.loads(done.stdout.splitlines()[-1])
    return n_threads, variable, spent


@pytest.fixture(scope="module")
def fresh() -> int:
    """Threads of torch in a process that does nothing else."""
    return outcome("spent = []\n" + PRINT)[0]


@pytest.mark.parametrize("first", ["import torch\n", ""], ids=["torch-first", "torch-last"])
@pytest.mark.parametrize(
    ("package", "method", "n_carbons"), [("tblite", "gfn2", 20), ("pyscf", "lda,vwn/6-31g*", 1)]
)
def test_labels_leave_the_threads_of_torch(
    fresh: int, first: str, package: str, method: str, n_carbons: int
) -> None:
    pytest.importorskip(package, reason=f"labels need {package}")
    code = first + CALCULATE.format(method=method, n_carbons=n_carbons) + MEASURE + PRINT
    n_threads, variable, (of_process, of_this_thread) = outcome(code)
    assert n_threads == fresh
    assert variable is None
    assert of_process - of_this_thread < 0.05 * of_process + 0.02


def test_the_environment_may_ask_for_more_threads() -> None:
    pytest.importorskip("tblite", reason="labels by GFN2-xTB need tblite")
    code = CALCULATE.format(method="gfn2", n_carbons=30) + MEASURE + PRINT
    n_threads, variable, (of_process, of_this_thread) = outcome(code, OMP_NUM_THREADS="2")
    assert (n_threads, variable) == (2, "2")
    assert of_process > 1.2 * of_this_thread
