"""The main job from end to end: settings in, run directory with trajectory and analysis out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trip_mm.errors import ConfigError
from trip_mm.files import read_json
from trip_mm.locking import locked
from trip_mm.simulation.building import BuiltStructure, build_structure
from trip_mm.simulation.catalog import DEFAULT_PROTOCOL, find_config
from trip_mm.simulation.checks import (
    check_openmm_ml,
    check_stages,
    check_structure,
    check_velocities,
)
from trip_mm.simulation.continuation import record_continuation
from trip_mm.simulation.execution import execute, prepare
from trip_mm.simulation.extension import lengthen
from trip_mm.simulation.plan import RunOptions, RunPlan, load_configs, make_plan, resolve_backend_of
from trip_mm.simulation.platforms import PlatformChoice, moved_platform, precision_problem
from trip_mm.simulation.precision_checks import with_precision_checks
from trip_mm.simulation.progress import ProgressListener, logging_progress
from trip_mm.simulation.provenance import check_models
from trip_mm.simulation.run_directory import RUN_FILE, STRUCTURE_FILE, RunDirectory
from trip_mm.simulation.seeds import derive_seed
from trip_mm.simulation.structure_file import load_structure

RUNS = Path("runs")
"""Where runs go that are given no directory."""


@dataclass(frozen=True)
class PreparedRun:
    """A run that has passed every check and has not touched the disk."""

    plan: RunPlan
    structure: BuiltStructure


def run(
    system_yaml: str | Path,
    protocol_yaml: str | Path = DEFAULT_PROTOCOL,
    out_dir: str | Path | None = None,
    *,
    potential: str | None = None,
    backend: str = "auto",
    platform: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    overrides: Sequence[str] = (),
) -> Path:
    """Builds a system and runs a protocol on it; what `trip-mm run` does.

    Args:
        system_yaml: system file, or the name of one that comes with trip-mm (`trialanine`).
        protocol_yaml: protocol file, or the name of one that comes with trip-mm (`quick`).
        out_dir: a new or empty directory; None for `runs/SYSTEM-POTENTIAL-PROTOCOL`.
        potential: in place of the system's: `amber14`, `trip:NAME`, `openmm-ml:NAME`, or the name
            or file of a TrIP model.
        backend: force backend of TrIP: `auto`, `torch`, `python` or `pythontorch`.
        platform: OpenMM platform; None for the fastest that works.
        precision: `single`, `mixed` or `double`; `tf32` or `bf16` for the network's products.
        threads: CPU threads of torch and of OpenMM; None for all that this process may use.
        overrides: changes such as `stages.1.duration=2 ps` or `seed=7`.

    Returns:
        The run directory: trajectory.xtc, log.csv, ramachandran.*, run.json, methods.md and one
        directory per stage.

    Raises:
        TripError: what is wrong, where, and what to do.
    """
    options = RunOptions(
        potential=potential,
        backend=backend,
        platform=platform,
        precision=precision,
        threads=threads,
        overrides=tuple(overrides),
    )
    prepared = prepare_run(system_yaml, protocol_yaml, options)
    return start(prepared, out_dir, logging_progress())


def resume(
    run_dir: str | Path,
    *,
    until: str | None = None,
    backend: str | None = None,
    platform: str | None = None,
    threads: int | None = None,
    progress: ProgressListener | None = None,
) -> Path:
    """Continues an interrupted run to the exact step; what `trip-mm resume` does.

    Args:
        run_dir: directory of the run.
        until: total duration of the last stage, such as `100 ps`, if it is to become longer than
            planned; a finished run then goes on from its end.
        backend: another force backend of TrIP than the run began with.
        platform: another OpenMM platform; the random numbers then are new ones. Double precision
            stays double.
        threads: another number of CPU threads.
        progress: is told what happens; None for the logger `trip_mm`.

    Returns:
        The run directory. A finished run that is long enough is left as it is.

    Raises:
        TripError: what is wrong, where, and what to do.
    """
    listener = progress or logging_progress()
    directory = RunDirectory.open(Path(run_dir))
    if directory.finished and until is None:
        return _nothing_to_resume(directory, listener)
    with locked(directory.path):
        plan = RunPlan.from_dict(read_json(directory.path / RUN_FILE))
        recorded = plan
        chosen = replace(plan, platform=_platform_to_resume_on(plan, platform, threads))
        if backend is not None:
            chosen = replace(chosen, backend=resolve_backend_of(plan, backend))
        check_models(plan, directory.path)
        structure = load_structure(directory.path / STRUCTURE_FILE)
        if until is not None:
            recorded = lengthen(directory, plan, structure, until)
            if directory.finished:
                return _nothing_to_resume(directory, listener)
            chosen = replace(chosen, stages=recorded.stages, protocol=recorded.protocol)
        record_continuation(directory, recorded, chosen, structure)
        execute(directory, chosen, structure, listener, analyze_torsions)
    return directory.path


def _platform_to_resume_on(
    plan: RunPlan, platform: str | None, threads: int | None
) -> PlatformChoice:
    """Returns the platform that a run goes on with; another one must have the run's precision."""
    moved = moved_platform(plan.platform, platform, threads)
    problem = precision_problem(moved, plan.uses_networks())
    if moved.name != plan.platform.name and moved.precision == "double" and problem is not None:
        raise ConfigError(f"--platform {moved.name}: the run has double precision; {problem}")
    return moved


def _nothing_to_resume(directory: RunDirectory, listener: ProgressListener) -> Path:
    listener.message(
        f"{directory.path}: is finished; there is nothing to resume (--until makes its last stage "
        "longer)"
    )
    return directory.path


def prepare_run(
    system_yaml: str | Path, protocol_yaml: str | Path, options: RunOptions
) -> PreparedRun:
    """Loads, resolves, builds and checks everything, without writing a file.

    Raises:
        TripError: what is wrong, where, and what to do.
    """
    system, protocol = load_configs(
        find_config("systems", system_yaml), find_config("protocols", protocol_yaml), options
    )
    plan = make_plan(system, protocol, options)
    check_velocities(plan)
    structure = build_structure(system, derive_seed(plan.seed, "structure"))
    _check(structure, plan)
    return PreparedRun(plan, structure)


def _check(structure: BuiltStructure, plan: RunPlan) -> None:
    """Refuses a structure that a stage, a potential or a committee of the run cannot describe."""
    for potential in plan.potentials_and_committees():
        if potential.kind == "trip":
            from trip_mm.checkpoint import load_potential

            loaded = load_potential(potential.name)
            elements, cutoff = loaded.supported_elements, loaded.cutoff
            check_structure(structure, potential.kind, elements, cutoff)
        else:
            check_structure(structure, potential.kind, None, None)
    check_stages(structure, plan.stages)
    check_openmm_ml(structure, plan)


def start(prepared: PreparedRun, out_dir: str | Path | None, progress: ProgressListener) -> Path:
    """Makes the run directory and runs.

    Raises:
        RunDirectoryError: the directory holds something already.
        PrecisionError: a reduced precision is not accurate enough on this structure.
        TripError: a stage failed or was interrupted; what is there can be resumed.
    """
    path = run_path(prepared, out_dir)
    directory = RunDirectory.create(path)
    try:
        with locked(directory.path):
            checked = with_precision_checks(prepared.plan, prepared.structure, progress)
            plan = prepare(directory, checked, prepared.structure)
            progress.message(f"run directory {path}, {plan.platform.name} platform")
            structure = load_structure(path / STRUCTURE_FILE)
            execute(directory, plan, structure, progress, analyze_torsions)
    finally:
        progress.stopped()
    return path


def run_path(prepared: PreparedRun, out_dir: str | Path | None) -> Path:
    """Returns the run directory: the one asked for, or `runs/SYSTEM-POTENTIAL-PROTOCOL`."""
    return RUNS / prepared.plan.name if out_dir is None else Path(out_dir)


def analyze_torsions(run_dir: Path) -> dict[str, Any] | None:
    """Writes the Ramachandran analysis of a run.

    Returns:
        The content of ramachandran.json; None where no residue has both phi and psi.
    """
    from trip_mm.analysis.ramachandran import NoBackboneTorsionsError, analyze_run

    try:
        analyze_run(run_dir)
    except NoBackboneTorsionsError:
        return None
    return read_json(run_dir / "ramachandran.json")
