"""Monitoring: shortest distance, torn bonds, proton transfer, runaway temperature, tables."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openmm
import pytest
from numpy.typing import NDArray
from openmm import app, unit

from trip_mm.errors import UnstableSimulationError
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.committee_reporter import (
    COMMITTEE_COLUMNS,
    CommitteeReporter,
    Disagreement,
    describe_disagreement,
)
from trip_mm.simulation.contacts import minimum_image
from trip_mm.simulation.crash import is_not_finite
from trip_mm.simulation.execution import _dynamics_record
from trip_mm.simulation.monitor import RUNAWAY_CHECKS, BondWatch, StabilityMonitor
from trip_mm.simulation.reporters import (
    MONITOR_COLUMNS,
    MonitorReporter,
    frame_end,
    log_reporter,
    read_table,
    shortest_distance,
    trajectory_reporter,
)

TRICLINIC = np.array([[2.0, 0.0, 0.0], [0.9, 1.8, 0.0], [-0.7, 0.6, 1.9]])


def two_waters(separation_nm: float = 0.28) -> BuiltStructure:
    topology = app.Topology()
    chain = topology.addChain()
    water = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.024, 0.0927, 0.0]])
    positions = []
    for index in range(2):
        residue = topology.addResidue("HOH", chain)
        atoms = [
            topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
            for name in ("O", "H1", "H2")
        ]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
        positions.append(water + np.array([index * separation_nm, 0.0, 0.0]))
    return BuiltStructure(topology, np.concatenate(positions), None, 0, 0)


def simulation_of(structure: BuiltStructure) -> app.Simulation:
    system = openmm.System()
    force = openmm.HarmonicBondForce()
    for atom in structure.topology.atoms():
        system.addParticle(atom.element.mass)
    for bond in structure.topology.bonds():
        force.addBond(bond.atom1.index, bond.atom2.index, 0.09572, 300_000.0)
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(
        structure.topology, system, openmm.VerletIntegrator(0.0005), platform
    )
    simulation.context.setPositions(structure.positions)
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    return simulation


def brute_force(positions: NDArray[np.float64], box: NDArray[np.float64]) -> float:
    shifts = np.array(list(product(range(-2, 3), repeat=3))) @ box
    vectors = positions[None, :, None] - positions[:, None, None] + shifts[None, None]
    distances = np.linalg.norm(vectors, axis=-1)
    for i in range(len(positions)):
        distances[i, i] = np.inf
    return float(distances.min()) * 10.0


def test_shortest_distance_sees_periodic_images() -> None:
    generator = np.random.default_rng(3)
    for n_atoms in (2, 5, 60):
        positions = generator.uniform(-4.0, 4.0, (n_atoms, 3))
        distance, first, second = shortest_distance(positions, TRICLINIC)
        assert distance == pytest.approx(brute_force(positions, TRICLINIC), abs=1e-4)
        assert first != second


def test_shortest_distance_of_atoms_far_apart_is_not_a_number() -> None:
    distance, first, second = shortest_distance(np.array([[0.0] * 3, [9.0] * 3]), None)
    assert np.isnan(distance)
    assert (first, second) == (-1, -1)


def test_minimum_image_is_exact_within_half_the_height() -> None:
    generator = np.random.default_rng(5)
    short = generator.normal(size=(200, 3))
    short *= generator.uniform(0.0, 0.85, (200, 1)) / np.linalg.norm(short, axis=1)[:, None]
    moved = short + generator.integers(-3, 4, (200, 3)) @ TRICLINIC
    lengths = np.linalg.norm(minimum_image(moved, TRICLINIC), axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(short, axis=1), atol=1e-12)


def test_a_torn_bond_is_found_and_named() -> None:
    structure = two_waters(1.0)
    watch = BondWatch(structure)
    assert watch.inspect(structure.positions, None).torn == ()
    torn = structure.positions.copy()
    torn[4] = torn[3] + np.array([0.0, -0.2, 0.0])
    findings = watch.inspect(torn, None)
    assert findings.torn == (2,)
    assert findings.transferred == ()
    text = watch.describe(2, findings.lengths[2])
    assert "O of HOH 2 (atom 3)" in text
    assert "H1 of HOH 2 (atom 4)" in text
    assert "2.00 A long, 0.96 A" in text


def test_a_proton_handed_over_is_no_tear() -> None:
    structure = two_waters(0.26)
    shifted = structure.positions.copy()
    shifted[1] = np.array([0.158, 0.0, 0.0])  # 1.58 A from its oxygen, 1.02 A from the other
    findings = BondWatch(structure).inspect(shifted, None)
    assert findings.torn == ()
    assert findings.transferred == ((0, 3),)


def test_a_bond_across_the_box_is_not_torn() -> None:
    structure = two_waters(1.0)
    moved = structure.positions.copy()
    moved[1] += TRICLINIC[2]
    assert BondWatch(structure).inspect(moved, TRICLINIC).torn == ()


def test_heat_must_last_to_be_a_runaway() -> None:
    structure = two_waters()
    simulation = simulation_of(structure)
    monitor = StabilityMonitor(BondWatch(structure), simulation.system)
    simulation.context.setVelocitiesToTemperature(50_000.0, 1)
    for _ in range(RUNAWAY_CHECKS - 1):
        monitor.check(simulation, 300.0)
    with pytest.raises(UnstableSimulationError, match=r"hottest atom is .* of HOH"):
        monitor.check(simulation, 300.0)


def test_a_disagreement_that_is_no_number_is_named() -> None:
    atoms = list(two_waters().topology.atoms())
    found = Disagreement(3, np.array([1.0, 2.5, np.nan, 0.2, 0.1, 0.3]))
    text = describe_disagreement(found, 2.0, atoms)
    assert "on the force on H2 of HOH 1 (atom 2) by nan kcal/mol/A; H1 of HOH 1 (atom 1)" in text


def test_the_log_does_not_hide_a_disagreement_that_is_no_number(tmp_path: Path) -> None:
    """Wherever it stands among the comparisons of a row."""
    header = ",".join(f'"{name}"' for name in COMMITTEE_COLUMNS)
    rows = ["1,0.1,2.0,0,1.0", "2,0.2,nan,0,nan", "3,0.3,4.0,0,1.0"]
    (tmp_path / "c.csv").write_text("\n".join([header, *rows, ""]))
    topology = two_waters().topology
    reporter = CommitteeReporter(tmp_path / "c.csv", 1, SimpleNamespace(), topology)  # type: ignore[arg-type]
    assert np.isnan(reporter.largest_after(0))
    assert reporter.largest_after(2) == 4.0
    assert np.isnan(reporter.largest_after(3))
    reporter.close()


def test_a_finished_stage_records_no_bare_nan(tmp_path: Path) -> None:
    stage = SimpleNamespace(
        name="nvt", kind="nvt", n_steps=2, timestep_fs=1.0, duration_ps=0.002,
        trajectory_interval_steps=1, log_interval_steps=1, committee=True,
    )  # fmt: skip
    (tmp_path / "log.csv").write_text('#"Step","Temperature (K)"\n1,300\n2,300\n')
    header = ",".join(f'"{name}"' for name in COMMITTEE_COLUMNS)
    (tmp_path / "c.csv").write_text(f"{header}\n1,0.1,2.0,0,1.0\n2,0.2,nan,0,nan\n")
    directory = SimpleNamespace(log=tmp_path / "log.csv", committee=tmp_path / "c.csv")
    task: Any = SimpleNamespace(stage=stage, directory=directory)
    session: Any = SimpleNamespace(wall_seconds=1.0, transferred_protons=0)
    record = _dynamics_record(task, session)
    json.dumps(record, allow_nan=False)
    assert record["largest_force_disagreement_kcal_per_mol_per_angstrom"] is None


def test_lost_atoms_are_named_with_their_last_good_frame() -> None:
    structure = two_waters()
    simulation = simulation_of(structure)
    monitor = StabilityMonitor(BondWatch(structure), simulation.system)
    monitor.check(simulation, 300.0)
    velocities = np.zeros((6, 3))
    velocities[5] = np.nan
    simulation.context.setVelocities(velocities)
    with pytest.raises(UnstableSimulationError, match=r"H2 of HOH 2 \(atom 5\).*at step 0"):
        monitor.check(simulation, 300.0)
    assert monitor.last_good is not None


def test_kinetic_temperature() -> None:
    structure = two_waters()
    simulation = simulation_of(structure)
    monitor = StabilityMonitor(BondWatch(structure), simulation.system)
    frame = monitor.frame(simulation)
    masses = np.array([15.99943, 1.007947, 1.007947] * 2)
    kinetic = 0.5 * (masses[:, None] * frame.velocities**2).sum()
    assert monitor.temperature(frame) == pytest.approx(2 * kinetic / (15 * 0.00831446), rel=1e-4)


@pytest.mark.parametrize("n_atoms", [6, 600])
def test_a_lost_atom_means_an_unstable_run_in_any_search_of_neighbours(
    n_atoms: int, tmp_path: Path
) -> None:
    """MDAnalysis bins many atoms, and calls NaN among them a cutoff too large for the box."""
    positions = np.random.default_rng(1).uniform(0.0, 3.0, size=(n_atoms, 3))
    positions[3] = np.nan
    state = SimpleNamespace(
        getPositions=lambda asNumpy: positions * unit.nanometer,
        getForces=lambda asNumpy: 0.0 * positions * unit.kilojoule_per_mole / unit.nanometer,
        getTime=lambda: 1.0 * unit.picosecond,
    )
    simulation = simulation_of(two_waters())
    reporter = MonitorReporter(tmp_path / "monitor.csv", 1, BondWatch(two_waters()))
    with pytest.raises(ValueError, match="NaN") as error:
        reporter.report(simulation, state)
    reporter.close()
    assert is_not_finite(error.value)


def test_reporters_share_steps_and_extend_their_files(tmp_path: Path) -> None:
    structure = two_waters()
    watch = BondWatch(structure)
    for _ in range(2):
        simulation = simulation_of(structure)
        monitor = MonitorReporter(tmp_path / "monitor.csv", 5, watch)
        simulation.reporters += [
            log_reporter(tmp_path / "log.csv", 5, periodic=False),
            monitor,
            trajectory_reporter(tmp_path / "trajectory.xtc", 10),
        ]
        simulation.step(20)
        monitor.close()
        simulation.reporters.clear()
    for name in ("log.csv", "monitor.csv"):
        table = read_table(tmp_path / name)
        assert table["Step"].tolist() == [5, 10, 15, 20] * 2
    table = read_table(tmp_path / "monitor.csv")
    assert tuple(table) == MONITOR_COLUMNS
    assert (table["Shortest Distance (A)"] > 0.5).all()
    assert (table["Torn Bonds"] == 0).all()


def test_the_largest_force_is_that_of_the_state(tmp_path: Path) -> None:
    structure = two_waters()
    simulation = simulation_of(structure)
    stretched = structure.positions.copy()
    stretched[4] += np.array([0.01, 0.0, 0.0])
    simulation.context.setPositions(stretched)
    reporter = MonitorReporter(tmp_path / "monitor.csv", 1, BondWatch(structure))
    state = simulation.context.getState(positions=True, forces=True, energy=True)
    reporter.report(simulation, state)
    reporter.close()
    row = {name: column[0] for name, column in read_table(tmp_path / "monitor.csv").items()}
    assert row["Largest Force (kJ/mole/nm)"] == pytest.approx(3000.0, rel=1e-3)
    assert row["Largest Force Atom"] in (3, 4)
    assert row["Largest Bond Stretch (ratio)"] == pytest.approx(1.1045, abs=1e-3)


def test_reports_come_due_at_multiples_of_the_interval(tmp_path: Path) -> None:
    reporter = MonitorReporter(tmp_path / "monitor.csv", 10, BondWatch(two_waters()))
    fake: Any = SimpleNamespace(currentStep=17)
    assert reporter.describeNextReport(fake)["steps"] == 3
    reporter.close()


def many_waters(n_waters: int) -> BuiltStructure:
    pair = two_waters(1.0)
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(n_waters):
        residue = topology.addResidue("HOH", chain)
        for symbol in ("O", "H", "H"):
            topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    water = pair.positions[:3]
    positions = np.concatenate([water + np.array([0.3 * i, 0.0, 0.0]) for i in range(n_waters)])
    return BuiltStructure(topology, positions, None, 0, 0)


@pytest.mark.parametrize("n_waters", [1, 3, 4, 30])
def test_frames_end_where_the_next_one_begins(n_waters: int, tmp_path: Path) -> None:
    simulation = simulation_of(many_waters(n_waters))
    path = tmp_path / "trajectory.xtc"
    simulation.reporters.append(trajectory_reporter(path, 1))
    simulation.step(3)
    end: int | None = 0
    for _ in range(3):
        assert end is not None
        end = frame_end(path, end)
    assert end == path.stat().st_size
    assert frame_end(path, end) is None


@pytest.mark.parametrize("coordinate", [float("nan"), float("inf"), 1e7])
def test_a_frame_that_cannot_be_written_means_an_unstable_run(
    coordinate: float, tmp_path: Path
) -> None:
    structure = two_waters()
    simulation = simulation_of(structure)
    reporter = trajectory_reporter(tmp_path / "trajectory.xtc", 1)
    positions = np.array(structure.positions)
    positions[4, 1] = coordinate
    simulation.context.setPositions(positions)
    state = simulation.context.getState(positions=True)
    with pytest.raises(ValueError, match="Particle position") as error:
        reporter.report(simulation, state)
    assert is_not_finite(error.value)


def test_a_frame_cut_by_a_full_disk_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.xtc"
    script = (
        "import resource, sys; from pathlib import Path; from test_reporters import *\n"
        "simulation = simulation_of(many_waters(30))\n"
        f"simulation.reporters.append(trajectory_reporter(Path({str(path)!r}), 1))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "try:\n    simulation.step(20)\n"
        "except OSError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "the disk is full or a quota is exceeded" in done.stdout, done.stderr


def test_a_missing_table_is_empty(tmp_path: Path) -> None:
    assert read_table(tmp_path / "log.csv") == {}


@pytest.mark.parametrize("cut", ["2,0.", "2,0.2,0.9", "2,0.2,0.997", ""])
def test_a_row_that_is_being_written_is_left_out(cut: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f'#"Step","Time (ps)","Density (g/mL)"\n1,0.1,0.998\n{cut}')
    table = read_table(path)
    assert {name: values.tolist() for name, values in table.items()} == {
        "Step": [1.0],
        "Time (ps)": [0.1],
        "Density (g/mL)": [0.998],
    }
    path.write_text('#"Step","Ti')
    assert not any(len(values) for values in read_table(path).values())
