"""A longer last stage: a run goes on for more time than was first asked for."""

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from trip_mm.errors import ConfigError, RunDirectoryError
from trip_mm.files import read_json, write_atomically, write_json
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.checkpoints import check_outputs, read_checkpoint
from trip_mm.simulation.methods import methods_text
from trip_mm.simulation.plan import RunPlan
from trip_mm.simulation.provenance import versions
from trip_mm.simulation.quantities import DURATION, format_quantity, parse_quantity
from trip_mm.simulation.run_directory import (
    METHODS_FILE,
    RUN_FILE,
    SUMMARY_FILE,
    RunDirectory,
    StageDirectory,
)
from trip_mm.simulation.stage import ResolvedStage, count_steps, step_problem


def lengthen(
    directory: RunDirectory, plan: RunPlan, structure: BuiltStructure, until: str
) -> RunPlan:
    """Makes the last stage of a run longer, on disk too, so that `execute` continues it.

    Everything is checked before the first file is touched. The caller holds the lock.

    Args:
        directory: of the run, finished or not.
        plan: as run.json records it.
        structure: of the run.
        until: total duration of the last stage, such as `100 ps`; the one that it has changes
            nothing.

    Returns:
        The plan with the longer stage.

    Raises:
        ConfigError: the duration is malformed, shorter than planned, or no whole number of steps;
            the last stage is a minimization or changes its temperature along the way.
        RunDirectoryError: the last stage is done, but what it continues from is missing or damaged.
    """
    stage = plan.stages[-1]
    longer = _longer_stage(stage, until, f"{directory.path}: --until")
    if longer == stage:
        return plan
    stage_directory = directory.stage(len(plan.stages) - 1, stage.name)
    _check_end(stage_directory)
    record = read_json(directory.path / RUN_FILE)
    lengthened = replace(
        plan,
        stages=(*plan.stages[:-1], longer),
        protocol=_with_last_duration(plan.protocol, longer.duration_ps),
    )
    extension = {
        "stage": stage.name,
        "from_ps": stage.duration_ps,
        "to_ps": longer.duration_ps,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    # Killed in between, the run is one of the earlier length that `resume` completes again.
    (directory.path / SUMMARY_FILE).unlink(missing_ok=True)
    stage_directory.done.unlink(missing_ok=True)
    continuations = record.get("continuations", [])
    methods = methods_text(lengthened, structure, record["versions"], continuations)
    write_atomically(directory.path / METHODS_FILE, methods.encode())
    extensions = [*record.get("extensions", []), extension]
    write_json(
        directory.path / RUN_FILE, {**record, **lengthened.to_dict(), "extensions": extensions}
    )
    return lengthened


def _longer_stage(stage: ResolvedStage, until: str, where: str) -> ResolvedStage:
    """Returns the stage with the number of steps in a total duration.

    Raises:
        ConfigError: as `lengthen`.
    """
    try:
        duration_ps = parse_quantity(until, DURATION)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if stage.kind == "minimize":
        raise ConfigError(
            f"{where}: the last stage, {stage.name}, is a minimization and has no duration"
        )
    if stage.temperature_start_k != stage.temperature_end_k:
        raise ConfigError(
            f"{where}: stage {stage.name} goes from {stage.temperature_start_k:g} K to "
            f"{stage.temperature_end_k:g} K over its duration, which therefore stays; start a run "
            "with a longer one"
        )
    problem = step_problem(duration_ps, stage.timestep_fs)
    if problem is not None:
        raise ConfigError(f"{where}: {problem}")
    n_steps = count_steps(duration_ps, stage.timestep_fs)
    assert n_steps is not None
    if n_steps < stage.n_steps:
        raise ConfigError(
            f"{where}: stage {stage.name} is planned for {stage.duration_ps:.12g} ps in total, "
            f"more than {duration_ps:.12g} ps; name a longer duration (to end earlier, stop the "
            "run and analyse what is there)"
        )
    return replace(stage, n_steps=n_steps)


def _check_end(stage_directory: StageDirectory) -> None:
    """Checks that a stage can go on from its end; one that has not ended is left to `resume`.

    Raises:
        RunDirectoryError: naming what is missing.
    """
    if not stage_directory.finished:
        return
    checkpoint = read_checkpoint(stage_directory)
    if checkpoint is None:
        raise RunDirectoryError(
            f"{stage_directory.checkpoint}: is missing, so that the stage cannot go on from its "
            "end; restore it"
        )
    check_outputs(stage_directory, checkpoint.progress)


def _with_last_duration(protocol: dict[str, Any], duration_ps: float) -> dict[str, Any]:
    changed = copy.deepcopy(protocol)
    changed["stages"][-1]["duration"] = format_quantity(duration_ps, DURATION)
    return changed
