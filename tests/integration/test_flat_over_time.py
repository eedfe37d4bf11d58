"""A long run neither slows down nor grows."""

import gc
import os
import time
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from trip_mm.backends.openmm_force import add_trip_force, available_backends

STATM = Path("/proc/self/statm")
N_STEPS = int(os.environ.get("TRIP_MM_FLAT_STEPS", "10000"))


def resident_mib() -> float:
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def two_waters() -> tuple[app.Topology, openmm.System, np.ndarray]:
    """Two molecules, each atom held near its place so that they never part."""
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("HOH", chain)
        oxygen = topology.addAtom("O", app.element.oxygen, residue)
        for name in ("H1", "H2"):
            topology.addBond(oxygen, topology.addAtom(name, app.element.hydrogen, residue))
    water = np.array([[0.0, 0.0, 0.0], [0.0957, 0.0, 0.0], [-0.024, 0.0927, 0.0]])
    positions = np.concatenate([water, water + np.array([0.0, -0.1, 0.27])])
    tether = openmm.CustomExternalForce("2000*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for name in ("x0", "y0", "z0"):
        tether.addPerParticleParameter(name)
    for index, atom in enumerate(topology.atoms()):
        system.addParticle(atom.element.mass)
        tether.addParticle(index, positions[index])
    system.addForce(tether)
    return topology, system, positions


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads the resident memory from /proc")
@pytest.mark.parametrize("backend", ["torch", "python"])
def test_no_slower_and_no_larger(backend: str) -> None:
    """TRIP_MM_FLAT_STEPS sets the length; docs/performance.md has the figures of 100,000."""
    problem = available_backends()[backend]
    if problem is not None:
        pytest.skip(problem)
    topology, system, positions = two_waters()
    add_trip_force(system, topology, "trip-gfn2-s", backend=backend)
    integrator = openmm.LangevinMiddleIntegrator(
        298 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond
    )
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, integrator, platform, {"Threads": "1"})
    context.setPositions(positions)
    integrator.step(500)
    n_blocks = 100
    before, times = resident_mib(), []
    for _ in range(n_blocks):
        start = time.process_time()  # not disturbed by what else the machine does
        integrator.step(N_STEPS // n_blocks)
        times.append(time.process_time() - start)
    grown = resident_mib() - before
    tenth = n_blocks // 10
    first, last = np.median(times[:tenth]), np.median(times[-tenth:])
    print(f"{backend}: {N_STEPS} steps, {1e3 * np.median(times) * n_blocks / N_STEPS:.2f} ms/step,")
    print(f"last tenth / first tenth {last / first:.3f}, grown by {grown:.1f} MiB")
    assert last < 1.05 * first
    assert grown < 8.0
