"""Couplings of features and spherical harmonics, for LANES edges at a time."""

from typing import Any

from numba import njit

from trip_mm.model.kernels.plan import BLOCK, Plan
from trip_mm.model.kernels.vector import (
    LANES,
    fill,
    fma,
    fma_block,
    fma_vectors,
    load,
    load_block,
    splat,
    store,
    store_block,
    zeros,
)


@njit(nogil=True)
def sparse_product(
    bounds: Any, columns: Any, coefficients: Any, n_rows: int, x: Any, y: Any
) -> None:
    """Sets y[row] = sum of coefficient * x[column] for every lane."""
    for row in range(n_rows):
        value = fill(y, 0.0)
        for i in range(bounds[row], bounds[row + 1]):
            value = fma(splat(coefficients, i), load(x, columns[i] * LANES), value)
        store(y, row * LANES, value)


@njit(nogil=True)
def couple(plan: Plan, degree: int, basis: Any, u: Any, messages: Any) -> None:
    """message[c_out, m_out] = sum_q B[m_out, q] u[q, c_out] of one output degree.

    As in the two functions below, pairs share what they load.
    """
    n_out, n_columns = plan.n_channels_out[degree], plan.n_columns[degree]
    size = 2 * degree + 1
    for m in range(0, size, 2):
        paired = m + 1 < size
        b0 = (plan.basis_start[degree] + m * n_columns) * LANES
        b1 = b0 + n_columns * LANES
        at = (plan.message_start[degree] + m) * LANES
        o = 0
        while o + BLOCK <= n_out:
            first, second = zeros(u, 8), zeros(u, 8)
            for q in range(n_columns):
                values = load_block(u, (q * n_out + o) * LANES, LANES, 8)
                first = fma_block(first, load(basis, b0 + q * LANES), values)
                if paired:
                    second = fma_block(second, load(basis, b1 + q * LANES), values)
            store_block(messages, at + o * size * LANES, size * LANES, first)
            if paired:
                store_block(messages, at + (o * size + 1) * LANES, size * LANES, second)
            o += BLOCK
        while o < n_out:
            for i in range(2 if paired else 1):
                single = zeros(u, 1)
                for q in range(n_columns):
                    b = load(basis, b0 + (i * n_columns + q) * LANES)
                    single = fma_vectors(single, b, u, (q * n_out + o) * LANES, LANES)
                store_block(messages, at + (o * size + i) * LANES, LANES, single)
            o += 1


@njit(nogil=True)
def couple_gradient_u(plan: Plan, degree: int, basis: Any, d_messages: Any, d_u: Any) -> None:
    """d_u[q, c_out] = sum_m_out B[m_out, q] d_message[c_out, m_out]."""
    n_out, n_columns = plan.n_channels_out[degree], plan.n_columns[degree]
    size = 2 * degree + 1
    b0 = plan.basis_start[degree] * LANES
    at = plan.message_start[degree] * LANES
    for q in range(0, n_columns, 2):
        paired = q + 1 < n_columns
        o = 0
        while o + BLOCK <= n_out:
            first, second = zeros(d_u, 8), zeros(d_u, 8)
            for m in range(size):
                row = at + (o * size + m) * LANES
                values = load_block(d_messages, row, size * LANES, 8)
                b = b0 + (m * n_columns + q) * LANES
                first = fma_block(first, load(basis, b), values)
                if paired:
                    second = fma_block(second, load(basis, b + LANES), values)
            store_block(d_u, (q * n_out + o) * LANES, LANES, first)
            if paired:
                store_block(d_u, ((q + 1) * n_out + o) * LANES, LANES, second)
            o += BLOCK
        while o < n_out:
            for i in range(2 if paired else 1):
                single = zeros(d_u, 1)
                for m in range(size):
                    b = load(basis, b0 + (m * n_columns + q + i) * LANES)
                    single = fma_vectors(single, b, d_messages, at + (o * size + m) * LANES, LANES)
                store_block(d_u, ((q + i) * n_out + o) * LANES, LANES, single)
            o += 1


@njit(nogil=True)
def couple_gradient_basis(plan: Plan, degree: int, u: Any, d_messages: Any, d_basis: Any) -> None:
    """d_B[m_out, q] = sum_c_out d_message[c_out, m_out] u[q, c_out]."""
    n_out, n_columns = plan.n_channels_out[degree], plan.n_columns[degree]
    size = 2 * degree + 1
    at = plan.message_start[degree] * LANES
    for m in range(0, size, 2):
        paired = m + 1 < size
        b0 = (plan.basis_start[degree] + m * n_columns) * LANES
        b1 = b0 + n_columns * LANES
        q = 0
        while q + BLOCK <= n_columns:
            first, second = zeros(u, 8), zeros(u, 8)
            for o in range(n_out):
                values = load_block(u, (q * n_out + o) * LANES, n_out * LANES, 8)
                d = at + (o * size + m) * LANES
                first = fma_block(first, load(d_messages, d), values)
                if paired:
                    second = fma_block(second, load(d_messages, d + LANES), values)
            store_block(d_basis, b0 + q * LANES, LANES, first)
            if paired:
                store_block(d_basis, b1 + q * LANES, LANES, second)
            q += BLOCK
        while q < n_columns:
            for i in range(2 if paired else 1):
                single = zeros(u, 1)
                for o in range(n_out):
                    d = load(d_messages, at + (o * size + m + i) * LANES)
                    single = fma_vectors(single, d, u, (q * n_out + o) * LANES, LANES)
                store_block(d_basis, b0 + (i * n_columns + q) * LANES, LANES, single)
            q += 1
