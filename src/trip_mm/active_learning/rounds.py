"""Active learning from a recipe: explore, select, label, retrain; round by round, resumable."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trip_mm.active_learning.exploration import (
    DISAGREEMENT,
    UNSTABLE,
    Machine,
    TrajectoryEnd,
    explore,
    prepare_trajectory,
)
from trip_mm.active_learning.layout import (
    COMMITTEE_FILE,
    RoundDirectory,
    done,
    file_digest,
    mark_done,
    open_or_create,
    round_directory,
)
from trip_mm.active_learning.recipe import ActiveRecipe, files_to_evaluate, load_active_recipe
from trip_mm.active_learning.retraining import fixed_keys, retrain
from trip_mm.active_learning.selection import select
from trip_mm.active_learning.summary import write_summary
from trip_mm.checkpoint import load_potential
from trip_mm.committee import load_committee, save_committee
from trip_mm.errors import ConfigError
from trip_mm.files import make_directory
from trip_mm.locking import locked
from trip_mm.simulation.catalog import find_config
from trip_mm.simulation.schema import load_system
from trip_mm.training.dataset import Dataset
from trip_mm.training.labels import LabelJob, LabelProgress, label
from trip_mm.training.labels_methods import find_method
from trip_mm.training.levels import canonical_level
from trip_mm.training.trainer import check_device

Report = Callable[[str], None]

CONVERGED = "converged: the last round found no frame above the threshold"
UNDER_WAY = "under way"


@dataclass(frozen=True)
class Outcome:
    """How active learning ended.

    Attributes:
        state: in words.
        committee: checkpoints of the last committee.
        rows: records of the rounds.
    """

    state: str
    committee: tuple[Path, ...]
    rows: tuple[dict[str, Any], ...]


def active_learn(
    recipe_path: str | Path,
    out: str | Path,
    machine: Machine | None = None,
    report: Report = print,
) -> Outcome:
    """Teaches a committee what its own dynamics meets; what `trip-mm active-learn` does.

    Call it again with the same recipe and directory to continue after an interruption.

    Args:
        recipe_path: recipe.
        out: directory; new, empty, or begun with the same recipe.
        machine: platform, threads and processes.
        report: receives the lines of progress.

    Returns:
        How it ended; `out` holds summary.md, disagreement.png and committee.json.

    Raises:
        TripError: what is wrong, where, and what to do.
    """
    machine = machine or Machine()
    recipe = load_active_recipe(Path(recipe_path))
    check_device(recipe.training.get("device", "cpu"))
    committee = member_files(recipe)
    _check_level(recipe)
    _check_system(recipe, committee, machine)
    path = Path(out)
    make_directory(path)
    with locked(path):
        open_or_create(path, _record(recipe, committee))
        return _rounds(recipe, committee, path, machine, report)


def member_files(recipe: ActiveRecipe) -> tuple[Path, ...]:
    """Returns the checkpoints of the committee that a recipe names.

    Raises:
        CheckpointError: one is missing or damaged.
        ConfigError: the members do not fit together, or one is named twice.
    """
    names = recipe.committee
    committee = load_committee(names[0] if len(names) == 1 else names)
    if len(set(committee.sha256)) < len(committee):
        raise ConfigError(
            f"{recipe.name}: committee: two members have the same weights; name models trained "
            "with different seeds"
        )
    return tuple(Path(member.path) for member in committee.members)


def _check_level(recipe: ActiveRecipe) -> None:
    level = Dataset.open(*recipe.data).level_of_theory
    method = find_method(recipe.labels.method).name
    if not level:
        raise ConfigError(
            f"{recipe.name}: data: do not state the level of theory of their labels, and cannot be "
            f"mixed with new ones at {method}; if they are of it, say so: level_of_theory={method} "
            "in the comment line of every frame of extended XYZ, the attribute level_of_theory in "
            "HDF5"
        )
    if canonical_level(level) != canonical_level(method):
        raise ConfigError(
            f"{recipe.name}: labels.method: {method} is not the level of theory of the data "
            f"({level}); use one level for both"
        )


def _check_system(recipe: ActiveRecipe, committee: Sequence[Path], machine: Machine) -> None:
    structure = prepare_trajectory(recipe, committee, machine, (1, 1)).structure
    if structure.box_vectors is not None and recipe.selection.n_waters is None:
        raise ConfigError(
            f"{recipe.name}: selection.n_waters: is required for a system with a box, from which "
            "clusters are cut; write for example [12, 22]"
        )


def _record(recipe: ActiveRecipe, committee: Sequence[Path]) -> dict[str, Any]:
    """What must be the same when active learning continues; nothing of the host."""
    settings = recipe.model_dump(mode="json", by_alias=True)
    names = ("committee", "data", "system", "protocol")
    if tests := files_to_evaluate(recipe):
        settings["training"]["data"]["test_files"] = _base_names(tests)
    return {
        **settings,
        **{name: _base_names(settings[name]) for name in names},
        "committee_sha256": [load_potential(str(file)).sha256 for file in committee],
        "data_sha256": [file_digest(Path(file)) for file in recipe.data],
        **_dynamics_digests(recipe),
    }


def _dynamics_digests(recipe: ActiveRecipe) -> dict[str, str]:
    """Digests of what decides the dynamics of a round: system, its structure file, protocol."""
    system = find_config("systems", recipe.system)
    found = {
        "system_sha256": file_digest(system),
        "protocol_sha256": file_digest(find_config("protocols", recipe.protocol)),
    }
    structure = load_system(system).structure
    if structure is not None and structure.file is not None:
        found["structure_sha256"] = file_digest(structure.file)
    return found


def _base_names(value: str | list[str]) -> str | list[str]:
    return Path(value).name if isinstance(value, str) else [Path(item).name for item in value]


def _rounds(
    recipe: ActiveRecipe,
    committee: tuple[Path, ...],
    out: Path,
    machine: Machine,
    report: Report,
) -> Outcome:
    rows: list[dict[str, Any]] = []
    files = [Path(file) for file in recipe.data]
    notes = _notes(committee, files)
    for line in notes:
        report(line)
    for number in range(1, recipe.max_rounds + 1):
        directory = round_directory(out, number)
        row = done(directory.path)
        if row is None:
            row = _round(recipe, committee, files, directory, machine, report)
        rows.append(row)
        state = round_state(row, number == recipe.max_rounds)
        write_summary(
            out, rows, state, [*notes, *(not_finite_note(r) for r in rows if r.get("n_not_finite"))]
        )
        report(
            f"round {number}: {row['n_above']} of {row['n_frames']} frames above the threshold, "
            f"{row['n_labelled']} geometries added"
        )
        if row.get("n_not_finite"):
            report(not_finite_note(row))
        if row["members"]:
            files.append(directory.labels)
            committee = tuple(directory.path / member for member in row["members"])
            save_committee(committee, out / COMMITTEE_FILE)
        if state != UNDER_WAY:
            break
    return Outcome(state, committee, tuple(rows))


def _notes(committee: Sequence[Path], files: Sequence[Path]) -> list[str]:
    """Says what a reader of the summary has to know of the committee that it starts from."""
    unknown = [path.name for path in committee if not fixed_keys(path, files).hold_out]
    if not unknown:
        return []
    return [
        f"The records of {', '.join(unknown)} do not say which formulas and sources of the data "
        "were held out from its training. What is held out now may be known to it: the held-out "
        "force MAE may be too small; start from members that trip-mm trained on these data."
    ]


def not_finite_note(row: Mapping[str, Any]) -> str:
    """Says how many frames of a round have a disagreement that is not a number."""
    return (
        f"round {row['round']}: the disagreement of {row['n_not_finite']} of {row['n_frames']} "
        "frames is not a number; they count as above the threshold and are labelled first"
    )


def round_state(row: Mapping[str, Any], last: bool) -> str:
    """Says in words what the record of a round means; `last` if `max_rounds` allows no other."""
    if row["n_labelled"]:
        return (
            "ended after max_rounds; the last round still added geometries" if last else UNDER_WAY
        )
    if row["n_selected"]:
        return (
            f"ended: none of the {row['n_selected']} selected geometries could be labelled; the "
            "reasons are in the labels of the round"
        )
    if row["n_above"]:
        return (
            f"ended: the disagreement of {row['n_above']} frames is not a number, and none of them "
            "holds a geometry that could be labelled; look at the trajectories of the round"
        )
    if row["n_unstable"]:
        return (
            f"ended: {row['n_unstable']} trajectories became unstable without a frame above the "
            "threshold; lower selection.above or dynamics.compare_every"
        )
    if not row["n_frames"]:
        return (
            "ended: no frame was compared; make dynamics.compare_every shorter, or the stages of "
            "the protocol longer"
        )
    return CONVERGED


def _round(
    recipe: ActiveRecipe,
    committee: Sequence[Path],
    files: Sequence[Path],
    directory: RoundDirectory,
    machine: Machine,
    report: Report,
) -> dict[str, Any]:
    """Runs what a round lacks and marks it done."""
    report(f"round {directory.number}: dynamics")
    ends = explore(recipe, committee, directory, machine, report)
    found = select(recipe, directory)
    n_labelled, failures = _label(recipe, directory, found, machine, report)
    members: list[Path] = []
    errors: list[float] = []
    if n_labelled:
        members, errors = retrain(recipe, committee, files, directory, report)
    record = {
        "round": directory.number,
        "n_trajectories": len(ends),
        "n_disagreement": _count(ends, DISAGREEMENT),
        "n_unstable": _count(ends, UNSTABLE),
        **found,
        "n_labelled": n_labelled,
        "n_failed": sum(failures.values()),
        "failures": failures,
        "force_mae_kcal_per_mol_per_angstrom": sum(errors) / len(errors) if errors else None,
        "members": [member.relative_to(directory.path).as_posix() for member in members],
    }
    return mark_done(directory.path, record)


def _count(ends: Sequence[TrajectoryEnd], reason: str) -> int:
    return sum(end.reason == reason for end in ends)


def _label(
    recipe: ActiveRecipe,
    directory: RoundDirectory,
    found: dict[str, Any],
    machine: Machine,
    report: Report,
) -> tuple[int, dict[str, int]]:
    """Labels the selected geometries; returns how many got a label, and failures by reason."""
    if not found["n_selected"]:
        return 0, {}
    if not directory.labels.exists():
        report(f"round {directory.number}: labels for {found['n_selected']} geometries")
        job = LabelJob(
            directory.geometries,
            directory.labels,
            recipe.labels.method,
            recipe.labels.chunk,
            recipe.labels.max_force,
        )
        label(job, machine.processes, lambda progress: report(_progress(progress)))
    dataset = Dataset.open(directory.labels)
    return len(dataset), dataset.failures


def _progress(progress: LabelProgress) -> str:
    return f"{progress.n_done} of {progress.n_total} geometries labelled"
