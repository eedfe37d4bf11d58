"""Table, JSON and picture of a sitting."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trip_mm import files
from trip_mm.benchmark.cases import Settings
from trip_mm.benchmark.session import Measurement
from trip_mm.simulation.provenance import git_revision, source_sha256, versions

if TYPE_CHECKING:
    from rich.table import Table

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe-Ito: told apart by colour-blind readers too."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def row(measurement: Measurement, timestep_fs: float) -> dict[str, Any]:
    """Returns one case as plain JSON values."""
    values: dict[str, Any] = {**measurement.case.to_dict(), "n_atoms": measurement.n_atoms}
    if measurement.problem is not None:
        return values | {"problem": measurement.problem}
    return values | {
        "n_steps": len(measurement.seconds),
        "ms_per_step": {
            "q10": measurement.quantile(0.1) * 1e3,
            "median": measurement.quantile(0.5) * 1e3,
            "q90": measurement.quantile(0.9) * 1e3,
        },
        "cpu_ms_per_step": float(np.median(measurement.cpu_seconds)) * 1e3,
        "ns_per_day": measurement.ns_per_day(timestep_fs),
        "atom_steps_per_s": measurement.n_atoms / measurement.quantile(0.5),
        "n_edges": measurement.n_edges,
        "energy_ev": measurement.energy_ev,
        "flop_per_step": measurement.flop,
        "share_of_dense_rate": measurement.dense_share,
        "dense_gflop_per_s": None
        if measurement.dense_flop_per_s is None
        else measurement.dense_flop_per_s / 1e9,
        "peak_memory_mib": measurement.peak_memory_mib,
        "share_of_step": measurement.time_shares,
        "step_seconds": list(measurement.seconds),
    }


def exponents(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Fits time = a * n_atoms**x for each case that was measured at two sizes or more."""
    found: dict[str, float] = {}
    for label, sizes, times in _series(measurements):
        if len(set(sizes)) > 1:
            found[label] = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    return found


def _series(measurements: Sequence[Measurement]) -> list[tuple[str, list[int], list[float]]]:
    """Sizes and median times of each case, ascending."""
    good = [m for m in measurements if m.problem is None]
    series = []
    for label in dict.fromkeys(m.case.label for m in good):
        mine = sorted((m.n_atoms, m.quantile(0.5)) for m in good if m.case.label == label)
        series.append((label, [n for n, _ in mine], [t for _, t in mine]))
    return series


def write_json(path: Path, measurements: Sequence[Measurement], settings: Settings) -> None:
    """Writes everything that was measured, atomically."""
    document = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "git": git_revision(),
        "source_sha256": source_sha256(),
        "settings": {
            "threads": settings.threads,
            "warm_up": settings.warm_up,
            "rounds": settings.rounds,
            "steps": settings.steps,
            "seconds": settings.seconds,
            "timestep_fs": settings.timestep_fs,
            "precision": settings.precision,
            "seed": settings.seed,
        },
        "exponents": exponents(measurements),
        "cases": [row(measurement, settings.timestep_fs) for measurement in measurements],
    }
    files.write_json(path, document)


def tables(measurements: Sequence[Measurement], settings: Settings) -> "list[Table]":
    """Returns the tables that people read, one for each system."""
    return [
        _table([m for m in measurements if m.case.system == system], settings)
        for system in dict.fromkeys(m.case.system for m in measurements)
    ]


def _table(measurements: Sequence[Measurement], settings: Settings) -> "Table":
    from rich import box
    from rich.table import Table

    first = measurements[0]
    shown = Table(
        title=f"{first.case.system}: {first.n_atoms} atoms, {settings.threads} threads, "
        f"{settings.precision} precision",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        caption="10-90 %: quantiles. CPU: of all threads. dense: share of the rate of a dense "
        "product. shares: neighbours, network, OpenMM, in % of a step.",
    )
    shown.add_column("case")
    for header in ("ms/step", "10-90 %", "CPU ms", "ns/day", "MiB", "dense", "shares"):
        shown.add_column(header, justify="right", no_wrap=True)
    for found in measurements:
        if found.problem is not None:
            shown.add_row(f"{found.case.label}: {found.problem}", "failed")
            continue
        shares = found.time_shares
        shown.add_row(
            found.case.label,
            _three_digits(found.quantile(0.5) * 1e3),
            f"{_three_digits(found.quantile(0.1) * 1e3)}-"
            f"{_three_digits(found.quantile(0.9) * 1e3)}",
            _three_digits(float(np.median(found.cpu_seconds)) * 1e3),
            _three_digits(found.ns_per_day(settings.timestep_fs)),
            "" if found.peak_memory_mib is None else f"{found.peak_memory_mib:.0f}",
            "" if found.dense_share is None else f"{100 * found.dense_share:.0f} %",
            "" if shares is None else " ".join(f"{100 * v:.0f}" for v in shares.values()),
        )
    return shown


def _three_digits(value: float) -> str:
    if value <= 0.0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{decimals}f}"


def plot_scaling(measurements: Sequence[Measurement], path: Path) -> bool:
    """Draws time against atoms, both logarithmic; returns whether there was anything to draw.

    Nothing is drawn unless a case was measured at two sizes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fitted = exponents(measurements)
    if not fitted:
        return False
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (label, sizes, times) in enumerate(_series(measurements)):
        power = f", $n^{{{fitted[label]:.2f}}}$" if label in fitted else ""
        axes.loglog(
            sizes, times, color=_COLORS[number % len(_COLORS)], linewidth=1.2, markersize=4.5,
            marker=_MARKERS[number % len(_MARKERS)], label=label + power,
        )  # fmt: skip
    sizes = sorted({m.n_atoms for m in measurements if m.problem is None})
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("atoms")
    axes.set_ylabel("energy and forces, or a step (s)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=200)
    return True
