"""What methods.md says of a system."""

from pathlib import Path

from openmm import app, unit

from trip_mm.simulation.building import build_structure
from trip_mm.simulation.methods import methods_text
from trip_mm.simulation.plan import RunOptions, make_plan
from trip_mm.simulation.schema import parse_protocol, parse_system
from trip_mm.simulation.structure_file import load_structure, save_structure


def test_modelled_heavy_atoms_are_named(tmp_path: Path) -> None:
    """Also after the structure went through its file, as when a run is made longer."""
    built = build_structure(
        parse_system({"structure": {"sequence": "GA"}, "potential": "amber14"}, "x.yaml"), seed=1
    )
    cut = app.Modeller(built.topology, built.positions * unit.nanometer)
    cut.delete([atom for atom in cut.topology.atoms() if atom.name == "CB"])
    with (tmp_path / "cut.pdb").open("w") as file:
        app.PDBFile.writeFile(cut.topology, cut.positions, file)
    document = {
        "structure": {"file": "cut.pdb"},
        "potential": "amber14",
        "solvent": {"edge": "16 A"},
    }
    system = parse_system(document, str(tmp_path / "x.yaml"))
    protocol = parse_protocol({"stages": [{"kind": "minimize"}]}, "p.yaml")
    structure = build_structure(system, seed=1)
    save_structure(tmp_path / "structure.json", structure)
    loaded = load_structure(tmp_path / "structure.json")
    plan = make_plan(system, protocol, RunOptions())
    for one in (structure, loaded):
        text = methods_text(plan, one, {})
        assert "PDBFixer modelled heavy atoms that the structure file lacks: CB of ALA 2" in text
    assert "PDBFixer" not in methods_text(plan, built, {})


def test_peptides_of_several_chains_are_told_apart(tmp_path: Path) -> None:
    built = build_structure(
        parse_system({"structure": {"sequence": "GA"}, "potential": "amber14"}, "x.yaml"), seed=1
    )
    first = app.Modeller(built.topology, built.positions * unit.nanometer)
    first.add(built.topology, (built.positions + 2.0) * unit.nanometer)
    with (tmp_path / "two.pdb").open("w") as file:
        app.PDBFile.writeFile(first.topology, first.positions, file)
    system = parse_system(
        {"structure": {"file": "two.pdb"}, "potential": "amber14"}, str(tmp_path / "x.yaml")
    )
    protocol = parse_protocol({"stages": [{"kind": "minimize"}]}, "p.yaml")
    text = methods_text(
        make_plan(system, protocol, RunOptions()), build_structure(system, seed=1), {}
    )
    assert "the solute GLY-ALA and GLY-ALA (" in text
