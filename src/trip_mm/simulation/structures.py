"""A solute from a PDB or mmCIF file: what is missing is added, what cannot be known is refused."""

import io
import itertools
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from pdbfixer import PDBFixer

from trip_mm.errors import UnsupportedSystemError
from trip_mm.simulation.bonds import bond_bridges, long_bonds, made_whole
from trip_mm.simulation.file_box import box_of, refuse_symmetry
from trip_mm.simulation.solute import (
    AMINO_ACID_NAMES,
    CAP_NAMES,
    ION_CHARGES,
    WATER_NAMES,
    FloatArray,
    Solute,
    add_hydrogens,
    positions_nm,
)
from trip_mm.units import ANGSTROM_TO_NM

_KNOWN_RESIDUES = AMINO_ACID_NAMES | CAP_NAMES | WATER_NAMES | set(ION_CHARGES)
_OTHER_NAMES = {
    "HSE": "call it HIS: its HE2 stays, and up to pH 6.5 HD1 is added",
    "LYN": "call it LYS: its two HZ stay, and up to pH 10 a third is added, with a charge",
    "CYM": "call it CYS: up to pH 8.5 HG is added, above that it stays charged",
}
"""Protonation states that OpenMM does not know by name, and what happens to their hydrogens."""

_LONGEST_PEPTIDE_BOND_NM = 2.0 * ANGSTROM_TO_NM
_PERHAPS_BROKEN = (
    "; if the molecule is only broken across a periodic box, make it whole, or give the file that "
    "box (CRYST1)"
)
_WATER_HYDROGENS = 2
_PEPTIDE_ENDS = ("N", "C")
_FEWEST_BONDS = 3
"""Of the N and C of amino acids and caps, with hydrogens."""

_logger = logging.getLogger("trip_mm")


def build_from_file(path: Path, ph: float, seed: int, keeps_box: bool) -> Solute:
    """Reads a PDB or mmCIF file, adds missing heavy atoms of residues and hydrogens at a pH.

    Molecules that are broken across the box of the file are made whole. Heavy atoms that had to be
    added are named in a warning of the log and in the result.

    Args:
        path: the file.
        ph: decides the protonation.
        seed: of the positions that are modelled.
        keeps_box: whether the box of the file is that of the system; a solvent brings its own.

    Raises:
        UnsupportedSystemError: unreadable, a box that symmetry fills, residues missing from the
            chain, residues that are no amino acids, caps, water or ions, atoms that a residue or
            water does not have, bonds that are too long, or ends of a peptide that lack an atom;
            the message names them.
    """
    where = f"structure.file: {path.name}"
    fixer = _read(path, where)
    box = box_of(fixer.topology)
    if keeps_box and box is not None:
        refuse_symmetry(path, where)
    _name_water_atoms(fixer.topology)
    _refuse_unknown_residues(fixer.topology, where)
    if box is not None:
        _make_whole(fixer, box)
    _refuse_missing_residues(fixer, where)
    fixer.findMissingAtoms()
    _remove_orphans(fixer)
    added = _missing_atoms(fixer)
    if added:
        _logger.warning("%s lacks heavy atoms, which are added: %s", where, "; ".join(added))
    fixer.addMissingAtoms(seed=seed)
    _refuse_unknown_atoms(fixer.topology, where)
    _refuse_long_bonds(fixer.topology, positions_nm(fixer.positions), where)
    built = add_hydrogens(fixer.topology, positions_nm(fixer.positions), ph, seed)
    _refuse_unknown_water(built.topology, where)
    _refuse_open_ends(built.topology, where)
    return replace(built, box_vectors=box if keeps_box else None, added_atoms=added)


def _read(path: Path, where: str) -> PDBFixer:
    try:
        text = path.read_text()
        if not any(line.startswith(("ATOM", "HETATM")) for line in text.splitlines()):
            raise UnsupportedSystemError(
                f"{where} holds no ATOM or HETATM record; give a PDB or mmCIF file with coordinates"
            )
        if path.suffix.lower() == ".pdb":
            fixer = PDBFixer(pdbfile=io.StringIO(text))
        else:
            fixer = PDBFixer(pdbxfile=io.StringIO(text))
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UnsupportedSystemError(
            f"{where} cannot be read: {error}; correct the file"
        ) from error
    if fixer.topology.getNumAtoms() == 0:
        raise UnsupportedSystemError(f"{where} holds no atoms; correct the file")
    return fixer


def _name_water_atoms(topology: app.Topology) -> None:
    """Names the atoms of waters O, H1, H2 and bonds them, whatever names the file has for them.

    A water has one oxygen and at most two hydrogens, which are the same; others are left alone.
    """
    bonded = {frozenset(bond) for bond in topology.bonds()}
    for residue in topology.residues():
        atoms = list(residue.atoms())
        oxygens = [atom for atom in atoms if atom.element is app.element.oxygen]
        hydrogens = [atom for atom in atoms if atom.element is app.element.hydrogen]
        if (
            residue.name not in WATER_NAMES
            or len(oxygens) != 1
            or len(hydrogens) != len(atoms) - 1
            or len(hydrogens) > _WATER_HYDROGENS
        ):
            continue
        oxygens[0].name = "O"
        for number, hydrogen in enumerate(hydrogens, start=1):
            hydrogen.name = f"H{number}"
            if frozenset((oxygens[0], hydrogen)) not in bonded:
                topology.addBond(oxygens[0], hydrogen)


def _make_whole(fixer: PDBFixer, box: FloatArray) -> None:
    """Undoes what wrapping into the box did to molecules."""
    positions = positions_nm(fixer.positions)
    bond_bridges(fixer.topology, positions, box)
    whole = made_whole(fixer.topology, positions, box)
    fixer.positions = [openmm.Vec3(*position) for position in whole.tolist()] * unit.nanometer


def _remove_orphans(fixer: PDBFixer) -> None:
    """Removes hydrogens whose heavy atom is missing, for that is modelled where they are not."""
    bonded = {atom for bond in fixer.topology.bonds() for atom in bond}
    orphans = [
        atom
        for residue in fixer.missingAtoms
        for atom in residue.atoms()
        if atom.element is app.element.hydrogen and atom not in bonded
    ]
    if orphans:
        modeller = app.Modeller(fixer.topology, fixer.positions)
        modeller.delete(orphans)
        fixer.topology, fixer.positions = modeller.topology, modeller.positions
        fixer.findMissingAtoms()


def _refuse_long_bonds(topology: app.Topology, positions: FloatArray, where: str) -> None:
    found = long_bonds(topology, positions)
    if found:
        first, second, distance = found[0]
        raise UnsupportedSystemError(
            f"{where}: {_atom_label(first)} and {_atom_label(second)} are bonded and "
            f"{distance / ANGSTROM_TO_NM:.1f} A apart"
            + (f" (and {len(found) - 1} more such bonds)" if len(found) > 1 else "")
            + f"; correct the coordinates{'' if _has_box(topology) else _PERHAPS_BROKEN}"
        )


def _has_box(topology: app.Topology) -> bool:
    return box_of(topology) is not None


def _missing_atoms(fixer: PDBFixer) -> tuple[str, ...]:
    """Names the heavy atoms that the file lacks, residue by residue."""
    added = [
        f"{', '.join(atom.name for atom in atoms)} of {_residue_label(residue)}"
        for residue, atoms in fixer.missingAtoms.items()
    ]
    added += [
        f"{', '.join(names)} of {_residue_label(residue)}"
        for residue, names in fixer.missingTerminals.items()
    ]
    return tuple(added)


def _refuse_unknown_atoms(topology: app.Topology, where: str) -> None:
    """Refuses atoms without a bond in residues that are complete: no atom of it has their name."""
    bonded = {atom.index for bond in topology.bonds() for atom in bond}
    unknown = [
        atom
        for residue in topology.residues()
        if residue.name in AMINO_ACID_NAMES | CAP_NAMES
        for atom in residue.atoms()
        if atom.index not in bonded
    ]
    if unknown:
        raise UnsupportedSystemError(
            f"{where}: {_residue_label(unknown[0].residue)} has no atom named {unknown[0].name}"
            + (f" (and {len(unknown) - 1} more such atoms)" if len(unknown) > 1 else "")
            + "; give it its PDB name, or remove it (hydrogens are added anyway)"
        )


def _refuse_unknown_water(topology: app.Topology, where: str) -> None:
    """Refuses waters with atoms that stay without a bond, once hydrogens are there."""
    bonded = {atom.index for bond in topology.bonds() for atom in bond}
    for residue in topology.residues():
        if residue.name not in WATER_NAMES:
            continue
        lone = [atom.name for atom in residue.atoms() if atom.index not in bonded]
        if lone:
            raise UnsupportedSystemError(
                f"{where}: {_residue_label(residue)} is called a water and has atoms without a "
                f"bond: {', '.join(lone)}; a water is one O and at most two H: remove what is more "
                "(the extra sites of four-point models, too), add an O that is missing"
            )


def _refuse_open_ends(topology: app.Topology, where: str) -> None:
    """Refuses peptide N and C with too few bonds, once hydrogens are there.

    PDBFixer and OpenMM complete the first and the last residue of a chain only. Where water or an
    ion stands in the chain before or behind a peptide, its end would stay a radical or an ion.
    """
    neighbours: dict[app.topology.Atom, list[str]] = {}
    for first, second in topology.bonds():
        neighbours.setdefault(first, []).append(second.name)
        neighbours.setdefault(second, []).append(first.name)
    for atom in topology.atoms():
        bonded = neighbours.get(atom, [])
        if (
            atom.name in _PEPTIDE_ENDS
            and atom.residue.name in AMINO_ACID_NAMES | CAP_NAMES
            and len(bonded) < _FEWEST_BONDS
        ):
            side = "before" if atom.name == "N" else "after"
            raise UnsupportedSystemError(
                f"{where}: {atom.name} of {_residue_label(atom.residue)} is bonded to "
                f"{' and '.join(bonded)} only; if the chain ends there, put a TER record {side} it "
                "and its end is completed, else add the residue or cap that is missing"
            )


def _atom_label(atom: app.topology.Atom) -> str:
    return f"{atom.name} of {_residue_label(atom.residue)}"


def _residue_label(residue: app.topology.Residue) -> str:
    return f"{residue.name} {residue.id} of chain {residue.chain.id}"


def _refuse_unknown_residues(topology: app.Topology, where: str) -> None:
    unknown = [r for r in topology.residues() if r.name not in _KNOWN_RESIDUES]
    if unknown:
        advice = _OTHER_NAMES.get(
            unknown[0].name, "remove it, or give a small molecule as SDF or SMILES"
        )
        raise UnsupportedSystemError(
            f"{where}: {_residue_label(unknown[0])} is no amino acid, cap, water or ion that is "
            f"known by this name{f' (and {len(unknown) - 1} more)' if len(unknown) > 1 else ''}; "
            f"{advice}"
        )


def _refuse_missing_residues(fixer: PDBFixer, where: str) -> None:
    fixer.findMissingResidues()
    chains = list(fixer.topology.chains())
    gaps = [
        f"{'-'.join(names)} in chain {chains[chain].id} before its residue number {position + 1}"
        for (chain, position), names in sorted(fixer.missingResidues.items())
    ]
    positions = positions_nm(fixer.positions)
    breaks = [gap for chain in chains for gap in _chain_breaks(chain, positions)]
    if gaps or breaks:
        perhaps = _PERHAPS_BROKEN if breaks and not _has_box(fixer.topology) else ""
        raise UnsupportedSystemError(
            f"{where}: residues are missing: {'; '.join(gaps + breaks)}; model them first, or cut "
            f"the file to a complete chain (and its SEQRES records){perhaps}"
        )


def _chain_breaks(chain: app.topology.Chain, positions: FloatArray) -> list[str]:
    """Finds neighbours in a chain whose C and N are too far apart to be bonded."""
    breaks = []
    residues = [r for r in chain.residues() if r.name in AMINO_ACID_NAMES | CAP_NAMES]
    for first, second in itertools.pairwise(residues):
        carbon = next((a.index for a in first.atoms() if a.name == "C"), None)
        nitrogen = next((a.index for a in second.atoms() if a.name == "N"), None)
        if carbon is None or nitrogen is None:
            continue
        distance = float(np.linalg.norm(positions[carbon] - positions[nitrogen]))
        if distance > _LONGEST_PEPTIDE_BOND_NM:
            breaks.append(
                f"between {_residue_label(first)} and {_residue_label(second)} "
                f"(C-N {distance / ANGSTROM_TO_NM:.1f} A)"
            )
    return breaks
