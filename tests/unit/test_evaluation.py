"""Evaluation of potentials: errors by hand, dimers, offsets, the journal, refusals, tables."""

import importlib.util
import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from trip_mm.checkpoint import load_potential, new_potential, save_potential, trained_level
from trip_mm.cli.evaluate import sort_arguments
from trip_mm.errors import (
    ConfigError,
    DataError,
    MissingDependencyError,
    UnsupportedElementError,
    UnsupportedSystemError,
)
from trip_mm.evaluation import collection
from trip_mm.evaluation.collection import LabelledSet, PredictedSet, collect
from trip_mm.evaluation.dimers import (
    S66X8_FACTORS,
    errors_by_separation,
    find_dimer_scans,
    interaction_curves,
    interaction_errors,
)
from trip_mm.evaluation.evaluation import Offsets, evaluate_potentials
from trip_mm.evaluation.journal import Predicted, PredictionJournal
from trip_mm.evaluation.literature import comp6_table, is_comp6
from trip_mm.evaluation.metrics import (
    NO_OFFSETS,
    errors_by_subset,
    fitted_offsets,
    pair_deviation,
    within_window,
)
from trip_mm.evaluation.plots import interaction_figure
from trip_mm.evaluation.predictors import SinglePredictor, TripPredictor, predictor
from trip_mm.evaluation.report import markdown, write_report
from trip_mm.evaluation.tables import all_tables
from trip_mm.geometry.potentials import PotentialSpec, parse_potential
from trip_mm.model.config import TripConfig
from trip_mm.training.dataset import Dataset
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.groups import Conformation, group_conformations
from trip_mm.units import EV_TO_KCAL_PER_MOL, HARTREE_TO_EV, KCAL_PER_MOL_TO_EV

FIXTURE = Path(__file__).parents[1] / "data" / "comp6_fixture.h5"
KCAL = KCAL_PER_MOL_TO_EV
HARTREE = HARTREE_TO_EV * EV_TO_KCAL_PER_MOL

Answer = Callable[[NDArray[np.int64], NDArray[np.float64]], Predicted]


class Told:
    """A potential that gives the answers it is told, and counts its evaluations."""

    def __init__(self, answer: Answer, level: str = "wb97x/6-31g*", name: str = "told") -> None:
        self.spec = PotentialSpec("trip", name)
        self.level = level
        self.identity = name
        self.answer = answer
        self.n_evaluations = 0

    def check(self, dataset: Dataset) -> None:
        pass

    def predict(self, atomic_numbers, positions, n_unpaired):  # type: ignore[no-untyped-def]
        found = []
        for own in positions:
            found.append(self.answer(atomic_numbers, own))
            self.n_evaluations += 1
        return found


def labels_of(dataset: Dataset, change: Callable[[Predicted], Predicted]) -> Answer:
    """Answers with the labels of a data set, changed; molecules alone have energy zero."""
    known = {
        item.positions.tobytes(): Predicted(item.energy, item.forces)
        for item in dataset
        if np.isfinite(item.energy)
    }

    def answer(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Predicted:
        found = known.get(positions.tobytes())
        return change(found) if found else Predicted(0.0, np.zeros(positions.shape))

    return answer


def same(found: Predicted) -> Predicted:
    return found


@pytest.fixture
def comp6() -> Dataset:
    return Dataset.open(FIXTURE)


@pytest.fixture
def journal() -> PredictionJournal:
    return PredictionJournal()


# Three hydrogen molecules' worth of numbers: two of one group, one of another subset.
LABELLED = LabelledSet(
    ("a", "b"),
    np.array([0, 0, 1]),
    np.array([0, 0, 1]),
    np.array([0, 0, 1]),
    (1, 8),
    np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 1.0]]),
    np.array([1.0, 1.5, -3.0]),
    np.zeros((7, 3)),
)


def predicted(energy_errors_kcal: list[float], force_errors_kcal: list[float]) -> PredictedSet:
    """Predictions off by so many kcal/mol, and by the same kcal/mol/A in x on every atom."""
    forces = np.zeros((7, 3))
    forces[:, 0] = np.repeat(force_errors_kcal, LABELLED.n_atoms) * KCAL
    energies = LABELLED.energies + np.array(energy_errors_kcal) * KCAL
    return PredictedSet(
        Told(lambda numbers, positions: Predicted(0.0, positions)), energies, forces, {}
    )


def test_errors_by_hand() -> None:
    found = errors_by_subset(LABELLED, predicted([3.0, -1.0, 2.0], [0.0, 3.0, -6.0]), NO_OFFSETS)
    assert list(found) == ["a", "b", "all"]
    a, b, pooled = found.values()
    assert (a.n_conformations, b.n_conformations, pooled.n_conformations) == (2, 1, 3)
    assert a.energy.mae == pytest.approx(2.0)
    assert a.energy.rmse == pytest.approx(math.sqrt(5.0))
    assert a.energy_mae_per_atom == pytest.approx(1.0)
    assert pooled.energy.mae == pytest.approx(2.0)
    assert pooled.energy.rmse == pytest.approx(math.sqrt(14.0 / 3.0))
    # One pair, whose errors differ by 4; the conformation alone in its group has none.
    assert (a.relative_energy.mae, a.relative_energy.n) == (pytest.approx(4.0), 1)
    assert b.relative_energy.n == 0
    assert b.to_dict()["relative_energy_kcal_per_mol"] == {"mae": None, "rmse": None, "n": 0}
    # Components: 6 of 12 belong to the conformation off by 3, in one of three directions.
    assert a.force.mae == pytest.approx(2 * 3.0 / 12)
    assert a.force.rmse == pytest.approx(math.sqrt(2 * 9.0 / 12))
    assert pooled.force.mae == pytest.approx((2 * 3.0 + 3 * 6.0) / 21)


def test_pairs_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(1)
    errors, groups = rng.normal(size=40), rng.integers(0, 7, size=40)
    pairs = [
        abs(errors[i] - errors[j]) for i in range(40) for j in range(i) if groups[i] == groups[j]
    ]
    found = pair_deviation(errors, groups)
    assert found.n == len(pairs)
    assert found.mae == pytest.approx(np.mean(pairs))
    assert found.rmse == pytest.approx(math.sqrt(np.mean(np.square(pairs))))


def test_offsets_remove_what_composition_explains_and_nothing_else() -> None:
    own = predicted([10.0, 10.0, 30.0], [0.0, 0.0, 0.0])  # 5 an H, 20 an O
    shift = fitted_offsets(LABELLED, own)
    assert shift.to_dict()["H"] == pytest.approx(-5.0 * KCAL)
    assert shift.to_dict()["O"] == pytest.approx(-20.0 * KCAL)
    assert errors_by_subset(LABELLED, own, shift)["all"].energy.mae == pytest.approx(0.0, abs=1e-9)
    uneven = predicted([12.0, 8.0, 30.0], [0.0, 0.0, 0.0])
    after = errors_by_subset(LABELLED, uneven, fitted_offsets(LABELLED, uneven))["a"]
    assert after.energy.mae == pytest.approx(2.0)
    assert after.relative_energy.mae == pytest.approx(4.0)


def test_window_counts_from_the_lowest_of_each_formula() -> None:
    energies = np.array([0.0, 100.0, 100.1, 500.0]) * KCAL
    labelled = LabelledSet(
        ("a", "b"),
        np.array([0, 0, 0, 1]),
        np.array([0, 0, 0, 1]),
        np.array([0, 0, 0, 0]),
        (1,),
        np.ones((4, 1)),
        energies,
        np.zeros((4, 3)),
    )
    # The last has the formula of the others, but is the lowest of its own subset.
    assert within_window(labelled).tolist() == [True, True, False, True]


def test_level_of_a_trained_model_comes_from_its_file() -> None:
    assert trained_level("trip-gfn2-s", {}) == "GFN2-xTB"
    assert trained_level("x", {"training": {"level_of_theory": "b3lyp/sto-3g"}}) == "b3lyp/sto-3g"
    assert trained_level("x", {}) == ""


def test_forces_of_comp6_are_gradients_whose_sign_is_flipped(
    comp6: Dataset, journal: PredictionJournal
) -> None:
    with h5py.File(FIXTURE) as file:
        stored = {
            np.asarray(positions, dtype=np.float64).tobytes(): np.asarray(gradient, np.float64)
            for group in file["s66x8"].values()
            for positions, gradient in zip(group["coordinates"][:], group["forces"][:], strict=True)
        }
    gradients = np.concatenate([g.ravel() for g in stored.values()]) * HARTREE

    def of_sign(sign: float, name: str) -> Told:
        def answer(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Predicted:
            forces = stored.get(positions.tobytes(), np.zeros(positions.shape))
            return Predicted(0.0, sign * forces * HARTREE_TO_EV)

        return Told(answer, name=name)

    right, wrong = evaluate_potentials(
        comp6, [of_sign(-1.0, "descent"), of_sign(1.0, "ascent")], journal
    ).results
    assert right.errors["s66x8"].force.mae == pytest.approx(0.0, abs=1e-9)
    expected = 2.0 * float(np.abs(gradients).mean())
    assert wrong.errors["s66x8"].force.mae == pytest.approx(expected, rel=1e-6)


def test_dimers_of_the_fixture(comp6: Dataset) -> None:
    first, second = find_dimer_scans(comp6)
    assert (first.label, second.label) == ("H2O + H2O", "H2O + CH4O")
    assert first.name == "s66x8/mol00"
    assert first.kind == "hydrogen-bonded"
    assert first.has_s66x8_factors
    with h5py.File(FIXTURE) as file:
        energies = file["s66x8/mol00/energies"][:] * HARTREE
    np.testing.assert_allclose(first.relative_energies, energies - energies[-1], atol=1e-6)
    ratios = first.closest / first.closest[2]
    np.testing.assert_allclose(ratios, S66X8_FACTORS, atol=0.01)


def test_interaction_energies_by_hand(comp6: Dataset, journal: PredictionJournal) -> None:
    """A potential that is 1 kcal/mol off everywhere but at the largest separation of the first."""
    scans = find_dimer_scans(comp6)
    free = {scan.positions[-1].tobytes() for scan in scans[:1]}

    def shifted(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Predicted:
        found = labels_of(comp6, same)(numbers, positions)
        up = 0.0 if positions.tobytes() in free or found.energy == 0.0 else KCAL
        return Predicted(found.energy + up, found.forces)

    curves = interaction_curves(scans, Told(shifted), journal)
    np.testing.assert_allclose(curves[0].relative - scans[0].relative_energies, [1.0] * 7 + [0.0])
    np.testing.assert_allclose(curves[1].relative, scans[1].relative_energies, atol=1e-9)
    # Its molecules have energy zero, so that the interaction is the energy of the dimer.
    total = (scans[1].energies[-1] + KCAL) * EV_TO_KCAL_PER_MOL
    assert curves[1].interaction[-1] == pytest.approx(total)
    errors = interaction_errors(curves)
    assert list(errors) == ["hydrogen-bonded", "all"]
    assert errors["all"].points.mae == pytest.approx(0.5)
    assert errors["all"].points.rmse == pytest.approx(math.sqrt(0.5))
    assert errors["all"].mean_error == pytest.approx(0.5)
    assert errors["all"].well_depth.mae == pytest.approx(0.5)
    by_separation = errors_by_separation(curves)
    assert list(by_separation) == list(S66X8_FACTORS[:-1])
    assert by_separation[1.25].mae == pytest.approx(0.5)


def test_finished_parts_and_the_joined_file_give_the_same(comp6: Dataset, tmp_path: Path) -> None:
    items = list(comp6)
    parts = tmp_path / "labels.h5.parts"
    parts.mkdir()
    header = FileHeader("x", "wb97x/6-31g*")
    write_conformations(tmp_path / "labels.h5", items, header)
    for number in range(3):  # conformations of a molecule are scattered over the parts
        write_conformations(parts / f"part-{number}.h5", items[number::3], header)
    joined, scattered = (Dataset.open(path) for path in (tmp_path / "labels.h5", parts))
    assert len(scattered.groups) == 3 * len(joined.groups)

    def off(found: Predicted) -> Predicted:  # by an amount that only the conformation decides
        return Predicted(found.energy + float(np.sin(1e3 * found.forces[0, 0])), found.forces * 1.1)

    first, second = (
        evaluate_potentials(dataset, [Told(labels_of(joined, off))], PredictionJournal()).results[0]
        for dataset in (joined, scattered)
    )
    assert first.errors["all"].relative_energy.n == 2 * 28
    for name, own in first.errors.items():
        other = second.errors[name]
        assert other.relative_energy.n == own.relative_energy.n
        for quantity in ("energy", "relative_energy", "force"):
            one, two = getattr(own, quantity), getattr(other, quantity)
            assert (two.mae, two.rmse) == (pytest.approx(one.mae), pytest.approx(one.rmse))
    assert len(first.curves) == len(second.curves) == 2
    for curve, other_curve in zip(first.curves, second.curves, strict=True):
        np.testing.assert_allclose(other_curve.relative, curve.relative)


def test_colours_are_potentials_and_shapes_are_kinds(comp6: Dataset) -> None:
    told = [Told(labels_of(comp6, same), name=name) for name in ("one", "other")]
    figure = interaction_figure(evaluate_potentials(comp6, told, PredictionJournal()))
    left, right = figure.axes
    (potentials,) = figure.legends  # beside neither of the panels, for both
    assert len(potentials.get_texts()) == 2
    colours = [to_hex(patch.get_facecolor()) for patch in potentials.get_patches()]
    assert [to_hex(line.get_color()) for line in right.lines] == colours
    assert {to_hex(dots.get_facecolor()[0][:3]) for dots in left.collections} == set(colours)
    assert right.get_legend() is None
    kinds = {line.get_marker() for line in left.get_legend().get_lines()}
    assert not kinds & {line.get_marker() for line in right.lines}


def test_isomers_of_comp6_stay_apart(tmp_path: Path) -> None:
    """Two molecules of one formula, each in two files: no pairs between the molecules."""
    with h5py.File(FIXTURE) as source:
        for number, rows in enumerate((slice(0, 3), slice(3, 8))):
            with h5py.File(tmp_path / f"{number}.h5", "w") as out:
                for name in ("mol00", "mol99"):
                    group = out.create_group(f"s66x8/{name}")
                    for key, values in source["s66x8/mol00"].items():
                        group[key] = values[:] if key == "species" else values[rows]
    dataset = Dataset.open(tmp_path)
    told = Told(labels_of(dataset, same))
    found = evaluate_potentials(dataset, [told], PredictionJournal()).results[0]
    assert found.errors["all"].relative_energy.n == 2 * 28
    assert [curve.scan.name for curve in found.curves] == ["s66x8/mol00", "s66x8/mol99"]


def test_what_is_no_dimer_scan() -> None:
    rng = np.random.default_rng(0)
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    numbers = np.array([8, 1, 1])

    def waters(shifts: list[float], noise: float = 0.0) -> Conformation:
        positions = np.concatenate([water + np.array([0.0, 0.0, shift]) for shift in shifts])
        positions += noise * rng.normal(size=positions.shape)
        everything = np.tile(numbers, len(shifts))
        return Conformation(
            everything, positions, -1.0, np.zeros(positions.shape), "pair", "W", "x"
        )

    def n_scans(items: list[Conformation]) -> int:
        return len(find_dimer_scans(Dataset(list(group_conformations(items, {})))))

    assert n_scans([waters([0.0, 3.0 + step]) for step in range(3)]) == 1
    assert n_scans([waters([0.0, 3.0 + step]) for step in range(2)]) == 0
    assert n_scans([waters([0.0, 3.0 + step], noise=0.05) for step in range(3)]) == 0
    assert n_scans([waters([0.0, 3.0, 6.0 + step]) for step in range(3)]) == 0
    assert n_scans([waters([3.0 * step]) for step in range(3)]) == 0


def test_published_rows_stand_beside_comp6_only(comp6: Dataset, tmp_path: Path) -> None:
    rows = {row.potential: row for row in comp6_table().rows}
    assert len(rows) == 9
    assert (rows["TrIP"].energy_mae, rows["TrIP"].energy_rmse) == (1.04, 1.71)
    assert (rows["TrIP"].force_mae, rows["TrIP"].force_rmse) == (1.41, 2.80)
    assert rows["NewtonNet"].energy_rmse is None
    assert is_comp6(comp6)
    items = list(comp6)
    write_conformations(tmp_path / "x.h5", items, FileHeader("x", "wb97x/6-31g*"))
    other = Dataset.open(tmp_path / "x.h5")
    assert not is_comp6(other)
    told = Told(labels_of(other, same))
    text = markdown(evaluate_potentials(other, [told], PredictionJournal()), ["x.h5"])
    assert "published" not in text
    text = markdown(evaluate_potentials(comp6, [told], PredictionJournal()), ["comp6.h5"])
    assert "| TrIP | published | 101,352 | 1.04/1.71 | ... | ... | 1.41/2.80 |" in text
    assert "| NewtonNet* | published | 101,352 | 1.45/... | ... | ... | 1.79/... |" in text
    assert "rows cover s66x8 (16 conformations)" in text


def test_offsets_follow_the_level_of_theory(comp6: Dataset) -> None:
    def lifted(found: Predicted) -> Predicted:
        return Predicted(found.energy + len(found.forces), found.forces)  # 1 eV an atom

    equal = Told(labels_of(comp6, lifted), name="equal")
    other = Told(labels_of(comp6, lifted), level="GFN2-xTB", name="other")
    found = evaluate_potentials(comp6, [equal, other], PredictionJournal())
    first, second = found.results
    assert first.errors["all"].energy.mae == pytest.approx(7.5 * EV_TO_KCAL_PER_MOL)
    assert first.notes == ()
    assert second.errors["all"].energy.mae == pytest.approx(0.0, abs=1e-6)
    assert second.errors["all"].relative_energy.mae == pytest.approx(0.0, abs=1e-6)
    assert any("level of theory GFN2-xTB, labels wb97x/6-31g*" in note for note in second.notes)
    assert any("one offset per element" in note for note in second.notes)
    forced = evaluate_potentials(comp6, [equal], PredictionJournal(), Offsets.ELEMENT).results[0]
    assert forced.errors["all"].energy.mae == pytest.approx(0.0, abs=1e-6)
    plain = evaluate_potentials(comp6, [other], PredictionJournal(), Offsets.NONE).results[0]
    assert plain.errors["all"].energy.mae > 100.0
    assert any("not comparable" in note for note in plain.notes)


def test_a_reference_takes_the_place_of_labels(comp6: Dataset) -> None:
    def off(found: Predicted) -> Predicted:
        return Predicted(found.energy + 2.0 * KCAL, found.forces + KCAL)

    told, teacher = Told(labels_of(comp6, same)), Told(labels_of(comp6, off), name="teacher")
    found = evaluate_potentials(comp6, [told], PredictionJournal(), reference=teacher)
    errors = found.results[0].errors["all"]
    assert errors.energy.mae == pytest.approx(2.0)
    assert errors.force.mae == pytest.approx(1.0)
    assert found.published is None
    assert any("instead of those in the data" in note for note in found.notes)


def test_failures_of_a_reference_are_reported(comp6: Dataset, tmp_path: Path) -> None:
    bad = comp6[3].positions.tobytes()

    def failing(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Predicted:
        if len(numbers) == 9:  # the second dimer
            return Predicted.failed(9, "SCF did not converge")
        if positions.tobytes() == bad:
            return Predicted.failed(len(numbers), "energy or forces are not finite")
        return labels_of(comp6, same)(numbers, positions)

    told, teacher = Told(labels_of(comp6, same)), Told(failing, name="teacher")
    found = evaluate_potentials(comp6, [told], PredictionJournal(), reference=teacher)
    failures = {"energy or forces are not finite": 1, "SCF did not converge": 8}
    assert len(found.labelled) == 7
    assert found.labelled.reference_failures == failures
    assert (len(found.scans), found.n_scans_left_out) == (0, 2)
    write_report(found, tmp_path, ["comp6.h5"])
    document = json.loads((tmp_path / "evaluation.json").read_text())
    assert document["reference"]["failures"] == failures
    assert document["reference"]["potential"] == "trip:teacher"
    assert document["data"]["n_dimer_scans_left_out"] == 2
    text = (tmp_path / "evaluation.md").read_text()
    for line in (
        "TrIP teacher failed on 8 conformations (SCF did not converge), which are left out.",
        "failed on 1 conformations (energy or forces are not finite)",
        "2 of 2 dimers left out: a separation has no label.",
    ):
        assert line in text
    plain = evaluate_potentials(comp6, [told], PredictionJournal())
    assert (plain.reference, plain.n_scans_left_out) == (None, 0)
    assert plain.labelled.reference_failures == {}
    without = evaluate_potentials(comp6, [teacher], PredictionJournal())
    assert any("No interaction energies" in note for note in without.notes)


def test_missing_labels_are_left_out_and_counted(
    tmp_path: Path, journal: PredictionJournal
) -> None:
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]])
    items = [
        Conformation(
            np.array([1, 1]), positions * (1 + 0.01 * k), energy, forces, "molecule", "H2", "x"
        )
        for k, (energy, forces) in enumerate(
            [
                (-30.0, np.zeros((2, 3))),
                (np.nan, np.zeros((2, 3))),
                (-30.0, np.full((2, 3), np.nan)),
            ]
        )
    ]
    dataset = Dataset(list(group_conformations(items, {})))
    told = Told(lambda numbers, own: Predicted(-30.0, np.zeros((2, 3))))
    labelled, _ = collect(dataset, [told], journal)
    assert (len(labelled), labelled.n_unlabelled, told.n_evaluations) == (1, 2, 1)
    labelled, _ = collect(dataset, [told], PredictionJournal(), reference=told)
    assert (len(labelled), labelled.n_unlabelled) == (3, 0)
    partly = np.zeros((2, 3))
    partly[0, 2] = np.nan
    damaged = Conformation(np.array([1, 1]), positions, -30.0, partly, "molecule", "H2", "x")
    with pytest.raises(DataError, match=r"molecule/H2: conformation 3 .*1 of 6 force components"):
        collect(Dataset(list(group_conformations([*items, damaged], {}))), [told], journal)
    items[0] = Conformation(
        np.array([1, 1]), positions * np.nan, -30.0, np.zeros((2, 3)), "molecule", "H2", "x"
    )
    with pytest.raises(DataError, match="molecule/H2: positions that are not finite"):
        collect(Dataset(list(group_conformations(items, {}))), [told], journal)


def test_a_conformation_that_fails_is_left_out_for_all(
    comp6: Dataset, journal: PredictionJournal
) -> None:
    bad = comp6[3].positions.tobytes()

    def failing(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Predicted:
        if positions.tobytes() == bad:
            return Predicted.failed(len(positions), "SCF did not converge")
        return labels_of(comp6, same)(numbers, positions)

    found = evaluate_potentials(
        comp6, [Told(labels_of(comp6, same), name="good"), Told(failing, name="bad")], journal
    )
    good, failed = found.results
    assert good.errors["all"].n_conformations == failed.errors["all"].n_conformations == 15
    assert failed.predicted.failures == {"SCF did not converge": 1}
    assert any("1 conformations failed (SCF did not converge)" in note for note in failed.notes)
    assert (len(good.curves), len(failed.curves)) == (2, 1)
    tables = "".join(table.to_markdown() for table in all_tables(found))
    assert "1 dimers left out" in tables


def test_a_killed_evaluation_goes_on_where_it_was(comp6: Dataset, tmp_path: Path) -> None:
    told = Told(labels_of(comp6, same))
    path = tmp_path / "predictions.sqlite"

    def stopping(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Predicted:
        if len(numbers) == 9:  # the second group
            raise KeyboardInterrupt
        return labels_of(comp6, same)(numbers, positions)

    with pytest.raises(KeyboardInterrupt):
        collect(comp6, [Told(stopping)], PredictionJournal(path))
    labelled, (again,) = collect(comp6, [told], PredictionJournal(path))
    assert told.n_evaluations == 8
    np.testing.assert_array_equal(again.energies, labelled.energies)
    np.testing.assert_array_equal(again.forces, labelled.forces)
    collect(comp6, [told], PredictionJournal(path))
    assert told.n_evaluations == 8
    other = Told(labels_of(comp6, same), name="another checksum")
    collect(comp6, [other], PredictionJournal(path))
    assert other.n_evaluations == 16


def test_every_slow_prediction_is_kept_at_once(
    comp6: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight conformations in one group, those before the one that is killed are kept."""
    path = tmp_path / "predictions.sqlite"
    known = labels_of(comp6, same)
    n_kept = []

    def evaluate(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        with closing(sqlite3.connect(path)) as other:
            n_kept.extend(other.execute("SELECT count(*) FROM predictions").fetchone())
        if len(n_kept) == 4:
            raise KeyboardInterrupt
        found = known(comp6.groups[0].atomic_numbers, positions)
        return found.energy, found.forces

    monkeypatch.setattr(collection, "_KEEP_EVERY_S", 0.0)
    slow = SinglePredictor(PotentialSpec("qm", "wb97x/6-31g*"))
    monkeypatch.setattr(slow, "check", lambda dataset: None)
    monkeypatch.setattr(slow, "_bind", lambda *arguments: evaluate)
    with pytest.raises(KeyboardInterrupt):
        collect(comp6, [slow], PredictionJournal(path))
    assert n_kept == [0, 1, 2, 3]


def test_molecules_of_a_dimer_are_evaluated_in_their_own_spin_state() -> None:
    """OH + H2O: the radical alone is a doublet; the triplet of the dimer belongs to neither."""
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    hydroxyl = np.array([[0.0, 0.0, 0.0], [0.97, 0.0, 0.0]])

    def interaction(n_unpaired: int, numbers: list[int], own: NDArray[np.float64]) -> float:
        items = []
        for step in range(3):
            positions = np.concatenate([water, own + np.array([0.0, 0.0, 3.0 + step])])
            everything = np.array([8, 1, 1, *numbers])
            labels = (-1.0, np.zeros(positions.shape), "pair", "W", "x", n_unpaired)
            items.append(Conformation(everything, positions, *labels))
        scans = find_dimer_scans(Dataset(list(group_conformations(items, {}))))
        told = SpinTold()
        (curve,) = interaction_curves(scans, told, PredictionJournal())
        return float(curve.interaction[-1])

    assert interaction(1, [8, 1], hydroxyl) == pytest.approx(0.0)
    assert interaction(0, [8, 1, 1], water) == pytest.approx(0.0)
    assert math.isnan(interaction(2, [8, 1, 1], water))


class SpinTold(Told):
    """Answers with -1 eV for each atom, and fails where the spin does not fit the electrons."""

    def __init__(self) -> None:
        super().__init__(lambda numbers, positions: Predicted(0.0, positions))

    def predict(self, atomic_numbers, positions, n_unpaired):  # type: ignore[no-untyped-def]
        n_atoms = len(atomic_numbers)
        if (int(atomic_numbers.sum()) - int(n_unpaired[0])) % 2:
            return [Predicted.failed(n_atoms, "spin")] * len(positions)
        return [Predicted(-float(n_atoms), np.zeros(own.shape)) for own in positions]


def test_predictions_of_another_version_are_not_taken(
    comp6: Dataset, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that a later version corrects must not leave its predictions behind."""
    path = tmp_path / "predictions.sqlite"
    dataset = Dataset(comp6.groups[:1], comp6.level_of_theory)
    computed = []
    predict = TripPredictor.predict

    def counting(self, atomic_numbers, positions, n_unpaired):  # type: ignore[no-untyped-def]
        computed.append(len(positions))
        return predict(self, atomic_numbers, positions, n_unpaired)

    monkeypatch.setattr(TripPredictor, "predict", counting)
    for release in ("0.1.0", "0.1.0", "0.1.1"):
        monkeypatch.setattr("trip_mm.evaluation.predictors.__version__", release)
        collect(dataset, [predictor(parse_potential(str(model)))], PredictionJournal(path))
    assert computed == [8, 8]


@pytest.mark.parametrize(
    ("potential", "packages"),
    [
        ("gfn2", ["tblite"]),
        ("wb97x/6-31g*", ["pyscf"]),
        ("openmm-ml:ani2x", ["openmmml", "openmm", "torch", "torchani"]),
        ("openmm-ml:mace-off23-small", ["openmmml", "openmm", "torch", "mace-torch"]),
    ],
)
def test_identities_name_the_versions_of_what_computes(
    potential: str, packages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trip_mm.evaluation.predictors.version", lambda name: f"9 of {name}")
    monkeypatch.setattr("trip_mm.evaluation.predictors.__version__", "7")
    identity = predictor(parse_potential(potential)).identity
    assert identity == ", ".join(
        [f"{parse_potential(potential)} trip-mm 7", *(f"{name} 9 of {name}" for name in packages)]
    )


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(DataError, match=r"predictions\.sqlite: cannot be used as a journal"):
        PredictionJournal(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TripConfig(
        n_channels=4, l_max=1, n_layers=1, n_heads=1, radial_hidden=8, n_scalars=4, readout_hidden=8
    )
    potential = new_potential(config, seed=2)
    potential.set_energy_statistics(
        {1: -13.6, 6: -1028.0, 7: -1480.0, 8: -2040.0}, dict.fromkeys((1, 6, 7, 8), -2.0), 0.5
    )
    return save_potential(potential, tmp_path_factory.mktemp("model") / "tiny.safetensors")


def test_trip_in_batches_is_trip_one_by_one(comp6: Dataset, model: Path) -> None:
    batched = TripPredictor(parse_potential(str(model)), "cpu")
    alone = load_potential(model, dtype="float64")
    group = comp6.groups[1]
    block = group.read(slice(0, 3))
    found = batched.predict(group.atomic_numbers, block.positions, block.n_unpaired)
    for own, positions in zip(found, block.positions, strict=True):
        energy, forces = alone.energy_and_forces(positions, group.atomic_numbers)
        assert own.energy == pytest.approx(energy, abs=1e-4)
        np.testing.assert_allclose(own.forces, forces, atol=1e-4)


def test_any_potential_of_the_runner(comp6: Dataset, journal: PredictionJournal) -> None:
    pytest.importorskip("tblite")
    from trip_mm.training.labels_methods import find_method

    gfn2 = predictor(parse_potential("gfn2"))
    group = comp6.groups[0]
    block = group.read(slice(0, 2))
    found = list(gfn2.predict(group.atomic_numbers, block.positions, block.n_unpaired))
    direct = find_method("gfn2").calculate(group.atomic_numbers, block.positions[1], 0)
    assert found[1].energy == pytest.approx(direct.energy, abs=1e-9)
    np.testing.assert_allclose(found[1].forces, direct.forces, atol=1e-9)


def test_amber14_needs_templates(comp6: Dataset, journal: PredictionJournal) -> None:
    amber = SinglePredictor(parse_potential("amber14"))
    with pytest.raises(UnsupportedSystemError, match=r"Amber14: s66x8/mol01: .*no parameters"):
        collect(comp6, [amber], journal)
    waters = Dataset(comp6.groups[:1], comp6.level_of_theory)
    result = evaluate_potentials(waters, [amber], journal).results[0]
    # TIP3P-FB binds the water dimer: an energy well of some kcal/mol at the right separation.
    assert -8.0 < result.curves[0].relative.min() < -4.0


def test_refusals_come_before_any_work(
    comp6: Dataset, model: Path, journal: PredictionJournal
) -> None:
    told = Told(labels_of(comp6, same))
    if importlib.util.find_spec("torchani") is None:
        with pytest.raises(
            MissingDependencyError, match=r"openmm-ml:ani2x needs a package.*pip install torchani"
        ):
            collect(comp6, [told, predictor(parse_potential("openmm-ml:ani2x"))], journal)
    if importlib.util.find_spec("pyscf") is not None:
        with pytest.raises(ConfigError, match=r"knows no such functional or basis .*no such file"):
            collect(comp6, [told, predictor(parse_potential("nofunctional/6-31g*"))], journal)
    sulfur = Conformation(
        np.array([1, 1, 16]), np.eye(3), -1.0, np.zeros((3, 3)), "molecule", "H2S", "x"
    )
    dataset = Dataset(list(group_conformations([sulfur], {})))
    with pytest.raises(UnsupportedElementError, match="TrIP tiny: does not know S"):
        collect(dataset, [told, TripPredictor(parse_potential(str(model)), "cpu")], journal)
    assert told.n_evaluations == 0


def beside_water(*numbers: int) -> Dataset:
    """Two groups: water, then a molecule of other elements."""
    grid = 1.1 * np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    items = [
        Conformation(np.array(own), grid[: len(own)], -1.0, np.zeros((len(own), 3)), name, "X", "x")
        for name, own in (("a", (8, 1, 1)), ("b", numbers))
    ]
    return Dataset(list(group_conformations(items, {})))


@pytest.mark.parametrize(
    ("potential", "element", "message"),
    [
        ("wb97x/6-31g*", 92, r"6-31G\*: b/X: has no parameters for U; .*another basis"),
        ("df-pbe/cc-pvdz", 53, "b/X: has no parameters for I;"),
        ("gfn2", 87, "GFN2-xTB: b/X: has no parameters for Fr; .*another potential"),
    ],
)
def test_elements_of_later_groups_are_refused_before_any_work(
    journal: PredictionJournal, potential: str, element: int, message: str
) -> None:
    pytest.importorskip("tblite" if potential == "gfn2" else "pyscf")
    told = Told(lambda numbers, own: Predicted(0.0, np.zeros(own.shape)))
    with pytest.raises(UnsupportedElementError, match=message):
        collect(beside_water(1, element), [told, predictor(parse_potential(potential))], journal)
    assert told.n_evaluations == 0


@pytest.mark.parametrize("at_once", [True, False])
def test_models_of_openmm_ml_are_tried_on_every_set_of_elements(
    journal: PredictionJournal, at_once: bool
) -> None:
    """MACE refuses an element when the System is made, ANI when the energy is computed."""
    mlpotential = pytest.importorskip("openmmml.mlpotential")
    import openmm

    tried = []

    def compute(state: object, known: bool) -> tuple[float, NDArray[np.float64]]:
        if not known:
            raise ValueError("16 is not in list")
        return 1.0, np.zeros((3, 3))

    class Impl(mlpotential.MLPotentialImpl):  # type: ignore[misc, name-defined]
        def addForces(self, topology, system, atoms, forceGroup, **args):  # type: ignore[no-untyped-def]  # noqa: N802
            symbols = [atom.element.symbol for atom in topology.atoms()]
            tried.append(symbols)
            if at_once and "S" in symbols:
                raise ValueError("16 is not in list")
            system.addForce(openmm.PythonForce(partial(compute, known="S" not in symbols)))

    class Factory(mlpotential.MLPotentialImplFactory):  # type: ignore[misc, name-defined]
        def createImpl(self, name, **args):  # type: ignore[no-untyped-def]  # noqa: N802
            return Impl()

    mlpotential.MLPotential.registerImplFactory("tried", Factory())
    told = Told(lambda numbers, own: Predicted(0.0, np.zeros(own.shape)))
    peer = predictor(parse_potential("openmm-ml:tried"))
    message = r"tried: b/X: the model does not take a molecule of H, S \(.*16 is not in list"
    with pytest.raises(UnsupportedElementError, match=message):
        collect(beside_water(1, 1, 16), [told, peer], journal)
    assert told.n_evaluations == 0
    tried.clear()
    same_elements = beside_water(1, 8, 1)
    peer = predictor(parse_potential("openmm-ml:tried"))
    labelled, _ = collect(same_elements, [peer], PredictionJournal())
    assert (len(labelled), len(tried)) == (2, 1)


def test_a_torn_molecule_fails_alone_under_amber14(journal: PredictionJournal) -> None:
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    torn = water * np.array([[1.0], [3.0], [1.0]])
    items = [
        Conformation(np.array([8, 1, 1]), own, -1.0, np.zeros((3, 3)), "water", "H2O", "x")
        for own in (water, torn)
    ]
    dataset = Dataset(list(group_conformations(items, {})))
    labelled, (found,) = collect(dataset, [SinglePredictor(parse_potential("amber14"))], journal)
    assert len(labelled) == 1
    ((reason, count),) = found.failures.items()
    assert count == 1
    assert "no parameters" in reason


def test_report_holds_every_number(comp6: Dataset, tmp_path: Path) -> None:
    told = Told(labels_of(comp6, same), level="GFN2-xTB")
    found = evaluate_potentials(comp6, [told], PredictionJournal())
    written = write_report(found, tmp_path / "out", ["comp6.h5"])
    assert sorted(path.name for path in written) == sorted(
        path.name for path in (tmp_path / "out").iterdir()
    )
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    (own,) = document["potentials"]
    assert own["errors"]["s66x8"]["n_conformations"] == 16
    assert own["interactions_kcal_per_mol"]["by_kind"]["all"]["points"]["mae"] == pytest.approx(0.0)
    assert set(own["offsets_ev"]) == {"H", "C", "O"}
    assert document["data"]["n_dimer_scans"] == 2
    rows = (tmp_path / "out" / "interactions.csv").read_text().splitlines()
    assert len(rows) == 1 + 16
    assert rows[1].startswith("TrIP told,s66x8/mol00,H2O + H2O,hydrogen-bonded,1.8103,-6.6518,")
    without = replace(found, results=tuple(replace(own, curves=()) for own in found.results))
    write_report(without, tmp_path / "out", ["other.h5"])
    assert not list((tmp_path / "out").glob("interactions.*"))


@pytest.mark.parametrize("n_conformations", [1, 16])
def test_predictions_far_from_all_labels_are_drawn(
    comp6: Dataset, tmp_path: Path, n_conformations: int
) -> None:
    """One conformation has no range of labels; another level of theory may be anywhere."""
    items = list(comp6)[:n_conformations]
    dataset = Dataset(list(group_conformations(items, {})), comp6.level_of_theory)

    def far(found: Predicted) -> Predicted:
        return Predicted(found.energy + 1000.0, found.forces)

    told = Told(labels_of(dataset, far))
    found = evaluate_potentials(dataset, [told], PredictionJournal(), Offsets.NONE)
    assert tmp_path / "parity.png" in write_report(found, tmp_path, ["x.h5"])


def test_arguments_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels").mkdir()
    specs, data = sort_arguments(["trip-gfn2-s", "gfn2", "m.safetensors", "labels", "absent.h5"])
    assert [str(spec) for spec in specs] == ["trip:trip-gfn2-s", "gfn2", "trip:m.safetensors"]
    assert [path.name for path in data] == ["labels", "absent.h5"]
    for arguments, message in (
        (["x.h5"], "no potential is named"),
        (["gfn2"], "no data are named"),
        (["gfn2", "gfn2", "x.h5"], "given twice"),
        (["one/m.safetensors", "two/m.safetensors", "x.h5"], "both called TrIP m in tables"),
        (["gnf2", "x.h5"], "unknown"),
    ):
        with pytest.raises(ConfigError, match=message):
            sort_arguments(arguments)
