"""Geometries from files in SPICE's layout: a group per molecule with mapped SMILES, in nm."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
from trip_mm.units import NM_TO_ANGSTROM

_CHUNK = 50


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
    """Reads the molecules of a SPICE geometry file one after the other.

    Raises:
        DataError: the file does not exist, or a group lacks SMILES or conformations.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give its directory with --data")
    with h5py.File(path, "r") as file:
        for name, group in file.items():
            if "smiles" not in group or "conformations" not in group:
                raise DataError(f"{path}: {name}: has no smiles or no conformations")
            text = group["smiles"][0]
            smiles = text.decode("ascii") if isinstance(text, bytes) else str(text)
            conformations = np.asarray(group["conformations"][:], dtype=np.float64)
            yield _molecule(f"{path.name}:{name}", smiles, conformations * NM_TO_ANGSTROM)


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
    source: SpiceSource, path: Path, excluded: frozenset[str], rng: np.random.Generator
) -> Iterator[Conformation]:
    """Yields conformations of the neutral molecules of allowed elements, each molecule in turn.

    Raises:
        DataError: as `read_spice`, or no molecule of the file is neutral and of these elements.
    """
    molecules = [
        molecule
        for molecule in read_spice(path)
        if molecule.charge == 0
        and set(molecule.atomic_numbers.tolist()) <= set(source.elements)
        and formula(molecule.atomic_numbers) not in excluded
    ]
    if not molecules:
        raise DataError(
            f"{path}: no neutral molecule of the elements {source.elements} that keep_out does not "
            "name; allow more elements or leave the source out"
        )
    orders = [rng.permutation(len(molecule.conformations)) for molecule in molecules]
    for count in range(source.conformations):
        index, turn = count % len(molecules), count // len(molecules)
        molecule = molecules[index]
        row = int(orders[index][turn % len(orders[index])])
        yield _conformation(source, molecule, row, rng)


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
    room = (source.max_atoms - len(solute)) // 3
    wanted = min(int(rng.integers(low, high + 1)), room, len(waters))
    if len(solute):
        return cut_cluster(liquid, positions, solute, wanted)
    return cut_water_cluster(liquid, positions, wanted, rng)
