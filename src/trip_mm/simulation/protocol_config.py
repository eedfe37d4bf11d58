"""How it is simulated: the settings of a `protocols/*.yaml` file, a list of stages.

    name: quick
    defaults: {temperature: 298 K, friction: 1/ps, timestep: {ml: 0.5 fs, classical: 2 fs}}
    stages:
      - {kind: minimize, max_iterations: 50}
      - {kind: nvt, duration: 100 ps}
      - {kind: npt, name: production, duration: 20 ns, pressure: 1 bar}

A setting of `defaults` holds in every stage whose kind has it and that does not set it itself;
an NVE stage after other dynamics keeps the velocities that there are unless it sets a temperature.
One protocol serves machine-learned and classical potentials; what depends on the kind of
potential (timestep, step counts, constraints) is settled by `StageConfig.resolve`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from trip_mm.errors import ConfigError
from trip_mm.simulation.committee_config import CommitteeConfig
from trip_mm.simulation.config_io import problems
from trip_mm.simulation.multiple_timesteps_config import MultipleTimestepsConfig
from trip_mm.simulation.quantities import (
    TEMPERATURE,
    TIMESTEP,
    Duration,
    ForceMagnitude,
    Friction,
    Mass,
    Pressure,
    Temperature,
    Timestep,
    parse_quantity,
)
from trip_mm.simulation.stage import (
    DEFAULT_CHECKPOINT_STEPS,
    DEFAULT_LOG_STEPS,
    DEFAULT_TRAJECTORY_STEPS,
    CommitteeWatch,
    ResolvedStage,
    count_steps,
    split_timestep_problem,
    step_problem,
    timestep_problem,
)
from trip_mm.simulation.stage_keys import (
    EXAMPLES,
    KEYS_OF_KIND,
    OUTPUT_INTERVALS,
    REQUIRED_OF_KIND,
)
from trip_mm.simulation.system_config import PotentialConfig, PotentialKind, Settings

StageKind = Literal["minimize", "nvt", "npt", "nve"]


class TemperatureRamp(Settings):
    """Temperature at the first and last step of a stage, linear between; a value means constant."""

    start_k: Temperature = Field(alias="start")
    end_k: Temperature = Field(alias="end")

    @model_validator(mode="before")
    @classmethod
    def _from_value(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return value
        parse_quantity(value, TEMPERATURE)
        return {"start": value, "end": value}

    @property
    def is_ramp(self) -> bool:
        """Whether the temperature changes."""
        return self.start_k != self.end_k


class TimestepConfig(Settings):
    """Timestep on machine-learned and on classical potentials; a value means both."""

    ml_fs: Timestep | None = Field(default=None, alias="ml")
    classical_fs: Timestep | None = Field(default=None, alias="classical")

    @model_validator(mode="before")
    @classmethod
    def _from_value(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return value
        parse_quantity(value, TIMESTEP)
        return {"ml": value, "classical": value}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.ml_fs is None and self.classical_fs is None:
            raise ValueError("names nothing; give ml: 0.5 fs, classical: 2 fs, or both")
        return self

    def of(self, classical: bool) -> float | None:
        """Returns the timestep in fs on a classical or machine-learned potential."""
        return self.classical_fs if classical else self.ml_fs


class StageSettings(Settings):
    """The settings of a stage that `defaults` may hold too.

    Attributes:
        timestep: fs, one for each kind of potential.
        temperature: K, constant or a ramp; in an `nve` stage that of the initial velocities.
        friction_per_ps: of the LangevinMiddle integrator.
        pressure_bar: of the Monte Carlo barostat.
        barostat_interval: steps between two barostat trials.
        hydrogen_mass_u: mass of hydrogen after repartitioning; None keeps the real masses.
        tolerance_kj_per_mol_nm: largest root-mean-square force of a finished minimization.
        max_iterations: of a minimization; 0 until it has converged.
        trajectory_interval_ps, log_interval_ps, checkpoint_interval_ps: time between two frames,
            log lines, checkpoints.
        committee: models whose disagreement is watched; None for none.
    """

    timestep: TimestepConfig | None = None
    temperature: TemperatureRamp | None = None
    friction_per_ps: Friction = Field(default=1.0, alias="friction")
    pressure_bar: Pressure | None = Field(default=None, alias="pressure")
    barostat_interval: Annotated[int, Field(ge=1)] = 25
    hydrogen_mass_u: Mass | None = Field(default=None, alias="hydrogen_mass")
    tolerance_kj_per_mol_nm: ForceMagnitude = Field(default=10.0, alias="tolerance")
    max_iterations: Annotated[int, Field(ge=0)] = 0
    trajectory_interval_ps: Duration | None = Field(default=None, alias="trajectory_interval")
    log_interval_ps: Duration | None = Field(default=None, alias="log_interval")
    checkpoint_interval_ps: Duration | None = Field(default=None, alias="checkpoint_interval")
    committee: CommitteeConfig | None = None


class StageConfig(StageSettings):
    """One stage of a protocol.

    Attributes:
        kind: `minimize`, `nvt`, `npt` or `nve`.
        name: used for the folder of the stage; the kind if not given.
        duration_ps: simulated time; None in a minimization.
        potential: energy function of this stage if not that of the run (classical
            pre-relaxation).
        multiple_timesteps: a cheap potential for shorter steps within `timestep`; None without.
    """

    kind: StageKind
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    duration_ps: Duration | None = Field(default=None, alias="duration")
    potential: PotentialConfig | None = None
    multiple_timesteps: MultipleTimestepsConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and "name" not in value:
            kind = value.get("kind")
            return {
                **value,
                "name": kind if isinstance(kind, str) and kind in KEYS_OF_KIND else "unnamed",
            }
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = {
            type(self).model_fields[name].alias or name
            for name in self.model_fields_set
            if getattr(self, name) is not None
        }
        found = [
            (key, f"does not apply to a stage of kind {self.kind}; remove it")
            for key in sorted(given - KEYS_OF_KIND[self.kind])
        ]
        found += [
            (key, f"is required in a stage of kind {self.kind}; write for example {EXAMPLES[key]}")
            for key in REQUIRED_OF_KIND[self.kind]
            if key not in given
        ]
        if self.multiple_timesteps is not None and self.potential is not None:
            found += self.multiple_timesteps.problems_on(self.potential.kind)
        if self.kind == "nve" and self.temperature is not None and self.temperature.is_ramp:
            found.append(
                ("temperature", "goes up or down, but nothing heats in nve; give one value")
            )
        if self.hydrogen_mass_u is not None and self.hydrogen_mass_u < 1.0:
            found.append(("hydrogen_mass", "is less than that of hydrogen; write for example 2 u"))
        if not found and self.timestep is not None:
            kinds = [self.potential.is_classical] if self.potential else [False, True]
            for classical in kinds if self.multiple_timesteps is None else [False]:
                known = {key for key, _ in found}
                found += [p for p in self._step_problems(classical) if p[0] not in known]
        if found:
            raise problems(found)
        return self

    def resolve(self, run_potential_kind: PotentialKind) -> ResolvedStage:
        """Settles everything that depends on the kind of potential.

        Args:
            run_potential_kind: kind of the run's potential; a `potential` of the stage itself
                takes precedence.

        Returns:
            Plain numbers, with exact integer step counts.

        Raises:
            ConfigError: the stage has no timestep for this kind of potential, or multiple time
                steps on a classical one.
        """
        kind = self.potential.kind if self.potential is not None else run_potential_kind
        classical = kind == "amber14"
        constraints = "h-bonds" if classical else "none"
        if self.kind == "minimize":
            return ResolvedStage(
                name=self.name,
                kind=self.kind,
                potential=self.potential,
                constraints=constraints,
                tolerance_kj_per_mol_nm=self.tolerance_kj_per_mol_nm,
                max_iterations=self.max_iterations,
            )
        split = self.multiple_timesteps
        for key, problem in split.problems_on(kind) if split is not None else []:
            raise ConfigError(f"stage {self.name}: {key}: {problem}")
        timestep_fs = self.timestep_fs(kind)
        n_steps = self.n_steps(kind)
        heat_bath = self.kind in ("nvt", "npt")
        return ResolvedStage(
            name=self.name,
            kind=self.kind,
            potential=self.potential,
            constraints=constraints,
            n_steps=n_steps,
            timestep_fs=timestep_fs,
            temperature_start_k=self.temperature.start_k if self.temperature else None,
            temperature_end_k=self.temperature.end_k if self.temperature else None,
            friction_per_ps=self.friction_per_ps if heat_bath else 0.0,
            pressure_bar=self.pressure_bar,
            barostat_interval=self.barostat_interval if self.kind == "npt" else 0,
            hydrogen_mass_u=self.hydrogen_mass_u,
            trajectory_interval_steps=_interval(
                self.trajectory_interval_ps, timestep_fs, n_steps, DEFAULT_TRAJECTORY_STEPS
            ),
            log_interval_steps=_interval(
                self.log_interval_ps, timestep_fs, n_steps, DEFAULT_LOG_STEPS
            ),
            checkpoint_interval_steps=_interval(
                self.checkpoint_interval_ps, timestep_fs, n_steps, DEFAULT_CHECKPOINT_STEPS
            ),
            committee=_committee(self.committee, timestep_fs, n_steps),
            multiple_timesteps=None if split is None else split.resolve(),
        )

    def timestep_fs(self, kind: PotentialKind) -> float:
        """Returns the timestep in fs on a kind of potential.

        Raises:
            ConfigError: the stage has none for this kind.
        """
        value = self.timestep.of(kind == "amber14") if self.timestep is not None else None
        if value is None:
            needed = "classical: 2 fs" if kind == "amber14" else "ml: 0.5 fs"
            raise ConfigError(
                f"stage {self.name}: timestep: has no value for {kind}; add {needed} to it"
            )
        return value

    def n_steps(self, kind: PotentialKind) -> int:
        """Returns the exact number of steps on a kind of potential; 0 in a minimization.

        Raises:
            ConfigError: the stage has no timestep for this kind.
        """
        if self.duration_ps is None:
            return 0
        n_steps = count_steps(self.duration_ps, self.timestep_fs(kind))
        assert n_steps is not None  # validated
        return n_steps

    def _step_problems(self, classical: bool) -> list[tuple[str, str]]:
        timestep_fs = self.timestep.of(classical) if self.timestep is not None else None
        if timestep_fs is None:
            return []
        split = self.multiple_timesteps
        too_long = (
            timestep_problem(timestep_fs, self.hydrogen_mass_u, classical)
            if split is None
            else split_timestep_problem(timestep_fs, split.resolve(), self.hydrogen_mass_u)
        )
        if too_long is not None:
            return [("timestep", too_long)]
        durations = [("duration", self.duration_ps)]
        durations += [(key, getattr(self, f"{key}_ps")) for key in OUTPUT_INTERVALS]
        if self.committee is not None:
            durations.append(("committee.every", self.committee.every_ps))
        checked = [(key, step_problem(d, timestep_fs)) for key, d in durations if d is not None]
        return [(key, problem) for key, problem in checked if problem is not None]


def _interval(interval_ps: float | None, timestep_fs: float, n_steps: int, default: int) -> int:
    """Converts an output interval to steps; one longer than the stage means its end."""
    if interval_ps is None:
        return min(default, n_steps)
    steps = count_steps(interval_ps, timestep_fs)
    assert steps is not None  # validated
    return min(steps, n_steps)


def _committee(
    config: CommitteeConfig | None, timestep_fs: float, n_steps: int
) -> CommitteeWatch | None:
    if config is None:
        return None
    return CommitteeWatch(
        models=tuple(config.models),
        interval_steps=_interval(config.every_ps, timestep_fs, n_steps, n_steps),
        stop_above_kj_per_mol_nm=config.stop_above_kj_per_mol_nm,
    )


class ProtocolConfig(Settings):
    """A protocol: stages in the order they run.

    Attributes:
        name: for the record; the file's name if not given.
        seed: of velocities, thermostat and barostat.
        defaults: settings that every stage inherits, already merged into `stages`.
        stages: at least one.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1
    defaults: StageSettings | None = None
    stages: Annotated[list[StageConfig], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, value: Any) -> Any:
        """Copies each default into the stages whose kind has it and that do not set it."""
        if not isinstance(value, dict) or not isinstance(value.get("stages"), list):
            return value
        defaults = value.get("defaults")
        if not isinstance(defaults, dict):
            return value
        stages = []
        moving = False  # whether an earlier stage has velocities to carry over
        for stage in value["stages"]:
            stages.append(_with_defaults(stage, defaults, moving))
            moving = moving or (isinstance(stage, dict) and stage.get("kind") != "minimize")
        return {**value, "stages": stages}

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        found = []
        names = [stage.name for stage in self.stages]
        for index, name in enumerate(names):
            if name in names[:index]:
                found.append(
                    (f"stages.{index}.name", f"{name!r} occurs twice; give each stage its own name")
                )
        dynamics = [i for i, stage in enumerate(self.stages) if stage.kind != "minimize"]
        if dynamics:
            first = self.stages[dynamics[0]]
            if first.temperature is None:
                found.append(
                    (
                        f"stages.{dynamics[0]}.temperature",
                        "is required in the first stage with dynamics, for the velocities; "
                        "write for example 298 K",
                    )
                )
        if found:
            raise problems(found)
        return self

    def resolve(self, run_potential_kind: PotentialKind) -> list[ResolvedStage]:
        """Resolves every stage; see `StageConfig.resolve`."""
        return [stage.resolve(run_potential_kind) for stage in self.stages]


def _with_defaults(stage: Any, defaults: Mapping[str, Any], moving: bool) -> Any:
    """Adds the defaults that a stage does not set; NVE keeps the velocities that there are."""
    if not isinstance(stage, dict):
        return stage
    keys = KEYS_OF_KIND.get(str(stage.get("kind")), frozenset())
    if moving and stage.get("kind") == "nve":
        keys = keys - {"temperature"}
    inherited = {k: v for k, v in defaults.items() if k in keys and k not in stage}
    return {**stage, **inherited}
