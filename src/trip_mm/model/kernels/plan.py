"""Index tables of a convolution: what its kernels loop over.

For each output degree the couplings are one matrix per edge, `B[m_out, q]`: q runs over the pairs
(path, m_in), paths in order of input degree, then J, as in the radial weights. Its entries are
sparse sums over the edge's spherical harmonics.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trip_mm.model.kernels.vector import LANES
from trip_mm.model.so3 import kernel_couplings, n_paths

BLOCK = 8
"""Rows that a kernel accumulates at once."""

Integers = NDArray[np.int64]


class Plan(NamedTuple):
    """Sizes and tables; arrays indexed by output degree, by (output degree, q), or sparse.

    Offsets named `*_start` count elements of per-edge or per-atom values, without lanes.
    """

    n_channels_in: int
    n_components_in: int
    n_edge_features: int
    n_hidden: int
    n_padded: int  # n_hidden, rounded up to whole vectors
    n_trunks: int
    trunk_size: int
    n_degrees: int
    n_rows: int  # of sender matrices, over all degrees, with padding to BLOCK
    n_basis: int
    n_harmonics: int
    n_messages: int
    n_parameters: int
    # by output degree
    n_channels_out: Integers
    n_columns: Integers  # number of q
    n_paths: Integers
    trunk: Integers
    column_start: Integers
    row_start: Integers
    n_block_rows: Integers
    basis_start: Integers
    message_start: Integers
    weight_start: Integers
    # by (output degree, q)
    path: Integers
    component: Integers
    left_of_path: Integers  # columns from here to the end of the path
    # entries of B from harmonics, and back
    basis_bounds: Integers
    basis_harmonic: Integers
    basis_coefficient: NDArray[Any]
    harmonic_bounds: Integers
    harmonic_basis: Integers
    harmonic_coefficient: NDArray[Any]


def round_up(number: int, multiple: int) -> int:
    """Smallest multiple that is not below the number."""
    return -(-number // multiple) * multiple


def _integers(values: Sequence[int]) -> Integers:
    return np.asarray(values, dtype=np.int64)


def _couplings(l_in_max: int, l_out_max: int) -> list[tuple[int, int, float]]:
    """Non-zero couplings (entry of B, harmonic, coefficient), entries ascending."""
    found: list[tuple[int, int, float]] = []
    start = 0
    for l_out in range(l_out_max + 1):
        n_columns = sum(n_paths(l_out, li) * (2 * li + 1) for li in range(l_in_max + 1))
        column = 0
        for l_in in range(l_in_max + 1):
            values = kernel_couplings(l_in, l_out).numpy()  # [harmonic, m_in, path, m_out]
            for k, m_in, path, m_out in np.argwhere(np.abs(values) > 1e-12):
                entry = start + m_out * n_columns + column + path * (2 * l_in + 1) + m_in
                found.append((int(entry), int(k), float(values[k, m_in, path, m_out])))
            column += n_paths(l_out, l_in) * (2 * l_in + 1)
        start += (2 * l_out + 1) * n_columns
    return sorted(found)


def sparse_rows(
    triples: list[tuple[int, int, float]], n_rows: int, dtype: Any
) -> tuple[Integers, Integers, NDArray[Any]]:
    """Compressed rows of (row, column, value)."""
    rows = _integers([row for row, _, _ in triples])
    bounds = np.searchsorted(rows, np.arange(n_rows + 1)).astype(np.int64)
    columns = _integers([column for _, column, _ in triples])
    return bounds, columns, np.asarray([value for _, _, value in triples], dtype=dtype)


def _end_of_degree(component: int) -> int:
    """First component of the next degree."""
    return (math.isqrt(component) + 1) ** 2


def trunk_size(n_edge_features: int, n_hidden: int) -> int:
    """Number of parameters of a radial trunk."""
    return n_hidden * (n_edge_features + n_hidden + 6)


@functools.cache
def make_plan(spec: tuple[int, ...], dtype_name: str) -> Plan:
    """Tables of a convolution.

    Args:
        spec: `l_in_max, n_channels_in, n_edge_features, n_hidden, n_trunks, n_harmonics`, then
            the channels of each output degree.
        dtype_name: "float32" or "float64".
    """
    l_in_max, n_in, n_edge_features, n_hidden, n_trunks, n_harmonics, *n_out = spec
    degrees = range(len(n_out))
    paths = [sum(n_paths(lo, li) for li in range(l_in_max + 1)) for lo in degrees]
    pairs = [
        [
            (sum(n_paths(lo, low) for low in range(li)) + j, li * li + m)
            for li in range(l_in_max + 1)
            for j in range(n_paths(lo, li))
            for m in range(2 * li + 1)
        ]
        for lo in degrees
    ]
    columns = [len(pairs[lo]) for lo in degrees]
    block_rows = [round_up(columns[lo] * n_out[lo], BLOCK) for lo in degrees]
    basis = [(2 * lo + 1) * columns[lo] for lo in degrees]
    padded = round_up(n_hidden, LANES)
    weights = [n_out[lo] * n_in * paths[lo] * padded for lo in degrees]
    size = trunk_size(n_edge_features, n_hidden)
    couplings = _couplings(l_in_max, len(n_out) - 1)
    forward = sparse_rows(couplings, sum(basis), dtype_name)
    backward = sparse_rows(sorted((k, b, c) for b, k, c in couplings), n_harmonics, dtype_name)

    def starts(sizes: list[int]) -> Integers:
        return _integers([sum(sizes[:lo]) for lo in degrees])

    return Plan(
        n_in, (l_in_max + 1) ** 2, n_edge_features, n_hidden, padded, n_trunks, size, len(n_out),
        sum(block_rows), sum(basis), n_harmonics,
        sum(n * (2 * lo + 1) for lo, n in enumerate(n_out)),
        n_trunks * size + sum(weights),
        _integers(n_out), _integers(columns), _integers(paths),
        _integers([lo if n_trunks > 1 else 0 for lo in degrees]),
        starts(columns), starts(block_rows), _integers(block_rows), starts(basis),
        starts([n * (2 * lo + 1) for lo, n in enumerate(n_out)]),
        n_trunks * size + starts(weights),
        _integers([path for lo in degrees for path, _ in pairs[lo]]),
        _integers([component for lo in degrees for _, component in pairs[lo]]),
        _integers([_end_of_degree(i) - i for lo in degrees for _, i in pairs[lo]]),
        *forward, *backward,
    )  # fmt: skip
