"""Ramachandran analysis of a run: from its trajectory to a table, a summary and a picture."""

from pathlib import Path

from trip_mm.analysis.output import write_summary, write_table
from trip_mm.analysis.plots import write_picture
from trip_mm.analysis.run_directory import stage_trajectory, topology_file
from trip_mm.analysis.states import StateSet, state_set
from trip_mm.analysis.torsions import (
    NoBackboneTorsionsError,
    RamachandranResult,
    ramachandran,
)

__all__ = [
    "NoBackboneTorsionsError",
    "RamachandranResult",
    "analyze_run",
    "ramachandran",
    "write_results",
]


def analyze_run(
    run_dir: str | Path, state_set_name: str = "tiled", stage: str | None = None
) -> RamachandranResult:
    """Writes ramachandran.csv, ramachandran.json and ramachandran.png into a run directory.

    Each file appears whole or not at all.

    Args:
        run_dir: directory that `trip-mm run` made.
        state_set_name: `tiled` or `thesis`, the set drawn in the picture (both are in the files).
        stage: name of a stage; the last one that wrote frames if None.

    Returns:
        The torsions that were written.

    Raises:
        RunDirectoryError: the directory has no topology or no trajectory.
        DataError: these cannot be read, or do not belong together.
        NoBackboneTorsionsError: no residue has both torsions.
        ConfigError: there is no such set of states.
    """
    states = state_set(state_set_name)
    directory = Path(run_dir)
    topology, trajectory = topology_file(directory), stage_trajectory(directory, stage)
    result = ramachandran(topology, trajectory)
    write_results(result, directory, states)
    return result


def write_results(result: RamachandranResult, directory: Path, states: StateSet) -> None:
    """Writes the table, the summary and the picture of a result into a directory."""
    write_table(result, directory / "ramachandran.csv")
    write_summary(result, directory / "ramachandran.json", relative_to=directory)
    write_picture(result, directory / "ramachandran.png", states)
