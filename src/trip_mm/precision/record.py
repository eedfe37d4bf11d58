"""What the check of a reduced precision found, its limits, and what follows from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trip_mm.errors import ConfigError, PrecisionError
from trip_mm.units import BOLTZMANN_CONSTANT, EV_TO_KCAL_PER_MOL

FORCE_LIMIT = 0.01
"""Largest RMS error of a force component, as a share of the thermal force."""

DRIFT_LIMIT_EV_PER_PS_PER_ATOM: float = 3.0 * BOLTZMANN_CONSTANT
"""Largest change of the energy drift: 0.26 meV/ps an atom.

A Langevin thermostat of friction g takes 3 g k_B dT an atom from a system that is dT too warm; with
the usual 1/ps this drift shifts the temperature by 1 K.
"""

STANDARD_ERRORS = 2.0
"""How many standard errors the change of the drift must stay below its limit."""

_MEV = 1e3


@dataclass(frozen=True)
class PrecisionCheck:
    """A reduced precision against float32 on one structure.

    Attributes:
        precision: `tf32` or `bf16`.
        model: name of the potential.
        fingerprint: of its configuration and weights, see `checkpoint.fingerprint`.
        atomic_numbers: of the structure.
        device: where both were computed.
        temperature_k: K.
        timestep_fs: fs.
        n_steps: steps of each run at constant energy.
        thermal_force_ev_per_angstrom: sqrt(k_B T k), k the mean force constant of a coordinate.
        force_error_ev_per_angstrom: RMS difference of a component over the frames of the run.
        largest_force_error_ev_per_angstrom: largest difference of a component.
        drift_float32_ev_per_ps_per_atom: of the total energy in the run with float32 forces.
        drift_change_ev_per_ps_per_atom: what the reduced forces add to it.
        drift_error_ev_per_ps_per_atom: standard error of that change.
        seconds_float32: median time of energy and forces.
        seconds_reduced: likewise.
    """

    precision: str
    model: str
    fingerprint: str
    atomic_numbers: tuple[int, ...]
    device: str
    temperature_k: float
    timestep_fs: float
    n_steps: int
    thermal_force_ev_per_angstrom: float
    force_error_ev_per_angstrom: float
    largest_force_error_ev_per_angstrom: float
    drift_float32_ev_per_ps_per_atom: float
    drift_change_ev_per_ps_per_atom: float
    drift_error_ev_per_ps_per_atom: float
    seconds_float32: float
    seconds_reduced: float

    @property
    def force_share(self) -> float:
        """RMS force error as a share of the thermal force."""
        return self.force_error_ev_per_angstrom / self.thermal_force_ev_per_angstrom

    @property
    def drift_bound_ev_per_ps_per_atom(self) -> float:
        """Largest change of the drift that the run does not rule out."""
        error = STANDARD_ERRORS * self.drift_error_ev_per_ps_per_atom
        return abs(self.drift_change_ev_per_ps_per_atom) + error

    @property
    def forces_pass(self) -> bool:
        """Whether the force error is below its limit; not a number is not."""
        return self.force_share < FORCE_LIMIT

    @property
    def drift_passes(self) -> bool:
        """Whether the change of the drift is below its limit; not a number is not."""
        return self.drift_bound_ev_per_ps_per_atom < DRIFT_LIMIT_EV_PER_PS_PER_ATOM

    @property
    def passed(self) -> bool:
        """Whether the precision may be used on this structure."""
        return self.forces_pass and self.drift_passes

    @property
    def speedup(self) -> float:
        """Time of float32 by that of the reduced precision."""
        return self.seconds_float32 / self.seconds_reduced

    def force_sentence(self) -> str:
        """Says how large the force error is."""
        return (
            f"RMS force error {self.force_error_ev_per_angstrom * EV_TO_KCAL_PER_MOL:.3g} "
            f"kcal/mol/A, {100 * self.force_share:.2f} % of the thermal force of "
            f"{self.thermal_force_ev_per_angstrom * EV_TO_KCAL_PER_MOL:.3g} kcal/mol/A at "
            f"{self.temperature_k:g} K (limit {100 * FORCE_LIMIT:g} %)"
        )

    def drift_sentence(self) -> str:
        """Says how the drift of the energy changes."""
        return (
            f"drift of the energy changed by {_MEV * self.drift_change_ev_per_ps_per_atom:.2g} +- "
            f"{_MEV * STANDARD_ERRORS * self.drift_error_ev_per_ps_per_atom:.2g} meV/ps/atom "
            f"(two standard errors; limit {_MEV * DRIFT_LIMIT_EV_PER_PS_PER_ATOM:.3f}; float32: "
            f"{_MEV * self.drift_float32_ev_per_ps_per_atom:.2g})"
        )

    def require_passed(self) -> None:
        """Refuses a precision that did not pass.

        Raises:
            PrecisionError: with the measured numbers and what to do.
        """
        if self.passed:
            return
        failed = [] if self.forces_pass else [self.force_sentence()]
        failed += [] if self.drift_passes else [self.drift_sentence()]
        other = " or tf32" if self.precision == "bf16" and "cuda" in self.device else ""
        raise PrecisionError(
            f"{self.precision} is not accurate enough for {self.model} on this structure: "
            f"{'; '.join(failed)}; use float32 (leave precision out){other}"
        )

    def require_for(self, fingerprint: str, atomic_numbers: tuple[int, ...]) -> None:
        """Refuses a check that failed, or that was made with something else.

        Raises:
            PrecisionError: it did not pass.
            ConfigError: it was made with another model, or on other atoms.
        """
        self.require_passed()
        if fingerprint != self.fingerprint:
            raise ConfigError(
                f"the check of {self.precision} was made with other weights than those of the "
                "force; make it with the same potential"
            )
        if atomic_numbers != self.atomic_numbers:
            raise ConfigError(
                f"the check of {self.precision} was made on other atoms than those of the force "
                f"({len(self.atomic_numbers)} and {len(atomic_numbers)} atoms); make it on the "
                "structure that you simulate"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values, with limits and verdict."""
        return {
            **asdict(self),
            "atomic_numbers": list(self.atomic_numbers),
            "force_error_share_of_thermal_force": self.force_share,
            "force_error_limit": FORCE_LIMIT,
            "drift_limit_ev_per_ps_per_atom": DRIFT_LIMIT_EV_PER_PS_PER_ATOM,
            "passed": self.passed,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PrecisionCheck":
        """Reads what `to_dict` wrote; the verdict is made again from the numbers.

        Raises:
            KeyError: a value is missing.
        """
        own = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**own, "atomic_numbers": tuple(own["atomic_numbers"])})
