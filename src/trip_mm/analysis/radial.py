"""Radial distribution functions of a trajectory, with errors from blocks."""

from dataclasses import dataclass
from pathlib import Path

import MDAnalysis
import numpy as np
from MDAnalysis.analysis.rdf import InterRDF
from numpy.typing import NDArray

from trip_mm.analysis.series import check_positive, check_skip
from trip_mm.analysis.torsions import (
    first_locations,
    lattice_vectors,
    open_trajectory,
    whole_frames,
)
from trip_mm.errors import ConfigError, DataError
from trip_mm.simulation.contacts import cell_heights

WATER_OXYGENS = "water and name O*"

_N_BLOCKS = 5
_LARGEST_R_MAX = 10.0
_PEAK_TO_MINIMUM = 1.7
"""The first minimum is looked for up to this multiple of the distance of the highest peak."""


@dataclass(frozen=True)
class RadialSettings:
    """What to count, and how.

    Attributes:
        first: MDAnalysis selection; its atoms are chosen in the first frame.
        second: the same; neighbours of `first`.
        bin_width: A.
        r_max: A; None for half the shortest cell height, at most 10 A.
        skip_ps: time left out at the begin.
    """

    first: str = WATER_OXYGENS
    second: str = WATER_OXYGENS
    bin_width: float = 0.05
    r_max: float | None = None
    skip_ps: float = 0.0


@dataclass(frozen=True)
class RadialDistribution:
    """A radial distribution function.

    Attributes:
        settings: how it was made.
        distances: middle of each bin, A, `[n_bins]`.
        g: `[n_bins]`; 1 without correlation.
        standard_error: of g, from blocks of consecutive frames, `[n_bins]`; NaN for one frame.
        coordination: neighbours of an atom up to the end of each bin, `[n_bins]`.
        n_first: atoms of the first selection.
        n_second: atoms of the second selection.
        n_frames: frames used.
        n_blocks: blocks that they were divided into.
        first_time_ps: time of the first frame used.
        last_time_ps: time of the last frame used.
        trajectory: the file.
    """

    settings: RadialSettings
    distances: NDArray[np.float64]
    g: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    coordination: NDArray[np.float64]
    n_first: int
    n_second: int
    n_frames: int
    n_blocks: int
    first_time_ps: float
    last_time_ps: float
    trajectory: Path

    @property
    def peak(self) -> int:
        """Bin of the highest peak."""
        return int(np.argmax(self.g))

    @property
    def minimum(self) -> int:
        """Bin of the lowest g after the highest peak, up to 1.7 times its distance."""
        within = self.distances <= _PEAK_TO_MINIMUM * self.distances[self.peak]
        stop = max(self.peak + 1, int(within.sum()))
        return self.peak + int(np.argmin(self.g[self.peak : stop]))


def radial_distribution(
    topology: Path, trajectory: Path, settings: RadialSettings
) -> RadialDistribution:
    """Computes g(r) between two groups of atoms; pairs within one residue do not count.

    Of alternate locations the first one counts.

    g = V / (N_pairs 4 pi r^2 dr) <pairs in the shell>, V the mean volume of a block of frames,
    N_pairs the pairs of different residues.

    Args:
        topology: structure file that names the atoms.
        trajectory: periodic trajectory of the same atoms.
        settings: what to count.

    Raises:
        ConfigError: settings that make no sense, or reach beyond half the cell.
        DataError: unreadable files, a system without a cell, or an empty selection.
    """
    check_positive("bin width", settings.bin_width, "A")
    if settings.r_max is not None:
        check_positive("r_max", settings.r_max, "A")
    check_skip(settings.skip_ps)
    universe = open_trajectory(topology, trajectory)
    first, second = _selections(universe, settings)
    times, half_height = _frames(universe, trajectory)
    start = int(np.searchsorted(times, times[0] + settings.skip_ps - 1e-6))
    if start >= len(times):
        raise ConfigError(
            f"{trajectory}: {settings.skip_ps:g} ps are to be skipped, but the frames span "
            f"{times[-1] - times[0]:g} ps; skip less"
        )
    r_max = min(half_height, _LARGEST_R_MAX) if settings.r_max is None else settings.r_max
    if r_max > half_height:
        raise ConfigError(
            f"{trajectory}: r_max {r_max:g} A is beyond half the shortest cell height "
            f"({half_height:.2f} A); use at most that"
        )
    n_bins = int(r_max / settings.bin_width)
    if n_bins < 2:
        raise ConfigError(f"bin width {settings.bin_width:g} A leaves fewer than two bins")
    blocks = np.array_split(np.arange(start, len(times)), min(_N_BLOCKS, len(times) - start))
    counts, curves = [], []
    for block in blocks:
        count, g = _block(first, second, n_bins, settings.bin_width, block)
        counts.append(count)
        curves.append(g)
    weights = np.array([len(block) for block in blocks], dtype=np.float64)
    n_frames = int(weights.sum())
    stacked = np.stack(curves)
    error = np.full(n_bins, np.nan)
    if len(blocks) > 1:
        error = stacked.std(axis=0, ddof=1) / np.sqrt(len(blocks))
    return RadialDistribution(
        settings,
        (np.arange(n_bins, dtype=np.float64) + 0.5) * settings.bin_width,
        np.asarray(np.average(stacked, axis=0, weights=weights), dtype=np.float64),
        error,
        np.cumsum(np.sum(counts, axis=0)) / (n_frames * len(first)),
        len(first),
        len(second),
        n_frames,
        len(blocks),
        float(times[start]),
        float(times[-1]),
        trajectory,
    )


def _block(
    first: MDAnalysis.AtomGroup,
    second: MDAnalysis.AtomGroup,
    n_bins: int,
    bin_width: float,
    frames: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns counts and g over consecutive frames, both `[n_bins]`."""
    n_pairs = len(first) * len(second)
    same = int((first.resindices[:, None] == second.resindices[None]).sum())
    found = InterRDF(
        first, second, nbins=n_bins, range=(0.0, n_bins * bin_width), exclude_same="residue"
    ).run(start=int(frames[0]), stop=int(frames[-1]) + 1)
    # MDAnalysis leaves out pairs of one residue but divides by the number of all pairs.
    g = np.asarray(found.results.rdf, dtype=np.float64) * (n_pairs / (n_pairs - same))
    return np.asarray(found.results.count, dtype=np.float64), g


def _select(universe: MDAnalysis.Universe, text: str) -> MDAnalysis.AtomGroup:
    try:
        atoms = universe.select_atoms(text) & first_locations(universe.atoms)
    except (MDAnalysis.SelectionError, AttributeError) as error:
        raise ConfigError(f"selection {text!r} is not understood by MDAnalysis: {error}") from error
    if len(atoms) == 0:
        raise DataError(f"selection {text!r} finds no atoms (the default counts oxygens of water)")
    return atoms


def _selections(
    universe: MDAnalysis.Universe, settings: RadialSettings
) -> tuple[MDAnalysis.AtomGroup, MDAnalysis.AtomGroup]:
    first, second = (_select(universe, text) for text in (settings.first, settings.second))
    if len((first | second).residues) < 2:
        raise DataError(
            f"selections {settings.first!r} and {settings.second!r} find atoms of one residue; a "
            "radial distribution counts pairs of different ones"
        )
    return first, second


def _frames(universe: MDAnalysis.Universe, trajectory: Path) -> tuple[NDArray[np.float64], float]:
    """Returns the time of each frame in ps and half the shortest cell height of all, A."""
    times, heights = [], []
    for frame in whole_frames(universe, trajectory):
        cell = lattice_vectors(frame.dimensions)
        if cell is None:
            raise DataError(f"{trajectory}: has no periodic cell; g(r) needs the density of one")
        heights.append(cell_heights(cell).min())
        times.append(float(frame.time))
    return np.array(times), 0.5 * float(min(heights))
