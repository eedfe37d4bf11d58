"""Energy conservation of multiple time steps on the state that a run ended a stage with.

    python recipes/multiple-timesteps/conservation.py runs/val/05-nvt --inner amber14 \
        --timestep 2 --steps 4 --duration 120

Prints the CPU time and size of both groups, and drift and fluctuation of the total energy.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

from trip_mm.backends.multiple_timesteps import (
    INNER_GROUP,
    OUTER_GROUP,
    MultipleTimestepIntegrator,
)
from trip_mm.simulation.checkpoints import load_state
from trip_mm.simulation.plan import parse_potential
from trip_mm.simulation.potentials import SystemOptions, add_inner_potential, create_system
from trip_mm.simulation.structure_file import load_structure

SAMPLED_FS = 4.0
REPEATS = 6


def total_energy(context: openmm.Context) -> float:
    """Returns the total energy in kJ/mol."""
    state = context.getState(energy=True)
    energy = state.getPotentialEnergy() + state.getKineticEnergy()
    return float(energy.value_in_unit(unit.kilojoule_per_mole))


def report_group(context: openmm.Context, name: str, group: int) -> None:
    """Prints time and size of the forces of a group."""
    seconds = []
    for _ in range(REPEATS):
        began = time.process_time()
        state = context.getState(forces=True, groups=1 << group)
        seconds.append(time.process_time() - began)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    rms = np.sqrt((forces**2).sum(axis=1).mean())
    print(f"{name}: {np.median(seconds) * 1e3:.1f} ms CPU, rms force {rms:.0f} kJ/mol/nm")


def main() -> None:
    """Builds the split system and integrates it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", type=Path, help="finished stage of a run directory")
    parser.add_argument("--potential", default="trip-gfn2-s")
    parser.add_argument("--inner", required=True, help="amber14, or a TrIP model")
    parser.add_argument("--timestep", type=float, required=True, help="outer, fs")
    parser.add_argument("--steps", type=int, required=True, help="inner steps in it")
    parser.add_argument("--duration", type=float, default=120.0, help="fs")
    arguments = parser.parse_args()
    structure = load_structure(arguments.stage.parent / "structure.json")
    options = SystemOptions()
    system = create_system(structure, parse_potential(arguments.potential), options)
    add_inner_potential(system, structure, parse_potential(arguments.inner), options)
    integrator = MultipleTimestepIntegrator(arguments.timestep * unit.femtosecond, arguments.steps)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, integrator, platform, {"Threads": "1"})
    load_state(context, (arguments.stage / "state.xml").read_text())
    report_group(context, "inner", INNER_GROUP)
    report_group(context, "difference", OUTER_GROUP)
    times, energies, first = [], [], total_energy(context)
    stride = max(1, round(SAMPLED_FS / arguments.timestep))
    for step in range(1, round(arguments.duration / arguments.timestep) + 1):
        integrator.step(1)
        if step % stride == 0:
            times.append(step * arguments.timestep / 1000.0)
            energies.append(total_energy(context) - first)
    slope, offset = np.polyfit(times, energies, 1)
    residual = np.std(np.asarray(energies) - slope * np.asarray(times) - offset)
    print(f"energy (kJ/mol): {np.round(energies[:: max(1, len(energies) // 10)], 1)}")
    print(f"drift {slope:.1f} kJ/mol/ps, fluctuation {residual:.2f} kJ/mol")


if __name__ == "__main__":
    main()
