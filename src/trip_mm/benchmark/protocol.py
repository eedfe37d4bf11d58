"""How a benchmark talks with its workers: one line of JSON on each pipe. Standard library only.

A worker is told its task on the command line, answers that it is ready, then obeys lines:
`{"steps": 10, "seconds": 5.0}` makes steps and is answered by their times; `{"finish": true}` is
answered by what is known at the end, and the worker leaves. Whatever libraries print goes to
standard error.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(
    ready: dict[str, Any],
    step: Callable[[], None],
    pipe: Any,
    beside: Callable[[], None] = lambda: None,
    finish: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Obeys the lines on standard input until it is told to finish, or input ends.

    Args:
        ready: what to say first.
        step: makes one step; returns when its results are in host memory.
        pipe: of `claim_output`.
        beside: called after each step, outside its time.
        finish: returns what else is known at the end.
    """
    _say(pipe, ready)
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("finish"):
            peak = peak_memory_mib()
            _say(pipe, {"peak_memory_mib": peak, **finish()})
            return
        times: list[float] = []
        cpu_times: list[float] = []
        while len(times) < order["steps"] and sum(times) < order["seconds"]:
            start, cpu_start = time.perf_counter(), time.process_time()
            step()
            times.append(time.perf_counter() - start)
            cpu_times.append(time.process_time() - cpu_start)
            beside()
        _say(pipe, {"seconds": times, "cpu_seconds": cpu_times})


def claim_output() -> Any:
    """Keeps standard output for the answers, and sends everything else there to standard error."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def peak_memory_mib() -> float:
    """Returns the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _say(pipe: Any, answer: dict[str, Any]) -> None:
    pipe.write(json.dumps(answer) + "\n")
    pipe.flush()
