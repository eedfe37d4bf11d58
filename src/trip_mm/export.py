"""Portable form: TorchScript that needs only torch to run, checked against eager code first."""

from pathlib import Path

import torch
from torch import Tensor

from trip_mm.errors import ExportError
from trip_mm.files import replacing
from trip_mm.potential import TripPotential

ENERGY_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
"""Largest relative difference of energies, by dtype of the network."""
FORCE_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
"""Largest difference of a force component relative to the largest component, likewise."""

# A simple cubic lattice, slightly distorted so that no force is zero by symmetry.
_LATTICE_POINTS = 4
_DISTORTION = 0.15


def script(potential: TripPotential) -> torch.jit.ScriptModule:
    """Compiles a potential with TorchScript and checks the result.

    The module is called as `module(positions, atomic_numbers, cell)` with A, int64 and A or None,
    and returns the energy in eV, a float64 scalar that can be differentiated once. It computes in
    plain tensor operations on whichever device it is moved to.

    Args:
        potential: a potential; it stays as it is.

    Raises:
        ExportError: energy or forces of the compiled form differ from those of the eager form.
    """
    scripted: torch.jit.ScriptModule = torch.jit.script(potential)
    check(scripted, potential)
    return scripted


def save_torchscript(potential: TripPotential, path: str | Path) -> Path:
    """Writes a potential as TorchScript that `torch.jit.load` reads without trip-mm.

    What has been written is loaded again and checked before the file takes its name.

    Args:
        potential: the potential.
        path: file to write, by convention `*.pt`; replaced if it exists.

    Raises:
        ExportError: as in `script`, of the loaded file.
    """
    path = Path(path)
    with replacing(path) as temporary:
        torch.jit.save(script(potential), temporary)
        check(torch.jit.load(temporary, map_location=potential.device), potential)
    return path


def check(exported: torch.nn.Module, potential: TripPotential) -> None:
    """Compares an exported form with its potential, in open boundaries and in a cell.

    Raises:
        ExportError: they differ; the message names the quantity and the difference.
    """
    positions, atomic_numbers, cell = _probe(potential)
    # The second call runs what the profiling compiler has made of the first.
    for boundaries in (None, cell, None, cell):
        expected = _energy_and_forces(potential, positions, atomic_numbers, boundaries)
        found = _energy_and_forces(exported, positions, atomic_numbers, boundaries)
        where = "open boundaries" if boundaries is None else "a periodic cell"
        tolerances = (ENERGY_TOLERANCE[potential.dtype], FORCE_TOLERANCE[potential.dtype])
        for quantity, tolerance, a, b in zip(
            ("energy", "forces"), tolerances, expected, found, strict=True
        ):
            difference = float((a - b).abs().max() / a.abs().max())
            if not difference <= tolerance:
                raise ExportError(
                    f"{potential.name or 'potential'}: {quantity} of the exported form in {where} "
                    f"differ by {difference:.1e} from those of the potential (at most "
                    f"{tolerance:g} relative); use the potential itself and report this"
                )


def _probe(potential: TripPotential) -> tuple[Tensor, Tensor, Tensor]:
    """Returns positions, atomic numbers and a cell that hold every element, on its device."""
    spacing = 2.0 * potential.cutoff / _LATTICE_POINTS * 1.01
    points = torch.arange(_LATTICE_POINTS, dtype=torch.float64)
    lattice = torch.cartesian_prod(points, points, points)  # [n_atoms, 3]
    waves = torch.sin(torch.arange(lattice.numel(), dtype=torch.float64)).reshape(lattice.shape)
    positions = (lattice + _DISTORTION * waves) * spacing
    elements = torch.tensor(potential.supported_elements)
    atomic_numbers = elements[torch.arange(len(lattice)) % len(elements)]
    cell = torch.eye(3, dtype=torch.float64) * (_LATTICE_POINTS * spacing)
    device = potential.device
    return positions.to(device), atomic_numbers.to(device), cell.to(device)


def _energy_and_forces(
    module: torch.nn.Module, positions: Tensor, atomic_numbers: Tensor, cell: Tensor | None
) -> tuple[Tensor, Tensor]:
    leaf = positions.detach().clone().requires_grad_(True)
    energy = module(leaf, atomic_numbers, cell)
    (gradient,) = torch.autograd.grad(energy, leaf)
    return energy.detach(), -gradient
