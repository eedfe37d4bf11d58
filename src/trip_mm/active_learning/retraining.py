"""Retraining of a committee: each member from its weights, on everything labelled so far."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from trip_mm.active_learning.layout import RoundDirectory, done, mark_done
from trip_mm.active_learning.recipe import ActiveRecipe, files_to_evaluate, training_document
from trip_mm.checkpoint import file_sha256, load_potential, read_checkpoint
from trip_mm.committee import save_committee
from trip_mm.files import read_json, write_atomically
from trip_mm.simulation.seeds import derive_seed
from trip_mm.training.dataset import Dataset, FixedKeys
from trip_mm.training.record import CHECKPOINT
from trip_mm.training.trainer import train

Report = Callable[[str], None]
_HELD_OUT = "held out"
_ALL = "all"
_FORCE_MAE = "force_mae_kcal_per_mol_per_angstrom"


def retrain(
    recipe: ActiveRecipe,
    committee: Sequence[Path],
    files: Sequence[Path],
    directory: RoundDirectory,
    report: Report,
) -> tuple[list[Path], list[float]]:
    """Retrains every member that is not finished yet and writes the committee's file.

    Args:
        recipe: its `training`.
        committee: checkpoints that the members start from.
        files: labelled data of the earlier rounds, which the members were trained on; the labels of
            this round are added.
        directory: of the round.
        report: receives the lines of progress.

    Returns:
        Checkpoints of the retrained members, and the force error of each on what is held out,
        kcal/mol/A.

    Raises:
        TripError: training cannot go on; call again to continue.
    """
    members, errors = [], []
    for number, initial in enumerate(committee, start=1):
        record = _retrain_member(recipe, number, initial, files, directory, report)
        members.append(directory.member(number) / record["model"])
        errors.append(float(record[_FORCE_MAE]))
    save_committee(members, directory.committee)
    return members, errors


def fixed_keys(initial: Path, files: Sequence[Path]) -> FixedKeys:
    """Returns what of the data a member was trained on, and what was held out from it.

    Whatever it was trained on must not be held out later: its error there says nothing. Data of
    later rounds are free, and held out by whole trajectories.

    Args:
        initial: checkpoint of the member; the record of its training names what was held out.
        files: data that it was trained on.

    Returns:
        Nothing where the record names no formula or source of these files.
    """
    header, _ = read_checkpoint(initial)
    training = header.get("metadata", {}).get("training", {})
    recorded = frozenset(training.get("split", {}).get("held_out", []))
    keys = Dataset.open(*files).split_keys()
    if not keys & recorded:
        return FixedKeys()
    return FixedKeys(keys & recorded, keys - recorded)


def _retrain_member(
    recipe: ActiveRecipe,
    number: int,
    initial: Path,
    files: Sequence[Path],
    directory: RoundDirectory,
    report: Report,
) -> dict[str, Any]:
    out = directory.member(number)
    record = done(out)
    if record is not None:
        return record
    report(f"round {directory.number}: member {number}")
    folder = directory.path
    fixed = fixed_keys(initial, files)
    own: dict[str, Any] = {
        "name": f"member-{number}",
        "seed": derive_seed(recipe.seed, "round", directory.number, "member", number),
        "model": load_potential(str(initial)).config.to_dict(),
        "initial": relative_to(folder, initial),
        "data": {
            "test_files": [relative_to(folder, Path(file)) for file in files_to_evaluate(recipe)],
            "split": {
                "hold_out": sorted(fixed.hold_out),
                "train_only": sorted(fixed.train_only),
            },
        },
    }
    own["model"]["elements"] = list(own["model"]["elements"])
    data = [relative_to(folder, file) for file in (*files, directory.labels)]
    document = training_document(recipe, data, own, f"{recipe.name}: training")
    config = folder / f"member-{number}.yaml"
    write_atomically(config, yaml.safe_dump(document, sort_keys=False).encode())
    resume = (out / CHECKPOINT).is_file()
    if not resume and out.exists():
        shutil.rmtree(out)
    path = train(config, out, resume=resume, report=report)
    accuracy = read_json(out / "accuracy.json")
    return mark_done(
        out,
        {
            "model": path.name,
            "sha256": file_sha256(path),
            _FORCE_MAE: accuracy[_HELD_OUT][_ALL][_FORCE_MAE],
        },
    )


def relative_to(folder: Path, file: Path) -> str:
    """Returns the path of a file from a folder, as the system follows it.

    `..` leads out of the directory that a symbolic link stands for, not out of that of the link.
    The name of the file stays, also where it is a link itself.

    Args:
        folder: where the path is written down.
        file: that it leads to.
    """
    return os.path.relpath(file.parent.resolve() / file.name, folder.resolve())
