"""`trip-mm resume`: continues an interrupted run."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run_dir: Annotated[Path, typer.Argument(help="Directory of the run.")],
    backend: Annotated[
        str | None, typer.Option(help="Another force backend of TrIP than before.")
    ] = None,
    platform: Annotated[
        str | None, typer.Option(help="Another OpenMM platform; random numbers are then new.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Another number of CPU threads.")] = None,
) -> None:
    """Continue an interrupted run to the exact step."""
    from trip_mm.cli.run_output import finish, listener
    from trip_mm.workflow import resume

    finish(
        lambda: resume(
            run_dir, backend=backend, platform=platform, threads=threads, progress=listener()
        )
    )
