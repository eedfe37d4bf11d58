"""Periodic cells: inverse and heights, the check against the cutoff, the minimum image.

Minimum image: let n_i be the unit normal and h_i the height of the cell along lattice direction i.
A vector v has the fractional component f_i = v . n_i / h_i, so a vector shorter than half the
shortest height has |f_i| < 1/2 for every i. Hence rounding the fractional difference of two atoms
finds the only image within the cutoff, in every cell, reduced or not, whose shortest height is at
least twice the cutoff (TrIP thesis Eq. 24, generalised to triclinic cells).

Everything here also compiles as TorchScript, where an error is a `torch.jit.Error` that ends with
the same text.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trip_mm.errors import CellTooSmallError, DataError


class Lattice(NamedTuple):
    """A cell and what the search derives from it, in the dtype and on the device of positions."""

    cell: Tensor  # lattice vectors as rows, A, [3, 3]
    inverse: Tensor  # 1/A, [3, 3]
    heights: Tensor  # perpendicular heights, A, [3]
    shortest: float  # the smallest of them, A


def cell_geometry(cell: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse and perpendicular heights of a cell.

    Args:
        cell: lattice vectors as rows, A, [3, 3].

    Returns:
        Inverse, 1/A, [3, 3], and heights, A, [3], both float64.

    Raises:
        CellTooSmallError: the cell is not finite or encloses no volume.
    """
    cell = cell.detach().to(torch.float64)
    if not bool(torch.isfinite(cell).all()):
        raise CellTooSmallError("cell is not finite: its lattice vectors hold NaN or infinity")
    normals = torch.linalg.cross(cell[[1, 2, 0]], cell[[2, 0, 1]])
    volume = torch.dot(cell[0], normals[0])
    lengths = torch.linalg.norm(cell, dim=-1)
    if not bool(volume.abs() > 1e-9 * lengths.prod()):
        raise CellTooSmallError("cell is singular: its lattice vectors enclose no volume")
    return normals.t() / volume, volume.abs() / torch.linalg.norm(normals, dim=-1)


def minimum_cell_height(cell: Tensor) -> Tensor:
    """Shortest perpendicular height of a cell.

    Args:
        cell: lattice vectors as rows, A, [3, 3].

    Returns:
        The height, A, float64 scalar.

    Raises:
        CellTooSmallError: the cell is not finite or encloses no volume.
    """
    return cell_geometry(cell)[1].min()


def _three_decimals(value: float) -> str:
    """Text of a positive number with three decimals; TorchScript knows no format specifiers."""
    thousandths = int(round(value * 1000.0))  # noqa: RUF046 (in TorchScript round gives a float)
    return f"{thousandths // 1000}.{str(1000 + thousandths % 1000)[1:]}"


def _check_heights(heights: Tensor, cutoff: float) -> float:
    """Shortest of the heights (A, [3]); refuses one below twice the cutoff (A).

    Up to 1e-6 relative, the rounding of a box in single precision: the envelope of a pair at that
    distance is zero to all orders.
    """
    shortest = float(heights.min())
    if shortest * (1.0 + 1e-6) < 2.0 * cutoff:
        first, second, third = float(heights[0]), float(heights[1]), float(heights[2])
        raise CellTooSmallError(
            f"cell too small for the cutoff: its heights are {_three_decimals(first)}, "
            f"{_three_decimals(second)} and {_three_decimals(third)} A; a cutoff of "
            f"{_three_decimals(cutoff)} A needs at least {_three_decimals(2.0 * cutoff)} A; "
            "use a larger cell"
        )
    return shortest


def check_cell(cell: npt.ArrayLike | Tensor, cutoff: float) -> None:
    """Checks at the boundary of the program that a cell is large enough for the minimum image.

    Args:
        cell: lattice vectors as rows, A, [3, 3].
        cutoff: interaction range, A.

    Raises:
        CellTooSmallError: the shortest height is below twice the cutoff, or the cell is not a
            finite, non-singular [3, 3] matrix.
    """
    matrix = cell if isinstance(cell, Tensor) else torch.as_tensor(np.asarray(cell, dtype=float))
    if matrix.shape != (3, 3):
        raise CellTooSmallError(f"cell must be a 3 x 3 matrix, not of shape {tuple(matrix.shape)}")
    _check_heights(cell_geometry(matrix)[1], cutoff)


def prepare_lattice(positions: Tensor, cell: Tensor | None, cutoff: float) -> Lattice | None:
    """Prepares a cell for a search among positions; None if there is no cell.

    Args:
        positions: A, [n_atoms, 3]; give dtype and device.
        cell: lattice vectors as rows, A, [3, 3].
        cutoff: interaction range, A.

    Raises:
        CellTooSmallError: as `check_cell`.
    """
    if cell is None:
        return None
    inverse, heights = cell_geometry(cell)
    shortest = _check_heights(heights, cutoff)
    return Lattice(
        cell.detach().to(positions), inverse.to(positions), heights.to(positions), shortest
    )


def minimum_image(vectors: Tensor, lattice: Lattice | None) -> tuple[Tensor, Tensor]:
    """Nearest images of vectors, exact for those nearer than half the shortest height.

    Args:
        vectors: differences of positions, A, [n, 3].
        lattice: the cell; None for open boundaries.

    Returns:
        Shifted vectors, A, [n, 3], and the integer-valued shifts, [n, 3].
    """
    if lattice is None:
        return vectors, torch.zeros_like(vectors)
    shifts = -torch.round(vectors @ lattice.inverse)
    return vectors + shifts @ lattice.cell, shifts


def batched_inverses(cells: Tensor, n_systems: int, cutoff: float) -> Tensor:
    """Inverses of the cells of a batch, checked against the cutoff.

    Args:
        cells: lattice vectors as rows, A, [n_systems, 3, 3]; all zero for open boundaries.
        n_systems: number of systems that must have a cell.
        cutoff: interaction range, A.

    Returns:
        Inverses, 1/A, float64 [n_systems, 3, 3]; zero for a system with open boundaries.

    Raises:
        CellTooSmallError: as `check_cell`.
        DataError: the shape does not fit.
    """
    if cells.dim() != 3 or cells.shape[0] < n_systems or cells.shape[1:] != (3, 3):
        raise DataError(f"cells of shape {tuple(cells.shape)} for {n_systems} systems")
    inverses = torch.zeros(cells.shape, dtype=torch.float64, device=cells.device)
    for i, cell in enumerate(cells):
        if bool((cell != 0).any()):
            check_cell(cell.detach(), cutoff)
            inverses[i] = cell_geometry(cell)[0]
    return inverses
