"""Attention: weights of the edges that arrive at an atom, and the weighted sum of their values."""

import math

import torch
from torch import Tensor, nn


def unpack_messages(messages: Tensor, n_channels: list[int]) -> list[Tensor]:
    """Splits messages `[n_edges, n_messages]` into `[n_edges, C_out, 2 l + 1]` per degree."""
    degrees: list[Tensor] = []
    start = 0
    for l, n in enumerate(n_channels):
        size = n * (2 * l + 1)
        degree = messages[:, start : start + size]
        degrees.append(degree.reshape(messages.shape[0], n, 2 * l + 1))
        start += size
    return degrees


def sum_messages(messages: Tensor, receivers: Tensor, n_atoms: int) -> Tensor:
    """Sums messages `[n_edges, C, components]` of each receiver, `[n_atoms, C, components]`."""
    total = torch.zeros(n_atoms, messages.shape[1], messages.shape[2], dtype=messages.dtype)
    return total.to(messages.device).index_add(0, receivers, messages)


def receiver_maximum(logits: Tensor, receivers: Tensor, n_atoms: int) -> Tensor:
    """Largest logit among the edges that arrive at each atom, per head, `[n_atoms, n_heads]`.

    Atoms without neighbours get -inf. No gradient.
    """
    start = torch.full((n_atoms, logits.shape[1]), -math.inf, dtype=logits.dtype).to(logits.device)
    index = receivers.unsqueeze(1).expand(-1, logits.shape[1])
    return start.scatter_reduce(0, index, logits.detach(), "amax")


class EnvelopeSoftmax(nn.Module):
    """Attention weights phi exp(l) / sum phi exp(l) over the incoming edges (thesis Eq. 19).

    Evaluated as the softmax of l + log phi: its sum is at least 1 wherever there is an edge, so
    nothing needs a floor, and the weight of a lone neighbour stays exactly 1 up to the cutoff.
    """

    def forward(
        self,
        logits: Tensor,
        receivers: Tensor,
        n_atoms: int,
        envelope: Tensor,
        log_envelope: Tensor,
    ) -> Tensor:
        """Returns the weights `[n_edges, n_heads]` of logits of the same shape."""
        shifted = logits + log_envelope.unsqueeze(1)
        maximum = receiver_maximum(shifted, receivers, n_atoms)
        weights = torch.exp(shifted - maximum.index_select(0, receivers))
        total = torch.zeros_like(maximum).index_add(0, receivers, weights)
        return weights / total.index_select(0, receivers)


class PublishedAttention(nn.Module):
    """Attention weights phi exp(l - M) of the published program: not normalised.

    M is the largest logit at the receiver, differentiated through the edge that attains it.
    """

    def forward(
        self,
        logits: Tensor,
        receivers: Tensor,
        n_atoms: int,
        envelope: Tensor,
        log_envelope: Tensor,
    ) -> Tensor:
        """Returns the weights `[n_edges, n_heads]` of logits of the same shape."""
        n_edges, n_heads = logits.shape
        maximum = receiver_maximum(logits, receivers, n_atoms)
        attained = logits.detach() == maximum.index_select(0, receivers)
        edges = torch.arange(n_edges, device=logits.device).unsqueeze(1).expand(-1, n_heads)
        candidates = torch.where(attained, edges, torch.full_like(edges, n_edges))
        index = receivers.unsqueeze(1).expand(-1, n_heads)
        first = torch.full((n_atoms, n_heads), n_edges, dtype=torch.int64, device=logits.device)
        first = first.scatter_reduce(0, index, candidates, "amin")
        shift = logits.gather(0, first.index_select(0, receivers))
        return envelope.unsqueeze(1) * torch.exp(logits - shift)


class MessageAttention(nn.Module):
    """Weights the values that arrive at each atom by its query and their keys, and sums them.

    Heads are consecutive groups of channels, all degrees together.
    """

    def __init__(
        self, l_in_max: int, l_max: int, n_channels: int, n_heads: int, weights: nn.Module
    ) -> None:
        """Sets up the attention.

        Args:
            l_in_max: largest degree of keys and queries.
            l_max: largest degree of the values.
            n_channels: channels of values, and of keys and queries.
            n_heads: divides the channels.
            weights: `EnvelopeSoftmax` or `PublishedAttention`.
        """
        super().__init__()
        self.l_in_max = l_in_max
        self.l_max = l_max
        self.n_channels = n_channels
        self.n_heads = n_heads
        self.n_message_channels = [
            n_channels * (2 if l <= l_in_max else 1) for l in range(l_max + 1)
        ]
        self.logit_scale = 1.0 / math.sqrt(n_channels * (l_in_max + 1) ** 2)
        self.weights = weights

    def forward(
        self,
        messages: Tensor,
        query: Tensor,
        receivers: Tensor,
        envelopes: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Sums the weighted values.

        Args:
            messages: of `Convolution`, values before keys in each degree.
            query: `[n_atoms, C, (l_in_max + 1)**2]`.
            receivers: `[n_edges]`.
            envelopes: phi and log phi, `[n_edges]` each.

        Returns:
            `[n_atoms, C, (l_max + 1)**2]`.
        """
        n_atoms, n_edges, n_channels = query.shape[0], messages.shape[0], self.n_channels
        values: list[Tensor] = []
        keys: list[Tensor] = []
        for degree, message in enumerate(unpack_messages(messages, self.n_message_channels)):
            values.append(message[:, :n_channels])
            if degree <= self.l_in_max:
                keys.append(message[:, n_channels:])
        asked = query.index_select(0, receivers)
        products = (asked * torch.cat(keys, dim=2)).reshape(
            n_edges, self.n_heads, n_channels // self.n_heads * query.shape[2]
        )
        logits = products.sum(dim=2) * self.logit_scale  # [n_edges, n_heads]
        weights = self.weights(logits, receivers, n_atoms, envelopes[0], envelopes[1])
        packed = torch.cat(values, dim=2)  # [n_edges, C, (l_max + 1)**2]
        per_channel = weights.repeat_interleave(n_channels // self.n_heads, dim=1)
        return sum_messages(packed * per_channel.unsqueeze(2), receivers, n_atoms)
