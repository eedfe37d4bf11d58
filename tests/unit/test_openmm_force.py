"""Choice of the backend, refusals, molecules, pickling and the openmm-ml entry point."""

import logging
import pickle
import subprocess
import sys

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from trip_mm.backends import openmm_force
from trip_mm.backends.diagnostics import system_of, water_box
from trip_mm.backends.molecules import register_molecules
from trip_mm.backends.openmm_force import add_trip_force, available_backends, resolve_backend
from trip_mm.backends.openmm_ml import TripPotentialImplFactory
from trip_mm.backends.openmm_ml_impl import TripPotentialImpl
from trip_mm.backends.python_callable import CheckpointReference, TripComputation, checkpoint_of
from trip_mm.checkpoint import load_potential, new_potential, registry, save_potential
from trip_mm.errors import (
    BackendError,
    CellTooSmallError,
    CheckpointError,
    ConfigError,
    UnsupportedElementError,
    UnsupportedSystemError,
)
from trip_mm.model.trip import TripConfig

TINY = TripConfig(
    n_channels=4, l_max=1, n_layers=1, n_heads=1, cutoff=3.0, radial_hidden=4, n_scalars=4,
    readout_hidden=4,
)  # fmt: skip
KJ = unit.kilojoule_per_mole


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_potential(new_potential(TINY), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def water():
    topology, positions = water_box(2, 1.0)
    return system_of(topology), topology, positions


def energy_of(system, positions, platform="Reference"):
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    return context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(KJ)


# Choice of the backend


def test_python_backend_works_everywhere():
    assert available_backends()["python"] is None


def test_auto_takes_torch_force_where_it_works(monkeypatch):
    monkeypatch.setitem(openmm_force._WHY_NOT, "torch", lambda: None)
    assert resolve_backend("auto") == "torch"


def test_auto_falls_back_to_python_in_one_line(monkeypatch, caplog):
    monkeypatch.setitem(openmm_force._WHY_NOT, "torch", lambda: "libnvrtc is missing")
    with caplog.at_level(logging.INFO, logger="trip_mm"):
        assert resolve_backend("auto") == "python"
    assert len(caplog.records) == 1
    assert "libnvrtc is missing" in caplog.text
    assert "PythonForce" in caplog.text


def test_explicit_backend_that_does_not_work_is_an_error(monkeypatch):
    monkeypatch.setitem(openmm_force._WHY_NOT, "torch", lambda: "libnvrtc is missing")
    with pytest.raises(BackendError, match=r"'torch' does not work here: libnvrtc"):
        resolve_backend("torch")


def test_missing_pythontorch_names_what_is_missing(monkeypatch):
    class WithoutPythonTorchForce:
        pass

    monkeypatch.setattr(openmm_force, "import_openmmtorch", WithoutPythonTorchForce)
    with pytest.raises(BackendError, match=r"no PythonTorchForce.*backend='torch'"):
        resolve_backend("pythontorch")


def test_unknown_backend_and_precision(water, checkpoint):
    system, topology, _ = water
    with pytest.raises(ConfigError, match="backend 'cuda' is unknown"):
        add_trip_force(system, topology, checkpoint, backend="cuda")
    with pytest.raises(ConfigError, match="precision 'half' is unknown"):
        add_trip_force(system, topology, checkpoint, precision="half")


# Refusals


def test_refuses_system_of_another_size(water, checkpoint):
    _, topology, _ = water
    with pytest.raises(UnsupportedSystemError, match="0 particles and the topology 24"):
        add_trip_force(openmm.System(), topology, checkpoint, backend="python")


def test_refuses_unknown_element_by_name(checkpoint):
    topology = app.Topology()
    residue = topology.addResidue("ION", topology.addChain())
    topology.addAtom("NA", app.element.sodium, residue)
    with pytest.raises(UnsupportedElementError, match=r"atom 0 \(NA of residue ION 1\) is Na"):
        add_trip_force(system_of(topology), topology, checkpoint, backend="python")


def test_refuses_virtual_site(water, checkpoint):
    system, topology, _ = water
    topology.addAtom("M", None, list(topology.residues())[-1])
    system.addParticle(0.0)
    with pytest.raises(
        UnsupportedSystemError, match=r"atom 24 \(M of residue HOH 8\) is a virtual"
    ):
        add_trip_force(system, topology, checkpoint, backend="python")
    add_trip_force(system, topology, checkpoint, backend="python", ml_atoms=range(24))


def test_refuses_a_system_whose_box_was_never_set(water, checkpoint):
    system, topology, _ = water
    system.setDefaultPeriodicBoxVectors(*openmm.System().getDefaultPeriodicBoxVectors())
    with pytest.raises(ConfigError, match=r"1\.000 x 1\.000 x 1\.000 nm.*setDefaultPeriodicBox"):
        add_trip_force(system, topology, checkpoint, backend="python")


def test_a_periodic_system_is_periodic_without_the_box_of_the_topology(water, checkpoint):
    system, topology, _ = water
    topology.setPeriodicBoxVectors(None)
    system.addForce(openmm.CustomNonbondedForce("0"))
    system.getForce(0).setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force = add_trip_force(system, topology, checkpoint, backend="python")
    assert force.usesPeriodicBoundaryConditions()


def test_refuses_positions_with_a_unit(water, checkpoint):
    _, topology, positions = water
    numbers = [atom.element.atomic_number for atom in topology.atoms()]
    with pytest.raises(ConfigError, match="give plain A"):
        load_potential(checkpoint).energy_and_forces(positions * unit.nanometer, numbers)


def test_refuses_small_cell(checkpoint):
    topology, _ = water_box(1, 0.59)
    with pytest.raises(CellTooSmallError, match=r"5\.9.* A"):
        add_trip_force(system_of(topology), topology, checkpoint, backend="python")


@pytest.mark.parametrize(
    ("ml_atoms", "message"),
    [([], "empty"), ([0, 24], "24 is out of range"), ([-1], "-1 is out of"), ([3, 3], "twice")],
)
def test_refuses_bad_ml_atoms(water, checkpoint, ml_atoms, message):
    system, topology, _ = water
    with pytest.raises(ConfigError, match=message):
        add_trip_force(system, topology, checkpoint, backend="python", ml_atoms=ml_atoms)
    assert system.getNumForces() == 0


def test_refuses_missing_checkpoint(water):
    system, topology, _ = water
    with pytest.raises(CheckpointError, match="no-such-model"):
        add_trip_force(system, topology, "no-such-model")


# Molecules


def test_registers_topology_bonds_as_molecules(water):
    system, topology, positions = water
    force = register_molecules(system, topology)
    assert force.getNumBonds() == 16
    assert all(
        force.getBondParameters(i)[3].value_in_unit(force_constant()) == 0 for i in range(16)
    )
    assert energy_of(system, positions) == 0.0
    assert register_molecules(system, topology) is None
    assert molecule_count(system) == 8


def force_constant():
    return unit.kilojoule_per_mole / unit.nanometer**2


def molecule_count(system):
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    return len(context.getMolecules())


def test_keeps_molecules_that_the_system_defines(water):
    system, topology, _ = water
    bonds = list(topology.bonds())
    force = openmm.HarmonicBondForce()
    for bond in bonds[:8]:
        force.addBond(bond.atom1.index, bond.atom2.index, 0.1, 1000.0)
    system.addForce(force)
    for bond in bonds[8:14]:
        system.addConstraint(bond.atom1.index, bond.atom2.index, 0.1)
    assert register_molecules(system, topology).getNumBonds() == 2
    assert molecule_count(system) == 8


def test_refuses_to_register_foreign_topology(water):
    _, topology, _ = water
    with pytest.raises(UnsupportedSystemError, match="24"):
        register_molecules(openmm.System(), topology)


def test_force_carries_name_group_and_periodicity(water, checkpoint):
    system, topology, _ = water
    force = add_trip_force(system, topology, checkpoint, backend="python", force_group=3)
    assert force.getName() == "TrIP"
    assert force.getForceGroup() == 3
    assert force.usesPeriodicBoundaryConditions()
    assert molecule_count(system) == 8
    topology.setPeriodicBoxVectors(None)
    open_system = system_of(topology)
    force = add_trip_force(open_system, topology, checkpoint, backend="python")
    assert not force.usesPeriodicBoundaryConditions()
    assert not open_system.usesPeriodicBoundaryConditions()


# The callable of Python forces


def test_pickle_holds_no_weights(checkpoint):
    potential = load_potential(checkpoint)
    computation = TripComputation(checkpoint_of(potential), (8, 1, 1), periodic=False)
    computation.evaluator(torch.device("cpu"))
    pickled = pickle.dumps(computation)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).checkpoint == computation.checkpoint
    assert pickle.loads(pickled)._evaluator is None


def test_refers_to_the_file_that_holds_the_weights(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIP_MM_CACHE", str(tmp_path))
    potential = load_potential(checkpoint)
    assert checkpoint_of(potential).path == str(checkpoint.resolve())
    assert list(tmp_path.iterdir()) == []
    with torch.no_grad():
        potential.model.embedding.weight.mul_(2.0)
    changed = checkpoint_of(potential)
    assert changed.path.startswith(str(tmp_path))
    assert checkpoint_of(potential) == changed
    assert len(list((tmp_path / "potentials").iterdir())) == 1
    again = changed.load(torch.device("cpu"))
    assert torch.equal(again.model.embedding.weight, potential.model.embedding.weight)


def test_changed_or_missing_checkpoint_is_an_error(checkpoint, tmp_path):
    digest = "0" * 64
    with pytest.raises(CheckpointError, match=f"made with {digest}"):
        CheckpointReference(str(checkpoint), digest, "float32").load(torch.device("cpu"))
    with pytest.raises(CheckpointError, match="no such file"):
        CheckpointReference(str(tmp_path / "gone"), digest, "float32").load(torch.device("cpu"))


def test_checkpoint_error_reaches_the_user_of_openmm(water, tmp_path):
    system, topology, positions = water
    path = save_potential(new_potential(TINY, seed=1), tmp_path / "model")
    add_trip_force(system, topology, path, backend="python")
    save_potential(new_potential(TINY, seed=2), path)
    with pytest.raises(openmm.OpenMMException, match="sha256"):
        energy_of(system, positions)


def test_system_xml_gives_the_same_energy_in_a_new_process(water, checkpoint, tmp_path):
    system, topology, positions = water
    add_trip_force(system, topology, checkpoint, backend="python", precision="double")
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(tmp_path / "positions.npy", positions)
    script = (
        "import numpy, openmm, sys\n"
        "system = openmm.XmlSerializer.deserialize(open('system.xml').read())\n"
        "platform = openmm.Platform.getPlatformByName('Reference')\n"
        "context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)\n"
        "context.setPositions(numpy.load('positions.npy'))\n"
        "print(repr(context.getState(getEnergy=True).getPotentialEnergy()._value))\n"
        "print(len(context.getMolecules()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    energy, n_molecules = result.stdout.split()
    assert float(energy) == pytest.approx(energy_of(system, positions), rel=1e-12)
    assert int(n_molecules) == 8


# openmm-ml


def test_entry_point_imports_neither_torch_nor_openmm_ml():
    script = (
        "import sys, trip_mm.backends.openmm_ml\n"
        "print([name for name in ('torch', 'openmmml', 'openmm') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_openmm_ml_finds_the_entry_points():
    from openmmml import MLPotential

    for name in ("trip", *registry()):
        assert isinstance(MLPotential._implFactories[name], TripPotentialImplFactory)


def test_openmm_ml_system_equals_our_own(water, checkpoint):
    from openmmml import MLPotential

    system, topology, positions = water
    add_trip_force(system, topology, checkpoint, backend="python")
    potential = MLPotential("trip", modelPath=str(checkpoint))
    theirs = potential.createSystem(topology, backend="python")
    assert energy_of(theirs, positions) == pytest.approx(energy_of(system, positions), rel=1e-12)
    assert molecule_count(theirs) == 8


@pytest.mark.parametrize("interpolate", [False, True])
def test_openmm_ml_mixed_system(water, checkpoint, interpolate):
    from openmmml import MLPotential

    _, topology, positions = water
    mm_system = app.ForceField("amber14/tip3pfb.xml").createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.4, rigidWater=False
    )
    potential = MLPotential("trip", modelPath=str(checkpoint))
    mixed = potential.createMixedSystem(
        topology, mm_system, list(range(6)), backend="python", interpolate=interpolate
    )
    # openmm-ml interpolates between the ML atoms by bonds, which join them to one molecule.
    assert molecule_count(mixed) == (7 if interpolate else 8)
    assert np.isfinite(energy_of(mixed, positions))


def test_openmm_ml_refusals(water, checkpoint):
    _, topology, _ = water
    with pytest.raises(ConfigError, match="modelPath"):
        TripPotentialImplFactory().createImpl("trip")
    with pytest.raises(ConfigError, match="modelPath"):
        TripPotentialImplFactory().createImpl("trip-gfn2-s", modelPath="x.safetensors")
    impl = TripPotentialImpl(str(checkpoint))
    with pytest.raises(ConfigError, match="no option multiplicity"):
        impl.addForces(topology, system_of(topology), None, 0, multiplicity=3)
    with pytest.raises(UnsupportedSystemError, match=r"net charge \+1, and TrIP knows no charge"):
        impl.addForces(topology, system_of(topology), None, 0, charge=1)
    with pytest.raises(BackendError, match="interpolate=True"):
        impl.addForces(topology, openmm.System(), None, 0, backend="torch")
