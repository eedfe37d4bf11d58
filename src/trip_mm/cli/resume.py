"""`trip-mm resume`: continues an interrupted run, or a finished one for longer."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run_dir: Annotated[Path, typer.Argument(help="Directory of the run.")],
    until: Annotated[
        str | None,
        typer.Option(help="Total duration of the last stage, such as '100 ps', to make it longer."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Another force backend of TrIP than before.")
    ] = None,
    platform: Annotated[
        str | None, typer.Option(help="Another OpenMM platform; random numbers are then new.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Another number of CPU threads.")] = None,
) -> None:
    """Continue an interrupted run to the exact step, or a finished one until a longer duration."""
    from trip_mm.cli.run_output import listener, show_summary
    from trip_mm.workflow import resume

    path = resume(
        run_dir,
        until=until,
        backend=backend,
        platform=platform,
        threads=threads,
        progress=listener(),
    )
    show_summary(path)
