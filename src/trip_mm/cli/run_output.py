"""What `trip-mm run` and `trip-mm resume` print: plan, progress, summary."""

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from trip_mm.cli.console import console, print_table
from trip_mm.files import read_json
from trip_mm.simulation.box import describe_box
from trip_mm.simulation.estimate import estimate
from trip_mm.simulation.progress import BarProgress, LineProgress, ProgressListener, format_duration
from trip_mm.simulation.run_directory import SUMMARY_FILE
from trip_mm.simulation.stage import ResolvedStage
from trip_mm.simulation.system_config import PotentialConfig
from trip_mm.workflow import PreparedRun

_DISAGREEMENT = "largest_force_disagreement_kcal_per_mol_per_angstrom"


def listener() -> ProgressListener:
    """Returns bars on a terminal, plain lines otherwise."""
    if console.is_terminal:
        return BarProgress(console)
    return LineProgress(lambda text: print(text, flush=True))


def show_plan(prepared: PreparedRun, path: Path) -> None:
    """Prints the resolved plan with an estimate of its time."""
    plan, structure = prepared.plan, prepared.structure
    estimates = estimate(plan, structure)
    n_atoms = structure.topology.getNumAtoms()
    console.print(
        f"{plan.name}: {n_atoms} atoms, {describe_box(structure.box_vectors)}, "
        f"{plan.platform.describe(plan.uses_trip())}, {plan.platform.threads} threads, "
        f"seed {plan.seed}",
        markup=False,
        soft_wrap=True,
    )
    columns = ("stage", "potential", "steps", "timestep", "temperature", "frames", "time")
    table = Table(title=f"Plan for {escape(str(path))}")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for index, (stage, cost) in enumerate(zip(plan.stages, estimates, strict=True)):
        table.add_row(
            _title(stage.name, stage.kind),
            _potential(plan.stage_potential(index), stage),
            _steps(stage),
            _timestep(stage),
            _temperature(stage),
            str(stage.n_steps // stage.trajectory_interval_steps) if stage.n_steps else "",
            "unknown" if cost.seconds is None else format_duration(cost.seconds),
        )
    print_table(table)
    total = sum(cost.seconds or 0.0 for cost in estimates)
    per_step = ", ".join(
        dict.fromkeys(
            f"{_potential(plan.stage_potential(i), stage)}{_inner_steps(stage)} "
            f"{cost.seconds_per_step * 1000:.1f} ms"
            for i, (stage, cost) in enumerate(zip(plan.stages, estimates, strict=True))
        )
    )
    repeated = any(stage.minimizes_in_passes for stage in plan.stages)
    passes = "further passes of minimizations, " if repeated else ""
    endless = any(cost.seconds is None for cost in estimates)
    left_out = ", without minimizations until converged" if endless else ""
    console.print(
        f"estimated time of the steps alone: {format_duration(total)}{left_out} "
        f"(one step: {per_step}); building, starting the potentials, {passes}output and analysis "
        "come on top",
        markup=False,
        soft_wrap=True,
    )


def show_summary(path: Path) -> None:
    """Prints what a finished run found and where it is."""
    summary = read_json(path / SUMMARY_FILE)
    columns: tuple[str, ...] = (
        "stage",
        "ps",
        "ns/day",
        "temperature (K)",
        "density (g/mL)",
        "frames",
    )
    watched = any(_DISAGREEMENT in stage for stage in summary["stages"])
    if watched:
        columns = (*columns, "largest disagreement (kcal/mol/A)")
    table = Table(*columns, title=escape(summary["name"]))
    for stage in summary["stages"]:
        cells = [
            _title(stage["stage"], stage["kind"]),
            _number(stage, "duration_ps", "g"),
            _number(stage, "ns_per_day", ".3g"),
            _number(stage, "mean_temperature_k", ".1f"),
            _number(stage, "mean_density_g_per_ml", ".3f"),
            _number(stage, "frames", "d"),
        ]
        table.add_row(*cells, *([_number(stage, _DISAGREEMENT, ".2f")] if watched else []))
    print_table(table)
    transferred = max(stage.get("transferred_protons", 0) for stage in summary["stages"])
    if transferred:
        console.print(f"up to {transferred} proton(s) changed partners; see monitor.csv")
    if summary["ramachandran"] is not None:
        console.print(_populations(summary["ramachandran"]), markup=False, soft_wrap=True)
    for file in sorted(path.iterdir()):
        if not file.name.startswith(".") and (file.is_symlink() or file.is_file()):
            console.print(f"  {file}", markup=False, soft_wrap=True)


def _populations(ramachandran: dict[str, Any]) -> str:
    from trip_mm.analysis.statistics import too_short_text

    pooled = ramachandran["state_sets"]["tiled"]["pooled"]
    shares = ", ".join(_population(name, state) for name, state in pooled["states"].items())
    times = f"{ramachandran['first_time_ps']:.6g} to {ramachandran['last_time_ps']:.6g} ps"
    text = f"Ramachandran populations ({ramachandran['n_frames']} frames, {times}): {shares}"
    too_short = pooled.get("too_short_for_populations", False)  # not in runs of earlier versions
    return f"{text}; {too_short_text(pooled['n_changes_of_state'])}" if too_short else text


def _population(name: str, state: dict[str, Any]) -> str:
    error = state["population_standard_error_percent"]
    known = "" if error is None else f" +- {error:.1f}"
    return f"{name} {state['population_percent']:.1f}{known} %"


def _number(record: dict[str, Any], key: str, form: str) -> str:
    if key not in record:
        return ""
    return "not a number" if record[key] is None else format(record[key], form)


def _title(name: str, kind: str) -> str:
    return name if name == kind else f"{name} ({kind})"


def _steps(stage: ResolvedStage) -> str:
    if stage.kind != "minimize":
        return str(stage.n_steps)
    if not stage.max_iterations:
        return "until converged"
    return f"up to {stage.max_iterations}{' a pass' if stage.minimizes_in_passes else ''}"


def _timestep(stage: ResolvedStage) -> str:
    if not stage.n_steps:
        return ""
    return f"{stage.timestep_fs:g} fs{_inner_steps(stage)}"


def _inner_steps(stage: ResolvedStage) -> str:
    split = stage.multiple_timesteps
    return "" if split is None else f" / {split.n_steps}"


def _potential(potential: PotentialConfig, stage: ResolvedStage) -> str:
    split = stage.multiple_timesteps
    return str(potential) if split is None else f"{potential} over {split.inner}"


def _temperature(stage: ResolvedStage) -> str:
    if stage.temperature_start_k is None:
        return ""
    if stage.temperature_start_k == stage.temperature_end_k:
        return f"{stage.temperature_start_k:g} K"
    return f"{stage.temperature_start_k:g} -> {stage.temperature_end_k:g} K"
