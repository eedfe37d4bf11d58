"""Backbone torsions phi and psi of every residue of a trajectory.

phi of residue i is the torsion C(i-1)-N(i)-CA(i)-C(i), psi is N(i)-CA(i)-C(i)-N(i+1), both by the
IUPAC sign convention, in degrees. A residue counts when it has both: in zwitterionic trialanine
only the middle one does.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import MDAnalysis
import numpy as np
from MDAnalysis.coordinates.timestep import Timestep
from MDAnalysis.lib.distances import capped_distance
from MDAnalysis.lib.mdamath import triclinic_vectors
from numpy.typing import NDArray
from openmm import app

from trip_mm.analysis.states import StateSet
from trip_mm.analysis.statistics import TorsionStatistics, torsion_statistics
from trip_mm.errors import DataError

PEPTIDE_BOND_MAX = 2.0
"""C-N distances below this, in A, are peptide bonds (1.33 A in a relaxed one)."""


READING_ERRORS = (OSError, ValueError, IndexError, KeyError, EOFError, TypeError, StopIteration)
"""What MDAnalysis and OpenMM raise for files that are not what their names say."""


class NoBackboneTorsionsError(DataError):
    """No residue of the structure has both phi and psi: there is nothing to analyse."""


@dataclass(frozen=True)
class RamachandranResult:
    """phi and psi of every residue that has both, frame by frame.

    Attributes:
        residues: residue names with numbers such as `ALA2`, `[n_residues]`; the chain is put before
            them (`A:ALA2`) only where two residues would share a name.
        times_ps: `[n_frames]`, time of each frame in ps, as the trajectory has it.
        phi_deg: `[n_frames, n_residues]`, degrees, -180 to 180.
        psi_deg: `[n_frames, n_residues]`, degrees, -180 to 180.
        topology: the structure file that named the atoms.
        trajectory: the trajectory file.
    """

    residues: tuple[str, ...]
    times_ps: NDArray[np.float64]
    phi_deg: NDArray[np.float64]
    psi_deg: NDArray[np.float64]
    topology: Path
    trajectory: Path

    @property
    def n_frames(self) -> int:
        """Number of frames read."""
        return len(self.times_ps)

    @property
    def extent(self) -> str:
        """Number of frames and the time they span, for people."""
        times = " to ".join(f"{time:.6g}" for time in self.times_ps[[0, -1]])
        return f"{self.n_frames:,} frames, {times} ps"

    def pooled_statistics(self, states: StateSet) -> TorsionStatistics:
        """Returns the statistics of all residues together."""
        return torsion_statistics(self.phi_deg, self.psi_deg, states)

    def residue_statistics(self, states: StateSet) -> dict[str, TorsionStatistics]:
        """Returns the statistics of each residue by its name."""
        return {
            name: torsion_statistics(self.phi_deg[:, index], self.psi_deg[:, index], states)
            for index, name in enumerate(self.residues)
        }


def ramachandran(topology_path: str | Path, trajectory_path: str | Path) -> RamachandranResult:
    """Computes phi and psi of every residue that has both, in every frame.

    Molecules may be wrapped into the periodic cell atom by atom, orthorhombic or triclinic: bond
    vectors follow the minimum image.

    Args:
        topology_path: structure file that MDAnalysis reads (PDB, GRO, ...), or mmCIF.
        trajectory_path: trajectory that MDAnalysis reads (XTC, DCD, ...). A last frame that was cut
            off while being written is left out.

    Raises:
        DataError: a file is missing, unreadable or empty, or the two do not have the same atoms.
        NoBackboneTorsionsError: no residue has both torsions.
    """
    topology, trajectory = Path(topology_path), Path(trajectory_path)
    universe = open_trajectory(topology, trajectory)
    residues, phi_atoms, psi_atoms = _backbone_torsions(universe, topology)
    times: list[float] = []
    phi: list[NDArray[np.float64]] = []
    psi: list[NDArray[np.float64]] = []
    for frame in whole_frames(universe, trajectory):
        cell = lattice_vectors(frame.dimensions)
        times.append(float(frame.time))
        phi.append(_torsions(frame.positions, phi_atoms, cell))
        psi.append(_torsions(frame.positions, psi_atoms, cell))
    return RamachandranResult(
        residues, np.asarray(times), np.stack(phi), np.stack(psi), topology, trajectory
    )


def whole_frames(universe: MDAnalysis.Universe, trajectory: Path) -> Iterator[Timestep]:
    """Yields the frames of an open trajectory; a last one that was cut off is left out.

    Raises:
        DataError: a frame before the last cannot be read. MDAnalysis itself stops there silently.
    """
    n_frames, count = universe.trajectory.n_frames, 0
    for frame in universe.trajectory:
        yield frame
        count += 1
    if count < n_frames - 1:
        raise DataError(
            f"{trajectory}: frame {count + 1} of {n_frames} cannot be read; the file is damaged in "
            "the middle"
        )


def open_trajectory(topology: Path, trajectory: Path) -> MDAnalysis.Universe:
    """Opens a structure with its trajectory.

    Raises:
        DataError: a file is missing, unreadable or empty, or the two do not have the same atoms.
    """
    for path in (topology, trajectory):
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty; no frame was written yet")
    with warnings.catch_warnings():
        # MDAnalysis warns about every column that a PDB file leaves out.
        warnings.simplefilter("ignore", UserWarning)
        try:
            structure = _structure(topology)
            n_atoms = len(MDAnalysis.Universe(structure).atoms)
        except READING_ERRORS as error:
            raise DataError(f"{topology}: cannot be read as a structure: {error}") from error
        if n_atoms == 0:
            raise DataError(f"{topology}: the file holds no atoms")
        try:
            universe = MDAnalysis.Universe(structure, str(trajectory))
        except READING_ERRORS as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{trajectory}: cannot be read with the {n_atoms} atoms of {topology}: {reason}"
            ) from error
    if universe.trajectory.n_frames == 0:
        raise DataError(f"{trajectory}: the trajectory has no frames")
    return universe


def _structure(topology: Path) -> str | app.PDBxFile:
    """Returns what MDAnalysis takes as topology; OpenMM reads mmCIF for it."""
    if topology.suffix.lower() in {".cif", ".mmcif"}:
        return app.PDBxFile(str(topology))
    return str(topology)


def lattice_vectors(dimensions: NDArray[np.float32] | None) -> NDArray[np.float64] | None:
    """Returns the lattice vectors in A as rows, `[3, 3]`, or None for an open system.

    Args:
        dimensions: lengths in A and angles in degrees, as MDAnalysis keeps them.
    """
    if dimensions is None or not np.all(dimensions[:3] > 0):
        return None
    cell: NDArray[np.float64] = triclinic_vectors(dimensions).astype(np.float64)
    return cell


def _torsions(
    positions: NDArray[np.float32], quadruples: NDArray[np.int64], cell: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Returns the torsions in degrees, `[n_torsions]`, of atom quadruples `[n_torsions, 4]`.

    Bonds are the shortest images. For a bond shorter than half the shortest cell height every
    fractional component is below 1/2, so that rounding finds it in any cell, from any image.
    """
    points = positions[quadruples].astype(np.float64)  # [n_torsions, 4, 3]
    bonds = np.diff(points, axis=1)  # [n_torsions, 3, 3]
    if cell is not None:
        bonds -= np.rint(bonds @ np.linalg.inv(cell)) @ cell
    before, axis, after = bonds[:, 0], bonds[:, 1], bonds[:, 2]
    first_normal, second_normal = np.cross(before, axis), np.cross(axis, after)
    sine = np.linalg.norm(axis, axis=-1) * (before * second_normal).sum(axis=-1)
    cosine = (first_normal * second_normal).sum(axis=-1)
    degrees: NDArray[np.float64] = np.degrees(np.arctan2(sine, cosine))
    return degrees


def _peptide_bonds(
    carbons: MDAnalysis.AtomGroup, nitrogens: MDAnalysis.AtomGroup
) -> list[tuple[int, int]]:
    """Returns the atom indices (C, N) of bonds between residues in the current frame."""
    if len(carbons) == 0 or len(nitrogens) == 0:
        return []
    dimensions = carbons.dimensions
    cell = lattice_vectors(dimensions)
    ends = [carbons.positions.astype(np.float64), nitrogens.positions.astype(np.float64)]
    if cell is not None:
        fractional = [positions @ np.linalg.inv(cell) for positions in ends]
        ends = [(f - np.floor(f)) @ cell for f in fractional]
    pairs = capped_distance(
        *(positions.astype(np.float32) for positions in ends),
        max_cutoff=PEPTIDE_BOND_MAX,
        box=None if cell is None else dimensions,
        return_distances=False,
    )
    atoms = [(carbons[first], nitrogens[second]) for first, second in pairs]
    return [(c.index, n.index) for c, n in atoms if c.resindex != n.resindex]


def _backbone_torsions(
    universe: MDAnalysis.Universe, topology: Path
) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Finds the residues with both torsions and the atoms of each, `[n_residues, 4]` twice.

    Neighbours in the chain are found by their C-N bond in the first frame, not by numbering:
    insertion codes, chain breaks, caps and cyclic peptides come out right. Of alternate locations
    the first one of each residue counts.
    """
    atoms = first_locations(universe.atoms)
    counted = set(atoms.indices.tolist())
    bonds = _peptide_bonds(atoms[atoms.names == "C"], atoms[atoms.names == "N"])
    previous_carbon = {nitrogen: carbon for carbon, nitrogen in bonds}
    next_nitrogen = dict(bonds)
    residues, phi_atoms, psi_atoms = [], [], []
    for alpha in atoms[atoms.names == "CA"]:
        members = {a.name: a.index for a in alpha.residue.atoms if a.index in counted}
        nitrogen, carbon = members.get("N"), members.get("C")
        if nitrogen in previous_carbon and carbon in next_nitrogen:
            residues.append(alpha.residue)
            phi_atoms.append((previous_carbon[nitrogen], nitrogen, alpha.index, carbon))
            psi_atoms.append((nitrogen, alpha.index, carbon, next_nitrogen[carbon]))
    if not residues:
        raise NoBackboneTorsionsError(
            f"{topology}: no residue has both phi and psi; a residue needs atoms named N, CA and C "
            "between two peptide bonds (zwitterionic dialanine, water and ligands have none)"
        )
    return _residue_names(residues), np.asarray(phi_atoms), np.asarray(psi_atoms)


def first_locations(atoms: MDAnalysis.AtomGroup) -> MDAnalysis.AtomGroup:
    """Returns the atoms without alternate locations but the first of each residue."""
    codes = getattr(atoms, "altLocs", None)
    if codes is None:
        return atoms
    kept = np.ones(len(atoms), dtype=bool)
    first: dict[tuple[str, int, str], str] = {}
    for index in np.flatnonzero(codes != ""):
        residue = atoms[index].residue
        # Not the residue itself: residues that share a place differ in name alone.
        place = (residue.segid, residue.resid, _insertion_code(residue))
        kept[index] = first.setdefault(place, codes[index]) == codes[index]
    return atoms[kept]


def _residue_names(residues: list[MDAnalysis.core.groups.Residue]) -> tuple[str, ...]:
    short = [f"{residue.resname}{residue.resid}{_insertion_code(residue)}" for residue in residues]
    if len(set(short)) == len(short):
        return tuple(short)
    long = [
        f"{residue.segid or 'chain'}:{name}" for residue, name in zip(residues, short, strict=True)
    ]
    if len(set(long)) == len(long):
        return tuple(long)
    return tuple(f"{name}#{residue.resindex}" for residue, name in zip(residues, long, strict=True))


def _insertion_code(residue: MDAnalysis.core.groups.Residue) -> str:
    return str(getattr(residue, "icode", "")).strip()
