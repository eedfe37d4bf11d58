"""One training run of one potential: Lightning around the step, then the exported model."""

import logging
import math
import signal
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from trip_mm.checkpoint import read_checkpoint, save_potential
from trip_mm.errors import CheckpointError
from trip_mm.files import make_directory, write_json
from trip_mm.locking import locked
from trip_mm.potential import TripPotential
from trip_mm.simulation.interruption import RunInterrupted
from trip_mm.training.callbacks import (
    Bookkeeping,
    Conclusion,
    TimedCheckpoint,
    Validation,
    read_log,
)
from trip_mm.training.config import TrainingConfig
from trip_mm.training.dataset import Dataset
from trip_mm.training.evaluate import (
    Accuracy,
    accuracies,
    evaluate,
    format_accuracies,
    limit_per_class,
    predict,
)
from trip_mm.training.loader import BatchStream, make_plan
from trip_mm.training.module import TrainingModule, loss_settings
from trip_mm.training.preparation import Prepared, set_statistics
from trip_mm.training.processes import Processes
from trip_mm.training.progress import ProgressCallback
from trip_mm.training.reach import describe_unreached
from trip_mm.training.record import (
    CHECKPOINT,
    Place,
    Report,
    TrainingData,
    describe_run,
    write_or_compare,
)

_LOG = "log.csv"
_NEVER = 2**31 - 1
_PRECISIONS = {"float32": "32-true", "bf16-mixed": "bf16-mixed"}


def fit_and_export(
    potential: TripPotential, config: TrainingConfig, prepared: Prepared, place: Place
) -> Path:
    """Trains a potential and exports its averaged weights at the best validation.

    A resumed run that was finished with the same budget stays as it is.

    Args:
        potential: what training starts from.
        config: of the run.
        prepared: data and energy statistics.
        place: where and how.

    Returns:
        The exported model, `OUT/NAME.safetensors`, written by the first process.

    Raises:
        RunDirectoryError: the run to resume is another one, or is trained by another process.
        TrainingError: the loss became infinite.
        RunInterrupted: SIGTERM or SIGINT asked to stop.
        CheckpointError: a model lies in the directory that has no record of its training.
    """
    data = prepared.data
    n_processes = place.processes.n_processes
    record = describe_run(config, potential, data, prepared.statistics, n_processes)
    set_statistics(potential, config, prepared.statistics)
    if not place.processes.is_first:
        return _fit_and_finish(potential, config, prepared, place, record)
    make_directory(place.out)
    with locked(place.out):
        write_or_compare(place.out, record, place.resume)
        return _fit_and_finish(potential, config, prepared, place, record)


def _fit_and_finish(
    potential: TripPotential,
    config: TrainingConfig,
    prepared: Prepared,
    place: Place,
    record: dict[str, Any],
) -> Path:
    path = place.out / f"{config.name}.safetensors"
    if place.resume and is_finished(path, config):
        place.report(f"finished before: {path}")
        return path
    module, validation = _fit(potential, config, prepared, place)
    if validation.best_averages:
        module.average.averages = validation.best_averages
    if place.processes.is_first:
        _finish(module, config, prepared.data, record, place)
        place.report(f"model: {path}")
    return path


def _fit(
    potential: TripPotential, config: TrainingConfig, prepared: Prepared, place: Place
) -> tuple[TrainingModule, Validation]:
    data, statistics = prepared.data, prepared.statistics
    n_batches = make_plan(data.train, config.batch, config.seed).batches_per_epoch
    per_epoch = math.ceil(n_batches / place.processes.n_processes)
    n_steps = _n_steps(config, per_epoch)
    lone = statistics.lone_labels if potential.config.lone_atoms == "trained" else {}
    stream = BatchStream(
        data.train,
        config.batch,
        config.seed,
        n_steps or _NEVER,
        torch.float32,
        lone,
        place.processes,
    )
    module = TrainingModule(
        potential, config, loss_settings(config.loss, statistics.energy_std), per_epoch, n_steps
    )
    validation = Validation(
        limit_per_class(data.validation, config.validation.n_conformations, config.seed),
        config.validation.every_steps,
        config.validation.early_stopping,
        place.out / _LOG,
        place.report,
    )
    checkpoint = TimedCheckpoint(place.out / CHECKPOINT, config.checkpoint_interval_s)
    conclusion = Conclusion(checkpoint, validation)
    callbacks: list[lightning.Callback] = [
        Bookkeeping(),
        ProgressCallback(place.tell),
        validation,
        checkpoint,
        conclusion,
    ]
    place.report(_describe_network(potential, per_epoch, place.processes))
    for line in describe_unreached(config, n_steps):
        place.report(f"beyond the budget: {line}")
    trainer = _lightning_trainer(config, n_steps, place, callbacks)
    _run_loop(trainer, module, stream, place)
    if not conclusion.is_done:
        module.to(trainer.strategy.root_device)  # Lightning has left it, and NCCL knows no other
        validation.conclude(trainer, module)
    return module, validation


def _run_loop(
    trainer: lightning.Trainer, module: TrainingModule, stream: BatchStream, place: Place
) -> None:
    """Trains from the start or from the last checkpoint.

    Raises:
        RunInterrupted: SIGTERM or SIGINT asked to stop. After the one Lightning returns as if all
            was done; on the other it ends the program with status 1 and ignores the signal.
    """
    last = place.out / CHECKPOINT
    on_interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        try:
            trainer.fit(
                module,
                train_dataloaders=stream,
                ckpt_path=str(last) if place.resume and last.is_file() else None,
                weights_only=True,
            )
        except SIGTERMException:
            raise _interrupted(place, module, signal.SIGTERM) from None
        except SystemExit as error:
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, on_interrupt)
            raise _interrupted(place, module, signal.SIGINT) from None


def _interrupted(place: Place, module: TrainingModule, number: signal.Signals) -> RunInterrupted:
    return RunInterrupted(
        f"{place.out}: stopped by {number.name} after step {module.steps_done}; the same command "
        "with --resume continues at the last checkpoint",
        number,
    )


def is_finished(model: Path, config: TrainingConfig) -> bool:
    """Whether a model was trained to the end of the budget that the configuration gives now.

    Args:
        model: where the run would have exported it.
        config: of the run.

    Raises:
        CheckpointError: a model is there, but no record of its training in it.
    """
    if not model.is_file():
        return False
    header, _ = read_checkpoint(model)
    try:
        budget = header["metadata"]["training"]["config"]["budget"]
    except KeyError as error:
        raise CheckpointError(f"{model}: no training record ({error}); remove it") from None
    return bool(budget == config.budget.model_dump(mode="json"))


def _describe_network(potential: TripPotential, per_epoch: int, processes: Processes) -> str:
    parameters = list(potential.model.parameters())
    n_parameters = sum(parameter.numel() for parameter in parameters)
    n_frozen = sum(parameter.numel() for parameter in parameters if not parameter.requires_grad)
    frozen = f" ({n_frozen} frozen)" if n_frozen else ""
    several = f", {processes.n_processes} processes" if processes.n_processes > 1 else ""
    return f"{n_parameters} parameters{frozen}, {per_epoch} steps per epoch{several}"


def _n_steps(config: TrainingConfig, per_epoch: int) -> int | None:
    limits = [config.budget.max_steps]
    if config.budget.max_epochs is not None:
        limits.append(config.budget.max_epochs * per_epoch)
    return min((limit for limit in limits if limit is not None), default=None)


def _lightning_trainer(
    config: TrainingConfig, n_steps: int | None, place: Place, callbacks: list[lightning.Callback]
) -> lightning.Trainer:
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return lightning.Trainer(
        accelerator="gpu" if config.device == "cuda" else "cpu",
        devices=place.processes.n_per_node,
        num_nodes=place.processes.n_nodes,
        strategy="ddp" if place.processes.n_processes > 1 else "auto",
        precision=_PRECISIONS[config.precision],
        max_steps=-1 if n_steps is None else n_steps,
        max_epochs=-1,
        gradient_clip_val=config.optimizer.clip,
        callbacks=callbacks,
        default_root_dir=place.out,  # Lightning leaves SLURM checkpoints there
        logger=TensorBoardLogger(place.out, name=None, version="tensorboard"),
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
    place: Place,
) -> None:
    """Evaluates the averaged weights on everything held out, draws and exports.

    The model comes last: where it lies, a resumed run has nothing left to do.
    """
    potential = module.potential.to(config.device)  # Lightning has moved it to the CPU
    module.average.copy_to(potential.model)
    predictions = predict(potential, data.validation)
    found = {"held out": accuracies(predictions)}
    if config.data.test_files:
        found["test files"] = evaluate(potential, Dataset.open(*config.data.test_files))
    _report(found, place.report)
    accuracy = {
        title: {name: value.to_dict() for name, value in table.items()}
        for title, table in found.items()
    }
    training = {
        **record,
        "steps": module.steps_done,
        "epochs": module.steps_done / module.steps_per_epoch,
        "elapsed_s": module.elapsed_s,
        "accuracy": accuracy,
    }
    write_json(place.out / "accuracy.json", accuracy)
    from trip_mm.training.plots import plot_learning_curve, plot_parity

    plot_learning_curve(read_log(place.out / _LOG), place.out / "learning_curve.png")
    plot_parity(predictions, place.out / "parity.png")
    potential.name = config.name
    save_potential(
        potential.to("cpu"),
        place.out / f"{config.name}.safetensors",
        metadata={"training": training},
    )


def _report(found: dict[str, dict[str, Accuracy]], report: Report) -> None:
    for title, table in found.items():
        report(title)
        for line in format_accuracies(table):
            report(line)
