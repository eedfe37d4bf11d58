"""`trip-mm train`: trains a model from labelled conformations."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console, require_training_packages


def command(
    config: Annotated[Path, typer.Argument(help="Training configuration (YAML).")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory of the run; runs/train-NAME if absent.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue after the last checkpoint in --out.")
    ] = False,
) -> None:
    """Train a model, or a committee, as CONFIG says, and export it as safetensors."""
    require_training_packages()
    from trip_mm.training.config import load_training_config
    from trip_mm.training.progress import TrainingBar
    from trip_mm.training.trainer import train

    run_directory = out or Path("runs") / f"train-{load_training_config(config).name}"
    if console.is_terminal:
        with TrainingBar(console) as bar:
            train(config, run_directory, resume=resume, report=bar.report, tell=bar.tell)
        return
    train(
        config,
        run_directory,
        resume=resume,
        report=lambda line: console.print(line, markup=False, soft_wrap=True),
    )
