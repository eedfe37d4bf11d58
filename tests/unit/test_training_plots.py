"""Pictures of a training: what is drawn in them, and what the axes say."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from trip_mm.training import plots
from trip_mm.training.conformations import build_store
from trip_mm.training.dataset import Dataset
from trip_mm.training.evaluate import Predictions
from trip_mm.training.groups import Conformation, group_conformations
from trip_mm.units import EV_TO_KCAL_PER_MOL

SUFFIX = ".force_mae_kcal_per_mol_per_angstrom"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """Figures that were drawn, in their order."""
    drawn: list[Figure] = []
    monkeypatch.setattr(plt, "close", drawn.append)
    yield drawn
    monkeypatch.undo()
    plt.close("all")


def draw(log: dict[str, list[float]], path: Path, figures: list[Figure]) -> Figure:
    plots.plot_learning_curve(log, path)
    assert path.stat().st_size > 0
    figures[-1].canvas.draw()
    return figures[-1]


@pytest.mark.parametrize("n_points", [1, 3])
def test_few_validations_are_seen(tmp_path: Path, figures: list[Figure], n_points: int) -> None:
    values = [4.0 - 0.1 * i for i in range(n_points)]
    log = {"step": [100.0 * i for i in range(n_points)], "train_loss": values}
    figure = draw({**log, f"a{SUFFIX}": values}, tmp_path / "x.png", figures)
    markers = [line.get_marker() for axes in figure.axes for line in axes.lines]
    assert markers == [".", "."]


def test_many_validations_are_a_line(tmp_path: Path, figures: list[Figure]) -> None:
    values = [4.0 - 0.01 * i for i in range(80)]
    log = {"step": [100.0 * i for i in range(80)], "train_loss": values}
    figure = draw({**log, f"a{SUFFIX}": values}, tmp_path / "x.png", figures)
    assert {line.get_marker() for axes in figure.axes for line in axes.lines} == {"None"}


@pytest.mark.parametrize("values", [[19.4, 20.6, 21.0], [3.7, 3.9, 4.0], [0.05, 0.07], [2.0, 40.0]])
def test_ticks_are_plain_numbers(
    tmp_path: Path, figures: list[Figure], values: list[float]
) -> None:
    log = {"step": [float(i) for i in range(len(values))], "train_loss": values}
    figure = draw({**log, f"a{SUFFIX}": values}, tmp_path / "x.png", figures)
    for axes in figure.axes:
        labels = [tick.get_text() for tick in axes.get_yticklabels(which="both")]
        shown = [float(text) for text in labels if text]  # "$\\mathdefault{3.7\\times10^{0}}$"
        low, high = axes.get_ylim()
        assert len([number for number in shown if low <= number <= high]) >= 2


def test_all_is_drawn_beside_several_classes_only(tmp_path: Path, figures: list[Figure]) -> None:
    log = {"step": [1.0, 2.0], "train_loss": [2.0, 1.0], f"a{SUFFIX}": [2.0, 1.0]}
    names = []
    for more in ({}, {f"b{SUFFIX}": [4.0, 3.0]}):
        figure = draw({**log, **more, f"all{SUFFIX}": [3.0, 2.0]}, tmp_path / "x.png", figures)
        names.append([line.get_label() for line in figure.axes[1].lines])
    assert names == [["a"], ["a", "b", "all"]]


def test_parity_is_of_energies_less_those_of_the_isolated_atoms(
    tmp_path: Path, figures: list[Figure]
) -> None:
    numbers, positions = np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]])
    lone, energy = {1: -13.6}, -31.7
    item = Conformation(numbers, positions, energy, np.zeros((2, 3)), "a", "H2", "m")
    dataset = Dataset(list(group_conformations([item], {})), "made", lone)
    store = build_store(dataset, lone, 3.0, None)
    plots.plot_parity(Predictions(store.energies, store.forces, store), tmp_path / "p.png")
    axes = figures[-1].axes[0]
    assert axes.get_xlabel() == "labelled energy less isolated atoms (kcal/mol/atom)"
    (drawn,) = axes.lines[0].get_xdata()
    assert drawn == pytest.approx((energy - 2 * lone[1]) / 2 * EV_TO_KCAL_PER_MOL)
    assert drawn < 0.0  # the negative of the atomization energy
