"""Molecules, dihedral angles, potentials by name, relaxation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import trip_mm
from trip_mm.errors import (
    ConfigError,
    EvaluationError,
    RelaxationError,
    UnsupportedElementError,
    UnsupportedSystemError,
)
from trip_mm.geometry.dihedral import dihedral_angle, set_dihedral, turning_atoms, wrapped
from trip_mm.geometry.minimize import parse_held
from trip_mm.geometry.molecule import Molecule, changed_bonds, read_molecule, to_xyz
from trip_mm.geometry.openmm_topology import built_structure
from trip_mm.geometry.potentials import PotentialSpec, bind, bind_energy, parse_potential
from trip_mm.geometry.relax import HeldDihedral, check_relaxed, relax
from trip_mm.model.trip import TripConfig
from trip_mm.units import EV_TO_KCAL_PER_MOL, KJ_PER_MOL_TO_EV

SYSTEMS = Path(__file__).parents[2] / "systems"
BUTANE = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def butane() -> Molecule:
    return read_molecule("CCCC")


@pytest.mark.parametrize(("angle", "expected"), [(181.0, -179.0), (-180.0, 180.0), (540.0, 180.0)])
def test_wrapped_lies_above_minus_180_and_up_to_180(angle: float, expected: float) -> None:
    assert wrapped(angle) == pytest.approx(expected)


@pytest.mark.parametrize("angle", [-150.0, -60.0, 0.0, 77.0, 180.0])
def test_set_dihedral_reaches_the_angle_and_keeps_lengths(butane: Molecule, angle: float) -> None:
    turned = set_dihedral(butane, BUTANE, angle)
    assert wrapped(dihedral_angle(turned, BUTANE) - angle) == pytest.approx(0.0, abs=1e-9)
    for i, j in butane.bonds:
        before, after = (np.linalg.norm(p[i] - p[j]) for p in (butane.positions, turned))
        assert after == pytest.approx(before, abs=1e-12)
    still = [i for i in range(butane.n_atoms) if i not in turning_atoms(butane, BUTANE)]
    assert np.array_equal(turned[still], butane.positions[still])


def test_dihedral_sign_is_that_of_rdkit(butane: Molecule) -> None:
    from rdkit.Chem import rdMolTransforms

    conformer = butane.rdkit.GetConformer()
    for atoms in [BUTANE, (4, 0, 1, 2), (5, 0, 1, 7)]:
        expected = rdMolTransforms.GetDihedralDeg(conformer, *atoms)
        assert wrapped(dihedral_angle(butane.positions, atoms) - expected) == pytest.approx(0.0)


def test_files_and_smiles_give_the_same_molecule(tmp_path: Path, butane: Molecule) -> None:
    from rdkit import Chem

    sdf, xyz = tmp_path / "b.sdf", tmp_path / "b.xyz"
    sdf.write_text(Chem.MolToMolBlock(butane.rdkit) + "$$$$\n")
    xyz.write_text(to_xyz(butane, "butane"))
    for path in (sdf, xyz):
        found = read_molecule(path)
        assert found.bonds == butane.bonds
        assert found.formula == "C4H10"
        assert found.positions == pytest.approx(butane.positions, abs=1e-3)


def test_planar_molecules_keep_their_geometry(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from rdkit import Chem

    water = read_molecule("O")
    stretched = Chem.Mol(water.rdkit)
    positions = water.positions * np.array([1.2, 1.2, 0.0])
    stretched.GetConformer().SetPositions(positions)
    (tmp_path / "w.pdb").write_text(Chem.MolToPDBBlock(stretched))
    block = Chem.MolToMolBlock(stretched)
    (tmp_path / "w.sdf").write_text(block)
    for name in ("w.pdb", "w.sdf"):
        assert read_molecule(tmp_path / name).positions == pytest.approx(positions, abs=1e-3)
    assert not caplog.records
    (tmp_path / "drawn.sdf").write_text(block.replace("3D", "  ", 1))
    found = read_molecule(tmp_path / "drawn.sdf")
    assert np.linalg.norm(found.positions[1] - found.positions[0]) < 1.0
    assert "gets a new geometry" in caplog.text


def test_xyz_of_one_atom_is_a_bare_atom(tmp_path: Path) -> None:
    (tmp_path / "o.xyz").write_text("1\n\nO 0.0 0.0 0.0\n")
    found, expected = read_molecule(tmp_path / "o.xyz"), read_molecule("[O]")
    assert found.atomic_numbers.tolist() == [8]
    assert (found.n_unpaired, found.charge) == (expected.n_unpaired, 0) == (2, 0)


@pytest.mark.parametrize(
    ("source", "named"),
    [("nonsense", "SMILES"), ("CC.O", "separate"), ("absent.sdf", "no such file"), ("", "SMILES")],
)
def test_unreadable_molecules_are_refused(source: str, named: str) -> None:
    with pytest.raises(UnsupportedSystemError, match=named):
        read_molecule(source)


def test_changed_bonds_names_torn_and_new(butane: Molecule) -> None:
    assert changed_bonds(butane, butane.positions) == []
    torn = butane.positions.copy()
    torn[4] += 3.0 * (torn[4] - torn[0])
    assert (0, 4) in [pair[:2] for pair in changed_bonds(butane, torn)]
    fused = butane.positions.copy()
    fused[13] = fused[4] + 0.6
    assert (4, 13) in [pair[:2] for pair in changed_bonds(butane, fused)]


def test_bridgeheads_close_to_each_other_are_no_new_bond() -> None:
    pentane = read_molecule("C1C2CC1C2")  # bicyclo[1.1.1]pentane: 1.9 A across
    assert (1, 3) not in pentane.bonds
    assert np.linalg.norm(pentane.positions[1] - pentane.positions[3]) < 1.97
    assert changed_bonds(pentane, pentane.positions) == []
    # Ends of a chain that come as close were not so before: they have made a ring.
    ring, chain = read_molecule("C1CC1"), read_molecule("CCC")
    moved = chain.positions.copy()
    moved[:3] = ring.positions[:3]
    assert (0, 2) in [(i, j) for i, j, _ in changed_bonds(chain, moved)]


@pytest.mark.parametrize(
    ("text", "canonical", "label"),
    [
        ("trip-gfn2-s", "trip:trip-gfn2-s", "TrIP trip-gfn2-s"),
        ("trip:models/a.safetensors", "trip:models/a.safetensors", "TrIP a"),
        ("GFN2", "gfn2", "GFN2-xTB"),
        ("wB97x/6-31G*", "wb97x/6-31g*", "ωB97x/6-31G*"),
        ("DF-wB97x/6-31G*", "df-wb97x/6-31g*", "DF-ωB97x/6-31G*"),
        ("openmm-ml:ani2x", "openmm-ml:ani2x", "ani2x"),
        ("amber14", "amber14", "Amber14"),
    ],
)
def test_potentials_are_named_by_text(text: str, canonical: str, label: str) -> None:
    spec = parse_potential(text)
    assert str(spec) == canonical
    assert spec.label == label
    assert parse_potential(str(spec)) == spec


def test_fitted_densities_change_energies_little() -> None:
    glyoxal = read_molecule("O=CC=O")
    turned = set_dihedral(glyoxal, (0, 1, 2, 3), 90.0)
    exact, fitted = (
        bind_energy(parse_potential(name), glyoxal) for name in ("hf/6-31g*", "df-hf/6-31g*")
    )
    steps = [energy(turned) - energy(glyoxal.positions) for energy in (exact, fitted)]
    assert abs(steps[1] - steps[0]) * EV_TO_KCAL_PER_MOL < 0.05
    assert fitted(turned) != exact(turned)


@pytest.mark.parametrize("text", ["", "trip:", "gfn9", "no-such-model", "openmm-ml:"])
def test_unknown_potentials_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="potential"):
        parse_potential(text)


@pytest.mark.parametrize("name", ["trip-gfn2-s", "gfn2", "amber14", "df-wb97x/6-31g*"])
def test_forces_are_the_negative_gradient(name: str, tmp_path: Path) -> None:
    water = read_molecule("O") if name != "amber14" else amber_dipeptide(tmp_path)
    evaluate = bind(parse_potential(name), water)
    _, forces = evaluate(water.positions)
    shift = np.zeros_like(water.positions)
    shift[1, 0] = 1e-4
    plus, minus = (evaluate(water.positions + sign * shift)[0] for sign in (1, -1))
    assert forces[1, 0] == pytest.approx(-(plus - minus) / 2e-4, abs=1e-5)
    assert bind_energy(parse_potential(name), water)(water.positions) == pytest.approx(
        evaluate(water.positions)[0], rel=1e-12
    )


def amber_dipeptide(folder: Path) -> Molecule:
    from openmm import app, unit

    from trip_mm.simulation.building import build_structure
    from trip_mm.simulation.schema import load_system

    config = load_system(SYSTEMS / "alanine-dipeptide.yaml").model_copy(update={"solvent": None})
    built = build_structure(config, 1)
    with (folder / "dipeptide.pdb").open("w") as file:
        app.PDBFile.writeFile(built.topology, built.positions * unit.nanometer, file)
    return read_molecule(folder / "dipeptide.pdb")


def test_pdb_files_keep_their_atoms_and_get_bond_orders(tmp_path: Path) -> None:
    from rdkit import Chem

    dipeptide = amber_dipeptide(tmp_path)
    assert (dipeptide.n_atoms, dipeptide.charge) == (22, 0)
    found = Chem.MolToSmiles(Chem.RemoveHs(dipeptide.rdkit), isomericSmiles=False)
    assert found == Chem.CanonSmiles("CC(=O)NC(C)C(=O)NC")
    lines = (tmp_path / "dipeptide.pdb").read_text().splitlines(keepends=True)
    heavy = [line for line in lines if not line.startswith("CONECT") and line[76:78] != " H"]
    (tmp_path / "heavy.pdb").write_text("".join(heavy))
    with pytest.raises(UnsupportedSystemError, match="no hydrogens"):
        read_molecule(tmp_path / "heavy.pdb")


def test_pdb_files_of_several_models_are_refused(tmp_path: Path) -> None:
    from rdkit import Chem

    water = Chem.MolToPDBBlock(read_molecule("O").rdkit, flavor=2)  # without CONECT
    model = "".join(line for line in water.splitlines(True) if line.startswith("HETATM"))
    models = [f"MODEL {number:8d}\n{model}ENDMDL\n" for number in (1, 2)]
    (tmp_path / "one.pdb").write_text(models[0] + "END\n")
    assert read_molecule(tmp_path / "one.pdb").n_atoms == 3
    (tmp_path / "two.pdb").write_text("".join(models) + "END\n")
    with pytest.raises(UnsupportedSystemError, match="holds 2 models"):
        read_molecule(tmp_path / "two.pdb")


def renumbered(lines: list[str], path: Path) -> Molecule:
    numbered = [f"{line[:6]}{number:5d}{line[11:]}" for number, line in enumerate(lines, 1)]
    path.write_text("".join(numbered) + "END\n")
    return read_molecule(path)


def test_residues_are_told_apart_by_insertion_code(tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "data" / "ala3" / "ala3.pdb"
    lines = [line for line in source.read_text().splitlines(True) if line.startswith("ATOM")]
    codes = {"1": " ", "2": "A", "3": "B"}
    same = [f"{line[:22]}   1{codes[line[22:26].strip()]}{line[27:]}" for line in lines]
    spec = parse_potential("amber14")
    energies = []
    for name, atoms in (("plain", lines), ("codes", same)):
        molecule = renumbered(atoms, tmp_path / f"{name}.pdb")
        energies.append(bind(spec, molecule)(molecule.positions)[0])
    assert energies[1] == pytest.approx(energies[0], abs=1e-9)


def test_hydrogens_at_the_end_of_a_file_stay_where_they_are(tmp_path: Path) -> None:
    amber_dipeptide(tmp_path)
    text = (tmp_path / "dipeptide.pdb").read_text().splitlines(keepends=True)
    lines = [line for line in text if line.startswith(("ATOM", "HETATM"))]
    lines.sort(key=lambda line: line[76:78] == " H")
    molecule = renumbered(lines, tmp_path / "end.pdb")
    built = built_structure(molecule)
    numbers = [atom.element.atomic_number for atom in built.topology.atoms()]
    assert numbers == molecule.atomic_numbers.tolist()
    with pytest.raises(UnsupportedSystemError, match="No template found"):
        bind(parse_potential("amber14"), molecule)


def test_density_functional_energy_alone_is_the_same() -> None:
    water = read_molecule("O")
    spec = parse_potential("wb97x/6-31g*")
    energy, _ = bind(spec, water)(water.positions)
    assert bind_energy(spec, water)(water.positions) == pytest.approx(energy, abs=1e-7)


def test_potentials_refuse_what_they_cannot_know() -> None:
    ion = read_molecule("[NH4+]")
    for name in ("trip-gfn2-s", "gfn2", "openmm-ml:trip-gfn2-s"):
        with pytest.raises(UnsupportedSystemError, match="charge"):
            bind(parse_potential(name), ion)
    radical = replace(read_molecule("O"), n_unpaired=2)
    with pytest.raises(UnsupportedSystemError, match=r"2 unpaired electrons, .* not told the spin"):
        bind(parse_potential("openmm-ml:trip-gfn2-s"), radical)
    with pytest.raises(UnsupportedElementError, match="F"):
        bind(parse_potential("trip-gfn2-s"), read_molecule("CF"))
    with pytest.raises(UnsupportedSystemError, match="Amber14"):
        bind(parse_potential("amber14"), read_molecule("CCO"))


def test_models_of_openmm_ml_are_told_the_charge() -> None:
    mlpotential = pytest.importorskip("openmmml.mlpotential")
    import openmm

    class Impl(mlpotential.MLPotentialImpl):  # type: ignore[misc, name-defined]
        def addForces(self, topology, system, atoms, forceGroup, charge=0, **args):  # type: ignore[no-untyped-def]  # noqa: N802
            force = openmm.CustomExternalForce(str(float(charge)))
            force.addParticle(0)
            system.addForce(force)

    class Factory(mlpotential.MLPotentialImplFactory):  # type: ignore[misc, name-defined]
        def createImpl(self, name, **args):  # type: ignore[no-untyped-def]  # noqa: N802
            return Impl()

    mlpotential.MLPotential.registerImplFactory("told", Factory())
    spec = parse_potential("openmm-ml:told")
    for smiles, charge in (("[NH4+]", 1), ("[OH-]", -1), ("O", 0)):
        molecule = read_molecule(smiles)
        energy = bind(spec, molecule)(molecule.positions)[0]
        assert energy == pytest.approx(charge * KJ_PER_MOL_TO_EV)


def test_mace_is_asked_for_total_energies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default counts from isolated atoms, which no level of theory does."""
    mlpotential = pytest.importorskip("openmmml.mlpotential")
    import openmm

    from trip_mm.geometry.openmm_topology import built_structure
    from trip_mm.simulation.potentials import SystemOptions, create_system
    from trip_mm.simulation.system_config import PotentialConfig

    asked = []

    class Impl(mlpotential.MLPotentialImpl):  # type: ignore[misc, name-defined]
        def addForces(self, topology, system, atoms, forceGroup, **args):  # type: ignore[no-untyped-def]  # noqa: N802
            asked.append(args.get("returnEnergyType"))
            system.addForce(openmm.CustomExternalForce("0"))

    class Factory(mlpotential.MLPotentialImplFactory):  # type: ignore[misc, name-defined]
        def createImpl(self, name, **args):  # type: ignore[no-untyped-def]  # noqa: N802
            return Impl()

    factories = mlpotential.MLPotential._implFactories
    for name in ("mace-off23-small", "other"):
        monkeypatch.setitem(factories, name, Factory())
        bind(PotentialSpec("openmm-ml", name), read_molecule("O"))
    config = PotentialConfig.model_validate({"openmm-ml": "mace-off23-small"})
    create_system(built_structure(read_molecule("O")), config, SystemOptions())
    assert asked == ["energy", None, None]


def test_relaxation_reaches_the_minimum_that_ase_finds(butane: Molecule) -> None:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from ase.optimize import BFGS

    evaluate = bind(parse_potential("gfn2"), butane)

    class Wrapped(Calculator):  # type: ignore[misc]
        implemented_properties = ("energy", "forces")

        def calculate(self, atoms=None, properties=None, system_changes=None):
            super().calculate(atoms, properties, system_changes)
            self.results["energy"], self.results["forces"] = evaluate(atoms.positions)

    found = relax(butane, evaluate)
    atoms = Atoms(butane.atomic_numbers, butane.positions, calculator=Wrapped())
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=300)
    difference = (found.energy - atoms.get_potential_energy()) * EV_TO_KCAL_PER_MOL
    assert abs(difference) < 0.002
    assert np.abs(found.forces).max() < 5e-3


def test_held_angle_is_held_and_the_rest_is_at_rest(butane: Molecule) -> None:
    evaluate = bind(parse_potential("gfn2"), butane)
    found = relax(butane, evaluate, HeldDihedral(BUTANE, 100.0))
    assert dihedral_angle(found.positions, BUTANE) == pytest.approx(100.0, abs=0.01)
    # What is left of the force only turns the held angle: hydrogens of the methyl groups feel none.
    ends = [atom for atom in range(4, 14) if atom not in (7, 8, 9, 10)]
    assert np.abs(found.forces[ends]).max() < 5e-3
    assert np.abs(found.forces).max() > 5e-2


@pytest.mark.parametrize(
    ("smiles", "text", "named"),
    [("CC#CC", "0,1,2,3=60", "undefined"), ("CCCC", "0,1,2,4=60", "atoms 2 and 4 are not bonded")],
)
def test_held_dihedrals_that_cannot_turn_are_refused(smiles: str, text: str, named: str) -> None:
    with pytest.raises(UnsupportedSystemError, match=named):
        parse_held(read_molecule(smiles), text)


def test_held_angles_that_are_undefined_are_errors(butane: Molecule) -> None:
    positions = np.full_like(butane.positions, np.nan)
    with pytest.raises(RelaxationError, match="dihedral angle ended"):
        check_relaxed(replace(butane, bonds=()), positions, HeldDihedral(BUTANE, 60.0))


def test_relaxation_that_tears_a_bond_is_an_error() -> None:
    water = read_molecule("O")

    def repelling(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        arm = positions[1] - positions[0]
        distance = float(np.linalg.norm(arm))
        slope = 0.5 * (distance - 2.2)
        forces = np.zeros_like(positions)
        forces[1] = -2 * slope * arm / distance
        forces[0] = -forces[1]
        return 0.5 * (distance - 2.2) ** 2, forces

    with pytest.raises(RelaxationError, match="connectivity changed"):
        relax(water, repelling)


def test_singular_coordinates_are_an_error_of_the_relaxation(
    butane: Molecule, monkeypatch: pytest.MonkeyPatch
) -> None:
    def singular(*arguments: object, **options: object) -> None:
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr("geometric.optimize.Optimize", singular)
    with pytest.raises(RelaxationError, match="geomeTRIC: Singular matrix"):
        relax(butane, lambda positions: (0.0, np.zeros_like(positions)))


def test_failing_evaluation_reaches_the_caller(butane: Molecule) -> None:
    def failing(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        raise EvaluationError("SCF did not converge")

    with pytest.raises(EvaluationError, match="SCF"):
        relax(butane, failing)


def test_results_that_are_not_finite_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TripConfig(
        n_channels=4, l_max=1, n_layers=1, n_heads=1, cutoff=3.0, radial_hidden=4, n_scalars=4
    )
    potential = trip_mm.new_potential(config, seed=1, dtype="float64")
    potential.self_energies.fill_(float("nan"))
    monkeypatch.setattr("trip_mm.checkpoint.load_potential", lambda name, dtype: potential)
    water = read_molecule("O")
    with pytest.raises(EvaluationError, match="not finite"):
        bind(parse_potential("trip:any"), water)(water.positions)
