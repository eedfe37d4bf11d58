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
    assert [atom.name for atom in structure.topology.atoms()].count("HB1") == 1
    for one in (structure, loaded):
        text = methods_text(plan, one, {})
        assert "PDBFixer modelled heavy atoms that the structure file lacks: CB of ALA 2" in text
        assert "The periodic boundaries (box of 16.0 x 16.0 x 16.0 A) have" in text
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


def _text(
    system: dict[str, object],
    platform: str,
    *stages: dict[str, object],
    precision: str | None = None,
) -> str:
    parsed = parse_system(system, "x.yaml")
    protocol = parse_protocol({"stages": list(stages or ({"kind": "minimize"},))}, "p.yaml")
    plan = make_plan(parsed, protocol, RunOptions(platform=platform, precision=precision))
    return methods_text(plan, build_structure(parsed, seed=1), {})


def test_only_what_holds_is_said_of_the_numerics() -> None:
    peptide = {"structure": {"sequence": "AAA", "termini": "zwitterion"}, "potential": "amber14"}
    text = _text(peptide, "Reference")
    assert "All stages ran on OpenMM's Reference platform in double precision." in text
    assert "network" not in text
    assert "Backbone torsions were analysed with MDAnalysis" in text
    assert "MDAnalysis: A Python Package" in text
    assert "without cutoff. Bonds to hydrogen and water are rigid." in text
    assert "particle mesh Ewald" not in text
    ethanol = {"structure": {"smiles": "CCO"}, "potential": {"trip": "trip-gfn2-s"}}
    text = _text(ethanol, "CPU")
    assert "All stages ran on OpenMM's CPU platform (TrIP network: float32)." in text
    assert "MDAnalysis" not in text
    boxed = {"solvent": {"edge": "12 A"}, "potential": "amber14"}
    assert "particle mesh Ewald method" in _text(boxed, "CPU")


def test_the_precision_of_a_network_is_named_where_it_is_known() -> None:
    ethanol = {"structure": {"smiles": "CCO"}, "potential": {"openmm-ml": "mace-off23-small"}}
    text = _text(ethanol, "CPU")
    assert "All stages ran on OpenMM's CPU platform." in text
    assert "float" not in text
    assert "openmm-ml. No constraints." in text
    text = _text(ethanol, "CPU", precision="double")
    assert "mace-off23-small of openmm-ml, in double precision. No constraints." in text
    assert "All stages ran on OpenMM's CPU platform." in text
    trip = {**ethanol, "potential": {"trip": "trip-gfn2-s"}}
    assert "CPU platform (TrIP network: float64)." in _text(trip, "CPU", precision="double")


def test_rigid_water_keeps_its_masses_in_words_too() -> None:
    heavy = {
        "kind": "nvt",
        "duration": "4 fs",
        "timestep": "2 fs",
        "hydrogen_mass": "2 u",
        "temperature": "298 K",
    }
    sentence = "Hydrogen masses were repartitioned to 2 u"
    boxed = {"solvent": {"edge": "12 A"}}
    assert f"{sentence} (not in rigid water)." in _text(
        {**boxed, "potential": "amber14"}, "CPU", heavy
    )
    assert f"{sentence}." in _text({**boxed, "potential": {"trip": "trip-gfn2-s"}}, "CPU", heavy)
