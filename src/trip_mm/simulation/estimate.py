"""How long the steps of a run will take, from a few evaluations of each of its potentials.

Not counted: building, the start of a potential (its kernels are compiled, which can take tens of
seconds), output, analysis, and evaluations of a minimization beyond one per iteration of one pass.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm

from trip_mm.backends.multiple_timesteps import INNER_GROUP, OUTER_GROUP
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.committee_reporter import load_stage_committee
from trip_mm.simulation.plan import RunPlan
from trip_mm.simulation.platforms import apply_threads
from trip_mm.simulation.precision_checks import load_reduced
from trip_mm.simulation.run_directory import StageDirectory, stage_directory_name
from trip_mm.simulation.stage import CommitteeWatch
from trip_mm.simulation.stage_task import StageTask, build_simulation, place_at_start
from trip_mm.units import NM_TO_ANGSTROM

ALL_GROUPS = -1
_WARM_UP = 3
_MEASURED = 5


@dataclass(frozen=True)
class StageEstimate:
    """Expected cost of a stage.

    Attributes:
        seconds_per_step: time of one evaluation of energy and forces, with the inner steps of
            multiple time steps and the committee's share, s.
        seconds: of the stage, s; None for a minimization without an iteration limit.
    """

    seconds_per_step: float
    seconds: float | None


def estimate(plan: RunPlan, structure: BuiltStructure) -> list[StageEstimate]:
    """Measures every potential of a run and scales to its stages; writes nothing.

    Raises:
        TripError: a potential does not work on the structure.
    """
    if plan.uses_networks():
        apply_threads(plan.platform)
    measured: dict[str, float] = {}
    estimates = []
    for index, stage in enumerate(plan.stages):
        potential = f"{plan.stage_potential(index)} {stage.multiple_timesteps}"
        if potential not in measured:
            measured[potential] = _seconds_per_evaluation(plan, structure, index)
        n_evaluations = stage.n_steps or stage.max_iterations
        cost = measured[potential]
        if stage.committee is not None:
            committee = str(stage.committee.models)
            if committee not in measured:
                measured[committee] = _seconds_per_comparison(plan, structure, stage.committee)
            cost += measured[committee] / stage.committee.interval_steps
        estimates.append(StageEstimate(cost, cost * n_evaluations if n_evaluations else None))
    return estimates


def _seconds_per_evaluation(plan: RunPlan, structure: BuiltStructure, index: int) -> float:
    stage = plan.stages[index]
    split = stage.multiple_timesteps
    if plan.stage_potential(index).is_reduced:
        return _seconds_per_call(plan, structure, index)
    task = StageTask(
        directory=StageDirectory(Path(stage_directory_name(index, stage.name))),
        stage=stage,
        potential=plan.stage_potential(index),
        structure=structure,
        backend=plan.backend,
        platform=plan.platform,
        seed=plan.seed,
        start=None,
        draw_velocities=False,
        inner=None if split is None else split.inner,
    )
    simulation = build_simulation(task)
    place_at_start(simulation, task)
    if split is None:
        return _seconds_of_groups(simulation.context, ALL_GROUPS)
    outer = _seconds_of_groups(simulation.context, 1 << OUTER_GROUP)
    inner = _seconds_of_groups(simulation.context, 1 << INNER_GROUP)
    return outer + (split.n_steps + 1) * inner


def _seconds_of_groups(context: openmm.Context, groups: int) -> float:
    times = []
    for _ in range(_WARM_UP + _MEASURED):
        began = time.perf_counter()
        context.getState(energy=True, forces=True, groups=groups)
        times.append(time.perf_counter() - began)
    return statistics.median(times[_WARM_UP:])


def _seconds_per_call(plan: RunPlan, structure: BuiltStructure, index: int) -> float:
    """Time of a call of a potential of reduced precision, which OpenMM gets only when checked."""
    potential = load_reduced(plan, plan.stage_potential(index))
    numbers = np.array([atom.element.atomic_number for atom in structure.topology.atoms()])
    box = structure.box_vectors
    cell = None if box is None else box * NM_TO_ANGSTROM
    times = []
    for _ in range(_WARM_UP + _MEASURED):
        began = time.perf_counter()
        potential.energy_and_forces(structure.positions * NM_TO_ANGSTROM, numbers, cell)
        times.append(time.perf_counter() - began)
    return statistics.median(times[_WARM_UP:])


def _seconds_per_comparison(
    plan: RunPlan, structure: BuiltStructure, watch: CommitteeWatch
) -> float:
    committee = load_stage_committee(watch.models, plan.platform)
    numbers = [atom.element.atomic_number for atom in structure.topology.atoms()]
    box = structure.box_vectors
    cell = None if box is None else box * NM_TO_ANGSTROM
    times = []
    for _ in range(_WARM_UP + _MEASURED):
        began = time.perf_counter()
        committee.predict(structure.positions * NM_TO_ANGSTROM, np.asarray(numbers), cell)
        times.append(time.perf_counter() - began)
    return statistics.median(times[_WARM_UP:])
