"""Clusters cut from a trajectory: what dynamics on a model, or on anything, has visited."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import MDAnalysis
import numpy as np
from MDAnalysis.lib.mdamath import triclinic_vectors
from numpy.typing import NDArray

from trip_mm.elements import atomic_number
from trip_mm.errors import DataError
from trip_mm.training.groups import Conformation
from trip_mm.training.sampling_clusters import cut_cluster, cut_water_cluster, perturbed
from trip_mm.training.sampling_dynamics import Liquid
from trip_mm.training.sampling_geometry import (
    Positions,
    made_whole,
    nearest_images,
    unlabelled,
)
from trip_mm.training.sampling_recipe import TrajectorySource

_WATER_NAMES = "HOH WAT SOL TIP3"


class FrameReader:
    """The frames of a trajectory as liquids: molecules whole, solute and waters told apart.

    Attributes:
        atomic_numbers: `[n_atoms]`.
        waters: oxygen and hydrogens of each water, `[n_waters, 3]`.
        solute: every other atom, `[n_solute]`.
        n_frames: of the trajectory.

    Raises:
        DataError: a file is missing, names no elements, or the two do not belong together.
    """

    def __init__(self, topology: Path, trajectory: Path) -> None:
        self._universe = _open(topology, trajectory)
        self.atomic_numbers = _atomic_numbers(self._universe, topology)
        self.waters = _waters(self._universe, self.atomic_numbers)
        self.solute = np.setdiff1d(np.arange(len(self.atomic_numbers)), self.waters)
        self.n_frames = int(self._universe.trajectory.n_frames)

    def liquid(self, frame: int) -> Liquid:
        """Reads a frame; `start` of the liquid holds its positions in A."""
        self._universe.trajectory[frame]
        return _liquid(self._universe, self.atomic_numbers, self.solute, self.waters)

    def steps(self) -> list[int]:
        """Returns the step of the simulation at which each frame was written."""
        return [int(frame.data["step"]) for frame in self._universe.trajectory]


def sample_trajectory(
    source: TrajectorySource, data: Path, rng: np.random.Generator
) -> Iterator[Conformation]:
    """Yields clusters of frames drawn at random, each frame as often as any other.

    Raises:
        DataError: a file is missing, or lacks what the source asks for (frames, solute, water).
    """
    reader = FrameReader(data / source.topology, data / source.trajectory)
    n_frames = reader.n_frames - source.first_frame
    if n_frames < 1:
        raise DataError(
            f"{data / source.trajectory}: {reader.n_frames} frames, none from frame "
            f"{source.first_frame} on; lower first_frame"
        )
    if not len(reader.waters) or (source.around == "solute" and not len(reader.solute)):
        raise DataError(f"{data / source.topology}: has no water, or no solute to cut around")
    frames = np.sort(np.resize(rng.permutation(n_frames), source.conformations))
    for frame in frames:
        liquid = reader.liquid(source.first_frame + int(frame))
        low, high = source.n_waters
        wanted = min(int(rng.integers(low, high + 1)), len(reader.waters))
        if source.around == "solute":
            cluster = cut_cluster(liquid, liquid.start, reader.solute, wanted)
        else:
            cluster = cut_water_cluster(liquid, liquid.start, wanted, rng)
        changed = perturbed(cluster, source.oh_length, source.displacement, rng)
        yield unlabelled(cluster.atomic_numbers, changed, source.system_class, source.trajectory)


def _open(topology: Path, trajectory: Path) -> Any:
    for path in (topology, trajectory):
        if not path.is_file():
            raise DataError(f"{path}: no such file; give its directory with --data")
    try:
        return MDAnalysis.Universe(str(topology), str(trajectory))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{topology} with {trajectory}: {error}; they must belong together"
        ) from None


def _atomic_numbers(universe: Any, topology: Path) -> NDArray[np.int64]:
    if not hasattr(universe.atoms, "elements") or not all(universe.atoms.elements):
        raise DataError(f"{topology}: names no elements; write the element columns")
    return np.asarray([atomic_number(s) for s in universe.atoms.elements], dtype=np.int64)


def _waters(universe: Any, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns oxygen and hydrogens of each water, `[n_waters, 3]`."""
    rows = []
    for residue in universe.select_atoms(f"resname {_WATER_NAMES}").residues:
        indices = residue.atoms.indices
        real = indices[numbers[indices] > 0]
        rows.append(real[np.argsort(-numbers[real], kind="stable")])
    return np.asarray(rows, dtype=np.int64).reshape(-1, 3)


def _liquid(
    universe: Any, numbers: NDArray[np.int64], solute: NDArray[np.int64], waters: NDArray[np.int64]
) -> Liquid:
    positions: Positions = universe.atoms.positions.astype(np.float64)
    cell = None
    dimensions = universe.trajectory.ts.dimensions
    if dimensions is not None and dimensions[0] > 0:
        cell = np.asarray(triclinic_vectors(dimensions), dtype=np.float64)
        oxygens = positions[waters[:, :1]]
        positions[waters] = oxygens + nearest_images(positions[waters] - oxygens, cell)
        if len(solute):
            positions[solute] = made_whole(positions[solute], cell)
    return Liquid(None, positions, numbers, solute, waters, cell)
