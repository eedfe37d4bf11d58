"""Ziegler-Biersack-Littmark screened nuclear repulsion (TrIP thesis Eq. 14 to 17)."""

import torch
from torch import Tensor, nn


class ZBLRepulsion(nn.Module):
    """Half of every edge's screened repulsion, V = k_e Z_u Z_v / d S(d / a), at its receiver.

    | symbol | variable |
    |---|---|
    | a = 0.8854 * 0.529 A / (Z_u^0.23 + Z_v^0.23) | `screening_length` |
    | S | `screening` |
    | e^2 / (4 pi eps0) | `coulomb_constant` |
    """

    def __init__(self, coulomb_constant: float) -> None:
        super().__init__()
        self.coulomb_constant = coulomb_constant
        self.length_scale = 0.8854 * 0.529
        self.charge_exponent = 0.23
        weights = torch.tensor([0.1818, 0.5099, 0.2802, 0.02817], dtype=torch.float64)
        rates = torch.tensor([3.2, 0.9423, 0.4028, 0.2016], dtype=torch.float64)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("rates", rates, persistent=False)
        self.weights: Tensor
        self.rates: Tensor

    def forward(
        self,
        atomic_numbers: Tensor,
        senders: Tensor,
        receivers: Tensor,
        edge_lengths: Tensor,
        envelope: Tensor,
    ) -> Tensor:
        """Sums the repulsion of each atom.

        Args:
            atomic_numbers: `[n_atoms]`.
            senders: `[n_edges]`.
            receivers: `[n_edges]`.
            edge_lengths: `[n_edges]`, A.
            envelope: `[n_edges]`.

        Returns:
            `[n_atoms]` in the unit of `coulomb_constant` over A.
        """
        charges = atomic_numbers.to(edge_lengths.dtype)
        powers = charges**self.charge_exponent
        screening_length = self.length_scale / (powers[senders] + powers[receivers])
        reduced = (edge_lengths / screening_length).unsqueeze(1)  # [n_edges, 1]
        terms = torch.exp(-self.rates.to(reduced.dtype) * reduced)  # [n_edges, 4]
        screening = terms @ self.weights.to(reduced.dtype)
        pair = self.coulomb_constant * charges[senders] * charges[receivers] / edge_lengths
        half = 0.5 * pair * screening * envelope
        return torch.zeros_like(charges).index_add(0, receivers, half)
