"""Exponential moving average of the weights: what is validated and exported."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class ExponentialMovingAverage:
    """Average of the parameters over the last 1 / (1 - decay) steps or so.

    Early in training the average is shorter, min(decay, (1 + step) / (10 + step)), so that it
    does not remember the random start.

    Args:
        module: the module whose parameters are followed; its buffers are not averaged.
        decay: weight of the past in one update, 0 <= decay < 1; 0 follows exactly.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.averages = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Moves the averages towards the present parameters."""
        decay = min(self.decay, (1.0 + self.n_updates) / (10.0 + self.n_updates))
        self.n_updates += 1
        for name, parameter in module.named_parameters():
            # The module moves to its device after it was built.
            self.averages[name] = self.averages[name].to(parameter.device)
            self.averages[name].lerp_(parameter.detach(), 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, module: torch.nn.Module) -> None:
        """Overwrites the parameters of `module` with the averages."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.averages[name])

    @contextmanager
    def applied(self, module: torch.nn.Module) -> Iterator[None]:
        """Within the context the parameters are the averages; afterwards what they were."""
        present = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.copy_to(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in module.named_parameters():
                    parameter.copy_(present[name])

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        """Returns the state for a training checkpoint."""
        return {"n_updates": self.n_updates, "averages": self.averages}

    def load_state_dict(self, state: dict[str, int | dict[str, Tensor]]) -> None:
        """Restores what `state_dict` returned."""
        n_updates, averages = state["n_updates"], state["averages"]
        assert isinstance(n_updates, int)
        assert isinstance(averages, dict)
        self.n_updates = n_updates
        for name, average in averages.items():
            self.averages[name].copy_(average)
