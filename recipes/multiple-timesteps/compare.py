"""Temperature, potential energy and Ramachandran populations of runs beside those of the first.

    python recipes/multiple-timesteps/compare.py runs/single runs/amber14 runs/small-trip

Prints means with standard errors from the autocorrelation of each series and, behind a slash, how
many standard errors of the difference lie between a run and the first one.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.analysis.ramachandran import analyze_run
from trip_mm.analysis.series import SeriesMean, series_mean
from trip_mm.analysis.states import TILED
from trip_mm.simulation.reporters import read_table

_LOGGED = {"temperature (K)": "Temperature (K)", "potential (kJ/mol)": "Potential Energy (kJ/mole)"}


def series_of(run: Path, skip_ps: float) -> dict[str, NDArray[np.float64]]:
    """Returns the series of the last stage with frames by name, after the time left out."""
    result = analyze_run(run)
    kept = result.times_ps - result.times_ps[0] >= skip_ps
    inside = TILED.membership(result.phi_deg, result.psi_deg)  # [n_states, n_frames, n_residues]
    shares = inside.reshape(len(inside), len(kept), -1).mean(axis=2)[:, kept]
    log = read_table(result.trajectory.parent / "log.csv")
    times = log["Time (ps)"]
    late = times - times[0] >= skip_ps
    logged = {name: log[column][late] for name, column in _LOGGED.items()}
    names = [f"{state.name} (%)" for state in TILED.states]
    return logged | dict(zip(names, 100.0 * shares, strict=True))


def cell(found: SeriesMean, first: SeriesMean | None) -> str:
    """Returns mean, standard error and, where both runs tell an error, their distance."""
    text = f"{found.mean:.1f} +- {found.standard_error:.1f}"
    if first is None or not found.standard_error or not first.standard_error:
        return text
    error = np.hypot(found.standard_error, first.standard_error)
    return f"{text} /{(found.mean - first.mean) / error:+.1f}"


def main() -> None:
    """Prints a row for every quantity and a column for every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "runs", nargs="+", type=Path, help="run directories; the first is compared to"
    )
    parser.add_argument("--skip", type=float, default=5.0, help="ps left out at the begin")
    arguments = parser.parse_args()
    runs = [series_of(run, arguments.skip) for run in arguments.runs]
    print("| | " + " | ".join(str(run) for run in arguments.runs) + " |")
    print("|---|" + "---|" * len(runs))
    for name in runs[0]:
        means = [series_mean(run[name]) for run in runs]
        cells = [cell(mean, means[0] if index else None) for index, mean in enumerate(means)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
