"""Edge lists of constant length: padded to a capacity, so that shapes rarely change.

The number of edges changes at nearly every step of dynamics. What is compiled or recorded for
given shapes (CUDA graphs, torch.compile, the fuser of TorchScript) would then be made again and
again. Padded edges join ghost atoms behind the real ones, twice the cutoff apart, where the
envelope is exactly 0. No edge joins a ghost and a real atom: whatever the network computes of
ghosts, the energies of real atoms do not depend on it.
"""

import torch
from torch import Tensor, nn

from trip_mm.errors import ConfigError

DEFAULT_SLACK = 0.05
"""Edges beyond those found, as a share of them, when a capacity is chosen."""

_GRANULARITY = 256
_ATOMS_PER_GHOST = 16


class NoPadding(nn.Module):
    """Leaves a graph as it is."""

    def forward(
        self, atomic_numbers: Tensor, senders: Tensor, receivers: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns its arguments."""
        return atomic_numbers, senders, receivers, edge_vectors


class EdgePadding(nn.Module):
    """Pads a graph: ghosts in proportion to the atoms, edges up to the capacity.

    The capacity is chosen at the first graph, grows when a graph has more edges, and is chosen
    anew when the number of atoms changes. It never shrinks otherwise.

    Attributes:
        slack: edges beyond those found, as a share of them, when a capacity is chosen.
        capacity: number of edges after padding.
        n_growths: how often a capacity was chosen, the first time included.
    """

    def __init__(self, cutoff: float, slack: float = DEFAULT_SLACK) -> None:
        """Sets up the padding.

        Args:
            cutoff: interaction range, A.
            slack: not negative.

        Raises:
            ConfigError: the slack is negative or not finite.
        """
        super().__init__()
        if not 0.0 <= slack < float("inf"):
            raise ConfigError(f"edge padding: slack {slack} is not a number of at least 0")
        self.distance = 2.0 * float(cutoff)
        self.slack = float(slack)
        self.capacity = 0
        self.n_growths = 0
        self.granularity = _GRANULARITY
        self.atoms_per_ghost = _ATOMS_PER_GHOST
        self._n_atoms = -1

    def forward(
        self, atomic_numbers: Tensor, senders: Tensor, receivers: Tensor, edge_vectors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pads a graph; the ghosts come after the atoms, the padded edges after the edges.

        Args:
            atomic_numbers: int64 `[n_atoms]`.
            senders: int64 `[n_edges]`.
            receivers: int64 `[n_edges]`.
            edge_vectors: `[n_edges, 3]`, A.

        Returns:
            the same of the padded graph, `[n_atoms + n_ghosts]` and `[capacity]`.
        """
        n_atoms, n_edges = atomic_numbers.shape[0], senders.shape[0]
        if n_atoms == 0:
            return atomic_numbers, senders, receivers, edge_vectors
        if n_edges > self.capacity or n_atoms != self._n_atoms:
            wanted = int(n_edges * (1.0 + self.slack)) + 1
            self.capacity = (wanted + self.granularity - 1) // self.granularity * self.granularity
            self.n_growths += 1
            self._n_atoms = n_atoms
        n_ghosts = (n_atoms + self.atoms_per_ghost - 1) // self.atoms_per_ghost
        numbers = torch.cat([atomic_numbers, atomic_numbers[:1].expand(n_ghosts)])
        # Spread over the ghosts, in the order of receivers that neighbour lists have.
        padded = torch.arange(self.capacity - n_edges, device=senders.device) * n_ghosts
        ghosts = n_atoms + torch.div(padded, max(self.capacity - n_edges, 1), rounding_mode="floor")
        vectors = edge_vectors.new_zeros(self.capacity - n_edges, 3)
        vectors[:, 0] = self.distance
        return (
            numbers,
            torch.cat([senders, ghosts]),
            torch.cat([receivers, ghosts]),
            torch.cat([edge_vectors, vectors]),
        )
