"""What active learning has found: a table, the same as JSON, and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trip_mm.files import replacing, write_atomically, write_json

SUMMARY_FILE = "summary.json"
TABLE_FILE = "summary.md"
PICTURE_FILE = "disagreement.png"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: with unit, for summary.md.
        short: for the terminal, whose title names the unit once.
        form: format of the value.
    """

    title: str
    short: str
    form: str


COLUMNS: Mapping[str, Column] = {
    "round": Column("round", "round", "d"),
    "n_trajectories": Column("trajectories", "runs", "d"),
    "n_disagreement": Column("stopped by the committee", "stopped", "d"),
    "n_unstable": Column("unstable", "unstable", "d"),
    "n_frames": Column("frames", "frames", "d"),
    "median_kcal_per_mol_per_angstrom": Column(
        "disagreement, median (kcal/mol/A)", "median", ".2f"
    ),
    "p95_kcal_per_mol_per_angstrom": Column("95 % (kcal/mol/A)", "95 %", ".2f"),
    "largest_kcal_per_mol_per_angstrom": Column("largest (kcal/mol/A)", "largest", ".2f"),
    "n_above": Column("frames above", "above", "d"),
    "n_labelled": Column("added", "added", "d"),
    "n_failed": Column("not labelled", "failed", "d"),
    "force_mae_kcal_per_mol_per_angstrom": Column("held-out force MAE (kcal/mol/A)", "MAE", ".2f"),
}
"""Columns of the table by the key of a round's record."""

Row = Mapping[str, Any]


def cells(row: Row) -> list[str]:
    """Returns the texts of a row of the table; empty where a value is missing."""
    return [
        "" if row.get(key) is None else format(row[key], column.form)
        for key, column in COLUMNS.items()
    ]


def write_summary(out: Path, rows: Sequence[Row], state: str, notes: Sequence[str] = ()) -> None:
    """Writes summary.json, summary.md and the picture, each replaced as a whole.

    Args:
        out: directory of active learning.
        rows: records of the finished rounds.
        state: how it stands.
        notes: what a reader has to know besides, a paragraph each.
    """
    content = {"state": state, "rounds": [dict(row) for row in rows], "notes": list(notes)}
    write_json(out / SUMMARY_FILE, content)
    lines = ["| " + " | ".join(column.title for column in COLUMNS.values()) + " |"]
    lines.append("|" + "---:|" * len(COLUMNS))
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    paragraphs = [text for note in notes for text in (note, "")]
    text = "\n".join([*lines, "", state, "", *paragraphs])
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

    from trip_mm.training.plots import set_log_axis

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
    left.set(xlabel="round", ylabel="force disagreement of a frame (kcal/mol/Å)")
    set_log_axis(left)
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
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    plt.close(figure)
