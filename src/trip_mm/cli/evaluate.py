"""`trip-mm evaluate`: errors of potentials on labelled conformations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trip_mm.cli.console import console, error_console, print_table
from trip_mm.errors import ConfigError
from trip_mm.files import make_directory

if TYPE_CHECKING:
    from trip_mm.evaluation.tables import Table
    from trip_mm.geometry.potentials import PotentialSpec

_DATA_SUFFIXES = (".h5", ".hdf5", ".xyz", ".extxyz")


def command(
    potentials_and_data: Annotated[
        list[str],
        typer.Argument(
            metavar="POTENTIAL... DATA...",
            help="Potentials: trip-gfn2-s, MODEL.safetensors, gfn2, wb97x/6-31g*, "
            "openmm-ml:ani2x, amber14. Data: files (.h5, .hdf5, .xyz, .extxyz) or directories.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Directory for JSON, Markdown, CSV, pictures and predictions."
        ),
    ] = None,
    offsets: Annotated[
        str,
        typer.Option(
            help="Shift predicted energies by one fitted offset per element: auto (where the "
            "level of theory differs), none or element."
        ),
    ] = "auto",
    reference: Annotated[
        str | None,
        typer.Option(help="A potential whose predictions take the place of the labels."),
    ] = None,
    device: Annotated[str, typer.Option(help="Of TrIP networks: cpu or cuda.")] = "cpu",
) -> None:
    """Print energy and force errors of potentials on labelled data, per subset and pooled.

    With --out the predictions are kept there, and the same command continues after a kill.
    """
    from trip_mm.evaluation.evaluation import Offsets, evaluate_potentials
    from trip_mm.evaluation.journal import PredictionJournal
    from trip_mm.evaluation.predictors import predictor
    from trip_mm.evaluation.report import JOURNAL_FILE, write_report
    from trip_mm.evaluation.tables import all_tables
    from trip_mm.geometry.potentials import parse_potential
    from trip_mm.training.dataset import Dataset

    specs, data = sort_arguments(potentials_and_data)
    if offsets not in list(Offsets):
        raise ConfigError(f"--offsets {offsets!r} is unknown; use {', '.join(Offsets)}")
    dataset = Dataset.open(*data)
    predictors = [predictor(spec, device) for spec in specs]
    labelling = None if reference is None else predictor(parse_potential(reference), device)
    n_predictions = len(dataset) * (len(specs) + (labelling is not None))
    if out is not None:
        make_directory(out)
    journal = PredictionJournal(None if out is None else out / JOURNAL_FILE)
    try:
        from rich.progress import Progress

        # Where it draws nothing, it would still leave an empty line.
        quiet = not error_console.is_terminal
        with Progress(console=error_console, transient=True, disable=quiet) as progress:
            task = progress.add_task("conformations", total=n_predictions)
            evaluation = evaluate_potentials(
                dataset,
                predictors,
                journal,
                Offsets(offsets),
                lambda count: progress.advance(task, count),
                labelling,
            )
    finally:
        journal.close()
    for table in all_tables(evaluation):
        _print(table)
    if out is not None:
        for path in write_report(evaluation, out, [str(path) for path in data]):
            console.print(str(path), markup=False, soft_wrap=True)


def sort_arguments(arguments: list[str]) -> tuple[list["PotentialSpec"], list[Path]]:
    """Tells potentials from data: by suffix, then by what names a potential, then directories.

    Raises:
        ConfigError: an argument is neither, two potentials have the same name in tables, or one
            kind is missing.
    """
    from trip_mm.geometry.potentials import check_distinct, parse_potential

    specs: list[PotentialSpec] = []
    data: list[Path] = []
    for argument in arguments:
        if argument.lower().endswith(_DATA_SUFFIXES):
            data.append(Path(argument))
            continue
        try:
            spec = parse_potential(argument)
        except ConfigError as error:
            if not Path(argument).is_dir():
                raise ConfigError(f"{error}; data are files or directories") from error
            data.append(Path(argument))
            continue
        specs.append(spec)
    check_distinct(specs)
    if not specs:
        raise ConfigError("no potential is named; put one before the data, such as trip-gfn2-s")
    if not data:
        raise ConfigError("no data are named; give a file of labelled conformations (.h5, .xyz)")
    return specs, data


def _print(table: "Table") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = RichTable(title=escape(table.title), box=box.SIMPLE_HEAD, pad_edge=False)
    for column, header in enumerate(table.headers):
        shown.add_column(header, justify="left" if column < table.n_text else "right", no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    print_table(shown)
    for note in table.notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)
    console.print()
