"""The network with compiled kernels in place of its convolutions.

`fused_model` returns a twin of a `TripModel` that shares its parameters. It computes the same
numbers, on CPUs and on CUDA devices, in eager mode or scripted.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

import trip_mm.model.kernels.attention
import trip_mm.model.kernels.cuda
import trip_mm.model.kernels.harmonics
import trip_mm.model.kernels.operators  # noqa: F401  (all register torch.ops.trip_mm)
from trip_mm.model.attention import EnvelopeSoftmax, MessageAttention
from trip_mm.model.kernels.plan import round_up
from trip_mm.model.kernels.vector import LANES
from trip_mm.model.layers import (
    AttentionBlock,
    Convolution,
    ConvolutionBlock,
)
from trip_mm.model.radial import RadialTrunk
from trip_mm.model.so3 import KernelBasis
from trip_mm.model.trip import TripModel
from trip_mm.model.twin import twin_of


class HarmonicsBasis(nn.Module):
    """What the compiled convolutions need of the edges: harmonics, and edges sorted by sender."""

    def __init__(self, basis: KernelBasis) -> None:
        super().__init__()
        self.degree = 2 * basis.l_max

    def forward(
        self, directions: Tensor, envelope: Tensor, senders: Tensor, n_atoms: int
    ) -> list[Tensor]:
        """Returns harmonics times envelope, order, bounds; arguments as of `KernelBasis`."""
        harmonics = torch.ops.trip_mm.harmonics(directions, envelope, self.degree)
        order, bounds = torch.ops.trip_mm.sort_edges(senders, n_atoms)
        return [harmonics, order, bounds]

    @torch.jit.export
    def with_bare_scalars(self, angular: list[Tensor]) -> list[Tensor]:
        """Returns the tables with 1 in place of phi Y_00 (for scalar inputs)."""
        harmonics = angular[0]
        bare = torch.cat([torch.ones_like(harmonics[:, :1]), harmonics[:, 1:]], dim=1)
        return [bare, angular[1], angular[2]]


class FusedAttention(nn.Module):
    """`MessageAttention` with `EnvelopeSoftmax`, by the compiled kernel."""

    def __init__(self, attention: MessageAttention) -> None:
        super().__init__()
        self.spec = [
            attention.n_heads,
            attention.n_channels,
            attention.l_in_max,
            attention.l_max,
        ]

    def forward(
        self,
        messages: Tensor,
        query: Tensor,
        receivers: Tensor,
        envelopes: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Sums the weighted values; see `MessageAttention.forward`."""
        order, bounds = torch.ops.trip_mm.sort_edges(receivers, query.shape[0])
        sums: Tensor = torch.ops.trip_mm.attention(
            messages, query, envelopes[1], order, bounds, self.spec
        )[0]
        return sums


class FusedConvolution(nn.Module):
    """`Convolution` by the compiled kernels; the same parameters under the same names."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        self.trunks: Any = convolution.trunks
        self.weights: Any = convolution.weights
        first = cast(RadialTrunk, convolution.trunks[0]).net[0]
        assert isinstance(first, nn.Linear)
        self.padding = round_up(first.out_features, LANES) - first.out_features
        self.head = [
            convolution.l_in_max,
            convolution.n_channels_in,
            first.in_features,
            first.out_features,
            len(convolution.trunks),
        ]
        self.n_channels_out = list(convolution.n_channels_out)

    def parameter_vector(self) -> Tensor:
        """Returns all parameters in the kernels' layout; differentiable."""
        parts: list[Tensor] = []
        for trunk in self.trunks:
            net = trunk.net
            parts += [net[0].weight.flatten(), net[0].bias, net[1].weight, net[1].bias]
            parts += [net[3].weight.flatten(), net[3].bias, net[4].weight, net[4].bias]
        for l_out, weight in enumerate(self.weights):
            padded = nn.functional.pad(weight.weight, [0, self.padding])
            shape = [self.n_channels_out[l_out], self.head[1], -1, padded.shape[1]]
            parts.append(padded.reshape(shape).permute(2, 1, 0, 3).flatten())
        return torch.cat(parts)

    def forward(
        self,
        edge_features: Tensor,
        shifts: Tensor,
        features: Tensor,
        senders: Tensor,
        angular: list[Tensor],
    ) -> Tensor:
        """Computes the messages; see `Convolution.forward`."""
        harmonics, order, bounds = angular[0], angular[1], angular[2]
        spec = self.head + [harmonics.shape[1]] + self.n_channels_out  # noqa: RUF005 (scripted)
        messages: Tensor = torch.ops.trip_mm.convolution(
            edge_features, shifts, features, harmonics, self.parameter_vector(), order, bounds, spec
        )
        return messages


def fused_model(model: TripModel) -> TripModel:
    """Returns a twin of the network that computes with the compiled kernels.

    Parameters and buffers are shared: training or loading one changes the other.

    Args:
        model: on a device that has kernels, see `kernels.devices`.
    """
    twin, blocks = twin_of(model), twin_of(model.blocks)
    for i, block in enumerate(model.blocks):
        assert isinstance(block, AttentionBlock | ConvolutionBlock)
        twin_block = twin_of(block)
        twin_block.add_module("convolution", FusedConvolution(cast(Convolution, block.convolution)))
        attention = getattr(block, "attention", None)
        if attention is not None and isinstance(attention.weights, EnvelopeSoftmax):
            twin_block.add_module("attention", FusedAttention(attention))
        blocks[i] = twin_block
    twin.add_module("blocks", blocks)
    twin.add_module("basis", HarmonicsBasis(model.basis))
    twin.add_module("last_convolution", FusedConvolution(model.last_convolution))
    return twin
