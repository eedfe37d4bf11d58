"""Pictures of an evaluation: parity, and interaction energies of dimers."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trip_mm.evaluation.dimers import S66_KINDS, InteractionCurve, errors_by_separation
from trip_mm.evaluation.evaluation import Evaluation, PotentialResult
from trip_mm.evaluation.metrics import POOLED
from trip_mm.files import write_atomically
from trip_mm.units import EV_TO_KCAL_PER_MOL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.linewidth": 0.8}
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe-Ito: told apart by colour-blind readers too."""
_KIND_MARKERS = {kind: marker for (kind, _), marker in zip(S66_KINDS, "os^", strict=True)}
_CELLS = 90
_ROOM = 0.08
_ONE_VALUE = 1e-3
"""kcal/mol (kcal/mol/A); labels that differ by less are one value."""


def parity_figure(evaluation: Evaluation) -> "Figure":
    """Draws predicted against labelled energies and force components, a row per potential.

    Cells are coloured by the number of points in them. Energies are relative to the regression of
    the labels on composition, which spans thousands of eV and would hide every error. The axes
    cover the labels; predictions beyond them are counted in the corner.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    labelled = evaluation.labelled
    baseline, *_ = np.linalg.lstsq(labelled.compositions, labelled.energies, rcond=None)
    zero = labelled.compositions @ baseline
    with mpl.rc_context(_STYLE):
        n_rows = len(evaluation.results)
        figure = Figure(figsize=(8.4, 3.9 * n_rows), layout="constrained")
        grid = figure.subplots(n_rows, 2, squeeze=False)
        for (left, right), result in zip(grid, evaluation.results, strict=True):
            energies = result.predicted.energies + result.offsets.total(labelled)
            _draw_parity(
                left,
                (labelled.energies - zero) * EV_TO_KCAL_PER_MOL,
                (energies - zero) * EV_TO_KCAL_PER_MOL,
                "energy above composition's mean (kcal/mol)",
            )
            _draw_parity(
                right,
                labelled.forces.ravel() * EV_TO_KCAL_PER_MOL,
                result.predicted.forces.ravel() * EV_TO_KCAL_PER_MOL,
                "force component (kcal/mol/Å)",
            )
            _title(left, right, result)
    return figure


def _title(left: "Axes", right: "Axes", result: PotentialResult) -> None:
    errors = result.errors[POOLED]
    left.set_title(f"{result.label}: energy MAE {errors.energy.mae:.2f} kcal/mol")
    right.set_title(f"{result.label}: force MAE {errors.force.mae:.2f} kcal/mol/Å")


def _draw_parity(
    axes: "Axes", labels: NDArray[np.float64], predicted: NDArray[np.float64], quantity: str
) -> None:
    low, high = float(labels.min()), float(labels.max())
    if high - low < _ONE_VALUE:  # of a single conformation, or of as many as there are elements
        low, high = min(low, float(predicted.min())), max(high, float(predicted.max()))
    room = _ROOM * (high - low) or 1.0
    low, high = low - room, high + room
    outside = (predicted < low) | (predicted > high)
    if not outside.all():
        _draw_cells(axes, labels[~outside], predicted[~outside], (low, high))
    axes.plot([low, high], [low, high], color="0.25", linewidth=0.8, zorder=3)
    axes.set(
        xlim=(low, high),
        ylim=(low, high),
        aspect="equal",
        xlabel=f"labelled {quantity}",
        ylabel="predicted",
    )
    axes.grid(alpha=0.25, linewidth=0.6)
    if outside.any():
        axes.text(
            0.03,
            0.97,
            f"{int(outside.sum()):,} of {len(labels):,} outside",
            transform=axes.transAxes,
            va="top",
            fontsize=8,
        )


def _draw_cells(
    axes: "Axes",
    labels: NDArray[np.float64],
    predicted: NDArray[np.float64],
    limits: tuple[float, float],
) -> None:
    """Draws points, of which there must be one, as cells coloured by their number."""
    drawn = axes.hexbin(
        labels,
        predicted,
        gridsize=_CELLS,
        extent=(*limits, *limits),
        mincnt=1,
        bins="log",
        cmap="viridis",
        linewidths=0.2,
    )
    figure = axes.figure
    assert figure is not None
    figure.colorbar(drawn, ax=axes, label="points in a cell", shrink=0.8, pad=0.02)


def interaction_figure(evaluation: Evaluation) -> "Figure":
    """Draws well depths against those of the labels, and errors by separation.

    Colours are potentials in both, shapes kinds of dimers.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.8, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for number, result in enumerate(evaluation.results):
            color = _COLORS[number % len(_COLORS)]
            _draw_depths(left, result.curves, color)
            by_separation = errors_by_separation(result.curves)
            right.plot(
                list(by_separation),
                [own.mae for own in by_separation.values()],
                color=color,
                marker="x",  # no shape: those are kinds of dimers
                markersize=5,
                linewidth=1.5,
            )
        _finish_depths(left, evaluation)
        right.set(
            xlabel="separation / equilibrium separation",
            ylabel="MAE of interaction energy (kcal/mol)",
            title="error along the dimers",
        )
        right.set_ylim(bottom=0.0)
        figure.legend(
            handles=[
                Patch(color=_COLORS[number % len(_COLORS)], label=result.label)
                for number, result in enumerate(evaluation.results)
            ],
            loc="outside lower center",
            ncols=min(len(evaluation.results), 4),
            frameon=False,
            fontsize=8,
        )
        for axes in (left, right):
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_depths(axes: "Axes", curves: tuple[InteractionCurve, ...], color: str) -> None:
    for kind in {curve.scan.kind for curve in curves}:
        own = [curve for curve in curves if curve.scan.kind == kind]
        axes.scatter(
            [curve.scan.relative_energies.min() for curve in own],
            [curve.relative.min() for curve in own],
            color=color,
            marker=_KIND_MARKERS.get(kind, "o"),
            s=18,
            alpha=0.75,
            linewidths=0,
        )


def _finish_depths(axes: "Axes", evaluation: Evaluation) -> None:
    from matplotlib.lines import Line2D

    low = min(
        min(curve.relative.min(), curve.scan.relative_energies.min())
        for result in evaluation.results
        for curve in result.curves
    )
    axes.plot([1.05 * low, 0.0], [1.05 * low, 0.0], color="0.25", linewidth=0.8, zorder=0)
    axes.set(
        xlabel="labelled well depth (kcal/mol)",
        ylabel="predicted well depth (kcal/mol)",
        title=f"{len(evaluation.scans)} dimers",
        aspect="equal",
    )
    kinds = [kind for kind, _ in S66_KINDS if any(s.kind == kind for s in evaluation.scans)]
    handles = [
        Line2D([], [], color="0.3", linestyle="", marker=_KIND_MARKERS[kind], label=kind)
        for kind in kinds
    ]
    if handles:
        axes.legend(handles=handles, frameon=False, fontsize=8, loc="upper left")


def write_picture(figure: "Figure", path: Path) -> None:
    """Writes a picture atomically; the suffix chooses the format."""
    content = io.BytesIO()
    figure.savefig(content, dpi=200, format=path.suffix.lstrip("."))
    write_atomically(path, content.getvalue())
