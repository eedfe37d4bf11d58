"""Relaxed torsion scans whose grid points, and whose molecules, relax together in batches.

First round: every grid angle starts from the given geometry, turned, and from further conformers if
they are asked for. Later rounds are those of `wavefront`: an angle whose energy fell hands its
geometry to both neighbours, which start from it again. A start that differs from a geometry already
relaxed at its angle by nothing but thermal wiggles would fall back into it and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trip_mm.geometry.batch_evaluation import BatchEvaluator, bind_batch
from trip_mm.geometry.batched import DEFAULT_CAPACITY, BatchRelaxer, Outcome, Start
from trip_mm.geometry.conformers import embed_conformers
from trip_mm.geometry.dihedral import set_dihedral
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.potentials import PotentialSpec
from trip_mm.geometry.relax import HeldDihedral
from trip_mm.geometry.superposition import largest_distance
from trip_mm.torsion.dihedrals import Dihedral
from trip_mm.torsion.scan import (
    WAVEFRONT_THRESHOLD_EV,
    Attempt,
    Journal,
    Scan,
    collect,
    recorded_attempt,
)

BATCHED = "batched"
"""Name of the strategy."""

SAME_BASIN_ANGSTROM = 0.3
"""A start whose atoms all lie this close to a relaxed geometry's belongs to the same minimum."""


@dataclass
class BatchedScan:
    """One scan under way.

    Attributes:
        molecule: starting geometry.
        atoms: the dihedral.
        angles: grid angles, degrees.
        journal: remembers finished relaxations.
        conformers: further starting geometries, A, `[n_atoms, 3]` each.
    """

    molecule: Molecule
    atoms: Dihedral
    angles: list[float]
    journal: Journal
    conformers: Sequence[NDArray[np.float64]] = ()
    _round: int = 0
    _open: set[str] = field(default_factory=set)
    _found: dict[str, tuple[int, Attempt]] = field(default_factory=dict)
    _best: dict[int, Attempt] = field(default_factory=dict)
    _attempts: list[tuple[int, Attempt]] = field(default_factory=list)

    def first_round(self) -> list[tuple[str, int, Start]]:
        """Returns key, index of the angle and start of every grid angle and conformer.

        Conformers that come to lie on each other when they are turned start once.
        """
        starts = []
        for index, angle in enumerate(self.angles):
            starts.append(
                (f"batched:0:{index}", index, self._start(index, self.molecule.positions))
            )
            taken = [set_dihedral(self.molecule, self.atoms, angle)] if self.conformers else []
            for number, positions in enumerate(self.conformers, 1):
                turned = set_dihedral(self.molecule.at(positions), self.atoms, angle)
                if all(largest_distance(turned, other) > SAME_BASIN_ANGSTROM for other in taken):
                    taken.append(turned)
                    key = f"batched:0:{index}:conformer-{number}"
                    starts.append((key, index, self._start(index, positions)))
        self._open = {key for key, _, _ in starts}
        return starts

    def record(self, key: str, index: int, attempt: Attempt) -> list[tuple[str, int, Start]]:
        """Takes in an outcome; returns the next round when this one is complete."""
        self._found[key] = (index, attempt)
        self._open.discard(key)
        if self._open:
            return []
        self._round += 1
        starts = []
        for index in self._fallen():
            for side in (1, -1):
                neighbor = (index + side) % len(self.angles)
                start = self._neighbor_start(index, neighbor)
                if start is not None:
                    starts.append((f"batched:{self._round}:{index}:{side}", neighbor, start))
        self._open = {key for key, _, _ in starts}
        return starts

    def _fallen(self) -> list[int]:
        """Takes in the finished round by key, in whatever order it came; returns what fell."""
        fallen = set()
        for _, (index, attempt) in sorted(self._found.items()):
            self._attempts.append((index, attempt))
            best = self._best.get(index)
            if attempt.energy is not None and (
                best is None
                or best.energy is None
                or attempt.energy < best.energy - WAVEFRONT_THRESHOLD_EV
            ):
                self._best[index] = attempt
                fallen.add(index)
        self._found.clear()
        return sorted(fallen)

    def result(self) -> Scan:
        """Returns the lowest point at every angle; in the order of the grid."""
        return collect(self.angles, self._attempts)

    def _start(self, index: int, positions: NDArray[np.float64]) -> Start:
        return Start(self.molecule.at(positions), HeldDihedral(self.atoms, self.angles[index]))

    def _neighbor_start(self, index: int, neighbor: int) -> Start | None:
        """Start at a neighbouring angle, None if it leads where that angle has been already."""
        positions = self._best[index].positions
        if positions is None:
            return None
        known = self._best.get(neighbor)
        if known is not None and known.positions is not None:
            molecule = self.molecule.at(positions)
            turned = set_dihedral(molecule, self.atoms, self.angles[neighbor])
            if largest_distance(turned, known.positions) < SAME_BASIN_ANGSTROM:
                return None
        return self._start(neighbor, positions)


def scan_batched(
    scans: Sequence[BatchedScan], evaluate: BatchEvaluator, capacity: int = DEFAULT_CAPACITY
) -> list[Scan]:
    """Runs scans, of one molecule or many, in common batches.

    Args:
        scans: fresh ones; their journals may hold finished relaxations.
        evaluate: the potential, bound to all their molecules.
        capacity: geometries that relax side by side.

    Returns:
        one result for each scan.

    Raises:
        UnsupportedSystemError: a dihedral in a ring.
    """
    relaxer = BatchRelaxer(evaluate, capacity)
    owners: dict[int, tuple[BatchedScan, str, int]] = {}

    def submit(scan: BatchedScan, starts: list[tuple[str, int, Start]]) -> None:
        while starts:
            more: list[tuple[str, int, Start]] = []
            for key, index, start in starts:
                entry = scan.journal.entries.get(key)
                if entry is None:
                    owners[relaxer.submit(start)] = (scan, key, index)
                else:
                    more += scan.record(key, index, recorded_attempt(entry))
            starts = more

    for scan in scans:
        submit(scan, scan.first_round())
    for ticket, outcome in relaxer.results():
        scan, key, index = owners.pop(ticket)
        entry = _entry(outcome, scan.angles[index])
        scan.journal.add(key, entry)
        submit(scan, scan.record(key, index, recorded_attempt(entry)))
    return [scan.result() for scan in scans]


def batched_scan(
    molecule: Molecule,
    spec: PotentialSpec,
    atoms: Dihedral,
    angles: list[float],
    journal: Journal,
    n_conformers: int = 0,
) -> Scan:
    """Runs one scan in batches; `n_conformers` are embedded as further starts.

    Raises:
        TripError: as `bind_batch` and `embed_conformers`.
    """
    conformers = embed_conformers(molecule, n_conformers) if n_conformers else []
    scan = BatchedScan(molecule, atoms, angles, journal, conformers)
    return scan_batched([scan], bind_batch(spec, [molecule]))[0]


def _entry(outcome: Outcome, angle_deg: float) -> dict[str, object]:
    """Returns an outcome as a line of the journal."""
    found = outcome.relaxed
    if found is None:
        return {"error": f"{angle_deg:g} degrees: {outcome.error}"}
    return {
        "energy_ev": found.energy,
        "positions_angstrom": found.positions.tolist(),
        "n_evaluations": found.n_evaluations,
    }
