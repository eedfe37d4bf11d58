"""Errors of predictions as COMP6 counts them, in kcal/mol and A.

Energies are compared per conformation, forces per component (Smith et al., J. Chem. Phys. 148,
241733, 2018; TrIP thesis, Table 5). Relative energies are differences between conformations of one
molecule, over all pairs, which no energy offset can touch. The window keeps conformations at most
100 kcal/mol above the lowest one of their formula in their subset.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import SYMBOLS
from trip_mm.evaluation.collection import LabelledSet, PredictedSet
from trip_mm.files import json_number
from trip_mm.units import EV_TO_KCAL_PER_MOL

POOLED = "all"
WINDOW_KCAL_PER_MOL = 100.0


@dataclass(frozen=True)
class Deviation:
    """Mean absolute error and root of the mean square error of `n` numbers; NaN for none."""

    mae: float
    rmse: float
    n: int


@dataclass(frozen=True)
class SetErrors:
    """Errors over some conformations.

    Attributes:
        n_conformations: their number.
        energy: per conformation, kcal/mol.
        energy_mae_per_atom: mean of absolute error / n_atoms, kcal/mol.
        relative_energy: over pairs of one molecule, kcal/mol.
        force: per component, kcal/mol/A.
    """

    n_conformations: int
    energy: Deviation
    energy_mae_per_atom: float
    relative_energy: Deviation
    force: Deviation

    def to_dict(self) -> dict[str, object]:
        """Returns the numbers by names that carry their units; what is undefined is None."""
        named = {
            "energy_kcal_per_mol": self.energy,
            "relative_energy_kcal_per_mol": self.relative_energy,
            "force_kcal_per_mol_per_angstrom": self.force,
        }
        found: dict[str, object] = {
            "n_conformations": self.n_conformations,
            "energy_mae_kcal_per_mol_per_atom": json_number(self.energy_mae_per_atom),
        }
        for name, deviation in named.items():
            found[name] = {k: json_number(v) for k, v in asdict(deviation).items()}
        return found


def deviation(errors: NDArray[np.float64]) -> Deviation:
    """Returns mean absolute error and RMSE of any number of errors."""
    if errors.size == 0:
        return Deviation(float("nan"), float("nan"), 0)
    return Deviation(
        float(np.abs(errors).mean()), float(np.sqrt(np.square(errors).mean())), errors.size
    )


def pair_deviation(errors: NDArray[np.float64], molecule_idx: NDArray[np.int64]) -> Deviation:
    """Returns the deviation of differences between all pairs of one molecule.

    With the errors d sorted ascending, the sum of |d_i - d_j| over pairs is
    sum_k (2 k - n + 1) d_k, and the sum of squares n sum (d - mean)^2: no pair is formed.

    Args:
        errors: of each conformation, `[n_conf]`.
        molecule_idx: `[n_conf]`.
    """
    absolute = squared = 0.0
    n_pairs = 0
    order = np.lexsort((errors, molecule_idx))
    bounds = np.flatnonzero(np.diff(molecule_idx[order])) + 1
    for own in np.split(errors[order], bounds):
        n = len(own)
        centred = own - own.mean() if n else own
        absolute += float(((2.0 * np.arange(n) - n + 1.0) * centred).sum())
        squared += float(n * np.square(centred).sum())
        n_pairs += n * (n - 1) // 2
    if n_pairs == 0:
        return Deviation(float("nan"), float("nan"), 0)
    return Deviation(absolute / n_pairs, float(np.sqrt(squared / n_pairs)), n_pairs)


@dataclass(frozen=True)
class ElementOffsets:
    """Energy per atom of each element that brings predictions to the zero of the labels.

    Attributes:
        energies: eV, by atomic number; empty where none are applied.
    """

    energies: dict[int, float]

    def to_dict(self) -> dict[str, float]:
        """Returns the offsets in eV by element symbol."""
        return {SYMBOLS[z]: energy for z, energy in self.energies.items()}

    def total(self, labelled: LabelledSet) -> NDArray[np.float64]:
        """Returns the offset of each conformation, eV, `[n_conf]`."""
        per_element = [self.energies.get(z, 0.0) for z in labelled.elements]
        return labelled.compositions @ np.array(per_element, dtype=np.float64)


NO_OFFSETS = ElementOffsets({})


def fitted_offsets(labelled: LabelledSet, predicted: PredictedSet) -> ElementOffsets:
    """Regresses labels minus predictions on composition, all conformations alike, in float64.

    Where compositions cannot tell elements apart (pure water), the smallest offsets are taken.
    """
    targets = labelled.energies - predicted.energies
    solution, *_ = np.linalg.lstsq(labelled.compositions, targets, rcond=None)
    return ElementOffsets(dict(zip(labelled.elements, map(float, solution), strict=True)))


def within_window(labelled: LabelledSet) -> NDArray[np.bool_]:
    """Marks conformations at most 100 kcal/mol above the lowest of their formula and subset."""
    keys = labelled.subset_idx * (int(labelled.formula_idx.max(initial=0)) + 1)
    _, inverse = np.unique(keys + labelled.formula_idx, return_inverse=True)
    lowest = np.full(int(inverse.max(initial=-1)) + 1, np.inf)
    np.minimum.at(lowest, inverse, labelled.energies)
    above = (labelled.energies - lowest[inverse]) * EV_TO_KCAL_PER_MOL
    return np.asarray(above <= WINDOW_KCAL_PER_MOL)


def errors_by_subset(
    labelled: LabelledSet,
    predicted: PredictedSet,
    offsets: ElementOffsets,
    keep: NDArray[np.bool_] | None = None,
) -> dict[str, SetErrors]:
    """Computes the errors of every subset, and of all conformations under `all`.

    Args:
        labelled: the labels.
        predicted: of one potential.
        offsets: added to the predicted energies.
        keep: conformations to count, `[n_conf]`; all by default.
    """
    energy = (predicted.energies + offsets.total(labelled) - labelled.energies) * EV_TO_KCAL_PER_MOL
    force = (predicted.forces - labelled.forces) * EV_TO_KCAL_PER_MOL
    chosen = np.ones(len(labelled), dtype=bool) if keep is None else keep
    found = {}
    for number, name in enumerate(labelled.subsets):
        rows = chosen & (labelled.subset_idx == number)
        if rows.any():
            found[name] = _errors(labelled, energy, force, rows)
    found[POOLED] = _errors(labelled, energy, force, chosen)
    return found


def _errors(
    labelled: LabelledSet,
    energy: NDArray[np.float64],
    force: NDArray[np.float64],
    rows: NDArray[np.bool_],
) -> SetErrors:
    n_atoms = labelled.n_atoms
    return SetErrors(
        int(rows.sum()),
        deviation(energy[rows]),
        deviation(energy[rows] / n_atoms[rows]).mae,
        pair_deviation(energy[rows], labelled.molecule_idx[rows]),
        deviation(force[np.repeat(rows, n_atoms)]),
    )
