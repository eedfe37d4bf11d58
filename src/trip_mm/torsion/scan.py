"""Relaxed torsion scans of one molecule with one potential.

Which minimum a constrained relaxation finds depends on where it starts. Two strategies share the
same single step: `sweep_both_ways` follows the chain of geometries up and down once around and
keeps the lower energy at each angle; `wavefront` starts neighbours again from every geometry that
lowered its angle's energy until none does (Qiu et al., J. Chem. Phys. 152, 244116 (2020)).
`torsion.batched` relaxes all angles at once.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import ConfigError, EvaluationError, RelaxationError
from trip_mm.files import write_atomically
from trip_mm.geometry.dihedral import dihedral_angle, wrapped
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.potentials import EnergyFunction
from trip_mm.geometry.relax import HeldDihedral, relax, require_geometric
from trip_mm.torsion.dihedrals import Dihedral

WAVEFRONT_THRESHOLD_EV = 2.7e-4
"""A geometry replaces another at its angle if it is lower by this much (1e-5 Ha)."""


@dataclass(frozen=True)
class Point:
    """A geometry on the profile.

    Attributes:
        angle_deg: grid angle, degrees.
        energy: eV.
        positions: A, `[n_atoms, 3]`.
    """

    angle_deg: float
    energy: float
    positions: NDArray[np.float64]


@dataclass(frozen=True)
class Scan:
    """A relaxed scan.

    Attributes:
        points: by ascending grid angle; angles where every relaxation failed are missing.
        failures: reasons, one for each relaxation that failed.
        n_evaluations: evaluations of the potential in all.
    """

    points: tuple[Point, ...]
    failures: tuple[str, ...]
    n_evaluations: int


@dataclass(frozen=True)
class Attempt:
    """Outcome of one constrained relaxation: energy and positions, or why there is none."""

    energy: float | None
    positions: NDArray[np.float64] | None
    n_evaluations: int
    error: str = ""


class Journal:
    """Remembers finished work in a file, one JSON document a line, so that it is not done twice.

    The file starts with what the results depend on. A last line that was cut off by a kill is
    dropped.

    Raises:
        ConfigError: the file belongs to other settings, or an earlier line is damaged.
    """

    def __init__(self, path: Path, settings: dict[str, object]) -> None:
        self.path = path
        self.entries: dict[str, dict[str, object]] = {}
        settings = json.loads(json.dumps(settings))
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        documents = []
        for number, line in enumerate(lines, start=1):
            try:
                documents.append(json.loads(line))
            except json.JSONDecodeError as error:
                if number < len(lines):
                    raise ConfigError(
                        f"{path}: line {number} is damaged; remove the line to repeat its work, or "
                        "the file to repeat all"
                    ) from error
        if documents and documents[0] != settings:
            raise ConfigError(
                f"{path}: holds results of other settings; choose another output directory or "
                "remove the file"
            )
        self.entries = {str(entry["key"]): entry for entry in documents[1:]}
        text = "".join(json.dumps(d) + "\n" for d in documents or [settings])
        write_atomically(path, text.encode())

    def add(self, key: str, entry: dict[str, object]) -> None:
        """Appends a finished piece of work."""
        entry = {"key": key, **entry}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.entries[key] = entry


def require_geometric_to_begin(directory: Path, journals: str = "*.journal") -> None:
    """Checks for geomeTRIC where nothing was begun, so that a refusal leaves nothing behind.

    Journals may hold every relaxation already; where one is missing, `relax` refuses it.

    Args:
        directory: of the journals; may not exist.
        journals: pattern of the names of those that hold relaxations.

    Raises:
        MissingDependencyError: there is no journal, and geomeTRIC is not installed.
    """
    if not any(directory.glob(journals)):
        require_geometric()


Step = Callable[[str, int, NDArray[np.float64]], Attempt]
"""Key of the work, index of the grid angle and starting positions to the outcome."""


def grid_angles(step_deg: int) -> list[float]:
    """Returns the grid in (-180, 180] for a step that divides the circle.

    Raises:
        ConfigError: the step is no whole divisor of 360 between 1 and 120.
    """
    if not 1 <= step_deg <= 120 or 360 % step_deg != 0:
        raise ConfigError(f"step {step_deg}: use whole degrees that divide 360, such as 10 or 15")
    return [float(angle) for angle in range(-180 + step_deg, 181, step_deg)]


def journaled_step(
    molecule: Molecule,
    energy_function: EnergyFunction,
    atoms: Dihedral,
    angles: list[float],
    journal: Journal,
) -> Step:
    """Returns the single step of a scan: a constrained relaxation, or its journal entry."""

    def step(key: str, index: int, start: NDArray[np.float64]) -> Attempt:
        entry = journal.entries.get(key)
        if entry is None:
            try:
                held = HeldDihedral(atoms, angles[index])
                found = relax(molecule.at(start), energy_function, held)
                entry = {
                    "energy_ev": found.energy,
                    "positions_angstrom": found.positions.tolist(),
                    "n_evaluations": found.n_evaluations,
                }
            except (RelaxationError, EvaluationError) as error:
                entry = {"error": f"{angles[index]:g} degrees: {error}"}
            journal.add(key, entry)
        return recorded_attempt(entry)

    return step


def recorded_attempt(entry: dict[str, object]) -> Attempt:
    """Returns the outcome that a journal entry holds."""
    if "error" in entry:
        return Attempt(None, None, 0, str(entry["error"]))
    positions = np.array(entry["positions_angstrom"], dtype=np.float64)
    return Attempt(float(str(entry["energy_ev"])), positions, int(str(entry["n_evaluations"])))


def sweep_both_ways(molecule: Molecule, atoms: Dihedral, angles: list[float], step: Step) -> Scan:
    """Follows the profile up and down from the angle closest to the molecule's, once around."""
    first = nearest_angle(molecule, atoms, angles)
    attempts: list[tuple[int, Attempt]] = []
    for direction in (1, -1):
        positions = molecule.positions
        for count in range(len(angles)):
            index = (first + direction * count) % len(angles)
            attempt = step(f"{'up' if direction > 0 else 'down'}:{count}", index, positions)
            attempts.append((index, attempt))
            if attempt.positions is not None:
                positions = attempt.positions
    return collect(angles, attempts)


def wavefront(molecule: Molecule, atoms: Dihedral, angles: list[float], step: Step) -> Scan:
    """Spreads from the molecule's angle; what lowers an angle's energy starts its neighbours."""
    first = nearest_angle(molecule, atoms, angles)
    best: dict[int, float] = {}
    attempts: list[tuple[int, Attempt]] = []
    waiting = deque([(first, molecule.positions)])
    while waiting:
        index, start = waiting.popleft()
        attempt = step(f"wave:{len(attempts)}", index, start)
        attempts.append((index, attempt))
        if attempt.energy is None or attempt.positions is None:
            continue
        if attempt.energy < best.get(index, np.inf) - WAVEFRONT_THRESHOLD_EV:
            best[index] = attempt.energy
            for neighbor in ((index + 1) % len(angles), (index - 1) % len(angles)):
                waiting.append((neighbor, attempt.positions))
    return collect(angles, attempts)


STRATEGIES: dict[str, Callable[[Molecule, Dihedral, list[float], Step], Scan]] = {
    "both": sweep_both_ways,
    "wavefront": wavefront,
}


def nearest_angle(molecule: Molecule, atoms: Dihedral, angles: list[float]) -> int:
    """Returns the index of the grid angle closest to the molecule's own."""
    own = dihedral_angle(molecule.positions, atoms)
    return int(np.argmin([abs(wrapped(angle - own)) for angle in angles]))


def collect(angles: list[float], attempts: list[tuple[int, Attempt]]) -> Scan:
    """Keeps the lowest energy at each angle, counts evaluations, lists failures."""
    best: dict[int, Point] = {}
    for index, attempt in attempts:
        if attempt.energy is None or attempt.positions is None:
            continue
        if index not in best or attempt.energy < best[index].energy:
            best[index] = Point(angles[index], attempt.energy, attempt.positions)
    return Scan(
        tuple(best[index] for index in sorted(best)),
        tuple(attempt.error for _, attempt in attempts if attempt.error),
        sum(attempt.n_evaluations for _, attempt in attempts),
    )
