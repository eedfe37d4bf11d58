"""Attention over the edges that arrive at an atom, as one operator: logits, softmax, sum.

`trip_mm::attention` computes z_v = sum_u a_uv value_uv with a_uv = phi exp(l_uv) / sum phi exp(l)
(TrIP thesis Eq. 8 to 10, 19), reading values and keys where the convolution left them.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from trip_mm.model.kernels import threads
from trip_mm.model.kernels.vector import flush_denormals, restore_denormals


class HeadTables(NamedTuple):
    """Where the entries of each head stand; entries of one head follow each other.

    `value` and `key` point into a row of messages, `target` and `query` into a row of the packed
    sums `[C, (l_max + 1)**2]` and queries `[C, (l_in_max + 1)**2]`.
    """

    n_heads: int
    n_messages: int
    n_targets: int
    n_queries: int
    scale: float
    value: NDArray[np.int64]
    target: NDArray[np.int64]
    key: NDArray[np.int64]
    query: NDArray[np.int64]


@functools.cache
def head_tables(n_heads: int, n_channels: int, l_in_max: int, l_max: int) -> HeadTables:
    """Tables of a block whose values and keys have `n_channels` channels each."""
    values: list[tuple[int, int, int]] = []
    keys: list[tuple[int, int, int]] = []
    start = 0
    for l in range(l_max + 1):
        size = 2 * l + 1
        for channel in range(n_channels):
            head = channel // (n_channels // n_heads)
            for m in range(size):
                at = start + channel * size + m
                values.append((head, at, channel * (l_max + 1) ** 2 + l * l + m))
                if l <= l_in_max:
                    packed = channel * (l_in_max + 1) ** 2 + l * l + m
                    keys.append((head, at + n_channels * size, packed))
        start += n_channels * size * (2 if l <= l_in_max else 1)
    columns = [np.asarray(c, np.int64) for c in zip(*sorted(values), strict=True)]
    key_columns = [np.asarray(c, np.int64) for c in zip(*sorted(keys), strict=True)]
    return HeadTables(
        n_heads, start, len(values), len(keys), 1.0 / math.sqrt(len(keys)),
        columns[1], columns[2], key_columns[1], key_columns[2],
    )  # fmt: skip


@njit(nogil=True, fastmath={"contract", "reassoc"}, cache=True)
def _forward(
    tables: HeadTables, first: int, last: int, order: Any, bounds: Any, messages: Any, query: Any,
    log_envelope: Any, weights: Any, sums: Any,
) -> None:  # fmt: skip
    """Attention weights `[n_edges, n_heads]` and sums `[n_atoms, n_targets]` of some receivers."""
    floating_point = flush_denormals()
    n_heads = tables.n_heads
    n_key, n_value = tables.n_queries // n_heads, tables.n_targets // n_heads
    scale = messages.dtype.type(tables.scale)
    for atom in range(first, last):
        q0, t0 = atom * tables.n_queries, atom * tables.n_targets
        for head in range(n_heads):
            largest = messages.dtype.type(-np.inf)
            for i in range(bounds[atom], bounds[atom + 1]):
                m0 = order[i] * tables.n_messages
                logit = messages.dtype.type(0.0)
                for j in range(head * n_key, (head + 1) * n_key):
                    logit += messages[m0 + tables.key[j]] * query[q0 + tables.query[j]]
                logit = logit * scale + log_envelope[order[i]]
                weights[order[i] * n_heads + head] = logit
                largest = max(largest, logit)
            total = messages.dtype.type(0.0)
            for i in range(bounds[atom], bounds[atom + 1]):
                at = order[i] * n_heads + head
                weights[at] = math.exp(weights[at] - largest)
                total += weights[at]
            for i in range(bounds[atom], bounds[atom + 1]):
                m0 = order[i] * tables.n_messages
                weight = weights[order[i] * n_heads + head] / total
                weights[order[i] * n_heads + head] = weight
                for j in range(head * n_value, (head + 1) * n_value):
                    sums[t0 + tables.target[j]] += weight * messages[m0 + tables.value[j]]
    restore_denormals(floating_point)


@njit(nogil=True, fastmath={"contract", "reassoc"}, cache=True)
def _backward(
    tables: HeadTables, first: int, last: int, order: Any, bounds: Any, messages: Any, query: Any,
    weights: Any, d_sums: Any, d_weights: Any, d_messages: Any, d_query: Any, d_log_envelope: Any,
) -> None:  # fmt: skip
    """Gradients of `_forward`; `d_weights` is scratch, the last two outputs start at 0."""
    floating_point = flush_denormals()
    n_heads = tables.n_heads
    n_key, n_value = tables.n_queries // n_heads, tables.n_targets // n_heads
    scale = messages.dtype.type(tables.scale)
    for atom in range(first, last):
        q0, t0 = atom * tables.n_queries, atom * tables.n_targets
        for head in range(n_heads):
            mean = messages.dtype.type(0.0)
            for i in range(bounds[atom], bounds[atom + 1]):
                m0, at = order[i] * tables.n_messages, order[i] * n_heads + head
                d_weight = messages.dtype.type(0.0)
                weight = weights[at]
                for j in range(head * n_value, (head + 1) * n_value):
                    d_sum = d_sums[t0 + tables.target[j]]
                    d_weight += messages[m0 + tables.value[j]] * d_sum
                    d_messages[m0 + tables.value[j]] = weight * d_sum
                d_weights[at] = d_weight
                mean += weight * d_weight
            for i in range(bounds[atom], bounds[atom + 1]):
                m0, at = order[i] * tables.n_messages, order[i] * n_heads + head
                d_logit = weights[at] * (d_weights[at] - mean)
                d_log_envelope[order[i]] += d_logit
                d_logit *= scale
                for j in range(head * n_key, (head + 1) * n_key):
                    k, q = m0 + tables.key[j], q0 + tables.query[j]
                    d_query[q] += d_logit * messages[k]
                    d_messages[k] = d_logit * query[q]
    restore_denormals(floating_point)


@torch.library.custom_op("trip_mm::attention", mutates_args=())
def attention(
    messages: Tensor,
    query: Tensor,
    log_envelope: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
) -> tuple[Tensor, Tensor]:
    """Sums the values that arrive at each atom, weighted by attention.

    Args:
        messages: values, then keys, per degree, `[n_edges, n_messages]`.
        query: `[n_atoms, C, (l_in_max + 1)**2]`.
        log_envelope: `[n_edges]`.
        order: edges sorted by receiver, `[n_edges]`.
        bounds: where the edges of each receiver start, `[n_atoms + 1]`.
        spec: of `head_tables`.

    Returns:
        sums `[n_atoms, C, (l_max + 1)**2]`, and the weights `[n_edges, n_heads]`, which carry no
        gradient.
    """
    tables = head_tables(*spec)
    sums = messages.new_zeros(query.shape[0], spec[1], (spec[3] + 1) ** 2)
    weights = messages.new_empty(messages.shape[0], tables.n_heads)
    inputs = [threads.flat(t) for t in (messages, query, log_envelope)]
    edges, starts = threads.flat(order), threads.flat(bounds)
    out = threads.flat(weights), threads.flat(sums)

    def work(worker: int, first: int, last: int) -> None:
        _forward(tables, first, last, edges, starts, *inputs, *out)

    threads.run(work, starts)
    return sums, weights


@torch.library.custom_op("trip_mm::attention_backward", mutates_args=())
def attention_backward(
    gradient: Tensor,
    messages: Tensor,
    query: Tensor,
    weights: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the gradients of messages, query and log_envelope."""
    tables = head_tables(*spec)
    outputs = (
        torch.empty_like(messages, memory_format=torch.contiguous_format),
        torch.zeros_like(query, memory_format=torch.contiguous_format),
        messages.new_zeros(messages.shape[0]),
    )
    scratch = threads.flat(torch.empty_like(weights))
    inputs = [threads.flat(t) for t in (messages, query, weights, gradient)]
    edges, starts = threads.flat(order), threads.flat(bounds)
    out = [threads.flat(t) for t in outputs]

    def work(worker: int, first: int, last: int) -> None:
        _backward(tables, first, last, edges, starts, *inputs, scratch, *out)

    threads.run(work, starts)
    return outputs


def plain_attention(
    messages: Tensor,
    query: Tensor,
    log_envelope: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
) -> Tensor:
    """As `attention`, in PyTorch, without the weights: differentiable any number of times."""
    tables = head_tables(*spec)
    n_edges, n_atoms, n_heads = len(messages), len(query), tables.n_heads
    receivers = torch.empty_like(order)
    receivers[order] = torch.repeat_interleave(torch.arange(n_atoms), bounds[1:] - bounds[:-1])
    asked = query.flatten(1).index_select(1, torch.as_tensor(tables.query))
    keys = messages.index_select(1, torch.as_tensor(tables.key))
    products = (keys * asked.index_select(0, receivers)).reshape(n_edges, n_heads, -1)
    logits = products.sum(dim=2) * tables.scale + log_envelope.unsqueeze(1)
    largest = logits.new_full((n_atoms, n_heads), -math.inf).scatter_reduce(
        0, receivers.unsqueeze(1).expand(-1, n_heads), logits.detach(), "amax"
    )
    weights = torch.exp(logits - largest.index_select(0, receivers))
    norms = torch.zeros_like(largest).index_add(0, receivers, weights)
    weights = weights / norms.index_select(0, receivers)
    values = messages.index_select(1, torch.as_tensor(tables.value))
    weighted = values.reshape(n_edges, n_heads, -1) * weights.unsqueeze(2)
    sums = messages.new_zeros(n_atoms, tables.n_targets)
    sums = sums.index_add(0, receivers, weighted.flatten(1))
    back = torch.as_tensor(np.argsort(tables.target))
    return sums.index_select(1, back).reshape(n_atoms, spec[1], -1)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.spec = inputs[5]


def _gradient(ctx: Any, gradient: Tensor, unused: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient by the kernels, or in PyTorch where it will be differentiated again."""
    messages, query, log_envelope, order, bounds, weights = ctx.saved_tensors
    if torch.is_grad_enabled():
        needed = ctx.needs_input_grad[:3]
        # Aliases: the gradient must not follow the history that the inputs share.
        inputs = [t.view_as(t) for t in (messages, query, log_envelope)]
        wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
        sums = plain_attention(inputs[0], inputs[1], inputs[2], order, bounds, ctx.spec)
        found = iter(torch.autograd.grad(sums, wanted, gradient, create_graph=True))
        return (*(next(found) if need else None for need in needed), None, None, None)
    gradients = attention_backward(gradient, messages, query, weights, order, bounds, ctx.spec)
    return (*gradients, None, None, None)


attention.register_autograd(_gradient, setup_context=_setup_context)
