"""The run directory: its layout.

```
runs/<name>/
  run.json         resolved configuration, versions, model checksum, platform, seeds
  methods.md       what was done, in prose with citations
  structure.json   the built structure, exactly (topology with bonds, positions, box)
  topology.pdb     the same for viewers (topology.cif beyond 99,999 atoms)
  01-minimize/     one directory per stage, in order
  02-nvt/          state.xml, checkpoint, trajectory.xtc, log.csv, monitor.csv, done.json;
                   committee.csv where a committee watches
  summary.json     written last: a run that has it is finished
```
"""

import os
from dataclasses import dataclass
from pathlib import Path

from trip_mm.errors import RunDirectoryError
from trip_mm.files import is_partial, make_directory
from trip_mm.locking import occupants

RUN_FILE = "run.json"
METHODS_FILE = "methods.md"
STRUCTURE_FILE = "structure.json"
SUMMARY_FILE = "summary.json"
MODEL_FILE = "model.safetensors"
MODEL_DIRECTORY = "models"

STATE_FILE = "state.xml"
CHECKPOINT_FILE = "checkpoint"
TRAJECTORY_FILE = "trajectory.xtc"
LOG_FILE = "log.csv"
MONITOR_FILE = "monitor.csv"
COMMITTEE_FILE = "committee.csv"
DONE_FILE = "done.json"
CRASH_DIRECTORY = "crash"
UNCERTAIN_DIRECTORY = "uncertain"

_PREPARED = {STRUCTURE_FILE, MODEL_DIRECTORY, "topology.pdb", "topology.cif", METHODS_FILE}


@dataclass(frozen=True)
class StageDirectory:
    """The directory of one stage, `NN-name`, with the names of its files."""

    path: Path

    @property
    def state(self) -> Path:
        """The stage's last state: positions, velocities, box (portable XML)."""
        return self.path / STATE_FILE

    @property
    def checkpoint(self) -> Path:
        """What an interrupted stage continues from."""
        return self.path / CHECKPOINT_FILE

    @property
    def trajectory(self) -> Path:
        """The frames."""
        return self.path / TRAJECTORY_FILE

    @property
    def log(self) -> Path:
        """Energies, temperature, volume, density and speed."""
        return self.path / LOG_FILE

    @property
    def monitor(self) -> Path:
        """Largest force, shortest distance, stretched bonds."""
        return self.path / MONITOR_FILE

    @property
    def committee(self) -> Path:
        """How far a committee of models disagrees."""
        return self.path / COMMITTEE_FILE

    @property
    def done(self) -> Path:
        """Written last: a stage that has it is finished."""
        return self.path / DONE_FILE

    @property
    def crash(self) -> Path:
        """Where an unstable simulation leaves its last frames."""
        return self.path / CRASH_DIRECTORY

    @property
    def uncertain(self) -> Path:
        """Where a run stopped by its committee leaves the frame."""
        return self.path / UNCERTAIN_DIRECTORY

    @property
    def finished(self) -> bool:
        """Whether the stage ran to its end."""
        return self.done.exists()


class RunDirectory:
    """One run on disk.

    Attributes:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """Makes a new, empty run directory.

        Raises:
            RunDirectoryError: the directory holds something already, or cannot be made. The lock
                of a run that was refused before it began does not count.
        """
        found = occupants(path)
        if found:
            if _is_half_prepared(found):
                raise RunDirectoryError(
                    f"{path}: the preparation of a run was interrupted; delete it and start again"
                )
            if not (path / RUN_FILE).exists():
                raise RunDirectoryError(
                    f"{path}: is not empty and is no run directory; choose another one with --out"
                )
            state = "a finished run" if (path / SUMMARY_FILE).exists() else "an unfinished run"
            advice = (
                "choose another directory with --out, or delete this one"
                if (path / SUMMARY_FILE).exists()
                else f"continue it with `trip-mm resume {path}`, or choose another one with --out"
            )
            raise RunDirectoryError(f"{path}: holds {state} already; {advice}")
        make_directory(path)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Opens an existing run directory.

        Raises:
            RunDirectoryError: there is no run in that directory.
        """
        if not path.is_dir():
            raise RunDirectoryError(f"{path}: no such directory; start a run with `trip-mm run`")
        if not (path / RUN_FILE).exists():
            raise RunDirectoryError(
                f"{path}: holds no {RUN_FILE}, so it is no run directory or its preparation was "
                "interrupted; delete it and start again with `trip-mm run`"
            )
        return cls(path)

    def stage(self, index: int, name: str) -> StageDirectory:
        """Returns the directory of a stage, making it where it does not exist yet.

        Args:
            index: position in the protocol, from 0.
            name: the stage's name.
        """
        path = self.path / stage_directory_name(index, name)
        path.mkdir(exist_ok=True)
        return StageDirectory(path)

    @property
    def finished(self) -> bool:
        """Whether every stage and the final analysis are done."""
        return (self.path / SUMMARY_FILE).exists()


def _is_half_prepared(names: list[str]) -> bool:
    """Whether a directory holds what a run is prepared with, the structure first, and no more."""
    whole = {name for name in names if not is_partial(name)}
    if not whole:
        return all(STRUCTURE_FILE in name for name in names)
    return STRUCTURE_FILE in whole and whole <= _PREPARED


def stage_directory_name(index: int, name: str) -> str:
    """Returns `NN-name` for a stage, counting from 01."""
    return f"{index + 1:02d}-{name}"


def publish(source: Path, target: Path) -> None:
    """Makes a stage's file findable at the top of the run directory, without a second copy.

    A relative symbolic link where the file system has them, else a hard link.

    Args:
        source: the file, inside a stage directory.
        target: its name at the top of the run directory.
    """
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(os.path.relpath(source, target.parent))
    except OSError:
        os.link(source, target)
