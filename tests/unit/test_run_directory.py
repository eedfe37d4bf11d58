"""Run directories: atomic files, lock, exact structures, checkpoints and the cutting of outputs."""

import json
import zipfile
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from trip_mm.errors import RunDirectoryError
from trip_mm.locking import locked
from trip_mm.simulation import run_directory
from trip_mm.simulation.building import BuiltStructure, build_structure
from trip_mm.simulation.checkpoints import (
    Progress,
    Watched,
    read_checkpoint,
    restore_context,
    restore_outputs,
    write_checkpoint,
)
from trip_mm.simulation.run_directory import RunDirectory, StageDirectory
from trip_mm.simulation.schema import parse_system
from trip_mm.simulation.structure_file import load_structure, save_structure, write_topology


@pytest.fixture(scope="module")
def peptide() -> BuiltStructure:
    document = {
        "structure": {"sequence": "AG", "termini": "zwitterion"},
        "solvent": {"shape": "octahedron", "edge": "15 A", "n_waters": 5},
        "potential": "amber14",
    }
    return build_structure(parse_system(document, "dipeptide.yaml"), 1)


def particle() -> app.Simulation:
    system = openmm.System()
    system.addParticle(12.0)
    topology = app.Topology()
    residue = topology.addResidue("C", topology.addChain())
    topology.addAtom("C", app.Element.getBySymbol("C"), residue)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    integrator.setRandomNumberSeed(3)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions([[0.0, 0.0, 0.0]])
    return simulation


def position(simulation: app.Simulation) -> list[float]:
    state = simulation.context.getState(positions=True)
    return list(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)[0])


def test_a_directory_that_holds_something_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="no run directory; choose another"):
        RunDirectory.create(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="trip-mm resume"):
        RunDirectory.create(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="finished run already"):
        RunDirectory.create(tmp_path)


def test_a_run_that_was_refused_before_it_began_leaves_the_directory_free(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(ValueError, match="refused"), locked(RunDirectory.create(path).path):
        raise ValueError("refused")
    assert RunDirectory.create(path).path == path


@pytest.mark.parametrize(
    "names",
    [
        ("structure.json",),
        ("structure.json", "models", ".topology.pdb.12-ab.partial"),
        ("structure.json", "topology.pdb", "methods.md", ".run.json.12-ab.partial"),
        (".structure.json.12-ab.partial",),
    ],
)
def test_an_interrupted_preparation_is_known(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(RunDirectoryError, match=r"preparation .* was interrupted; delete it"):
        RunDirectory.create(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunDirectoryError, match="no run directory; choose another"):
        RunDirectory.create(tmp_path)


@pytest.mark.parametrize("name", ["models", "methods.md", ".mine.partial"])
def test_what_may_be_the_users_own_is_not_to_be_deleted(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(RunDirectoryError, match="no run directory; choose another"):
        RunDirectory.create(tmp_path)


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no such directory"):
        RunDirectory.open(tmp_path / "missing")
    with pytest.raises(RunDirectoryError, match=r"holds no run\.json"):
        RunDirectory.open(tmp_path)


def test_a_structure_survives_the_file_exactly(peptide: BuiltStructure, tmp_path: Path) -> None:
    save_structure(tmp_path / "structure.json", peptide)
    loaded = load_structure(tmp_path / "structure.json")
    np.testing.assert_array_equal(loaded.positions, peptide.positions)
    assert loaded.box_vectors is not None
    assert peptide.box_vectors is not None
    np.testing.assert_array_equal(loaded.box_vectors, peptide.box_vectors)
    assert loaded.n_solute_atoms == peptide.n_solute_atoms
    assert loaded.net_charge == peptide.net_charge
    for kind in ("atoms", "residues", "bonds", "chains"):
        ours = [str(item) for item in getattr(loaded.topology, kind)()]
        assert ours == [str(item) for item in getattr(peptide.topology, kind)()]
    assert loaded.topology.getPeriodicBoxVectors() is not None


def test_the_topology_file_reads_back(peptide: BuiltStructure, tmp_path: Path) -> None:
    path = write_topology(tmp_path, peptide)
    assert path.name == "topology.pdb"
    pdb = app.PDBFile(str(path))
    assert pdb.topology.getNumAtoms() == peptide.topology.getNumAtoms()
    assert pdb.topology.getNumBonds() == peptide.topology.getNumBonds()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:50], "not valid JSON"),
        (lambda text: text.replace('"format_version":1', '"format_version":9'), "version 9"),
        (lambda text: text.replace('"positions_nm"', '"positions"'), "damaged"),
        (lambda text: "[]", "no JSON object"),
    ],
)
def test_a_damaged_structure_is_refused(
    damage: object, message: str, peptide: BuiltStructure, tmp_path: Path
) -> None:
    path = tmp_path / "structure.json"
    save_structure(path, peptide)
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(RunDirectoryError, match=message):
        load_structure(path)


def test_a_checkpoint_continues_with_the_same_random_numbers(tmp_path: Path) -> None:
    directory = StageDirectory(tmp_path)
    first = particle()
    first.step(10)
    write_checkpoint(directory, first, 1.5, Watched(2, 1, 299.0))
    first.step(10)
    second = particle()
    checkpoint = read_checkpoint(directory)
    assert checkpoint is not None
    assert restore_context(second, checkpoint) is None
    assert second.currentStep == 10
    progress = checkpoint.progress
    assert (progress.wall_seconds, progress.hot_checks) == (1.5, 2)
    assert (progress.transferred_protons, progress.initial_temperature_k) == (1, 299.0)
    second.step(10)
    assert position(second) == position(first)


def test_a_foreign_checkpoint_continues_from_its_portable_state(tmp_path: Path) -> None:
    directory = StageDirectory(tmp_path)
    first = particle()
    first.step(10)
    write_checkpoint(directory, first, 0.0)
    with zipfile.ZipFile(directory.checkpoint) as members:
        content = {name: members.read(name) for name in members.namelist()}
    progress = {**json.loads(content["progress.json"]), "openmm_version": "7.0"}
    content["progress.json"] = json.dumps(progress).encode()
    with zipfile.ZipFile(directory.checkpoint, "w") as members:
        for name, data in content.items():
            members.writestr(name, data)
    second = particle()
    checkpoint = read_checkpoint(directory)
    assert checkpoint is not None
    note = restore_context(second, checkpoint)
    assert note is not None
    assert "OpenMM 7.0" in note
    assert second.currentStep == 10
    assert position(second) == position(first)
    assert second.context.getState().getTime().value_in_unit(unit.picosecond) == pytest.approx(0.01)


def test_a_damaged_checkpoint_says_what_to_delete(tmp_path: Path) -> None:
    directory = StageDirectory(tmp_path)
    assert read_checkpoint(directory) is None
    simulation = particle()
    write_checkpoint(directory, simulation, 0.0)
    whole = directory.checkpoint.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nonsense"):
        directory.checkpoint.write_bytes(damaged)
        with pytest.raises(RunDirectoryError, match=r"damaged .*delete the directory"):
            read_checkpoint(directory)


def test_outputs_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    directory = StageDirectory(tmp_path)
    for path in (directory.trajectory, directory.log, directory.monitor):
        path.write_bytes(b"0123456789")
    progress = Progress(5, {"trajectory.xtc": 4, "log.csv": 10}, 0.0, "Reference", "8")
    restore_outputs(directory, progress)
    assert directory.trajectory.read_bytes() == b"0123"
    assert directory.log.read_bytes() == b"0123456789"
    assert not directory.monitor.exists()
    directory.log.write_bytes(b"012")
    with pytest.raises(RunDirectoryError, match="is shorter than"):
        restore_outputs(directory, progress)
    restore_outputs(directory, None)
    assert not directory.trajectory.exists()


def test_products_are_links_that_survive_moving_the_run(tmp_path: Path) -> None:
    stage = tmp_path / "run" / "01-nvt"
    stage.mkdir(parents=True)
    (stage / "log.csv").write_text("rows")
    for _ in range(2):
        run_directory.publish(stage / "log.csv", tmp_path / "run" / "log.csv")
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert (moved / "log.csv").read_text() == "rows"
