"""The Lightning module: a potential, its loss, its optimizer and its averaged weights."""

import time
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from trip_mm.errors import TrainingError
from trip_mm.model.fused import fused_model
from trip_mm.model.trip import TripModel
from trip_mm.potential import TripPotential
from trip_mm.training.config import LossConfig, ScheduleConfig, TrainingConfig
from trip_mm.training.conformations import Batch
from trip_mm.training.ema import ExponentialMovingAverage
from trip_mm.training.gradients import central_difference_loss, double_backward_loss
from trip_mm.training.losses import LossSettings
from trip_mm.training.processes import from_first, summed
from trip_mm.training.schedule import Plateau, cosine_factor, step_factor, warmup_factor

_GRADIENT_LOSSES = {
    "double-backward": double_backward_loss,
    "central-difference": central_difference_loss,
}
_PRESETS: dict[str, dict[str, float]] = {
    "default": {
        "energy_weight": 1.0,
        "force_weight": 10.0,
        "energy_delta": 0.2,
        "force_delta": 0.2,
    },
    "thesis": {
        "energy_weight": 1.0,
        "force_weight": 0.1,
        "energy_delta": 0.2,
        "force_delta": 0.2,
    },
}


def loss_settings(config: LossConfig, energy_std: float) -> LossSettings:
    """Resolves the loss of a configuration.

    Args:
        config: preset and changes.
        energy_std: standard deviation of the energies about their regression on composition, eV;
            the unit of energy of the preset `thesis`.
    """
    numbers = dict(_PRESETS[config.preset])
    for name in numbers:
        changed = getattr(config, name)
        if changed is not None:
            numbers[name] = changed
    thesis = config.preset == "thesis"
    return LossSettings(per_sqrt_atom=not thesis, scale=energy_std if thesis else 1.0, **numbers)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Divides parameters into those with and those without weight decay.

    Without: one-dimensional parameters, norms, the embedding and the last readout layer.

    Args:
        model: a `TripModel`.
        weight_decay: of the first group.

    Returns:
        Two parameter groups for AdamW.
    """
    exempt = {
        id(parameter)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or "norm" in type(module).__name__.lower()
        for parameter in module.parameters()
    }
    readout = model.get_submodule("readout")
    assert isinstance(readout, nn.Sequential)
    exempt |= {id(parameter) for parameter in readout[-1].parameters()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 and id(p) not in exempt]
    others = [p for p in parameters if p.ndim <= 1 or id(p) in exempt]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def training_network(model: TripModel, config: TrainingConfig) -> TripModel:
    """Returns the form of the network that a training step evaluates; parameters are shared.

    Central differences need first derivatives only, so the compiled kernels serve on a CPU.
    """
    if config.device == "cpu" and config.optimizer.force_gradient == "central-difference":
        return fused_model(model)
    return model


class TrainingModule(lightning.LightningModule):
    """Trains a potential; the step, the time spent and the averages travel in the checkpoint.

    Args:
        potential: what is trained, its energy statistics set.
        config: optimizer, schedule, budget, averaging.
        loss: weights and shapes of the loss.
        steps_per_epoch: for the schedule `step`.
        max_steps: length of the run; None if only time ends it.
    """

    def __init__(
        self,
        potential: TripPotential,
        config: TrainingConfig,
        loss: LossSettings,
        steps_per_epoch: int,
        max_steps: int | None,
    ) -> None:
        super().__init__()
        self.potential = potential
        self.config = config
        self.loss_settings = loss
        self.steps_per_epoch = steps_per_epoch
        self.max_steps = max_steps
        # In a tuple, so that Lightning does not count the shared parameters twice.
        self._network = (training_network(potential.model, config),)
        self.average = ExponentialMovingAverage(potential.model, config.ema_decay)
        self.plateau = Plateau(config.schedule.factor, config.schedule.patience)
        self.steps_done = 0
        self.elapsed_s = 0.0
        self.loss_sums = torch.zeros(4, dtype=torch.float64)  # total, energy, force, batches
        self.n_conformations_seen = 0
        self._last_tick: float | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns AdamW with the decay groups of `parameter_groups`."""
        settings = self.config.optimizer
        groups = parameter_groups(self.potential.model, settings.weight_decay)
        return torch.optim.AdamW(groups, lr=settings.learning_rate)

    def learning_rate_factor(self) -> float:
        """Returns the share of the full learning rate for the next step."""
        schedule: ScheduleConfig = self.config.schedule
        factor = 1.0
        if schedule.kind == "cosine":
            factor = cosine_factor(self.progress(), schedule.final_fraction)
        elif schedule.kind == "step":
            factor = step_factor(self.steps_done // self.steps_per_epoch, schedule.factor)
        elif schedule.kind == "plateau":
            factor = self.plateau.value
        return factor * warmup_factor(self.steps_done, schedule.warmup_steps)

    def progress(self) -> float:
        """Returns the share of the budget that is spent, in steps or in time."""
        by_steps = self.steps_done / self.max_steps if self.max_steps is not None else 0.0
        max_time = self.config.budget.max_time_s
        by_time = self.elapsed_s / max_time if max_time is not None else 0.0
        return max(by_steps, by_time)

    def on_train_start(self) -> None:
        """Starts the clock."""
        self._last_tick = time.monotonic()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the learning rate of this step."""
        rate = self.config.optimizer.learning_rate * self.learning_rate_factor()
        optimizer = self.optimizers()
        assert isinstance(
            optimizer, torch.optim.Optimizer | lightning.pytorch.core.optimizer.LightningOptimizer
        )
        for group in optimizer.param_groups:
            group["lr"] = rate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Computes what is differentiated by the weights.

        Raises:
            TrainingError: the loss is not finite.
        """
        gradient_loss = _GRADIENT_LOSSES[self.config.optimizer.force_gradient]
        differentiable, terms = gradient_loss(self._network[0], batch, self.loss_settings)
        values = torch.stack([term.detach().to("cpu", torch.float64) for term in terms])
        if not torch.isfinite(values).all():
            raise TrainingError(
                f"step {self.steps_done}: the loss is not finite; lower optimizer.learning_rate or "
                "set data.max_force to leave out extreme conformations"
            )
        self.loss_sums += torch.cat([values, torch.ones(1, dtype=torch.float64)])
        self.n_conformations_seen += int((batch.class_idx >= 0).sum())
        return differentiable

    def finish_step(self) -> None:
        """Updates the averages, the counter and the clock after a step.

        The clock is that of the first process: the learning rate and the end of training follow
        from it, and must be the same everywhere.
        """
        self.average.update(self.potential.model)
        self.steps_done += 1
        self.tick()
        elapsed = torch.tensor([self.elapsed_s], dtype=torch.float64)
        self.elapsed_s = float(from_first(elapsed, self.device))

    def tick(self) -> None:
        """Adds the time since the last call to the time spent."""
        now = time.monotonic()
        if self._last_tick is not None:
            self.elapsed_s += now - self._last_tick
        self._last_tick = now

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what is not a weight or an optimizer state; every process takes part."""
        checkpoint["trip_mm"] = {
            "average": self.average.state_dict(),
            "plateau": self.plateau.state_dict(),
            "steps_done": self.steps_done,
            "elapsed_s": self.elapsed_s,
            "loss_sums": summed(self.loss_sums, self.device),
            "n_conformations_seen": self.n_conformations_seen,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores what `on_save_checkpoint` added."""
        state = checkpoint["trip_mm"]
        self.average.load_state_dict(state["average"])
        self.plateau.load_state_dict(state["plateau"])
        self.steps_done = int(state["steps_done"])
        self.elapsed_s = float(state["elapsed_s"])
        # The sums are those of all processes.
        self.loss_sums.copy_(state["loss_sums"] if self.global_rank == 0 else torch.zeros(4))
        self.n_conformations_seen = int(state["n_conformations_seen"])
