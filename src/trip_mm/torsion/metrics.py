"""How far a potential's torsion drive lies from the reference: one set of numbers for a record."""

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit.Chem import TorsionFingerprints as Fingerprints
from scipy.spatial.distance import jensenshannon

from trip_mm.geometry.dihedral import wrapped
from trip_mm.torsion.profile import Profile, deviation
from trip_mm.torsion.records import DrivenPoints, TorsionRecord, placed
from trip_mm.units import BOLTZMANN_CONSTANT

# The module carries no types.
_FINGERPRINTS: Any = Fingerprints

EXTREMUM_TOLERANCE_KCAL_PER_MOL = 0.1
"""Angles this close in energy to the highest (lowest) point count as highest (lowest) too."""


@dataclass(frozen=True)
class RecordScore:
    """Scores of one record and potential; NaN where a score is not defined.

    Attributes:
        rmse_kcal_per_mol: of the profile, after the mean difference is removed.
        mae_kcal_per_mol: likewise.
        max_error_kcal_per_mol: likewise.
        barrier_error_kcal_per_mol: highest minus lowest point, minus the same of the reference.
        abs_barrier_error_kcal_per_mol: its magnitude.
        barrier_position_error_deg: smallest angle between highest points.
        minimum_position_error_deg: smallest angle between lowest points.
        jensen_shannon_distance: of the Boltzmann weights over the grid, 0 to 1.
        rmsd_angstrom: mean over the grid of the RMSD of all atoms after superposition.
        torsion_fingerprint_deviation: mean over the grid; NaN for molecules without a torsion of
            four heavy atoms.
    """

    rmse_kcal_per_mol: float
    mae_kcal_per_mol: float
    max_error_kcal_per_mol: float
    barrier_error_kcal_per_mol: float
    abs_barrier_error_kcal_per_mol: float
    barrier_position_error_deg: float
    minimum_position_error_deg: float
    jensen_shannon_distance: float
    rmsd_angstrom: float = float("nan")
    torsion_fingerprint_deviation: float = float("nan")

    def to_dict(self) -> dict[str, float]:
        """Returns the scores by name."""
        return asdict(self)


SCORES = tuple(field.name for field in fields(RecordScore))


def score(
    record: TorsionRecord, found: DrivenPoints, temperature: float, relaxed: bool
) -> RecordScore:
    """Compares a potential's points with the reference's at the same grid angles.

    Args:
        record: with reference points.
        found: energies, and geometries where they were relaxed, at all grid angles.
        temperature: of the Boltzmann weights, K.
        relaxed: whether the geometries are the potential's own, so that they are compared.

    Raises:
        DataError: fewer than two common angles, or the record has no points.
    """
    reference = record.profile()
    profile = Profile("", found.angles_deg, found.energies)
    differs = deviation(profile, reference)
    rmsd = fingerprint = float("nan")
    if relaxed and record.points is not None:
        pairs = list(zip(found.positions, record.points.positions, strict=True))
        rmsd = float(np.mean([superposed_rmsd(one, other) for one, other in pairs]))
        fingerprint = mean_fingerprint_deviation(record, found)
    return RecordScore(
        differs.rmse_kcal_per_mol,
        differs.mae_kcal_per_mol,
        differs.max_error_kcal_per_mol,
        differs.barrier_error_kcal_per_mol,
        abs(differs.barrier_error_kcal_per_mol),
        position_error(highest(profile), highest(reference)),
        position_error(lowest(profile), lowest(reference)),
        boltzmann_distance(profile.energies, reference.energies, temperature),
        rmsd,
        fingerprint,
    )


def highest(profile: Profile) -> NDArray[np.float64]:
    """Returns the angles of the highest point and those within the tolerance of it, degrees."""
    energies = profile.relative_kcal_per_mol
    near = energies >= energies.max() - EXTREMUM_TOLERANCE_KCAL_PER_MOL
    found: NDArray[np.float64] = profile.angles_deg[near]
    return found


def lowest(profile: Profile) -> NDArray[np.float64]:
    """Returns the angles of the lowest point and those within the tolerance of it, degrees."""
    near = profile.relative_kcal_per_mol <= EXTREMUM_TOLERANCE_KCAL_PER_MOL
    found: NDArray[np.float64] = profile.angles_deg[near]
    return found


def position_error(own: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Returns the smallest angle in degrees between two sets of angles.

    Symmetric molecules have equal extrema at several angles; which of them is the highest by
    rounding must not count.
    """
    return min(abs(wrapped(float(a - b))) for a in own for b in reference)


def boltzmann_distance(
    own: NDArray[np.float64], reference: NDArray[np.float64], temperature: float
) -> float:
    """Returns the Jensen-Shannon distance between the Boltzmann weights of two profiles.

    The square root of the divergence in bits (Lin, IEEE Trans. Inf. Theory 37, 145 (1991)): 0 for
    equal weights, 1 for weights without overlap.

    Args:
        own: eV, `[n_points]`.
        reference: eV, `[n_points]`.
        temperature: K.
    """
    weights = [
        np.exp(-(energies - energies.min()) / (BOLTZMANN_CONSTANT * temperature))
        for energies in (own, reference)
    ]
    # Rounding can leave the divergence of equal weights below zero.
    with np.errstate(invalid="ignore"):
        distance = float(jensenshannon(weights[0], weights[1], base=2))
    return 0.0 if np.isnan(distance) else distance


def superposed_rmsd(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Returns the RMSD in A of all atoms after the best rotation (Kabsch), no reflection.

    Args:
        one: A, `[n_atoms, 3]`.
        other: A, `[n_atoms, 3]`, same order.
    """
    a, b = one - one.mean(axis=0), other - other.mean(axis=0)
    u, singular, vt = np.linalg.svd(a.T @ b)
    singular[-1] *= np.sign(np.linalg.det(u @ vt))
    square = (np.square(a).sum() + np.square(b).sum() - 2.0 * singular.sum()) / len(a)
    return float(np.sqrt(max(square, 0.0)))


def mean_fingerprint_deviation(record: TorsionRecord, found: DrivenPoints) -> float:
    """Returns the torsion fingerprint deviation, averaged over the grid.

    Weighted by the distance of each torsion from the centre, as RDKit has it (Schulz-Gasch et al.,
    J. Chem. Inf. Model. 52, 1499 (2012)). The driven torsion is among them and equal by
    construction.
    """
    one = record.molecule(0).rdkit
    torsions, ring_torsions = _FINGERPRINTS.CalculateTorsionLists(one)
    if not torsions and not ring_torsions:
        return float("nan")
    weights = _FINGERPRINTS.CalculateTorsionWeights(one)
    values = []
    for index in range(found.n_points):
        both = [
            _FINGERPRINTS.CalculateTorsionAngles(mol, torsions, ring_torsions)
            for mol in (
                record.molecule(index).rdkit,
                placed(one, found.positions[index], record.label).rdkit,
            )
        ]
        values.append(_FINGERPRINTS.CalculateTFD(both[0], both[1], weights=weights))
    return float(np.mean(values))
