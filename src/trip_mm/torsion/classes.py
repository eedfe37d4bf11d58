"""Classes of torsions by the two atoms of the central bond."""

from rdkit import Chem

from trip_mm.torsion.dihedrals import Dihedral

_SPECIAL = {
    "amide C-N": Chem.MolFromSmarts("[CX3](=O)-[NX3]"),
    "ester C-O": Chem.MolFromSmarts("[CX3](=O)-[OX2]"),
}
_HYBRIDIZATION = {
    Chem.HybridizationType.SP: "sp",
    Chem.HybridizationType.SP2: "sp2",
    Chem.HybridizationType.SP3: "sp3",
}


def torsion_class(mol: Chem.Mol, dihedral: Dihedral) -> str:
    """Returns the class, such as `C(sp3)-C(sp3)`, `C(ar)-N(sp2)`, `amide C-N`.

    Esters and amides (acids and carbamates included) have names of their own, because conjugation
    across their single bond gives barriers unlike those of other bonds between the same atoms.

    Args:
        mol: with all hydrogens; aromaticity as RDKit perceives it.
        dihedral: four atom indices.
    """
    b, c = dihedral[1:3]
    for name, pattern in _SPECIAL.items():
        for carbon, _, other in mol.GetSubstructMatches(pattern):
            if {carbon, other} == {b, c}:
                return name
    return "-".join(sorted(_atom_kind(mol.GetAtomWithIdx(index)) for index in (b, c)))


def _atom_kind(atom: Chem.Atom) -> str:
    kind = "ar" if atom.GetIsAromatic() else _HYBRIDIZATION.get(atom.GetHybridization(), "?")
    return f"{atom.GetSymbol()}({kind})"
