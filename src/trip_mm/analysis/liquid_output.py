"""Files of liquid properties: radial distribution and density as CSV, JSON and pictures."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trip_mm.analysis.density import StageDensity
from trip_mm.analysis.radial import WATER_OXYGENS, RadialDistribution
from trip_mm.files import json_number, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY_VERSION = 1
RDF_STEM, DENSITY_STEM = "rdf", "density"

UNTRUSTED = "drift, or too few independent samples: the error is not to be trusted"
"""What `StageDensity.is_converged` of false means, for people."""

_STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.linewidth": 0.8}
_BLUE, _ORANGE = "#0072B2", "#D55E00"
_RDF_COLUMNS = ("distance_angstrom", "g", "g_standard_error", "coordination_number")
_DENSITY_COLUMNS = ("stage", "time_ps", "density_g_per_ml", "counted")


def write_rdf(result: RadialDistribution, directory: Path) -> list[Path]:
    """Writes rdf.csv, rdf.json and rdf.png; each appears whole or not at all."""
    rows = zip(result.distances, result.g, result.standard_error, result.coordination, strict=True)
    text = ((f"{r:.4f}", f"{g:.5f}", _cell(e), f"{n:.4f}") for r, g, e, n in rows)
    return _write(directory, RDF_STEM, _csv(_RDF_COLUMNS, text), rdf_summary(result), _rdf(result))


def write_density(results: Sequence[StageDensity], directory: Path) -> list[Path]:
    """Writes density.csv, density.json and density.png; each appears whole or not at all."""
    rows = (
        (own.stage, f"{time:.6g}", f"{density:.6f}", int(row >= own.mean.n_discarded))
        for own in results
        for row, (time, density) in enumerate(zip(own.times_ps, own.densities, strict=True))
    )
    summary = {"version": SUMMARY_VERSION, "stages": [density_summary(own) for own in results]}
    return _write(
        directory, DENSITY_STEM, _csv(_DENSITY_COLUMNS, rows), summary, density_figure(results)
    )


def rdf_summary(result: RadialDistribution) -> dict[str, Any]:
    """Returns the content of rdf.json."""
    return {
        "version": SUMMARY_VERSION,
        "settings": asdict(result.settings),
        "trajectory": f"{result.trajectory.parent.name}/{result.trajectory.name}",
        "n_frames": result.n_frames,
        "n_blocks": result.n_blocks,
        "first_time_ps": result.first_time_ps,
        "last_time_ps": result.last_time_ps,
        "n_atoms": [result.n_first, result.n_second],
        "peak": {
            "distance_angstrom": float(result.distances[result.peak]),
            "g": float(result.g[result.peak]),
            "g_standard_error": json_number(float(result.standard_error[result.peak])),
        },
        "first_minimum": {
            "distance_angstrom": float(result.distances[result.minimum]),
            "g": float(result.g[result.minimum]),
            "coordination_number": float(result.coordination[result.minimum]),
        },
    }


def density_summary(result: StageDensity) -> dict[str, Any]:
    """Returns what density.json holds of one stage."""
    return {
        "stage": result.stage,
        "mean_g_per_ml": result.mean.mean,
        "standard_error_g_per_ml": json_number(result.mean.standard_error),
        "standard_deviation_g_per_ml": json_number(result.mean.standard_deviation),
        "correlation_time_ps": result.correlation_time_ps,
        "n_samples": result.mean.n_samples,
        "n_independent": result.mean.n_effective,
        "converged": result.is_converged,
        "discarded_ps": result.discarded_ps,
        "duration_ps": float(result.times_ps[-1] - result.times_ps[0]),
    }


def _rdf(result: RadialDistribution) -> "Figure":
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings = result.settings
    is_water = settings.first == settings.second == WATER_OXYGENS
    pair = "O–O" if is_water else f"{settings.first} – {settings.second}"
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.axhline(1.0, color="0.6", linewidth=0.8, zorder=0)
        if np.isfinite(result.standard_error).all():
            low, high = (result.g + sign * result.standard_error for sign in (-1.0, 1.0))
            axes.fill_between(result.distances, low, high, color=_BLUE, alpha=0.25, linewidth=0)
        axes.plot(result.distances, result.g, color=_BLUE, linewidth=1.3, label="g(r)")
        axes.set(
            xlabel="r (Å)",
            ylabel="g(r)",
            xlim=(0.0, result.distances[-1]),
            title=f"{pair}, {result.n_frames:,} frames, "
            f"{result.first_time_ps:g} to {result.last_time_ps:g} ps",
        )
        axes.set_ylim(bottom=0.0)
        other = axes.twinx()
        shown = result.distances <= 1.2 * result.distances[result.minimum]
        other.plot(
            result.distances[shown],
            result.coordination[shown],
            color=_ORANGE,
            linewidth=1.1,
            linestyle="--",
        )
        other.set_ylabel("neighbours within r (dashed)", color=_ORANGE)
        other.set_ylim(bottom=0.0)
        axes.spines["top"].set_visible(False)
        other.spines["top"].set_visible(False)
    return figure


def density_figure(results: Sequence[StageDensity]) -> "Figure":
    """Draws the density along each stage with its mean and error; hatched if not to be trusted."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.8, 2.9 * len(results) + 0.3), layout="constrained")
        grid = figure.subplots(len(results), 1, squeeze=False)[:, 0]
        for axes, own in zip(grid, results, strict=True):
            start, mean = own.mean.n_discarded, own.mean
            axes.plot(own.times_ps, own.densities, color="0.65", linewidth=0.8)
            axes.plot(own.times_ps[start:], own.densities[start:], color=_BLUE, linewidth=0.9)
            span = own.times_ps[[start, -1]]
            axes.plot(span, [mean.mean, mean.mean], color=_ORANGE, linewidth=1.4)
            low, high = (mean.mean + sign * mean.standard_error for sign in (-1.0, 1.0))
            axes.fill_between(
                span,
                low,
                high,
                facecolor=_ORANGE if own.is_converged else "none",
                edgecolor=_ORANGE,
                hatch="" if own.is_converged else "//",
                alpha=0.3 if own.is_converged else 0.6,
                linewidth=0,
            )
            warning = "" if own.is_converged else f"\n{UNTRUSTED}"
            axes.set(
                xlabel="time (ps)",
                ylabel="density (g/mL)",
                title=f"{own.stage}: {mean.mean:.4f} ± {mean.standard_error:.4f} g/mL{warning}",
                xlim=(own.times_ps[0], own.times_ps[-1]),
            )
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
    return figure


def _write(
    directory: Path, stem: str, table: str, summary: dict[str, Any], figure: "Figure"
) -> list[Path]:
    paths = [directory / f"{stem}{suffix}" for suffix in (".csv", ".json", ".png")]
    write_atomically(paths[0], table.encode())
    write_atomically(
        paths[1], (json.dumps(summary, indent=2, allow_nan=False, default=str) + "\n").encode()
    )
    content = io.BytesIO()
    figure.savefig(content, dpi=300, format="png")
    write_atomically(paths[2], content.getvalue())
    return paths


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: float) -> str:
    return f"{value:.5f}" if math.isfinite(value) else ""
