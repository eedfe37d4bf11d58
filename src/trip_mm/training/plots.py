"""Pictures of a training run: learning curve and parity."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from trip_mm.training.evaluate import ALL, Predictions
from trip_mm.units import EV_TO_KCAL_PER_MOL

_FORCE_SUFFIX = ".force_mae_kcal_per_mol_per_angstrom"
_MOST_POINTS = 20_000
_MOST_MARKED = 50
"""Validations up to which each is marked; a single one draws no line."""


class _PlainLogFormatter(LogFormatter):
    """Writes 19.5 where matplotlib's own writes 1.95 x 10^1; labels the same ticks."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Returns the label of a tick, empty where it gets none."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def set_log_axis(axes: Axes) -> None:
    """Makes the y axis logarithmic, with plain numbers as labels."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_PlainLogFormatter())
    axes.yaxis.set_minor_formatter(_PlainLogFormatter())


def plot_learning_curve(log: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draws training loss and held-out force errors against steps.

    One class has no line of all classes, which would cover its own.

    Args:
        log: columns of the training log.
        path: picture to write.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    steps = log.get("step", [])
    marker = "." if len(steps) <= _MOST_MARKED else None
    left.plot(steps, log.get("train_loss", []), label="training", marker=marker)
    left.set(xlabel="step", ylabel="training loss")
    labels = [n.removesuffix(_FORCE_SUFFIX) for n in log if n.endswith(_FORCE_SUFFIX)]
    for label in labels:
        if label == ALL and len(labels) <= 2:
            continue
        color, width = ("black", 2.0) if label == ALL else (None, 1.2)
        values = log[label + _FORCE_SUFFIX]
        right.plot(steps, values, label=label, color=color, linewidth=width, marker=marker)
    right.set(xlabel="step", ylabel="held-out force MAE (kcal/mol/Å)")
    if right.lines:
        right.legend(fontsize="small", frameon=False)
    for axes in (left, right):
        set_log_axis(axes)
        axes.grid(alpha=0.3, which="both", linewidth=0.5)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_parity(predictions: Predictions, path: Path) -> None:
    """Draws predicted against labelled energies per atom and force components.

    Energies are E - sum E_atom, the negative of the atomization energy.

    Args:
        predictions: with their labels.
        path: picture to write.
    """
    store = predictions.store
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    atom_class = np.repeat(store.class_idx, store.n_atoms)
    for number, name in enumerate(store.classes):
        chosen = store.class_idx == number
        if not chosen.any():
            continue
        per_atom = EV_TO_KCAL_PER_MOL / store.n_atoms[chosen]
        left.plot(
            store.energies[chosen] * per_atom,
            predictions.energies[chosen] * per_atom,
            ".",
            markersize=3,
            label=name,
        )
        labels = store.forces[atom_class == number].ravel() * EV_TO_KCAL_PER_MOL
        predicted = predictions.forces[atom_class == number].ravel() * EV_TO_KCAL_PER_MOL
        stride = max(1, len(labels) // _MOST_POINTS)
        right.plot(labels[::stride], predicted[::stride], ".", markersize=2, label=name)
    left.set(
        xlabel="labelled energy less isolated atoms (kcal/mol/atom)",
        ylabel="predicted (kcal/mol/atom)",
    )
    right.set(xlabel="labelled force component (kcal/mol/Å)", ylabel="predicted (kcal/mol/Å)")
    for axes in (left, right):
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], color="black", linewidth=0.8)
        axes.grid(alpha=0.3, linewidth=0.5)
    left.legend(fontsize="small", frameon=False, markerscale=3)
    figure.savefig(path, dpi=150)
    plt.close(figure)
