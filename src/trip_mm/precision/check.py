"""The check of a reduced precision against float32 on the user's own structure.

1. The structure is relaxed and thermalised in float32.
2. Thermal force. In the Boltzmann distribution <F_i^2> = k_B T <d2U/dx_i^2> for every coordinate
   (integration by parts; Landau and Lifshitz, Statistical Physics, section 33; the basis of the
   configurational temperature, Rugh, Phys. Rev. Lett. 78, 772 (1997)). Its RMS over the coordinates
   is sqrt(k_B T k), k the mean diagonal element of the Hessian, here at the relaxed structure,
   estimated with random signs (Hutchinson, Commun. Stat. Simul. Comput. 18, 1059 (1989)). Unlike
   the RMS force of one frame it does not depend on how far the structure is from its minimum.
3. Two runs at constant energy from the same point, with float32 and with reduced forces. Frames of
   the second give the force error. The total energy of both is evaluated in float32: its drift is
   the work of the error of the forces, which the rounding noise of the reduced energy would hide.
   The slope of the difference of the two energies is the change of the drift; its standard error
   counts independent points by the lag-1 correlation of the residuals (Santer et al., Int. J.
   Climatol. 28, 1703 (2008), Eq. 4 to 6). A slope of few atoms needs a longer run than one of many.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trip_mm.checkpoint import fingerprint, load_potential
from trip_mm.elements import MASSES
from trip_mm.errors import ConfigError, EvaluationError
from trip_mm.model.reduced import ReducedPrecision, check_available
from trip_mm.potential import TripPotential
from trip_mm.precision.dynamics import (
    Array,
    Evaluate,
    PhasePoint,
    kinetic_energy,
    langevin,
    relax,
    thermal_velocities,
    verlet,
)
from trip_mm.precision.record import PrecisionCheck
from trip_mm.units import BOLTZMANN_CONSTANT

_FS_PER_PS = 1000.0
_FRICTION_PER_FS = 0.05
_DISPLACEMENT = 0.005
"""Displacement of a coordinate for the force constants, A."""
_COORDINATES = 600
"""About so many coordinates are probed, and all of them at least `_LEAST_PROBES` times."""
_LEAST_PROBES = 3

_STEPS_OF_ONE_ATOM, _LEAST_STEPS, _MOST_STEPS = 25_600, 400, 10_000
"""The standard error of a slope falls with atoms N and steps n as N^(-1/2) n^(-3/2)."""
_LEAST_POINTS = 3.0
"""Independent points that a line with an error bar needs."""


@dataclass(frozen=True)
class CheckSettings:
    """How the check is made.

    Attributes:
        temperature_k: of thermal force and dynamics, K.
        timestep_fs: fs.
        n_steps: steps of each run at constant energy; None for 25,600 by the cube root of the
            number of atoms, between 400 and 10,000, which resolves the drift equally well.
        n_blocks: blocks of the runs; each ends with a frame.
        relax_iterations: of L-BFGS, before anything else.
        thermal_steps: steps with a thermostat, before the runs.
        seed: of all random numbers.

    Raises:
        ConfigError: a number that nothing can be measured with.
    """

    temperature_k: float = 298.0
    timestep_fs: float = 0.5
    n_steps: int | None = None
    n_blocks: int = 40
    relax_iterations: int = 50
    thermal_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("temperature_k", "timestep_fs"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}: {getattr(self, name)} is not a positive number")
        if self.n_blocks < 4 or (self.n_steps is not None and self.n_steps < self.n_blocks):
            raise ConfigError(
                f"n_steps, n_blocks: {self.n_steps}, {self.n_blocks} leave no error bar; use at "
                "least 4 blocks, and a step in each"
            )

    def block_steps(self, n_atoms: int) -> int:
        """Returns the number of steps in a block for so many atoms."""
        wanted = round(_STEPS_OF_ONE_ATOM / n_atoms ** (1 / 3))
        automatic = min(max(wanted, _LEAST_STEPS), _MOST_STEPS)
        return max(1, (self.n_steps or automatic) // self.n_blocks)


Tell = Callable[[str, int, int], None]
"""Receives the part of the check, its force evaluations so far and, about, in all."""


def tell_nobody(part: str, n_done: int, n_total: int) -> None:
    """Ignores how far the check is."""


class _Meter:
    """Counts the evaluations of each part of the check."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._part, self._n_done, self._n_total = "", 0, 0

    def begin(self, part: str, n_total: int) -> None:
        """Starts a part with about so many evaluations."""
        self._part, self._n_done, self._n_total = part, 0, n_total
        self._tell(part, 0, n_total)

    def count(self) -> None:
        """Counts an evaluation."""
        self._n_done = min(self._n_done + 1, self._n_total)
        self._tell(self._part, self._n_done, self._n_total)


class _Clock:
    """Energy and forces of a potential on one structure, with the time that they take."""

    def __init__(
        self,
        potential: TripPotential,
        atomic_numbers: NDArray[np.int64],
        cell: Array | None,
        meter: _Meter,
    ) -> None:
        self.potential = potential
        self.atomic_numbers = atomic_numbers
        self.cell = cell
        self.meter = meter
        self.seconds: list[float] = []

    def __call__(self, positions: Array) -> tuple[float, Array]:
        """Returns energy, eV, and forces, eV/A."""
        start = time.perf_counter()
        found = self.potential.energy_and_forces(positions, self.atomic_numbers, self.cell)
        self.seconds.append(time.perf_counter() - start)
        self.meter.count()
        return found

    def median(self) -> float:
        """Returns the median time, s."""
        return float(np.median(self.seconds))


def check_precision(
    potential: TripPotential | str | Path,
    positions: NDArray[np.floating[Any]],
    atomic_numbers: NDArray[np.integer[Any]],
    precision: ReducedPrecision,
    cell: NDArray[np.floating[Any]] | None = None,
    settings: CheckSettings | None = None,
    tell: Tell = tell_nobody,
) -> PrecisionCheck:
    """Measures what a reduced precision does to forces and energy conservation; see the module.

    The result says whether it passes; `PrecisionCheck.require_passed` raises if it does not.

    Args:
        potential: a potential in float32, on the device where it will run; or the name of a
            registered model or a checkpoint, which goes to the GPU if torch sees one.
        positions: `[n_atoms, 3]`, A.
        atomic_numbers: `[n_atoms]`.
        precision: `tf32` or `bf16`.
        cell: `[3, 3]`, A, rows are lattice vectors; None for open boundaries.
        settings: lengths and temperature; None for the defaults.
        tell: is called after every evaluation of forces.

    Raises:
        BackendError: `tf32` where torch finds no GPU that has it.
        ConfigError: arguments that do not fit.
        CheckpointError: the potential cannot be loaded.
        EvaluationError: the structure does not hold together in float32 already.
        TripError: whatever the potential refuses.
    """
    check_available(precision)
    settings = settings or CheckSettings()
    if not isinstance(potential, TripPotential):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        potential = load_potential(potential, device=device)
    # A reduced twin as argument would be compared with itself.
    if potential.reduced_precision:
        raise ConfigError("the check needs the potential in float32, not a twin of it")
    numbers = np.asarray(atomic_numbers, dtype=np.int64)
    lattice = None if cell is None else np.asarray(cell, dtype=np.float64)
    meter = _Meter(tell)
    reduced = _Clock(potential.with_precision(precision), numbers, lattice, meter)
    fast = potential.with_kernels() if potential.device.type == "cpu" else potential
    exact = _Clock(fast, numbers, lattice, meter)
    masses = np.array([MASSES[number] for number in numbers])
    rng = np.random.default_rng(settings.seed)

    meter.begin("relaxing", settings.relax_iterations)
    relaxed = relax(exact, np.asarray(positions, dtype=np.float64), settings.relax_iterations)
    meter.begin("thermal force", 2 * _n_probes(relaxed))
    thermal = _thermal_force(exact, relaxed, settings.temperature_k, rng)
    velocities = thermal_velocities(masses, settings.temperature_k, rng)
    meter.begin("thermalising", settings.thermal_steps + 1)
    bath = (settings.temperature_k, _FRICTION_PER_FS)
    start = langevin(
        exact, PhasePoint(relaxed, velocities), masses, settings.thermal_steps,
        settings.timestep_fs, bath, rng,
    )  # fmt: skip
    runs = _compare_runs(exact, reduced, start, masses, settings)
    drift_float32, change, error = runs.drifts(len(numbers))
    return PrecisionCheck(
        precision=precision,
        model=potential.name or "a potential without a name",
        fingerprint=fingerprint(potential),
        atomic_numbers=tuple(int(number) for number in numbers),
        device=potential.device.type,
        temperature_k=settings.temperature_k,
        timestep_fs=settings.timestep_fs,
        n_steps=settings.n_blocks * settings.block_steps(len(numbers)),
        thermal_force_ev_per_angstrom=thermal,
        force_error_ev_per_angstrom=float(np.sqrt((runs.force_errors**2).mean())),
        largest_force_error_ev_per_angstrom=float(np.abs(runs.force_errors).max()),
        drift_float32_ev_per_ps_per_atom=drift_float32,
        drift_change_ev_per_ps_per_atom=change,
        drift_error_ev_per_ps_per_atom=error,
        seconds_float32=exact.median(),
        seconds_reduced=reduced.median(),
    )


def _n_probes(positions: Array) -> int:
    return max(_LEAST_PROBES, _COORDINATES // positions.size)


def _thermal_force(
    evaluate: Evaluate, positions: Array, temperature_k: float, rng: np.random.Generator
) -> float:
    """Returns sqrt(k_B T k), eV/A, with the mean force constant k of a coordinate.

    Raises:
        EvaluationError: k is not positive.
    """
    constants: list[float] = []
    for _ in range(_n_probes(positions)):
        signs = rng.choice([-1.0, 1.0], size=positions.shape)
        ahead = evaluate(positions + _DISPLACEMENT * signs)[1]
        behind = evaluate(positions - _DISPLACEMENT * signs)[1]
        constants.append(float((signs * (behind - ahead)).mean() / (2.0 * _DISPLACEMENT)))
    constant = float(np.mean(constants))
    if not constant > 0.0:
        raise EvaluationError(
            f"the mean force constant of the structure is {constant:.3g} eV/A^2 in float32: it is "
            "at no minimum of the potential, and there is no thermal force to compare with; check "
            "the structure and the model"
        )
    return float(np.sqrt(BOLTZMANN_CONSTANT * temperature_k * constant))


@dataclass(frozen=True)
class _Runs:
    """What two runs at constant energy left.

    Attributes:
        energies: total energy, in float32, at the end of each block and at the start, of the run
            with float32 forces and of that with reduced ones, eV, `[2, n_blocks + 1]`.
        force_errors: at the ends of the blocks of the second, eV/A, `[n_blocks, n_atoms, 3]`.
        block_ps: length of a block.
    """

    energies: Array
    force_errors: Array
    block_ps: float

    def drifts(self, n_atoms: int) -> tuple[float, float, float]:
        """Returns drift in float32, its change and the standard error of it, eV/ps/atom."""
        times = self.block_ps * np.arange(self.energies.shape[1], dtype=np.float64)
        drift = _slope(times, self.energies[0] / n_atoms)[0]
        return drift, *_slope(times, (self.energies[1] - self.energies[0]) / n_atoms)


def _slope(times: Array, values: Array) -> tuple[float, float]:
    """Returns the least-squares slope and its standard error for correlated residuals."""
    centred = times - times.mean()
    spread = float((centred**2).sum())
    slope = float(centred @ values) / spread
    residuals = values - values.mean() - slope * centred
    squares = float((residuals**2).sum())
    correlation = max(0.0, float(residuals[1:] @ residuals[:-1]) / squares) if squares else 0.0
    n_independent = len(times) * (1.0 - correlation) / (1.0 + correlation)
    variance = squares / (max(n_independent, _LEAST_POINTS) - 2.0)
    return slope, float(np.sqrt(variance / spread))


def _compare_runs(
    exact: _Clock,
    reduced: _Clock,
    start: PhasePoint,
    masses: Array,
    settings: CheckSettings,
) -> _Runs:
    steps = settings.block_steps(len(masses))
    n_steps = steps * settings.n_blocks
    beginning = exact(start.positions)[0] + kinetic_energy(masses, start.velocities)
    energies = [[beginning], [beginning]]
    errors: list[Array] = []
    for row, forces in enumerate((exact, reduced)):
        part = f"run with {'reduced' if row else 'float32'} forces"
        exact.meter.begin(part, n_steps + 1 + (row + 1) * settings.n_blocks)
        points = verlet(forces, start, masses, n_steps, settings.timestep_fs)
        for step, point in enumerate(points, start=1):
            if step % steps:
                continue
            energy, expected = exact(point.positions)
            energies[row].append(energy + kinetic_energy(masses, point.velocities))
            if row:
                errors.append(reduced(point.positions)[1] - expected)
    if not np.isfinite(energies[0]).all():
        raise EvaluationError(
            "the structure falls apart in float32 already; check the structure and the model"
        )
    block_ps = steps * settings.timestep_fs / _FS_PER_PS
    return _Runs(np.array(energies), np.array(errors), block_ps)
