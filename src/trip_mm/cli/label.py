"""`trip-mm label`: energies and forces for geometries."""

from pathlib import Path
from typing import Annotated

import typer

from trip_mm.cli.console import console


def command(
    geometries: Annotated[Path, typer.Argument(help="Geometries from trip-mm sample (HDF5).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of labels to write (HDF5).")],
    method: Annotated[
        str, typer.Option(help="gfn2, gfn1, or functional/basis such as wb97x/6-31g*.")
    ] = "gfn2",
    processes: Annotated[int, typer.Option(min=1, help="Processes to work with.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Dask scheduler whose workers compute, such as tcp://10.0.0.1:8786."),
    ] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Geometries in one part.")] = 100,
    max_force: Annotated[
        float, typer.Option(help="Drop conformations with a larger force (eV/A).")
    ] = 30.0,
    multiplicity: Annotated[
        int | None,
        typer.Option(min=1, help="Spin multiplicity of all geometries; else that of the file."),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option(min=1, help="Label only so many, from the begin of the file (shuffled)."),
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option(help="Labels of the same method, taken over where they fit. Repeatable."),
    ] = None,
) -> None:
    """Label geometries with energies and forces; run it again to resume."""
    import time

    from trip_mm.training.dataset import Dataset
    from trip_mm.training.labels import LabelJob, LabelProgress, label

    job = LabelJob(
        geometries, out, method, chunk, max_force, multiplicity, first, tuple(known or [])
    )
    start = time.monotonic()

    def report(progress: LabelProgress) -> None:
        without = sum(progress.failures.values())
        console.print(
            f"{progress.n_done} of {progress.n_total} done, {without} without a label, "
            f"{time.monotonic() - start:.0f} s"
        )

    path = label(job, processes, report, scheduler)
    dataset = Dataset.open(path)
    n_without = sum(dataset.failures.values())
    console.print(f"{path}: {len(dataset)} labelled, {n_without} without a label", soft_wrap=True)
    for reason, count in sorted(dataset.failures.items(), key=lambda item: (-item[1], item[0])):
        console.print(f"{count:8d}  {reason}", soft_wrap=True, markup=False)
    if job.parts.is_dir():
        needed = f"; keep them to label more into {path}" if first is not None else ""
        console.print(f"the parts in {job.parts} may be removed{needed}", soft_wrap=True)
