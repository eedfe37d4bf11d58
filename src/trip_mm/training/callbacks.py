"""What happens between steps: validation, log, checkpoints.

Validation needs gradients by the positions, and a resumed run must validate at the same steps as
an uninterrupted one; both are simpler here than in Lightning's validation loop. The order of the
callbacks matters: bookkeeping, validation, checkpoint.
"""

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch

from trip_mm.files import replacing
from trip_mm.training.conformations import Batch, ConformationStore
from trip_mm.training.evaluate import ALL, Accuracy, accuracies, predict, validation_loss
from trip_mm.training.module import TrainingModule
from trip_mm.training.processes import from_first, summed


@dataclass(frozen=True)
class _Progress:
    """What is logged besides accuracies; `loss_sums`: total, energy, force, minibatches."""

    validation_loss: float
    loss_sums: list[float]
    conformations_per_s: float


class Bookkeeping(lightning.Callback):
    """Updates averages, counters and clock after each step; ends a run whose budget is spent."""

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Takes no step where a resumed run has spent its budget already."""
        assert isinstance(pl_module, TrainingModule)
        if pl_module.progress() >= 1.0:
            trainer.should_stop = True

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Finishes the step."""
        assert isinstance(pl_module, TrainingModule)
        pl_module.finish_step()
        if pl_module.progress() >= 1.0:
            trainer.should_stop = True


class Validation(lightning.Callback):
    """Validates the averaged weights every so many steps; logs; keeps the best.

    Args:
        store: conformations to validate on.
        every_steps: steps between validations.
        early_stopping: validations without improvement before training stops.
        log_file: CSV, one row per validation.
        report: receives one line per validation.
    """

    def __init__(
        self,
        store: ConformationStore,
        every_steps: int,
        early_stopping: int | None,
        log_file: Path,
        report: Callable[[str], None],
    ) -> None:
        self.store = store
        self.every_steps = every_steps
        self.early_stopping = early_stopping
        self.log_file = log_file
        self.report = report
        self.best = math.inf
        self.n_bad = 0
        self.best_averages: dict[str, torch.Tensor] = {}
        self._clock = time.monotonic()
        self._seen = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the best validation and its weights."""
        return {"best": self.best, "n_bad": self.n_bad, "best_averages": self.best_averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.best, self.n_bad = float(state_dict["best"]), int(state_dict["n_bad"])
        self.best_averages = dict(state_dict["best_averages"])

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Starts counting; drops rows of the log that a resumed run will write again."""
        assert isinstance(pl_module, TrainingModule)
        self._clock, self._seen = time.monotonic(), pl_module.n_conformations_seen
        if trainer.is_global_zero:
            _drop_later_rows(self.log_file, pl_module.steps_done)
        if self._has_stopped_improving():
            trainer.should_stop = True

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Validates if it is time to."""
        assert isinstance(pl_module, TrainingModule)
        if self.is_due(pl_module):
            self.validate(trainer, pl_module)

    def conclude(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        """Validates the last state, unless that was done after its step."""
        if self.is_due(module):
            return
        if trainer.is_global_zero:  # the row of an earlier conclusion at this step
            _drop_later_rows(self.log_file, module.steps_done - 1)
        self.validate(trainer, module)

    def _has_stopped_improving(self) -> bool:
        return self.early_stopping is not None and self.n_bad >= self.early_stopping

    def is_due(self, module: TrainingModule) -> bool:
        """Returns whether the step just done is one to validate after."""
        return module.steps_done % self.every_steps == 0

    def validate(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        """Validates the averaged weights in the first process; all act on its result."""
        found: dict[str, Accuracy] = {}
        loss = math.nan
        sums = summed(module.loss_sums, module.device).tolist()
        seen = torch.tensor([module.n_conformations_seen - self._seen])
        throughput = float(summed(seen, module.device)) / (time.monotonic() - self._clock)
        if trainer.is_global_zero:
            with module.average.applied(module.potential.model):
                predictions = predict(module.potential, self.store)
            found, loss = accuracies(predictions), validation_loss(predictions)
        loss = float(from_first(torch.tensor([loss], dtype=torch.float64), module.device))
        module.plateau.update(loss)
        if loss < self.best:
            self.best, self.n_bad = loss, 0
            self.best_averages = {k: v.clone() for k, v in module.average.averages.items()}
        else:
            self.n_bad += 1
            if self._has_stopped_improving():
                self.report(f"no improvement in {self.n_bad} validations: stopping early")
                trainer.should_stop = True
        if trainer.is_global_zero:
            progress = _Progress(loss, sums, throughput)
            self._log(trainer, module, found, progress)
        module.loss_sums.zero_()
        self._clock, self._seen = time.monotonic(), module.n_conformations_seen

    def _log(
        self,
        trainer: lightning.Trainer,
        module: TrainingModule,
        found: dict[str, Accuracy],
        progress: _Progress,
    ) -> None:
        total, energy, force, n_batches = progress.loss_sums
        row: dict[str, float] = {
            "step": module.steps_done,
            "epoch": round(module.steps_done / module.steps_per_epoch, 4),
            "elapsed_s": round(module.elapsed_s, 3),
            "learning_rate": module.config.optimizer.learning_rate * module.learning_rate_factor(),
            "conformations_per_s": round(progress.conformations_per_s, 3),
            "train_loss": total / max(n_batches, 1),
            "train_energy_loss": energy / max(n_batches, 1),
            "train_force_loss": force / max(n_batches, 1),
            "validation_loss": progress.validation_loss,
        }
        for name, accuracy in found.items():
            row[f"{name}.force_mae_kcal_per_mol_per_angstrom"] = (
                accuracy.force_mae_kcal_per_mol_per_angstrom
            )
            row[f"{name}.energy_mae_kcal_per_mol_per_atom"] = (
                accuracy.energy_mae_kcal_per_mol_per_atom
            )
        _append_row(self.log_file, row)
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, module.steps_done)
        classes = ", ".join(
            f"{name} {a.force_mae_kcal_per_mol_per_angstrom:.2f}/"
            f"{a.energy_mae_kcal_per_mol_per_atom:.3f}"
            for name, a in found.items()
            if name != ALL or len(found) > 2
        )
        self.report(
            f"step {module.steps_done}  epoch {row['epoch']:.2f}  {module.elapsed_s / 60:.1f} min  "
            f"lr {row['learning_rate']:.1e}  {progress.conformations_per_s:.1f} conf/s  "
            f"loss {row['train_loss']:.4g}  "
            f"validation F (kcal/mol/A) / E (kcal/mol/atom): {classes}"
        )


class TimedCheckpoint(lightning.Callback):
    """Writes a checkpoint every so often, replacing the last one atomically.

    Time is that of `TrainingModule.elapsed_s`, on which all processes agree.

    Args:
        path: the checkpoint.
        interval_s: seconds between two.
    """

    def __init__(self, path: Path, interval_s: float) -> None:
        self.path = path
        self.interval_s = interval_s
        self._last = 0.0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Starts the clock."""
        assert isinstance(pl_module, TrainingModule)
        self._last = pl_module.elapsed_s

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Saves if it is time to."""
        assert isinstance(pl_module, TrainingModule)
        if pl_module.elapsed_s - self._last >= self.interval_s:
            self._last = pl_module.elapsed_s
            self.save(trainer)

    def save(self, trainer: lightning.Trainer) -> None:
        """Saves now; every process must call this."""
        if not trainer.is_global_zero:  # the name of its file does not matter
            trainer.save_checkpoint(self.path, weights_only=False)
            return
        with replacing(self.path) as temporary:
            trainer.save_checkpoint(temporary, weights_only=False)


class Conclusion(lightning.Callback):
    """Saves and validates the last state, while the processes are still connected.

    Saved first: a run that is continued with a larger budget must not know of this validation.

    Args:
        checkpoint: writes the checkpoint.
        validation: validates, unless the last step was one to validate after anyway.

    Attributes:
        is_done: whether the last state was validated. Lightning enters no loop, and calls no
            callback, where a resumed run has all its steps behind it.
    """

    def __init__(self, checkpoint: TimedCheckpoint, validation: Validation) -> None:
        self.checkpoint = checkpoint
        self.validation = validation
        self.is_done = False

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Saves and validates."""
        assert isinstance(pl_module, TrainingModule)
        self.checkpoint.save(trainer)
        self.validation.conclude(trainer, pl_module)
        self.is_done = True


def _append_row(path: Path, row: dict[str, float]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _drop_later_rows(path: Path, step: int) -> None:
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        rows = [row for row in reader if int(row["step"]) <= step]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_log(path: Path) -> dict[str, list[float]]:
    """Reads the columns of a training log."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {})}
