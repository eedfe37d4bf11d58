"""Kernels of the edge convolution: messages of all edges, and the gradients of all inputs.

The radial output layer is linear, so it is contracted with the sender's features once per atom
(`_sender_matrix`): z[q, c_out, h] = sum_c W[c_out, c, path(q), h] f[c, m_in(q)]. Then, for LANES
edges of one sender at a time, everything below stays in the first-level cache:

    hidden h        = trunk(edge features + features of the sender)
    B[m_out, q]     = sum over harmonics of couplings * harmonics
    u[q, c_out]     = sum_h z[q, c_out, h] hidden[h]
    message[c_out, m_out] = sum_q B[m_out, q] u[q, c_out]

Nothing of the size edges x radial weights exists. The backward pass computes all of it again.
Values of edges are `[value, lane]` in scratch; edges are visited in the order of their senders.
"""

from typing import Any

import numpy as np
from numba import njit

from trip_mm.model.kernels.couplings import (
    couple,
    couple_gradient_basis,
    couple_gradient_u,
    sparse_product,
)
from trip_mm.model.kernels.denormals import flush_denormals, restore_denormals
from trip_mm.model.kernels.plan import BLOCK, Plan
from trip_mm.model.kernels.radial import (
    add_transposed,
    linear,
    trunk_backward,
    trunk_forward,
)
from trip_mm.model.kernels.tiles import edges_of, gather, prefetch_rows, scatter
from trip_mm.model.kernels.vector import (
    LANES,
    fill,
    fma,
    fma_block,
    fma_scalars,
    fma_vectors,
    load,
    load_block,
    splat,
    store,
    store_block,
    total,
    zeros,
)


@njit(nogil=True)
def _sender_matrix(plan: Plan, w: Any, features: Any, node: int, z: Any) -> None:
    """Contracts the radial output layer with the features of one atom: z[q, c_out, h].

    Weights are loaded once for up to three components of the input degree.
    """
    n_comp, n_h = plan.n_components_in, plan.n_padded
    f0 = node * plan.n_channels_in * n_comp
    for degree in range(plan.n_degrees):
        n_out = plan.n_channels_out[degree]
        q = 0
        while q < plan.n_columns[degree]:
            column = plan.column_start[degree] + q
            w0 = plan.weight_start[degree]
            w0 += plan.path[column] * plan.n_channels_in * n_out * n_h
            z0 = (plan.row_start[degree] + q * n_out) * n_h
            at = f0 + plan.component[column]
            count = min(3, plan.left_of_path[column])
            for row in range(0, n_out * n_h, LANES):
                if row + 4 * LANES <= n_out * n_h and row % (4 * LANES) == 0:
                    _matrix_rows(plan, w, w0 + row, n_out * n_h, features, at, count, z, z0 + row)
                elif row >= n_out * n_h // (4 * LANES) * (4 * LANES):
                    for i in range(count):
                        single = zeros(z, 1)
                        for c in range(plan.n_channels_in):
                            a = splat(features, at + c * n_comp + i)
                            single = fma_vectors(single, a, w, w0 + row + c * n_out * n_h, LANES)
                        store_block(z, z0 + i * n_out * n_h + row, LANES, single)
            q += count


@njit(nogil=True)
def _matrix_rows(
    plan: Plan, w: Any, w0: int, stride: int, features: Any, f0: int, count: int, z: Any, z0: int
) -> None:
    """Four vectors of each of `count` (1 to 3) consecutive columns of a sender matrix."""
    n_comp = plan.n_components_in
    if count == 3:
        first, second, third = zeros(z, 4), zeros(z, 4), zeros(z, 4)
        for c in range(plan.n_channels_in):
            weights = load_block(w, w0 + c * stride, LANES, 4)
            first = fma_block(first, splat(features, f0 + c * n_comp), weights)
            second = fma_block(second, splat(features, f0 + c * n_comp + 1), weights)
            third = fma_block(third, splat(features, f0 + c * n_comp + 2), weights)
        store_block(z, z0, LANES, first)
        store_block(z, z0 + stride, LANES, second)
        store_block(z, z0 + 2 * stride, LANES, third)
    elif count == 2:
        first, second = zeros(z, 4), zeros(z, 4)
        for c in range(plan.n_channels_in):
            weights = load_block(w, w0 + c * stride, LANES, 4)
            first = fma_block(first, splat(features, f0 + c * n_comp), weights)
            second = fma_block(second, splat(features, f0 + c * n_comp + 1), weights)
        store_block(z, z0, LANES, first)
        store_block(z, z0 + stride, LANES, second)
    else:
        first = zeros(z, 4)
        for c in range(plan.n_channels_in):
            weights = load_block(w, w0 + c * stride, LANES, 4)
            first = fma_block(first, splat(features, f0 + c * n_comp), weights)
        store_block(z, z0, LANES, first)


@njit(nogil=True)
def _sender_gradient(plan: Plan, w: Any, d_z: Any, node: int, sums: Any, d_features: Any) -> None:
    """Gradient of the features of one atom from that of its matrix."""
    n_in, n_comp, n_h = plan.n_channels_in, plan.n_components_in, plan.n_padded
    sums[:] = 0.0
    for degree in range(plan.n_degrees):
        n_row = plan.n_channels_out[degree] * n_h
        q = 0
        while q < plan.n_columns[degree]:
            column = plan.column_start[degree] + q
            w0 = plan.weight_start[degree] + plan.path[column] * n_in * n_row
            z0 = plan.row_start[degree] * n_h + q * n_row
            s0 = plan.component[column] * LANES
            count = min(3, plan.left_of_path[column])
            c = 0
            while c + 4 <= n_in:
                at, to = w0 + c * n_row, s0 + c * n_comp * LANES
                _feature_sums(w, at, n_row, d_z, z0, count, sums, to, n_comp * LANES)
                c += 4
            while c < n_in:
                for i in range(count):
                    to = s0 + (c * n_comp + i) * LANES
                    single = load_block(sums, to, LANES, 1)
                    for row in range(0, n_row, LANES):
                        a = load(d_z, z0 + i * n_row + row)
                        single = fma_vectors(single, a, w, w0 + c * n_row + row, LANES)
                    store_block(sums, to, LANES, single)
                c += 1
            q += count
    for i in range(n_in * n_comp):
        d_features[node * n_in * n_comp + i] = total(load(sums, i * LANES))


@njit(nogil=True)
def _feature_sums(
    w: Any, w0: int, n_row: int, d_z: Any, z0: int, count: int, sums: Any, s0: int, stride: int
) -> None:
    """Adds to the sums of four channels and `count` (1 to 3) consecutive components."""
    if count == 3:
        first = load_block(sums, s0, stride, 4)
        second = load_block(sums, s0 + LANES, stride, 4)
        third = load_block(sums, s0 + 2 * LANES, stride, 4)
        for row in range(0, n_row, LANES):
            weights = load_block(w, w0 + row, n_row, 4)
            first = fma_block(first, load(d_z, z0 + row), weights)
            second = fma_block(second, load(d_z, z0 + n_row + row), weights)
            third = fma_block(third, load(d_z, z0 + 2 * n_row + row), weights)
        store_block(sums, s0, stride, first)
        store_block(sums, s0 + LANES, stride, second)
        store_block(sums, s0 + 2 * LANES, stride, third)
    elif count == 2:
        first = load_block(sums, s0, stride, 4)
        second = load_block(sums, s0 + LANES, stride, 4)
        for row in range(0, n_row, LANES):
            weights = load_block(w, w0 + row, n_row, 4)
            first = fma_block(first, load(d_z, z0 + row), weights)
            second = fma_block(second, load(d_z, z0 + n_row + row), weights)
        store_block(sums, s0, stride, first)
        store_block(sums, s0 + LANES, stride, second)
    else:
        first = load_block(sums, s0, stride, 4)
        for row in range(0, n_row, LANES):
            first = fma_block(first, load(d_z, z0 + row), load_block(w, w0 + row, n_row, 4))
        store_block(sums, s0, stride, first)


@njit(nogil=True)
def _weight_gradient(plan: Plan, features: Any, node: int, d_z: Any, d_w: Any) -> None:
    """Adds the gradient of the radial output layer from that of one atom's matrix."""
    n_in, n_comp, n_h = plan.n_channels_in, plan.n_components_in, plan.n_padded
    for degree in range(plan.n_degrees):
        n_row = plan.n_channels_out[degree] * n_h
        for q in range(plan.n_columns[degree]):
            column = plan.column_start[degree] + q
            f0 = node * n_in * n_comp + plan.component[column]
            w0 = plan.weight_start[degree] + plan.path[column] * n_in * n_row
            z0 = plan.row_start[degree] * n_h + q * n_row
            for c in range(n_in):
                a = splat(features, f0 + c * n_comp)
                for row in range(0, n_row, LANES):
                    at = w0 + c * n_row + row
                    store(d_w, at, fma(a, load(d_z, z0 + row), load(d_w, at)))


@njit(nogil=True)
def _add_matrix_gradient(
    n_rows: int, n_h: int, z0: int, d_u: Any, hidden_rows: Any, h0: int, d_z: Any
) -> None:
    """d_z[row, h] += sum over lanes of d_u[row] hidden[h]; `hidden_rows` is `[lane, h]`."""
    for row in range(0, n_rows, BLOCK):
        for h in range(0, n_h, LANES):
            at = (z0 + row) * n_h + h
            block = load_block(d_z, at, n_h, 8)
            for lane in range(LANES):
                a = load(hidden_rows, h0 + lane * n_h + h)
                block = fma_scalars(block, a, d_u, row * LANES + lane, LANES)
            store_block(d_z, at, n_h, block)


@njit(nogil=True)
def _edge_inputs(
    plan: Plan, node: int, edges: Any, rows: Any, edge_features: Any, shifts: Any,
    harmonics: Any, x: Any, y: Any,
) -> None:  # fmt: skip
    """Loads the features x = edge + sender and the harmonics y of LANES edges."""
    gather(edge_features, plan.n_edge_features, edges, rows, x)
    for k in range(plan.n_edge_features):
        shift = splat(shifts, node * plan.n_edge_features + k)
        store(x, k * LANES, load(x, k * LANES) + shift)
    gather(harmonics, plan.n_harmonics, edges, rows, y)


@njit(nogil=True, cache=True)
def forward(
    plan: Plan, first: int, last: int, order: Any, bounds: Any, edge_features: Any, shifts: Any,
    features: Any, harmonics: Any, w: Any, messages: Any,
) -> None:  # fmt: skip
    """Messages of all edges that leave the atoms `first` ... `last - 1`.

    Args:
        plan: of `make_plan`.
        first: first sender.
        last: sender after the last.
        order: edges sorted by sender.
        bounds: where each sender's edges start in `order`, `[n_atoms + 1]`.
        edge_features: `[n_edges, n_edge_features]`; this and all below flat.
        shifts: added to the features of every edge that leaves the atom,
            `[n_atoms, n_edge_features]`.
        features: `[n_atoms, C_in, components]`.
        harmonics: with the envelope, `[n_edges, n_harmonics]`.
        w: all parameters, see `operators.pack`.
        messages: output, `[n_edges, n_messages]`.
    """
    floating_point = flush_denormals()
    n, n_h = plan.n_hidden, plan.n_padded
    z = np.zeros(plan.n_rows * n_h, w.dtype)
    u = np.zeros(np.max(plan.n_block_rows) * LANES, w.dtype)
    x = np.empty(plan.n_edge_features * LANES, w.dtype)
    y = np.empty(plan.n_harmonics * LANES, w.dtype)
    basis = np.empty(plan.n_basis * LANES, w.dtype)
    state = np.empty((4 * n + 2) * LANES, w.dtype)
    hidden = np.zeros(plan.n_trunks * n_h * LANES, w.dtype)
    out = np.empty(plan.n_messages * LANES, w.dtype)
    edges = np.empty(LANES, np.int64)
    rows = np.empty(LANES, np.int64)
    for node in range(first, last):
        if bounds[node] == bounds[node + 1]:
            continue
        _sender_matrix(plan, w, features, node, z)
        for start in range(bounds[node], bounds[node + 1], LANES):
            prefetch_rows(messages, plan.n_messages, order, start, bounds[node + 1])
            prefetch_rows(harmonics, plan.n_harmonics, order, start + LANES, bounds[last])
            edges_of(order, start, bounds[node + 1], edges)
            _edge_inputs(plan, node, edges, rows, edge_features, shifts, harmonics, x, y)
            for trunk in range(plan.n_trunks):
                trunk_forward(
                    w, trunk * plan.trunk_size, plan.n_edge_features, n, x, state, 0, hidden,
                    trunk * n_h * LANES,
                )  # fmt: skip
            sparse_product(
                plan.basis_bounds, plan.basis_harmonic, plan.basis_coefficient, plan.n_basis, y,
                basis,
            )  # fmt: skip
            for degree in range(plan.n_degrees):
                h0 = plan.trunk[degree] * n_h * LANES
                linear(
                    z,
                    plan.row_start[degree] * n_h,
                    plan.n_block_rows[degree],
                    n_h,
                    hidden,
                    h0,
                    u,
                    0,
                )
                couple(plan, degree, basis, u, out)
            scatter(out, plan.n_messages, edges, rows, messages)
    restore_denormals(floating_point)


@njit(nogil=True, cache=True)
def backward(
    plan: Plan, first: int, last: int, order: Any, bounds: Any, edge_features: Any, shifts: Any,
    features: Any, harmonics: Any, w: Any, d_messages: Any, d_edge_features: Any, d_shifts: Any,
    d_features: Any, d_harmonics: Any, d_w: Any,
) -> None:  # fmt: skip
    """Gradients from those of the messages; arguments as in `forward`, then the outputs.

    `d_w` is added to; it has the size of `w`, or 0 if parameters need no gradient. `d_shifts`
    and `d_features` of atoms without edges are left alone.
    """
    floating_point = flush_denormals()
    n, n_h, n_e = plan.n_hidden, plan.n_padded, plan.n_edge_features
    wanted = d_w.size > 0
    z = np.zeros(plan.n_rows * n_h, w.dtype)
    d_z = np.zeros(plan.n_rows * n_h, w.dtype)
    u = np.zeros(np.max(plan.n_block_rows) * LANES, w.dtype)
    d_u = np.zeros(np.max(plan.n_block_rows) * LANES, w.dtype)
    x = np.empty(n_e * LANES, w.dtype)
    d_x = np.empty(n_e * LANES, w.dtype)
    y = np.empty(plan.n_harmonics * LANES, w.dtype)
    d_y = np.empty(plan.n_harmonics * LANES, w.dtype)
    basis = np.empty(plan.n_basis * LANES, w.dtype)
    d_basis = np.empty(plan.n_basis * LANES, w.dtype)
    state = np.empty(plan.n_trunks * (4 * n + 2) * LANES, w.dtype)
    hidden = np.zeros(plan.n_trunks * n_h * LANES, w.dtype)
    hidden_rows = np.zeros(plan.n_trunks * n_h * LANES, w.dtype)
    d_hidden = np.zeros(plan.n_trunks * n_h * LANES, w.dtype)
    d_m = np.empty(plan.n_messages * LANES, w.dtype)
    sums = np.empty(plan.n_channels_in * plan.n_components_in * LANES, w.dtype)
    trunk_sums = np.zeros(plan.n_trunks * plan.trunk_size * LANES if wanted else 0, w.dtype)
    edges = np.empty(LANES, np.int64)
    rows = np.empty(LANES, np.int64)
    for node in range(first, last):
        if bounds[node] == bounds[node + 1]:
            continue
        _sender_matrix(plan, w, features, node, z)
        d_z[:] = 0.0
        for start in range(bounds[node], bounds[node + 1], LANES):
            prefetch_rows(d_harmonics, plan.n_harmonics, order, start, bounds[node + 1])
            prefetch_rows(harmonics, plan.n_harmonics, order, start + LANES, bounds[last])
            prefetch_rows(d_messages, plan.n_messages, order, start + LANES, bounds[last])
            count = edges_of(order, start, bounds[node + 1], edges)
            _edge_inputs(plan, node, edges, rows, edge_features, shifts, harmonics, x, y)
            gather(d_messages, plan.n_messages, edges, rows, d_m)
            for k in range(plan.n_messages if count < LANES else 0):
                for lane in range(count, LANES):
                    d_m[k * LANES + lane] = 0.0
            for trunk in range(plan.n_trunks):
                h0 = trunk * n_h * LANES
                trunk_forward(
                    w, trunk * plan.trunk_size, n_e, n, x, state,
                    trunk * (4 * n + 2) * LANES, hidden, h0,
                )  # fmt: skip
                for lane in range(LANES):
                    for h in range(n):
                        hidden_rows[h0 + lane * n_h + h] = hidden[h0 + h * LANES + lane]
            sparse_product(
                plan.basis_bounds, plan.basis_harmonic, plan.basis_coefficient, plan.n_basis, y,
                basis,
            )  # fmt: skip
            d_hidden[:] = 0.0
            for degree in range(plan.n_degrees):
                h0 = plan.trunk[degree] * n_h * LANES
                z0, n_rows = plan.row_start[degree], plan.n_block_rows[degree]
                linear(z, z0 * n_h, n_rows, n_h, hidden, h0, u, 0)
                couple_gradient_basis(plan, degree, u, d_m, d_basis)
                couple_gradient_u(plan, degree, basis, d_m, d_u)
                for i in range(plan.n_columns[degree] * plan.n_channels_out[degree], n_rows):
                    store(d_u, i * LANES, fill(d_u, 0.0))
                add_transposed(z, z0 * n_h, n_rows, n_h, d_u, 0, d_hidden, h0)
                _add_matrix_gradient(n_rows, n_h, z0, d_u, hidden_rows, h0, d_z)
            sparse_product(
                plan.harmonic_bounds, plan.harmonic_basis, plan.harmonic_coefficient,
                plan.n_harmonics, d_basis, d_y,
            )  # fmt: skip
            scatter(d_y, plan.n_harmonics, edges, rows, d_harmonics)
            d_x[:] = 0.0
            for trunk in range(plan.n_trunks):
                trunk_backward(
                    w, trunk * plan.trunk_size, n_e, n, x, state,
                    trunk * (4 * n + 2) * LANES, d_hidden, trunk * n_h * LANES, d_x, wanted,
                    trunk_sums,
                )  # fmt: skip
            scatter(d_x, n_e, edges, rows, d_edge_features)
            for k in range(n_e):
                d_shifts[node * n_e + k] += total(load(d_x, k * LANES))
        _sender_gradient(plan, w, d_z, node, sums, d_features)
        if wanted:
            _weight_gradient(plan, features, node, d_z, d_w)
    for i in range(trunk_sums.size // LANES):
        d_w[i] += total(load(trunk_sums, i * LANES))
    restore_denormals(floating_point)
