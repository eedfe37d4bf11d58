"""Short dynamics in float64 around any energy function: relaxation, thermostat, velocity Verlet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from trip_mm.units import AMU_ANGSTROM2_PER_FS2_TO_EV, BOLTZMANN_CONSTANT

Array = NDArray[np.float64]
Evaluate = Callable[[Array], tuple[float, Array]]
"""Positions `[n_atoms, 3]`, A, to energy, eV, and forces `[n_atoms, 3]`, eV/A."""


@dataclass(frozen=True)
class PhasePoint:
    """Positions `[n_atoms, 3]`, A, and velocities `[n_atoms, 3]`, A/fs."""

    positions: Array
    velocities: Array


def relax(evaluate: Evaluate, positions: Array, max_iterations: int) -> Array:
    """Returns positions after at most so many iterations of L-BFGS."""

    def objective(flat: Array) -> tuple[float, Array]:
        energy, forces = evaluate(flat.reshape(positions.shape))
        return energy, -forces.reshape(-1)

    found: Any = minimize(
        objective,
        positions.reshape(-1),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations},
    )
    return np.asarray(found.x, dtype=np.float64).reshape(positions.shape)


def thermal_velocities(masses: Array, temperature_k: float, rng: np.random.Generator) -> Array:
    """Draws Maxwell-Boltzmann velocities, A/fs, without motion of the centre of mass.

    Args:
        masses: u, `[n_atoms]`.
        temperature_k: K.
        rng: source of the random numbers.
    """
    variance = BOLTZMANN_CONSTANT * temperature_k / (masses * AMU_ANGSTROM2_PER_FS2_TO_EV)
    velocities = rng.normal(size=(len(masses), 3)) * np.sqrt(variance)[:, None]
    centred: Array = velocities - masses @ velocities / masses.sum()
    return centred


def kinetic_energy(masses: Array, velocities: Array) -> float:
    """Returns the kinetic energy in eV of masses in u and velocities in A/fs."""
    squared = (velocities * velocities).sum(axis=1)
    return float(0.5 * AMU_ANGSTROM2_PER_FS2_TO_EV * (masses @ squared))


def langevin(
    evaluate: Evaluate,
    start: PhasePoint,
    masses: Array,
    n_steps: int,
    timestep_fs: float,
    bath: tuple[float, float],
    rng: np.random.Generator,
) -> PhasePoint:
    """Thermalises by Langevin dynamics (BAOAB; Leimkuhler and Matthews 2013).

    Args:
        evaluate: energy and forces.
        start: where it begins.
        masses: u, `[n_atoms]`.
        n_steps: number of steps.
        timestep_fs: fs.
        bath: temperature, K, and friction, 1/fs.
        rng: source of the random numbers.
    """
    temperature_k, friction = bath
    x, v = start.positions.copy(), start.velocities.copy()
    inertia = masses[:, None] * AMU_ANGSTROM2_PER_FS2_TO_EV
    kept = np.exp(-friction * timestep_fs)
    noise = np.sqrt((1.0 - kept**2) * BOLTZMANN_CONSTANT * temperature_k / inertia)
    forces = evaluate(x)[1]
    for _ in range(n_steps):
        v += 0.5 * timestep_fs * forces / inertia
        x += 0.5 * timestep_fs * v
        v = kept * v + noise * rng.normal(size=x.shape)
        x += 0.5 * timestep_fs * v
        forces = evaluate(x)[1]
        v += 0.5 * timestep_fs * forces / inertia
    return PhasePoint(x, v - masses @ v / masses.sum())


def verlet(
    evaluate: Evaluate, start: PhasePoint, masses: Array, n_steps: int, timestep_fs: float
) -> Iterator[PhasePoint]:
    """Yields the points of `n_steps` of velocity Verlet at constant energy, the start not included.

    Args:
        evaluate: energy and forces.
        start: where it begins.
        masses: u, `[n_atoms]`.
        n_steps: number of steps.
        timestep_fs: fs.
    """
    x, v = start.positions.copy(), start.velocities.copy()
    inertia = masses[:, None] * AMU_ANGSTROM2_PER_FS2_TO_EV
    forces = evaluate(x)[1]
    for _ in range(n_steps):
        v = v + 0.5 * timestep_fs * forces / inertia
        x = x + timestep_fs * v
        forces = evaluate(x)[1]
        v = v + 0.5 * timestep_fs * forces / inertia
        yield PhasePoint(x, v)
