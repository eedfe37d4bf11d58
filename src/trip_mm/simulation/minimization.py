"""Execution of a minimization stage."""

import time
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit
from scipy.sparse import csr_array
from scipy.sparse.linalg import spsolve

from trip_mm.errors import CellTooSmallError, TripError, UnstableSimulationError
from trip_mm.files import write_atomically
from trip_mm.simulation.checkpoints import restore_outputs, state_xml
from trip_mm.simulation.crash import (
    Crash,
    is_cell_too_small,
    is_technical,
    save_crash,
    technical_failure,
)
from trip_mm.simulation.interruption import RunInterrupted
from trip_mm.simulation.monitor import StabilityMonitor
from trip_mm.simulation.solute import atom_label
from trip_mm.simulation.stage_task import Services, StageTask, build_simulation, place_at_start

ROUND_ITERATIONS = 25
"""Iterations of a machine-learned minimization between two log rows and looks at the signals."""
SMALLEST_GAIN = 1e-6
"""A round that adds less than this share to the energy gained so far has reached what the
potential resolves. The energy itself is no measure: it counts from separate particles."""

_COLUMNS = (
    "Iteration",
    "Potential Energy (kJ/mole)",
    "Largest Force (kJ/mole/nm)",
    "RMS Force (kJ/mole/nm)",
)
_KJ_PER_MOL_NM = unit.kilojoule_per_mole / unit.nanometer


@dataclass(frozen=True)
class Forces:
    """Energy and forces of a frame.

    Attributes:
        energy: kJ/mol.
        largest: largest force, kJ/mol/nm, and
        atom: the atom it acts on.
        rms: root mean square of the force components, kJ/mol/nm.

    Along rigid bonds there are no forces: constraints cancel them.
    """

    energy: float
    largest: float
    atom: int
    rms: float


@dataclass(frozen=True)
class MinimizationResult:
    """What a minimization achieved.

    Attributes:
        iterations: done, of all passes; on machine-learned potentials in whole rounds.
        passes: OpenMM minimizes with springs in place of rigid bonds, and again with stiffer ones
            until the bonds hold; 1 without rigid bonds.
        initial: energy and forces at its start.
        final: energy and forces at its end.
        largest_force_atom: name of the atom with the largest force.
        converged: whether the root mean square of the forces is below the stage's tolerance.
        wall_seconds: time it took, s.
    """

    iterations: int
    passes: int
    initial: Forces
    final: Forces
    largest_force_atom: str
    converged: bool
    wall_seconds: float


class _Log:
    """Rows of log.csv and the progress shown."""

    def __init__(self, stream: IO[str], services: Services) -> None:
        self._stream = stream
        self._services = services
        self.iteration = 0
        self.passes = 1
        self.limited = False
        stream.write(",".join(f'"{column}"' for column in _COLUMNS) + "\n")

    def add(self, iterations: int, forces: Forces) -> None:
        """Writes where the minimization stands after some more iterations."""
        self.iteration += iterations
        row = f"{forces.energy:.6f},{forces.largest:.3f},{forces.rms:.4f}"
        self._stream.write(f"{self.iteration},{row}\n")
        self._stream.flush()
        detail = f"{forces.energy:.1f} kJ/mol"
        self._services.progress.stage_advanced(self.iteration, 0.0, detail)

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked to stop."""
        return self._services.interruption.requested


class _Reporter(openmm.MinimizationReporter):
    """Adds a row per iteration and ends the minimization when a signal asks to.

    OpenMM counts the iterations of every pass from 0 and applies the limit to each.
    """

    def __init__(self, log: _Log, limit: int) -> None:
        super().__init__()
        self._log = log
        self._limit = limit

    def report(self, iteration: int, x: Any, grad: Any, args: Any) -> bool:
        """Is called by OpenMM after every iteration; true ends the minimization."""
        if iteration == 0 and self._log.iteration > 0:
            self._log.passes += 1
        self._log.limited = self._log.limited or iteration + 1 == self._limit
        gradient = np.asarray(grad, dtype=np.float64).reshape(-1, 3)
        self._log.add(1, _summarize(float(args["system energy"]), gradient))
        return self._log.interrupted


def run_minimization(task: StageTask, services: Services) -> MinimizationResult:
    """Minimizes the energy and leaves the stage's state; interrupted, it starts over.

    Raises:
        UnstableSimulationError: the energy is not a number, or a bond was torn on the way down.
        RunInterrupted: a signal asked to stop.
        OSError: log.csv cannot be written.
    """
    began = time.monotonic()
    restore_outputs(task.directory, None)
    simulation = build_simulation(task)
    place_at_start(simulation, task)
    monitor = StabilityMonitor(services.watch, simulation.system)
    n_iterations = 0 if task.stage.minimizes_in_passes else task.stage.max_iterations
    services.progress.stage_started(task.label, n_iterations, 0, "iterations")
    with task.directory.log.open("w", encoding="utf-8") as stream:
        log = _Log(stream, services)
        try:
            initial = _forces(simulation)
            log.add(0, initial)
            if task.potential.is_classical:
                _minimize_at_once(simulation, task, log)
            else:
                _minimize_in_rounds(simulation, task, log)
            final = _forces(simulation)
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
    label = atom_label(monitor.atoms[final.atom])
    converged = final.rms <= task.stage.tolerance_kj_per_mol_nm
    if not converged:
        services.progress.message(_why_not_converged(task, log, final, label))
    seconds = time.monotonic() - began
    return MinimizationResult(log.iteration, log.passes, initial, final, label, converged, seconds)


def _why_not_converged(task: StageTask, log: _Log, final: Forces, label: str) -> str:
    stage = task.stage
    passes = ""
    if log.passes > 1:
        limit = f" of at most {stage.max_iterations}" if stage.max_iterations else ""
        passes = f" ({log.passes} passes{limit}: rigid bonds are tightened from pass to pass)"
    how = "stopped" if log.limited else "found no lower energy"
    text = (
        f"{task.label}: {how} after {log.iteration} iterations{passes} at a root-mean-square force "
        f"of {final.rms:.3g} kJ/mol/nm (tolerance {stage.tolerance_kj_per_mol_nm:g}; largest force "
        f"{final.largest:.3g} on {label}); the stages that follow start from there"
    )
    if log.limited:
        option = f"--set stages.{stage.name}.max_iterations=N"
        return f"{text}; if a minimum is wanted, the limit is too low: raise it with `{option}`"
    if task.platform.precision == "double":
        return text
    return f"{text}; if a minimum is wanted, try double precision, as of `--platform Reference`"


def _minimize_at_once(simulation: app.Simulation, task: StageTask, log: _Log) -> None:
    """Minimizes in one call with a row per iteration; knows constraints."""
    simulation.minimizeEnergy(
        tolerance=task.stage.tolerance_kj_per_mol_nm * _KJ_PER_MOL_NM,
        maxIterations=task.stage.max_iterations,
        reporter=_Reporter(log, task.stage.max_iterations),
    )


def _minimize_in_rounds(simulation: app.Simulation, task: StageTask, log: _Log) -> None:
    """Minimizes in rounds of a few iterations, without constraints and without a reporter.

    While OpenMM minimizes with a Python reporter it holds Python's lock, and torch refuses to
    differentiate in a TorchForce.
    """
    tolerance, limit = task.stage.tolerance_kj_per_mol_nm, task.stage.max_iterations
    first = before = _forces(simulation)
    while before.rms > tolerance and not log.interrupted:
        n_left = limit - log.iteration if limit else ROUND_ITERATIONS
        if n_left <= 0:
            log.limited = True
            return
        n_iterations = min(ROUND_ITERATIONS, n_left)
        simulation.minimizeEnergy(tolerance * _KJ_PER_MOL_NM, n_iterations)
        after = _forces(simulation)
        log.add(n_iterations, after)
        if before.energy - after.energy <= SMALLEST_GAIN * (first.energy - after.energy):
            return
        before = after


def _forces(simulation: app.Simulation) -> Forces:
    """Evaluates energy and forces of the current frame.

    Raises:
        UnstableSimulationError: one of them is not finite.
    """
    state = simulation.context.getState(energy=True, forces=True, positions=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    forces = state.getForces(asNumpy=True).value_in_unit(_KJ_PER_MOL_NM)
    if np.isfinite(forces).all():
        forces = _without_rigid_bonds(simulation.system, positions, forces)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    found = _summarize(float(energy), forces)
    if not (np.isfinite(found.energy) and np.isfinite(found.rms)):
        name = atom_label(list(simulation.topology.atoms())[found.atom])
        raise UnstableSimulationError(
            f"the energy ({energy} kJ/mol) or a force is not a number; first at {name}"
        )
    return found


def _without_rigid_bonds(
    system: openmm.System, positions: NDArray[np.float64], forces: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Takes from the forces what constraints cancel, their projection on the rigid bonds.

    F - J^T (J J^T)^-1 J F, with a row of J for each constraint: the bond's vector at one end, its
    negative at the other. Molecules are whole in the positions of a context.
    """
    n_constraints = system.getNumConstraints()
    if n_constraints == 0:
        return forces
    ends = np.array([system.getConstraintParameters(i)[:2] for i in range(n_constraints)])
    bonds = positions[ends[:, 0]] - positions[ends[:, 1]]
    columns = (3 * ends[:, :, None] + np.arange(3)).reshape(n_constraints, 6)
    rows = np.repeat(np.arange(n_constraints), 6)
    values = np.concatenate([bonds, -bonds], axis=1)
    jacobian = csr_array((values.ravel(), (rows, columns.ravel())), (n_constraints, forces.size))
    multipliers = spsolve((jacobian @ jacobian.T).tocsc(), jacobian @ forces.ravel())
    projected: NDArray[np.float64] = forces - (jacobian.T @ multipliers).reshape(-1, 3)
    return projected


def _summarize(energy: float, forces: NDArray[np.float64]) -> Forces:
    magnitudes = np.linalg.norm(forces, axis=1)
    atom = int(np.argmax(magnitudes))
    return Forces(energy, float(magnitudes[atom]), atom, float(np.sqrt(np.mean(forces**2))))


def _failure(
    simulation: app.Simulation, task: StageTask, monitor: StabilityMonitor, problem: Exception
) -> TripError:
    """Saves the frame and says what went wrong."""
    if is_cell_too_small(problem):
        return CellTooSmallError(f"{task.directory.path}: {problem}; start from a larger box")
    if is_technical(problem):
        path = task.directory.path
        return technical_failure(str(path), problem, path.parent)
    frame = monitor.frame(simulation)
    save_crash(task.directory, task.structure.topology, Crash(monitor.last_good, frame))
    return UnstableSimulationError(
        f"{task.directory.path}: the minimization failed: {problem}; the frame is in "
        f"{task.directory.crash}; start from a structure without close contacts, relax it with "
        "`potential: amber14` first, or use a better potential"
    )
