"""The directory of active learning: one folder a round, a done.json for every finished step.

```
OUT/
  active.json               the recipe, checksums of committee, data, system and protocol
  round-01/
    dynamics/               trajectory-01/ ... (run directories, each with ended.json), done.json
    selected/               frames.csv, geometries.h5, done.json
    labels.h5               labels of the selected geometries (labels.h5.parts/ while in work)
    member-1.yaml           training configuration
    member-1/               training run, done.json
    committee.json          the retrained committee
    done.json               the round's row of the summary
  summary.json, summary.md, disagreement.png
  committee.json            the last committee
```
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trip_mm.errors import RunDirectoryError
from trip_mm.files import read_json, write_json
from trip_mm.locking import occupants
from trip_mm.simulation.run_directory import DONE_FILE

RECORD_FILE = "active.json"
COMMITTEE_FILE = "committee.json"
ENDED_FILE = "ended.json"
_BLOCK_BYTES = 1 << 20
_CHANGEABLE = ("max_rounds",)
_CONTENTS = {
    "system_sha256": "content of the system file",
    "structure_sha256": "content of the structure file",
    "protocol_sha256": "content of the protocol file",
    "committee_sha256": "content of the committee's checkpoints",
    "data_sha256": "content of the data files",
}


@dataclass(frozen=True)
class RoundDirectory:
    """The folder of one round.

    Attributes:
        path: the folder.
        number: from 1.
    """

    path: Path
    number: int

    @property
    def dynamics(self) -> Path:
        """Run directories of the round's trajectories."""
        return self.path / "dynamics"

    @property
    def selected(self) -> Path:
        """The frames that are labelled."""
        return self.path / "selected"

    @property
    def geometries(self) -> Path:
        """Their geometries."""
        return self.selected / "geometries.h5"

    @property
    def labels(self) -> Path:
        """Their labels."""
        return self.path / "labels.h5"

    @property
    def committee(self) -> Path:
        """The file of the retrained committee."""
        return self.path / COMMITTEE_FILE

    def trajectory(self, number: int) -> Path:
        """Returns the run directory of a trajectory, from 1."""
        return self.dynamics / f"trajectory-{number:02d}"

    def member(self, number: int) -> Path:
        """Returns the training directory of a member, from 1."""
        return self.path / f"member-{number}"


def round_directory(out: Path, number: int) -> RoundDirectory:
    """Returns the folder of a round, making it where it does not exist yet."""
    path = out / f"round-{number:02d}"
    path.mkdir(exist_ok=True)
    return RoundDirectory(path, number)


def done(folder: Path) -> dict[str, Any] | None:
    """Returns what a finished step recorded, None for a step that is not finished."""
    path = folder / DONE_FILE
    return read_json(path) if path.exists() else None


def mark_done(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Marks a step as finished and returns its record."""
    write_json(folder / DONE_FILE, record)
    return record


def start_over(folder: Path) -> None:
    """Empties the folder of a step that cannot be continued."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()


def open_or_create(out: Path, record: dict[str, Any]) -> None:
    """Records what is to be done, or checks that it is what the directory was begun with.

    What an earlier version did not write down is taken as it is now.

    Raises:
        RunDirectoryError: the directory holds something else, another recipe, or more finished
            rounds than the recipe allows now.
    """
    path = out / RECORD_FILE
    if not path.exists():
        if occupants(out):
            raise RunDirectoryError(
                f"{out}: is not empty and holds no {RECORD_FILE}; choose another one with --out"
            )
        write_json(path, record)
        return
    before = read_json(path)
    changed = [
        _CONTENTS.get(key, key)
        for key in sorted(before)
        if key not in _CHANGEABLE and before[key] != record.get(key)
    ]
    if changed:
        raise RunDirectoryError(
            f"{out}: was begun with another {', '.join(changed)}; restore the recipe and its files "
            f"({', '.join(_CHANGEABLE)} may change), or choose another directory with --out"
        )
    n_finished = sum(done(folder) is not None for folder in out.glob("round-*"))
    if record["max_rounds"] < n_finished:
        raise RunDirectoryError(
            f"{out}: max_rounds: {record['max_rounds']} is fewer than the {n_finished} rounds that "
            "are finished, whose results would be taken back; raise it, or choose another "
            "directory with --out"
        )
    write_json(path, record)


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file; of a directory, that of its `*.h5` files."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.h5")) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
