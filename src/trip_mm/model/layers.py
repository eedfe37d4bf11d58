"""Equivariant layers: convolution, linear maps per degree, attention, norm.

Features are packed `[n_atoms, n_channels, (l_max + 1)**2]`, see `so3`. Messages flow from sender
to receiver.
"""

import torch
from torch import Tensor, nn

from trip_mm.model.attention import MessageAttention, sum_messages, unpack_messages
from trip_mm.model.radial import RadialTrunk
from trip_mm.model.so3 import n_paths


class Product(nn.Module):
    """Batched matrix product; a module, so that a twin can compute it in another precision."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Maps `[n, i, k]` and `[n, k, j]` to `[n, i, j]`."""
        return torch.bmm(left, right)


class Convolution(nn.Module):
    """Weight kernel times sender features on every edge (TrIP thesis Eq. 4 to 6, 18).

    The radial weights are kept per output degree, `[C_out, C_in, n_paths]` with the paths in
    order of l_in, then J.
    """

    def __init__(
        self,
        l_in_max: int,
        n_channels_in: int,
        n_channels_out: list[int],
        n_edge_features: int,
        n_hidden: int,
        n_radial_networks: int,
    ) -> None:
        """Sets up the radial networks.

        Args:
            l_in_max: largest input degree.
            n_channels_in: channels of every input degree.
            n_channels_out: channels of each output degree.
            n_edge_features: invariant channels of an edge.
            n_hidden: width of the radial networks.
            n_radial_networks: 1, or one for each output degree.
        """
        super().__init__()
        l_out_max = len(n_channels_out) - 1
        self.l_in_max = l_in_max
        self.n_channels_in = n_channels_in
        self.n_channels_out = n_channels_out
        self.paths = [
            [n_paths(lo, li) for li in range(l_in_max + 1)] for lo in range(l_out_max + 1)
        ]
        self.starts = [
            [
                sum(n_paths(lower, li) * (2 * lower + 1) for lower in range(lo))
                for li in range(l_in_max + 1)
            ]
            for lo in range(l_out_max + 1)
        ]
        self.product = Product()
        self.trunks = nn.ModuleList(
            RadialTrunk(n_edge_features, n_hidden) for _ in range(n_radial_networks)
        )
        self.weights = nn.ModuleList(
            nn.Linear(n_hidden, n_out * n_channels_in * sum(self.paths[lo]), bias=False)
            for lo, n_out in enumerate(n_channels_out)
        )

    def forward(
        self,
        edge_features: Tensor,
        shifts: Tensor,
        features: Tensor,
        senders: Tensor,
        angular: list[Tensor],
    ) -> Tensor:
        """Computes the messages of all edges.

        Args:
            edge_features: `[n_edges, n_edge_features]`.
            shifts: added to the features of every edge that leaves the atom,
                `[n_atoms, n_edge_features]`.
            features: `[n_atoms, C_in, (l_in_max + 1)**2]`.
            senders: `[n_edges]`.
            angular: of `KernelBasis`, per input degree `[n_edges, 2 l_in + 1, width]`.

        Returns:
            `[n_edges, n_messages]`: per output degree `[C_out, 2 l_out + 1]`, one after the other;
            see `attention.unpack_messages`.
        """
        n_edges, n_in = edge_features.shape[0], self.n_channels_in
        edge_features = edge_features + shifts.index_select(0, senders)
        sender_features = features.index_select(0, senders)
        hidden: list[Tensor] = []
        for trunk in self.trunks:
            hidden.append(trunk(edge_features))
        coupled: list[Tensor] = []
        for l_in in range(self.l_in_max + 1):
            degree = sender_features[:, :, l_in * l_in : (l_in + 1) * (l_in + 1)]
            coupled.append(self.product(degree, angular[l_in]))  # [n_edges, C_in, width]
        messages: list[Tensor] = []
        for l_out, weight in enumerate(self.weights):
            size = 2 * l_out + 1
            pieces: list[Tensor] = []
            for l_in in range(self.l_in_max + 1):
                n, start = self.paths[l_out][l_in], self.starts[l_out][l_in]
                piece = coupled[l_in][:, :, start : start + n * size]
                pieces.append(piece.reshape(n_edges, n_in, n, size))
            n_sum = n_in * sum(self.paths[l_out])
            terms = torch.cat(pieces, dim=2).reshape(n_edges, n_sum, size)
            radial = weight(hidden[l_out if len(hidden) > 1 else 0])
            radial = radial.reshape(n_edges, self.n_channels_out[l_out], n_sum)
            message: Tensor = self.product(radial, terms)  # [n_edges, C_out, 2 l_out + 1]
            messages.append(message.reshape(n_edges, self.n_channels_out[l_out] * size))
        return torch.cat(messages, dim=1)


class DegreeLinear(nn.Module):
    """One linear map of the channels per degree, without bias."""

    def __init__(self, n_channels_in: list[int], n_channels_out: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            nn.Linear(n_in, n_channels_out, bias=False) for n_in in n_channels_in
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps per degree `[n_atoms, C_in, 2 l + 1]` to packed `[n_atoms, C_out, ...]`."""
        mapped: list[Tensor] = []
        for degree, linear in enumerate(self.maps):
            mapped.append(linear(features[degree].transpose(1, 2)).transpose(1, 2))
        return torch.cat(mapped, dim=2)


def split_degrees(features: Tensor) -> list[Tensor]:
    """Splits packed features `[n, C, (l_max + 1)**2]` into one tensor per degree."""
    degrees: list[Tensor] = []
    l = 0
    while l * l < features.shape[2]:
        degrees.append(features[:, :, l * l : (l + 1) * (l + 1)])
        l += 1
    return degrees


class AttentionBlock(nn.Module):
    """Multi-head SE(3)-Transformer attention (TrIP thesis Eq. 8 to 10, 19).

    Keys and queries have the degrees of the input features.
    """

    def __init__(
        self, n_channels: int, convolution: nn.Module, attention: MessageAttention
    ) -> None:
        super().__init__()
        l_in_max, n_message_channels = attention.l_in_max, attention.n_channels
        self.convolution = convolution
        self.query = DegreeLinear([n_channels] * (l_in_max + 1), n_message_channels)
        self.attention = attention
        self.project = DegreeLinear(
            [
                n_message_channels + (n_channels if l <= l_in_max else 0)
                for l in range(attention.l_max + 1)
            ],
            n_channels,
        )

    def forward(
        self,
        features: Tensor,
        edge_features: Tensor,
        shifts: Tensor,
        ends: tuple[Tensor, Tensor],
        angular: list[Tensor],
        envelopes: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Computes new features `[n_atoms, C, (l_max + 1)**2]`.

        Args:
            features: `[n_atoms, C, (l_in_max + 1)**2]`.
            edge_features: `[n_edges, n_edge_features]`.
            shifts: see `Convolution.forward`.
            ends: senders and receivers, `[n_edges]` each.
            angular: of `KernelBasis`.
            envelopes: phi and log phi, `[n_edges]` each.
        """
        messages = self.convolution(edge_features, shifts, features, ends[0], angular)
        query = self.query(split_degrees(features))
        sums = self.attention(messages, query, ends[1], envelopes)
        output: Tensor = self.project(join_features(sums, features))
        return output


class ConvolutionBlock(nn.Module):
    """The ablation without attention: a Tensor Field layer of the same channels (thesis 4.2)."""

    def __init__(
        self,
        l_in_max: int,
        l_max: int,
        n_channels: int,
        n_message_channels: int,
        convolution: nn.Module,
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.n_message_channels = [n_message_channels] * (l_max + 1)
        self.project = DegreeLinear(
            [n_message_channels + (n_channels if l <= l_in_max else 0) for l in range(l_max + 1)],
            n_channels,
        )

    def forward(
        self,
        features: Tensor,
        edge_features: Tensor,
        shifts: Tensor,
        ends: tuple[Tensor, Tensor],
        angular: list[Tensor],
        envelopes: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Computes new features; arguments as in `AttentionBlock.forward`."""
        messages = self.convolution(edge_features, shifts, features, ends[0], angular)
        degrees = unpack_messages(messages, self.n_message_channels)
        sums = sum_messages(torch.cat(degrees, dim=2), ends[1], features.shape[0])
        output: Tensor = self.project(join_features(sums, features))
        return output


def join_features(sums: Tensor, features: Tensor) -> list[Tensor]:
    """Puts each atom's own features beside the sum of its messages.

    Args:
        sums: `[n_atoms, C_message, (l_max + 1)**2]`.
        features: `[n_atoms, C, (l_in_max + 1)**2]`.

    Returns:
        per degree `[n_atoms, C_message + C, 2 l + 1]`; without `C` above `l_in_max`.
    """
    joined = split_degrees(sums)
    for degree, feature in enumerate(split_degrees(features)):
        joined[degree] = torch.cat([joined[degree], feature], dim=1)
    return joined


class SmoothChannelNorm(nn.Module):
    """Length of each channel's vector, sqrt(|f|^2 + floor^2): smooth at the zero vector too."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor_squared = floor**2

    def forward(self, degree: Tensor) -> Tensor:
        """Maps `[n_atoms, C, 2 l + 1]` to `[n_atoms, C]`."""
        return torch.sqrt((degree * degree).sum(dim=2) + self.floor_squared)


class ClampedChannelNorm(nn.Module):
    """Length of each channel's vector, clamped from below, with zero slope there (published)."""

    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, degree: Tensor) -> Tensor:
        """Maps `[n_atoms, C, 2 l + 1]` to `[n_atoms, C]`."""
        squared = (degree * degree).sum(dim=2)
        above = squared > self.floor * self.floor
        length = torch.sqrt(torch.where(above, squared, torch.ones_like(squared)))
        return torch.where(above, length, torch.full_like(length, self.floor))


class FeatureNorm(nn.Module):
    """Divides each degree by the mean channel norm, times a learned weight (thesis Eq. 20)."""

    def __init__(self, l_max: int, n_channels: int, channel_norm: nn.Module) -> None:
        super().__init__()
        self.channel_norm = channel_norm
        self.weight = nn.Parameter(torch.ones(n_channels, l_max + 1))

    def forward(self, features: Tensor) -> Tensor:
        """Maps packed `[n_atoms, C, (l_max + 1)**2]` to the same shape."""
        normed: list[Tensor] = []
        for l, degree in enumerate(split_degrees(features)):
            scale = self.channel_norm(degree).mean(dim=1, keepdim=True)  # [n_atoms, 1]
            normed.append(degree * (self.weight[:, l] / scale).unsqueeze(2))
        return torch.cat(normed, dim=2)
