"""Torsion profiles and how they differ from a reference."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import DataError
from trip_mm.geometry.dihedral import wrapped
from trip_mm.units import EV_TO_KCAL_PER_MOL


@dataclass(frozen=True)
class Profile:
    """Energy along a dihedral.

    Attributes:
        label: name of the potential, and where its geometries come from if not its own.
        angles_deg: ascending, degrees, `[n_points]`.
        energies: eV, `[n_points]`.
    """

    label: str
    angles_deg: NDArray[np.float64]
    energies: NDArray[np.float64]

    @property
    def relative_kcal_per_mol(self) -> NDArray[np.float64]:
        """Energies above the lowest, kcal/mol."""
        relative: NDArray[np.float64] = self.energies - self.energies.min()
        return relative * EV_TO_KCAL_PER_MOL


@dataclass(frozen=True)
class Deviation:
    """How a profile differs from a reference, on the angles that both have.

    RMSE and MAE are those after the mean difference is removed, because the zero of a profile is
    arbitrary. The barrier is the highest point above the lowest of the same profile.

    Attributes:
        n_points: common angles.
        rmse_kcal_per_mol: root of the mean square difference.
        mae_kcal_per_mol: mean absolute difference.
        max_error_kcal_per_mol: largest absolute difference.
        barrier_error_kcal_per_mol: barrier minus that of the reference.
        barrier_shift_deg: angle of the highest point minus the reference's, in (-180, 180].
        minimum_shift_deg: angle of the lowest point minus the reference's, in (-180, 180].
    """

    n_points: int
    rmse_kcal_per_mol: float
    mae_kcal_per_mol: float
    max_error_kcal_per_mol: float
    barrier_error_kcal_per_mol: float
    barrier_shift_deg: float
    minimum_shift_deg: float

    def to_dict(self) -> dict[str, float]:
        """Returns the numbers by name."""
        return asdict(self)


def deviation(profile: Profile, reference: Profile) -> Deviation:
    """Compares a profile with a reference.

    Raises:
        DataError: they have fewer than two angles in common.
    """
    common, own, other = np.intersect1d(
        profile.angles_deg, reference.angles_deg, return_indices=True
    )
    if len(common) < 2:
        raise DataError(
            f"profiles {profile.label} and {reference.label} share {len(common)} angles; nothing "
            "can be compared"
        )
    a = profile.energies[own] * EV_TO_KCAL_PER_MOL
    b = reference.energies[other] * EV_TO_KCAL_PER_MOL
    difference = (a - b) - (a - b).mean()
    return Deviation(
        len(common),
        float(np.sqrt(np.square(difference).mean())),
        float(np.abs(difference).mean()),
        float(np.abs(difference).max()),
        float(np.ptp(a) - np.ptp(b)),
        wrapped(float(common[a.argmax()] - common[b.argmax()])),
        wrapped(float(common[a.argmin()] - common[b.argmin()])),
    )
