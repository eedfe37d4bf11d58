"""The torsion benchmark: scores by hand, statistics, accounting, resume, report and page."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rdkit import Chem

from trip_mm.errors import ConfigError, EvaluationError, RunDirectoryError, UnsupportedSystemError
from trip_mm.geometry.dihedral import dihedral_angle, set_dihedral
from trip_mm.geometry.molecule import Molecule, read_molecule
from trip_mm.geometry.potentials import PotentialSpec
from trip_mm.locking import locked
from trip_mm.torsion import drive_tasks, filters, metrics
from trip_mm.torsion.benchmark import benchmark
from trip_mm.torsion.drawing import _without_plain_hydrogens, molecule_svg
from trip_mm.torsion.drive import DriveResult, DriveSettings, Outcome, run_benchmark
from trip_mm.torsion.metrics import RecordScore, boltzmann_distance, position_error, score
from trip_mm.torsion.profile import Profile
from trip_mm.torsion.record_sets import RecordSet
from trip_mm.torsion.records import (
    DrivenPoints,
    TorsionRecord,
    mapped_smiles,
    mol_from_mapped_smiles,
)
from trip_mm.torsion.reference import mirror_image
from trip_mm.torsion.summary import differences, plain_smiles, summarize
from trip_mm.units import BOLTZMANN_CONSTANT, EV_TO_KCAL_PER_MOL, KCAL_PER_MOL_TO_EV
from trip_mm.workers import Workers

pq = pytest.importorskip("pyarrow.parquet")

ANGLES = np.array([-120.0, -60.0, 0.0, 60.0, 120.0, 180.0])
ELEMENTS = filters.parse_elements(filters.DEFAULT_ELEMENTS)
GFN1, GFN2 = PotentialSpec("qm", "gfn1"), PotentialSpec("qm", "gfn2")
ONE = Workers()


def quiet(line: str) -> None:
    """Says nothing."""


def made(smiles: str, atoms: tuple[int, int, int, int], name: str, level: str) -> TorsionRecord:
    """A record with rigidly turned geometries and a made-up profile."""
    molecule = read_molecule(smiles)
    positions = np.array([set_dihedral(molecule, atoms, angle) for angle in ANGLES])
    energies = np.cos(np.radians(ANGLES)) * KCAL_PER_MOL_TO_EV
    points = DrivenPoints(ANGLES, energies, positions)
    return TorsionRecord(name, "t", mapped_smiles(molecule.rdkit), atoms, points, level, level)


@pytest.fixture(scope="module")
def peroxide() -> TorsionRecord:
    return made("OO", (2, 0, 1, 3), "peroxide", "made up")


@pytest.fixture(scope="module")
def butane() -> TorsionRecord:
    return made("CCCC", (0, 1, 2, 3), "butane", "made up")


@pytest.fixture(scope="module")
def ethanol() -> TorsionRecord:
    return made("CCO", (0, 1, 2, 8), "ethanol", "other level")


def test_rmsd_ignores_place_and_orientation_but_not_handedness(butane: TorsionRecord) -> None:
    assert butane.points is not None
    one = butane.points.positions[3]
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    assert metrics.superposed_rmsd(one, one @ turn + 3.0) == pytest.approx(0.0, abs=1e-6)
    assert metrics.superposed_rmsd(one, mirror_image(one)) > 0.3
    # Two atoms at a distance of 2 and of 4 A: each is off by 1 A.
    short, long = np.array([[0, 0, 0], [2, 0, 0.0]]), np.array([[0, 0, 0], [0, 4, 0.0]])
    assert metrics.superposed_rmsd(short, long) == pytest.approx(1.0)


def test_boltzmann_distance() -> None:
    energies = np.array([0.0, 0.1, 0.02])
    assert boltzmann_distance(energies + 5.0, energies, 300.0) == pytest.approx(0.0, abs=1e-7)
    far = np.array([0.0, 10.0])
    assert boltzmann_distance(far, far[::-1], 300.0) == pytest.approx(1.0)
    # Weights 1/2, 1/2 against 1, 0: divergence 3/2 - 3/4 log2(3).
    equal = np.zeros(2)
    expected = np.sqrt(1.5 - 0.75 * np.log2(3.0))
    assert boltzmann_distance(equal, far, 300.0) == pytest.approx(expected)
    warm = boltzmann_distance(energies, np.zeros(3), 1000.0)
    assert warm < boltzmann_distance(energies, np.zeros(3), 100.0)
    assert pytest.approx(0.0257, rel=0.01) == BOLTZMANN_CONSTANT * 298.15


def test_equal_extrema_of_symmetric_molecules_do_not_count_as_shifts() -> None:
    own = Profile("o", ANGLES, np.array([1.0, 0.0, 3.0, 0.01, 1.0, 2.0]) * KCAL_PER_MOL_TO_EV)
    other = Profile("r", ANGLES, np.array([1.0, 0.02, 2.0, 0.0, 1.0, 3.0]) * KCAL_PER_MOL_TO_EV)
    assert position_error(metrics.lowest(own), metrics.lowest(other)) == 0.0
    assert position_error(metrics.highest(own), metrics.highest(other)) == 180.0


def test_scores_of_the_reference_itself_are_zero(butane: TorsionRecord) -> None:
    assert butane.points is not None
    found = score(butane, butane.points, 298.15, relaxed=True)
    assert np.array(list(found.to_dict().values())) == pytest.approx(0.0, abs=1e-6)
    single = score(butane, butane.points, 298.15, relaxed=False)
    assert np.isnan(single.rmsd_angstrom)


def test_fingerprint_deviation(butane: TorsionRecord, peroxide: TorsionRecord) -> None:
    assert butane.points is not None
    assert peroxide.points is not None
    # 30 degrees of the 180 that count as 1: the only torsion of heavy atoms is the driven one.
    molecule = butane.molecule(0)
    turned = [set_dihedral(molecule, (0, 1, 2, 3), angle + 30.0) for angle in ANGLES]
    found = replace(butane.points, positions=np.array(turned))
    scores = score(butane, found, 298.15, relaxed=True)
    assert scores.torsion_fingerprint_deviation == pytest.approx(30.0 / 180.0, abs=1e-3)
    none = score(peroxide, peroxide.points, 298.15, relaxed=True)
    assert np.isnan(none.torsion_fingerprint_deviation)


def with_rmse(record: TorsionRecord, name: str, spec: PotentialSpec, rmse: float) -> Outcome:
    nan = float("nan")
    scores = RecordScore(rmse, rmse, rmse, -rmse, rmse, 0.0, 0.0, 0.0, nan, nan)
    return Outcome(replace(record, record_id=name), spec, record.points, scores)


def result_of(outcomes: list[Outcome], n_resamples: int = 500) -> DriveResult:
    specs = tuple(dict.fromkeys(outcome.spec for outcome in outcomes))
    settings = DriveSettings(specs, "single-point", ELEMENTS, n_resamples=n_resamples)
    records = tuple(o.record for o in outcomes if o.spec == specs[0])
    return DriveResult(RecordSet("t", records), settings, (), tuple(outcomes))


def test_summary_by_hand(
    peroxide: TorsionRecord, butane: TorsionRecord, ethanol: TorsionRecord
) -> None:
    outcomes = [
        with_rmse(peroxide, "a", GFN1, 0.4),
        with_rmse(peroxide, "b", GFN1, 0.5),
        with_rmse(butane, "c", GFN1, 3.0),
        with_rmse(ethanol, "d", GFN1, 9.0),
    ]
    first, second = summarize(result_of(outcomes))
    assert (first.level, first.n_records, first.n_molecules) == ("made up", 3, 2)
    rmse = first.scores["rmse_kcal_per_mol"]
    assert rmse["mean"].value == pytest.approx(1.3)
    assert rmse["median"].value == pytest.approx(0.5)
    # Molecules are drawn, so the means that occur are those of peroxide, butane, and both.
    assert (rmse["mean"].low, rmse["mean"].high) == pytest.approx((0.45, 3.0))
    assert first.shares["0.5"].value == pytest.approx(2 / 3)
    assert first.shares["1"].value == pytest.approx(2 / 3)
    assert np.isnan(first.scores["rmsd_angstrom"]["mean"].value)
    # Levels are not mixed, and one molecule gives no interval.
    assert second.scores["rmse_kcal_per_mol"]["mean"].value == pytest.approx(9.0)
    assert np.isnan(second.scores["rmse_kcal_per_mol"]["mean"].low)
    assert repr(summarize(result_of(outcomes))) == repr([first, second])


def test_differences_are_paired(peroxide: TorsionRecord, butane: TorsionRecord) -> None:
    outcomes = [
        with_rmse(peroxide, "a", GFN1, 1.0),
        with_rmse(butane, "b", GFN1, 5.0),
        with_rmse(peroxide, "a", GFN2, 0.5),
        with_rmse(butane, "b", GFN2, 4.5),
    ]
    outcomes.append(Outcome(replace(butane, record_id="c"), GFN2, reason="did not converge"))
    outcomes.append(with_rmse(butane, "c", GFN1, 50.0))
    (found,) = differences(result_of(outcomes))
    assert (found.n_records, found.score) == (2, "rmse_kcal_per_mol")
    estimates = (found.mean.value, found.mean.low, found.mean.high)
    assert estimates == pytest.approx((0.5, 0.5, 0.5))


Evaluate = Callable[[NDArray[np.float64]], float]


@pytest.fixture
def made_up_potentials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """GFN1 fails for butane at 60 degrees, GFN2 knows no ethanol; both are a bent cosine else."""
    calls: list[str] = []

    def bound(spec: PotentialSpec, molecule: Molecule) -> Evaluate:
        formula = molecule.formula
        if spec == GFN2 and formula == "C2H6O":
            raise UnsupportedSystemError("no ethanol")
        atoms = {"H2O2": (2, 0, 1, 3), "C4H10": (0, 1, 2, 3), "C2H6O": (0, 1, 2, 8)}[formula]

        def energy(positions: NDArray[np.float64]) -> float:
            calls.append(f"{spec} {formula}")
            angle = dihedral_angle(positions, atoms)
            if spec == GFN1 and formula == "C4H10" and abs(angle - 60.0) < 1.0:
                raise EvaluationError("SCF did not converge")
            return float(1.2 * np.cos(np.radians(angle)) * KCAL_PER_MOL_TO_EV)

        return energy

    monkeypatch.setattr(drive_tasks, "bind_energy", bound)
    drive_tasks._bound_energy.cache_clear()
    yield calls
    drive_tasks._bound_energy.cache_clear()


def test_everything_is_accounted_for_and_written(
    peroxide: TorsionRecord,
    butane: TorsionRecord,
    ethanol: TorsionRecord,
    made_up_potentials: list[str],
    tmp_path: Path,
) -> None:
    charged = TorsionRecord("ion", "t", "[H:1][O-:2]")
    dataset = RecordSet("made-up", (butane, ethanol, peroxide, charged))
    settings = DriveSettings((GFN1, GFN2), "single-point", ELEMENTS, n_resamples=100)
    done = benchmark(dataset, settings, tmp_path, ONE, quiet, "trip-mm torsion drive made-up")
    table = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(table) == 1 + 2 * 3
    reasons = {(r["record_id"], r["potential"]): r["reason"] for r in table}
    assert reasons == {
        ("ion", None): filters.CHARGE,
        ("butane", "GFN1-xTB"): drive_tasks.NO_ENERGY,
        ("ethanol", "GFN1-xTB"): None,
        ("peroxide", "GFN1-xTB"): None,
        ("butane", "GFN2-xTB"): None,
        ("ethanol", "GFN2-xTB"): drive_tasks.UNSUPPORTED,
        ("peroxide", "GFN2-xTB"): None,
    }
    row = next(r for r in table if r["record_id"] == "peroxide" and r["potential"] == "GFN2-xTB")
    # 1.2 cos against cos: RMSE 0.2 sqrt(1/2), barrier 0.4 too high.
    assert row["rmse_kcal_per_mol"] == pytest.approx(0.2 * np.sqrt(0.5), abs=1e-6)
    assert row["barrier_error_kcal_per_mol"] == pytest.approx(0.4, abs=1e-6)
    assert pq.read_table(tmp_path / "points.parquet").num_rows == 4 * 6
    text = (tmp_path / "summary.json").read_text()
    document = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert document["dataset"] == "made-up"
    first = document["summaries"][0]["scores"]
    assert first["rmsd_angstrom"]["mean"] == {"value": None, "low": None, "high": None}
    assert first["rmse_kcal_per_mol"]["mean"]["value"] > 0.0

    report = (tmp_path / "report.md").read_text()
    columns = [
        [int(word) for word in re.findall(r"\| \**(\d+)\** ", line)]
        for line in report.split("## Records")[1].split("##")[0].splitlines()
        if re.search(r"\d", line) and "GFN" not in line
    ]
    assert columns[0] == [4, 4]
    assert np.sum(columns[1:], axis=0).tolist() == [4, 4]
    assert "## Against made up" in report
    assert "## Against other level" in report
    assert "| ion | all | net charge | -1 |" in report
    assert "trip-mm torsion drive made-up" in report
    check_page((tmp_path / "profiles.html").read_text())
    assert len(done.summaries) == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"smiles": "OO"}, "every atom, hydrogens included, needs a map number"),
        ({"dihedral": (3, 1, 2, 4)}, "dihedral 3,1,2,4 with 4 atoms, counted from 0"),
    ],
)
def test_records_that_cannot_be_read_do_not_stop_the_others(
    peroxide: TorsionRecord,
    made_up_potentials: list[str],
    tmp_path: Path,
    change: dict[str, object],
    reason: str,
) -> None:
    damaged = replace(peroxide, record_id="damaged", **change)  # type: ignore[arg-type]
    settings = DriveSettings((GFN2,), "single-point", ELEMENTS, n_resamples=10)
    benchmark(RecordSet("made-up", (damaged, peroxide)), settings, tmp_path, ONE, quiet)
    rows = {r["record_id"]: r for r in pq.read_table(tmp_path / "results.parquet").to_pylist()}
    assert (rows["peroxide"]["status"], rows["damaged"]["status"]) == ("done", "skipped")
    assert rows["damaged"]["reason"] == filters.UNREADABLE
    assert reason in rows["damaged"]["detail"]
    assert rows["damaged"]["torsion_class"] is None


@pytest.mark.parametrize("seed", range(4))
def test_pictures_show_the_stereoisomer_of_the_record(seed: int) -> None:
    centres = "C[C@H](O)[C@@H](C)N"
    mol = Chem.AddHs(Chem.MolFromSmiles(centres))
    order = np.random.default_rng(seed).permutation(mol.GetNumAtoms())
    smiles = mapped_smiles(Chem.RenumberAtoms(mol, order.tolist()))
    chain = Chem.MolFromSmarts("[H]O[CX4][CX4]")
    dihedral = mol_from_mapped_smiles(smiles).GetSubstructMatch(chain)
    shown = _without_plain_hydrogens(mol_from_mapped_smiles(smiles), dihedral)
    assert [a.GetAtomicNum() for a in shown.GetAtoms()].count(1) == 1
    places = {a.GetIntProp("driven"): a.GetSymbol() for a in shown.GetAtoms()}
    assert [places[number] for number in (1, 2, 3, 4)] == ["H", "O", "C", "C"]
    assert Chem.MolToSmiles(Chem.RemoveHs(shown)) == Chem.CanonSmiles(centres)


def test_pictures_of_improper_dihedrals() -> None:
    ammonia = "[N:1]([H:2])([H:3])[H:4]"
    assert molecule_svg(ammonia, (1, 0, 2, 3)).startswith("<svg")


def check_page(text: str) -> None:
    """Well-formed, loads nothing, one card for each record, a curve for each finished profile."""
    open_tags: list[str] = []

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not {"src", "href"} & {name for name, _ in attrs}
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "img")

    Check().feed(text)
    assert open_tags == []
    assert text.count('<section class="card">') == 3
    assert text.count("<polyline") == 3 + 4
    assert "url(" not in text


def test_nothing_is_computed_twice(
    peroxide: TorsionRecord,
    butane: TorsionRecord,
    made_up_potentials: list[str],
    tmp_path: Path,
) -> None:
    settings = DriveSettings((GFN2,), "single-point", ELEMENTS)
    run_benchmark(RecordSet("s", (peroxide,)), settings, tmp_path, ONE, quiet)
    assert made_up_potentials == ["gfn2 H2O2"] * 6
    # The set grows and a potential is added: only what is new is computed.
    both = replace(settings, potentials=(GFN2, GFN1))
    found = run_benchmark(RecordSet("s", (butane, peroxide)), both, tmp_path, ONE, quiet)
    assert sorted(set(made_up_potentials)) == ["gfn1 C4H10", "gfn1 H2O2", "gfn2 C4H10", "gfn2 H2O2"]
    assert len(made_up_potentials) == 4 * 6
    assert len(found.outcomes) == 4
    # Other geometries under the same id are other work.
    assert peroxide.points is not None
    moved = replace(
        peroxide, points=replace(peroxide.points, positions=peroxide.points.positions * 1.01)
    )
    run_benchmark(RecordSet("s", (moved,)), settings, tmp_path, ONE, quiet)
    assert len(made_up_potentials) == 5 * 6


def test_mistakes_are_refused(peroxide: TorsionRecord, tmp_path: Path) -> None:
    dataset = RecordSet("s", (peroxide,))
    settings = DriveSettings((GFN2,), "sideways", ELEMENTS)
    with pytest.raises(ConfigError, match="sideways"):
        run_benchmark(dataset, settings, tmp_path, ONE, quiet)
    twice = DriveSettings((GFN2, GFN2), "relax", ELEMENTS)
    with pytest.raises(ConfigError, match="given twice"):
        run_benchmark(dataset, twice, tmp_path, ONE, quiet)
    alone = DriveSettings((GFN2,), "single-point", ELEMENTS)
    with locked(tmp_path), pytest.raises(RunDirectoryError, match="is in use by process"):
        run_benchmark(dataset, alone, tmp_path, ONE, quiet)
    with pytest.raises(ConfigError, match="leave --processes out"):
        Workers(2, "tcp://localhost:1")


def test_relaxation_holds_the_dihedral(peroxide: TorsionRecord, tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    assert peroxide.points is not None
    few = DrivenPoints(ANGLES[3:], peroxide.points.energies[3:], peroxide.points.positions[3:])
    dataset = RecordSet("s", (replace(peroxide, points=few),))
    settings = DriveSettings((GFN2,), "relax", ELEMENTS)
    (outcome,) = run_benchmark(dataset, settings, tmp_path, ONE, quiet).outcomes
    assert outcome.points is not None
    assert outcome.scores is not None
    batched = replace(settings, mode="relax-batched")
    (other,) = run_benchmark(dataset, batched, tmp_path, ONE, quiet).outcomes
    assert other.points is not None
    energies = outcome.points.energies * EV_TO_KCAL_PER_MOL
    assert other.points.energies * EV_TO_KCAL_PER_MOL == pytest.approx(energies, abs=0.01)
    angles = [dihedral_angle(p, (2, 0, 1, 3)) for p in outcome.points.positions]
    assert np.abs(angles) == pytest.approx([60.0, 120.0, 180.0], abs=0.05)
    assert 0.005 < outcome.scores.rmsd_angstrom < 0.2
    assert outcome.n_evaluations > 6


def test_equal_molecules_are_recognised(peroxide: TorsionRecord) -> None:
    assert plain_smiles(peroxide.smiles) == plain_smiles("[H:4][O:1][O:3][H:2]") == "OO"
