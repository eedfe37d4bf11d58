"""Density of a system at constant pressure, from the logs of its NPT stages."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.analysis.run_directory import require_directory
from trip_mm.analysis.series import SeriesMean, check_skip, equilibrated_mean, series_mean
from trip_mm.errors import RunDirectoryError
from trip_mm.files import read_json
from trip_mm.simulation.reporters import read_table
from trip_mm.simulation.run_directory import (
    LOG_FILE,
    RUN_FILE,
    stage_directory_name,
)

_TIME, _DENSITY = "Time (ps)", "Density (g/mL)"
_FEWEST_ROWS = 10
_FEWEST_INDEPENDENT = 10


@dataclass(frozen=True)
class StageDensity:
    """Density along one NPT stage.

    Attributes:
        stage: its directory name.
        times_ps: since the stage began, `[n_samples]`.
        densities: g/mL, `[n_samples]`.
        mean: over what follows equilibration.
        start_found: whether the start of equilibrium was searched for, rather than given.
    """

    stage: str
    times_ps: NDArray[np.float64]
    densities: NDArray[np.float64]
    mean: SeriesMean
    start_found: bool = True

    @property
    def interval_ps(self) -> float:
        """Time between two samples."""
        return float(self.times_ps[-1] - self.times_ps[0]) / (len(self.times_ps) - 1)

    @property
    def correlation_time_ps(self) -> float:
        """Integrated autocorrelation time."""
        return 0.5 * self.mean.inefficiency * self.interval_ps

    @property
    def is_converged(self) -> bool:
        """Whether the mean rests on ten independent samples, found after at most half the stage."""
        late = self.start_found and self.mean.n_discarded > len(self.times_ps) // 2
        return not late and self.mean.n_effective >= _FEWEST_INDEPENDENT

    @property
    def discarded_ps(self) -> float:
        """Time left out as equilibration."""
        return float(self.times_ps[self.mean.n_discarded] - self.times_ps[0])


def run_densities(run_dir: Path, skip_ps: float | None = None) -> list[StageDensity]:
    """Computes the mean density of every NPT stage of a run that has written enough.

    Args:
        run_dir: directory that `trip-mm run` made; an unfinished run is read as far as it got.
        skip_ps: time to leave out at the begin of each stage; None finds the start of equilibrium.

    Raises:
        ConfigError: the time to leave out is negative or no number.
        RunDirectoryError: no run, no NPT stage, or none with ten rows of densities.
    """
    if skip_ps is not None:
        check_skip(skip_ps)
    require_directory(run_dir)
    record = read_json(run_dir / RUN_FILE)
    stages = [
        run_dir / stage_directory_name(number, stage["name"])
        for number, stage in enumerate(record.get("stages", []))
        if stage.get("kind") == "npt"
    ]
    if not stages:
        raise RunDirectoryError(f"{run_dir}: has no stage at constant pressure (kind: npt)")
    found = [own for stage in stages if (own := stage_density(stage, skip_ps)) is not None]
    if not found:
        raise RunDirectoryError(
            f"{run_dir}: no NPT stage has {_FEWEST_ROWS} rows of densities to average; continue "
            f"with `trip-mm resume {run_dir}`, or skip less"
        )
    return found


def stage_density(stage: Path, skip_ps: float | None) -> StageDensity | None:
    """Computes the mean density of one stage; None where it has fewer than ten rows."""
    table = read_table(stage / LOG_FILE)
    if _TIME not in table or _DENSITY not in table:
        return None
    known = np.isfinite(table[_DENSITY]) & np.isfinite(table[_TIME])
    times, densities = table[_TIME][known], table[_DENSITY][known]
    if len(times) < _FEWEST_ROWS:
        return None
    if skip_ps is None:
        return StageDensity(stage.name, times, densities, equilibrated_mean(densities))
    first = int(np.searchsorted(times, times[0] + skip_ps))
    if len(times) - first < _FEWEST_ROWS:
        return None
    own = series_mean(densities[first:])
    mean = SeriesMean(
        own.mean,
        own.standard_error,
        own.standard_deviation,
        own.inefficiency,
        own.n_samples,
        first,
    )
    return StageDensity(stage.name, times, densities, mean, start_found=False)
