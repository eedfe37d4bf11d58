"""Execution of a minimization stage."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from trip_mm.errors import BackendError, CellTooSmallError, TripError, UnstableSimulationError
from trip_mm.simulation.checkpoints import restore_outputs, state_xml
from trip_mm.simulation.checks import atom_label
from trip_mm.simulation.crash import Crash, is_cell_too_small, is_not_finite, save_crash
from trip_mm.simulation.interruption import RunInterrupted
from trip_mm.simulation.monitor import StabilityMonitor
from trip_mm.simulation.run_directory import write_atomically
from trip_mm.simulation.stage_task import Services, StageTask, build_simulation, place_at_start


class _MinimizationLog(openmm.MinimizationReporter):
    """Writes one row per iteration and ends the minimization when a signal asks to."""

    def __init__(self, stream: Any, services: Services) -> None:
        super().__init__()
        self._stream = stream
        self._services = services
        self.iteration = 0
        stream.write('"Iteration","Potential Energy (kJ/mole)","Largest Force (kJ/mole/nm)"\n')

    def report(self, iteration: int, x: Any, grad: Any, args: Any) -> bool:
        """Is called by OpenMM after every iteration; true ends the minimization."""
        forces = np.asarray(grad, dtype=np.float64).reshape(-1, 3)
        largest = float(np.linalg.norm(forces, axis=1).max())
        energy = float(args["system energy"])
        self.iteration += 1
        self._stream.write(f"{self.iteration},{energy:.6f},{largest:.3f}\n")
        self._stream.flush()
        self._services.progress.stage_advanced(self.iteration, 0.0, f"{energy:.1f} kJ/mol")
        return self._services.interruption.requested


@dataclass(frozen=True)
class MinimizationResult:
    """What a minimization achieved: energies in kJ/mol, largest force in kJ/mol/nm."""

    iterations: int
    initial_energy: float
    final_energy: float
    largest_force: float
    largest_force_atom: str
    wall_seconds: float


def run_minimization(task: StageTask, services: Services) -> MinimizationResult:
    """Minimizes the energy and leaves the stage's state; interrupted, it starts over.

    Raises:
        UnstableSimulationError: the energy is not a number, or a bond was torn on the way down.
        RunInterrupted: a signal asked to stop.
    """
    began = time.monotonic()
    restore_outputs(task.directory, None)
    simulation = build_simulation(task)
    place_at_start(simulation, task)
    monitor = StabilityMonitor(services.watch, simulation.system)
    services.progress.stage_started(task.label, task.stage.max_iterations, 0)
    with task.directory.log.open("w", encoding="utf-8") as stream:
        reporter = _MinimizationLog(stream, services)
        try:
            initial, _, _ = _energy_and_largest_force(simulation)
            simulation.minimizeEnergy(
                tolerance=task.stage.tolerance_kj_per_mol_nm
                * (unit.kilojoule_per_mole / unit.nanometer),
                maxIterations=task.stage.max_iterations,
                reporter=reporter,
            )
            final, largest, atom = _energy_and_largest_force(simulation)
            monitor.check_geometry(simulation)
        except (openmm.OpenMMException, UnstableSimulationError) as error:
            raise _failure(simulation, task, monitor, error) from error
    if services.interruption.signal_number is not None:
        raise RunInterrupted(
            f"{task.label}: stopped during the minimization, which starts over; continue with "
            f"`trip-mm resume {task.directory.path.parent}`",
            services.interruption.signal_number,
        )
    write_atomically(task.directory.state, state_xml(simulation.context).encode())
    label = atom_label(monitor.atoms[atom])
    seconds = time.monotonic() - began
    return MinimizationResult(reporter.iteration, initial, final, largest, label, seconds)


def _energy_and_largest_force(simulation: app.Simulation) -> tuple[float, float, int]:
    """Returns the energy in kJ/mol, the largest force in kJ/mol/nm and its atom.

    Raises:
        UnstableSimulationError: one of them is not finite.
    """
    state = simulation.context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    magnitudes = np.linalg.norm(forces, axis=1)
    atom = int(np.argmax(magnitudes))
    if not (np.isfinite(energy) and np.isfinite(magnitudes).all()):
        name = atom_label(list(simulation.topology.atoms())[atom])
        raise UnstableSimulationError(
            f"the energy ({energy} kJ/mol) or a force is not a number; first at {name}"
        )
    return float(energy), float(magnitudes[atom]), atom


def _failure(
    simulation: app.Simulation, task: StageTask, monitor: StabilityMonitor, problem: Exception
) -> TripError:
    """Saves the frame and says what went wrong."""
    if is_cell_too_small(problem):
        return CellTooSmallError(f"{task.directory.path}: {problem}; start from a larger box")
    frame = monitor.frame(simulation)
    save_crash(task.directory, task.structure.topology, Crash(monitor.last_good, frame))
    saved = f"the frame is in {task.directory.crash}"
    if isinstance(problem, UnstableSimulationError) or is_not_finite(problem):
        return UnstableSimulationError(
            f"{task.directory.path}: the minimization failed: {problem}; {saved}; start from a "
            "structure without close contacts, relax it with `potential: amber14` first, or use a "
            "better potential"
        )
    return BackendError(
        f"{task.directory.path}: OpenMM stopped: {problem}; {saved}; fix the cause, then continue "
        f"with `trip-mm resume {task.directory.path.parent}`"
    )
