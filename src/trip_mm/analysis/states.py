"""Secondary-structure states as rectangles of the Ramachandran torus.

The torus is phi x psi with both angles in degrees, -180 inclusive to 180 exclusive. An interval is
half-open, `lower <= angle < upper`, and wraps through 180 when its lower bound is the larger one,
so that neighbouring rectangles share no point.

Source: TrIP thesis, Table 4. As printed, P_II (psi 50 to -40) overlaps alpha_R (psi -110 to 50)
where -90 <= phi < 20 and -110 <= psi < -40. With -110 in place of -40 the five rectangles tile the
torus exactly: that is `TILED`, the default; `THESIS` is the table as printed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import ConfigError


def wrapped(angles_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the angles in degrees moved by whole turns into -180 <= angle < 180.

    Angles that are there already come back unchanged to the last bit, so that the boundaries
    between states are exact.
    """
    angles = np.asarray(angles_deg, dtype=np.float64)
    turned = np.mod(angles + 180.0, 360.0) - 180.0
    turned = np.where(turned >= 180.0, -180.0, turned)  # np.mod may round up to 360 itself
    return np.where((angles >= -180.0) & (angles < 180.0), angles, turned)


@dataclass(frozen=True)
class Interval:
    """A half-open arc of the circle from `lower` to `upper`, in degrees, wrapping where needed."""

    lower: float
    upper: float

    def contains(self, angles_deg: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Returns which angles (degrees, any multiple of 360 off) lie on the arc.

        NaN lies on no arc.
        """
        angles = wrapped(angles_deg)
        above, below = angles >= self.lower, angles < self.upper
        inside: NDArray[np.bool_] = above & below if self.lower < self.upper else above | below
        return inside

    def pieces(self) -> tuple[tuple[float, float], ...]:
        """Returns the arc as one or two (lower, upper) pieces within -180 to 180, for drawing."""
        if self.lower < self.upper:
            return ((self.lower, self.upper),)
        return tuple(
            piece for piece in ((self.lower, 180.0), (-180.0, self.upper)) if piece[0] < piece[1]
        )


@dataclass(frozen=True)
class State:
    """A named rectangle of the torus; `label` is its name in matplotlib's mathematical text."""

    name: str
    label: str
    phi: Interval
    psi: Interval

    def contains(
        self, phi_deg: NDArray[np.float64], psi_deg: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Returns which (phi, psi) pairs in degrees lie in the rectangle, same shape as given."""
        inside: NDArray[np.bool_] = self.phi.contains(phi_deg) & self.psi.contains(psi_deg)
        return inside


@dataclass(frozen=True)
class StateSet:
    """States in the order in which tables print them."""

    name: str
    states: tuple[State, ...]

    def membership(
        self, phi_deg: NDArray[np.float64], psi_deg: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Returns which states each (phi, psi) pair belongs to.

        Args:
            phi_deg: any shape `[...]`, degrees.
            psi_deg: same shape, degrees.

        Returns:
            `[n_states, ...]`, boolean; a column may be all false (unassigned) or, in an
            overlapping set, true more than once.
        """
        return np.stack([state.contains(phi_deg, psi_deg) for state in self.states])

    def labels(self, phi_deg: NDArray[np.float64], psi_deg: NDArray[np.float64]) -> list[str]:
        """Returns the state name of each pair of the flattened arrays.

        Empty where no state holds the pair; names joined by `+` where several do.
        """
        membership = self.membership(np.ravel(phi_deg), np.ravel(psi_deg))
        return [
            "+".join(
                state.name for state, inside in zip(self.states, column, strict=True) if inside
            )
            for column in membership.T
        ]


def _state_set(name: str, polyproline_psi_upper: float) -> StateSet:
    return StateSet(
        name,
        (
            State("beta", r"$\beta$", Interval(130, -90), Interval(50, -110)),
            State(
                "P_II", r"P$_\mathrm{II}$", Interval(-90, 20), Interval(50, polyproline_psi_upper)
            ),
            State("alpha_R", r"$\alpha_\mathrm{R}$", Interval(130, 20), Interval(-110, 50)),
            State("alpha_L", r"$\alpha_\mathrm{L}$", Interval(20, 130), Interval(-90, 120)),
            State("P", "P", Interval(20, 130), Interval(120, -90)),
        ),
    )


TILED = _state_set("tiled", polyproline_psi_upper=-110)
THESIS = _state_set("thesis", polyproline_psi_upper=-40)
STATE_SETS: dict[str, StateSet] = {TILED.name: TILED, THESIS.name: THESIS}


def state_set(name: str) -> StateSet:
    """Returns the set of states of this name, `tiled` or `thesis`.

    Raises:
        ConfigError: there is no such set.
    """
    if name not in STATE_SETS:
        raise ConfigError(f"state set {name!r} does not exist; use one of {', '.join(STATE_SETS)}")
    return STATE_SETS[name]
