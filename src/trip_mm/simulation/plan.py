"""The plan of a run: settings resolved to what is executed and recorded in run.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trip_mm.errors import ConfigError, RunDirectoryError
from trip_mm.simulation.committee_config import COMMITTEE_SUFFIX
from trip_mm.simulation.overrides import split_overrides
from trip_mm.simulation.platforms import PlatformChoice, choose_platform, precision_problem
from trip_mm.simulation.schema import (
    PotentialConfig,
    ProtocolConfig,
    ResolvedStage,
    SystemConfig,
    load_protocol,
    load_system,
    to_document,
)
from trip_mm.simulation.system_config import POTENTIAL_KINDS, REDUCED_PRECISIONS


@dataclass(frozen=True)
class RunOptions:
    """What the caller of a run may choose beside system and protocol.

    Attributes:
        potential: in place of the system's: `amber14`, `trip:NAME`, `openmm-ml:NAME`, or the name
            or file of a TrIP model; None keeps the system's.
        backend: force backend of TrIP.
        platform: OpenMM platform; None for the fastest.
        precision: `single`, `mixed`, `double`; None for the platform's usual one. `tf32` and `bf16`
            are those of the system's TrIP potential (`potential.precision`).
        threads: CPU threads; None for all.
        overrides: `key.path=value` changes; keys of the protocol (`stages`, `defaults`, `seed`)
            go there, others to the system; `protocol.` and `system.` in front say it outright.
    """

    potential: str | None = None
    backend: str = "auto"
    platform: str | None = None
    precision: str | None = None
    threads: int | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelRecord:
    """The TrIP model of a run.

    Attributes:
        name: registered name, or the name the file had.
        sha256: digest of the checkpoint.
        file: its copy relative to the run directory; None for a registered model.
        level_of_theory: method of its labels, as far as it says.
    """

    name: str
    sha256: str
    file: str | None
    level_of_theory: str


@dataclass(frozen=True)
class RunPlan:
    """Everything that determines a run, apart from the built structure.

    Attributes:
        name: of the run: system, potential, protocol.
        potential: of the stages that do not name their own.
        stages: resolved, in order.
        seed: every random number derives from it.
        backend: force backend of TrIP, never `auto`.
        platform: OpenMM platform, precision, threads.
        system: the system's settings, for the record.
        protocol: the protocol's settings, for the record.
        models: TrIP models by potential (`trip:NAME`, or `trip:NAME@bf16`).
        precision_checks: checks of reduced precisions by potential, of `PrecisionCheck.to_dict`.
    """

    name: str
    potential: PotentialConfig
    stages: tuple[ResolvedStage, ...]
    seed: int
    backend: str
    platform: PlatformChoice
    system: dict[str, Any]
    protocol: dict[str, Any]
    models: dict[str, ModelRecord]
    precision_checks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def stage_potential(self, index: int) -> PotentialConfig:
        """Returns the potential that acts in a stage."""
        return self.stages[index].potential or self.potential

    def potentials(self) -> list[PotentialConfig]:
        """Returns the potentials of all stages, each once, in order of use."""
        used = [self.stage_potential(index) for index in range(len(self.stages))]
        return list({str(potential): potential for potential in used}.values())

    def reduced_potentials(self) -> list[PotentialConfig]:
        """Returns the potentials of reduced precision of all stages, each once."""
        return [potential for potential in self.potentials() if potential.is_reduced]

    def committee_models(self) -> list[PotentialConfig]:
        """Returns the models of the committees of all stages, each once, in order of use."""
        names = [
            name
            for stage in self.stages
            if stage.committee is not None
            for name in stage.committee.models
        ]
        return [PotentialConfig(kind="trip", name=name) for name in dict.fromkeys(names)]

    def inner_potentials(self) -> list[PotentialConfig]:
        """Returns the inner potentials of stages with multiple time steps, each once."""
        splits = [stage.multiple_timesteps for stage in self.stages]
        used = [split.inner for split in splits if split is not None]
        return list({str(potential): potential for potential in used}.values())

    def potentials_and_committees(self) -> list[PotentialConfig]:
        """Returns everything that describes the atoms in some stage, each once."""
        used = [*self.potentials(), *self.inner_potentials(), *self.committee_models()]
        return list({str(potential): potential for potential in used}.values())

    def uses_networks(self) -> bool:
        """Whether a machine-learned potential acts, or is compared, in some stage."""
        return any(not potential.is_classical for potential in self.potentials_and_committees())

    def uses_trip(self) -> bool:
        """Whether a TrIP potential acts, or is compared, in some stage."""
        return any(potential.kind == "trip" for potential in self.potentials_and_committees())

    def draws_velocities(self, index: int) -> bool:
        """Whether a stage starts with new velocities.

        They are carried over only from a dynamics stage directly before, on the same potential
        with the same constraints and masses; an NVE stage with a temperature always draws.
        """
        stage = self.stages[index]
        if stage.kind == "nve" and stage.temperature_start_k is not None:
            return True
        before = self.stages[index - 1] if index > 0 else None
        return (
            before is None
            or before.kind == "minimize"
            or self.stage_potential(index - 1) != self.stage_potential(index)
            or before.constraints != stage.constraints
            or before.hydrogen_mass_u != stage.hydrogen_mass_u
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON values."""
        return {
            "name": self.name,
            "potential": str(self.potential),
            "stages": [stage.to_dict() for stage in self.stages],
            "seed": self.seed,
            "backend": self.backend,
            "platform": asdict(self.platform),
            "models": {key: asdict(record) for key, record in self.models.items()},
            "precision_checks": self.precision_checks,
            "system": self.system,
            "protocol": self.protocol,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "RunPlan":
        """Reads what `to_dict` wrote.

        Raises:
            RunDirectoryError: something is missing or malformed.
        """
        try:
            stages = [ResolvedStage.from_dict(values) for values in content["stages"]]
            return cls(
                name=content["name"],
                potential=PotentialConfig.model_validate(content["potential"]),
                stages=tuple(stages),
                seed=content["seed"],
                backend=content["backend"],
                platform=PlatformChoice(**content["platform"]),
                system=content["system"],
                protocol=content["protocol"],
                models={key: ModelRecord(**value) for key, value in content["models"].items()},
                precision_checks=content.get("precision_checks", {}),  # runs of earlier versions
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunDirectoryError(f"run.json: is damaged ({error!r}); restore it") from error


def parse_potential(text: str) -> PotentialConfig:
    """Reads `amber14`, `trip:NAME`, `openmm-ml:NAME`, or the name or file of a TrIP model.

    Raises:
        ConfigError: the text is none of these.
    """
    if text.endswith(".safetensors"):
        return PotentialConfig(kind="trip", name=text.removeprefix("trip:"))
    try:
        return PotentialConfig.model_validate(text)
    except ValidationError as error:
        from trip_mm.checkpoint import registry, suggest_model

        if text in registry():
            return PotentialConfig(kind="trip", name=text)
        message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        if text == "trip":
            message += suggest_model("")
        elif ":" not in text and text not in POTENTIAL_KINDS:
            raise ConfigError(
                f"potential {text!r} is unknown; use amber14, trip:MODEL or openmm-ml:MODEL"
                f"{suggest_model(text, POTENTIAL_KINDS)}"
            ) from error
        raise ConfigError(f"potential {text!r}: {message}") from error


def load_configs(
    system_yaml: Path, protocol_yaml: Path, options: RunOptions
) -> tuple[SystemConfig, ProtocolConfig]:
    """Loads system and protocol with the overrides that concern each.

    Raises:
        ConfigError: a file or an override is wrong.
    """
    for_system, for_protocol = split_overrides(options.overrides)
    if options.potential is not None:
        chosen = parse_potential(options.potential)
        quoted = chosen.name.replace("'", "''")
        for_system.append(f"potential.{chosen.kind}='{quoted}'")
        if chosen.is_reduced:
            for_system.append(f"potential.precision={chosen.precision}")
    if options.precision in REDUCED_PRECISIONS:
        for_system.append(f"potential.precision={options.precision}")
    return load_system(system_yaml, for_system), load_protocol(protocol_yaml, for_protocol)


def make_plan(system: SystemConfig, protocol: ProtocolConfig, options: RunOptions) -> RunPlan:
    """Resolves settings to a plan; touches no disk but the models'.

    Raises:
        ConfigError: a stage does not fit the potential, or the precision not the platform.
        BackendError: platform or force backend do not work here.
        CheckpointError: a model cannot be read.
    """
    precision = None if options.precision in REDUCED_PRECISIONS else options.precision
    platform = choose_platform(options.platform, precision, options.threads)
    plan = RunPlan(
        name=f"{system.name}-{_short_name(system.potential)}-{protocol.name}",
        potential=system.potential,
        stages=tuple(_with_members(stage) for stage in protocol.resolve(system.potential.kind)),
        seed=protocol.seed,
        backend=options.backend,
        platform=platform,
        system=_for_record(system),
        protocol=to_document(protocol),
        models={},
    )
    if platform.precision == "double" and plan.reduced_potentials():
        raise ConfigError(
            f"--precision double contradicts {plan.reduced_potentials()[0]}, whose network has "
            "less than single precision; leave one of them out"
        )
    useless = precision_problem(platform, plan.uses_networks())
    if platform.precision_asked and useless is not None:
        raise ConfigError(f"--precision {platform.precision}: {useless}")
    for index in range(len(plan.stages)):
        _refuse_reduced_split(plan, index)
    used = [p for p in plan.potentials_and_committees() if p.kind == "trip"]
    models = {str(potential): _model_record(potential) for potential in used}
    for index, stage in enumerate(plan.stages):
        _refuse_copies(stage, models)
        _refuse_equal_inner(plan, index, models)
    return replace(plan, backend=resolve_backend_of(plan, options.backend), models=models)


def _with_members(stage: ResolvedStage) -> ResolvedStage:
    """Replaces the file of a committee by the files of its members.

    Raises:
        CheckpointError: the file is not that of a committee, or a member is missing.
        ConfigError: the members do not fit together.
    """
    watch = stage.committee
    if watch is None or not watch.models[0].endswith(COMMITTEE_SUFFIX):
        return stage
    from trip_mm.committee import load_committee

    members = load_committee(watch.models[0]).members
    models = tuple(member.path for member in members)
    return replace(stage, committee=replace(watch, models=models))


def _refuse_copies(stage: ResolvedStage, models: Mapping[str, ModelRecord]) -> None:
    """Refuses a committee with the same weights under two names, which would always agree.

    Raises:
        ConfigError: naming both.
    """
    seen: dict[str, str] = {}
    for name in stage.committee.models if stage.committee is not None else ():
        sha256 = models[f"trip:{name}"].sha256
        if sha256 in seen:
            raise ConfigError(
                f"stage {stage.name}: committee.models: {seen[sha256]} and {name} are the same "
                "model; name models trained with different seeds"
            )
        seen[sha256] = name


def _refuse_reduced_split(plan: RunPlan, index: int) -> None:
    """Refuses reduced precision under multiple time steps, whose energy drift nothing checks.

    Raises:
        ConfigError: naming the potential.
    """
    split = plan.stages[index].multiple_timesteps
    if split is None:
        return
    for potential in (plan.stage_potential(index), split.inner):
        if potential.is_reduced:
            raise ConfigError(
                f"stage {plan.stages[index].name}: multiple_timesteps: the check of reduced "
                f"precision makes single steps, and says nothing of {potential} in multiple ones; "
                "leave the precision or the multiple time steps out"
            )


def _refuse_equal_inner(plan: RunPlan, index: int, models: Mapping[str, ModelRecord]) -> None:
    """Refuses multiple time steps whose inner potential is the full one.

    Raises:
        ConfigError: naming the potential.
    """
    stage, outer = plan.stages[index], plan.stage_potential(index)
    split = stage.multiple_timesteps
    if split is None or split.inner.kind != "trip" or outer.kind != "trip":
        return
    if models[str(split.inner)].sha256 == models[str(outer)].sha256:
        raise ConfigError(
            f"stage {stage.name}: multiple_timesteps.inner: {split.inner} is the potential of the "
            "stage itself, so that nothing is saved; name a smaller model, or amber14"
        )


def resolve_backend_of(plan: RunPlan, backend: str) -> str:
    """Returns the force backend that a run uses: never `auto` where TrIP computes forces.

    Raises:
        BackendError: the backend does not work here.
        ConfigError: there is no backend of that name.
    """
    acting = [*plan.potentials(), *plan.inner_potentials()]
    if all(potential.kind != "trip" for potential in acting):
        return backend
    from trip_mm.backends.openmm_force import resolve_backend

    return resolve_backend(backend)  # type: ignore[arg-type]


def _short_name(potential: PotentialConfig) -> str:
    if potential.kind == "amber14":
        return potential.kind
    name = Path(potential.name).stem if potential.kind == "trip" else potential.name
    return f"{name}-{potential.precision}" if potential.is_reduced else name


def _for_record(system: SystemConfig) -> dict[str, Any]:
    """Returns the system's settings without the path of this machine."""
    document = to_document(system)
    structure = document.get("structure")
    if isinstance(structure, dict) and "file" in structure:
        structure["file"] = Path(structure["file"]).name
    return document


def _model_record(potential: PotentialConfig) -> ModelRecord:
    from trip_mm.checkpoint import load_potential, registry, trained_level

    loaded = load_potential(potential.name)
    card = registry().get(potential.name)
    assert loaded.sha256 is not None
    return ModelRecord(
        name=potential.name if card is not None else Path(potential.name).name,
        sha256=loaded.sha256,
        file=None,
        level_of_theory=trained_level(potential.name, loaded.metadata)
        or "not recorded in the checkpoint",
    )
