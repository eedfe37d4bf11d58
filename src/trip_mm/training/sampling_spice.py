"""Geometries from files in SPICE's layout: a group per molecule with mapped SMILES.

The geometry files of the SPICE repository are in nanometers, its releases are in bohr; the
attribute `units` of each `conformations` says which.
"""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from rdkit import Chem

from trip_mm.elements import formula
from trip_mm.errors import DataError
from trip_mm.training.groups import Conformation
from trip_mm.training.sampling_clusters import (
    Cluster,
    cut_cluster,
    cut_water_cluster,
    perturbed,
)
from trip_mm.training.sampling_dynamics import Liquid
from trip_mm.training.sampling_geometry import Positions, unlabelled
from trip_mm.training.sampling_recipe import SpiceSource
from trip_mm.units import BOHR_TO_ANGSTROM, NM_TO_ANGSTROM

_CHUNK = 50
_TO_ANGSTROM = {
    "nm": NM_TO_ANGSTROM,
    "nanometer": NM_TO_ANGSTROM,
    "nanometers": NM_TO_ANGSTROM,
    "bohr": BOHR_TO_ANGSTROM,
}
_ATOMS_OF_WATER = 3


@dataclass(frozen=True)
class SpiceMolecule:
    """One group of a SPICE file.

    Attributes:
        name: of the group.
        atomic_numbers: in the order of the conformations, `[n_atoms]`.
        charge: net charge in e.
        waters: O, H, H of each water, `[n_waters, 3]`.
        conformations: A, `[n_conf, n_atoms, 3]`.
    """

    name: str
    atomic_numbers: NDArray[np.int64]
    charge: int
    waters: NDArray[np.int64]
    conformations: Positions


def read_spice(path: Path) -> Iterator[SpiceMolecule]:
    """Reads the molecules of a SPICE file, geometries or a release, one after the other.

    Raises:
        DataError: the file does not exist, or a group lacks SMILES, conformations or their unit.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give its directory with --data")
    with h5py.File(path, "r") as file:
        for name, group in file.items():
            if "smiles" not in group or "conformations" not in group:
                raise DataError(f"{path}: {name}: has no smiles or no conformations")
            text = group["smiles"][0]
            smiles = text.decode("ascii") if isinstance(text, bytes) else str(text)
            factor = _to_angstrom(group["conformations"], f"{path}: {name}")
            conformations = np.asarray(group["conformations"][:], dtype=np.float64)
            yield _molecule(f"{path.name}:{name}", smiles, conformations * factor)


def _to_angstrom(conformations: Any, where: str) -> float:
    """Returns the factor that brings conformations to A.

    Raises:
        DataError: their attribute `units` is absent or names another unit.
    """
    stated = conformations.attrs.get("units", "nothing")
    unit = stated.decode("ascii", "replace") if isinstance(stated, bytes) else str(stated)
    if unit not in _TO_ANGSTROM:
        raise DataError(
            f"{where}: the attribute `units` of conformations says {unit}; write nanometers or bohr"
        )
    return _TO_ANGSTROM[unit]


def _molecule(name: str, smiles: str, conformations: Positions) -> SpiceMolecule:
    mol = Chem.MolFromSmiles(smiles, sanitize=False)
    if mol is None or mol.GetNumAtoms() != conformations.shape[1]:
        raise DataError(f"{name}: the SMILES does not fit the conformations")
    Chem.SanitizeMol(mol)
    row_of = [atom.GetAtomMapNum() - 1 for atom in mol.GetAtoms()]
    numbers = np.zeros(len(row_of), dtype=np.int64)
    numbers[row_of] = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    waters = [
        [row_of[oxygen], *(row_of[n.GetIdx()] for n in mol.GetAtomWithIdx(oxygen).GetNeighbors())]
        for (oxygen,) in mol.GetSubstructMatches(Chem.MolFromSmarts("[#8X2]"))
        if all(n.GetAtomicNum() == 1 for n in mol.GetAtomWithIdx(oxygen).GetNeighbors())
    ]
    return SpiceMolecule(
        name,
        numbers,
        int(Chem.GetFormalCharge(mol)),
        np.asarray(waters, dtype=np.int64).reshape(-1, 3),
        conformations,
    )


def sample_spice(
    source: SpiceSource,
    path: Path,
    excluded: frozenset[str],
    rng: np.random.Generator,
    left_out: MutableMapping[str, int],
) -> Iterator[Conformation]:
    """Yields conformations of the molecules that fit the source, each molecule in turn.

    Args:
        source: which elements and sizes are allowed.
        path: SPICE geometry file.
        excluded: formulas that are kept out.
        rng: random stream of the source.
        left_out: number of conformations of molecules left out, by reason; added to.

    Raises:
        DataError: as `read_spice`, or no molecule of the file fits the source.
    """
    molecules = []
    for molecule in read_spice(path):
        reason = _misfit(source, molecule, excluded)
        if reason is None:
            molecules.append(molecule)
        else:
            reason = f"{source.system_class}: {reason}"
            left_out[reason] = left_out.get(reason, 0) + len(molecule.conformations)
    if not molecules:
        raise DataError(
            f"{path}: nothing of {path.name} is left ({'; '.join(left_out) or 'it is empty'}): "
            "allow more elements or atoms, or leave the source out"
        )
    orders = [rng.permutation(len(molecule.conformations)) for molecule in molecules]
    for count in range(source.conformations):
        index, turn = count % len(molecules), count // len(molecules)
        molecule = molecules[index]
        row = int(orders[index][turn % len(orders[index])])
        yield _conformation(source, molecule, row, rng)


def _misfit(source: SpiceSource, molecule: SpiceMolecule, excluded: frozenset[str]) -> str | None:
    """Returns why a molecule is left out, or None."""
    if molecule.charge != 0:
        return "carries a net charge"
    if not set(molecule.atomic_numbers.tolist()) <= set(source.elements):
        return "other elements"
    if formula(molecule.atomic_numbers) in excluded:
        return "formula of keep_out"
    n_solute = len(molecule.atomic_numbers) - molecule.waters.size
    if (n_solute or _ATOMS_OF_WATER) > source.max_atoms:
        return f"more than {source.max_atoms} atoms without the waters around it"
    return None


def _conformation(
    source: SpiceSource, molecule: SpiceMolecule, row: int, rng: np.random.Generator
) -> Conformation:
    cluster = _cut(source, molecule, molecule.conformations[row], rng)
    positions = perturbed(cluster, source.oh_length, source.displacement, rng)
    name = f"{molecule.name}[{row // _CHUNK * _CHUNK}:{(row // _CHUNK + 1) * _CHUNK}]"
    return unlabelled(cluster.atomic_numbers, positions, source.system_class, name)


def _cut(
    source: SpiceSource, molecule: SpiceMolecule, positions: Positions, rng: np.random.Generator
) -> Cluster:
    numbers, waters = molecule.atomic_numbers, molecule.waters
    solute = np.setdiff1d(np.arange(len(numbers)), waters)
    liquid = Liquid(None, positions, numbers, solute, waters, None)
    low, high = source.n_waters or (len(waters), len(waters))
    room = (source.max_atoms - len(solute)) // _ATOMS_OF_WATER
    wanted = min(int(rng.integers(low, high + 1)), room, len(waters))
    if len(solute):
        return cut_cluster(liquid, positions, solute, wanted)
    return cut_water_cluster(liquid, positions, max(wanted, 1), rng)
