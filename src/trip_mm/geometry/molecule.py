"""One molecule: atoms, positions, bonds; read from SDF, MOL, PDB, XYZ or SMILES."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds, rdDistGeom, rdForceFieldHelpers

from trip_mm.elements import formula, symbols_of
from trip_mm.errors import UnsupportedSystemError

_logger = logging.getLogger("trip_mm")

_EMBEDDING_SEED = 1
# A bond is torn when it is this much longer than it was, formed when atoms come this much closer
# than the sum of their covalent radii allows (Open Babel and RDKit use 0.45 A of tolerance).
BOND_TOLERANCE = 0.45


@dataclass(frozen=True)
class Molecule:
    """A molecule in a geometry.

    Attributes:
        atomic_numbers: int64 `[n_atoms]`.
        positions: A, `[n_atoms, 3]`.
        bonds: pairs of atom indices, the smaller first.
        charge: net formal charge, e.
        n_unpaired: unpaired electrons.
        name: for tables and files.
        rdkit: the molecule in RDKit, with bond orders, which searches for patterns need.
    """

    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    bonds: tuple[tuple[int, int], ...]
    charge: int = 0
    n_unpaired: int = 0
    name: str = ""
    rdkit: Any = field(default=None, compare=False, repr=False)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atomic_numbers)

    @property
    def formula(self) -> str:
        """Molecular formula in Hill order."""
        return formula(self.atomic_numbers)

    def at(self, positions: NDArray[np.float64]) -> "Molecule":
        """Returns the molecule in another geometry, `[n_atoms, 3]` in A."""
        return replace(self, positions=np.asarray(positions, dtype=np.float64))


def molecule_from_rdkit(mol: Any, name: str = "") -> Molecule:
    """Takes over a molecule of RDKit that holds all hydrogens and one conformer.

    Raises:
        UnsupportedSystemError: it has no geometry, or consists of several molecules.
    """
    where = name or "molecule"
    if mol.GetNumConformers() == 0:
        raise UnsupportedSystemError(f"{where}: has no geometry; embed it first")
    n_fragments = len(Chem.GetMolFrags(mol))
    if n_fragments != 1:
        raise UnsupportedSystemError(
            f"{where}: holds {n_fragments} separate molecules; give one (no salts or complexes)"
        )
    pairs = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
    return Molecule(
        np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int64),
        np.array(mol.GetConformer().GetPositions(), dtype=np.float64),
        tuple(sorted((min(pair), max(pair)) for pair in pairs)),
        Chem.GetFormalCharge(mol),
        sum(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()),
        name,
        mol,
    )


def read_molecule(source: str | Path) -> Molecule:
    """Reads one molecule from a file (SDF, MOL, PDB, XYZ) or a SMILES string.

    Flat drawings and SMILES get a geometry by distance geometry (ETKDGv3, fixed seed, relaxed with
    MMFF94 where it knows all atoms); hydrogens that are not written are added. An SDF record with
    all z equal to zero is a drawing unless its header says 3D. Bonds of an XYZ file
    are found from distances, for a neutral molecule.

    Raises:
        UnsupportedSystemError: unreadable, several molecules, or no geometry found.
    """
    path = Path(source)
    reader = _READERS.get(path.suffix.lower())
    if reader is not None:
        if not path.is_file():
            raise UnsupportedSystemError(f"{path}: no such file; give a structure file or SMILES")
        with rdBase.BlockLogs():
            mol = reader(path)
        if mol is None:
            raise UnsupportedSystemError(f"{path}: cannot be read; check the file")
        return molecule_from_rdkit(_with_geometry(mol, str(path)), path.stem)
    text = str(source).strip()
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text)
    if mol is None or mol.GetNumAtoms() == 0:
        raise UnsupportedSystemError(
            f"{text[:60]!r}: neither a structure file ({', '.join(_READERS)}) nor SMILES"
        )
    return molecule_from_rdkit(_with_geometry(mol, text[:60]), text)


def _with_geometry(mol: Any, where: str) -> Any:
    if mol.GetNumConformers() and mol.GetConformer().Is3D():
        return Chem.AddHs(mol, addCoords=True)
    n_given, is_flat = mol.GetNumAtoms(), mol.GetNumConformers() > 0
    mol = Chem.AddHs(mol)
    if is_flat and mol.GetNumAtoms() == n_given:
        _logger.warning(
            "%s: is flat and not marked as 3D, so it gets a new geometry; to keep its own, write "
            "3D into columns 21 and 22 of the second line",
            where,
        )
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = _EMBEDDING_SEED
    if rdDistGeom.EmbedMolecule(mol, parameters) != 0:
        raise UnsupportedSystemError(f"{where}: no geometry found; give an SDF file with one")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=1000)
    return mol


def _read_sdf(path: Path) -> Any:
    supplier = Chem.SDMolSupplier()
    supplier.SetData(path.read_text(errors="replace"), removeHs=False)
    records = list(supplier)
    if len(records) != 1:
        raise UnsupportedSystemError(f"{path}: holds {len(records)} records; give exactly one")
    return records[0]


def _read_xyz(path: Path) -> Any:
    mol: Any = Chem.MolFromXYZFile(str(path))
    if mol is None:
        return None
    if mol.GetNumAtoms() == 1:
        # A bare atom, as [H] in SMILES: without this it would get hydrogens up to its valence.
        mol.GetAtomWithIdx(0).SetNoImplicit(True)
        Chem.SanitizeMol(mol)
        return mol
    try:
        rdDetermineBonds.DetermineBonds(mol, charge=0)
    except ValueError as error:
        raise UnsupportedSystemError(
            f"{path}: no bonds of a neutral molecule fit its distances ({error}); give an SDF file"
        ) from error
    return mol


def _read_pdb(path: Path) -> Any:
    """Reads atoms and bonds; bond orders, which the format lacks, follow from the valences."""
    mol: Any = Chem.MolFromPDBFile(str(path), removeHs=False)
    if mol is None:
        return None
    n_models = mol.GetNumConformers()
    if n_models > 1:
        raise UnsupportedSystemError(f"{path}: holds {n_models} models; give exactly one")
    if all(atom.GetAtomicNum() != 1 for atom in mol.GetAtoms()):
        raise UnsupportedSystemError(
            f"{path}: holds no hydrogens, which cannot be placed without bond orders; give an SDF"
            " file or add them first"
        )
    # A planar molecule with all z equal to zero is a geometry too: the format knows no drawings.
    mol.GetConformer().Set3D(True)
    try:
        rdDetermineBonds.DetermineBondOrders(mol, charge=0)
    except ValueError as error:
        raise UnsupportedSystemError(
            f"{path}: no bond orders of a neutral molecule fit its atoms ({error}); give an SDF"
        ) from error
    return mol


_READERS: dict[str, Callable[[Path], Any]] = {
    ".sdf": _read_sdf,
    ".mol": _read_sdf,
    ".pdb": _read_pdb,
    ".xyz": _read_xyz,
}


def changed_bonds(
    molecule: Molecule, positions: NDArray[np.float64]
) -> list[tuple[int, int, float]]:
    """Finds bonds that are torn and contacts that have become bonds.

    Atoms count as bonded up to 0.45 A beyond the sum of their covalent radii; what is bonded by
    that measure is compared with the bonds of the molecule. Two neighbours of one atom that are as
    close in the molecule's own geometry, as the bridgeheads of bicyclo[1.1.1]pentane, are no new
    bond.

    Args:
        molecule: names the bonds.
        positions: the geometry to judge, A, `[n_atoms, 3]`.

    Returns:
        Indices of both atoms and their distance in A, for every difference.
    """
    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(z)) for z in molecule.atomic_numbers])
    reach = radii[:, None] + radii[None] + BOND_TOLERANCE
    distances, before = (
        np.linalg.norm(points[:, None] - points[None], axis=-1)
        for points in (positions, molecule.positions)
    )
    close = distances < reach
    bonded = np.zeros_like(close)
    for i, j in molecule.bonds:
        bonded[i, j] = bonded[j, i] = True
    strained = (bonded.astype(np.int64) @ bonded > 0) & (before < reach)
    differ = np.triu((close != bonded) & (bonded | ~strained), k=1)
    return [(int(i), int(j), float(distances[i, j])) for i, j in np.argwhere(differ)]


def to_xyz(molecule: Molecule, comment: str) -> str:
    """Returns one frame in XYZ format, A."""
    rows = [
        f"{symbol:2s} {x:14.8f} {y:14.8f} {z:14.8f}"
        for symbol, (x, y, z) in zip(
            symbols_of(molecule.atomic_numbers), molecule.positions, strict=True
        )
    ]
    return "\n".join([str(molecule.n_atoms), comment.replace("\n", " "), *rows]) + "\n"
