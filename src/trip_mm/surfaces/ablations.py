"""TrIP with one of its physical terms switched off at evaluation.

The network of a trained model was fitted with the term in place, and makes up for it: ZBL alone is
worth 4.6 eV at the bond length of water. Without the term the rest is therefore not what a model
trained without it would be. It shows what the term contributes and where.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trip_mm.errors import ConfigError
from trip_mm.model.trip import TripModel
from trip_mm.model.zbl import ZBLRepulsion
from trip_mm.potential import TripPotential


class StepEnvelope(nn.Module):
    """Hard cutoff in place of the bump function: 1 inside, 0 outside."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, edge_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the envelope and its logarithm (-1e9 outside), each `[n_edges]`."""
        inside = edge_lengths < self.cutoff
        ones = torch.ones_like(edge_lengths)
        return (
            torch.where(inside, ones, torch.zeros_like(ones)),
            torch.where(inside, torch.zeros_like(ones), torch.full_like(ones, -1e9)),
        )


def _without_zbl(potential: TripPotential) -> None:
    if potential.config.repulsion == "none":
        raise ConfigError(f"{potential.name}: has no ZBL repulsion to switch off")
    potential.model.repulsion = ZBLRepulsion(0.0)


def _with_hard_cutoff(potential: TripPotential) -> None:
    potential.model.envelope = StepEnvelope(potential.cutoff)  # type: ignore[assignment]


def _without_lone_atoms(potential: TripPotential) -> None:
    """Adds the mean binding energy to the self energy, as a regression on molecules gives it.

    It then no longer fades as the neighbours of an atom leave (thesis 4.1 without its lone atoms).
    """
    if potential.config.lone_atoms != "exact":
        raise ConfigError(
            f"{potential.name}: its isolated atoms are not exact by construction; there is no "
            "constraint to switch off"
        )
    for row, number in enumerate(potential.supported_elements):
        potential.self_energies[number] += potential.model.binding_energies[row]
    potential.model.binding_energies.zero_()


TERMS: dict[str, tuple[str, Callable[[TripPotential], None]]] = {
    "zbl": ("no ZBL", _without_zbl),
    "bump": ("hard cutoff", _with_hard_cutoff),
    "lone-atoms": ("no lone-atom constraint", _without_lone_atoms),
}
"""What `switch_off` can switch off: name to label and function."""


def check_term(term: str) -> None:
    """Refuses what is no term.

    Raises:
        ConfigError: names the terms.
    """
    if term not in TERMS:
        raise ConfigError(f"term {term!r} cannot be switched off; choose from {', '.join(TERMS)}")


def switch_off(potential: TripPotential, term: str) -> TripPotential:
    """Returns a copy of the potential without one term; the original stays as it is.

    Args:
        potential: any TrIP model, without compiled kernels.
        term: a key of `TERMS`.

    Raises:
        ConfigError: no such term, or the model does not have it.
    """
    check_term(term)
    changed = TripPotential(TripModel(potential.config), potential.neighbors.skin)
    changed.to(device=potential.device, dtype=potential.dtype)
    changed.load_state_dict(potential.state_dict())
    changed.requires_grad_(any(p.requires_grad for p in potential.parameters()))
    changed.name = potential.name
    TERMS[term][1](changed)
    return changed.to(device=potential.device)
