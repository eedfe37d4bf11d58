"""What a benchmark measures: systems, potentials, how they are called, and in which form."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trip_mm.checkpoint import registry
from trip_mm.errors import ConfigError
from trip_mm.model.config import PRESETS

BACKENDS = ("direct", "torch", "python")
FORMS = ("kernels", "plain")
ARCHITECTURES = ("mace-off23-small", "mace-off23-medium", "nequip")
"""Peers that `peer_worker` builds with random weights."""

NEW_PREFIX = "new:"
OPENMM_ML_PREFIX = "openmm-ml:"


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        system: label of the system.
        model: registered name, checkpoint, `new:PRESET`, peer architecture or `openmm-ml:NAME`.
        backend: `direct` (energy and forces by a call), or a force inside OpenMM.
        form: `kernels` or `plain`; a peer has the form `peer`.
    """

    system: str
    model: str
    backend: str
    form: str

    @property
    def label(self) -> str:
        """Name of the case in messages and pictures, without the system."""
        return self.model if self.form == "peer" else f"{self.model} {self.backend} {self.form}"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Settings:
    """How a benchmark is run.

    Attributes:
        threads: CPU threads of every case.
        warm_up: steps before the clock starts.
        rounds: how often each case has its turn.
        steps: at most so many steps in a turn.
        seconds: a turn ends after this time; at least one step is made.
        timestep_fs: for ns/day and for the motion of the atoms.
        precision: `single` or `double`, of the network; `bf16` of its products.
        seed: of structures, velocities and random weights.
        peer_pythons: interpreters tried for peers, first this one.
    """

    threads: int
    warm_up: int = 3
    rounds: int = 5
    steps: int = 10
    seconds: float = 5.0
    timestep_fs: float = 0.5
    precision: str = "single"
    seed: int = 0
    peer_pythons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a value that cannot be measured with.
        """
        for name in ("threads", "warm_up", "rounds", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)} is not possible; use at least 1")
        for name in ("seconds", "timestep_fs"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}: {getattr(self, name)} is not a positive number")
        if self.precision not in ("single", "double", "bf16"):
            raise ConfigError(
                f"precision: {self.precision!r} is not single, double or bf16 (tf32 needs a GPU, "
                "and cases are measured on the CPU)"
            )


def expand(
    systems: Sequence[str],
    models: Sequence[str],
    backends: Sequence[str],
    forms: Sequence[str],
    peers: Sequence[str],
) -> tuple[Case, ...]:
    """Returns every case asked for, those of a system together.

    The plain form is called directly only: OpenMM's forces always use the kernels on a CPU.

    Raises:
        ConfigError: an unknown name, or nothing is left to measure.
    """
    for given, known, what in (
        (backends, BACKENDS, "backend"),
        (forms, FORMS, "form"),
    ):
        for name in given:
            if name not in known:
                raise ConfigError(f"{what} {name!r} is unknown; use one of {', '.join(known)}")
    for model in models:
        _check_model(model)
    for peer in peers:
        if peer not in ARCHITECTURES and not peer.startswith(OPENMM_ML_PREFIX):
            raise ConfigError(
                f"peer {peer!r} is unknown; use one of {', '.join(ARCHITECTURES)}, or "
                f"{OPENMM_ML_PREFIX}NAME for an installed openmm-ml model"
            )
    cases: list[Case] = []
    for system in dict.fromkeys(systems):
        for model in dict.fromkeys(models):
            for backend in dict.fromkeys(backends):
                for form in dict.fromkeys(forms):
                    if backend == "direct" or form == "kernels":
                        cases.append(Case(system, model, backend, form))
        for peer in dict.fromkeys(peers):
            inside = peer.startswith(OPENMM_ML_PREFIX)
            cases.append(Case(system, peer, "openmm" if inside else "direct", "peer"))
    if not cases:
        raise ConfigError(
            "nothing to measure: name a system and a model or a peer; the plain form needs the "
            "backend direct"
        )
    return tuple(cases)


def _check_model(model: str) -> None:
    if model.startswith(NEW_PREFIX):
        preset = model.removeprefix(NEW_PREFIX)
        if preset not in PRESETS:
            raise ConfigError(
                f"model {model!r}: no preset {preset!r}; there are {', '.join(sorted(PRESETS))}"
            )
    elif model not in registry() and not Path(model).is_file():
        raise ConfigError(
            f"model {model!r} is neither registered ({', '.join(registry())}) nor a file; "
            f"{NEW_PREFIX}PRESET gives random weights"
        )
