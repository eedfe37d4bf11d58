"""What every subcommand shares: the console and the one-line form of deliberate errors."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console

from trip_mm.dependencies import require
from trip_mm.errors import TripError
from trip_mm.simulation.interruption import RunInterrupted

P = ParamSpec("P")
R = TypeVar("R")

_SIGNAL_EXIT = 128

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


def require_training_packages() -> None:
    """Refuses to train without the extra `train`, before its packages are imported.

    Raises:
        MissingDependencyError: Lightning or TensorBoard is not installed.
    """
    for package, program in (("lightning", "Lightning"), ("tensorboard", "TensorBoard")):
        require(package, f"training needs {program}", "train")
