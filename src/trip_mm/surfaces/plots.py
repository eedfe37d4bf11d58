"""Pictures of curves and surfaces."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trip_mm.surfaces.curve import Curve
from trip_mm.surfaces.path import RigidPath
from trip_mm.surfaces.water import Surface

_COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe-Ito: told apart by colour-blind readers too; the reference is black."""
_STYLES = ("-", "-", "--", "-.", ":")
_FAILED = "#DDDDDD"
_SHADE = 25.0
"""kcal/mol from one colour of a surface to the next; every other one begins at a line."""
_WELL_MARGIN = 1.15
_WALL = 1.5
_LEAST_HEIGHT = 20.0
_FORCE_MARGIN = 1.5


def plot_curves(
    path: RigidPath,
    curves: Sequence[Curve],
    file: Path,
    shaded: tuple[float, float] | None = None,
) -> None:
    """Draws energies and forces along a path.

    Energies are drawn from the distance `path.zero`, the forces that the potentials give beside.

    Args:
        path: for names and axes.
        curves: the first one sets the range of the energies.
        file: PNG to write.
        shaded: distances to shade, such as those that a model has seen, A.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure((9.0, 3.7))
    left, right = figure.subplots(1, 2)
    for index, curve in enumerate(curves):
        style = {
            "color": _COLORS[index % len(_COLORS)],
            "linestyle": _STYLES[index % len(_STYLES)],
            "linewidth": 2.2 if index == 0 else 1.4,
        }
        left.plot(curve.distances, curve.kcal_per_mol_above(path.zero), label=curve.label, **style)
        if curve.forces is not None:
            right.plot(curve.distances, curve.forces, **style)
    _set_ranges(path, curves, left, right)
    left.set_ylabel(f"energy above {path.zero:.2f} Å (kcal/mol)")
    right.set_ylabel("force along the distance (eV/Å)")
    for axes in (left, right):
        axes.set_xlabel(f"{path.quantity} (Å)")
        axes.set_xlim(float(path.distances[0]), float(path.distances[-1]))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.axhline(0.0, color="#999999", linewidth=0.6)
        if shaded is not None:
            axes.axvspan(*shaded, color="#EEEEEE", zorder=0)
        _tidy(axes)
    left.legend(frameon=False, fontsize=8)
    figure.suptitle(path.name, fontsize=10)
    figure.savefig(file, dpi=130)


def _set_ranges(path: RigidPath, curves: Sequence[Curve], left: Any, right: Any) -> None:
    """Shows the well and the far end of the first curve, and as much of its wall."""
    first = curves[0].kcal_per_mol_above(path.zero)
    lowest = float(first.min())
    height = max(_WALL * float(np.ptp(first[int(first.argmin()) :])), _LEAST_HEIGHT)
    others = min(float(curve.kcal_per_mol_above(path.zero).min()) for curve in curves)
    bottom = max(min(others, 0.0) * _WELL_MARGIN, lowest - height) - 0.05 * height
    left.set_ylim(bottom, lowest + 2.0 * height)
    forces = curves[0].forces
    if forces is not None:
        reach = _FORCE_MARGIN * float(np.abs(forces[first < lowest + height]).max())
        right.set_ylim(-reach, reach)


def plot_surfaces(surfaces: Sequence[Surface], file: Path) -> None:
    """Writes the picture of the scans of water as PNG."""
    surfaces_figure(surfaces).savefig(file, dpi=130)


def surfaces_figure(surfaces: Sequence[Surface], top_kcal_per_mol: float = 600.0) -> Any:
    """Draws contours of the scans of water side by side, on one colour scale.

    Points that failed stay grey, and a legend says so.

    Args:
        surfaces: at least one.
        top_kcal_per_mol: end of the scale; higher energies take the last colour.
    """
    from matplotlib.patches import Patch

    n_columns = min(len(surfaces), 4)
    n_rows = -(-len(surfaces) // n_columns)
    figure = _figure((2.75 * n_columns + 1.0, 3.2 * n_rows + 0.2))
    grid: Any = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    levels = np.arange(0.0, top_kcal_per_mol + 0.5 * _SHADE, _SHADE)
    filled = None
    for index, axes in enumerate(grid.flat):
        if index >= len(surfaces):
            axes.set_visible(False)
            continue
        surface = surfaces[index]
        energies = np.ma.masked_invalid(surface.kcal_per_mol_above_minimum)
        x = surface.distances
        filled = axes.contourf(x, x, energies, levels, cmap="viridis", extend="max")
        axes.contour(x, x, energies, levels[::2], colors="white", linewidths=0.5, alpha=0.8)
        axes.set_title(surface.label, fontsize=8)
        axes.set_aspect("equal")
        axes.set_facecolor(_FAILED)
        if index // n_columns == n_rows - 1 or index + n_columns >= len(surfaces):
            axes.set_xlabel("O-H distance (Å)")
            axes.tick_params(labelbottom=True)
        if index % n_columns == 0:
            axes.set_ylabel("O-H distance (Å)")
    bar = figure.colorbar(filled, ax=list(grid.flat), shrink=0.8, pad=0.02)
    bar.set_ticks(levels[::4])
    bar.set_label(f"kcal/mol above the minimum,\nwhite lines every {2 * _SHADE:g}")
    if not all(np.isfinite(surface.energies).all() for surface in surfaces):
        grey = Patch(facecolor=_FAILED, edgecolor="#888888", label="no energy: the method failed")
        figure.legend(handles=[grey], loc="outside lower center", frameon=False, fontsize=8)
    return figure


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
