"""Execution of a dynamics stage, from its start or from its checkpoint."""

import contextlib
import time
from typing import Any

import openmm
from openmm import unit

from trip_mm.errors import (
    CellTooSmallError,
    DisagreementError,
    TripError,
    UnstableSimulationError,
)
from trip_mm.files import write_atomically
from trip_mm.simulation.checkpoints import (
    StageCheckpoint,
    Watched,
    read_checkpoint,
    restore_context,
    restore_outputs,
    state_xml,
    write_checkpoint,
)
from trip_mm.simulation.committee_reporter import (
    CommitteeLogReporter,
    CommitteeReporter,
    describe_disagreement,
    kcal_per_mol_angstrom,
    load_stage_committee,
)
from trip_mm.simulation.contacts import cell_heights
from trip_mm.simulation.crash import (
    Crash,
    is_cell_too_small,
    is_not_finite,
    is_technical,
    save_crash,
    save_uncertain,
    technical_failure,
)
from trip_mm.simulation.interruption import RunInterrupted
from trip_mm.simulation.monitor import StabilityMonitor
from trip_mm.simulation.progress import SECONDS_PER_DAY
from trip_mm.simulation.reporters import MonitorReporter, log_reporter, trajectory_reporter
from trip_mm.simulation.schedule import is_check_due, next_stop, temperature_schedule
from trip_mm.simulation.stage_task import Services, StageTask, build_simulation, place_at_start
from trip_mm.units import NM_TO_ANGSTROM

_FS_PER_NS = 1e6


class DynamicsRun:
    """One session of a dynamics stage: from its start or checkpoint to its end or a stop."""

    def __init__(self, task: StageTask, services: Services) -> None:
        self._task = task
        self._services = services
        checkpoint = read_checkpoint(task.directory)
        restore_outputs(task.directory, None if checkpoint is None else checkpoint.progress)
        start_step = 0 if checkpoint is None else checkpoint.progress.step
        self._simulation = build_simulation(task, start_step)
        self._earlier_seconds = 0.0 if checkpoint is None else checkpoint.progress.wall_seconds
        self._place(checkpoint)
        self._monitor = StabilityMonitor(services.watch, self._simulation.system)
        self._temperatures = temperature_schedule(task.stage)
        self._initial_temperature = self._remember(checkpoint)
        self._first_step = start_step
        self._began = time.monotonic()
        self._reporters: list[MonitorReporter | CommitteeReporter] = []
        self._committee: CommitteeReporter | None = None

    def _place(self, checkpoint: StageCheckpoint | None) -> None:
        if checkpoint is None:
            place_at_start(self._simulation, self._task)
            return
        note = restore_context(self._simulation, checkpoint)
        if note is not None:
            self._services.progress.message(f"{self._task.label}: {note}")

    def _remember(self, checkpoint: StageCheckpoint | None) -> float:
        """Restores what the monitor had seen; returns the temperature that the stage began at."""
        monitor = self._monitor
        temperature = monitor.temperature(monitor.frame(self._simulation))
        monitor.current_temperature = temperature
        if checkpoint is None:
            return temperature
        seen = checkpoint.progress
        monitor.hot_checks, monitor.transferred = seen.hot_checks, seen.transferred_protons
        return temperature if seen.initial_temperature_k is None else seen.initial_temperature_k

    @property
    def wall_seconds(self) -> float:
        """Time spent in this stage, all sessions together, in s."""
        return self._earlier_seconds + time.monotonic() - self._began

    @property
    def transferred_protons(self) -> int:
        """Largest number of protons seen away from the atom the topology bonds them to."""
        return self._monitor.transferred

    def run(self) -> None:
        """Runs to the end of the stage and leaves its state and a last checkpoint.

        Raises:
            UnstableSimulationError: NaN, torn bond or runaway temperature.
            DisagreementError: the committee disagrees by more than the stage allows.
            CellTooSmallError: the box shrank below twice the cutoff.
            RunInterrupted: a signal asked to stop; a checkpoint has been written.
            OSError: an output file cannot be written.
        """
        task, simulation = self._task, self._simulation
        self._add_reporters()
        progress = self._services.progress
        progress.stage_started(task.label, task.stage.n_steps, simulation.currentStep)
        try:
            while simulation.currentStep < task.stage.n_steps:
                self._advance()
                if self._services.interruption.requested:
                    self._interrupt()
            self._write_checkpoint()
            write_atomically(task.directory.state, state_xml(simulation.context).encode())
        except BaseException:
            # On a full disk the rows that are left cannot be written either.
            with contextlib.suppress(OSError):
                self._close_reporters()
            raise
        self._close_reporters()

    def _close_reporters(self) -> None:
        for reporter in self._reporters:
            reporter.close()
        self._simulation.reporters.clear()

    def _add_reporters(self) -> None:
        directory, stage = self._task.directory, self._task.stage
        periodic = self._simulation.system.usesPeriodicBoundaryConditions()
        interval = stage.log_interval_steps
        monitor = MonitorReporter(directory.monitor, interval, self._services.watch)
        self._reporters.append(monitor)
        log: Any
        if stage.committee is None:
            log = log_reporter(directory.log, interval, periodic)
        else:
            committee = load_stage_committee(self._task.committee, self._task.platform)
            self._committee = CommitteeReporter(
                directory.committee,
                stage.committee.interval_steps,
                committee,
                self._task.structure.topology,
            )
            self._reporters.append(self._committee)
            log = log_reporter(directory.log, interval, periodic, CommitteeLogReporter)
            log.committee = self._committee
        trajectory = trajectory_reporter(directory.trajectory, stage.trajectory_interval_steps)
        self._simulation.reporters.extend([*self._reporters, log, trajectory])

    def _advance(self) -> None:
        """Runs to the next stop; checks the frame and writes the checkpoint when they are due."""
        task, simulation = self._task, self._simulation
        target = self._set_temperature()
        stop = next_stop(simulation.currentStep, task.stage, self._seconds_per_step())
        problem: Exception | None = None
        try:
            simulation.step(stop - simulation.currentStep)
            if is_check_due(simulation.currentStep, task.stage):
                self._monitor.check(simulation, target)
        except UnstableSimulationError as error:
            problem = error
        except openmm.OpenMMException as error:
            problem = error
        except ValueError as error:  # a reporter met NaN
            if not is_not_finite(error):
                raise
            problem = error
        if problem is not None:
            raise self._failure(problem) from problem
        step = simulation.currentStep
        if step % task.stage.checkpoint_interval_steps == 0 and step < task.stage.n_steps:
            self._write_checkpoint()
        detail = f"{self._monitor.current_temperature:.0f} K"
        self._services.progress.stage_advanced(step, self.ns_per_day, detail)
        self._stop_if_uncertain()

    def _write_checkpoint(self) -> None:
        monitor = self._monitor
        watched = Watched(monitor.hot_checks, monitor.transferred, self._initial_temperature)
        write_checkpoint(self._task.directory, self._simulation, self.wall_seconds, watched)

    def _stop_if_uncertain(self) -> None:
        """Ends the run in an orderly way at a frame on which the committee disagrees too much.

        Raises:
            DisagreementError: naming the atoms; the checkpoint and the frame have been written.
        """
        task, simulation, committee = self._task, self._simulation, self._task.stage.committee
        if committee is None or committee.stop_above_kj_per_mol_nm is None:
            return
        assert self._committee is not None
        found = self._committee.latest
        limit = kcal_per_mol_angstrom(committee.stop_above_kj_per_mol_nm)
        if found is None or found.step != simulation.currentStep or found.largest <= limit:
            return
        self._write_checkpoint()
        save_uncertain(task.directory, task.structure.topology, self._monitor.frame(simulation))
        time_ps = found.step * task.stage.timestep_fs / 1000.0
        raise DisagreementError(
            f"{task.directory.path}: step {found.step} ({time_ps:.4g} ps): "
            f"{describe_disagreement(found, limit, self._monitor.atoms)}; the frame is in "
            f"{task.directory.uncertain}; train the models on frames like this one (trip-mm "
            "active-learn), or continue beyond it with "
            f"`trip-mm resume {task.directory.path.parent}`"
        )

    def _set_temperature(self) -> float:
        """Sets the temperature of the next steps; returns it, or the initial one in NVE."""
        if self._temperatures is None:
            return self._initial_temperature
        target = self._temperatures.at(self._simulation.currentStep)
        self._simulation.integrator.setTemperature(target * unit.kelvin)
        if self._task.stage.kind == "npt":
            parameter = openmm.MonteCarloBarostat.Temperature()
            self._simulation.context.setParameter(parameter, target)
        return target

    def _seconds_per_step(self) -> float | None:
        steps = self._simulation.currentStep - self._first_step
        return (time.monotonic() - self._began) / steps if steps else None

    @property
    def ns_per_day(self) -> float:
        """Speed of this session in ns/day; 0 before the first step."""
        seconds = self._seconds_per_step()
        if not seconds:
            return 0.0
        return self._task.stage.timestep_fs / _FS_PER_NS * SECONDS_PER_DAY / seconds

    def _interrupt(self) -> None:
        task, simulation = self._task, self._simulation
        signal_number = self._services.interruption.signal_number
        assert signal_number is not None
        try:
            self._monitor.check_geometry(simulation)
        except UnstableSimulationError as error:
            raise self._failure(error) from error
        self._write_checkpoint()
        raise RunInterrupted(
            f"{task.label}: stopped at step {simulation.currentStep} of {task.stage.n_steps}; "
            f"continue with `trip-mm resume {task.directory.path.parent}`",
            signal_number,
        )

    def _failure(self, problem: Exception) -> TripError:
        """Saves the last frames and says what happened to which atoms.

        A technical failure, of the device or of the backend, leaves no crash behind: nothing is
        wrong with the frame, and its context may no longer answer.
        """
        task, simulation = self._task, self._simulation
        path = task.directory.path
        if is_technical(problem):
            where = f"{path}: step {simulation.currentStep}"
            return technical_failure(where, problem, path.parent)
        after = self._monitor.frame(simulation)
        before = self._monitor.last_good
        save_crash(task.directory, task.structure.topology, Crash(before, after))
        time_ps = after.step * task.stage.timestep_fs / 1000.0
        where = f"{path}: step {after.step} ({time_ps:.4g} ps)"
        saved = f"the frames before and at the stop are in {task.directory.crash}"
        if is_cell_too_small(problem):
            box = after.box_vectors if before is None else before.box_vectors
            assert box is not None
            heights = ", ".join(f"{h:.2f}" for h in cell_heights(box) * NM_TO_ANGSTROM)
            return CellTooSmallError(
                f"{where}: the box has become too small; its last heights were {heights} A "
                f"({problem}); {saved}; start from a larger box"
            )
        if isinstance(problem, UnstableSimulationError):
            reason = str(problem)
        else:
            reason = f"energy or position is not a number ({problem}); {self._monitor.suspects()}"
        return UnstableSimulationError(
            f"{where}: {reason}; {saved}; use a shorter timestep, a longer minimization or a "
            "settling stage with high friction before this one, or a better potential"
        )
