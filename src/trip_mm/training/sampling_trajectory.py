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
from trip_mm.training.formats import Conformation
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


def sample_trajectory(
    source: TrajectorySource, data: Path, rng: np.random.Generator
) -> Iterator[Conformation]:
    """Yields clusters of frames drawn at random, each frame as often as any other.

    Raises:
        DataError: a file is missing, or lacks what the source asks for (frames, solute, water).
    """
    universe = _open(data / source.topology, data / source.trajectory)
    numbers = _atomic_numbers(universe, data / source.topology)
    waters = _waters(universe, numbers)
    solute = np.setdiff1d(np.arange(len(numbers)), waters)
    n_frames = universe.trajectory.n_frames - source.first_frame
    if n_frames < 1:
        raise DataError(
            f"{data / source.trajectory}: {universe.trajectory.n_frames} frames, none from frame "
            f"{source.first_frame} on; lower first_frame"
        )
    if not len(waters) or (source.around == "solute" and not len(solute)):
        raise DataError(f"{data / source.topology}: has no water, or no solute to cut around")
    frames = np.sort(np.resize(rng.permutation(n_frames), source.conformations))
    for frame in frames:
        universe.trajectory[source.first_frame + int(frame)]
        liquid = _liquid(universe, numbers, solute, waters)
        low, high = source.n_waters
        wanted = min(int(rng.integers(low, high + 1)), len(waters))
        if source.around == "solute":
            cluster = cut_cluster(liquid, liquid.start, solute, wanted)
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
