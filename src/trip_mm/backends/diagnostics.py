"""What works here: versions, OpenMM platforms, force backends, and one energy through each."""

import importlib.metadata
import os
import platform as host
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit

from trip_mm import __version__
from trip_mm.backends.openmm_force import add_trip_force, available_backends, resolve_backend
from trip_mm.backends.openmm_platforms import platform_problem, platforms_by_speed
from trip_mm.backends.plugin import plugin_failures
from trip_mm.checkpoint import load_potential, new_potential, registry, save_potential
from trip_mm.errors import BackendError, TripError
from trip_mm.potential import TripPotential
from trip_mm.units import EV_TO_KJ_PER_MOL, NM_TO_ANGSTROM

REQUIRED_PACKAGES = (
    "torch", "openmm", "openmmml", "e3nn", "numpy", "scipy", "MDAnalysis", "rdkit", "pdbfixer",
    "pydantic", "safetensors", "h5py", "matplotlib",
)  # fmt: skip
OPTIONAL_PACKAGES = ("openmmtorch", "lightning", "tblite", "pyscf", "ase", "dask", "jupytext")
DEFAULT_MODEL = "trip-gfn2-s"
TOLERANCE = 1e-4
"""Largest relative difference of a backend: platforms of single precision round positions."""


@dataclass(frozen=True)
class BackendCheck:
    """One energy and its forces through one platform and backend, against the eager potential.

    Attributes:
        platform: name of the OpenMM platform.
        backend: name of the force backend.
        energy_difference: kJ/mol; None if there was no energy.
        force_difference: largest difference of a component relative to the largest component.
        problem: why there was no energy, or what is wrong with it; None if all is well.
    """

    platform: str
    backend: str
    energy_difference: float | None
    force_difference: float | None
    problem: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `trip-mm doctor` prints.

    Attributes:
        versions: version of each program and package; None if it is not installed.
        platforms: speed that OpenMM gives each of its platforms, by name.
        plugin_failures: what is not loaded, one line each.
        backends: None for a force backend that works, else the reason why it does not, by name.
        devices: where torch can run, in words.
        model: the potential behind the checks, in words.
        default: backend and platform that a run uses if it names neither; None where none works.
        checks: one for each platform and working backend.
    """

    versions: dict[str, str | None]
    platforms: dict[str, float]
    plugin_failures: tuple[str, ...]
    backends: dict[str, str | None]
    devices: str
    model: str
    default: tuple[str, str] | None
    checks: tuple[BackendCheck, ...]

    @property
    def default_works(self) -> bool:
        """Whether the default backend gives the right energy on the default platform."""
        return any(
            check.problem is None and (check.backend, check.platform) == self.default
            for check in self.checks
        )


def package_versions() -> dict[str, str | None]:
    """Versions of Python, trip-mm and the packages that matter; None if not installed."""
    versions: dict[str, str | None] = {"python": host.python_version(), "trip-mm": __version__}
    for name in REQUIRED_PACKAGES + OPTIONAL_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def platform_speeds() -> dict[str, float]:
    """Relative speed that OpenMM gives each platform it has loaded, by name."""
    return {platform.getName(): platform.getSpeed() for platform in platforms_by_speed()}


def describe_devices() -> str:
    """Where torch can run: its GPUs, or why there is none, and its CPU threads."""
    cpu = f"{torch.get_num_threads()} threads on {os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"CUDA {torch.version.cuda}: {', '.join(names)}; {cpu}"
    if torch.version.cuda is None:
        return f"no CUDA: this is a CPU build of torch; {cpu}"
    return f"no CUDA: torch was built for {torch.version.cuda} and finds no usable GPU; {cpu}"


def water_box(n_side: int, edge: float) -> tuple[app.Topology, NDArray[np.float64]]:
    """Water molecules on a cubic grid, turned at random, in a periodic cube; for checks and tests.

    Args:
        n_side: molecules along each edge.
        edge: edge of the cube, nm.

    Returns:
        Topology and positions, nm, [3 n_side^3, 3]; always the same.
    """
    generator = np.random.default_rng(0)
    molecule = np.array([[0.0, 0.0, 0.0], [0.0757, 0.0586, 0.0], [-0.0757, 0.0586, 0.0]])
    topology = app.Topology()
    topology.setPeriodicBoxVectors(np.eye(3) * edge * unit.nanometer)
    chain = topology.addChain()
    positions = []
    for cell in np.ndindex(n_side, n_side, n_side):
        residue = topology.addResidue("HOH", chain)
        oxygen = topology.addAtom("O", app.element.oxygen, residue)
        for name in ("H1", "H2"):
            hydrogen = topology.addAtom(name, app.element.hydrogen, residue)
            topology.addBond(oxygen, hydrogen)
        rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
        positions.append(np.asarray(cell) * edge / n_side + molecule @ rotation)
    return topology, np.concatenate(positions)


def system_of(topology: app.Topology) -> openmm.System:
    """A System with the particles and the box of a topology, without forces."""
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    if topology.getPeriodicBoxVectors() is not None:
        system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    return system


def check_backend(potential: Path, platform: str, backend: str) -> BackendCheck:
    """Compares one energy and its forces with those of the eager potential.

    Args:
        potential: path of a checkpoint.
        platform: name of an OpenMM platform.
        backend: name of a force backend.

    Returns:
        The differences, or the problem that prevented them.
    """
    topology, positions = water_box(2, 1.0)
    loaded = load_potential(str(potential))
    expected_energy, expected_forces = _expected(loaded, topology, positions)
    system = system_of(topology)
    try:
        add_trip_force(system, topology, potential, backend=backend)  # type: ignore[arg-type]
        context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform)
        )
        context.setPositions(positions)
        state = context.getState(getEnergy=True, getForces=True)
    except (TripError, openmm.OpenMMException) as error:
        return BackendCheck(platform, backend, None, None, str(error).strip().splitlines()[-1])
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    energy_difference = float(energy - expected_energy)
    largest = float(np.abs(expected_forces).max())
    force_difference = float(np.abs(forces - expected_forces).max()) / largest
    right = (
        abs(energy_difference) <= TOLERANCE * max(1.0, abs(expected_energy))
        and force_difference <= TOLERANCE
    )
    problem = None if right else "differs from the eager potential"
    return BackendCheck(platform, backend, energy_difference, force_difference, problem)


def _expected(
    potential: TripPotential, topology: app.Topology, positions: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Energy, kJ/mol, and forces, kJ/mol/nm, of the eager potential."""
    atomic_numbers = np.array([atom.element.atomic_number for atom in topology.atoms()])
    box_vectors = topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer)
    energy, forces = potential.energy_and_forces(
        positions * NM_TO_ANGSTROM, atomic_numbers, np.asarray(box_vectors) * NM_TO_ANGSTROM
    )
    per_nm = EV_TO_KJ_PER_MOL * NM_TO_ANGSTROM
    return float(energy) * EV_TO_KJ_PER_MOL, np.asarray(forces, dtype=np.float64) * per_nm


def _default() -> tuple[str, str] | None:
    """Backend and platform of a run that names neither; None if no backend or platform works."""
    working = [p.getName() for p in platforms_by_speed() if platform_problem(p) is None]
    try:
        return (resolve_backend("auto"), working[0]) if working else None
    except BackendError:
        return None


def diagnose() -> Diagnosis:
    """Looks at everything that a simulation needs, and computes one energy through each backend.

    The potential is the shipped model, or one with random weights if none is registered.
    """
    backends = available_backends()
    platforms = platform_speeds()
    with tempfile.TemporaryDirectory() as directory:
        cards = registry()
        if DEFAULT_MODEL in cards:
            path = Path(cards[DEFAULT_MODEL].path)
            model = f"{DEFAULT_MODEL} (registered)"
        else:
            path = Path(directory) / "random.safetensors"
            save_potential(new_potential("trip-s", seed=0), path)
            model = f"trip-s with random weights ({DEFAULT_MODEL} is not registered)"
        checks = tuple(
            check_backend(path, platform, backend)
            for platform in platforms
            for backend, reason in backends.items()
            if reason is None
        )
    return Diagnosis(
        versions=package_versions(),
        platforms=platforms,
        plugin_failures=plugin_failures(),
        backends=backends,
        devices=describe_devices(),
        model=model,
        default=_default(),
        checks=checks,
    )
