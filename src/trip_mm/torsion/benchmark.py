"""The whole torsion benchmark: computed, scored, written as tables, report and page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trip_mm.files import make_directory, write_atomically
from trip_mm.torsion.drive import DriveResult, DriveSettings, run_benchmark
from trip_mm.torsion.drive_tables import require_parquet, write_tables
from trip_mm.torsion.page import html_page
from trip_mm.torsion.record_sets import RecordSet
from trip_mm.torsion.report import markdown
from trip_mm.torsion.summary import Summary, differences, summarize
from trip_mm.workers import Workers

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark.

    Attributes:
        result: outcomes of all records.
        summaries: one for each level of theory and potential.
    """

    result: DriveResult
    summaries: list[Summary]


def benchmark(
    dataset: RecordSet,
    settings: DriveSettings,
    out: Path,
    workers: Workers,
    announce: Announce,
    command: str = "",
) -> Benchmark:
    """Runs a benchmark and writes its results into `out`.

    `results.parquet` (a row for each record and potential), `points.parquet` (a row for each grid
    point), `summary.json`, `report.md`, `profiles.html`, and the journals from which the same call
    continues.

    Raises:
        TripError: as `run_benchmark`; `MissingDependencyError` without pyarrow.
    """
    require_parquet()
    result = run_benchmark(dataset, settings, out, workers, announce)
    summaries = summarize(result)
    compared = differences(result)
    make_directory(out)
    write_tables(result, summaries, compared, out)
    report = markdown(result, summaries, compared, command)
    write_atomically(out / "report.md", report.encode())
    write_atomically(out / "profiles.html", html_page(result, summaries).encode())
    return Benchmark(result, summaries)
