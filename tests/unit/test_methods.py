"""What methods.md says of a system."""

from pathlib import Path

from openmm import app, unit

from trip_mm.simulation.building import build_structure
from trip_mm.simulation.methods import methods_text
from trip_mm.simulation.plan import RunOptions, make_plan
from trip_mm.simulation.schema import parse_protocol, parse_system


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
