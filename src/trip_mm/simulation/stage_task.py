"""From the settings of a stage to an OpenMM Simulation at its starting point."""

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit

from trip_mm.backends.multiple_timesteps import (
    MultipleTimestepIntegrator,
    MultipleTimestepLangevinIntegrator,
)
from trip_mm.errors import BackendError, CellTooSmallError
from trip_mm.precision.record import PrecisionCheck
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.checkpoints import load_state
from trip_mm.simulation.crash import is_cell_too_small
from trip_mm.simulation.interruption import Interruption
from trip_mm.simulation.monitor import BondWatch
from trip_mm.simulation.platforms import PlatformChoice
from trip_mm.simulation.potentials import SystemOptions, add_inner_potential, create_system
from trip_mm.simulation.progress import ProgressListener
from trip_mm.simulation.run_directory import StageDirectory
from trip_mm.simulation.schedule import temperature_schedule
from trip_mm.simulation.seeds import derive_seed
from trip_mm.simulation.stage import ResolvedStage
from trip_mm.simulation.system_config import PotentialConfig

CONSTRAINT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class StageTask:
    """Everything that determines what a stage computes.

    Attributes:
        directory: where it writes.
        stage: its settings.
        potential: energy function, ready to load.
        structure: topology, and positions for a stage without a predecessor.
        backend: force backend of TrIP.
        platform: OpenMM platform.
        seed: seed of this stage; velocities, thermostat and barostat derive theirs from it.
        start: state to start from (XML); None for the built structure.
        draw_velocities: whether velocities are drawn at the start, or taken from `start`.
        committee: models of the stage's committee, ready to load; empty without one.
        inner: inner potential of multiple time steps, ready to load; None without them.
        precision_check: of a potential of reduced precision, else None.
    """

    directory: StageDirectory
    stage: ResolvedStage
    potential: PotentialConfig
    structure: BuiltStructure
    backend: str
    platform: PlatformChoice
    seed: int
    start: str | None
    draw_velocities: bool
    committee: tuple[str, ...] = ()
    inner: PotentialConfig | None = None
    precision_check: PrecisionCheck | None = None

    @property
    def label(self) -> str:
        """The stage's directory name."""
        return self.directory.path.name


@dataclass(frozen=True)
class Services:
    """What stages share: the listener, the signals, the bonds to watch."""

    progress: ProgressListener
    interruption: Interruption
    watch: BondWatch


def build_simulation(task: StageTask, start_step: int = 0) -> app.Simulation:
    """Builds System, integrator and Context of a stage.

    Args:
        task: the stage.
        start_step: step it starts at; random numbers of a resumed stage are not those of its start.

    Raises:
        TripError: the potential, the platform or the box does not allow it.
    """
    stage = task.stage
    options = SystemOptions(
        backend=task.backend,
        precision=task.platform.precision,
        precision_asked=task.platform.precision_asked,
        precision_check=task.precision_check,
        constraints=stage.constraints,
        hydrogen_mass_u=stage.hydrogen_mass_u,
    )
    system = create_system(task.structure, task.potential, options)
    if task.inner is not None:
        add_inner_potential(system, task.structure, task.inner, options)
    temperatures = temperature_schedule(stage)
    if stage.kind == "npt":
        assert temperatures is not None
        assert stage.pressure_bar is not None
        barostat = openmm.MonteCarloBarostat(
            stage.pressure_bar * unit.bar,
            temperatures.at(start_step) * unit.kelvin,
            stage.barostat_interval,
        )
        barostat.setRandomNumberSeed(derive_seed(task.seed, "barostat", start_step))
        system.addForce(barostat)
    integrator = _integrator(task, start_step)
    platform = openmm.Platform.getPlatformByName(task.platform.name)
    properties = task.platform.properties(classical=task.potential.is_classical)
    try:
        return app.Simulation(task.structure.topology, system, integrator, platform, properties)
    except openmm.OpenMMException as error:
        if is_cell_too_small(error):
            raise CellTooSmallError(f"{task.label}: {error}") from error
        raise BackendError(
            f"{task.label}: OpenMM's {task.platform.name} platform refuses {task.potential}: "
            f"{error}; try another --platform or --backend"
        ) from error


def _integrator(task: StageTask, start_step: int) -> openmm.Integrator:
    stage = task.stage
    timestep = (stage.timestep_fs or 1.0) * unit.femtosecond
    temperatures = temperature_schedule(stage)
    split = stage.multiple_timesteps
    if temperatures is None:
        integrator = (
            openmm.VerletIntegrator(timestep)
            if split is None
            else MultipleTimestepIntegrator(timestep, split.n_steps)
        )
    else:
        bath = (
            temperatures.at(start_step) * unit.kelvin,
            stage.friction_per_ps / unit.picosecond,
            timestep,
        )
        integrator = (
            openmm.LangevinMiddleIntegrator(*bath)
            if split is None
            else MultipleTimestepLangevinIntegrator(*bath, split.n_steps)
        )
        integrator.setRandomNumberSeed(derive_seed(task.seed, "thermostat", start_step))
    integrator.setConstraintTolerance(CONSTRAINT_TOLERANCE)
    return integrator


def place_at_start(simulation: app.Simulation, task: StageTask) -> None:
    """Sets positions, box and velocities of a stage that begins."""
    context = simulation.context
    if task.start is None:
        if task.structure.box_vectors is not None:
            context.setPeriodicBoxVectors(*np.asarray(task.structure.box_vectors))
        context.setPositions(np.asarray(task.structure.positions))
    else:
        load_state(context, task.start)
    context.setTime(0.0)
    context.applyConstraints(CONSTRAINT_TOLERANCE)
    if task.draw_velocities and task.stage.temperature_start_k is not None:
        context.setVelocitiesToTemperature(
            task.stage.temperature_start_k * unit.kelvin, derive_seed(task.seed, "velocities")
        )
    else:
        context.applyVelocityConstraints(CONSTRAINT_TOLERANCE)
