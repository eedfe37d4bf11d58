"""Triton kernels of the attention over the edges that arrive at an atom.

One program handles one head of one receiver, E edges at a time. Logits are computed twice rather
than kept: first for their maximum and sum, then for the weights. Sums over edges run in their
order. See `attention` for the equation and the tables.

Importing this module imports Triton.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trip_mm.model.kernels.attention import head_tables
from trip_mm.model.kernels.triton_convolution import edge_rows

EDGES = 16
"""Edges that a program handles at once."""


@triton.jit
def _entries(table: tl.tensor, head: tl.tensor, number: tl.tensor, K: tl.constexpr) -> tl.tensor:
    """Places of the entries of one head, [K], and which of them exist."""
    j = tl.arange(0, K)
    return tl.load(table + head * number + j, mask=j < number, other=0), j < number


@triton.jit
def _logits(
    messages: tl.tensor, keys: tl.tensor, asked: tl.tensor, log_envelope: tl.tensor,
    edges: tl.tensor, inside: tl.tensor, live: tl.tensor, n_messages: tl.tensor, scale: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Scaled products of keys and query plus log phi, [E]; -inf where there is no edge."""
    own = tl.load(messages + edges[:, None] * n_messages + keys[None, :], mask=inside, other=0.0)
    shift = tl.load(log_envelope + edges, mask=live, other=0.0)
    logits = tl.sum(own * asked[None, :], axis=1) * scale + shift
    return tl.where(live, logits, float("-inf"))


@triton.jit
def _forward(
    messages: tl.tensor, query: tl.tensor, log_envelope: tl.tensor, order: tl.tensor,
    bounds: tl.tensor, value: tl.tensor, target: tl.tensor, key: tl.tensor, place: tl.tensor,
    scales: tl.tensor, weights: tl.tensor, sums: tl.tensor, n_messages: tl.tensor,
    n_heads: tl.tensor, n_value: tl.tensor, n_key: tl.tensor, V: tl.constexpr, K: tl.constexpr,
    E: tl.constexpr,
) -> None:  # fmt: skip
    """Attention weights and sums of one head of one receiver."""
    atom, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin, end = tl.load(bounds + atom), tl.load(bounds + atom + 1)
    values, has_value = _entries(value, head, n_value, V)
    targets, _ = _entries(target, head, n_value, V)
    keys, has_key = _entries(key, head, n_key, K)
    places, _ = _entries(place, head, n_key, K)
    asked = tl.load(query + atom * n_key * n_heads + places, mask=has_key, other=0.0)
    scale = tl.load(scales)
    largest = tl.max(tl.full([E], float("-inf"), messages.dtype.element_ty), axis=0)
    norm = tl.sum(tl.zeros([E], messages.dtype.element_ty), axis=0)
    start = begin
    while start < end:
        edges, live = edge_rows(order, start, end, E)
        inside = live[:, None] & has_key[None, :]
        logits = _logits(
            messages, keys, asked, log_envelope, edges, inside, live, n_messages, scale
        )
        larger = tl.maximum(largest, tl.max(logits, axis=0))
        norm = norm * tl.exp(largest - larger) + tl.sum(tl.exp(logits - larger), axis=0)
        largest = larger
        start += E
    total = tl.zeros([V], messages.dtype.element_ty)
    start = begin
    while start < end:
        edges, live = edge_rows(order, start, end, E)
        inside = live[:, None] & has_key[None, :]
        logits = _logits(
            messages, keys, asked, log_envelope, edges, inside, live, n_messages, scale
        )
        a = tl.exp(logits - largest) / norm
        tl.store(weights + edges * n_heads + head, a, mask=live)
        inside = live[:, None] & has_value[None, :]
        at = edges[:, None] * n_messages + values[None, :]
        total += tl.sum(a[:, None] * tl.load(messages + at, mask=inside, other=0.0), axis=0)
        start += E
    tl.store(sums + atom * n_value * n_heads + targets, total, mask=has_value)


@triton.jit
def _backward(
    messages: tl.tensor, query: tl.tensor, weights: tl.tensor, d_sums: tl.tensor,
    order: tl.tensor, bounds: tl.tensor, value: tl.tensor, target: tl.tensor, key: tl.tensor,
    place: tl.tensor, scales: tl.tensor, d_messages: tl.tensor, d_query: tl.tensor,
    d_logits: tl.tensor, n_messages: tl.tensor, n_heads: tl.tensor, n_value: tl.tensor,
    n_key: tl.tensor, V: tl.constexpr, K: tl.constexpr, E: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients of one head of one receiver; `d_logits` is `[n_edges, n_heads]`."""
    atom, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    begin, end = tl.load(bounds + atom), tl.load(bounds + atom + 1)
    values, has_value = _entries(value, head, n_value, V)
    targets, _ = _entries(target, head, n_value, V)
    keys, has_key = _entries(key, head, n_key, K)
    places, _ = _entries(place, head, n_key, K)
    asked = tl.load(query + atom * n_key * n_heads + places, mask=has_key, other=0.0)
    slope = tl.load(d_sums + atom * n_value * n_heads + targets, mask=has_value, other=0.0)
    scale = tl.load(scales)
    mean = tl.sum(tl.zeros([E], messages.dtype.element_ty), axis=0)
    start = begin
    while start < end:
        edges, live = edge_rows(order, start, end, E)
        a = tl.load(weights + edges * n_heads + head, mask=live, other=0.0)
        inside = live[:, None] & has_value[None, :]
        at = edges[:, None] * n_messages + values[None, :]
        own = tl.load(messages + at, mask=inside, other=0.0)
        mean += tl.sum(a * tl.sum(own * slope[None, :], axis=1), axis=0)
        start += E
    total = tl.zeros([K], messages.dtype.element_ty)
    start = begin
    while start < end:
        edges, live = edge_rows(order, start, end, E)
        a = tl.load(weights + edges * n_heads + head, mask=live, other=0.0)
        inside = live[:, None] & has_value[None, :]
        at = edges[:, None] * n_messages + values[None, :]
        own = tl.load(messages + at, mask=inside, other=0.0)
        tl.store(d_messages + at, a[:, None] * slope[None, :], mask=inside)
        d_logit = a * (tl.sum(own * slope[None, :], axis=1) - mean)
        tl.store(d_logits + edges * n_heads + head, d_logit, mask=live)
        d_product = d_logit * scale
        known = live[:, None] & has_key[None, :]
        at_key = edges[:, None] * n_messages + keys[None, :]
        own_key = tl.load(messages + at_key, mask=known, other=0.0)
        tl.store(d_messages + at_key, d_product[:, None] * asked[None, :], mask=known)
        total += tl.sum(d_product[:, None] * own_key, axis=0)
        start += E
    tl.store(d_query + atom * n_key * n_heads + places, total, mask=has_key)


class _Tables(NamedTuple):
    """`HeadTables` on a device: places of values, sums, keys, queries; the scale of logits."""

    value: Tensor
    target: Tensor
    key: Tensor
    query: Tensor
    scale: Tensor


@functools.cache
@torch.inference_mode(False)
def _device_tables(spec: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> _Tables:
    tables = head_tables(*spec)
    places = (tables.value, tables.target, tables.key, tables.query)
    value, target, key, query = (torch.as_tensor(p).to(device) for p in places)
    return _Tables(
        value, target, key, query, torch.tensor([tables.scale], dtype=dtype, device=device)
    )


def _sizes(spec: tuple[int, ...]) -> tuple[tuple[int, ...], dict[str, int]]:
    """Run-time arguments, then those known to the compiler."""
    tables = head_tables(*spec)
    n_value, n_key = tables.n_targets // tables.n_heads, tables.n_queries // tables.n_heads
    constants = {
        "V": triton.next_power_of_2(n_value), "K": triton.next_power_of_2(n_key), "E": EDGES
    }  # fmt: skip
    return (tables.n_messages, tables.n_heads, n_value, n_key), constants


def attend(
    messages: Tensor, query: Tensor, log_envelope: Tensor, order: Tensor, bounds: Tensor,
    spec: tuple[int, ...],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Computes `attention.attention`; all tensors contiguous."""
    sizes, constants = _sizes(spec)
    sums = messages.new_empty(query.shape[0], spec[1], (spec[3] + 1) ** 2)
    weights = messages.new_empty(messages.shape[0], spec[0])
    tables = _device_tables(spec, messages.dtype, messages.device)
    _forward[(query.shape[0], spec[0])](
        messages, query, log_envelope, order, bounds, *tables, weights, sums, *sizes, **constants
    )
    return sums, weights


def attend_backward(
    gradient: Tensor, messages: Tensor, query: Tensor, weights: Tensor, order: Tensor,
    bounds: Tensor, spec: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes `attention.attention_backward`; all tensors contiguous."""
    sizes, constants = _sizes(spec)
    d_messages, d_query = torch.empty_like(messages), torch.empty_like(query)
    d_logits = torch.empty_like(weights)
    tables = _device_tables(spec, messages.dtype, messages.device)
    _backward[(query.shape[0], spec[0])](
        messages, query, weights, gradient, order, bounds, *tables, d_messages, d_query, d_logits,
        *sizes, **constants,
    )  # fmt: skip
    return d_messages, d_query, d_logits.sum(dim=1)
