"""Spherical harmonics times the envelope in few PyTorch operations, forward and backward.

On CUDA devices in place of the compiled kernel of `harmonics`, whose table of polynomials it
shares: powers of x, y, z, all monomials from them at once, one matrix product. No autograd: a
torch operator runs below it.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from trip_mm.model.kernels.dense import NAMES
from trip_mm.model.kernels.harmonics import monomials, polynomials


@functools.cache
@torch.inference_mode(False)
def _tables(degree: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Exponents `[3, n_monomials]` and coefficients `[n_monomials, n_harmonics]`."""
    table = polynomials(degree, NAMES[dtype])
    exponents = torch.tensor(monomials(degree)).T.contiguous()
    coefficients = torch.zeros(exponents.shape[1], (degree + 1) ** 2, dtype=dtype)
    columns = np.repeat(np.arange(len(table.bounds) - 1), np.diff(table.bounds))
    coefficients[table.monomial, columns] = torch.as_tensor(table.coefficient)
    return exponents.to(device), coefficients.to(device)


def _powers(vectors: Tensor, degree: int) -> Tensor:
    """Powers 0 ... `degree` of the coordinates, `[degree + 1, 3, n_edges]`."""
    coordinates = vectors.T
    powers = [torch.ones_like(coordinates)]
    for _ in range(degree):
        powers.append(powers[-1] * coordinates)
    return torch.stack(powers)


def _factors(powers: Tensor, exponents: Tensor) -> list[Tensor]:
    """The three factors of every monomial, `[n_monomials, n_edges]` each."""
    return [powers[:, axis].index_select(0, exponents[axis]) for axis in range(3)]


def harmonics(vectors: Tensor, envelope: Tensor, degree: int) -> Tensor:
    """Computes `harmonics.harmonics`."""
    exponents, coefficients = _tables(degree, vectors.dtype, vectors.device)
    x, y, z = _factors(_powers(vectors, degree), exponents)
    return ((x * y * z).T @ coefficients) * envelope.unsqueeze(1)


def harmonics_backward(
    gradient: Tensor, vectors: Tensor, envelope: Tensor, degree: int
) -> tuple[Tensor, Tensor]:
    """Computes `harmonics.harmonics_backward`."""
    exponents, coefficients = _tables(degree, vectors.dtype, vectors.device)
    powers = _powers(vectors, degree)
    x, y, z = _factors(powers, exponents)
    d_monomials = coefficients @ gradient.T  # [n_monomials, n_edges], without the envelope
    d_envelope = (d_monomials * x * y * z).sum(dim=0)
    orders = torch.arange(1, degree + 1, dtype=vectors.dtype, device=vectors.device)
    slopes = torch.cat([torch.zeros_like(powers[:1]), orders.view(-1, 1, 1) * powers[:-1]])
    dx, dy, dz = _factors(slopes, exponents)
    parts = [(d_monomials * product).sum(dim=0) for product in (dx * y * z, x * dy * z, x * y * dz)]
    return torch.stack(parts, dim=1) * envelope.unsqueeze(1), d_envelope
