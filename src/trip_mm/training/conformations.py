"""Labelled conformations in memory with their edges, and the minibatches made from them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trip_mm.errors import DataError
from trip_mm.neighbors import batched_neighbor_list
from trip_mm.training.checks import check_block
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import Block

_CHUNK_ATOMS = 4096


class Batch(NamedTuple):
    """Several systems as one graph; `n` counts atoms, edges or systems of all of them.

    Attributes:
        atomic_numbers: `[n_atoms]` int64.
        positions: A, `[n_atoms, 3]`.
        system_idx: system of each atom, `[n_atoms]` int64.
        senders: `[n_edges]` int64, sorted by receiver.
        receivers: `[n_edges]` int64.
        n_atoms: atoms of each system, `[n_systems]` int64.
        energies: label minus the energies of the isolated atoms, eV, `[n_systems]` float64.
        forces: eV/A, `[n_atoms, 3]`.
        class_idx: class of each system, `[n_systems]` int64.
    """

    atomic_numbers: Tensor
    positions: Tensor
    system_idx: Tensor
    senders: Tensor
    receivers: Tensor
    n_atoms: Tensor
    energies: Tensor
    forces: Tensor
    class_idx: Tensor


@dataclass(frozen=True)
class Exclusions:
    """Conformations that were left out, by the first reason that applies.

    Attributes:
        missing_energy: no energy (NaN).
        missing_forces: an energy, but no forces (all NaN).
        large_force: labelled, with a larger force than allowed.
    """

    missing_energy: int = 0
    missing_forces: int = 0
    large_force: int = 0

    @property
    def total(self) -> int:
        """Conformations left out for any reason."""
        return self.missing_energy + self.missing_forces + self.large_force

    def __add__(self, other: "Exclusions") -> "Exclusions":
        return Exclusions(
            self.missing_energy + other.missing_energy,
            self.missing_forces + other.missing_forces,
            self.large_force + other.large_force,
        )


@dataclass(frozen=True)
class ConformationStore:
    """Conformations of any sizes, concatenated.

    Attributes:
        atomic_numbers: `[n_atoms_total]` int64.
        positions: A, `[n_atoms_total, 3]` float64.
        forces: eV/A, `[n_atoms_total, 3]` float64.
        energies: label minus isolated atoms, eV, `[n_conformations]` float64.
        atom_offsets: first atom of each conformation and the end, `[n_conformations + 1]` int64.
        senders: within the conformation, `[n_edges_total]` int32.
        receivers: within the conformation, `[n_edges_total]` int32.
        edge_offsets: first edge of each conformation and the end, `[n_conformations + 1]` int64.
        class_idx: `[n_conformations]` int64, into `classes`.
        classes: names of the classes of systems.
        dataset_idx: position of each conformation in the data set, `[n_conformations]` int64.
        exclusions: what was left out.
    """

    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    forces: NDArray[np.float64]
    energies: NDArray[np.float64]
    atom_offsets: NDArray[np.int64]
    senders: NDArray[np.int32]
    receivers: NDArray[np.int32]
    edge_offsets: NDArray[np.int64]
    class_idx: NDArray[np.int64]
    classes: tuple[str, ...]
    dataset_idx: NDArray[np.int64]
    exclusions: Exclusions

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def n_edges(self) -> NDArray[np.int64]:
        """Edges of each conformation, `[n_conformations]`."""
        return np.diff(self.edge_offsets)

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Atoms of each conformation, `[n_conformations]`."""
        return np.diff(self.atom_offsets)

    def compositions(self, elements: Sequence[int]) -> NDArray[np.float64]:
        """Counts the atoms of each element, `[n_conformations, n_elements]`."""
        starts = self.atom_offsets[:-1]
        columns = [np.add.reduceat(self.atomic_numbers == z, starts) for z in elements]
        return np.stack(columns, axis=1).astype(np.float64)

    def sha256(self) -> str:
        """Returns a digest of numbers, positions and labels in their order."""
        digest = hashlib.sha256()
        for array in (self.atomic_numbers, self.positions, self.energies, self.forces):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def force_rms(self) -> float:
        """Returns the root mean square of the force components, eV/A."""
        return float(np.sqrt(np.square(self.forces).mean()))

    def with_energies(self, energies: NDArray[np.float64]) -> "ConformationStore":
        """Returns the same conformations with other energies, eV, `[n_conformations]`."""
        return replace(self, energies=energies)

    def subset(self, rows: NDArray[np.int64]) -> "ConformationStore":
        """Returns some of the conformations, in the order given."""
        atoms = _ranges(self.atom_offsets, rows)
        edges = _ranges(self.edge_offsets, rows)
        return ConformationStore(
            self.atomic_numbers[atoms],
            self.positions[atoms],
            self.forces[atoms],
            self.energies[rows],
            _offsets(self.n_atoms[rows]),
            self.senders[edges],
            self.receivers[edges],
            _offsets(self.n_edges[rows]),
            self.class_idx[rows],
            self.classes,
            self.dataset_idx[rows],
            self.exclusions,
        )

    def batch(self, rows: NDArray[np.int64], dtype: torch.dtype) -> Batch:
        """Joins some of the conformations to one graph; positions and forces in `dtype`."""
        atoms = _ranges(self.atom_offsets, rows)
        edges = _ranges(self.edge_offsets, rows)
        counts = self.n_atoms[rows]
        starts = np.repeat(_offsets(counts)[:-1], self.n_edges[rows])
        return Batch(
            torch.from_numpy(self.atomic_numbers[atoms]),
            torch.from_numpy(self.positions[atoms]).to(dtype),
            torch.from_numpy(np.repeat(np.arange(len(rows)), counts)),
            torch.from_numpy(self.senders[edges] + starts),
            torch.from_numpy(self.receivers[edges] + starts),
            torch.from_numpy(counts),
            torch.from_numpy(self.energies[rows]),
            torch.from_numpy(self.forces[atoms]).to(dtype),
            torch.from_numpy(self.class_idx[rows]),
        )


def build_store(
    dataset: Dataset,
    lone_atom_energies: Mapping[int, float],
    cutoff: float,
    max_force: float | None = None,
) -> ConformationStore:
    """Reads a data set into memory, checks it, and finds its edges.

    Conformations without an energy or without forces (all NaN) are left out and counted.

    Args:
        dataset: what to read.
        lone_atom_energies: eV, by atomic number.
        cutoff: range of the edges, A.
        max_force: conformations with a larger force on any atom are left out and counted, eV/A.

    Raises:
        DataError: as `check_block`, or nothing is left.
    """
    classes = tuple(sorted({group.system_class for group in dataset.groups}))
    parts: list[Part] = []
    exclusions = Exclusions()
    first = 0
    for group in dataset.groups:
        block = group.read(slice(0, group.n_conformations))
        check_block(group, block, lone_atom_energies)
        keep, lost = usable(block, max_force)
        exclusions += lost
        own = sum(lone_atom_energies[int(z)] for z in group.atomic_numbers)
        parts.append(
            Part(
                np.tile(group.atomic_numbers, int(keep.sum())),
                block.positions[keep].reshape(-1, 3),
                block.forces[keep].reshape(-1, 3),
                block.energies[keep] - own,
                np.full(int(keep.sum()), len(group.atomic_numbers)),
                np.full(int(keep.sum()), classes.index(group.system_class)),
                first + np.flatnonzero(keep),
            )
        )
        first += group.n_conformations
    if not any(len(part.energies) for part in parts):
        raise DataError(
            "the data files hold no conformation with energy and forces; label some with "
            "`trip-mm label`"
        )
    return find_edges(
        Part(*map(np.concatenate, zip(*parts, strict=True))), cutoff, classes, exclusions
    )


class Part(NamedTuple):
    """Conformations before their edges are known; fields as in `ConformationStore`."""

    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    forces: NDArray[np.float64]
    energies: NDArray[np.float64]
    n_atoms: NDArray[np.int64]
    class_idx: NDArray[np.int64]
    dataset_idx: NDArray[np.int64]


def usable(block: Block, max_force: float | None) -> tuple[NDArray[np.bool_], Exclusions]:
    """Marks the conformations to train on, `[n_conf]`, and counts the others.

    Args:
        block: of which `check_labels` says that forces are there altogether or not at all.
        max_force: largest force on an atom, eV/A.
    """
    largest = np.linalg.norm(block.forces, axis=-1).max(axis=-1)  # [n_conf], NaN where missing
    has_energy, has_forces = np.isfinite(block.energies), np.isfinite(largest)
    labelled = has_energy & has_forces
    gentle = np.ones_like(labelled)
    if max_force is not None:
        gentle = ~(largest > max_force)
    exclusions = Exclusions(
        int((~has_energy).sum()),
        int((has_energy & ~has_forces).sum()),
        int((labelled & ~gentle).sum()),
    )
    return labelled & gentle, exclusions


def find_edges(
    joined: Part, cutoff: float, classes: tuple[str, ...], exclusions: Exclusions
) -> ConformationStore:
    """Completes conformations with their edges."""
    atom_offsets = _offsets(joined.n_atoms)
    senders, receivers, n_edges = _edges(joined.positions, atom_offsets, cutoff)
    return ConformationStore(
        joined.atomic_numbers,
        joined.positions,
        joined.forces,
        joined.energies,
        atom_offsets,
        senders,
        receivers,
        _offsets(n_edges),
        joined.class_idx,
        classes,
        joined.dataset_idx,
        exclusions,
    )


def _edges(
    positions: NDArray[np.float64], atom_offsets: NDArray[np.int64], cutoff: float
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Finds the edges, numbered within each conformation, and counts them per conformation."""
    senders = [np.empty(0, dtype=np.int32)]
    receivers = [np.empty(0, dtype=np.int32)]
    counts = [np.empty(0, dtype=np.int64)]
    n_conf = len(atom_offsets) - 1
    start = 0
    while start < n_conf:
        fitting = np.searchsorted(atom_offsets, atom_offsets[start] + _CHUNK_ATOMS, "right") - 1
        stop = max(start + 1, int(fitting))
        local = atom_offsets[start : stop + 1] - atom_offsets[start]
        chunk = positions[atom_offsets[start] : atom_offsets[stop]]
        system_idx = np.repeat(np.arange(stop - start), np.diff(local))
        edges = batched_neighbor_list(
            torch.from_numpy(chunk), torch.from_numpy(system_idx), None, cutoff
        )
        owner = system_idx[edges[1].numpy()]
        senders.append((edges[0].numpy() - local[owner]).astype(np.int32))
        receivers.append((edges[1].numpy() - local[owner]).astype(np.int32))
        counts.append(np.bincount(owner, minlength=stop - start))
        start = stop
    return np.concatenate(senders), np.concatenate(receivers), np.concatenate(counts)


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenates the index ranges `starts[i] : starts[i] + lengths[i]`."""
    before = _offsets(lengths)[:-1]
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)


def _ranges(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenates the index ranges `offsets[row] : offsets[row + 1]`."""
    return ranges(offsets[rows], offsets[rows + 1] - offsets[rows])


def lone_atoms(energies: Mapping[int, float], dtype: torch.dtype) -> Batch:
    """Makes one isolated atom of each element.

    Args:
        energies: label of each, relative to the self energy, eV, by atomic number.
        dtype: of positions and forces.
    """
    n = len(energies)
    none = torch.empty(0, dtype=torch.int64)
    return Batch(
        torch.tensor(list(energies), dtype=torch.int64),
        torch.zeros((n, 3), dtype=dtype),
        torch.arange(n),
        none,
        none,
        torch.ones(n, dtype=torch.int64),
        torch.tensor(list(energies.values()), dtype=torch.float64),
        torch.zeros((n, 3), dtype=dtype),
        torch.full((n,), -1, dtype=torch.int64),
    )


def join(first: Batch, second: Batch) -> Batch:
    """Joins two batches; the systems of `second` follow those of `first`."""
    n_atoms, n_systems = len(first.positions), len(first.n_atoms)
    return Batch(
        torch.cat([first.atomic_numbers, second.atomic_numbers]),
        torch.cat([first.positions, second.positions]),
        torch.cat([first.system_idx, second.system_idx + n_systems]),
        torch.cat([first.senders, second.senders + n_atoms]),
        torch.cat([first.receivers, second.receivers + n_atoms]),
        torch.cat([first.n_atoms, second.n_atoms]),
        torch.cat([first.energies, second.energies]),
        torch.cat([first.forces, second.forces]),
        torch.cat([first.class_idx, second.class_idx]),
    )
