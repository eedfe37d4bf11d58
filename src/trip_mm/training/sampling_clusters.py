"""Clusters cut from liquids: a solute, or a water, with its nearest whole waters."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import ConfigError
from trip_mm.training.groups import Conformation
from trip_mm.training.sampling_dynamics import (
    Liquid,
    build_solvated_peptide,
    build_water_box,
    dynamics,
)
from trip_mm.training.sampling_geometry import (
    Positions,
    displaced,
    nearest_images,
    unlabelled,
    with_hydrogens_rescaled,
)
from trip_mm.training.sampling_recipe import LiquidWaterSource, PeptidesSource


@dataclass(frozen=True)
class Cluster:
    """A neutral piece of a liquid: solute first, then O H H of each water.

    Attributes:
        atomic_numbers: `[n_atoms]`.
        positions: A, `[n_atoms, 3]`.
        oxygens: index of each water's oxygen, `[n_waters]`.
        hydrogens: indices of its hydrogens, `[n_waters, 2]`.
    """

    atomic_numbers: NDArray[np.int64]
    positions: Positions
    oxygens: NDArray[np.int64]
    hydrogens: NDArray[np.int64]


def waters_by_distance(
    liquid: Liquid, positions: Positions, solute: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Positions]:
    """Sorts the waters by the distance of their oxygen to the nearest atom of the solute.

    Args:
        liquid: composition and cell.
        positions: A, molecules whole, `[n_atoms, 3]`.
        solute: atoms, `[n_solute]`; waters that belong to them are left out.

    Returns:
        Rows of `liquid.waters`, nearest first, `[n_waters]`, and the lattice vector that moves
        each to the image nearest to the solute, A, `[n_waters, 3]`.
    """
    rows = np.flatnonzero(~np.isin(liquid.waters[:, 0], solute))
    oxygens = positions[liquid.waters[rows, 0]]
    vectors = oxygens[:, None] - positions[solute][None]  # [n_waters, n_solute, 3]
    images = np.zeros_like(vectors)
    if liquid.cell is not None:
        images = nearest_images(vectors, liquid.cell) - vectors
    distances = np.linalg.norm(vectors + images, axis=-1)
    nearest_atom = distances.argmin(axis=1)
    each = np.arange(len(rows))
    order = np.argsort(distances[each, nearest_atom], kind="stable")
    return rows[order], images[order, nearest_atom[order]]


def cut_cluster(
    liquid: Liquid, positions: Positions, solute: NDArray[np.int64], n_waters: int
) -> Cluster:
    """Cuts the solute with its nearest whole waters, each in the image nearest to the solute.

    Args:
        liquid: composition and cell.
        positions: A, molecules whole, `[n_atoms, 3]`.
        solute: atoms to keep around which waters are chosen, `[n_solute]`.
        n_waters: how many waters to keep; waters that belong to `solute` do not count.

    Raises:
        ConfigError: `n_waters` is negative.
    """
    if n_waters < 0:
        raise ConfigError(f"a cluster of {n_waters} waters around its centre; ask for 0 or more")
    rows, shifts = waters_by_distance(liquid, positions, solute)
    order, kept = rows[:n_waters], positions[solute]
    moved = positions[liquid.waters[order]] + shifts[:n_waters, None]
    first = len(solute) + 3 * np.arange(len(order))
    numbers = np.concatenate([liquid.atomic_numbers[solute], np.tile([8, 1, 1], len(order))])
    return Cluster(
        numbers.astype(np.int64),
        np.concatenate([kept, moved.reshape(-1, 3)]),
        first,
        np.stack([first + 1, first + 2], axis=1),
    )


def cut_water_cluster(
    liquid: Liquid, positions: Positions, n_waters: int, rng: np.random.Generator
) -> Cluster:
    """Cuts a water drawn at random with its `n_waters - 1` nearest neighbours.

    Raises:
        ConfigError: `n_waters` is less than 1.
    """
    if n_waters < 1:
        raise ConfigError(f"a cluster of {n_waters} waters, the central one included; ask for more")
    centre = liquid.waters[int(rng.integers(len(liquid.waters)))]
    cut = cut_cluster(liquid, positions, centre, n_waters - 1)
    return Cluster(
        cut.atomic_numbers,
        cut.positions,
        np.concatenate([[0], cut.oxygens]),
        np.concatenate([[[1, 2]], cut.hydrogens]),
    )


def perturbed(
    cluster: Cluster,
    oh_length: tuple[float, float] | None,
    displacement: tuple[float, float],
    rng: np.random.Generator,
) -> Positions:
    """Draws a length for the O-H bonds of water and displaces every atom.

    Rigid water models put O-H at one length (1.01 A in TIP3P-FB), which no quantum chemistry
    shares: one common length is drawn for the cluster, then every coordinate gets normal noise.
    """
    positions = cluster.positions
    if oh_length is not None and len(cluster.oxygens):
        length = rng.uniform(*oh_length)
        positions = with_hydrogens_rescaled(positions, cluster.oxygens, cluster.hydrogens, length)
    return displaced(positions, rng.uniform(*displacement), rng)


def sample_peptides(source: PeptidesSource, rng: np.random.Generator) -> Iterator[Conformation]:
    """Yields clusters of solvated peptides, one trajectory after the other.

    Raises:
        ConfigError: a peptide with one water has more than `n_atoms`.
    """
    for peptide in source.peptides:
        for temperature in source.temperatures_k:
            for number in range(source.trajectories):
                seed = int(rng.integers(1, 2**31 - 1))
                liquid = build_solvated_peptide(peptide, source.padding_nm, seed)
                name = f"{peptide}/{temperature:g}K/{number}/{seed}"
                solute = liquid.solute
                low, high = ((n - len(solute)) // 3 for n in source.n_atoms)
                if high < 1:
                    raise ConfigError(
                        f"class {source.system_class}: {peptide} has {len(solute)} atoms, with a "
                        f"water more than n_atoms {list(source.n_atoms)}; raise n_atoms, or leave "
                        "the peptide out"
                    )
                for positions in dynamics(liquid, source, temperature, seed):
                    for _ in range(source.clusters_per_snapshot):
                        n_waters = int(rng.integers(max(low, 1), high + 1))
                        cluster = cut_cluster(liquid, positions, solute, n_waters)
                        changed = perturbed(cluster, source.oh_length, source.displacement, rng)
                        yield unlabelled(cluster.atomic_numbers, changed, source.system_class, name)


def sample_liquid_water(
    source: LiquidWaterSource, rng: np.random.Generator
) -> Iterator[Conformation]:
    """Yields clusters of waters around random molecules of the liquid."""
    for temperature in source.temperatures_k:
        for number in range(source.trajectories):
            seed = int(rng.integers(1, 2**31 - 1))
            liquid = build_water_box(source.box_edge_nm, seed)
            name = f"water/{temperature:g}K/{number}/{seed}"
            for positions in dynamics(liquid, source, temperature, seed):
                for _ in range(source.clusters_per_snapshot):
                    yield sample_water_cluster(liquid, positions, source, name, rng)


def sample_water_cluster(
    liquid: Liquid,
    positions: Positions,
    source: LiquidWaterSource,
    name: str,
    rng: np.random.Generator,
) -> Conformation:
    """Cuts one perturbed cluster around a water drawn at random."""
    low, high = source.n_waters
    n_waters = min(int(rng.integers(low, high + 1)), len(liquid.waters))
    cluster = cut_water_cluster(liquid, positions, n_waters, rng)
    changed = perturbed(cluster, source.oh_length, source.displacement, rng)
    return unlabelled(cluster.atomic_numbers, changed, source.system_class, name)
