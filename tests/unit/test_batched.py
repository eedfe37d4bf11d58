"""Batched relaxation and batched scans against geomeTRIC one by one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import trip_mm
from trip_mm.errors import EvaluationError, UnsupportedElementError, UnsupportedSystemError
from trip_mm.geometry import batch_evaluation
from trip_mm.geometry.batch_evaluation import Evaluation, bind_batch
from trip_mm.geometry.batched import BatchRelaxer, Start, relax_batch
from trip_mm.geometry.conformers import embed_conformers
from trip_mm.geometry.dihedral import dihedral_angle, set_dihedral, wrapped
from trip_mm.geometry.molecule import Molecule, read_molecule
from trip_mm.geometry.potentials import bind, parse_potential
from trip_mm.geometry.relax import MAX_ITERATIONS, HeldDihedral, relax
from trip_mm.geometry.superposition import rmsd
from trip_mm.model.trip import TripConfig
from trip_mm.torsion.batched import BatchedScan, batched_scan, scan_batched
from trip_mm.torsion.scan import Journal, Point, Scan, grid_angles, journaled_step, wavefront
from trip_mm.units import EV_TO_KCAL_PER_MOL

GFN2 = parse_potential("gfn2")
TRIP = parse_potential("trip-gfn2-s")
SYSTEMS = Path(__file__).parents[2] / "systems"


@pytest.mark.parametrize(
    ("smiles", "atoms", "angles"),
    [
        ("OO", (2, 0, 1, 3), (20.0, 115.0, 180.0)),
        ("CCCC", (0, 1, 2, 3), (5.0, 100.0)),
        ("NC=O", (3, 0, 1, 2), (40.0,)),
        ("CC#N", None, ()),
        ("O=C=O", None, ()),
        ("C1CC1", None, ()),
    ],
)
def test_batched_relaxation_agrees_with_geometric(
    smiles: str, atoms: tuple[int, int, int, int] | None, angles: tuple[float, ...]
) -> None:
    molecule = read_molecule(smiles)
    helds = [None] if atoms is None else [HeldDihedral(atoms, angle) for angle in angles]
    outcomes = relax_batch([Start(molecule, held) for held in helds], bind_batch(GFN2, [molecule]))
    for held, outcome in zip(helds, outcomes, strict=True):
        assert outcome.relaxed is not None, outcome.error
        expected = relax(molecule, bind(GFN2, molecule), held)
        difference = (outcome.relaxed.energy - expected.energy) * EV_TO_KCAL_PER_MOL
        assert abs(difference) < 0.01
        assert rmsd(outcome.relaxed.positions, expected.positions) < 0.005
        if held is None:
            assert outcome.relaxed.forces == pytest.approx(expected.forces, abs=0.01)
        else:
            error = dihedral_angle(outcome.relaxed.positions, held.atoms) - held.angle_deg
            assert abs(wrapped(error)) < 0.01


@pytest.mark.slow
def test_trip_agrees_with_geometric_on_ephedrine() -> None:
    molecule = read_molecule(SYSTEMS / "ephedrine.sdf")
    helds = [HeldDihedral((1, 2, 4, 6), angle) for angle in (-120.0, 0.0, 60.0)]
    outcomes = relax_batch([Start(molecule, held) for held in helds], bind_batch(TRIP, [molecule]))
    for held, outcome in zip(helds, outcomes, strict=True):
        assert outcome.relaxed is not None, outcome.error
        expected = relax(molecule, bind(TRIP, molecule), held)
        difference = (outcome.relaxed.energy - expected.energy) * EV_TO_KCAL_PER_MOL
        assert abs(difference) < 0.01
        assert rmsd(outcome.relaxed.positions, expected.positions) < 0.005


def test_molecules_relax_together_as_alone_and_queue_for_room() -> None:
    molecules = [read_molecule(smiles) for smiles in ("O", "CO", "C#N", "[H][H]", "OO", "CO")]
    evaluate = bind_batch(GFN2, molecules)
    starts = [Start(molecule) for molecule in molecules]
    sizes: list[int] = []

    def counted(systems: Sequence[Molecule]) -> list[Evaluation]:
        sizes.append(len(systems))
        return evaluate(systems)

    together = relax_batch(starts, counted, capacity=2)
    assert max(sizes) == 2
    for start, outcome in zip(starts, together, strict=True):
        alone = relax_batch([start], evaluate)[0]
        assert outcome.relaxed is not None
        assert alone.relaxed is not None
        assert outcome.relaxed.positions == pytest.approx(alone.relaxed.positions, abs=1e-6)
        assert outcome.relaxed.n_evaluations == alone.relaxed.n_evaluations


def test_failures_end_with_their_reason_and_leave_the_others_alone() -> None:
    water, peroxide = read_molecule("O"), read_molecule("OO")
    evaluate = bind_batch(GFN2, [water, peroxide])

    def failing(systems: Sequence[Molecule]) -> list[Evaluation]:
        found = evaluate(systems)
        return [
            Evaluation(np.nan, e.forces, "SCF did not converge") if system.n_atoms == 4 else e
            for system, e in zip(systems, found, strict=True)
        ]

    outcomes = relax_batch([Start(water), Start(peroxide), Start(water)], failing)
    assert [outcome.error for outcome in outcomes] == ["", "SCF did not converge", ""]
    assert outcomes[1].relaxed is None


def test_torn_bonds_are_failures() -> None:
    def repelling(systems: Sequence[Molecule]) -> list[Evaluation]:
        found = []
        for system in systems:
            arm = system.positions[1] - system.positions[0]
            length = float(np.linalg.norm(arm))
            forces = np.zeros_like(system.positions)
            forces[1] = -(length - 2.2) * arm / length
            forces[0] = -forces[1]
            found.append(Evaluation(0.5 * (length - 2.2) ** 2, forces))
        return found

    (outcome,) = relax_batch([Start(read_molecule("[H][H]"))], repelling)
    assert "connectivity changed" in outcome.error


def test_what_never_settles_is_a_failure() -> None:
    calls: list[int] = []

    def restless(systems: Sequence[Molecule]) -> list[Evaluation]:
        calls.append(1)
        forces = np.zeros((2, 3))
        forces[0, 0], forces[1, 0] = 1.0, -1.0
        return [Evaluation(float(len(calls)), forces)]

    (outcome,) = relax_batch([Start(read_molecule("[H][H]"))], restless)
    assert "did not converge" in outcome.error
    assert len(calls) == MAX_ITERATIONS


def test_an_angle_that_becomes_straight_gets_new_coordinates() -> None:
    """Bent CO2 straightens out."""
    molecule = read_molecule("O=C=O")
    bent = molecule.positions.copy()
    bent[[0, 2], 1] += 0.35
    (outcome,) = relax_batch([Start(molecule.at(bent))], bind_batch(GFN2, [molecule]))
    assert outcome.relaxed is not None, outcome.error
    expected = relax(molecule, bind(GFN2, molecule))
    assert abs(outcome.relaxed.energy - expected.energy) * EV_TO_KCAL_PER_MOL < 0.01
    assert rmsd(outcome.relaxed.positions, expected.positions) < 0.005


@pytest.fixture
def random_model(monkeypatch: pytest.MonkeyPatch) -> trip_mm.TripPotential:
    config = TripConfig(
        n_channels=4, l_max=1, n_layers=1, n_heads=1, cutoff=3.0, radial_hidden=4, n_scalars=4
    )
    potential = trip_mm.new_potential(config, seed=1, dtype="float64")
    monkeypatch.setattr(
        "trip_mm.checkpoint.load_potential", lambda name, device="cpu", dtype="": potential
    )
    return potential


@pytest.mark.usefixtures("random_model")
@pytest.mark.parametrize("limit", [4096, 7])
def test_batches_of_trip_give_the_numbers_of_single_systems(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_evaluation, "MAX_ATOMS_PER_CALL", limit)
    molecules = [read_molecule(smiles) for smiles in ("O", "CCO", "OO")]
    found = bind_batch(TRIP, molecules)(molecules)
    for molecule, evaluation in zip(molecules, found, strict=True):
        energy, forces = bind(TRIP, molecule)(molecule.positions)
        assert evaluation.energy == pytest.approx(energy, abs=1e-10)
        assert evaluation.forces == pytest.approx(forces, abs=1e-10)


def test_evaluations_that_are_not_finite_are_errors(random_model: trip_mm.TripPotential) -> None:
    random_model.self_energies[8] = float("nan")
    molecules = [read_molecule("O"), read_molecule("[H][H]")]
    found = bind_batch(TRIP, molecules)(molecules)
    assert "not finite" in found[0].error
    assert found[1].error == ""


def test_unknown_molecules_are_refused_before_anything_runs() -> None:
    with pytest.raises(UnsupportedSystemError, match="charge"):
        bind_batch(TRIP, [read_molecule("O"), read_molecule("[NH4+]")])
    with pytest.raises(UnsupportedElementError, match="F"):
        bind_batch(TRIP, [read_molecule("CF")])


def test_evaluation_errors_of_single_potentials_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def bound(spec: object, molecule: Molecule):
        def evaluate(positions: np.ndarray):
            raise EvaluationError("no")

        return evaluate

    monkeypatch.setattr(batch_evaluation, "bind", bound)
    water = read_molecule("O")
    assert bind_batch(GFN2, [water])([water])[0].error == "no"


def test_held_angle_in_a_ring_is_refused() -> None:
    ring = read_molecule("C1CC1")
    relaxer = BatchRelaxer(bind_batch(GFN2, [ring]))
    with pytest.raises(UnsupportedSystemError, match="ring"):
        relaxer.submit(Start(ring, HeldDihedral((3, 0, 1, 5), 30.0)))


def peroxide_scan(tmp_path: Path, name: str) -> BatchedScan:
    molecule = read_molecule("OO")
    journal = Journal(tmp_path / name, {"a": 1})
    return BatchedScan(molecule, (2, 0, 1, 3), grid_angles(30), journal)


def test_batched_scan_is_the_scan_one_by_one(tmp_path: Path) -> None:
    molecule, atoms = read_molecule("OCC=O"), (0, 1, 2, 3)
    angles = grid_angles(120)
    found = batched_scan(molecule, GFN2, atoms, angles, Journal(tmp_path / "b", {}))
    step = journaled_step(
        molecule, bind(GFN2, molecule), atoms, angles, Journal(tmp_path / "w", {})
    )
    expected = wavefront(molecule, atoms, angles, step)
    assert found.failures == ()
    for one, other in zip(found.points, expected.points, strict=True):
        assert one.angle_deg == other.angle_deg
        assert (one.energy - other.energy) * EV_TO_KCAL_PER_MOL < 0.01
        assert wrapped(dihedral_angle(one.positions, atoms) - one.angle_deg) == pytest.approx(
            0.0, abs=0.01
        )


def same_points(one: Scan, other: Scan) -> bool:
    def facts(point: Point) -> tuple[float, float]:
        return point.angle_deg, round(point.energy, 9)

    return [facts(p) for p in one.points] == [facts(p) for p in other.points]


def test_scans_run_together_and_continue_from_their_journals(tmp_path: Path) -> None:
    one, two = (peroxide_scan(tmp_path, name) for name in ("one", "two"))
    evaluate = bind_batch(GFN2, [one.molecule])
    first, second = scan_batched([one, two], evaluate)
    assert len(first.points) == 12
    assert same_points(first, second)
    lines = (tmp_path / "one").read_text().splitlines()
    (tmp_path / "one").write_text("\n".join(lines[:6]) + '\n{"key": "batched:0:7", "ene')

    calls: list[int] = []

    def counted(systems: Sequence[Molecule]) -> list[Evaluation]:
        calls.append(len(systems))
        return evaluate(systems)

    again = scan_batched([peroxide_scan(tmp_path, "one")], counted)[0]
    assert same_points(again, first)
    assert 0 < sum(calls) < first.n_evaluations

    def refuse(systems: Sequence[Molecule]) -> list[Evaluation]:
        raise AssertionError("nothing may be computed again")

    assert same_points(scan_batched([peroxide_scan(tmp_path, "one")], refuse)[0], first)


def test_neighbours_lower_angles_that_started_in_the_wrong_place(tmp_path: Path) -> None:
    """The OH of glycolaldehyde starts turned away; only some angles find the hydrogen bond."""
    molecule, atoms = read_molecule("OCC=O"), (0, 1, 2, 3)
    away = molecule.at(set_dihedral(molecule, (4, 0, 1, 2), 180.0))
    angles = grid_angles(60)
    first_round = relax_batch(
        [Start(away, HeldDihedral(atoms, angle)) for angle in angles], bind_batch(GFN2, [away])
    )
    found = batched_scan(away, GFN2, atoms, angles, Journal(tmp_path / "j", {}))
    before = np.array([o.relaxed.energy if o.relaxed else np.inf for o in first_round])
    after = np.array([point.energy for point in found.points])
    assert (after <= before + 1e-9).all()


def test_conformers_lower_what_the_given_geometry_cannot_reach(tmp_path: Path) -> None:
    """Butane-1,4-diol, stretched: turning one bond alone never brings its ends together."""
    molecule = read_molecule("OCCCCO")
    atoms = (0, 1, 2, 3)
    angles = grid_angles(120)
    evaluate = bind_batch(parse_potential("trip-gfn2-s"), [molecule])
    stretched = molecule.at(set_dihedral(molecule, (1, 2, 3, 4), 180.0))
    alone = BatchedScan(stretched, atoms, angles, Journal(tmp_path / "a", {}))
    conformers = embed_conformers(stretched, 10)
    helped = BatchedScan(stretched, atoms, angles, Journal(tmp_path / "b", {}), conformers)
    first, second = scan_batched([alone, helped], evaluate)
    fall = [a.energy - b.energy for a, b in zip(first.points, second.points, strict=True)]
    assert min(fall) > -1e-5
    assert max(fall) * EV_TO_KCAL_PER_MOL > 0.1
    assert len(helped.first_round()) > len(alone.first_round())


def test_conformers_keep_the_stereoisomer() -> None:
    """Both stereocentres of ephedrine keep their handedness."""
    molecule = read_molecule(SYSTEMS / "ephedrine.sdf")

    def handedness(positions: np.ndarray, atom: int) -> float:
        heavy = [
            other
            for bond in molecule.bonds
            if atom in bond
            for other in bond
            if other != atom and molecule.atomic_numbers[other] > 1
        ]
        a, b, c = (positions[other] - positions[atom] for other in sorted(heavy)[:3])
        return float(np.sign(np.dot(a, np.cross(b, c))))

    found = embed_conformers(molecule, 5)
    assert len(found) > 1
    for positions in found:
        for atom in (2, 4):
            assert handedness(positions, atom) == handedness(molecule.positions, atom)


def test_conformers_need_bond_orders() -> None:
    molecule = read_molecule("OO")
    with pytest.raises(UnsupportedSystemError, match="bond orders"):
        embed_conformers(replace(molecule, rdkit=None), 3)
