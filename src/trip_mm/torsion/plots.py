"""Picture of torsion profiles."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.torsion.profile import Profile

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe-Ito: told apart by colour-blind readers too."""


def with_gaps(
    profile: Profile, grid_angles: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns a profile on the whole grid, NaN where it has no point, so that its line breaks.

    The point at 180 degrees is repeated at -180, where the curve closes.

    Args:
        profile: may lack angles of the grid.
        grid_angles: degrees.

    Returns:
        angles in degrees, ascending, and energies above the lowest, kcal/mol, `[n_angles]`.
    """
    angles = np.union1d(np.array(grid_angles, dtype=np.float64), profile.angles_deg)
    energies = np.full(len(angles), np.nan)
    energies[np.searchsorted(angles, profile.angles_deg)] = profile.relative_kcal_per_mol
    if angles[-1] == 180.0 and angles[0] > -180.0:
        angles, energies = np.insert(angles, 0, -180.0), np.insert(energies, 0, energies[-1])
    return angles, energies


def plot_profiles(
    profiles: Sequence[Profile],
    grid_angles: Sequence[float],
    axis_label: str,
    title: str,
    path: Path,
) -> None:
    """Draws energies above each profile's minimum against the dihedral angle.

    Args:
        profiles: at least one.
        grid_angles: degrees; the line of a profile without one of them has a gap there.
        axis_label: the dihedral, for the horizontal axis.
        title: the molecule.
        path: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, profile in enumerate(profiles):
        axes.plot(
            *with_gaps(profile, grid_angles),
            color=_COLORS[number % len(_COLORS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=4,
            linewidth=1.2,
            label=profile.label,
        )
    axes.set_xlim(-185, 185)
    axes.set_xticks(range(-180, 181, 60))
    axes.set_ylim(bottom=-0.2)
    axes.set_xlabel(f"{axis_label} dihedral angle (degrees)")
    axes.set_ylabel("relative energy (kcal/mol)")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2,
                  frameon=False, fontsize=8)  # fmt: skip
    figure.savefig(path, dpi=200)
