"""Radial trunk on LANES edges at once: Linear, LayerNorm, SiLU, twice; forward and backward.

Values of edges are `[feature, lane]`. Parameters of a trunk stand in the order of
`RadialTrunk.net`: weight, bias, norm weight, norm bias, and again.
"""

from typing import Any

from numba import njit

from trip_mm.model.kernels.vector import (
    LANES,
    exp,
    fill,
    fma,
    fma_scalars,
    load,
    load_block,
    splat,
    sqrt,
    store,
    store_block,
    zeros,
)

NORM_EPSILON = 1e-5


@njit(nogil=True)
def linear(w: Any, start: int, n_out: int, n_in: int, x: Any, x0: int, y: Any, y0: int) -> None:
    """Sets y[i] = sum_k w[start + i * n_in + k] x[k]."""
    i = 0
    while i + 8 <= n_out:
        block = zeros(y, 8)
        for k in range(n_in):
            row = start + i * n_in + k
            block = fma_scalars(block, load(x, x0 + k * LANES), w, row, n_in)
        store_block(y, y0 + i * LANES, LANES, block)
        i += 8
    while i < n_out:
        single = zeros(y, 1)
        for k in range(n_in):
            row = start + i * n_in + k
            single = fma_scalars(single, load(x, x0 + k * LANES), w, row, n_in)
        store_block(y, y0 + i * LANES, LANES, single)
        i += 1


@njit(nogil=True)
def add_transposed(
    w: Any, start: int, n_out: int, n_in: int, y: Any, y0: int, x: Any, x0: int
) -> None:
    """Adds sum_i w[start + i * n_in + k] y[i] to x[k]."""
    k = 0
    while k + 16 <= n_in:
        wide = load_block(x, x0 + k * LANES, LANES, 16)
        for i in range(n_out):
            wide = fma_scalars(wide, load(y, y0 + i * LANES), w, start + i * n_in + k, 1)
        store_block(x, x0 + k * LANES, LANES, wide)
        k += 16
    while k + 8 <= n_in:
        block = load_block(x, x0 + k * LANES, LANES, 8)
        for i in range(n_out):
            block = fma_scalars(block, load(y, y0 + i * LANES), w, start + i * n_in + k, 1)
        store_block(x, x0 + k * LANES, LANES, block)
        k += 8
    while k < n_in:
        single = load_block(x, x0 + k * LANES, LANES, 1)
        for i in range(n_out):
            single = fma_scalars(single, load(y, y0 + i * LANES), w, start + i * n_in + k, 1)
        store_block(x, x0 + k * LANES, LANES, single)
        k += 1


@njit(nogil=True)
def _norm_silu(
    w: Any, start: int, n: int, x: Any, x0: int, normed: Any, m0: int, y: Any, y0: int
) -> None:
    """Adds the bias, normalises, applies SiLU; keeps normalised values and 1 / deviation.

    The bias stands at `start`, then the norm's weight and bias; `normed` holds n + 1 vectors.
    """
    mean = fill(y, 0.0)
    square = fill(y, 0.0)
    for i in range(n):
        value = load(x, x0 + i * LANES) + splat(w, start + i)
        store(x, x0 + i * LANES, value)
        mean = mean + value
    mean = mean * fill(y, 1.0 / n)
    for i in range(n):
        value = load(x, x0 + i * LANES) - mean
        square = fma(value, value, square)
    scale = fill(y, 1.0) / sqrt(fma(square, fill(y, 1.0 / n), fill(y, NORM_EPSILON)))
    store(normed, m0 + n * LANES, scale)
    one = fill(y, 1.0)
    for i in range(n):
        value = (load(x, x0 + i * LANES) - mean) * scale
        store(normed, m0 + i * LANES, value)
        a = fma(value, splat(w, start + n + i), splat(w, start + 2 * n + i))
        store(y, y0 + i * LANES, a / (one + exp(fill(y, 0.0) - a)))


@njit(nogil=True)
def _norm_silu_backward(
    w: Any, start: int, n: int, normed: Any, m0: int, d: Any, d0: int, wanted: bool, sums: Any
) -> None:
    """Turns the gradient of the output of `_norm_silu`, in `d`, into that of its input.

    If wanted, adds the gradients of the 3 n parameters to `sums`, `[parameter, lane]`.
    """
    mean = fill(d, 0.0)
    product = fill(d, 0.0)
    one = fill(d, 1.0)
    for i in range(n):
        value = load(normed, m0 + i * LANES)
        weight = splat(w, start + n + i)
        a = fma(value, weight, splat(w, start + 2 * n + i))
        sigmoid = one / (one + exp(fill(d, 0.0) - a))
        slope = sigmoid * fma(a, one - sigmoid, one)
        d_a = load(d, d0 + i * LANES) * slope
        if wanted:
            at = (start + n + i) * LANES
            store(sums, at, fma(d_a, value, load(sums, at)))
            at += n * LANES
            store(sums, at, d_a + load(sums, at))
        d_value = d_a * weight
        store(d, d0 + i * LANES, d_value)
        mean = mean + d_value
        product = fma(d_value, value, product)
    mean = mean * fill(d, 1.0 / n)
    product = product * fill(d, 1.0 / n)
    scale = load(normed, m0 + n * LANES)
    for i in range(n):
        value = load(normed, m0 + i * LANES)
        d_x = (load(d, d0 + i * LANES) - mean - value * product) * scale
        store(d, d0 + i * LANES, d_x)
        if wanted:
            at = (start + i) * LANES
            store(sums, at, d_x + load(sums, at))


@njit(nogil=True)
def add_outer(y: Any, y0: int, n_out: int, x: Any, x0: int, n_in: int, sums: Any, at: int) -> None:
    """Adds y[i] x[k] of every lane to sums[i, k, lane]."""
    for i in range(n_out):
        a = load(y, y0 + i * LANES)
        for k in range(n_in):
            index = at + (i * n_in + k) * LANES
            store(sums, index, fma(a, load(x, x0 + k * LANES), load(sums, index)))


@njit(nogil=True)
def trunk_forward(
    w: Any, start: int, n_in: int, n: int, x: Any, state: Any, s0: int, hidden: Any, h0: int
) -> None:
    """Computes hidden features; keeps (4 n + 2) vectors in `state` for the backward pass."""
    second = start + n * (n_in + 3)
    scratch = s0 + (3 * n + 2) * LANES
    first_hidden = s0 + (n + 1) * LANES
    linear(w, start, n, n_in, x, 0, state, scratch)
    _norm_silu(w, start + n * n_in, n, state, scratch, state, s0, state, first_hidden)
    linear(w, second, n, n, state, first_hidden, state, scratch)
    normed = s0 + (2 * n + 1) * LANES
    _norm_silu(w, second + n * n, n, state, scratch, state, normed, hidden, h0)


@njit(nogil=True)
def trunk_backward(
    w: Any, start: int, n_in: int, n: int, x: Any, state: Any, s0: int, d_hidden: Any, d0: int,
    d_x: Any, wanted: bool, sums: Any,
) -> None:  # fmt: skip
    """Adds the gradient of the edge features to `d_x`; overwrites `d_hidden` and the state."""
    second = start + n * (n_in + 3)
    scratch = s0 + (3 * n + 2) * LANES
    first_hidden = s0 + (n + 1) * LANES
    normed = s0 + (2 * n + 1) * LANES
    _norm_silu_backward(w, second + n * n, n, state, normed, d_hidden, d0, wanted, sums)
    for i in range(n):
        store(state, scratch + i * LANES, fill(state, 0.0))
    add_transposed(w, second, n, n, d_hidden, d0, state, scratch)
    if wanted:
        add_outer(d_hidden, d0, n, state, first_hidden, n, sums, second * LANES)
    _norm_silu_backward(w, start + n * n_in, n, state, s0, state, scratch, wanted, sums)
    add_transposed(w, start, n, n_in, state, scratch, d_x, 0)
    if wanted:
        add_outer(state, scratch, n, x, 0, n_in, sums, start * LANES)
