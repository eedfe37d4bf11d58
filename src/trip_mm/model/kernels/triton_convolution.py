"""Triton kernels of the edge convolution; the dense stages around them are in `dense`.

One program handles the edges of one sender, E at a time, and one output degree; q, c_out, m_out
and h as in `convolution`:

    u[q, c_out]           = sum_h z[q, c_out, h] hidden[h]
    message[c_out, m_out] = sum_q B[m_out, q] u[q, c_out]

The matrix z of the sender is read once for E edges; u and its gradient stay in registers. Sums
over edges run in the order of the edges, so that equal inputs give equal outputs.

Importing this module imports Triton. Sizes in capitals are powers of two not below the true
sizes; what lies between is masked. A matrix product needs at least 16 terms.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from trip_mm.model.kernels.dense import Layout
from trip_mm.model.kernels.plan import Plan

EDGES = 16
"""Edges that a program handles at once."""
COLUMNS = 8
"""Columns q whose matrix gradients one program computes."""
WIDE = {"num_warps": 8}
"""Threads of a program that would not fit into the registers of the usual four warps."""


@triton.jit
def edge_rows(order: tl.tensor, start: tl.tensor, end: tl.tensor, E: tl.constexpr) -> tl.tensor:
    """Edges of the next E places of a sender, and which of them exist."""
    places = start + tl.arange(0, E)
    live = places < end
    return tl.load(order + places, mask=live, other=0), live


@triton.jit
def _matrix(
    z: tl.tensor, table: tl.tensor, q: tl.tensor, atom: tl.tensor, n_atoms: tl.tensor,
    n_table: tl.tensor, n_out: tl.tensor, n_hidden: tl.tensor, n_padded: tl.tensor,
    O: tl.constexpr, H: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Addresses of z[q, c_out, h] of one sender, [O, H], and which of them exist."""
    o, h = tl.arange(0, O), tl.arange(0, H)
    block, stride = tl.load(table + q), tl.load(table + n_table + q)
    at = z + n_atoms * block + atom * stride + tl.load(table + 2 * n_table + q)
    return at + o[:, None] * n_padded + h[None, :], (o < n_out)[:, None] & (h < n_hidden)[None, :]


@triton.jit
def _message_places(
    edges: tl.tensor, live: tl.tensor, n_messages: tl.tensor, n_out: tl.tensor,
    SIZE: tl.constexpr, M: tl.constexpr, O: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Offsets of messages [E, M, O] of one output degree, and which of them exist."""
    m, o = tl.arange(0, M)[None, :, None], tl.arange(0, O)[None, None, :]
    exists = live[:, None, None] & (m < SIZE) & (o < n_out)
    return edges[:, None, None] * n_messages + o * SIZE + m, exists


@triton.jit(do_not_specialize=["first", "n_atoms"])
def _messages(
    z: tl.tensor, table: tl.tensor, hidden: tl.tensor, basis: tl.tensor, order: tl.tensor,
    bounds: tl.tensor, messages: tl.tensor, first: tl.tensor, n_atoms: tl.tensor,
    n_table: tl.tensor, n_out: tl.tensor, n_hidden: tl.tensor, n_padded: tl.tensor,
    n_basis: tl.tensor, n_messages: tl.tensor, N_COLUMNS: tl.constexpr, SIZE: tl.constexpr,
    M: tl.constexpr, O: tl.constexpr, H: tl.constexpr, E: tl.constexpr,
) -> None:  # fmt: skip
    """Messages of one output degree of the edges of sender `first` + program."""
    atom = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(bounds + first + atom), tl.load(bounds + first + atom + 1)
    m, h = tl.arange(0, M), tl.arange(0, H)
    start = begin
    while start < end:
        edges, live = edge_rows(order, start, end, E)
        own = live[:, None] & (h < n_hidden)[None, :]
        x = tl.load(hidden + edges[:, None] * n_hidden + h[None, :], mask=own, other=0.0)
        total = tl.zeros([E, M, O], z.dtype.element_ty)
        couples = live[:, None] & (m < SIZE)[None, :]
        angular = basis + edges[:, None] * n_basis + m[None, :] * N_COLUMNS
        for q in range(N_COLUMNS):
            at, inside = _matrix(
                z, table, q, atom, n_atoms, n_table, n_out, n_hidden, n_padded, O, H
            )
            matrix = tl.load(at, mask=inside, other=0.0)
            u = tl.dot(x, tl.trans(matrix), input_precision="ieee")  # [E, O]
            b = tl.load(angular + q, mask=couples, other=0.0)
            total += b[:, :, None] * u[:, None, :]
        places, exists = _message_places(edges, live, n_messages, n_out, SIZE, M, O)
        tl.store(messages + places, total, mask=exists)
        start += E


@triton.jit(do_not_specialize=["first", "n_atoms"])
def _edge_gradients(
    z: tl.tensor, table: tl.tensor, hidden: tl.tensor, basis: tl.tensor, d_messages: tl.tensor,
    order: tl.tensor, bounds: tl.tensor, d_hidden: tl.tensor, d_basis: tl.tensor,
    first: tl.tensor, n_atoms: tl.tensor, n_table: tl.tensor, n_out: tl.tensor,
    n_hidden: tl.tensor, n_padded: tl.tensor, n_basis: tl.tensor, n_messages: tl.tensor,
    N_COLUMNS: tl.constexpr, SIZE: tl.constexpr, M: tl.constexpr, O: tl.constexpr,
    H: tl.constexpr, E: tl.constexpr,
) -> None:  # fmt: skip
    """Adds the gradient of the hidden features and sets that of B, of one output degree."""
    atom = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(bounds + first + atom), tl.load(bounds + first + atom + 1)
    m, h = tl.arange(0, M), tl.arange(0, H)
    start = begin
    while start < end:
        edges, live = edge_rows(order, start, end, E)
        own = live[:, None] & (h < n_hidden)[None, :]
        at_hidden = edges[:, None] * n_hidden + h[None, :]
        x = tl.load(hidden + at_hidden, mask=own, other=0.0)
        d_x = tl.load(d_hidden + at_hidden, mask=own, other=0.0)
        places, exists = _message_places(edges, live, n_messages, n_out, SIZE, M, O)
        d_message = tl.load(d_messages + places, mask=exists, other=0.0)
        couples = live[:, None] & (m < SIZE)[None, :]
        at_basis = edges[:, None] * n_basis + m[None, :] * N_COLUMNS
        for q in range(N_COLUMNS):
            at, inside = _matrix(
                z, table, q, atom, n_atoms, n_table, n_out, n_hidden, n_padded, O, H
            )
            matrix = tl.load(at, mask=inside, other=0.0)
            u = tl.dot(x, tl.trans(matrix), input_precision="ieee")  # [E, O]
            d_b = tl.sum(d_message * u[:, None, :], axis=2)
            tl.store(d_basis + at_basis + q, d_b, mask=couples)
            b = tl.load(basis + at_basis + q, mask=couples, other=0.0)
            d_u = tl.sum(d_message * b[:, :, None], axis=1)
            d_x += tl.dot(d_u, matrix, input_precision="ieee")
        tl.store(d_hidden + at_hidden, d_x, mask=own)
        start += E


@triton.jit(do_not_specialize=["first", "n_atoms"])
def _matrix_gradients(
    d_z: tl.tensor, table: tl.tensor, hidden: tl.tensor, basis: tl.tensor, d_messages: tl.tensor,
    order: tl.tensor, bounds: tl.tensor, first: tl.tensor, n_atoms: tl.tensor, n_table: tl.tensor,
    n_out: tl.tensor, n_hidden: tl.tensor, n_padded: tl.tensor, n_basis: tl.tensor,
    n_messages: tl.tensor, N_COLUMNS: tl.constexpr, SIZE: tl.constexpr, M: tl.constexpr,
    O: tl.constexpr, H: tl.constexpr, E: tl.constexpr, Q: tl.constexpr,
) -> None:  # fmt: skip
    """Sets the gradient of Q columns of the matrix of sender `first` + program."""
    atom = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(bounds + first + atom), tl.load(bounds + first + atom + 1)
    m, h = tl.arange(0, M), tl.arange(0, H)
    for i in range(Q):
        q = tl.program_id(1) * Q + i
        if q < N_COLUMNS:
            # With the padding, which is a part of the matrix and must not stay undefined.
            at, inside = _matrix(
                d_z, table, q, atom, n_atoms, n_table, n_out, n_padded, n_padded, O, H
            )
            total = tl.zeros([O, H], d_z.dtype.element_ty)
            start = begin
            while start < end:
                edges, live = edge_rows(order, start, end, E)
                own = live[:, None] & (h < n_hidden)[None, :]
                x = tl.load(hidden + edges[:, None] * n_hidden + h[None, :], mask=own, other=0.0)
                places, exists = _message_places(edges, live, n_messages, n_out, SIZE, M, O)
                d_message = tl.load(d_messages + places, mask=exists, other=0.0)
                couples = live[:, None] & (m < SIZE)[None, :]
                at_basis = edges[:, None] * n_basis + m[None, :] * N_COLUMNS
                b = tl.load(basis + at_basis + q, mask=couples, other=0.0)
                d_u = tl.sum(d_message * b[:, :, None], axis=1)  # [E, O]
                total += tl.dot(tl.trans(d_u), x, input_precision="ieee")
                start += E
            tl.store(at, total, mask=inside)


@triton.jit
def _row_sums(
    rows: tl.tensor, order: tl.tensor, bounds: tl.tensor, sums: tl.tensor, width: tl.tensor,
    W: tl.constexpr, E: tl.constexpr,
) -> None:  # fmt: skip
    """Sum of the rows of the edges of one atom."""
    atom = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(bounds + atom), tl.load(bounds + atom + 1)
    k = tl.arange(0, W)
    total = tl.zeros([W], rows.dtype.element_ty)
    start = begin
    while start < end:
        edges, live = edge_rows(order, start, end, E)
        inside = live[:, None] & (k < width)[None, :]
        values = tl.load(rows + edges[:, None] * width + k[None, :], mask=inside, other=0.0)
        total += tl.sum(values, axis=0)
        start += E
    tl.store(sums + atom * width + k, total, mask=k < width)


def _size(number: int) -> int:
    """Power of two that a matrix product can run over."""
    return int(max(16, triton.next_power_of_2(number)))


def _shape(plan: Plan, degree: int) -> tuple[tuple[int, ...], dict[str, int]]:
    """Sizes of one output degree: run-time arguments, then those known to the compiler."""
    n_out, size = int(plan.n_channels_out[degree]), 2 * degree + 1
    n_table = int(plan.n_columns.sum())
    sizes = (n_table, n_out, plan.n_hidden, plan.n_padded, plan.n_basis, plan.n_messages)
    constants = {
        "N_COLUMNS": int(plan.n_columns[degree]),
        "SIZE": size,
        "M": int(triton.next_power_of_2(size)),
        "O": _size(n_out),
        "H": _size(plan.n_padded),
        "E": EDGES,
    }
    return sizes, constants


class EdgeInputs(NamedTuple):
    """What the kernels read of all edges."""

    hidden: Tensor  # of `dense.trunks_forward`, [n_trunks, n_edges, n_hidden]
    basis: Tensor  # couplings times harmonics, [n_edges, n_basis]
    order: Tensor  # of `sort_edges`, by sender
    bounds: Tensor


def compute_messages(
    plan: Plan,
    layout: Layout,
    z: Tensor,
    inputs: EdgeInputs,
    atoms: tuple[int, int],
    messages: Tensor,
) -> None:
    """Messages of the edges that leave the atoms `atoms[0]` ... `atoms[1] - 1`.

    Args:
        plan: of `make_plan`.
        layout: of `make_layout`.
        z: of `sender_matrices` for these atoms.
        inputs: of all edges.
        atoms: first atom, atom after the last.
        messages: output, `[n_edges, n_messages]`.
    """
    n_atoms = atoms[1] - atoms[0]
    for degree in range(plan.n_degrees):
        sizes, constants = _shape(plan, degree)
        _messages[(n_atoms,)](
            z, layout.table[:, int(plan.column_start[degree]) :],
            inputs.hidden[int(plan.trunk[degree])],
            inputs.basis[:, int(plan.basis_start[degree]) :], inputs.order, inputs.bounds,
            messages[:, int(plan.message_start[degree]) :], atoms[0], n_atoms, *sizes, **constants,
        )  # fmt: skip


def compute_gradients(
    plan: Plan,
    layout: Layout,
    z: Tensor,
    inputs: EdgeInputs,
    d_messages: Tensor,
    atoms: tuple[int, int],
    outputs: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Gradients from those of the messages; arguments as in `compute_messages`, then the outputs.

    `outputs` are the gradients of z (set), hidden (added to) and basis (set).
    """
    n_atoms = atoms[1] - atoms[0]
    d_z, d_hidden, d_basis = outputs
    for degree in range(plan.n_degrees):
        sizes, constants = _shape(plan, degree)
        table = layout.table[:, int(plan.column_start[degree]) :]
        trunk, start = int(plan.trunk[degree]), int(plan.basis_start[degree])
        given = (
            inputs.hidden[trunk], inputs.basis[:, start:],
            d_messages[:, int(plan.message_start[degree]) :], inputs.order, inputs.bounds,
        )  # fmt: skip
        _edge_gradients[(n_atoms,)](
            z, table, *given, d_hidden[trunk], d_basis[:, start:], atoms[0], n_atoms, *sizes,
            **constants, **WIDE,
        )  # fmt: skip
        n_groups = triton.cdiv(int(plan.n_columns[degree]), COLUMNS)
        _matrix_gradients[(n_atoms, n_groups)](
            d_z, table, *given, atoms[0], n_atoms, *sizes, **constants, Q=COLUMNS
        )


def sum_rows(rows: Tensor, order: Tensor, bounds: Tensor) -> Tensor:
    """Sums rows `[n_edges, width]` of the edges of each atom, `[n_atoms, width]`."""
    n_atoms, width = bounds.shape[0] - 1, rows.shape[1]
    sums = rows.new_empty(n_atoms, width)
    W = triton.next_power_of_2(width)
    _row_sums[(n_atoms,)](rows, order, bounds, sums, width, W=W, E=EDGES)
    return sums
