"""Training from a configuration to an exported model, or to a committee of them."""

from dataclasses import replace
from pathlib import Path

import torch

from trip_mm.committee import save_committee
from trip_mm.errors import ConfigError, RunDirectoryError
from trip_mm.potential import TripPotential
from trip_mm.training.config import TrainingConfig, check_data_files, load_training_config
from trip_mm.training.fit import fit_and_export
from trip_mm.training.preparation import (
    Prepared,
    initial_potentials,
    prepare,
    resolve_model_config,
)
from trip_mm.training.processes import launched_processes
from trip_mm.training.progress import Tell, tell_nobody
from trip_mm.training.record import Place, Report, check_run_directory, has_run


def train(
    config_path: str | Path,
    out_dir: str | Path,
    *,
    resume: bool = False,
    report: Report = print,
    tell: Tell = tell_nobody,
) -> Path:
    """Trains a model, or a committee, as a configuration says and exports it.

    Started several times by torchrun or SLURM, the processes train one model together; the first
    one writes and reports.

    Args:
        config_path: `train.yaml`.
        out_dir: directory of the run; must not exist, or be empty, unless resuming.
        resume: continue the run in `out_dir` after its last checkpoint.
        report: receives the lines of progress.
        tell: receives twice a second where the run stands.

    Returns:
        The exported model, `OUT/NAME.safetensors`; of a committee, `OUT/NAME.json` beside the
        members' directories `OUT/member-0`, `OUT/member-1`, ...

    Raises:
        ConfigError: the configuration means nothing.
        DataError: the data files are missing or inconsistent.
        RunDirectoryError: `out_dir` holds a run already, or none to resume, or another one.
        TrainingError: the loss became infinite.
    """
    config = load_training_config(config_path)
    check_data_files(config, config_path)
    return train_config(config, Path(out_dir), resume=resume, report=report, tell=tell)


def train_config(
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
    report: Report = print,
    tell: Tell = tell_nobody,
) -> Path:
    """As `train`, from a configuration whose paths are absolute."""
    processes = launched_processes()
    check_device(config.device)
    if config.n_threads is not None:
        torch.set_num_threads(config.n_threads)
    model_config = resolve_model_config(config)
    potentials = initial_potentials(config, model_config)
    place = Place(out, resume, processes, report, tell)
    if not processes.is_first:
        place = Place(out, resume, processes, _silent)
    if processes.is_first:
        _check_start(config, place)
    initial = potentials if config.initial is not None else ()
    prepared = prepare(config, model_config, place, initial)
    if config.committee is None:
        return fit_and_export(potentials[0], config, prepared, place)
    return _train_committee(potentials, config, prepared, place)


def check_device(device: str) -> None:
    """Refuses a device that is not there.

    Raises:
        ConfigError: it is `cuda`, and torch finds none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: torch finds no CUDA device here; set device to cpu")


def _silent(line: str) -> None:
    """Says nothing."""


def _check_start(config: TrainingConfig, place: Place) -> None:
    """Refuses a directory before the data are read."""
    if config.committee is None or not place.resume:
        check_run_directory(place.out, place.resume)
    elif not member_directory(place.out, 0).is_dir():
        raise RunDirectoryError(f"{place.out}: no committee to resume; start without --resume")


def member_directory(out: Path, number: int) -> Path:
    """Returns the run directory of a member of a committee."""
    return out / f"member-{number}"


def _train_committee(
    potentials: list[TripPotential], config: TrainingConfig, prepared: Prepared, place: Place
) -> Path:
    """Trains the members one after the other; a resumed committee goes on where it was."""
    models = []
    for number, potential in enumerate(potentials):
        changes = {
            "name": f"{config.name}-{number}",
            "seed": config.seed + number,
            "committee": None,
        }
        member = config.model_copy(update=changes)
        out = member_directory(place.out, number)
        place.report(f"member {number} of {len(potentials)}, seed {member.seed}")
        resumed = place.resume and has_run(out)
        if place.processes.is_first:
            check_run_directory(out, resumed)
        own = replace(place, out=out, resume=resumed)
        models.append(fit_and_export(potential, member, prepared, own))
    path = place.out / f"{config.name}.json"
    if place.processes.is_first:
        save_committee(models, path)
        place.report(f"committee: {path}")
    return path
