"""Watches that dynamics stay sensible, and says which atoms are to blame when they do not.

A bond counts as torn when it is longer than `TORN_RATIO` times its length in the built structure
(at least `SHORTEST_TORN` A). A hydrogen that left its partner for another N or O close by is no
tear but a proton transfer: chemistry that a reactive potential may do. It is counted, not stopped.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from trip_mm.errors import UnstableSimulationError
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.contacts import minimum_image
from trip_mm.simulation.solute import atom_label
from trip_mm.units import BOLTZMANN_CONSTANT, EV_TO_KJ_PER_MOL, NM_TO_ANGSTROM

FloatArray = NDArray[np.float64]

TORN_RATIO = 1.6
SHORTEST_TORN = 1.5
"""A bond shorter than this is never called torn, in A."""
TRANSFER_DISTANCE = 1.35
"""A hydrogen within this distance of another N or O has been handed over, in A."""
RUNAWAY_CHECKS = 3
"""Number of checks in a row that must find too high a temperature."""

_HYDROGEN = 1
_PROTON_ACCEPTORS = (7, 8)


@dataclass(frozen=True)
class BondFindings:
    """What the bonds of a frame look like.

    Attributes:
        torn: indices into the topology's bonds that are torn.
        transferred: pairs (bond index, acceptor atom) of hydrogens handed over.
        lengths: every bond length in A, `[n_bonds]`.
        largest_stretch: largest length relative to the reference, and
        largest_stretch_bond: its index (-1 where there are no bonds).
    """

    torn: tuple[int, ...]
    transferred: tuple[tuple[int, int], ...]
    lengths: FloatArray
    largest_stretch: float
    largest_stretch_bond: int


class BondWatch:
    """Compares the bonds of a frame with those of the built structure."""

    def __init__(self, structure: BuiltStructure) -> None:
        self.atoms = list(structure.topology.atoms())
        pairs = [(bond.atom1.index, bond.atom2.index) for bond in structure.topology.bonds()]
        self.pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        self.atomic_numbers = np.asarray(
            [0 if atom.element is None else atom.element.atomic_number for atom in self.atoms]
        )
        self._acceptors = np.flatnonzero(np.isin(self.atomic_numbers, _PROTON_ACCEPTORS))
        positions = np.asarray(structure.positions, dtype=np.float64)
        self.reference_lengths = self._lengths(positions, structure.box_vectors)
        self.limits = np.maximum(TORN_RATIO * self.reference_lengths, SHORTEST_TORN)

    def _lengths(self, positions: FloatArray, box_vectors: FloatArray | None) -> FloatArray:
        vectors = positions[self.pairs[:, 1]] - positions[self.pairs[:, 0]]
        nearest = minimum_image(vectors, box_vectors)
        return np.asarray(np.linalg.norm(nearest, axis=1) * NM_TO_ANGSTROM)

    def inspect(self, positions: FloatArray, box_vectors: FloatArray | None) -> BondFindings:
        """Measures every bond of a frame.

        Args:
            positions: nm, `[n_atoms, 3]`, finite.
            box_vectors: nm, `[3, 3]`, or None.
        """
        lengths = self._lengths(positions, box_vectors)
        if len(lengths) == 0:
            return BondFindings((), (), lengths, 0.0, -1)
        stretch = lengths / self.reference_lengths
        torn: list[int] = []
        transferred: list[tuple[int, int]] = []
        for bond in np.flatnonzero(lengths > self.limits):
            acceptor = self._acceptor(int(bond), positions, box_vectors)
            if acceptor is None:
                torn.append(int(bond))
            else:
                transferred.append((int(bond), acceptor))
        worst = int(np.argmax(stretch))
        return BondFindings(tuple(torn), tuple(transferred), lengths, float(stretch[worst]), worst)

    def _acceptor(
        self, bond: int, positions: FloatArray, box_vectors: FloatArray | None
    ) -> int | None:
        """Returns the N or O that now holds the hydrogen of a broken bond, if there is one."""
        ends = self.pairs[bond]
        is_hydrogen = self.atomic_numbers[ends] == _HYDROGEN
        if is_hydrogen.sum() != 1:
            return None
        hydrogen = ends[int(np.argmax(is_hydrogen))]
        donor = ends[int(np.argmin(is_hydrogen))]
        others = self._acceptors[self._acceptors != donor]
        if len(others) == 0:
            return None
        vectors = minimum_image(positions[others] - positions[hydrogen], box_vectors)
        distances = np.linalg.norm(vectors, axis=1) * NM_TO_ANGSTROM
        nearest = int(np.argmin(distances))
        return int(others[nearest]) if distances[nearest] < TRANSFER_DISTANCE else None

    def describe(self, bond: int, length: float) -> str:
        """Says in words how long a bond is and how long it may be."""
        first, second = (atom_label(self.atoms[int(atom)]) for atom in self.pairs[bond])
        return (
            f"the bond between {first} and {second} is {length:.2f} A long, "
            f"{self.reference_lengths[bond]:.2f} A in the built structure"
        )


@dataclass
class Frame:
    """A frame that passed every check, kept to be saved beside a crash."""

    step: int
    positions: FloatArray
    velocities: FloatArray
    box_vectors: FloatArray | None
    state: Any


class StabilityMonitor:
    """Checks a running simulation between its steps; costs no evaluation of the potential.

    Attributes:
        atoms: the topology's atoms.
        last_good: the latest frame that passed, None before the first check.
        current_temperature: kinetic temperature at the last check, K.
        transferred: largest number of protons seen away from their partner at one time.
        hot_checks: checks in a row that found the system too hot.
    """

    def __init__(self, watch: BondWatch, system: openmm.System) -> None:
        self._watch = watch
        self.atoms = watch.atoms
        self._periodic = system.usesPeriodicBoundaryConditions()
        masses = [
            system.getParticleMass(index).value_in_unit(unit.dalton)
            for index in range(system.getNumParticles())
        ]
        self._masses = np.asarray(masses, dtype=np.float64)
        n_mobile = int((self._masses > 0).sum())
        self._n_dof = max(3 * n_mobile - system.getNumConstraints() - 3, 1)
        self.hot_checks = 0
        self.current_temperature = float("nan")
        self.last_good: Frame | None = None
        self.transferred = 0

    def frame(self, simulation: app.Simulation) -> Frame:
        """Reads the current frame, without asking whether it is sensible."""
        state = simulation.context.getState(positions=True, velocities=True)
        box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        return Frame(
            step=simulation.currentStep,
            positions=state.getPositions(asNumpy=True).value_in_unit(unit.nanometer),
            velocities=state.getVelocities(asNumpy=True).value_in_unit(
                unit.nanometer / unit.picosecond
            ),
            box_vectors=np.asarray(box) if self._periodic else None,
            state=state,
        )

    def temperature(self, frame: Frame) -> float:
        """Returns the kinetic temperature of a frame in K."""
        kinetic = 0.5 * float((self._masses[:, None] * frame.velocities**2).sum())  # kJ/mol
        return float(2.0 * kinetic / (self._n_dof * BOLTZMANN_CONSTANT * EV_TO_KJ_PER_MOL))

    def check(self, simulation: app.Simulation, target_temperature: float) -> None:
        """Checks the current frame and keeps it as the last good one.

        Args:
            simulation: the running simulation.
            target_temperature: what the thermostat aims at, or the ensemble started from, in K.

        Raises:
            UnstableSimulationError: an atom's position or velocity is not finite, a bond is torn,
                or the temperature has run away.
        """
        frame = self.check_geometry(simulation)
        problem = self._runaway(frame, target_temperature)
        if problem is not None:
            raise UnstableSimulationError(problem)
        self.last_good = frame

    def check_geometry(self, simulation: app.Simulation) -> Frame:
        """Checks that the current frame is finite and that no bond is torn.

        Raises:
            UnstableSimulationError: otherwise, naming the atoms.
        """
        frame = self.frame(simulation)
        problem = self._not_finite(frame)
        if problem is not None:
            raise UnstableSimulationError(problem)
        findings = self._watch.inspect(frame.positions, frame.box_vectors)
        if findings.torn:
            raise UnstableSimulationError(self._describe_torn(findings))
        self.transferred = max(self.transferred, len(findings.transferred))
        return frame

    def _describe_torn(self, findings: BondFindings) -> str:
        bonds = sorted(findings.torn, key=lambda bond: -findings.lengths[bond])
        named = "; ".join(self._watch.describe(b, findings.lengths[b]) for b in bonds[:3])
        more = f"; and {len(bonds) - 3} more bonds" if len(bonds) > 3 else ""
        return f"torn bond: {named}{more}"

    def _not_finite(self, frame: Frame) -> str | None:
        finite = np.isfinite(frame.positions).all(axis=1) & np.isfinite(frame.velocities).all(
            axis=1
        )
        if finite.all():
            return None
        lost = np.flatnonzero(~finite)
        named = ", ".join(atom_label(self.atoms[int(atom)]) for atom in lost[:3])
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        return f"position or velocity is not a number: {named}{more}; {self.suspects()}"

    def suspects(self) -> str:
        """Names the fastest atom and the most stretched bond of the last good frame."""
        good = self.last_good
        if good is None:
            return "the stage had only just begun"
        speed = np.linalg.norm(good.velocities, axis=1)
        fastest = int(np.argmax(speed * np.sqrt(self._masses)))
        findings = self._watch.inspect(good.positions, good.box_vectors)
        text = f"at step {good.step} the hottest atom was {atom_label(self.atoms[fastest])}"
        if findings.largest_stretch_bond >= 0:
            bond = findings.largest_stretch_bond
            text += f" and {self._watch.describe(bond, findings.lengths[bond])}"
        return text

    def _runaway(self, frame: Frame, target: float) -> str | None:
        """Too hot several checks in a row, beyond what the few atoms of a small system do."""
        limit = max(2.0 * target + 200.0, target * (1.0 + 10.0 * np.sqrt(2.0 / self._n_dof)))
        temperature = self.current_temperature = self.temperature(frame)
        self.hot_checks = self.hot_checks + 1 if temperature > limit else 0
        if self.hot_checks < RUNAWAY_CHECKS:
            return None
        speed = np.linalg.norm(frame.velocities, axis=1) * np.sqrt(self._masses)
        hottest = atom_label(self.atoms[int(np.argmax(speed))])
        return (
            f"temperature runaway: {temperature:.0f} K instead of {target:.0f} K; the hottest atom "
            f"is {hottest}"
        )
