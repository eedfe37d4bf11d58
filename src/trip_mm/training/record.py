"""The record of a training run: what was trained on what, and the directory that holds it."""

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trip_mm import __version__
from trip_mm.errors import RunDirectoryError
from trip_mm.files import write_json
from trip_mm.locking import occupants
from trip_mm.potential import TripPotential
from trip_mm.training.config import TrainingConfig
from trip_mm.training.conformations import ConformationStore
from trip_mm.training.dataset import Split
from trip_mm.training.processes import Processes
from trip_mm.training.progress import Tell, tell_nobody
from trip_mm.training.statistics import EnergyStatistics
from trip_mm.training.store import TrainingStore
from trip_mm.training.streaming import SPOOL

Report = Callable[[str], None]

CHECKPOINT = "last.ckpt"
_RECORD = "train.json"
_CHANGEABLE = {"budget", "n_threads", "checkpoint_interval_s", "device"}


@dataclass(frozen=True)
class Place:
    """Where a run lives and whom it tells.

    Attributes:
        out: directory of the run.
        resume: continue what lies there.
        processes: that train together.
        report: receives the lines of progress.
        tell: receives between them where the run stands.
    """

    out: Path
    resume: bool
    processes: Processes
    report: Report
    tell: Tell = tell_nobody


@dataclass(frozen=True)
class TrainingData:
    """Conformations to train on and to validate on.

    Attributes:
        train: conformations to train on.
        validation: conformations that are held out.
        split: which are which.
        self_energies: of the isolated atoms, eV, by atomic number.
        level_of_theory: of the labels.
        sha256: digests of `train` and `validation` as they were read. Energies that a regression
            was subtracted from differ in their last digit from one processor to the next, and a
            run may be continued on another.
    """

    train: TrainingStore
    validation: ConformationStore
    split: Split
    self_energies: dict[int, float]
    level_of_theory: str
    sha256: tuple[str, str]


def describe_run(
    config: TrainingConfig,
    potential: TripPotential,
    data: TrainingData,
    statistics: EnergyStatistics,
    n_processes: int,
) -> dict[str, Any]:
    """Describes the run in plain JSON: configuration, data, versions; no path of this machine.

    Args:
        config: of the run.
        potential: as it enters training.
        data: what it is trained and validated on.
        statistics: of the energies.
        n_processes: that train together.
    """
    return {
        "config": config.model_dump(
            mode="json", exclude={"initial": True, "data": {"files", "test_files"}}
        ),
        "initial": describe_initial(potential),
        "n_processes": n_processes,
        "data_files": [path.name for path in config.data.files],
        "model": potential.config.to_dict(),
        "n_parameters": sum(parameter.numel() for parameter in potential.model.parameters()),
        "level_of_theory": data.level_of_theory,
        "n_train": len(data.train),
        "n_validation": len(data.validation),
        "left_out": asdict(data.train.exclusions),
        "train_sha256": data.sha256[0],
        "validation_sha256": data.sha256[1],
        "split": json.loads(data.split.to_json()),
        "statistics": {
            "self_energies_ev": {str(k): v for k, v in statistics.self_energies.items()},
            "binding_energies_ev": {str(k): v for k, v in statistics.binding_energies.items()},
            "energy_std_ev": statistics.energy_std,
            "force_rms_ev_per_angstrom": statistics.force_rms,
        },
        "versions": {
            "trip-mm": __version__,
            "torch": torch.__version__,
            "lightning": version("lightning"),
            "python": platform.python_version(),
        },
    }


def describe_initial(potential: TripPotential) -> dict[str, str] | None:
    """Returns file name and digest of the checkpoint behind a potential; None for a new one."""
    if not potential.sha256:
        return None
    return {"file": Path(potential.path).name, "sha256": potential.sha256}


def has_run(out: Path) -> bool:
    """Whether a run was started in the directory."""
    return (out / _RECORD).is_file()


def recorded_held_out(out: Path) -> frozenset[str] | None:
    """Returns the keys that the run in a directory has held out; None without a record.

    Args:
        out: directory of a run, or of a committee, whose members share their data.
    """
    for path in (out / _RECORD, *sorted(out.glob(f"member-*/{_RECORD}"))):
        if path.is_file():
            return frozenset(json.loads(path.read_text(encoding="utf-8"))["split"]["held_out"])
    return None


def check_run_directory(out: Path, resume: bool) -> None:
    """Refuses to overwrite a run, or to resume where there is none; a copy of the data may lie.

    A run that was killed before its first checkpoint has its record; it resumes at the start.

    Raises:
        RunDirectoryError: naming the directory.
    """
    if resume and not has_run(out):
        raise RunDirectoryError(
            f"{out}: no {CHECKPOINT} or {_RECORD} to resume from; start without --resume"
        )
    if not resume and any(SPOOL not in name for name in occupants(out)):
        raise RunDirectoryError(
            f"{out}: is not empty; give another --out, or --resume to continue the run in it"
        )


def write_or_compare(out: Path, record: dict[str, Any], resume: bool) -> None:
    """Writes the record of a new run; a resumed run must be the same but for its budget.

    Raises:
        RunDirectoryError: the configuration or the data differ from those of the run.
    """
    path = out / _RECORD
    if not resume:
        write_json(path, record)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(record))
    for key in ("model", "initial", "n_processes", "train_sha256", "validation_sha256"):
        if before.get(key, now[key]) != now[key]:
            raise RunDirectoryError(
                f"{out}: {key} differs from that of the run to resume; start a new run"
            )
    for key, value in now["config"].items():
        if key not in _CHANGEABLE and _known(before["config"].get(key, value), value) != value:
            raise RunDirectoryError(
                f"{out}: `{key}` of the configuration differs from that of the run to resume; "
                f"only {', '.join(sorted(_CHANGEABLE))} may change"
            )


def _known(before: Any, now: Any) -> Any:
    """Adds settings that an older version did not write down, with their present values."""
    if isinstance(before, dict) and isinstance(now, dict):
        return {key: _known(before.get(key, value), value) for key, value in now.items()}
    return before
