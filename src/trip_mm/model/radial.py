"""Functions of the edge length: the bump envelope, edge features and radial networks."""

import math

import torch
from torch import Tensor, nn


class BumpEnvelope(nn.Module):
    """Bump-function cutoff phi(x) = exp(offset - k / (1 - x^2)), x = d / cutoff (thesis Eq. 13).

    Smooth to all orders. The thesis has offset = k, so that phi(0) = 1; the published program
    has offset = 1.
    """

    def __init__(self, cutoff: float, k: float, offset: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.k = k
        self.offset = offset

    def forward(self, edge_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluates the envelope and its logarithm.

        Args:
            edge_lengths: `[n_edges]`, A.

        Returns:
            phi `[n_edges]`, 0 at and beyond the cutoff, and log phi `[n_edges]`, there -1e9.
        """
        u = 1.0 - (edge_lengths / self.cutoff) ** 2
        inside = u > 0.0
        log_envelope = self.offset - self.k / torch.where(inside, u, torch.ones_like(u))
        envelope = torch.where(inside, torch.exp(log_envelope), torch.zeros_like(u))
        return envelope, torch.where(inside, log_envelope, torch.full_like(u, -1e9))


class DistanceFeatures(nn.Module):
    """Edge features that hold the distance in one channel and zeros elsewhere (thesis, Eq. 21)."""

    def __init__(self, n_channels: int, channel: int) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.channel = channel

    def forward(self, edge_lengths: Tensor) -> Tensor:
        """Returns `[n_edges, n_channels]` from lengths `[n_edges]` in A."""
        d = edge_lengths.unsqueeze(1)
        before = torch.zeros_like(d).expand(-1, self.channel)
        after = torch.zeros_like(d).expand(-1, self.n_channels - self.channel - 1)
        return torch.cat([before, d, after], dim=1)


class BesselFeatures(nn.Module):
    """Edge features b_n(d) = sqrt(2 / r_c) sin(n pi d / r_c) / d, n = 1 ... n_channels."""

    def __init__(self, n_channels: int, cutoff: float) -> None:
        super().__init__()
        self.prefactor = math.sqrt(2.0 / cutoff)
        frequencies = torch.arange(1, n_channels + 1, dtype=torch.float64) * (math.pi / cutoff)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(self, edge_lengths: Tensor) -> Tensor:
        """Returns `[n_edges, n_channels]` from lengths `[n_edges]` in A."""
        d = edge_lengths.unsqueeze(1)
        return self.prefactor * torch.sin(self.frequencies.to(d.dtype) * d) / d


class RadialTrunk(nn.Module):
    """Hidden layers of a radial network: Linear, LayerNorm, SiLU, twice."""

    def __init__(self, n_edge_features: int, n_hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_edge_features, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.SiLU(),
        )

    def forward(self, edge_features: Tensor) -> Tensor:
        """Maps `[n_edges, n_edge_features]` to `[n_edges, n_hidden]`."""
        hidden: Tensor = self.net(edge_features)
        return hidden
