"""Learning-rate schedules as functions of the step, of the epoch, or of the time spent."""

import math
from dataclasses import dataclass, field


def warmup_factor(step: int, warmup_steps: int) -> float:
    """Rises linearly from 1 / (warmup_steps + 1) to 1 during the first steps."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def cosine_factor(progress: float, final_fraction: float) -> float:
    """Falls from 1 to `final_fraction` along half a cosine.

    Args:
        progress: share of the training that is done, 0 ... 1; larger values count as 1.
        final_fraction: value at the end.
    """
    progress = min(max(progress, 0.0), 1.0)
    return final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + math.cos(math.pi * progress))


def step_factor(epoch: int, factor: float) -> float:
    """Multiplies by `factor` after every epoch (TrIP thesis section 4.1: halved each epoch)."""
    return factor**epoch


@dataclass
class Plateau:
    """Multiplies the learning rate by `factor` when the validation loss stops falling.

    Attributes:
        factor: multiplier at each plateau.
        patience: validations without improvement that are waited for.
        best: lowest validation loss seen.
        n_bad: validations since the lowest.
        value: present product of the factors.
    """

    factor: float
    patience: int
    best: float = math.inf
    n_bad: int = 0
    value: float = field(default=1.0)

    def update(self, loss: float) -> None:
        """Takes note of one validation loss."""
        if loss < self.best:
            self.best, self.n_bad = loss, 0
            return
        self.n_bad += 1
        if self.n_bad > self.patience:
            self.value *= self.factor
            self.n_bad = 0

    def state_dict(self) -> dict[str, float]:
        """Returns the state for a training checkpoint."""
        return {"best": self.best, "n_bad": self.n_bad, "value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restores what `state_dict` returned."""
        self.best, self.n_bad = state["best"], int(state["n_bad"])
        self.value = state["value"]
