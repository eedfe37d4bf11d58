"""Where a run directory keeps what analysis reads.

Layout: `topology.pdb` (or `.cif`) beside numbered stage directories (`01-minimize`,
`04-production`), each with the `trajectory.xtc` it wrote.
"""

import re
from pathlib import Path

from trip_mm.errors import RunDirectoryError
from trip_mm.simulation.run_directory import TRAJECTORY_FILE

TOPOLOGY_FILES = ("topology.pdb", "topology.cif")
"""The second one where a run has more atoms than the PDB format can number."""

_STAGE_NAME = re.compile(r"(\d+)-.+")


def require_directory(run_dir: Path) -> None:
    """Refuses what is no directory.

    Raises:
        RunDirectoryError: it does not exist, or is a file.
    """
    if not run_dir.is_dir():
        raise RunDirectoryError(f"{run_dir}: no such directory; give the directory of a run")


def topology_file(run_dir: Path) -> Path:
    """Returns the path of the structure file of a run.

    Raises:
        RunDirectoryError: the directory does not exist or holds none.
    """
    require_directory(run_dir)
    for name in TOPOLOGY_FILES:
        if (run_dir / name).is_file():
            return run_dir / name
    raise RunDirectoryError(
        f"{run_dir}: holds no {TOPOLOGY_FILES[0]}; is this a directory that trip-mm run made? "
        "`trip-mm analyze ramachandran` takes other files too, with --topology and --trajectory"
    )


def stage_directories(run_dir: Path) -> list[Path]:
    """Returns the stage directories of a run in the order of their numbers."""
    stages = [
        (int(match.group(1)), path)
        for path in run_dir.iterdir()
        if path.is_dir() and (match := _STAGE_NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(stages)]


def stage_trajectory(run_dir: Path, stage: str | None = None) -> Path:
    """Returns the trajectory of a stage.

    Args:
        run_dir: directory that `trip-mm run` made.
        stage: name of the stage (`nvt`) or of its directory (`05-nvt`); the last one that wrote
            frames if None.

    Raises:
        RunDirectoryError: there is no such stage, or it has not written a frame.
    """
    stages = stage_directories(run_dir)
    chosen = [path for path in stages if stage in (None, path.name, path.name.split("-", 1)[1])]
    for path in reversed(chosen):
        trajectory = path / TRAJECTORY_FILE
        if trajectory.is_file() and trajectory.stat().st_size > 0:
            return trajectory
    found = ", ".join(path.name for path in stages) or "none"
    if not chosen and stage is not None:
        raise RunDirectoryError(f"{run_dir}: has no stage {stage!r} (stages: {found})")
    if stage is not None:
        raise RunDirectoryError(f"{run_dir}: stage {stage!r} has written no frame")
    raise RunDirectoryError(
        f"{run_dir}: no stage has written a frame to {TRAJECTORY_FILE} (stages: {found}); "
        f"continue the run with `trip-mm resume {run_dir}`"
    )
