"""A stage as plain numbers, and the rules for timesteps and exact step counts."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from trip_mm.simulation.system_config import PotentialConfig

_STEP_TOLERANCE = 1e-6
"""Largest distance of duration / timestep from a whole number that is rounding, not intent."""

DEFAULT_TRAJECTORY_STEPS = 1000
DEFAULT_LOG_STEPS = 100
DEFAULT_CHECKPOINT_STEPS = 1000


@dataclass(frozen=True)
class CommitteeWatch:
    """The committee of a stage.

    Attributes:
        models: names of registered models, or files.
        interval_steps: steps between two comparisons.
        stop_above_kj_per_mol_nm: disagreement on an atom at which the run stops; None for none.
    """

    models: tuple[str, ...]
    interval_steps: int
    stop_above_kj_per_mol_nm: float | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CommitteeWatch":
        """Reads what `dataclasses.asdict` wrote, after JSON."""
        return cls(**{**values, "models": tuple(values["models"])})


@dataclass(frozen=True)
class MultipleTimesteps:
    """The inner potential of a stage with multiple time steps.

    Attributes:
        inner: the cheap potential.
        n_steps: its steps in a step of the stage.
    """

    inner: PotentialConfig
    n_steps: int

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MultipleTimesteps":
        """Reads what `ResolvedStage.to_dict` wrote, after JSON."""
        return cls(PotentialConfig.model_validate(values["inner"]), values["n_steps"])


@dataclass(frozen=True)
class ResolvedStage:
    """One stage for one kind of potential; what a kind does not have is 0 or None.

    Attributes:
        name: of the stage, unique in its protocol.
        kind: `minimize`, `nvt`, `npt` or `nve`.
        potential: energy function of this stage if not that of the run.
        constraints: `h-bonds` (bonds to hydrogen and water rigid) or `none`.
        n_steps: number of steps; 0 in a minimization.
        timestep_fs: 0 in a minimization.
        temperature_start_k: at the first step; in `nve` that of new velocities, None to keep the
            velocities there are; None in a minimization.
        temperature_end_k: at the last step (linear in between).
        friction_per_ps: 0 in `nve` and in a minimization.
        pressure_bar: None unless `npt`.
        barostat_interval: steps between barostat trials; 0 unless `npt`.
        hydrogen_mass_u: None keeps the real masses.
        trajectory_interval_steps, log_interval_steps, checkpoint_interval_steps: steps between
            two outputs, at most `n_steps`; 0 in a minimization.
        tolerance_kj_per_mol_nm, max_iterations: of a minimization; 0 elsewhere. A minimization
            with `max_iterations` 0 runs until it has converged; see `minimizes_in_passes`.
        committee: models that are compared along the way; None for none.
        multiple_timesteps: inner potential, and its steps in one of `timestep_fs`; None without.
    """

    name: str
    kind: str
    potential: PotentialConfig | None
    constraints: str
    n_steps: int = 0
    timestep_fs: float = 0.0
    temperature_start_k: float | None = None
    temperature_end_k: float | None = None
    friction_per_ps: float = 0.0
    pressure_bar: float | None = None
    barostat_interval: int = 0
    hydrogen_mass_u: float | None = None
    trajectory_interval_steps: int = 0
    log_interval_steps: int = 0
    checkpoint_interval_steps: int = 0
    tolerance_kj_per_mol_nm: float = 0.0
    max_iterations: int = 0
    committee: CommitteeWatch | None = None
    multiple_timesteps: MultipleTimesteps | None = None

    @property
    def duration_ps(self) -> float:
        """Simulated time in ps."""
        return self.n_steps * self.timestep_fs / 1000.0

    @property
    def minimizes_in_passes(self) -> bool:
        """Whether `max_iterations` holds for each of several passes, as with rigid bonds.

        OpenMM puts springs in their place and repeats with stiffer ones until the bonds hold.
        """
        return self.kind == "minimize" and self.constraints != "none"

    def to_dict(self) -> dict[str, Any]:
        """Returns the stage as JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["potential"] = str(self.potential) if self.potential is not None else None
        values["committee"] = asdict(self.committee) if self.committee is not None else None
        split = self.multiple_timesteps
        values["multiple_timesteps"] = (
            None if split is None else {"inner": str(split.inner), "n_steps": split.n_steps}
        )
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ResolvedStage":
        """Reads what `to_dict` wrote, after JSON; earlier versions wrote fewer values."""
        potential, committee = values["potential"], values.get("committee")
        split = values.get("multiple_timesteps")
        return cls(
            **{
                **values,
                "potential": None
                if potential is None
                else PotentialConfig.model_validate(potential),
                "committee": None if committee is None else CommitteeWatch.from_dict(committee),
                "multiple_timesteps": None if split is None else MultipleTimesteps.from_dict(split),
            }
        )


def count_steps(duration_ps: float, timestep_fs: float) -> int | None:
    """Returns the number of timesteps in a duration, None if it is not a whole number above 0."""
    ratio = duration_ps * 1000.0 / timestep_fs
    n_steps = round(ratio)
    return n_steps if n_steps > 0 and abs(ratio - n_steps) <= _STEP_TOLERANCE else None


def step_problem(duration_ps: float, timestep_fs: float) -> str | None:
    """Says why a duration is not a whole number of timesteps, None if it is one."""
    if count_steps(duration_ps, timestep_fs) is not None:
        return None
    below = int(duration_ps * 1000.0 / timestep_fs)
    fitting = [f"{n * timestep_fs / 1000.0:.12g} ps" for n in (below, below + 1) if n > 0]
    return (
        f"{duration_ps:.12g} ps is no whole number of {timestep_fs:g} fs steps; "
        f"use {' or '.join(fitting)}"
    )


def timestep_problem(
    timestep_fs: float, hydrogen_mass_u: float | None, classical: bool
) -> str | None:
    """Says why a timestep is too long for the fastest motion, None if it is not.

    Flexible bonds to hydrogen (machine-learned potentials) allow 1 fs, with hydrogens of at least
    2 u 2 fs. With those bonds and water rigid (classical) it is 2 fs, with at least 3 u 4 fs.
    """
    mass = hydrogen_mass_u or 1.0
    if classical:
        longest, advice = (
            (4.0, "") if mass >= 3.0 else (2.0, ", or set hydrogen_mass: 3 u for 4 fs")
        )
        bonds = "rigid bonds to hydrogen"
    else:
        longest, advice = (
            (2.0, "") if mass >= 2.0 else (1.0, ", or set hydrogen_mass: 2 u for 2 fs")
        )
        bonds = "unconstrained C-H bonds"
    if timestep_fs <= longest:
        return None
    return f"{timestep_fs:g} fs is too long for {bonds}; use at most {longest:g} fs{advice}"


LONGEST_OUTER_STEP_FS = {"amber14": 1.0, "trip": 2.0}
"""By kind of inner potential. Amber14's bonds have other lengths and stiffness than those of the
full potential; at 2 fs the kicks that correct them heat water (docs/multiple-timesteps.md)."""


def split_timestep_problem(
    timestep_fs: float, split: MultipleTimesteps, hydrogen_mass_u: float | None
) -> str | None:
    """Says why the steps of a stage with multiple time steps are too long, None if they are not.

    The inner step obeys the rule for flexible bonds (`timestep_problem`).

    Args:
        timestep_fs: the outer step.
        split: inner potential and its steps in an outer one.
        hydrogen_mass_u: mass of hydrogen after repartitioning; None for the real one.
    """
    too_long = timestep_problem(timestep_fs / split.n_steps, hydrogen_mass_u, classical=False)
    if too_long is not None:
        return f"{timestep_fs:g} fs in {split.n_steps} inner steps: {too_long}"
    longest = LONGEST_OUTER_STEP_FS[split.inner.kind]
    if timestep_fs > longest:
        return (
            f"{timestep_fs:g} fs is too long for the outer step with {split.inner} inside; use at "
            f"most {longest:g} fs"
        )
    return None
