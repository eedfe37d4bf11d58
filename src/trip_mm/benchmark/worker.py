"""Worker for TrIP and for openmm-ml models: makes the steps of one case."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import app, unit

from trip_mm.backends.openmm_force import add_trip_force
from trip_mm.benchmark import protocol
from trip_mm.benchmark.cases import NEW_PREFIX, OPENMM_ML_PREFIX
from trip_mm.benchmark.flops import operations
from trip_mm.benchmark.systems import STEPS_ONE_WAY, BenchmarkSystem
from trip_mm.checkpoint import load_potential, new_potential
from trip_mm.errors import EvaluationError, MissingDependencyError
from trip_mm.neighbors import VerletList
from trip_mm.potential import TripPotential
from trip_mm.units import EV_TO_KJ_PER_MOL, NM_TO_ANGSTROM

_HEAVY = 1e9
"""Factor of the masses: whatever the forces are, atoms keep their thermal velocities."""

_FEMTOSECONDS_PER_PICOSECOND = 1000.0


def load(model: str, precision: str, seed: int) -> TripPotential:
    """Returns a registered model, a checkpoint, or `new:PRESET` with random weights."""
    dtype = "float64" if precision == "double" else "float32"
    if model.startswith(NEW_PREFIX):
        potential = new_potential(model.removeprefix(NEW_PREFIX), seed, dtype=dtype)
    else:
        potential = load_potential(model, dtype=dtype)
    potential.requires_grad_(False)
    return potential.with_precision("bf16") if precision == "bf16" else potential


class DirectSubject:
    """A potential that is called with positions and returns energy and forces."""

    def __init__(self, task: dict[str, Any], system: BenchmarkSystem) -> None:
        self.timestep_fs: float = task["timestep_fs"]
        self.system = system
        plain = load(task["model"], task["precision"], task["seed"])
        self.potential = plain.with_kernels() if task["form"] == "kernels" else plain
        self.neighbors = VerletList(plain.neighbors.cutoff, plain.neighbors.skin)
        self.search_times: list[float] = []
        self.done = 0

    def step(self) -> None:
        """Evaluates the next positions of the free flight."""
        positions = self.system.displaced(self.done, self.timestep_fs)
        self.potential.energy_and_forces(positions, self.system.atomic_numbers, self.system.cell)
        self.done += 1

    def search(self, step: int) -> int:
        """Finds the neighbours at one step of the flight and returns their number."""
        cell = None if self.system.cell is None else torch.as_tensor(self.system.cell)
        positions = torch.as_tensor(self.system.displaced(step, self.timestep_fs))
        return int(self.neighbors(positions, cell)[0].shape[0])

    def facts(self) -> dict[str, Any]:
        """Returns edges and operations of the starting structure."""
        n_edges = self.search(0)
        count = operations(self.potential.config, len(self.system.atomic_numbers), n_edges)
        return {"n_edges": n_edges, "flop": count}

    def energy_ev(self) -> float:
        """Returns the energy of the starting structure.

        Raises:
            EvaluationError: a force is not finite.
        """
        system = self.system
        energy, forces = self.potential.energy_and_forces(
            system.positions, system.atomic_numbers, system.cell
        )
        if not np.isfinite(forces).all():
            raise EvaluationError("the forces of the starting structure are not finite")
        return energy

    def time_search(self) -> None:
        """Times the neighbour search of the last step, with a list that made the same steps."""
        start = time.perf_counter()
        self.search(self.done - 1)
        self.search_times.append(time.perf_counter() - start)

    def search_seconds(self) -> dict[str, float]:
        """Returns the mean time of a search: a search anew is rare and long."""
        return {"neighbors_s": float(np.mean(self.search_times))}


class OpenMMSubject:
    """A System in which OpenMM makes the steps."""

    def __init__(self, task: dict[str, Any], system: BenchmarkSystem) -> None:
        topology = system.topology()
        model = task["model"]
        if model.startswith(OPENMM_ML_PREFIX):
            openmm_system = _openmm_ml(topology, model.removeprefix(OPENMM_ML_PREFIX))
        else:
            openmm_system = openmm.System()
            for atom in topology.atoms():
                openmm_system.addParticle(atom.element.mass)
            if system.cell is not None:
                openmm_system.setDefaultPeriodicBoxVectors(*(system.cell / NM_TO_ANGSTROM))
            potential = load(model, task["precision"], task["seed"])
            add_trip_force(openmm_system, topology, potential, backend=task["backend"])
        for index, atom in enumerate(topology.atoms()):
            openmm_system.setParticleMass(index, atom.element.mass * _HEAVY)
        timestep = task["timestep_fs"] / _FEMTOSECONDS_PER_PICOSECOND
        integrator = openmm.VerletIntegrator(timestep)
        platform = openmm.Platform.getPlatformByName("CPU")
        self.context = openmm.Context(openmm_system, integrator, platform, {"Threads": "1"})
        self.context.setPositions(system.positions / NM_TO_ANGSTROM)
        self.velocities = system.velocities / NM_TO_ANGSTROM * _FEMTOSECONDS_PER_PICOSECOND
        self.context.setVelocities(self.velocities)
        self.integrator = integrator
        self.done = 0

    def step(self) -> None:
        """Integrates one timestep; the flight turns round as in `BenchmarkSystem.displaced`."""
        if self.done and self.done % STEPS_ONE_WAY == 0:
            self.velocities = -self.velocities
            self.context.setVelocities(self.velocities)
        self.integrator.step(1)
        self.done += 1

    def energy_ev(self) -> float:
        """Returns the potential energy of the present positions."""
        state = self.context.getState(energy=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        return float(energy) / EV_TO_KJ_PER_MOL


def _openmm_ml(topology: app.Topology, name: str) -> openmm.System:
    from openmmml import MLPotential

    try:
        system: openmm.System = MLPotential(name).createSystem(topology)
    except (ImportError, KeyError, OSError, ValueError) as error:
        raise MissingDependencyError(
            f"openmm-ml:{name} cannot be used here ({type(error).__name__}: {error})"
        ) from error
    return system


def _serve_direct(task: dict[str, Any], system: BenchmarkSystem, pipe: Any) -> None:
    subject = DirectSubject(task, system)
    _warm_up(subject.step, task["warm_up"])
    ready = {"energy_ev": subject.energy_ev(), **subject.facts()}
    protocol.serve(ready, subject.step, pipe, subject.time_search, subject.search_seconds)


def _serve_openmm(task: dict[str, Any], system: BenchmarkSystem, pipe: Any) -> None:
    subject = OpenMMSubject(task, system)
    ready: dict[str, Any] = {"energy_ev": subject.energy_ev()}
    _warm_up(subject.step, task["warm_up"])
    if not task["model"].startswith(OPENMM_ML_PREFIX):
        ready.update(DirectSubject(task, system).facts())
    protocol.serve(ready, subject.step, pipe)


def _warm_up(step: Callable[[], None], steps: int) -> None:
    for _ in range(steps):
        step()


def main() -> None:
    """Reads the task named on the command line and serves it."""
    pipe = protocol.claim_output()
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(task["threads"])
    system = BenchmarkSystem.load(Path(task["system_file"]))
    serve = _serve_direct if task["backend"] == "direct" else _serve_openmm
    serve(task, system, pipe)


if __name__ == "__main__":
    main()
