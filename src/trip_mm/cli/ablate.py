"""`trip-mm ablate`: the thesis's ablations on one's own data."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console, require_training_packages


def command(
    config: Annotated[Path, typer.Argument(help="Training configuration (YAML).")],
    out: Annotated[Path, typer.Option("--out", help="Directory of the four runs.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the runs that lie in --out.")
    ] = False,
) -> None:
    """Train the thesis's four networks alike and print its Table 5 for them."""
    require_training_packages()
    from trip_mm.training.ablation import ablate
    from trip_mm.training.progress import TrainingBar

    if console.is_terminal:
        with TrainingBar(console) as bar:
            ablate(config, out, resume=resume, report=bar.report, tell=bar.tell)
        return
    ablate(
        config,
        out,
        resume=resume,
        report=lambda line: console.print(line, markup=False, soft_wrap=True),
    )
