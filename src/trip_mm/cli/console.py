"""What every subcommand shares: the console and the one-line form of deliberate errors."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from trip_mm.dependencies import require
from trip_mm.errors import TripError
from trip_mm.simulation.interruption import RunInterrupted

P = ParamSpec("P")
R = TypeVar("R")

_SIGNAL_EXIT = 128
_ANY_WIDTH = 10_000

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)


def reporting_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Wraps a command so that a `TripError` prints one `error:` line and exits with status 2.

    Work that a signal stopped is no error: the line says how to continue, and the status is 128 +
    signal.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except RunInterrupted as error:
            error_console.print(str(error), markup=False)
            raise typer.Exit(_SIGNAL_EXIT + error.signal_number) from error
        except TripError as error:
            error_console.print("[bold red]error:[/] ", end="")
            error_console.print(str(error), markup=False)
            raise typer.Exit(2) from error

    return wrapped


def print_table(table: Table) -> None:
    """Prints a table in which nothing is cut off, with title and caption on lines of their own.

    On a terminal, cells of columns without `no_wrap` break between words; elsewhere a row is a
    line. A table that is still too wide for the terminal runs over: a long line is better than a
    missing digit.

    Args:
        table: loses title and caption.
    """
    title, caption, table.title, table.caption = table.title, table.caption, None, None
    if title is not None:
        console.print(title, style="italic", soft_wrap=True)
    width = max(_width_needed(table), console.width)
    Console(
        file=console.file, width=width, force_terminal=console.is_terminal, highlight=False
    ).print(table)
    if caption is not None:
        console.print(caption, style="dim", soft_wrap=True)


def _width_needed(table: Table) -> int:
    options = console.options.update(max_width=_ANY_WIDTH)
    needed = Measurement.get(console, options, table).maximum
    if not console.is_terminal:
        return needed
    prose = [
        [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
        for column in table.columns
        if not column.no_wrap
    ]
    # rich narrows the widest columns until all are equal: each gets room for the longest word.
    word = max((cell.minimum for cells in prose for cell in cells), default=0)
    saved = [max(cell.maximum for cell in cells) - word for cells in prose]
    return needed - sum(max(0, columns) for columns in saved)


def require_training_packages() -> None:
    """Refuses to train without the extra `train`, before its packages are imported.

    Raises:
        MissingDependencyError: Lightning or TensorBoard is not installed.
    """
    for package, program in (("lightning", "Lightning"), ("tensorboard", "TensorBoard")):
        require(package, f"training needs {program}", "train")
