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
from trip_mm.model.kernels.denormals import flush_denormals, restore_denormals
from trip_mm.model.kernels.dense import atoms_of_edges
from trip_mm.model.kernels.tiles import edges_of, gather, scatter
from trip_mm.model.kernels.vector import (
    LANES,
    exp,
    fill,
    fma,
    load,
    maximum,
    splat,
    store,
    total,
)


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


@njit(nogil=True)
def _longest(first: int, last: int, bounds: Any) -> int:
    """Number of groups of LANES edges at the receiver that has most."""
    longest = 0
    for atom in range(first, last):
        longest = max(longest, bounds[atom + 1] - bounds[atom])
    return (longest + LANES - 1) // LANES


@njit(nogil=True)
def _logits(tables: HeadTables, own: Any, query: Any, q0: int, shift: Any, a: Any, a0: int) -> None:
    """Scaled products of keys and query plus `shift`, of every head, for LANES edges."""
    n_key = tables.n_queries // tables.n_heads
    scale = fill(own, tables.scale)
    for head in range(tables.n_heads):
        logit = fill(own, 0.0)
        for j in range(head * n_key, (head + 1) * n_key):
            key = load(own, tables.key[j] * LANES)
            logit = fma(key, splat(query, q0 + tables.query[j]), logit)
        store(a, a0 + head * LANES, fma(logit, scale, load(shift, 0)))


@njit(nogil=True)
def _softmax(a: Any, at: int, stride: int, n_groups: int, mask: Any) -> None:
    """Turns the logits of one head into weights; idle lanes, mask 0, get none."""
    top = load(a, at)
    for g in range(1, n_groups):
        top = maximum(top, load(a, at + g * stride))
    store(mask, n_groups * LANES, top)
    largest = mask[n_groups * LANES]
    for lane in range(1, LANES):
        largest = max(largest, mask[n_groups * LANES + lane])
    top = fill(a, np.float64(largest))
    norm = fill(a, 0.0)
    for g in range(n_groups):
        weight = exp(load(a, at + g * stride) - top) * load(mask, g * LANES)
        store(a, at + g * stride, weight)
        norm = norm + weight
    factor = fill(a, 1.0 / np.float64(total(norm)))
    for g in range(n_groups):
        store(a, at + g * stride, load(a, at + g * stride) * factor)


@njit(nogil=True, cache=True)
def _forward(
    tables: HeadTables, first: int, last: int, order: Any, bounds: Any, messages: Any, query: Any,
    log_envelope: Any, weights: Any, sums: Any,
) -> None:  # fmt: skip
    """Attention weights `[n_edges, n_heads]` and sums `[n_atoms, n_targets]` of some receivers.

    Edges lie in lanes: `tile` is `[group, message, lane]`, `a` is `[group, head, lane]`.
    """
    floating_point = flush_denormals()
    n_heads, n_m = tables.n_heads, tables.n_messages
    n_value = tables.n_targets // n_heads
    most = _longest(first, last, bounds)
    tile = np.empty(most * n_m * LANES, messages.dtype)
    a = np.empty(most * n_heads * LANES, messages.dtype)
    mask = np.empty((most + 1) * LANES, messages.dtype)
    shift = np.empty(LANES, messages.dtype)
    edges, rows = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for atom in range(first, last):
        begin, end = bounds[atom], bounds[atom + 1]
        n_groups = (end - begin + LANES - 1) // LANES
        q0, t0 = atom * tables.n_queries, atom * tables.n_targets
        for g in range(n_groups):
            count = edges_of(order, begin + g * LANES, end, edges)
            own = tile[g * n_m * LANES : (g + 1) * n_m * LANES]
            gather(messages, n_m, edges, rows, own)
            for lane in range(LANES):
                shift[lane] = log_envelope[edges[lane]]
                mask[g * LANES + lane] = 1.0 if lane < count else 0.0
            _logits(tables, own, query, q0, shift, a, g * n_heads * LANES)
        for head in range(n_heads if n_groups > 0 else 0):
            _softmax(a, head * LANES, n_heads * LANES, n_groups, mask)
            for j in range(head * n_value, (head + 1) * n_value):
                value = fill(a, 0.0)
                for g in range(n_groups):
                    weight = load(a, (g * n_heads + head) * LANES)
                    value = fma(weight, load(tile, (g * n_m + tables.value[j]) * LANES), value)
                sums[t0 + tables.target[j]] = total(value)
        for i in range(begin, end):
            at = (i - begin) // LANES * n_heads * LANES + (i - begin) % LANES
            for head in range(n_heads):
                weights[order[i] * n_heads + head] = a[at + head * LANES]
    restore_denormals(floating_point)


@njit(nogil=True)
def _message_gradients(
    tables: HeadTables, a: Any, d_logit: Any, a0: int, query: Any, q0: int, d_sums: Any, t0: int,
    out: Any,
) -> None:  # fmt: skip
    """Gradients of the values and keys of LANES edges, `[message, lane]`."""
    n_key, n_value = tables.n_queries // tables.n_heads, tables.n_targets // tables.n_heads
    for head in range(tables.n_heads):
        weight, slope = load(a, a0 + head * LANES), load(d_logit, a0 + head * LANES)
        for j in range(head * n_value, (head + 1) * n_value):
            store(out, tables.value[j] * LANES, weight * splat(d_sums, t0 + tables.target[j]))
        for j in range(head * n_key, (head + 1) * n_key):
            store(out, tables.key[j] * LANES, slope * splat(query, q0 + tables.query[j]))


@njit(nogil=True)
def _logit_gradients(
    tables: HeadTables, n_groups: int, tile: Any, a: Any, d_sums: Any, t0: int, d_logit: Any
) -> None:
    """Gradients of the logits of all edges of a receiver, in the layout of the weights `a`."""
    n_heads, n_m = tables.n_heads, tables.n_messages
    n_value = tables.n_targets // n_heads
    for head in range(n_heads):
        mean = fill(a, 0.0)
        for g in range(n_groups):
            d_weight = fill(a, 0.0)
            for j in range(head * n_value, (head + 1) * n_value):
                value = load(tile, (g * n_m + tables.value[j]) * LANES)
                d_weight = fma(value, splat(d_sums, t0 + tables.target[j]), d_weight)
            at = (g * n_heads + head) * LANES
            store(d_logit, at, d_weight)
            mean = fma(load(a, at), d_weight, mean)
        shared = fill(a, np.float64(total(mean)))
        for g in range(n_groups):
            at = (g * n_heads + head) * LANES
            store(d_logit, at, load(a, at) * (load(d_logit, at) - shared))


@njit(nogil=True, cache=True)
def _backward(
    tables: HeadTables, first: int, last: int, order: Any, bounds: Any, messages: Any, query: Any,
    weights: Any, d_sums: Any, d_messages: Any, d_query: Any, d_log_envelope: Any,
) -> None:  # fmt: skip
    """Gradients of `_forward`; those of atoms without edges are left alone."""
    floating_point = flush_denormals()
    n_heads, n_m = tables.n_heads, tables.n_messages
    most = _longest(first, last, bounds)
    tile = np.empty(most * n_m * LANES, messages.dtype)
    a = np.empty(most * n_heads * LANES, messages.dtype)
    d_logit = np.empty(most * n_heads * LANES, messages.dtype)
    out = np.empty(n_m * LANES, messages.dtype)
    edges, rows = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for atom in range(first, last):
        begin, end = bounds[atom], bounds[atom + 1]
        n_groups = (end - begin + LANES - 1) // LANES
        q0, t0 = atom * tables.n_queries, atom * tables.n_targets
        for g in range(n_groups):
            count = edges_of(order, begin + g * LANES, end, edges)
            gather(messages, n_m, edges, rows, tile[g * n_m * LANES : (g + 1) * n_m * LANES])
            for lane in range(LANES):
                w0 = edges[lane] * n_heads
                for head in range(n_heads):
                    weight = weights[w0 + head] if lane < count else messages.dtype.type(0.0)
                    a[(g * n_heads + head) * LANES + lane] = weight
        _logit_gradients(tables, n_groups, tile, a, d_sums, t0, d_logit)
        for i in range(begin, end):
            at = (i - begin) // LANES * n_heads * LANES + (i - begin) % LANES
            slope = messages.dtype.type(0.0)
            for head in range(n_heads):
                slope += d_logit[at + head * LANES]
            d_log_envelope[order[i]] = slope
        for at in range(n_groups * n_heads):
            store(d_logit, at * LANES, load(d_logit, at * LANES) * fill(a, tables.scale))
        for j in range(tables.n_queries if n_groups > 0 else 0):
            head = j // (tables.n_queries // n_heads)
            slopes = fill(a, 0.0)
            for g in range(n_groups):
                key = load(tile, (g * n_m + tables.key[j]) * LANES)
                slopes = fma(load(d_logit, (g * n_heads + head) * LANES), key, slopes)
            d_query[q0 + tables.query[j]] = total(slopes)
        for g in range(n_groups):
            edges_of(order, begin + g * LANES, end, edges)
            at = g * n_heads * LANES
            _message_gradients(tables, a, d_logit, at, query, q0, d_sums, t0, out)
            scatter(out, n_m, edges, rows, d_messages)
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
    inputs = [threads.flat(t) for t in (messages, query, weights, gradient)]
    edges, starts = threads.flat(order), threads.flat(bounds)
    out = [threads.flat(t) for t in outputs]

    def work(worker: int, first: int, last: int) -> None:
        _backward(tables, first, last, edges, starts, *inputs, *out)

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
    receivers = atoms_of_edges(order, bounds)
    asked = query.flatten(1).index_select(1, torch.as_tensor(tables.query).to(order.device))
    keys = messages.index_select(1, torch.as_tensor(tables.key).to(order.device))
    products = (keys * asked.index_select(0, receivers)).reshape(n_edges, n_heads, -1)
    logits = products.sum(dim=2) * tables.scale + log_envelope.unsqueeze(1)
    largest = logits.new_full((n_atoms, n_heads), -math.inf).scatter_reduce(
        0, receivers.unsqueeze(1).expand(-1, n_heads), logits.detach(), "amax"
    )
    weights = torch.exp(logits - largest.index_select(0, receivers))
    norms = torch.zeros_like(largest).index_add(0, receivers, weights)
    weights = weights / norms.index_select(0, receivers)
    values = messages.index_select(1, torch.as_tensor(tables.value).to(order.device))
    weighted = values.reshape(n_edges, n_heads, -1) * weights.unsqueeze(2)
    sums = messages.new_zeros(n_atoms, tables.n_targets)
    sums = sums.index_add(0, receivers, weighted.flatten(1))
    back = torch.as_tensor(np.argsort(tables.target)).to(order.device)
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
