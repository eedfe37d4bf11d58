"""The Ramachandran picture: points or a free-energy surface, with the states drawn and labelled."""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from trip_mm.analysis.states import State, StateSet, wrapped
from trip_mm.analysis.statistics import TorsionStatistics, torsion_statistics
from trip_mm.analysis.torsions import RamachandranResult
from trip_mm.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

SURFACE_MIN_POINTS = 2000
"""From this many points in a panel on, a free-energy surface replaces the points."""

MAX_PANELS = 12
"""A panel per residue up to this many residues, one pooled panel beyond."""

BIN_WIDTH = 3.0
"""Histogram bins of the surface in degrees."""

SMOOTHING = 6.0
"""Standard deviation in degrees of the periodic Gaussian that smooths the histogram."""

MAX_FREE_ENERGY = 7.0
"""Upper end of the colour scale in k_B T."""

_ABOVE_FRAME = 2.6
"""Between the frame of the picture and the borders of states."""

_TICKS = np.arange(-180, 181, 60)
_STYLE = {
    "font.size": 9,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "mathtext.fontset": "dejavusans",
}


def free_energy_surface(
    phi_deg: NDArray[np.float64], psi_deg: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns -ln p(phi, psi) in k_B T, zero at its minimum, on a periodic grid.

    The histogram is smoothed by a Gaussian that wraps at 180 degrees. NaN where the smoothed count
    is below a tenth of what a single point has at its peak: nothing was sampled there.

    Args:
        phi_deg: `[n_points]`, degrees.
        psi_deg: `[n_points]`, degrees.

    Returns:
        Bin centres in degrees `[n_bins]` and the surface `[n_bins (psi), n_bins (phi)]`.
    """
    n_bins = round(360.0 / BIN_WIDTH)
    edges = np.linspace(-180.0, 180.0, n_bins + 1)
    counts, _, _ = np.histogram2d(wrapped(psi_deg), wrapped(phi_deg), bins=[edges, edges])
    width = SMOOTHING / BIN_WIDTH
    smooth = ndimage.gaussian_filter(counts, sigma=width, mode="wrap", truncate=5.0)
    threshold = 0.1 / (2.0 * math.pi * width**2)
    sampled = np.where(smooth >= threshold, smooth, np.nan)
    surface: NDArray[np.float64] = -np.log(sampled / np.nanmax(sampled))
    return 0.5 * (edges[1:] + edges[:-1]), surface


def ramachandran_figure(result: RamachandranResult, states: StateSet) -> "Figure":
    """Draws phi against psi, a panel per residue, with the rectangles of the states.

    Few frames are drawn as points coloured by time, many (`SURFACE_MIN_POINTS`) as free energy.

    Args:
        result: the torsions.
        states: the set of states whose boundaries, names and populations are drawn.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = _panels(result)
    n_columns = min(len(panels), 4)
    n_rows = math.ceil(len(panels) / n_columns)
    n_points = panels[0][1].size
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.6 * n_columns + 0.9, 3.7 * n_rows + 0.2), layout="constrained")
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        drawn: Any = None
        for axes, (title, phi, psi) in zip(grid.flat, panels, strict=False):
            statistics = torsion_statistics(phi, psi, states)
            short = "\ntoo short for populations" if statistics.is_too_short else ""
            _draw_axes(axes, f"{title} ({result.extent}){short}")
            points = np.ravel(phi), np.ravel(psi)
            if n_points >= SURFACE_MIN_POINTS:
                drawn = _draw_surface(axes, *points)
            else:
                drawn = axes.scatter(
                    *points,
                    c=np.repeat(result.times_ps, n_points // result.n_frames),
                    s=_marker_area(n_points),
                    cmap="viridis",
                    edgecolors="white",
                    linewidths=0.3,
                    clip_on=False,  # whole markers also where phi or psi is 180 degrees
                    zorder=_ABOVE_FRAME,
                )
            _draw_states(axes, states, statistics)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        label = r"Free energy ($k_\mathrm{B}T$)" if n_points >= SURFACE_MIN_POINTS else "Time (ps)"
        figure.colorbar(drawn, ax=grid, label=label, shrink=0.85, pad=0.02, aspect=30)
    return figure


def write_picture(result: RamachandranResult, path: Path, states: StateSet) -> None:
    """Writes the Ramachandran picture (300 dots per inch); the suffix chooses the format."""
    content = io.BytesIO()
    ramachandran_figure(result, states).savefig(content, dpi=300, format=path.suffix.lstrip("."))
    write_atomically(path, content.getvalue())


def _panels(
    result: RamachandranResult,
) -> list[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
    """Returns title, phi and psi of each panel.

    The angles are `[n_frames]`, pooled `[n_frames, n_residues]`: flat, neighbouring residues would
    count as changes of state.
    """
    if len(result.residues) > MAX_PANELS:
        title = f"{len(result.residues)} residues pooled"
        return [(title, result.phi_deg, result.psi_deg)]
    return [
        (name, result.phi_deg[:, index], result.psi_deg[:, index])
        for index, name in enumerate(result.residues)
    ]


def _marker_area(n_points: int) -> float:
    """Returns the area of a scatter marker in points squared: large when there are few."""
    return float(np.clip(4000.0 / max(n_points, 1), 4.0, 30.0))


def _draw_axes(axes: "Axes", title: str) -> None:
    axes.set(
        xlim=(-180, 180),
        ylim=(-180, 180),
        xticks=_TICKS,
        yticks=_TICKS,
        xlabel=r"$\phi$ (degrees)",
        ylabel=r"$\psi$ (degrees)",
        title=title,
        aspect="equal",
    )


def _draw_surface(
    axes: "Axes", phi: NDArray[np.float64], psi: NDArray[np.float64]
) -> "QuadContourSet":
    centres, surface = free_energy_surface(phi, psi)
    # One more bin on each side closes the surface across the border of the picture.
    grid = np.concatenate([centres[-1:] - 360.0, centres, centres[:1] + 360.0])
    closed = np.pad(surface, 1, mode="wrap")
    levels = np.linspace(0.0, MAX_FREE_ENERGY, int(2 * MAX_FREE_ENERGY) + 1)
    drawn = axes.contourf(grid, grid, closed, levels=levels, cmap="viridis", extend="max")
    axes.contour(grid, grid, closed, levels=levels[2::2], colors="k", linewidths=0.3)
    return drawn


def _draw_states(axes: "Axes", states: StateSet, statistics: TorsionStatistics) -> None:
    from matplotlib import patheffects

    halo = [patheffects.withStroke(linewidth=2.2, foreground="white")]
    for state, row in zip(states.states, statistics.states, strict=True):
        for phi_lower, phi_upper in state.phi.pieces():
            for psi_lower, psi_upper in state.psi.pieces():
                _draw_borders(axes, (phi_lower, phi_upper), (psi_lower, psi_upper))
        x, y = _label_corner(state)
        axes.annotate(
            f"{state.label}  {100 * row.population:.1f} %",
            (x, y),
            xytext=(4, 4),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=8,
            path_effects=halo,
        )


def _draw_borders(axes: "Axes", phi: tuple[float, float], psi: tuple[float, float]) -> None:
    """Draws the sides of one rectangle that are boundaries of states, not seams at 180 degrees."""
    for x in phi:
        if abs(x) < 180.0:
            axes.plot([x, x], psi, color="0.3", linewidth=0.7, zorder=3)
    for y in psi:
        if abs(y) < 180.0:
            axes.plot(phi, [y, y], color="0.3", linewidth=0.7, zorder=3)


def _label_corner(state: State) -> tuple[float, float]:
    """Returns the lower left corner, in degrees, of a piece of a state that is wide enough.

    Few conformations lie there, so that the label hides little.
    """
    widest = max(state.phi.pieces(), key=lambda piece: piece[1] - piece[0])
    return widest[0], state.psi.pieces()[0][0]
