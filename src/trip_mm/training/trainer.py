"""A training run from its configuration to an exported model."""

import json
import logging
import platform
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from trip_mm import __version__
from trip_mm.checkpoint import load_potential, new_potential, save_potential
from trip_mm.elements import SYMBOLS, atomic_number
from trip_mm.errors import ConfigError, DataError, RunDirectoryError, UnsupportedElementError
from trip_mm.model.config import TripConfig
from trip_mm.potential import TripPotential
from trip_mm.training.callbacks import Bookkeeping, TimedCheckpoint, Validation, read_log
from trip_mm.training.config import TrainingConfig, load_training_config
from trip_mm.training.conformations import ConformationStore, build_store
from trip_mm.training.dataset import Dataset, Split
from trip_mm.training.evaluate import (
    accuracies,
    evaluate,
    format_accuracies,
    limit_per_class,
    predict,
)
from trip_mm.training.loader import BatchStream, make_plan
from trip_mm.training.module import TrainingModule, loss_settings
from trip_mm.training.statistics import EnergyStatistics, energy_statistics, merged_self_energies

_CHECKPOINT = "last.ckpt"
_RECORD = "train.json"
_LOG = "log.csv"
_NEVER = 2**31 - 1
_CHANGEABLE = {"budget", "n_threads", "checkpoint_interval_s", "device"}
Report = Callable[[str], None]


@dataclass(frozen=True)
class TrainingData:
    """Conformations to train on and to validate on."""

    train: ConformationStore
    validation: ConformationStore
    split: Split
    self_energies: dict[int, float]
    level_of_theory: str


def train(
    config_path: str | Path, out_dir: str | Path, *, resume: bool = False, report: Report = print
) -> Path:
    """Trains a model as a configuration says and exports it.

    Args:
        config_path: `train.yaml`.
        out_dir: directory of the run; must not exist, or be empty, unless resuming.
        resume: continue the run in `out_dir` after its last checkpoint.
        report: receives the lines of progress.

    Returns:
        The exported model, `OUT/NAME.safetensors`.

    Raises:
        ConfigError: the configuration means nothing.
        DataError: the data files are missing or inconsistent.
        RunDirectoryError: `out_dir` holds a run already, or none to resume, or another one.
        TrainingError: the loss became infinite.
    """
    config = load_training_config(config_path)
    model_config = resolve_model_config(config)
    out = Path(out_dir)
    _check_run_directory(out, resume)
    if config.n_threads is not None:
        torch.set_num_threads(config.n_threads)
    data = load_data(config, model_config)
    for line in _describe(data):
        report(line)
    if len(data.validation) == 0:
        raise DataError(
            "no conformation is held out; raise data.split.validation_fraction or add data"
        )
    statistics = energy_statistics(data.train, data.self_energies, model_config.elements)
    potential = _initial_potential(config, model_config, statistics)
    record = _record(config, potential, data, statistics)
    _write_or_compare(out, record, resume)
    module = _fit(potential, config, data, statistics, out, resume, report)
    return _finish(module, config, data, record, out, report)


def resolve_model_config(config: TrainingConfig) -> TripConfig:
    """Resolves `model: {preset: ..., ...}`; elements may be symbols.

    Raises:
        ConfigError: unknown preset, unknown key or a value that does not fit.
    """
    values = dict(config.model)
    base = TripConfig.preset(str(values.pop("preset", "trip"))).to_dict()
    unknown = sorted(set(values) - {field.name for field in fields(TripConfig)})
    if unknown:
        raise ConfigError(
            f"model.{unknown[0]}: unknown key; known are preset, "
            f"{', '.join(sorted(field.name for field in fields(TripConfig)))}"
        )
    if "elements" in values:
        values["elements"] = _atomic_numbers(values["elements"])
    try:
        return TripConfig.from_dict({**base, **values})
    except (ConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"model: {error}") from None


def _atomic_numbers(elements: Any) -> list[int]:
    """Reads a list of symbols or atomic numbers.

    Raises:
        ConfigError: not a list, or something in it names no element.
    """
    if not isinstance(elements, list):
        raise ConfigError(f"model.elements: {elements!r} is not a list; write [H, C, N, O]")
    try:
        return sorted(e if isinstance(e, int) else atomic_number(str(e)) for e in elements)
    except UnsupportedElementError as error:
        raise ConfigError(f"model.elements: {error}") from None


def load_data(config: TrainingConfig, model_config: TripConfig) -> TrainingData:
    """Reads, checks and splits the data.

    Raises:
        DataError: see `Dataset.open` and `build_store`; also an element the model lacks.
    """
    dataset = Dataset.open(*config.data.files)
    for group in dataset.groups:
        unknown = sorted({int(z) for z in group.atomic_numbers} - set(model_config.elements))
        if unknown:
            raise DataError(
                f"{group.system_class}/{group.formula}: holds {SYMBOLS[unknown[0]]}, which "
                "model.elements lacks; add it there or leave the file out"
            )
    self_energies = merged_self_energies(
        dataset.lone_atom_energies, config.data.lone_atom_energies_ev, model_config.elements
    )
    store = build_store(
        dataset, self_energies, model_config.cutoff, config.data.max_force_ev_per_angstrom
    )
    split = dataset.split(config.data.split.validation_fraction, config.data.split.seed)
    held_out = np.zeros(len(dataset), dtype=bool)
    held_out[split.validation] = True
    held_out |= _same_formula(dataset, held_out)
    chosen = held_out[store.dataset_idx]
    return TrainingData(
        store.subset(np.flatnonzero(~chosen)),
        store.subset(np.flatnonzero(chosen)),
        Split(np.flatnonzero(~held_out), np.flatnonzero(held_out), split.held_out, split.seed),
        self_energies,
        dataset.level_of_theory,
    )


def _same_formula(dataset: Dataset, held_out: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Marks conformations whose formula is held out as a whole in another class."""
    owner = dataset.group_of(np.arange(len(dataset)))
    formulas = {
        dataset.groups[number].formula
        for number in np.unique(owner[held_out])
        if dataset.groups[number].split_by == "formula"
    }
    marked = np.asarray(
        [group.split_by == "formula" and group.formula in formulas for group in dataset.groups]
    )
    return np.asarray(marked[owner])


def _describe(data: TrainingData) -> list[str]:
    lines = [f"labels: {data.level_of_theory or 'level of theory not stated'}"]
    for number, name in enumerate(data.train.classes):
        n_train = int((data.train.class_idx == number).sum())
        n_validation = int((data.validation.class_idx == number).sum())
        lines.append(f"  {name}: {n_train} to train on, {n_validation} held out")
    lost = data.train.exclusions
    if lost.missing_label or lost.large_force:
        lines.append(
            f"  left out: {lost.missing_label} without energy or forces, {lost.large_force} above "
            "data.max_force"
        )
    return lines


def _initial_potential(
    config: TrainingConfig, model_config: TripConfig, statistics: EnergyStatistics
) -> TripPotential:
    if config.initial is not None:
        potential = load_potential(str(config.initial), device="cpu", dtype="float32")
        if potential.config != model_config:
            raise ConfigError(
                f"initial: {config.initial} has another model configuration than `model`; "
                "make `model` the same"
            )
        return potential
    potential = new_potential(model_config, seed=config.seed)
    scale = statistics.energy_std if config.loss.preset == "thesis" else statistics.force_rms
    potential.set_energy_statistics(statistics.self_energies, statistics.binding_energies, scale)
    return potential


def _fit(
    potential: TripPotential,
    config: TrainingConfig,
    data: TrainingData,
    statistics: EnergyStatistics,
    out: Path,
    resume: bool,
    report: Report,
) -> TrainingModule:
    per_epoch = make_plan(data.train, config.batch, config.seed).batches_per_epoch
    n_steps = _n_steps(config, per_epoch)
    lone = potential.config.elements if potential.config.lone_atoms == "trained" else ()
    stream = BatchStream(
        data.train, config.batch, config.seed, n_steps or _NEVER, torch.float32, tuple(lone)
    )
    module = TrainingModule(
        potential, config, loss_settings(config.loss, statistics.energy_std), per_epoch, n_steps
    )
    validation = Validation(
        limit_per_class(data.validation, config.validation.n_conformations, config.seed),
        config.validation.every_steps,
        config.validation.early_stopping,
        out / _LOG,
        report,
    )
    checkpoint = TimedCheckpoint(out / _CHECKPOINT, config.checkpoint_interval_s)
    n_parameters = sum(parameter.numel() for parameter in potential.model.parameters())
    report(f"{n_parameters} parameters, {per_epoch} minibatches per epoch")
    trainer = _lightning_trainer(config, n_steps, out, [Bookkeeping(), validation, checkpoint])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer.fit(
            module,
            train_dataloaders=stream,
            ckpt_path=str(out / _CHECKPOINT) if resume else None,
            weights_only=True,
        )
    checkpoint.save(trainer)
    if module.steps_done % config.validation.every_steps:
        validation.validate(trainer, module)
    if validation.best_averages:
        module.average.averages = validation.best_averages
    return module


def _n_steps(config: TrainingConfig, per_epoch: int) -> int | None:
    limits = [config.budget.max_steps]
    if config.budget.max_epochs is not None:
        limits.append(config.budget.max_epochs * per_epoch)
    return min((limit for limit in limits if limit is not None), default=None)


def _lightning_trainer(
    config: TrainingConfig, n_steps: int | None, out: Path, callbacks: list[lightning.Callback]
) -> lightning.Trainer:
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return lightning.Trainer(
        accelerator="gpu" if config.device == "cuda" else "cpu",
        devices=1,
        max_steps=-1 if n_steps is None else n_steps,
        max_epochs=-1,
        gradient_clip_val=config.optimizer.clip,
        callbacks=callbacks,
        logger=TensorBoardLogger(out, name=None, version="tensorboard"),
        log_every_n_steps=_NEVER,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        use_distributed_sampler=False,
    )


def _finish(
    module: TrainingModule,
    config: TrainingConfig,
    data: TrainingData,
    record: dict[str, Any],
    out: Path,
    report: Report,
) -> Path:
    """Evaluates the averaged weights on everything held out, exports and draws."""
    potential = module.potential.to("cpu")
    module.average.copy_to(potential.model)
    predictions = predict(potential, data.validation)
    found = {"held out": accuracies(predictions)}
    if config.data.test_files:
        found["test files"] = evaluate(potential, Dataset.open(*config.data.test_files))
    for title, table in found.items():
        report(title)
        for line in format_accuracies(table):
            report(line)
    accuracy = {
        title: {name: value.to_dict() for name, value in table.items()}
        for title, table in found.items()
    }
    training = {
        **record,
        "steps": module.steps_done,
        "epochs": module.steps_done / module.batches_per_epoch,
        "elapsed_s": module.elapsed_s,
        "accuracy": accuracy,
    }
    potential.name = config.name
    path = save_potential(
        potential, out / f"{config.name}.safetensors", metadata={"training": training}
    )
    _write_json(out / "accuracy.json", accuracy)
    from trip_mm.training.plots import plot_learning_curve, plot_parity

    plot_learning_curve(read_log(out / _LOG), out / "learning_curve.png")
    plot_parity(predictions, out / "parity.png")
    report(f"model: {path}")
    return path


def _record(
    config: TrainingConfig,
    potential: TripPotential,
    data: TrainingData,
    statistics: EnergyStatistics,
) -> dict[str, Any]:
    """Describes the run in plain JSON: configuration, data, versions."""
    return {
        "config": config.model_dump(mode="json", exclude={"data": {"files", "test_files"}}),
        "data_files": [path.name for path in config.data.files],
        "model": potential.config.to_dict(),
        "n_parameters": sum(parameter.numel() for parameter in potential.model.parameters()),
        "level_of_theory": data.level_of_theory,
        "n_train": len(data.train),
        "n_validation": len(data.validation),
        "left_out": asdict(data.train.exclusions),
        "train_sha256": data.train.sha256(),
        "validation_sha256": data.validation.sha256(),
        "split": json.loads(data.split.to_json()),
        "statistics": {
            "self_energies_ev": {str(k): v for k, v in statistics.self_energies.items()},
            "binding_energies_ev": {str(k): v for k, v in statistics.binding_energies.items()},
            "energy_std_ev": statistics.energy_std,
            "force_rms_ev_per_angstrom": statistics.force_rms,
        },
        "versions": {
            "trip-mm": __version__,
            "torch": torch.__version__,
            "lightning": version("lightning"),
            "python": platform.python_version(),
        },
    }


def _check_run_directory(out: Path, resume: bool) -> None:
    if resume and not (out / _CHECKPOINT).is_file():
        raise RunDirectoryError(f"{out}: no {_CHECKPOINT} to resume from; start without --resume")
    if not resume and out.exists() and any(out.iterdir()):
        raise RunDirectoryError(
            f"{out}: is not empty; give another --out, or --resume to continue the run in it"
        )


def _write_or_compare(out: Path, record: dict[str, Any], resume: bool) -> None:
    """Writes the record of a new run; a resumed run must be the same but for its budget.

    Raises:
        RunDirectoryError: the configuration or the data differ from those of the run.
    """
    path = out / _RECORD
    if not resume:
        out.mkdir(parents=True, exist_ok=True)
        _write_json(path, record)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(record))
    for key in ("model", "train_sha256", "validation_sha256"):
        if before[key] != now[key]:
            raise RunDirectoryError(
                f"{out}: {key} differs from that of the run to resume; start a new run"
            )
    for key in sorted(set(before["config"]) | set(now["config"])):
        if key not in _CHANGEABLE and before["config"].get(key) != now["config"].get(key):
            raise RunDirectoryError(
                f"{out}: `{key}` of the configuration differs from that of the run to resume; "
                f"only {', '.join(sorted(_CHANGEABLE))} may change"
            )


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
