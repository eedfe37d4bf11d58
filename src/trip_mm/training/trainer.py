"""A training run from its configuration to an exported model."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from trip_mm.checkpoint import load_potential, new_potential, save_potential
from trip_mm.elements import SYMBOLS, atomic_number
from trip_mm.errors import ConfigError, DataError, UnsupportedElementError
from trip_mm.model.config import TripConfig
from trip_mm.potential import TripPotential
from trip_mm.training.callbacks import Bookkeeping, TimedCheckpoint, Validation, read_log
from trip_mm.training.config import TrainingConfig, load_training_config
from trip_mm.training.conformations import build_store
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
from trip_mm.training.record import (
    CHECKPOINT,
    TrainingData,
    check_run_directory,
    describe_run,
    write_json,
    write_or_compare,
)
from trip_mm.training.statistics import (
    EnergyStatistics,
    energy_statistics,
    merged_self_energies,
    relative_to,
)

_LOG = "log.csv"
_NEVER = 2**31 - 1
Report = Callable[[str], None]


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
    check_run_directory(out, resume)
    if config.n_threads is not None:
        torch.set_num_threads(config.n_threads)
    data = load_data(config, model_config)
    for line in _describe(data):
        report(line)
    if len(data.validation) == 0:
        raise DataError(
            "no conformation is held out; raise data.split.validation_fraction or add data"
        )
    potential = _initial_potential(config, model_config)
    statistics = energy_statistics(data.train, data.self_energies, potential.model)
    _set_statistics(potential, config, statistics)
    data = replace(
        data,
        train=relative_to(data.train, data.self_energies, statistics),
        validation=relative_to(data.validation, data.self_energies, statistics),
    )
    record = describe_run(config, potential, data, statistics)
    write_or_compare(out, record, resume)
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


def _initial_potential(config: TrainingConfig, model_config: TripConfig) -> TripPotential:
    if config.initial is None:
        return new_potential(model_config, seed=config.seed)
    potential = load_potential(str(config.initial), device="cpu", dtype="float32")
    if potential.config != model_config:
        raise ConfigError(
            f"initial: {config.initial} has another model configuration than `model`; "
            "make `model` the same"
        )
    return potential


def _set_statistics(
    potential: TripPotential, config: TrainingConfig, statistics: EnergyStatistics
) -> None:
    """Sets self energies; binding energies and unit too, unless they came with the weights."""
    binding = statistics.binding_energies
    thesis = config.loss.preset == "thesis"
    scale = statistics.energy_std if thesis else statistics.force_rms
    if config.initial is not None:
        model = potential.model
        binding = dict(
            zip(potential.supported_elements, model.binding_energies.tolist(), strict=True)
        )
        scale = float(model.energy_scale)
    potential.set_energy_statistics(statistics.self_energies, binding, scale)


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
    lone = statistics.lone_labels if potential.config.lone_atoms == "trained" else {}
    stream = BatchStream(
        data.train, config.batch, config.seed, n_steps or _NEVER, torch.float32, lone
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
    checkpoint = TimedCheckpoint(out / CHECKPOINT, config.checkpoint_interval_s)
    n_parameters = sum(parameter.numel() for parameter in potential.model.parameters())
    report(f"{n_parameters} parameters, {per_epoch} minibatches per epoch")
    trainer = _lightning_trainer(config, n_steps, out, [Bookkeeping(), validation, checkpoint])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer.fit(
            module,
            train_dataloaders=stream,
            ckpt_path=str(out / CHECKPOINT) if resume else None,
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
    write_json(out / "accuracy.json", accuracy)
    from trip_mm.training.plots import plot_learning_curve, plot_parity

    plot_learning_curve(read_log(out / _LOG), out / "learning_curve.png")
    plot_parity(predictions, out / "parity.png")
    report(f"model: {path}")
    return path
