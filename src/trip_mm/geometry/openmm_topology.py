"""A molecule, or several, as the built structure that OpenMM systems are made from."""

from openmm import app

from trip_mm.geometry.fragments import molecule_of_atoms
from trip_mm.geometry.molecule import Molecule
from trip_mm.simulation.building import BuiltStructure
from trip_mm.units import ANGSTROM_TO_NM


def built_structure(molecule: Molecule) -> BuiltStructure:
    """Returns the molecule in open boundaries.

    Residues and atom names of a PDB file are kept, because force fields find parameters by them.
    Without them every connected molecule is a residue. A residue whose atoms do not stand together
    becomes several, because OpenMM numbers atoms residue by residue.
    """
    fragments = molecule_of_atoms(molecule.n_atoms, molecule.bonds)
    topology = app.Topology()
    chain = topology.addChain("A")
    residue: app.topology.Residue | None = None
    last: tuple[object, ...] = ()
    count: dict[str, int] = {}
    atoms = []
    for index, number in enumerate(molecule.atomic_numbers):
        element = app.Element.getByAtomicNumber(int(number))
        count[element.symbol] = count.get(element.symbol, 0) + 1
        name = f"{element.symbol.upper()}{count[element.symbol]}"
        key: tuple[object, ...] = (int(fragments[index]) + 1, "", "", "MOL")
        info = molecule.rdkit and molecule.rdkit.GetAtomWithIdx(index).GetPDBResidueInfo()
        if info:
            name = info.GetName().strip() or name
            key = (
                info.GetResidueNumber(),
                info.GetInsertionCode().strip(),
                info.GetChainId().strip(),
                info.GetResidueName().strip(),
            )
        if residue is None or key != last:
            residue = topology.addResidue(str(key[3]), chain, str(key[0]), str(key[1]))
            last = key
        atoms.append(topology.addAtom(name, element, residue))
    for i, j in molecule.bonds:
        topology.addBond(atoms[i], atoms[j])
    positions = molecule.positions * ANGSTROM_TO_NM
    return BuiltStructure(topology, positions, None, molecule.n_atoms, molecule.charge)
