"""Circular statistics of backbone torsions per secondary-structure state."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.analysis.series import series_mean
from trip_mm.analysis.states import StateSet

_FEWEST_CHANGES = 10


def too_short_text(n_changes: int) -> str:
    """Says why a trajectory is too short for populations, where `is_too_short` is true."""
    if n_changes == 0:
        return "no change of state was seen: too short for populations"
    return (
        f"changes of state seen: only {n_changes}; too short for populations, whose errors are not "
        "to be trusted"
    )


def circular_mean(angles_deg: NDArray[np.float64]) -> float:
    """Returns the direction in degrees, -180 to 180, of the mean unit vector of the angles.

    NaN for no angles, and where the mean vector vanishes (opposite angles have no mean direction).
    """
    mean = _mean_vector(angles_deg)
    if math.isnan(abs(mean)) or abs(mean) < 1e-12:
        return math.nan
    return math.degrees(math.atan2(mean.imag, mean.real))


def circular_standard_deviation(angles_deg: NDArray[np.float64]) -> float:
    """Returns sqrt(-2 ln R) in degrees, R the length of the mean unit vector.

    For a narrow distribution it equals the ordinary standard deviation. NaN for no angles, infinite
    for angles that cancel out.
    """
    length = abs(_mean_vector(angles_deg))
    if math.isnan(length):
        return math.nan
    if length < 1e-12:
        return math.inf
    return math.degrees(math.sqrt(-2.0 * math.log(min(length, 1.0))))


def _mean_vector(angles_deg: NDArray[np.float64]) -> complex:
    angles = np.radians(np.ravel(angles_deg))
    if angles.size == 0:
        return complex(math.nan, math.nan)
    return complex(np.cos(angles).mean(), np.sin(angles).mean())


@dataclass(frozen=True)
class StateStatistics:
    """One row of the table: how often a state occurs and where its points lie.

    `population` is the share of all points (0 to 1); means and spreads are in degrees and NaN for a
    state that never occurs. `standard_error` is that of the population, from the correlation of the
    frames in time (`series.statistical_inefficiency`); NaN where a run never enters or leaves the
    state, which tells nothing of how often it would.
    """

    state: str
    n_points: int
    population: float
    standard_error: float
    phi_mean_deg: float
    psi_mean_deg: float
    phi_spread_deg: float
    psi_spread_deg: float


@dataclass(frozen=True)
class TorsionStatistics:
    """Every state of a set for one residue, or for all residues pooled.

    `n_changes` counts the frames in which a residue is in another state than in the frame before.

    `unassigned` is the share of points in no state, `overlapping` of those in more than one (only
    the thesis's printed table overlaps; its populations may then add up to more than 1).
    """

    n_points: int
    states: tuple[StateStatistics, ...]
    unassigned: float
    overlapping: float
    n_changes: int

    @property
    def is_too_short(self) -> bool:
        """Whether populations say nothing: fewer than ten changes of state were seen.

        A point at the border of two states changes between them within femtoseconds.
        """
        return self.n_changes < _FEWEST_CHANGES


def torsion_statistics(
    phi_deg: NDArray[np.float64], psi_deg: NDArray[np.float64], states: StateSet
) -> TorsionStatistics:
    """Returns populations, circular means and circular standard deviations of each state.

    Args:
        phi_deg: `[n_frames]` or `[n_frames, n_residues]`, degrees, frames at equal distances in
            time; all points are pooled.
        psi_deg: same shape, degrees.
        states: the rectangles to sort the points into.
    """
    phi, psi = np.ravel(phi_deg), np.ravel(psi_deg)
    membership = states.membership(phi, psi)  # [n_states, n_points]
    counts = membership.sum(axis=0)  # [n_points]
    rows = tuple(
        StateStatistics(
            state=state.name,
            n_points=int(inside.sum()),
            population=_share(inside),
            standard_error=_standard_error(inside.reshape(phi_deg.shape)),
            phi_mean_deg=circular_mean(phi[inside]),
            psi_mean_deg=circular_mean(psi[inside]),
            phi_spread_deg=circular_standard_deviation(phi[inside]),
            psi_spread_deg=circular_standard_deviation(psi[inside]),
        )
        for state, inside in zip(states.states, membership, strict=True)
    )
    frames = membership.reshape(len(membership), *phi_deg.shape)  # [n_states, n_frames, ...]
    n_changes = int((frames[:, 1:] != frames[:, :-1]).any(axis=0).sum())
    return TorsionStatistics(phi.size, rows, _share(counts == 0), _share(counts > 1), n_changes)


def _share(inside: NDArray[np.bool_]) -> float:
    return float(inside.mean()) if inside.size else math.nan


def _standard_error(inside: NDArray[np.bool_]) -> float:
    """Returns the standard error of the share of points in a state, `[n_frames, ...]`."""
    shares = inside.reshape(len(inside), -1).mean(axis=1) if inside.size else np.zeros(0)
    if shares.size < 2 or np.ptp(shares) == 0.0:
        return math.nan
    return series_mean(shares).standard_error
