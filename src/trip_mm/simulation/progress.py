"""How a run tells people where it stands: log records, plain lines, or a bar on a terminal."""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SECONDS_PER_DAY = 86_400.0
SECONDS_PER_HOUR = 3600.0
PLAIN_INTERVAL_S = 20.0
"""Least time in s between two lines about the same stage."""


def format_duration(seconds: float) -> str:
    """Writes a time in seconds, minutes, hours or days."""
    if seconds < 100.0:
        return f"{seconds:.0f} s"
    if seconds < 2 * SECONDS_PER_HOUR:
        return f"{seconds / 60.0:.0f} min"
    hours = seconds / SECONDS_PER_HOUR
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24.0:.1f} days"


class ProgressListener(Protocol):
    """What the execution of a run reports to."""

    def message(self, text: str) -> None:
        """Says something once."""

    def stage_started(self, label: str, n_steps: int, step: int, unit: str = "steps") -> None:
        """A stage begins at `step` of `n_steps` (0: of unknown length) steps or iterations."""

    def stage_advanced(self, step: int, ns_per_day: float, detail: str) -> None:
        """The current stage has done `step` steps."""

    def stage_finished(self, text: str) -> None:
        """The current stage is done."""

    def stopped(self) -> None:
        """The run ends, finished or not."""


class LineProgress:
    """One line of text per event; at most one line every 20 s while a stage advances.

    Args:
        write: takes each line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._label = ""
        self._n_steps = 0
        self._is_limit = False
        self._begin = (0.0, 0)
        self._last = 0.0

    def message(self, text: str) -> None:
        """Writes a line."""
        self._write(text)

    def stage_started(self, label: str, n_steps: int, step: int, unit: str = "steps") -> None:
        """Writes where the stage begins."""
        self._label, self._n_steps, self._last = label, n_steps, time.monotonic()
        self._is_limit = unit == "iterations"
        self._begin = (self._last, step)
        continued = f", continuing at step {step}" if step else ""
        length = f": {n_steps} {unit}" if n_steps else ""
        self._write(f"{label}{length}{continued}")

    def stage_advanced(self, step: int, ns_per_day: float, detail: str) -> None:
        """Writes steps, speed and time left, now and then."""
        now = time.monotonic()
        if now - self._last < PLAIN_INTERVAL_S:
            return
        self._last = now
        length = f"/{self._n_steps}" if self._n_steps else ""
        speed = f", {ns_per_day:.3g} ns/day" if ns_per_day > 0 else ""
        more = "".join(f", {text}" for text in (detail, self._time_left(now, step)) if text)
        self._write(f"{self._label}: step {step}{length}{speed}{more}")

    def _time_left(self, now: float, step: int) -> str:
        """Estimates it from the stage so far; empty where its length is unknown or a limit."""
        start, first = self._begin
        if step <= first or not self._n_steps or self._is_limit:
            return ""
        seconds = (now - start) / (step - first) * max(0, self._n_steps - step)
        return f"{format_duration(seconds)} left"

    def stage_finished(self, text: str) -> None:
        """Writes the stage's result."""
        self._write(f"{self._label}: {text}")

    def stopped(self) -> None:
        """Nothing is left to write."""


def logging_progress() -> LineProgress:
    """Returns a listener that writes to the logger `trip_mm`, for use from Python."""
    return LineProgress(logging.getLogger("trip_mm").info)


class BarProgress:
    """A bar with steps, ns/day and time left on a terminal.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}% {task.fields[detail]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            speed_estimate_period=600.0,
        )
        self._task: TaskID | None = None

    def message(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(text, markup=False)

    def stage_started(self, label: str, n_steps: int, step: int, unit: str = "steps") -> None:
        """Starts a bar."""
        self._bars.start()
        total = n_steps or None
        self._task = self._bars.add_task(label, total=total, completed=step, detail="")

    def stage_advanced(self, step: int, ns_per_day: float, detail: str) -> None:
        """Moves the bar."""
        if self._task is not None:
            speed = f"{ns_per_day:.3g} ns/day " if ns_per_day > 0 else ""
            self._bars.update(self._task, completed=step, detail=speed + detail)

    def stage_finished(self, text: str) -> None:
        """Fills the bar and prints the stage's result beside it."""
        if self._task is not None:
            total = self._bars.tasks[self._bars.task_ids.index(self._task)].total
            self._bars.update(self._task, total=total or 1, completed=total or 1, detail=text)

    def stopped(self) -> None:
        """Leaves the terminal in order."""
        self._bars.stop()
