"""Liquids for sampling: solvated peptides and water boxes under Amber14/TIP3P-FB in OpenMM.

The dynamics only has to visit geometries that a real liquid visits; it is run with rigid water,
constrained X-H bonds and heavy hydrogens at 4 fs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit
from rdkit import Chem
from rdkit.Chem.rdDistGeom import EmbedMolecule
from rdkit.Chem.rdForceFieldHelpers import MMFFOptimizeMolecule

from trip_mm.errors import ConfigError
from trip_mm.training.sampling_geometry import Positions
from trip_mm.units import ANGSTROM_TO_NM, NM_TO_ANGSTROM

_FORCE_FIELD = ("amber14/protein.ff14SB.xml", "amber14/tip3pfb.xml")
_TIMESTEP_FS = 4.0
_HYDROGEN_MASS = 3.0
_NONBONDED_CUTOFF_NM = 0.8

# Atoms of each residue in the order of the SMILES, first the nitrogen, last the carbonyl.
_RESIDUES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ACE": ("CC(=O)", ("CH3", "C", "O")),
    "NME": ("NC", ("N", "C")),
    "GLY": ("NCC(=O)", ("N", "CA", "C", "O")),
    "ALA": ("N[C@@H](C)C(=O)", ("N", "CA", "CB", "C", "O")),
    "SER": ("N[C@@H](CO)C(=O)", ("N", "CA", "CB", "OG", "C", "O")),
    "THR": ("N[C@@H]([C@H](O)C)C(=O)", ("N", "CA", "CB", "OG1", "CG2", "C", "O")),
    "VAL": ("N[C@@H](C(C)C)C(=O)", ("N", "CA", "CB", "CG1", "CG2", "C", "O")),
    "LEU": ("N[C@@H](CC(C)C)C(=O)", ("N", "CA", "CB", "CG", "CD1", "CD2", "C", "O")),
    "ILE": ("N[C@@H]([C@H](CC)C)C(=O)", ("N", "CA", "CB", "CG1", "CD1", "CG2", "C", "O")),
    "PRO": ("N1[C@@H](CCC1)C(=O)", ("N", "CA", "CB", "CG", "CD", "C", "O")),
    "ASN": ("N[C@@H](CC(=O)N)C(=O)", ("N", "CA", "CB", "CG", "OD1", "ND2", "C", "O")),
    "GLN": ("N[C@@H](CCC(=O)N)C(=O)", ("N", "CA", "CB", "CG", "CD", "OE1", "NE2", "C", "O")),
    "PHE": (
        "N[C@@H](Cc1ccccc1)C(=O)",
        ("N", "CA", "CB", "CG", "CD1", "CE1", "CZ", "CE2", "CD2", "C", "O"),
    ),
    "TYR": (
        "N[C@@H](Cc1ccc(O)cc1)C(=O)",
        ("N", "CA", "CB", "CG", "CD1", "CE1", "CZ", "OH", "CE2", "CD2", "C", "O"),
    ),
}


class DynamicsSettings(Protocol):
    """What `dynamics` reads from a source of the recipe."""

    @property
    def snapshots(self) -> int: ...  # noqa: D102

    @property
    def interval_ps(self) -> float: ...  # noqa: D102

    @property
    def equilibration_ps(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Liquid:
    """A liquid in a periodic cell, or in none.

    Attributes:
        topology: OpenMM topology.
        start: A, `[n_atoms, 3]`.
        atomic_numbers: `[n_atoms]`.
        solute: atoms that are not water, `[n_solute]`.
        waters: O, H, H of each water, `[n_waters, 3]`.
        cell: A, rows are lattice vectors in OpenMM's reduced form, `[3, 3]`; None without
            periodicity.
    """

    topology: Any
    start: Positions
    atomic_numbers: NDArray[np.int64]
    solute: NDArray[np.int64]
    waters: NDArray[np.int64]
    cell: Positions | None


def check_sequence(sequence: str) -> list[str]:
    """Returns the residues of a peptide.

    Args:
        sequence: such as `ALA-ALA-ALA` or `ACE-GLY-NME`.

    Raises:
        ConfigError: a residue is unknown or alone, or a cap is not at its end.
    """
    names = sequence.split("-")
    unknown = [name for name in names if name not in _RESIDUES]
    if unknown:
        raise ConfigError(
            f"peptide {sequence!r}: residue {unknown[0]!r} is unknown; use {', '.join(_RESIDUES)}"
        )
    if len(names) < 2 or "ACE" in names[1:] or "NME" in names[:-1]:
        raise ConfigError(
            f"peptide {sequence!r}: Amber14 knows chains of two residues or more, with ACE only "
            "first and NME only last; write other molecules as SMILES in a source of kind "
            "molecules or pairs"
        )
    return names


def build_peptide(sequence: str, seed: int) -> tuple[app.Topology, Positions]:
    """Builds a peptide from residues joined by hyphens, extended as ETKDG makes it.

    A chain that does not start with ACE gets an ammonium group, one that does not end with NME a
    carboxylate.

    Args:
        sequence: such as `ALA-ALA-ALA` or `ACE-GLY-NME`.
        seed: of the embedding.

    Returns:
        Topology and positions in A, `[n_atoms, 3]`.

    Raises:
        ConfigError: a residue is unknown or alone, a cap is not at its end, or the peptide cannot
            be embedded.
    """
    names = check_sequence(sequence)
    zwitterion_start, zwitterion_end = names[0] != "ACE", names[-1] != "NME"
    smiles = "".join(_RESIDUES[name][0] for name in names) + ("[O-]" if zwitterion_end else "")
    labels = [(i, atom) for i, name in enumerate(names) for atom in _RESIDUES[name][1]]
    if zwitterion_end:
        labels.append((len(names) - 1, "OXT"))
    heavy = Chem.MolFromSmiles(smiles)
    if zwitterion_start:
        heavy.GetAtomWithIdx(0).SetFormalCharge(1)
        heavy.UpdatePropertyCache()
    mol = Chem.AddHs(heavy)
    if EmbedMolecule(mol, randomSeed=seed % (2**31 - 1)) != 0:
        raise ConfigError(f"peptide {sequence!r} cannot be embedded in space; shorten it")
    MMFFOptimizeMolecule(mol, maxIters=500)
    return _topology(mol, names, labels)


def _topology(
    mol: Any, names: list[str], labels: list[tuple[int, str]]
) -> tuple[app.Topology, Positions]:
    topology = app.Topology()
    chain = topology.addChain()
    coordinates = mol.GetConformer().GetPositions()
    atoms: dict[int, Any] = {}
    order: list[int] = []
    for number, name in enumerate(names):
        residue = topology.addResidue(name, chain)
        for index, atom in enumerate(mol.GetAtoms()):
            is_hydrogen = atom.GetAtomicNum() == 1
            owner = atom.GetNeighbors()[0].GetIdx() if is_hydrogen else index
            if labels[owner][0] != number:
                continue
            label = f"H{len(order)}" if is_hydrogen else labels[owner][1]
            element = app.Element.getByAtomicNumber(atom.GetAtomicNum())
            atoms[index] = topology.addAtom(label, element, residue)
            order.append(index)
    for bond in mol.GetBonds():
        topology.addBond(atoms[bond.GetBeginAtomIdx()], atoms[bond.GetEndAtomIdx()])
    return topology, np.asarray(coordinates[order], dtype=np.float64)


def build_solvated_peptide(sequence: str, padding_nm: float, seed: int) -> Liquid:
    """Builds a peptide in a cubic box of water that leaves at least `padding_nm` on every side.

    Raises:
        ConfigError: as `build_peptide`.
    """
    topology, positions = build_peptide(sequence, seed)
    edge = float(np.ptp(positions, axis=0).max()) * ANGSTROM_TO_NM + 2 * padding_nm
    return _solvated(topology, positions, max(edge, 2.0 * _NONBONDED_CUTOFF_NM + 0.1))


def build_water_box(edge_nm: float, seed: int) -> Liquid:
    """Builds a cubic box of water; the seed turns it so that no two boxes start alike."""
    liquid = _solvated(app.Topology(), np.zeros((0, 3)), edge_nm)
    axes = np.random.default_rng(seed).permutation(3)
    return replace(liquid, start=liquid.start[:, axes])


def _solvated(topology: app.Topology, positions: Positions, edge_nm: float) -> Liquid:
    quantity = [openmm.Vec3(*row) for row in positions * ANGSTROM_TO_NM] * unit.nanometer
    modeller = app.Modeller(topology, quantity)
    modeller.addSolvent(
        app.ForceField(*_FORCE_FIELD),
        model="tip3p",
        boxSize=openmm.Vec3(edge_nm, edge_nm, edge_nm) * unit.nanometer,
        neutralize=False,
    )
    atoms = list(modeller.topology.atoms())
    waters = [
        [atom.index for atom in residue.atoms()]
        for residue in modeller.topology.residues()
        if residue.name == "HOH"
    ]
    placed = np.asarray(modeller.positions.value_in_unit(unit.nanometer), dtype=np.float64)
    return Liquid(
        modeller.topology,
        placed * NM_TO_ANGSTROM,
        np.asarray([atom.element.atomic_number for atom in atoms], dtype=np.int64),
        np.asarray([a.index for a in atoms if a.residue.name != "HOH"], dtype=np.int64),
        np.asarray(waters, dtype=np.int64).reshape(-1, 3),
        np.eye(3) * edge_nm * NM_TO_ANGSTROM,
    )


def dynamics(
    liquid: Liquid, settings: DynamicsSettings, temperature: float, seed: int
) -> Iterator[Positions]:
    """Runs Langevin dynamics at constant volume and yields snapshots in A, molecules whole.

    Args:
        liquid: where to start.
        settings: number of snapshots, interval and equilibration in ps.
        temperature: K.
        seed: of velocities and friction.
    """
    system = app.ForceField(*_FORCE_FIELD).createSystem(
        liquid.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=_NONBONDED_CUTOFF_NM * unit.nanometer,
        constraints=app.HBonds,
        rigidWater=True,
        hydrogenMass=_HYDROGEN_MASS * unit.dalton,
    )
    integrator = openmm.LangevinMiddleIntegrator(
        temperature * unit.kelvin, 2.0 / unit.picosecond, _TIMESTEP_FS * unit.femtosecond
    )
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("CPU")
    options = {"Threads": "1", "DeterministicForces": "true"}
    simulation = app.Simulation(liquid.topology, system, integrator, platform, options)
    simulation.context.setPositions(liquid.start * ANGSTROM_TO_NM)
    simulation.minimizeEnergy(maxIterations=100)
    simulation.context.setVelocitiesToTemperature(temperature * unit.kelvin, seed)
    simulation.step(_n_steps(settings.equilibration_ps))
    for _ in range(settings.snapshots):
        simulation.step(_n_steps(settings.interval_ps))
        state = simulation.context.getState(getPositions=True)
        nanometers = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        yield np.asarray(nanometers, dtype=np.float64) * NM_TO_ANGSTROM


def _n_steps(duration_ps: float) -> int:
    return round(duration_ps * 1000.0 / _TIMESTEP_FS)
