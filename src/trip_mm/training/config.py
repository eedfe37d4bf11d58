"""The training configuration: what a `train.yaml` may say."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from trip_mm.errors import ConfigError, DataError
from trip_mm.simulation.config_io import validate
from trip_mm.simulation.yaml_io import read_yaml
from trip_mm.training.network import network_config
from trip_mm.training.presets import with_preset

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"^\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z/]+)\s*$")


def _parse(value: Any, factors: Mapping[str, float]) -> float:
    """Reads `3 min` with the factor of each unit that is allowed; bare numbers are refused."""
    example = f"write a number and a unit ({', '.join(factors)})"
    if not isinstance(value, str):
        raise ValueError(f"{value!r} has no unit; {example}")
    match = _QUANTITY.match(value)
    if match is None or match.group(2) not in factors:
        raise ValueError(f"{value!r} is not a quantity of this kind; {example}")
    return float(match.group(1)) * factors[match.group(2)]


def _wall_time(value: Any) -> float:
    return _parse(value, _SECONDS)


def _energy(value: Any) -> float:
    return _parse(value, {"eV": 1.0})


def _force(value: Any) -> float:
    return _parse(value, {"eV/A": 1.0})


WallTime = Annotated[float, BeforeValidator(_wall_time), Field(gt=0)]
Energy = Annotated[float, BeforeValidator(_energy)]
Force = Annotated[float, BeforeValidator(_force), Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SplitConfig(Section):
    """Which conformations are held out.

    Attributes:
        by: whole formulas (and whole trajectories where a file asks for it), random
            conformations, or the last ones of every group in the order of the file.
        validation_fraction: share that is held out.
        seed: of the draw.
        hold_out: formulas and sources that are held out whatever is drawn, as `held_out` of a
            train.json names them.
        train_only: those that are trained on whatever is drawn.
    """

    by: Literal["formula", "random", "sequential"] = "formula"
    validation_fraction: Fraction = 0.05
    seed: int = Field(default=0, ge=0)
    hold_out: tuple[str, ...] = ()
    train_only: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_side(self) -> "SplitConfig":
        if self.by != "formula" and (self.hold_out or self.train_only):
            raise ValueError("hold_out and train_only need `by: formula`; set it, or remove them")
        both = sorted(set(self.hold_out) & set(self.train_only))
        if both:
            raise ValueError(f"{both[0]} stands in hold_out and in train_only; remove it from one")
        return self


class DataConfig(Section):
    """What is trained on.

    Attributes:
        files: data files, relative to the configuration file.
        storage: `memory`, or `disk` for millions of conformations: they are read once into a
            compact copy beside the run and fetched from it minibatch by minibatch.
        test_files: files that are only evaluated, once, at the end.
        split: what is held out.
        max_force_ev_per_angstrom: conformations with a larger force on any atom are left out.
        lone_atom_energies_ev: energy of the isolated atom by element symbol, for files that do
            not hold them.
    """

    files: tuple[Path, ...] = Field(min_length=1)
    storage: Literal["memory", "disk"] = "memory"
    test_files: tuple[Path, ...] = ()
    split: SplitConfig = SplitConfig()
    max_force_ev_per_angstrom: Force | None = Field(default=None, alias="max_force")
    lone_atom_energies_ev: dict[str, Energy] = Field(
        default_factory=dict, alias="lone_atom_energies"
    )


class LossConfig(Section):
    """The loss: a preset and the numbers to change in it (training/losses.py)."""

    preset: Literal["default", "thesis"] = "default"
    energy_weight: float | None = Field(default=None, ge=0)
    force_weight: float | None = Field(default=None, ge=0)
    energy_delta: float | None = Field(default=None, gt=0)
    force_delta: float | None = Field(default=None, gt=0)


class OptimizerConfig(Section):
    """AdamW and the clipping of its gradient."""

    learning_rate: float = Field(default=5e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    force_gradient: Literal["double-backward", "central-difference"] = "double-backward"


class ScheduleConfig(Section):
    """How the learning rate changes.

    Attributes:
        kind: `cosine` over the budget, `step` by `factor` each epoch, `plateau` by `factor` when
            the validation loss has not fallen for more than `patience` validations, or `constant`.
        warmup_steps: steps of linear rise at the start.
        final_fraction: where the cosine ends, as a share of the learning rate.
        factor: of step and plateau.
        patience: of plateau.
    """

    kind: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    final_fraction: float = Field(default=0.005, ge=0, le=1)
    factor: float = Field(default=0.5, gt=0, lt=1)
    patience: int = Field(default=3, ge=0)


class BatchConfig(Section):
    """Size of a minibatch: conformations, or edges so that all minibatches cost about the same.

    Attributes:
        n_conformations: in a minibatch on average.
        max_edges: in a minibatch on average; not a maximum, despite its name. An epoch is dealt out
            in whole conformations and what is over is spread among its minibatches: with few
            conformations or large ones a minibatch gets up to about twice as many.
    """

    n_conformations: int | None = Field(default=None, ge=1)
    max_edges: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one(self) -> "BatchConfig":
        if (self.n_conformations is None) == (self.max_edges is None):
            raise ValueError("give either n_conformations or max_edges")
        return self


class BudgetConfig(Section):
    """When training ends: at whichever limit comes first."""

    max_time_s: WallTime | None = Field(default=None, alias="max_time")
    max_steps: int | None = Field(default=None, ge=1)
    max_epochs: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _some(self) -> "BudgetConfig":
        if self.max_time_s is None and self.max_steps is None and self.max_epochs is None:
            raise ValueError("give max_time, max_steps or max_epochs")
        return self


class ValidationConfig(Section):
    """How often, and on how much, the averaged weights are validated during training.

    Attributes:
        every_steps: optimizer steps between two validations.
        n_conformations: at most this many of each class while training (all at the end).
        early_stopping: stop after this many validations without improvement.
    """

    every_steps: int = Field(default=500, ge=1)
    n_conformations: int = Field(default=40, ge=1)
    early_stopping: int | None = Field(default=None, ge=1)


class TrainingConfig(Section):
    """A training run.

    Attributes:
        name: name of the model.
        seed: of the weights and of the order of the data.
        model: `preset` and any fields of `TripConfig` to change in it.
        initial: checkpoint to start from instead of random weights.
        frozen: parts of the network that keep their weights, such as `embedding` or `blocks.0`.
        committee: number of members to train, with seeds `seed`, `seed + 1`, ...
        precision: of the network while training; weights and optimizer are float32 either way.
        ema_decay: of the exponential moving average; 0 for none.
        checkpoint_interval_s: time between two checkpoints.
        n_threads: CPU threads; those torch chooses where absent.
        device: where to train.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = Field(default=0, ge=0)
    data: DataConfig
    model: dict[str, Any] = Field(default_factory=lambda: {"preset": "trip"})
    initial: Path | None = None
    frozen: tuple[str, ...] = ()
    committee: int | None = Field(default=None, ge=2, le=64)
    precision: Literal["float32", "bf16-mixed"] = "float32"
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch: BatchConfig = BatchConfig(max_edges=8000)
    budget: BudgetConfig
    validation: ValidationConfig = ValidationConfig()
    ema_decay: Fraction = 0.998
    checkpoint_interval_s: WallTime = Field(default=300.0, alias="checkpoint_interval")
    n_threads: int | None = Field(default=None, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="before")
    @classmethod
    def _preset_names(cls, values: Any) -> Any:
        """Allows `loss: thesis` and `model: trip-s` for a preset without changes."""
        if not isinstance(values, dict):
            return values
        short = {
            key: {"preset": values[key]}
            for key in ("loss", "model")
            if isinstance(values.get(key), str)
        }
        return {**values, **short}

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if self.frozen and self.initial is None:
            raise ValueError(
                "frozen: random weights would be frozen; give `initial`, or leave `frozen` out"
            )
        if self.precision == "bf16-mixed" and self.optimizer.force_gradient == "central-difference":
            raise ValueError(
                "precision: differences of bf16-mixed energies have no digits left; set "
                "optimizer.force_gradient to double-backward"
            )
        try:
            network_config(self.model)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self


def load_training_config(path: str | Path) -> TrainingConfig:
    """Reads and checks a training configuration; file names in it become absolute.

    Raises:
        ConfigError: the file cannot be read, or something in it means nothing; the message names
            the file and the key.
    """
    path = Path(path)
    config = parse_training_config(read_yaml(path), str(path))
    folder = path.resolve().parent
    files = tuple(_beside(folder, file) for file in config.data.files)
    initial = folder / config.initial if config.initial is not None else None
    test_files = tuple(_beside(folder, file) for file in config.data.test_files)
    data = config.data.model_copy(update={"files": files, "test_files": test_files})
    return config.model_copy(update={"data": data, "initial": initial})


def _beside(folder: Path, file: Path) -> Path:
    """Looks a file up beside the configuration; the file keeps its name where it is a link."""
    path = folder / file
    return path.resolve() if path.is_dir() else path.parent.resolve() / path.name


def check_data_files(config: TrainingConfig, path: str | Path) -> None:
    """Refuses a configuration whose data are not there.

    Args:
        config: with absolute file names.
        path: where it was read.

    Raises:
        DataError: naming the configuration, the key and the file.
    """
    for key, files in (("files", config.data.files), ("test_files", config.data.test_files)):
        for file in files:
            if not file.exists():
                raise DataError(
                    f"{path}: data.{key}: {file}: no such file; make it with trip-mm "
                    "label, or correct the name"
                )


def parse_training_config(values: Mapping[str, Any], where: str) -> TrainingConfig:
    """Checks the values of a configuration.

    Args:
        values: as read from YAML; `preset: thesis` fills in what they leave out.
        where: name of their origin for messages.

    Raises:
        ConfigError: naming every offending key.
    """
    return validate(TrainingConfig, with_preset(values, where), where)
