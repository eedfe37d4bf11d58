"""Spherical harmonics of edges, times the envelope, as one operator.

The harmonics are polynomials in x, y, z. Monomials are made by one multiplication each from a
monomial of lower degree, and a sparse table turns them into harmonics. The table is fitted to
e3nn's harmonics, so order, sign and normalisation are those of `so3`.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from trip_mm.model.kernels import threads
from trip_mm.model.kernels.couplings import sparse_product
from trip_mm.model.kernels.denormals import flush_denormals, restore_denormals
from trip_mm.model.kernels.plan import sparse_rows
from trip_mm.model.kernels.tiles import gather, scatter
from trip_mm.model.kernels.vector import (
    LANES,
    fill,
    fma,
    load,
    store,
)
from trip_mm.model.so3 import harmonics_of

_NAMES = {torch.float32: "float32", torch.float64: "float64"}


class Polynomials(NamedTuple):
    """Monomials as products, and harmonics as sums of monomials (and back), compressed rows.

    Monomial i is monomial `parent[i]` times coordinate `axis[i]`; monomial 0 is 1.
    """

    parent: NDArray[np.int64]
    axis: NDArray[np.int64]
    bounds: NDArray[np.int64]
    monomial: NDArray[np.int64]
    coefficient: NDArray[Any]
    back_bounds: NDArray[np.int64]
    back_harmonic: NDArray[np.int64]
    back_coefficient: NDArray[Any]


def monomials(degree: int) -> list[tuple[int, int, int]]:
    """Exponents of all monomials up to a degree, lower degrees first."""
    return [
        (a, b, total - a - b)
        for total in range(degree + 1)
        for a in range(total, -1, -1)
        for b in range(total - a, -1, -1)
    ]


@functools.cache
def polynomials(degree: int, dtype_name: str) -> Polynomials:
    """Tables of the harmonics of degrees 0 ... `degree`."""
    exponents = monomials(degree)
    place = {exponent: i for i, exponent in enumerate(exponents)}
    parent, axis = [0], [0]
    for exponent in exponents[1:]:
        along = next(i for i in range(3) if exponent[i] > 0)
        lower = tuple(e - (i == along) for i, e in enumerate(exponent))
        parent.append(place[(lower[0], lower[1], lower[2])])
        axis.append(along)
    points = np.random.default_rng(0).normal(size=(8 * len(exponents), 3))
    values = harmonics_of(torch.as_tensor(points), degree).numpy()
    triples: list[tuple[int, int, float]] = []
    for l in range(degree + 1):
        of_degree = [i for i, exponent in enumerate(exponents) if sum(exponent) == l]
        powers = np.array([exponents[i] for i in of_degree])
        matrix = np.prod(points[:, None, :] ** powers[None], axis=2)  # [n_points, n_monomials]
        solved = np.linalg.lstsq(matrix, values[:, l * l : (l + 1) ** 2], rcond=None)[0]
        for row, column in np.argwhere(np.abs(solved) > 1e-9):
            triples.append((l * l + int(column), of_degree[row], float(solved[row, column])))
    forward = sparse_rows(sorted(triples), (degree + 1) ** 2, dtype_name)
    backward = sparse_rows(sorted((m, h, c) for h, m, c in triples), len(exponents), dtype_name)
    return Polynomials(
        np.asarray(parent, np.int64), np.asarray(axis, np.int64), *forward, *backward
    )


@njit(nogil=True)
def _load_monomials(
    table: Polynomials,
    n_edges: int,
    group: int,
    vectors: Any,
    edges: Any,
    rows: Any,
    v: Any,
    m: Any,
) -> None:
    """Monomials `[monomial, lane]` of LANES consecutive edges; idle lanes repeat the last edge."""
    for lane in range(LANES):
        edges[lane] = min(group * LANES + lane, n_edges - 1)
    gather(vectors, 3, edges, rows, v)
    store(m, 0, fill(m, 1.0))
    for i in range(1, table.parent.size):
        store(m, i * LANES, load(m, table.parent[i] * LANES) * load(v, table.axis[i] * LANES))


@njit(nogil=True, cache=True)
def _forward(
    table: Polynomials, first: int, last: int, vectors: Any, envelope: Any, harmonics: Any
) -> None:
    """Harmonics times envelope of groups `first` ... `last - 1` of LANES edges."""
    floating_point = flush_denormals()
    n_edges, n_y = envelope.size, table.bounds.size - 1
    v = np.empty(3 * LANES, vectors.dtype)
    m = np.empty(table.parent.size * LANES, vectors.dtype)
    y = np.empty(n_y * LANES, vectors.dtype)
    phi = np.empty(LANES, vectors.dtype)
    edges, rows = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for group in range(first, last):
        _load_monomials(table, n_edges, group, vectors, edges, rows, v, m)
        sparse_product(table.bounds, table.monomial, table.coefficient, n_y, m, y)
        for lane in range(LANES):
            phi[lane] = envelope[edges[lane]]
        for k in range(n_y):
            store(y, k * LANES, load(y, k * LANES) * load(phi, 0))
        scatter(y, n_y, edges, rows, harmonics)
    restore_denormals(floating_point)


@njit(nogil=True, cache=True)
def _backward(
    table: Polynomials, first: int, last: int, vectors: Any, envelope: Any, d_harmonics: Any,
    d_vectors: Any, d_envelope: Any,
) -> None:  # fmt: skip
    """Gradients of `_forward`."""
    floating_point = flush_denormals()
    n_edges, n_y, n_m = envelope.size, table.bounds.size - 1, table.parent.size
    v, d_v = np.empty(3 * LANES, vectors.dtype), np.empty(3 * LANES, vectors.dtype)
    m, d_m = np.empty(n_m * LANES, vectors.dtype), np.empty(n_m * LANES, vectors.dtype)
    d_y = np.empty(n_y * LANES, vectors.dtype)
    slope = np.empty(LANES, vectors.dtype)
    edges, rows = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for group in range(first, last):
        _load_monomials(table, n_edges, group, vectors, edges, rows, v, m)
        gather(d_harmonics, n_y, edges, rows, d_y)
        sparse_product(
            table.back_bounds, table.back_harmonic, table.back_coefficient, n_m, d_y, d_m
        )
        d_phi = fill(m, 0.0)
        for i in range(n_m):
            d_phi = fma(load(m, i * LANES), load(d_m, i * LANES), d_phi)
        store(slope, 0, d_phi)
        for lane in range(LANES):
            d_envelope[edges[lane]] = slope[lane]
            slope[lane] = envelope[edges[lane]]
        d_v[:] = 0.0
        for i in range(n_m - 1, 0, -1):
            d = load(d_m, i * LANES)
            up, along = table.parent[i] * LANES, table.axis[i] * LANES
            store(d_m, up, fma(d, load(v, along), load(d_m, up)))
            store(d_v, along, fma(d, load(m, up), load(d_v, along)))
        for k in range(3):
            store(d_v, k * LANES, load(d_v, k * LANES) * load(slope, 0))
        scatter(d_v, 3, edges, rows, d_vectors)
    restore_denormals(floating_point)


def _group_bounds(n_edges: int) -> NDArray[np.int64]:
    """Work before each group of LANES edges."""
    return np.arange(-(-n_edges // LANES) + 1, dtype=np.int64)


@torch.library.custom_op("trip_mm::harmonics", mutates_args=())
def harmonics(vectors: Tensor, envelope: Tensor, degree: int) -> Tensor:
    """Computes spherical harmonics times the envelope, `[n_edges, (degree + 1)**2]`.

    Args:
        vectors: unit vectors, `[n_edges, 3]`.
        envelope: `[n_edges]`.
        degree: largest degree.
    """
    table = polynomials(degree, _NAMES[vectors.dtype])
    found = vectors.new_empty(vectors.shape[0], (degree + 1) ** 2)
    inputs, out = [threads.flat(t) for t in (vectors, envelope)], threads.flat(found)

    def work(worker: int, first: int, last: int) -> None:
        _forward(table, first, last, *inputs, out)

    threads.run(work, _group_bounds(vectors.shape[0]))
    return found


@torch.library.custom_op("trip_mm::harmonics_backward", mutates_args=())
def harmonics_backward(
    gradient: Tensor, vectors: Tensor, envelope: Tensor, degree: int
) -> tuple[Tensor, Tensor]:
    """Computes the gradients of vectors and envelope."""
    table = polynomials(degree, _NAMES[vectors.dtype])
    outputs = (
        torch.empty_like(vectors, memory_format=torch.contiguous_format),
        torch.empty_like(envelope, memory_format=torch.contiguous_format),
    )
    inputs = [threads.flat(t) for t in (vectors, envelope, gradient)]
    out = [threads.flat(t) for t in outputs]

    def work(worker: int, first: int, last: int) -> None:
        _backward(table, first, last, *inputs, *out)

    threads.run(work, _group_bounds(vectors.shape[0]))
    return outputs


def plain_harmonics(vectors: Tensor, envelope: Tensor, degree: int) -> Tensor:
    """As `harmonics`, in PyTorch: differentiable any number of times."""
    table = polynomials(degree, _NAMES[vectors.dtype])
    columns = [torch.ones_like(envelope)]
    for parent, axis in zip(table.parent[1:].tolist(), table.axis[1:].tolist(), strict=True):
        columns.append(columns[parent] * vectors[:, axis])
    rows = np.repeat(np.arange(len(table.bounds) - 1), np.diff(table.bounds))
    matrix = torch.zeros(len(columns), len(table.bounds) - 1, dtype=vectors.dtype)
    matrix[table.monomial, rows] = torch.as_tensor(table.coefficient)
    return (torch.stack(columns, dim=1) @ matrix.to(vectors.device)) * envelope.unsqueeze(1)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.degree = inputs[2]


def _gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient by the kernels, or in PyTorch where it will be differentiated again."""
    vectors, envelope = ctx.saved_tensors
    if torch.is_grad_enabled():
        needed = ctx.needs_input_grad[:2]
        # Aliases: the gradient must not follow the history that the inputs share.
        inputs = [t.view_as(t) for t in (vectors, envelope)]
        wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
        found = plain_harmonics(inputs[0], inputs[1], ctx.degree)
        parts = iter(torch.autograd.grad(found, wanted, gradient, create_graph=True))
        return (*(next(parts) if need else None for need in needed), None)
    return (*harmonics_backward(gradient, vectors, envelope, ctx.degree), None)


harmonics.register_autograd(_gradient, setup_context=_setup_context)
