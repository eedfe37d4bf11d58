"""Which dihedral angle a torsion scan turns: by atom indices, by pattern, or every rotor."""

from collections.abc import Sequence
from typing import Any

from rdkit import Chem

from trip_mm.elements import symbols_of
from trip_mm.errors import ConfigError, UnsupportedSystemError
from trip_mm.geometry.dihedral import check_dihedral
from trip_mm.geometry.molecule import Molecule

Dihedral = tuple[int, int, int, int]

# Single bonds outside rings between atoms that both have further neighbours; amides included,
# bonds to a triple bond left out (RDKit's definition of rotatable bonds, kept explicit).
_ROTOR = Chem.MolFromSmarts("[!D1;!$(*#*)]-;!@[!D1;!$(*#*)]")


def dihedral_from_indices(molecule: Molecule, text: str) -> Dihedral:
    """Reads four atom indices, counted from 0, such as `5,4,2,1`.

    Raises:
        ConfigError: not four different indices of atoms.
        UnsupportedSystemError: as `check_dihedral`.
    """
    words = text.replace(",", " ").split()
    if len(words) != 4 or not all(word.isdigit() for word in words):
        raise ConfigError(f"dihedral {text!r}: give four atom indices counted from 0, as 5,4,2,1")
    atoms = tuple(int(word) for word in words)
    if len(set(atoms)) != 4 or max(atoms) >= molecule.n_atoms:
        raise ConfigError(
            f"dihedral {text!r}: the indices must differ and lie in 0 to {molecule.n_atoms - 1}"
        )
    return check_dihedral(molecule, atoms)


def dihedral_from_smarts(molecule: Molecule, smarts: str) -> Dihedral:
    """Finds the one dihedral that a SMARTS pattern of four atoms matches.

    Raises:
        ConfigError: not a pattern of four atoms, no match, or matches on different central bonds.
        UnsupportedSystemError: as `check_dihedral`.
    """
    pattern = Chem.MolFromSmarts(smarts)
    if pattern is None or pattern.GetNumAtoms() != 4:
        raise ConfigError(f"SMARTS {smarts!r}: give a valid pattern of four atoms, as O-C-C-N")
    matches = sorted(molecule.rdkit.GetSubstructMatches(pattern, uniquify=False))
    if not matches:
        raise ConfigError(f"SMARTS {smarts!r}: matches nothing in {molecule.name}")
    bonds = {tuple(sorted(match[1:3])) for match in matches}
    if len(bonds) > 1:
        shown = "; ".join(",".join(map(str, match)) for match in matches[:6])
        raise ConfigError(
            f"SMARTS {smarts!r}: matches {len(bonds)} bonds ({shown}); make it more specific or "
            "name the indices"
        )
    return check_dihedral(molecule, matches[0])


def all_rotors(molecule: Molecule) -> list[Dihedral]:
    """Finds one dihedral for every rotatable bond; its ends are the heaviest neighbours.

    Raises:
        ConfigError: the molecule has no rotatable bond.
    """
    found = []
    for b, c in sorted(molecule.rdkit.GetSubstructMatches(_ROTOR)):
        a, d = _end(molecule.rdkit, b, c), _end(molecule.rdkit, c, b)
        try:
            found.append(check_dihedral(molecule, (a, b, c, d)))
        except UnsupportedSystemError:
            continue  # an axis that ends in a linear group turns nothing
    if not found:
        raise ConfigError(f"{molecule.name}: has no bond that can be turned")
    return found


def _end(mol: Any, center: int, other: int) -> int:
    """Returns the heaviest neighbour of `center` but `other`; of equal ones the first."""
    atoms = [a for a in mol.GetAtomWithIdx(center).GetNeighbors() if a.GetIdx() != other]
    return int(max(atoms, key=lambda a: (a.GetAtomicNum(), -a.GetIdx())).GetIdx())


def describe(molecule: Molecule, atoms: Sequence[int]) -> str:
    """Returns a dihedral as text, such as `O6-C4-C1-N2`."""
    symbols = symbols_of(molecule.atomic_numbers)
    return "-".join(f"{symbols[index]}{index}" for index in atoms)
