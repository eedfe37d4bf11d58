"""What active learning has found: a table, the same as JSON, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trip_mm.simulation.run_directory import write_atomically, write_json

SUMMARY_FILE = "summary.json"
TABLE_FILE = "summary.md"
PICTURE_FILE = "disagreement.png"

COLUMNS: Mapping[str, tuple[str, str]] = {
    "round": ("round", "d"),
    "n_trajectories": ("trajectories", "d"),
    "n_disagreement": ("stopped by the committee", "d"),
    "n_unstable": ("unstable", "d"),
    "n_frames": ("frames", "d"),
    "median_kcal_per_mol_per_angstrom": ("disagreement, median (kcal/mol/A)", ".2f"),
    "p95_kcal_per_mol_per_angstrom": ("95 % (kcal/mol/A)", ".2f"),
    "largest_kcal_per_mol_per_angstrom": ("largest (kcal/mol/A)", ".2f"),
    "n_above": ("frames above", "d"),
    "n_labelled": ("added", "d"),
    "n_failed": ("not labelled", "d"),
    "force_mae_kcal_per_mol_per_angstrom": ("held-out force MAE (kcal/mol/A)", ".2f"),
}
"""Key of a round's record: title of its column and format."""

Row = Mapping[str, Any]


def cells(row: Row) -> list[str]:
    """Returns the texts of a row of the table; empty where a value is missing."""
    return [
        "" if row.get(key) is None else format(row[key], form) for key, (_, form) in COLUMNS.items()
    ]


def write_summary(out: Path, rows: Sequence[Row], state: str) -> None:
    """Writes summary.json, summary.md and the picture, each replaced as a whole.

    Args:
        out: directory of active learning.
        rows: records of the finished rounds.
        state: how it stands.
    """
    write_json(out / SUMMARY_FILE, {"state": state, "rounds": [dict(row) for row in rows]})
    lines = ["| " + " | ".join(title for title, _ in COLUMNS.values()) + " |"]
    lines.append("|" + "---:|" * len(COLUMNS))
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    text = "\n".join([*lines, "", state, ""])
    write_atomically(out / TABLE_FILE, text.encode())
    plot_rounds(rows, out / PICTURE_FILE)


def plot_rounds(rows: Sequence[Row], path: Path) -> None:
    """Draws the disagreement of every round and the number of geometries it added.

    Args:
        rows: records of the rounds.
        path: picture to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    numbers = [row["round"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for key, label, marker in (
        ("largest_kcal_per_mol_per_angstrom", "largest", "^"),
        ("p95_kcal_per_mol_per_angstrom", "95 %", "s"),
        ("median_kcal_per_mol_per_angstrom", "median", "o"),
    ):
        values = [np.nan if row[key] is None else row[key] for row in rows]
        left.plot(numbers, values, marker=marker, label=label)
    threshold = rows[-1]["threshold_kcal_per_mol_per_angstrom"]
    left.axhline(threshold, color="black", linewidth=0.8, linestyle="--", label="threshold")
    left.set(xlabel="round", ylabel="force disagreement of a frame (kcal/mol/Å)", yscale="log")
    left.legend(fontsize="small", frameon=False)
    right.bar(numbers, [row["n_labelled"] for row in rows], label="added")
    failed = [row["n_failed"] for row in rows]
    if any(failed):
        bottom = [row["n_labelled"] for row in rows]
        right.bar(numbers, failed, bottom=bottom, color="0.7", label="not labelled")
        right.legend(fontsize="small", frameon=False)
    right.set(xlabel="round", ylabel="geometries added")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
        axes.grid(alpha=0.3, linewidth=0.5, which="both", axis="y")
        axes.set_axisbelow(True)
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, dpi=150, format="png")
    plt.close(figure)
    partial.replace(path)
