"""`trip-mm evaluate`: errors of a model on labelled conformations."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console


def command(
    model: Annotated[str, typer.Argument(help="Registered model or checkpoint file.")],
    data: Annotated[
        list[Path], typer.Argument(help="Labelled data: our HDF5, ANI-1x, COMP6, extended XYZ.")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the numbers to this file too.")
    ] = None,
) -> None:
    """Print the energy and force errors of MODEL on DATA, per class of systems and pooled."""
    import json

    from trip_mm.checkpoint import load_potential
    from trip_mm.training.dataset import Dataset
    from trip_mm.training.evaluate import evaluate, format_accuracies

    potential = load_potential(model)
    found = evaluate(potential, Dataset.open(*data))
    for line in format_accuracies(found):
        console.print(line, markup=False, soft_wrap=True)
    if json_file is not None:
        numbers = {name: accuracy.to_dict() for name, accuracy in found.items()}
        document = {"model": potential.name, "sha256": potential.sha256, "accuracy": numbers}
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
