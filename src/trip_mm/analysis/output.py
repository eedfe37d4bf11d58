"""Files of the Ramachandran analysis: one row per frame and residue, and a summary."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from trip_mm.analysis.states import STATE_SETS, THESIS, TILED, StateSet
from trip_mm.analysis.statistics import StateStatistics, TorsionStatistics
from trip_mm.analysis.torsions import RamachandranResult
from trip_mm.files import json_number, write_atomically

SUMMARY_VERSION = 1

COLUMNS = ("time_ps", "residue", "phi_deg", "psi_deg", "state_tiled", "state_thesis")


def write_table(result: RamachandranResult, path: Path) -> None:
    """Writes ramachandran.csv: a row per frame and residue with the state in each set.

    Angles have three decimals (trajectories in XTC format resolve about half a degree). A point in
    two states of the thesis's overlapping set reads `P_II+alpha_R`.
    """
    tiled = TILED.labels(result.phi_deg, result.psi_deg)
    thesis = THESIS.labels(result.phi_deg, result.psi_deg)
    n_residues = len(result.residues)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for frame, time in enumerate(result.times_ps):
        for index, residue in enumerate(result.residues):
            phi, psi = result.phi_deg[frame, index], result.psi_deg[frame, index]
            states = (tiled[frame * n_residues + index], thesis[frame * n_residues + index])
            writer.writerow(
                (f"{round(time, 4):.12g}", residue, f"{phi:.3f}", f"{psi:.3f}", *states)
            )
    write_atomically(path, text.getvalue().encode())


def write_summary(result: RamachandranResult, path: Path, relative_to: Path) -> None:
    """Writes ramachandran.json: populations, means and spreads for both sets of states.

    Args:
        result: the torsions.
        path: file to write.
        relative_to: directory from which the topology and the trajectory are named, where they
            lie below it.
    """
    text = json.dumps(summary(result, relative_to), indent=2, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def summary(result: RamachandranResult, relative_to: Path) -> dict[str, Any]:
    """Returns the content of ramachandran.json; what is undefined (an empty state) is null."""
    return {
        "version": SUMMARY_VERSION,
        "topology": _relative(result.topology, relative_to),
        "trajectory": _relative(result.trajectory, relative_to),
        "n_frames": result.n_frames,
        "first_time_ps": float(result.times_ps[0]),
        "last_time_ps": float(result.times_ps[-1]),
        "residues": list(result.residues),
        "state_sets": {
            states.name: {
                "definition": _definition(states),
                "pooled": _statistics(result.pooled_statistics(states)),
                "per_residue": {
                    name: _statistics(statistics)
                    for name, statistics in result.residue_statistics(states).items()
                },
            }
            for states in STATE_SETS.values()
        },
    }


def _relative(path: Path, directory: Path) -> str:
    absolute, base = path.resolve(), directory.resolve()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)


def _definition(states: StateSet) -> dict[str, dict[str, list[float]]]:
    return {
        state.name: {
            "phi_deg": [state.phi.lower, state.phi.upper],
            "psi_deg": [state.psi.lower, state.psi.upper],
        }
        for state in states.states
    }


def _statistics(statistics: TorsionStatistics) -> dict[str, Any]:
    return {
        "n_points": statistics.n_points,
        "unassigned_percent": json_number(100 * statistics.unassigned),
        "overlapping_percent": json_number(100 * statistics.overlapping),
        "n_changes_of_state": statistics.n_changes,
        "too_short_for_populations": statistics.is_too_short,
        "states": {row.state: _row(row) for row in statistics.states},
    }


def _row(row: StateStatistics) -> dict[str, Any]:
    return {
        "n_points": row.n_points,
        "population_percent": json_number(100 * row.population),
        "population_standard_error_percent": json_number(100 * row.standard_error),
        "phi_mean_deg": json_number(row.phi_mean_deg),
        "psi_mean_deg": json_number(row.psi_mean_deg),
        "phi_spread_deg": json_number(row.phi_spread_deg),
        "psi_spread_deg": json_number(row.psi_spread_deg),
    }
