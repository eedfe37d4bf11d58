"""The Transformer Interatomic Potential: configuration and network.

Source: TrIP thesis (Hedelius 2024), chapters 2 to 4. `numerics="thesis"` follows its equations;
`numerics="published"` computes what the program published with it computes.
"""

import torch
from torch import Tensor, nn

from trip_mm.model.attention import EnvelopeSoftmax, MessageAttention, PublishedAttention
from trip_mm.model.config import TripConfig
from trip_mm.model.layers import (
    AttentionBlock,
    ClampedChannelNorm,
    Convolution,
    ConvolutionBlock,
    FeatureNorm,
    SmoothChannelNorm,
)
from trip_mm.model.radial import BesselFeatures, BumpEnvelope, DistanceFeatures
from trip_mm.model.so3 import KernelBasis
from trip_mm.model.zbl import ZBLRepulsion
from trip_mm.units import COULOMB_CONSTANT, HARTREE_TO_EV

__all__ = ["TripConfig", "TripModel"]


class TripModel(nn.Module):
    """Network from a graph of atoms to the interaction energy of each atom.

    The readout's unit is `energy_scale` (eV). With `lone_atoms="exact"` an atom without
    neighbours has the energy 0 by construction: the readout subtracts its value for the isolated
    atom, and the mean binding energy of each element comes in with 1 - exp(-sum_w phi).
    """

    def __init__(self, config: TripConfig) -> None:
        super().__init__()
        self.config = config
        C, L = config.n_channels, config.l_max
        published = config.numerics == "published"
        offset = 1.0 if published else config.envelope_k
        self.envelope = BumpEnvelope(config.cutoff, config.envelope_k, offset)
        if config.edge_features == "bessel":
            self.edge_embedding: nn.Module = BesselFeatures(C, config.cutoff)
        else:
            self.edge_embedding = DistanceFeatures(C, C - 1 if published else 0)
        self.basis = KernelBasis(L)
        self.bare_scalar_path = published and L > 0
        self.embedding = nn.Embedding(len(config.elements), C)
        self.blocks = nn.ModuleList(
            _interaction_block(config, 0 if i == 0 else L) for i in range(config.n_layers)
        )
        floor = (ClampedChannelNorm if published else SmoothChannelNorm)(config.norm_floor)
        self.norms = nn.ModuleList(FeatureNorm(L, C, floor) for _ in range(config.n_layers))
        self.last_convolution = Convolution(L, C, [config.n_scalars], C, config.radial_hidden, 1)
        self.self_interaction = nn.Linear(C, config.n_scalars, bias=False)
        self.self_interaction_per_edge = published
        self.readout = nn.Sequential(
            nn.Linear(C + config.n_scalars, config.readout_hidden),
            nn.SiLU(),
            nn.Linear(config.readout_hidden, config.readout_hidden),
            nn.SiLU(),
            nn.Linear(config.readout_hidden, 1),
        )
        coulomb = 0.529 * HARTREE_TO_EV if published else COULOMB_CONSTANT
        self.repulsion = ZBLRepulsion(coulomb if config.repulsion == "zbl" else 0.0)
        self._register_statistics()

    def _register_statistics(self) -> None:
        """Registers what a checkpoint carries besides the weights, and the table of elements."""
        elements = torch.tensor(self.config.elements, dtype=torch.int64)
        # A row that is not there for every other element: what is looked up by it fails.
        rows = torch.full((119,), len(elements), dtype=torch.int64)
        rows[elements] = torch.arange(len(elements))
        lone = elements if self.config.lone_atoms == "exact" else elements[:0]
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))
        binding = torch.zeros(len(elements), dtype=torch.float64)
        self.register_buffer("binding_energies", binding)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("lone_numbers", lone, persistent=False)
        self.energy_scale: Tensor
        self.binding_energies: Tensor
        self.rows: Tensor
        self.lone_numbers: Tensor

    def forward(
        self, atomic_numbers: Tensor, senders: Tensor, receivers: Tensor, edge_vectors: Tensor
    ) -> Tensor:
        """Computes the interaction energy of each atom, self energies not included.

        Args:
            atomic_numbers: int64 `[n_atoms]`, each one of `config.elements`.
            senders: int64 `[n_edges]`.
            receivers: int64 `[n_edges]`.
            edge_vectors: sender to receiver, `[n_edges, 3]`, A, none of length 0.

        Returns:
            `[n_atoms]`, eV.
        """
        n_atoms = atomic_numbers.shape[0]
        rows = self.rows.index_select(0, atomic_numbers)
        edge_lengths = torch.linalg.norm(edge_vectors, dim=-1)
        envelopes = self.envelope(edge_lengths)
        edge_features = self.edge_embedding(edge_lengths)

        # Isolated atoms, one of each element, ride along as extra nodes without edges.
        all_rows = torch.cat([rows, self.rows.index_select(0, self.lone_numbers)])
        embedded = self.embedding(all_rows)
        directions = edge_vectors / edge_lengths.unsqueeze(1)
        angular = self.basis(directions, envelopes[0], senders, embedded.shape[0])
        ends = (senders, receivers)
        scalars = self.atomic_scalars(embedded, edge_features, ends, angular, envelopes)
        readout: Tensor = self.readout(torch.cat([embedded, scalars], dim=1)).squeeze(1)

        repulsion = self.repulsion(atomic_numbers, senders, receivers, edge_lengths, envelopes[0])
        energies: Tensor = readout[:n_atoms] * self.energy_scale.to(readout.dtype) + repulsion
        if self.lone_numbers.shape[0] > 0:
            lone = readout[n_atoms:].index_select(0, rows) * self.energy_scale.to(readout.dtype)
            crowding = torch.zeros_like(energies).index_add(0, receivers, envelopes[0])
            binding = self.binding_energies.to(readout.dtype).index_select(0, rows)
            energies = energies - lone - binding * torch.expm1(-crowding)
        return energies

    def atomic_scalars(
        self,
        embedded: Tensor,
        edge_features: Tensor,
        ends: tuple[Tensor, Tensor],
        angular: list[Tensor],
        envelopes: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Passes messages and returns `[n_atoms, n_scalars]`; arguments as in the blocks."""
        senders, receivers = ends
        first = self.basis.with_bare_scalars(angular) if self.bare_scalar_path else angular
        features = embedded.unsqueeze(2)  # [n_atoms, C, 1]
        shifts = torch.zeros_like(embedded)
        for index, (block, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            features = block(
                features, edge_features, shifts, ends, first if index == 0 else angular, envelopes
            )
            shifts = shifts + features[:, :, 0]  # Eq. 21
            features = norm(features)
        message = self.last_convolution(edge_features, shifts, features, senders, angular)
        own: Tensor = self.self_interaction(features[:, :, 0])
        total = torch.zeros_like(own)
        if self.self_interaction_per_edge:
            return total.index_add(0, receivers, message + own.index_select(0, receivers))
        return total.index_add(0, receivers, message) + own


def _interaction_block(config: TripConfig, l_in_max: int) -> nn.Module:
    """Builds one interaction block for features up to degree `l_in_max`."""
    C, L = config.n_channels, config.l_max
    n_messages = C // config.channels_div
    attention = config.interaction == "attention"
    n_out = [n_messages * (2 if attention and l <= l_in_max else 1) for l in range(L + 1)]
    per_degree = L > 0 and (l_in_max == 0 or config.radial_networks == "per-degree")
    convolution = Convolution(
        l_in_max, C, n_out, C, config.radial_hidden, L + 1 if per_degree else 1
    )
    if not attention:
        return ConvolutionBlock(l_in_max, L, C, n_messages, convolution)
    weights: nn.Module = EnvelopeSoftmax() if config.numerics == "thesis" else PublishedAttention()
    heads = MessageAttention(l_in_max, L, n_messages, config.n_heads, weights)
    return AttentionBlock(C, convolution, heads)
