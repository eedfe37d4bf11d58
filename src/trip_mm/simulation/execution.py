"""Execution of a planned run, stage by stage, and what it leaves at the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trip_mm.errors import RunDirectoryError
from trip_mm.files import json_number, read_json, write_atomically, write_json
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.committee_reporter import LARGEST_COLUMN
from trip_mm.simulation.dynamics import DynamicsRun
from trip_mm.simulation.interruption import Interruption
from trip_mm.simulation.methods import methods_text
from trip_mm.simulation.minimization import run_minimization
from trip_mm.simulation.monitor import BondWatch
from trip_mm.simulation.plan import RunPlan
from trip_mm.simulation.platforms import apply_threads
from trip_mm.simulation.precision_checks import recorded_check
from trip_mm.simulation.progress import SECONDS_PER_DAY, ProgressListener
from trip_mm.simulation.provenance import keep_models, loadable, run_record, versions
from trip_mm.simulation.reporters import read_table
from trip_mm.simulation.run_directory import (
    LOG_FILE,
    METHODS_FILE,
    MONITOR_FILE,
    RUN_FILE,
    STRUCTURE_FILE,
    SUMMARY_FILE,
    TRAJECTORY_FILE,
    RunDirectory,
    publish,
)
from trip_mm.simulation.schema import PotentialConfig
from trip_mm.simulation.seeds import derive_seed
from trip_mm.simulation.stage_task import Services, StageTask
from trip_mm.simulation.structure_file import save_structure, write_topology

Analysis = Callable[[Path], dict[str, Any] | None]
"""Analyses a run directory; returns the content of the summary's `ramachandran`."""

_PRODUCTS = (TRAJECTORY_FILE, LOG_FILE, MONITOR_FILE)
_FS_PER_NS = 1e6


def prepare(directory: RunDirectory, plan: RunPlan, structure: BuiltStructure) -> RunPlan:
    """Fills a new run directory with all that resuming needs: the structure first, run.json last.

    Returns:
        The plan with models that lie in the run directory.

    Raises:
        RunDirectoryError: a file cannot be read or written, as on a full disk.
    """
    path = directory.path
    try:
        save_structure(path / STRUCTURE_FILE, structure)
        kept = keep_models(plan, path)
        write_topology(path, structure)
        write_atomically(path / METHODS_FILE, methods_text(kept, structure, versions()).encode())
        write_json(path / RUN_FILE, run_record(kept, structure.topology.getNumAtoms()))
    except (OSError, RunDirectoryError) as error:
        raise RunDirectoryError(
            f"{path}: the run cannot be prepared ({error.__cause__ or error}); free some space or "
            "fix the permissions, delete that directory and start again"
        ) from error
    return kept


def execute(
    directory: RunDirectory,
    plan: RunPlan,
    structure: BuiltStructure,
    progress: ProgressListener,
    analyze: Analysis,
) -> None:
    """Runs every stage that is not done yet, then analyses. The caller holds the lock.

    Args:
        directory: of the run, prepared.
        plan: what to run.
        structure: what to run it on.
        progress: is told what happens.
        analyze: is called with the run directory when its trajectory is complete.

    Raises:
        RunDirectoryError: a file cannot be written, as on a full disk.
        TripError: a stage failed or was interrupted; what is there can be resumed.
    """
    if plan.uses_networks():
        apply_threads(plan.platform)
    services = Services(progress, Interruption(), BondWatch(structure))
    try:
        with services.interruption.watching():
            for index in range(len(plan.stages)):
                stage_directory = directory.stage(index, plan.stages[index].name)
                if not stage_directory.finished:
                    _run_stage(stage_task(directory, plan, structure, index), services)
            _finish(directory, plan, analyze)
    except OSError as error:
        raise RunDirectoryError(
            f"{error.filename or directory.path}: cannot be written ({error.strerror or error}); "
            f"free some space, then continue with `trip-mm resume {directory.path}`"
        ) from error
    finally:
        progress.stopped()


def stage_task(
    directory: RunDirectory, plan: RunPlan, structure: BuiltStructure, index: int
) -> StageTask:
    """Returns what a stage computes.

    Raises:
        RunDirectoryError: the stage before left no state.
    """
    start: str | None = None
    if index > 0:
        before = directory.stage(index - 1, plan.stages[index - 1].name)
        try:
            start = before.state.read_text(encoding="utf-8")
        except OSError as error:
            raise RunDirectoryError(
                f"{before.state}: cannot be read ({error.strerror or error}); delete "
                f"{before.done} to repeat that stage with `trip-mm resume {directory.path}`"
            ) from error
    stage = plan.stages[index]
    split = stage.multiple_timesteps
    inner = None if split is None else loadable(split.inner, plan, directory.path)
    names = stage.committee.models if stage.committee is not None else ()
    committee = [
        loadable(PotentialConfig(kind="trip", name=n), plan, directory.path) for n in names
    ]
    return StageTask(
        directory=directory.stage(index, stage.name),
        stage=stage,
        potential=loadable(plan.stage_potential(index), plan, directory.path),
        structure=structure,
        backend=plan.backend,
        platform=plan.platform,
        seed=derive_seed(plan.seed, "stage", index),
        start=start,
        draw_velocities=plan.draws_velocities(index),
        committee=tuple(potential.name for potential in committee),
        inner=inner,
        precision_check=recorded_check(plan, index),
    )


def _run_stage(task: StageTask, services: Services) -> None:
    """Runs one stage and marks it done."""
    if task.stage.kind == "minimize":
        result = run_minimization(task, services)
        record: dict[str, Any] = {
            "stage": task.stage.name,
            "kind": task.stage.kind,
            "iterations": result.iterations,
            "passes": result.passes,
            "initial_energy_kj_per_mol": result.initial.energy,
            "final_energy_kj_per_mol": result.final.energy,
            "rms_force_kj_per_mol_nm": result.final.rms,
            "largest_force_kj_per_mol_nm": result.final.largest,
            "largest_force_atom": result.largest_force_atom,
            "converged": result.converged,
            "wall_seconds": round(result.wall_seconds, 3),
        }
        text = f"{result.initial.energy:.1f} -> {result.final.energy:.1f} kJ/mol"
    else:
        session = DynamicsRun(task, services)
        session.run()
        record = _dynamics_record(task, session)
        temperature = record["mean_temperature_k"]
        text = f"{record['ns_per_day']:.3g} ns/day, mean {temperature:.0f} K"
        if session.transferred_protons:
            services.progress.message(
                f"{task.label}: up to {session.transferred_protons} proton(s) left the atom that "
                "the topology bonds them to; see monitor.csv"
            )
    write_json(task.directory.done, record)
    services.progress.stage_finished(text)


def _dynamics_record(task: StageTask, session: DynamicsRun) -> dict[str, Any]:
    stage, seconds = task.stage, session.wall_seconds
    log = read_table(task.directory.log)
    record: dict[str, Any] = {
        "stage": stage.name,
        "kind": stage.kind,
        "steps": stage.n_steps,
        "timestep_fs": stage.timestep_fs,
        "duration_ps": stage.duration_ps,
        "frames": stage.n_steps // stage.trajectory_interval_steps,
        "log_rows": stage.n_steps // stage.log_interval_steps,
        "wall_seconds": round(seconds, 3),
        "ns_per_day": stage.n_steps * stage.timestep_fs / _FS_PER_NS * SECONDS_PER_DAY / seconds,
        "mean_temperature_k": float(log["Temperature (K)"].mean()),
        "transferred_protons": session.transferred_protons,
    }
    if "Density (g/mL)" in log:
        record["mean_density_g_per_ml"] = float(log["Density (g/mL)"].mean())
    if stage.committee is not None:
        largest = read_table(task.directory.committee)[LARGEST_COLUMN]
        record["largest_force_disagreement_kcal_per_mol_per_angstrom"] = json_number(largest.max())
        record["mean_largest_force_disagreement_kcal_per_mol_per_angstrom"] = json_number(
            largest.mean()
        )
    if stage.kind == "nve":
        energies = log["Total Energy (kJ/mole)"]
        record["energy_change_kj_per_mol"] = float(energies[-1] - energies[0])
    return record


def _finish(directory: RunDirectory, plan: RunPlan, analyze: Analysis) -> None:
    """Puts the last dynamics stage's products at the top, analyses them, writes the summary."""
    dynamics = [i for i, stage in enumerate(plan.stages) if stage.kind != "minimize"]
    analysis: dict[str, Any] | None = None
    if dynamics:
        last = directory.stage(dynamics[-1], plan.stages[dynamics[-1]].name)
        for product in _PRODUCTS:
            publish(last.path / product, directory.path / product)
        analysis = analyze(directory.path)
    stages = [
        read_json(directory.stage(index, stage.name).done)
        for index, stage in enumerate(plan.stages)
    ]
    write_json(
        directory.path / SUMMARY_FILE,
        {"name": plan.name, "stages": stages, "ramachandran": analysis},
    )
