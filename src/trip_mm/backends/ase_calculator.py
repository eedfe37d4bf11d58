"""TrIP as a calculator of ASE.

```python
from trip_mm.backends.ase_calculator import TripCalculator

atoms.calc = TripCalculator("trip-gfn2-s", dtype="float64")
```
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from trip_mm.checkpoint import load_potential
from trip_mm.errors import ConfigError, UnsupportedSystemError
from trip_mm.neighbors import check_cell
from trip_mm.potential import TripPotential


class TripCalculator(Calculator):
    """Energy (eV), forces (eV/A) and stress (eV/A^3) of ASE's Atoms.

    Atoms are periodic in all three directions or in none. On the CPU the compiled kernels compute.
    An optimizer that goes below 1e-4 eV/A wants `dtype="float64"`.

    Attributes:
        potential: the potential behind the calculator.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(
        self,
        potential: TripPotential | str | Path,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        """Loads the potential.

        Args:
            potential: a potential, a registered name or a checkpoint file. `device` and `dtype`
                apply to the last two; a potential given keeps its own.
            device: where the network runs, as torch names it.
            dtype: `float32` or `float64`, the arithmetic of the network.

        Raises:
            CheckpointError: no such model, or a damaged file.
            ConfigError: unknown device or dtype; a potential of reduced precision.
        """
        super().__init__()
        if not isinstance(potential, TripPotential):
            potential = load_potential(str(potential), device=device, dtype=dtype)
        if potential.reduced_precision:
            raise ConfigError(
                f"TripCalculator does not check {potential.reduced_precision} and refuses it; use "
                "the potential in float32, or add_trip_force with a check"
            )
        on_known_device = potential.device.type in ("cpu", "cuda")
        self.potential = potential.with_kernels() if on_known_device else potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Computes energy and forces, and the stress if it is asked for and there is a cell.

        Raises:
            UnsupportedSystemError: periodic in some directions only; stress without a cell.
            UnsupportedElementError: an element that the model has never seen.
            CellTooSmallError: a cell whose shortest height is less than twice the cutoff.
        """
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise ConfigError("the calculator has no atoms to compute")
        numbers = self.atoms.get_atomic_numbers()
        cell = _cell(self.atoms)
        if "stress" in (properties or ()):
            if cell is None:
                raise UnsupportedSystemError("stress needs a cell that is periodic in x, y and z")
            self._calculate_with_stress(self.atoms, cell)
            return
        energy, forces = self.potential.energy_and_forces(self.atoms.positions, numbers, cell)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}

    def _calculate_with_stress(self, atoms: Atoms, cell: NDArray[np.float64]) -> None:
        device = self.potential.device
        positions, rows = (
            torch.as_tensor(values, dtype=torch.float64, device=device)
            for values in (atoms.positions, cell)
        )
        numbers = torch.as_tensor(atoms.get_atomic_numbers(), dtype=torch.int64, device=device)
        self.potential.check_elements(numbers)
        check_cell(rows, self.potential.cutoff)
        energy, forces, virial = self.potential.energy_forces_virial(positions, numbers, rows)
        stress = -virial.cpu().numpy() / atoms.get_volume()
        self.results = {
            "energy": float(energy),
            "free_energy": float(energy),
            "forces": forces.cpu().numpy(),
            "stress": full_3x3_to_voigt_6_stress(stress),
        }


def _cell(atoms: Atoms) -> NDArray[np.float64] | None:
    """Lattice vectors in A, rows `[3, 3]`; None for open boundaries."""
    if not any(atoms.pbc):
        return None
    if not all(atoms.pbc):
        raise UnsupportedSystemError(
            f"pbc={[bool(flag) for flag in atoms.pbc]}: TrIP knows periodic in x, y and z, or not"
            " at all; set atoms.pbc = True or False"
        )
    cell: Any = atoms.cell.array
    return np.asarray(cell, dtype=np.float64)
