"""Processes that compute: they end with the one that started them, and early when it stops."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from trip_mm.errors import DataError
from trip_mm.workers import Workers, results

DRIVER = """
import sys, time
from functools import partial
from pathlib import Path
from test_workers import noting_work
from trip_mm.workers import Workers, results

if __name__ == "__main__":
    compute = partial(noting_work, Path(sys.argv[1]), 60.0)
    list(results(Workers(processes=2), compute, ((n, n) for n in range(8))))
"""


def noting_work(folder: Path, seconds: float, number: int) -> int:
    """Leaves a file named after the process, and takes its time over all but task 0."""
    (folder / str(os.getpid())).touch()
    time.sleep(seconds if number else 0.0)
    return number


def is_running(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return found.stdout.strip() not in ("", "Z")


def happens(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER, encoding="utf-8")
    noted = tmp_path / "noted"
    noted.mkdir()
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(driver), str(noted)], env={**os.environ, "PYTHONPATH": path}
    )
    assert happens(lambda: len(list(noted.iterdir())) == 2, 60.0)
    workers = [int(path.name) for path in noted.iterdir()]
    assert all(map(is_running, workers))
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        assert happens(lambda: not any(map(is_running, workers)), 5.0)
    finally:
        for worker in filter(is_running, workers):
            os.kill(worker, signal.SIGKILL)


def test_tasks_in_work_are_given_up_when_nobody_waits(tmp_path: Path) -> None:
    compute = partial(noting_work, tmp_path, 30.0)
    tasks = ((n, n) for n in range(8))
    with closing(results(Workers(processes=2), compute, tasks)) as found:
        assert next(found) == (0, 0)
        start = time.monotonic()
    assert time.monotonic() - start < 5.0
    assert not any(is_running(int(path.name)) for path in tmp_path.iterdir())


def deadly_work(folder: Path, once: bool, number: int) -> int:
    """Kills its own process at task 2, only the first time if `once`."""
    mark = folder / "died"
    if number == 2 and not (once and mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return number


def test_a_dying_process_costs_its_tasks_once_more(tmp_path: Path) -> None:
    compute = partial(deadly_work, tmp_path, True)
    found = results(Workers(processes=2), compute, ((n, n) for n in range(9)))
    assert sorted(found) == [(n, n) for n in range(9)]


def test_the_task_that_kills_its_process_is_named(tmp_path: Path) -> None:
    compute = partial(deadly_work, tmp_path, False)
    tasks = ((n, n) for n in range(3))
    found = []
    finished = results(Workers(processes=2), compute, tasks, lambda n: f"part {n}")
    with pytest.raises(DataError, match=r"^part 2: the process .* died twice.* is kept: run the"):
        found.extend(finished)
    assert sorted(found) == [(0, 0), (1, 1)]
