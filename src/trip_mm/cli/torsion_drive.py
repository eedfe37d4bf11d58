"""`trip-mm torsion drive`, `fetch` and `reference`: torsion benchmarks over sets of molecules."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trip_mm.cli.console import console, print_table, reporting_errors
from trip_mm.errors import DataError

if TYPE_CHECKING:
    from trip_mm.torsion.benchmark import Benchmark

Processes = Annotated[int, typer.Option(min=1, help="Processes to work with.")]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler, as tcp://host:8786.")
]
Elements = Annotated[str, typer.Option(help="Records with other elements are left out.")]
Cache = Annotated[
    Path | None, typer.Option(help="Of fetched records; default ~/.cache/trip-mm/torsion.")
]


def _announce(line: str) -> None:
    console.print("  " + line, markup=False, soft_wrap=True)


@reporting_errors
def drive(
    dataset: Annotated[str, typer.Argument(help="Set by name, file or directory; see the docs.")],
    potential: Annotated[
        list[str] | None, typer.Option(help="To judge; repeat for several.")
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="relax: own geometries by geomeTRIC. relax-batched: all grid points of a record "
            "together. single-point: the reference's geometries."
        ),
    ] = "relax",
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")] = Path(
        "torsion-drive"
    ),
    elements: Elements = "H,C,N,O",
    level: Annotated[str, typer.Option(help="Level of theory, if the set states none.")] = "",
    processes: Processes = 1,
    scheduler: Scheduler = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 1,
    cache: Cache = None,
) -> None:
    """Benchmark potentials on the torsion drives of DATASET; run it again to continue.

    DATASET is reference (shipped), our HDF5 or JSON, an OpenFF collection, SDF with tags, or a
    directory with scan.xyz and qdata.txt. See docs/torsion-drives.md.
    """
    from trip_mm.geometry.potentials import parse_potential
    from trip_mm.torsion.benchmark import benchmark
    from trip_mm.torsion.drive import DriveSettings
    from trip_mm.torsion.filters import parse_elements
    from trip_mm.torsion.record_sets import open_set
    from trip_mm.workers import Workers

    names = potential or ["trip-gfn2-s"]
    settings = DriveSettings(
        tuple(parse_potential(text) for text in names), mode, parse_elements(elements), seed=seed
    )
    workers = Workers(processes, scheduler)
    records = open_set(dataset, level, cache)
    command = _command(dataset, names, mode, elements, level, seed)
    done = benchmark(records, settings, out, workers, _announce, command)
    _print(done, out)
    if not done.result.outcomes:
        raise DataError(f"{dataset}: no record can be benchmarked{_how_to_fetch(done)}")


def _command(
    dataset: str, potentials: list[str], mode: str, elements: str, level: str, seed: int
) -> str:
    """Returns the command without what does not change the results."""
    words = ["trip-mm", "torsion", "drive", dataset]
    for name in potentials:
        words += ["--potential", name]
    words += ["--mode", mode, "--elements", elements, "--seed", str(seed)]
    if level:
        words += ["--level", level]
    return shlex.join(words)


def _print(done: "Benchmark", out: Path) -> None:
    from rich.table import Table

    from trip_mm.torsion.filters import NO_GEOMETRY, counts_by_reason
    from trip_mm.torsion.report import SCORE_TITLES, decimals_of, interval

    result = done.result
    console.print(f"{len(result.dataset.records)} records read", markup=False)
    for reason, n in counts_by_reason(s.reason for s in result.skipped).items():
        console.print(f"  {n} skipped: {reason}", markup=False)
    if any(s.reason == NO_GEOMETRY for s in result.skipped) and result.outcomes:
        console.print(_how_to_fetch(done).lstrip("; "), markup=False, soft_wrap=True)
    for spec in result.settings.potentials if result.outcomes else ():
        own = result.of(spec)
        failed = counts_by_reason(o.reason for o in own if not o.is_done)
        text = ", ".join(f"{n} skipped: {reason}" for reason, n in failed.items())
        n_done = len(own) - sum(failed.values())
        console.print(f"  {spec.label}: {n_done} done{', ' if text else ''}{text}", markup=False)
    for level in dict.fromkeys(summary.level for summary in done.summaries):
        here = [summary for summary in done.summaries if summary.level == level]
        table = Table(title=f"against {level}, mean [95 % interval]")
        table.add_column("")
        for summary in here:
            table.add_column(f"{summary.potential} ({summary.n_records})", justify="right")
        for name, title in SCORE_TITLES.items():
            cells = [interval(s.scores[name]["mean"], decimals_of(name)) for s in here]
            if any(cell != "–" for cell in cells):
                table.add_row(title, *cells)
        print_table(table)
    names = "report.md, profiles.html, results.parquet, points.parquet, summary.json"
    console.print(f"{out}: {names if result.outcomes else 'report.md, results.parquet'}")


def _how_to_fetch(done: "Benchmark") -> str:
    collection = done.result.dataset.collection
    if collection is None:
        return ""
    name = shlex.quote(str(collection))
    return (
        "; geometries and energies are on the server. With a network: "
        f"pip install 'trip-mm[qcarchive]' && trip-mm torsion fetch {name}"
    )


@reporting_errors
def fetch(
    collection: Annotated[Path, typer.Argument(help="OpenFF collection of torsion drives (JSON).")],
    elements: Elements = "H,C,N,O",
    cache: Cache = None,
) -> None:
    """Fetch geometries and energies of a COLLECTION into a local cache; run again to continue."""
    from trip_mm.torsion.filters import NO_GEOMETRY, admit, parse_elements
    from trip_mm.torsion.qcarchive import default_cache, fetch, portal
    from trip_mm.torsion.record_sets import open_collection, open_set

    place = cache or default_cache()
    admitted, skipped = admit(
        open_set(str(collection), "", place).records, parse_elements(elements)
    )
    wanted = {s.record.record_id for s in skipped if s.reason == NO_GEOMETRY}
    entries = [entry for entry in open_collection(collection) if entry.record_id in wanted]
    console.print(f"{len(admitted)} records at hand, {len(entries)} to fetch")
    failed = fetch(entries, place, portal, _announce, collection.name)
    for key, reason in failed.items():
        _announce(f"{key}: {reason}")
    console.print(f"{place}: {len(entries) - len(failed)} fetched, {len(failed)} not usable")


@reporting_errors
def reference(
    recipe: Annotated[Path, typer.Argument(help="YAML file, see recipes/torsion-reference.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")],
    processes: Processes = 1,
    scheduler: Scheduler = None,
) -> None:
    """Make a reference set: drive the molecules of RECIPE; run it again to continue."""
    from trip_mm.torsion.reference import load_recipe, make_reference
    from trip_mm.workers import Workers

    result = make_reference(load_recipe(recipe), out, Workers(processes, scheduler), _announce)
    console.print(
        f"{result.path}: {len(result.records)} torsions, {len(result.skipped)} skipped",
        soft_wrap=True,
    )
