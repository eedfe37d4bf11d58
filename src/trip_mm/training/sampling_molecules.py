"""Molecules from SMILES: RDKit conformers, displaced, torsions turned, bonds stretched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.rdDistGeom import EmbedMultipleConfs, ETKDGv3
from rdkit.Chem.rdForceFieldHelpers import (
    MMFFHasAllMoleculeParams,
    MMFFOptimizeMoleculeConfs,
)

from trip_mm.elements import formula
from trip_mm.errors import ConfigError
from trip_mm.training.groups import Conformation
from trip_mm.training.sampling_geometry import (
    Bond,
    Positions,
    displaced,
    placed_at_distance,
    shortest_distance,
    stacked_at_distance,
    unlabelled,
    with_bond_scaled,
    with_torsion_turned,
)
from trip_mm.training.sampling_recipe import (
    DiatomicsSource,
    DimerScansSource,
    MoleculesSource,
    PairsSource,
    StretchedBondsSource,
    TwoMoleculesSource,
    WaterScanSource,
)

_SHORTEST_ALLOWED = 0.5
_ATTEMPTS = 20
_MAX_OVERLAPS = 1000


@dataclass(frozen=True)
class Molecule:
    """A molecule with conformers.

    Attributes:
        smiles: as written in the recipe.
        atomic_numbers: of every atom, hydrogens included.
        bonds: pairs of atoms.
        single_bonds: bonds of order one outside rings, both directions.
        rotatable_bonds: single bonds between two atoms that have other neighbours, outside rings.
        conformers: positions in A, each `[n_atoms, 3]`.
        charge: net formal charge in e.
    """

    smiles: str
    atomic_numbers: tuple[int, ...]
    bonds: tuple[Bond, ...]
    single_bonds: tuple[Bond, ...]
    rotatable_bonds: tuple[Bond, ...]
    conformers: tuple[Positions, ...]
    charge: int


def read_smiles(path: Path) -> list[str]:
    """Reads the first column of a file of SMILES; `#` at the start of a line is a comment.

    Raises:
        ConfigError: the file does not exist or holds no SMILES.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of SMILES; write one, a SMILES on each line")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = [line.split()[0] for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"{path}: holds no SMILES; write one on each line")
    return found


def parse_smiles(smiles: str) -> Chem.Mol:
    """Reads a SMILES, without hydrogens that it leaves out.

    Raises:
        ConfigError: it cannot be read.
    """
    with rdBase.BlockLogs():
        parsed = Chem.MolFromSmiles(smiles)
    if parsed is None:
        raise ConfigError(f"SMILES {smiles!r} cannot be read; correct it")
    return parsed


def build_molecule(smiles: str, n_conformers: int, seed: int) -> Molecule:
    """Embeds a molecule with ETKDG and relaxes the conformers with MMFF94.

    Raises:
        ConfigError: the SMILES cannot be read or cannot be embedded.
    """
    mol = Chem.AddHs(parse_smiles(smiles))
    parameters: Any = ETKDGv3()
    parameters.randomSeed = seed % (2**31 - 1)
    if len(EmbedMultipleConfs(mol, n_conformers, parameters)) == 0:
        raise ConfigError(f"SMILES {smiles!r} cannot be embedded in space; leave it out")
    if MMFFHasAllMoleculeParams(mol):
        MMFFOptimizeMoleculeConfs(mol, maxIters=500)
    bonds = tuple((b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds())
    single = [
        (b.GetBeginAtomIdx(), b.GetEndAtomIdx())
        for b in mol.GetBonds()
        if b.GetBondType() == Chem.BondType.SINGLE and not b.IsInRing()
    ]
    degree = [atom.GetDegree() for atom in mol.GetAtoms()]
    return Molecule(
        smiles,
        tuple(atom.GetAtomicNum() for atom in mol.GetAtoms()),
        bonds,
        tuple(single + [(j, i) for i, j in single]),
        tuple((i, j) for i, j in single if degree[i] > 1 and degree[j] > 1),
        tuple(np.asarray(c.GetPositions(), dtype=np.float64) for c in mol.GetConformers()),
        Chem.GetFormalCharge(mol),
    )


def build_molecules(
    source: MoleculesSource | StretchedBondsSource,
    smiles: Sequence[str],
    excluded: frozenset[str],
    rng: np.random.Generator,
) -> list[Molecule]:
    """Builds the molecules whose formula is not among the excluded ones.

    Raises:
        ConfigError: as `build_molecule`, a molecule carries a net charge, or every one is excluded.
    """
    molecules = []
    for text in smiles:
        molecule = build_molecule(text, source.conformers, int(rng.integers(2**31 - 1)))
        if formula(molecule.atomic_numbers) in excluded:
            continue
        if molecule.charge != 0:
            raise ConfigError(
                f"source {source.kind} of class {source.system_class}: SMILES {text!r} carries a "
                f"net charge of {molecule.charge:+d}; labels are those of neutral systems: write "
                "it neutral or as a zwitterion, or put it with its counterion into a source of "
                "kind pairs"
            )
        molecules.append(molecule)
    if not molecules:
        raise ConfigError(
            f"source {source.kind} of class {source.system_class} is empty: every molecule of "
            f"{source.smiles} has a formula of keep_out; add others or leave the source out"
        )
    return molecules


def sample_molecules(
    source: MoleculesSource,
    smiles: Sequence[str],
    excluded: frozenset[str],
    rng: np.random.Generator,
) -> Iterator[Conformation]:
    """Yields displaced conformers, every molecule in turn, some with torsions turned at random.

    Raises:
        ConfigError: as `build_molecules`.
    """
    molecules = build_molecules(source, smiles, excluded, rng)
    for count in range(source.conformations):
        molecule = molecules[count % len(molecules)]
        start = molecule.conformers[int(rng.integers(len(molecule.conformers)))]
        if rng.random() < source.turned_share:
            start = _with_torsions_turned(molecule, start, rng)
        positions = displaced(start, rng.uniform(*source.displacement), rng)
        yield unlabelled(molecule.atomic_numbers, positions, source.system_class, molecule.smiles)


def sample_stretched_bonds(
    source: StretchedBondsSource,
    smiles: Sequence[str],
    excluded: frozenset[str],
    rng: np.random.Generator,
) -> Iterator[Conformation]:
    """Yields conformers with one single bond, or rarely two, stretched or compressed.

    Raises:
        ConfigError: as `build_molecules`, none has a single bond outside rings, or atoms overlap
            whatever is drawn.
    """
    built = build_molecules(source, smiles, excluded, rng)
    molecules = [molecule for molecule in built if molecule.single_bonds]
    if not molecules:
        raise ConfigError(
            f"source {source.kind} of class {source.system_class}: no molecule of {source.smiles} "
            "has a single bond outside rings; add one that has"
        )
    count = 0
    n_overlaps = 0
    while count < source.conformations:
        molecule = molecules[count % len(molecules)]
        positions = molecule.conformers[int(rng.integers(len(molecule.conformers)))]
        for _ in range(2 if rng.random() < source.two_bonds_share else 1):
            bond = molecule.single_bonds[int(rng.integers(len(molecule.single_bonds)))]
            changed = with_bond_scaled(positions, molecule.bonds, bond, rng.uniform(*source.factor))
            positions = positions if changed is None else changed
        positions = displaced(positions, rng.uniform(*source.displacement), rng)
        if shortest_distance(positions) < _SHORTEST_ALLOWED:
            n_overlaps += 1  # the same molecule is tried again
            if n_overlaps == _MAX_OVERLAPS:
                raise ConfigError(
                    f"source {source.kind} of class {source.system_class}: {molecule.smiles}: "
                    f"atoms came closer than {_SHORTEST_ALLOWED} A {n_overlaps} times in a row; "
                    f"choose a milder factor than {list(source.factor)}"
                )
            continue
        count += 1
        n_overlaps = 0
        yield unlabelled(molecule.atomic_numbers, positions, source.system_class, molecule.smiles)


def sample_pairs(source: PairsSource, rng: np.random.Generator) -> Iterator[Conformation]:
    """Yields pairs of molecules at random orientation and uniformly drawn contact distance.

    Raises:
        ConfigError: as `build_molecules_of_pairs`.
    """
    built = build_molecules_of_pairs(source, rng)
    for count in range(source.conformations):
        first, second = (built[name] for name in source.pairs[count % len(source.pairs)])
        distance = rng.uniform(*source.distance)
        positions = placed_at_distance(
            first.conformers[int(rng.integers(len(first.conformers)))],
            second.conformers[int(rng.integers(len(second.conformers)))],
            distance,
            rng,
        )
        positions = displaced(positions, rng.uniform(*source.displacement), rng)
        yield unlabelled(
            first.atomic_numbers + second.atomic_numbers,
            positions,
            source.system_class,
            f"{first.smiles}.{second.smiles}",
        )


def sample_dimer_scans(
    source: DimerScansSource, rng: np.random.Generator
) -> Iterator[Conformation]:
    """Yields pairs, anyhow or stacked, pulled apart along the line of their centres.

    Raises:
        ConfigError: as `build_molecules_of_pairs`.
    """
    built = build_molecules_of_pairs(source, rng)
    for count in range(source.scans):
        first, second = (built[name] for name in source.pairs[count % len(source.pairs)])
        fixed = first.conformers[int(rng.integers(len(first.conformers)))]
        moved = second.conformers[int(rng.integers(len(second.conformers)))]
        # without a share nothing is drawn: the same seed gives what it gave before there was one
        stacked = source.stacked_share > 0.0 and rng.random() < source.stacked_share
        place = stacked_at_distance if stacked else placed_at_distance
        positions = place(fixed, moved, rng.uniform(*source.contact), rng)
        fixed, moved = positions[: len(fixed)], positions[len(fixed) :]
        apart = moved.mean(axis=0) - fixed.mean(axis=0)
        apart /= np.linalg.norm(apart)
        for point in range(source.points):
            yield unlabelled(
                first.atomic_numbers + second.atomic_numbers,
                np.concatenate([fixed, moved + point * source.step * apart]),
                source.system_class,
                f"{first.smiles}.{second.smiles}/{count}",
            )


def build_molecules_of_pairs(
    source: TwoMoleculesSource, rng: np.random.Generator
) -> dict[str, Molecule]:
    """Builds the molecules of the pairs of a source, by SMILES.

    Raises:
        ConfigError: as `build_molecule`, or a pair carries a net charge.
    """
    names = sorted({name for pair in source.pairs for name in pair})
    built = {n: build_molecule(n, source.conformers, int(rng.integers(2**31))) for n in names}
    for pair in source.pairs:
        charge = sum(built[name].charge for name in pair)
        if charge != 0:
            raise ConfigError(
                f"source {source.kind} of class {source.system_class}: pair {list(pair)} carries a "
                f"net charge of {charge:+d}; labels are those of neutral systems: write both "
                "neutral, or give an ion a partner of the opposite charge"
            )
    return built


def sample_diatomics(source: DiatomicsSource) -> Iterator[Conformation]:
    """Yields every pair of the elements at equally spaced distances."""
    start, stop = source.distance
    n_steps = round((stop - start) / source.step)
    for index, first in enumerate(source.elements):
        for second in source.elements[index:]:
            for distance in start + source.step * np.arange(n_steps + 1):
                positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
                yield unlabelled(
                    [first, second], positions, source.system_class, f"{first}-{second}"
                )


def sample_water_scan(source: WaterScanSource, rng: np.random.Generator) -> Iterator[Conformation]:
    """Yields single waters with both O-H lengths and the angle drawn uniformly."""
    for _ in range(source.conformations):
        lengths = rng.uniform(*source.distance, size=2)
        angle = np.deg2rad(rng.uniform(*source.angle))
        directions = np.array([[1.0, 0.0, 0.0], [np.cos(angle), np.sin(angle), 0.0]])
        positions = np.concatenate([np.zeros((1, 3)), directions * lengths[:, None]])
        yield unlabelled([8, 1, 1], positions, source.system_class, "water-scan")


def _with_torsions_turned(
    molecule: Molecule, positions: Positions, rng: np.random.Generator
) -> Positions:
    """Turns every rotatable bond at random; keeps the start if atoms always overlap."""
    for _ in range(_ATTEMPTS):
        turned = positions
        for bond in molecule.rotatable_bonds:
            changed = with_torsion_turned(turned, molecule.bonds, bond, rng.uniform(-np.pi, np.pi))
            turned = turned if changed is None else changed
        if shortest_distance(turned) > 0.9:
            return turned
    return positions
