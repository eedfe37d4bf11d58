"""Dimers pulled apart: finding them in a data set, and their interaction energies.

A dimer scan is a molecule of `by_molecule` whose conformations are the same two rigid molecules at
different separations, as in S66x8. Labels of the molecules alone are rarely in the data (COMP6 has
none). They are not needed for energies relative to the largest separation: the molecules are rigid,
so their energies cancel,

    E_int(r) - E_int(r_max) = E_dimer(r) - E_dimer(r_max),

and the same difference is taken of a potential. What a potential says of E_int(r_max) itself, from
its own energies of the two molecules, is reported beside it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import formula
from trip_mm.evaluation.collection import predictions
from trip_mm.evaluation.journal import PredictionJournal
from trip_mm.evaluation.metrics import Deviation, deviation
from trip_mm.evaluation.molecules import by_molecule
from trip_mm.evaluation.predictors import Predictor
from trip_mm.geometry.fragments import bonds_from_distances, molecule_of_atoms
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import Group, group_name
from trip_mm.units import EV_TO_KCAL_PER_MOL

S66X8_FACTORS = (0.90, 0.95, 1.00, 1.05, 1.10, 1.25, 1.50, 2.00)
"""Separations of S66x8 over that of equilibrium (Rezac et al., JCTC 7, 2427, 2011)."""

S66_KINDS = (("hydrogen-bonded", 23), ("dispersion", 46), ("mixed", 66))
"""Kinds of interaction in S66 with the number of their last dimer."""

_FEWEST_POINTS = 3
_RIGID_WITHIN = 1e-3
_FACTOR_TOLERANCE = 0.02
_S66_MEMBER = re.compile(r"s66x8.*/mol(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class DimerScan:
    """Two rigid molecules at several separations.

    Attributes:
        name: of the group in its file.
        kind: kind of interaction, empty where unknown.
        atomic_numbers: `[n_atoms]`.
        molecules: molecule of each atom, 0 or 1, `[n_atoms]`.
        positions: by ascending separation, A, `[n_points, n_atoms, 3]`.
        closest: shortest distance between the molecules, A, `[n_points]`.
        energies: labels, eV, NaN where missing, `[n_points]`.
        n_unpaired: of each conformation, `[n_points]`.
    """

    name: str
    kind: str
    atomic_numbers: NDArray[np.int64]
    molecules: NDArray[np.int64]
    positions: NDArray[np.float64]
    closest: NDArray[np.float64]
    energies: NDArray[np.float64]
    n_unpaired: NDArray[np.int64]

    @property
    def label(self) -> str:
        """Formulas of the two molecules."""
        return " + ".join(formula(self.atomic_numbers[self.molecules == m]) for m in (0, 1))

    @property
    def relative_energies(self) -> NDArray[np.float64]:
        """Labels relative to the largest separation, kcal/mol, `[n_points]`."""
        return np.asarray((self.energies - self.energies[-1]) * EV_TO_KCAL_PER_MOL)

    @property
    def has_s66x8_factors(self) -> bool:
        """Whether the separations are those of S66x8."""
        if len(self.closest) != len(S66X8_FACTORS):
            return False
        ratios = self.closest / self.closest[S66X8_FACTORS.index(1.0)]
        return bool(np.allclose(ratios, S66X8_FACTORS, atol=_FACTOR_TOLERANCE))


@dataclass(frozen=True)
class InteractionCurve:
    """What a potential says of a dimer scan, kcal/mol, `[n_points]`.

    Attributes:
        scan: the dimer.
        relative: energies relative to the largest separation.
        interaction: energies relative to the two molecules alone; NaN where these failed, or the
            spin of the dimer does not tell theirs.
    """

    scan: DimerScan
    relative: NDArray[np.float64]
    interaction: NDArray[np.float64]


@dataclass(frozen=True)
class InteractionErrors:
    """Errors of interaction energies relative to the largest separation, kcal/mol.

    Attributes:
        n_dimers: number of scans.
        points: over all separations but the largest.
        mean_error: signed mean over the same points; negative is too attractive.
        well_depth: of the lowest point of each scan below its largest separation.
        remaining: mean absolute interaction energy of the potential at the largest separation.
    """

    n_dimers: int
    points: Deviation
    mean_error: float
    well_depth: Deviation
    remaining: float


def find_dimer_scans(dataset: Dataset) -> list[DimerScan]:
    """Finds conformations that are two rigid molecules at different separations."""
    scans = (_scan(groups) for groups in by_molecule(dataset.groups))
    return [scan for scan in scans if scan is not None]


def _scan(groups: Sequence[Group]) -> DimerScan | None:
    groups = [group for group in groups if group.n_conformations]
    if sum(group.n_conformations for group in groups) < _FEWEST_POINTS:
        return None
    numbers = groups[0].atomic_numbers
    first = groups[0].read(slice(0, 1)).positions[0]
    molecules = molecule_of_atoms(len(numbers), bonds_from_distances(numbers, first))
    if molecules.max() != 1:
        return None
    if any((group.atomic_numbers != numbers).any() for group in groups):
        return None
    blocks = [group.read(slice(0, group.n_conformations)) for group in groups]
    positions = np.concatenate([block.positions for block in blocks])
    for own in positions[1:]:
        if (molecule_of_atoms(len(numbers), bonds_from_distances(numbers, own)) != molecules).any():
            return None
    if not all(_is_rigid(positions[:, molecules == m]) for m in (0, 1)):
        return None
    between = positions[:, molecules == 0, None] - positions[:, None, molecules == 1]
    closest = np.linalg.norm(between, axis=-1).min(axis=(1, 2))
    order = np.argsort(closest, kind="stable")
    name = group_name(groups[0])
    return DimerScan(
        name,
        _s66_kind(name),
        numbers,
        molecules,
        positions[order],
        closest[order],
        np.concatenate([block.energies for block in blocks])[order],
        np.concatenate([block.n_unpaired for block in blocks])[order],
    )


def labelled_scans(scans: Sequence[DimerScan]) -> list[DimerScan]:
    """Returns the scans that have a label at every separation."""
    return [scan for scan in scans if np.isfinite(scan.energies).all()]


def relabelled_scans(
    scans: Sequence[DimerScan], reference: Predictor, journal: PredictionJournal
) -> list[DimerScan]:
    """Returns the scans with predictions of a potential as labels, where it gives all of them."""
    found = []
    for scan in scans:
        outcomes = predictions(
            reference, journal, scan.atomic_numbers, scan.positions, scan.n_unpaired
        )
        found.append(replace(scan, energies=np.array([own.energy for own in outcomes])))
    return labelled_scans(found)


def _is_rigid(positions: NDArray[np.float64]) -> bool:
    """Whether all distances within a molecule stay the same, `[n_points, n_atoms, 3]`."""
    distances = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    return bool(np.ptp(distances, axis=0).max() < _RIGID_WITHIN)


def _s66_kind(name: str) -> str:
    member = _S66_MEMBER.fullmatch(name.strip("/"))
    if member is None:
        return ""
    number = int(member.group(1)) + 1
    return next((kind for kind, last in S66_KINDS if number <= last), "")


def interaction_curves(
    scans: Sequence[DimerScan], predictor: Predictor, journal: PredictionJournal
) -> list[InteractionCurve]:
    """Evaluates dimers, and their molecules as they are in the dimer, with a potential.

    A scan in which one separation fails is left out.
    """
    curves = []
    for scan in scans:
        found = predictions(
            predictor, journal, scan.atomic_numbers, scan.positions, scan.n_unpaired
        )
        energies = np.array([outcome.energy for outcome in found])
        if not np.isfinite(energies).all():
            continue
        curves.append(
            InteractionCurve(
                scan,
                (energies - energies[-1]) * EV_TO_KCAL_PER_MOL,
                (energies - _energy_apart(scan, predictor, journal)) * EV_TO_KCAL_PER_MOL,
            )
        )
    return curves


def _energy_apart(scan: DimerScan, predictor: Predictor, journal: PredictionJournal) -> float:
    """Sums the energies of the two molecules alone, eV; NaN where one fails.

    Each is in its lowest state, a singlet or a doublet. A dimer of another spin leaves open which
    of its molecules the electrons are on: NaN.
    """
    of_molecules = [scan.molecules == molecule for molecule in (0, 1)]
    n_unpaired = [int(scan.atomic_numbers[own].sum()) % 2 for own in of_molecules]
    if sum(n_unpaired) != scan.n_unpaired[-1]:
        return float("nan")
    total = 0.0
    for own, unpaired in zip(of_molecules, n_unpaired, strict=True):
        (found,) = predictions(
            predictor,
            journal,
            scan.atomic_numbers[own],
            scan.positions[-1:, own],
            np.array([unpaired], dtype=np.int64),
        )
        total += found.energy
    return total


def interaction_errors(curves: Sequence[InteractionCurve]) -> dict[str, InteractionErrors]:
    """Computes the errors for each kind of interaction that occurs, and for all scans."""
    kinds = [kind for kind, _ in S66_KINDS if any(curve.scan.kind == kind for curve in curves)]
    found = {kind: _errors([c for c in curves if c.scan.kind == kind]) for kind in kinds}
    found["all"] = _errors(curves)
    return found


def _errors(curves: Sequence[InteractionCurve]) -> InteractionErrors:
    points = np.concatenate([(c.relative - c.scan.relative_energies)[:-1] for c in curves])
    depths = np.array([c.relative.min() - c.scan.relative_energies.min() for c in curves])
    remaining = np.array([abs(c.interaction[-1]) for c in curves])
    return InteractionErrors(
        len(curves),
        deviation(points),
        float(points.mean()),
        deviation(depths),
        float(remaining.mean()),
    )


def errors_by_separation(curves: Sequence[InteractionCurve]) -> dict[float, Deviation]:
    """Computes the errors at each separation of S66x8 but the largest; empty for other scans."""
    if not curves or not all(curve.scan.has_s66x8_factors for curve in curves):
        return {}
    errors = np.stack([curve.relative - curve.scan.relative_energies for curve in curves])
    return {
        factor: deviation(errors[:, column]) for column, factor in enumerate(S66X8_FACTORS[:-1])
    }
