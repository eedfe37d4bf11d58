"""Millions of labelled conformations: a compact copy on disk, read minibatch by minibatch.

`spool` reads the data files once, group by group in slices, checks every number as `build_store`
does, and writes what training needs beside the run::

    conformations/
        header.json    fingerprints of files and settings, groups, what was left out, digest
        index.npz      of each conformation: group, energy, edges, position in the data set
        positions.bin  float32, A; forces.bin  float32, eV/A; one conformation after the other

The two large files are mapped into memory, not read: the system keeps of them what fits, and all
processes on a machine share it. Energies stay float64. Edges are found when a minibatch is made.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray

from trip_mm.errors import DataError
from trip_mm.neighbors import batched_neighbor_list
from trip_mm.training.checks import check_block
from trip_mm.training.conformations import (
    Batch,
    ConformationStore,
    Exclusions,
    Part,
    find_edges,
    ranges,
    usable,
)
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import Group
from trip_mm.training.spool_identity import (
    FORCES,
    HEADER,
    INDEX,
    POSITIONS,
    SpoolSettings,
    content_of,
    local_fingerprint,
    partial_folders,
    read_header,
)

SPOOL = "conformations"
_SLICE_ATOMS = 100_000
_CHUNK_CONFORMATIONS = 100_000


@dataclass(frozen=True)
class StreamedStore:
    """Conformations whose coordinates and forces lie on disk.

    Attributes:
        positions: A, `[n_atoms_total, 3]` float32, mapped.
        forces: eV/A, `[n_atoms_total, 3]` float32, mapped.
        group_numbers: atomic numbers of each group, `[n_atoms]` int64.
        group_idx: group of each conformation, `[n_conformations]` int32.
        starts: first atom of each conformation in the files, `[n_conformations]` int64.
        energies: label minus isolated atoms, eV, `[n_conformations]` float64.
        n_edges: of each conformation, `[n_conformations]` int64.
        class_of_group: class of each group, `[n_groups]` int64, into `classes`.
        classes: names of the classes of systems.
        dataset_idx: position of each conformation in the data set, `[n_conformations]` int64.
        exclusions: what was left out.
        cutoff: range of the edges, A.
        digest: sha256 of everything that was spooled.
    """

    positions: NDArray[np.float32]
    forces: NDArray[np.float32]
    group_numbers: tuple[NDArray[np.int64], ...]
    group_idx: NDArray[np.int32]
    starts: NDArray[np.int64]
    energies: NDArray[np.float64]
    n_edges: NDArray[np.int64]
    class_of_group: NDArray[np.int64]
    classes: tuple[str, ...]
    dataset_idx: NDArray[np.int64]
    exclusions: Exclusions
    cutoff: float
    digest: str

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Atoms of each conformation, `[n_conformations]`."""
        return np.asarray(self._sizes()[self.group_idx])

    @property
    def class_idx(self) -> NDArray[np.int64]:
        """Class of each conformation, `[n_conformations]`."""
        return np.asarray(self.class_of_group[self.group_idx])

    def compositions(self, elements: Sequence[int]) -> NDArray[np.float64]:
        """Counts the atoms of each element, `[n_conformations, n_elements]`."""
        table = [[(numbers == z).sum() for z in elements] for numbers in self.group_numbers]
        return np.asarray(table, dtype=np.float64)[self.group_idx]

    def sha256(self) -> str:
        """Returns a digest of what was spooled and of which of it belongs to this store."""
        digest = hashlib.sha256(self.digest.encode("ascii"))
        digest.update(np.ascontiguousarray(self.dataset_idx).tobytes())
        return digest.hexdigest()

    def force_rms(self) -> float:
        """Returns the root mean square of the force components, eV/A."""
        total, count = 0.0, 0
        for first in range(0, len(self), _CHUNK_CONFORMATIONS):
            rows = np.arange(first, min(first + _CHUNK_CONFORMATIONS, len(self)))
            forces = self.forces[self._atoms(rows)].astype(np.float64)
            total, count = total + float(np.square(forces).sum()), count + forces.size
        return float(np.sqrt(total / count))

    def with_energies(self, energies: NDArray[np.float64]) -> Self:
        """Returns the same conformations with other energies, eV, `[n_conformations]`."""
        return replace(self, energies=energies)

    def subset(self, rows: NDArray[np.int64]) -> Self:
        """Returns some of the conformations, in the order given; nothing is copied on disk."""
        return replace(
            self,
            group_idx=self.group_idx[rows],
            starts=self.starts[rows],
            energies=self.energies[rows],
            n_edges=self.n_edges[rows],
            dataset_idx=self.dataset_idx[rows],
        )

    def batch(self, rows: NDArray[np.int64], dtype: torch.dtype) -> Batch:
        """Joins some of the conformations to one graph; positions and forces in `dtype`."""
        groups = self.group_idx[rows]
        counts = self._sizes()[groups]
        atoms = ranges(self.starts[rows], counts)
        positions = torch.from_numpy(self.positions[atoms])
        system_idx = torch.from_numpy(np.repeat(np.arange(len(rows)), counts))
        senders, receivers, _ = batched_neighbor_list(positions, system_idx, None, self.cutoff)
        return Batch(
            torch.from_numpy(self._numbers(rows)),
            positions.to(dtype),
            system_idx,
            senders,
            receivers,
            torch.from_numpy(counts),
            torch.from_numpy(self.energies[rows]),
            torch.from_numpy(self.forces[atoms]).to(dtype),
            torch.from_numpy(self.class_of_group[groups]),
        )

    def in_memory(self) -> ConformationStore:
        """Reads the conformations into memory and finds their edges."""
        rows = np.arange(len(self))
        atoms = self._atoms(rows)
        part = Part(
            self._numbers(rows),
            self.positions[atoms].astype(np.float64),
            self.forces[atoms].astype(np.float64),
            self.energies,
            self.n_atoms,
            self.class_idx,
            self.dataset_idx,
        )
        return find_edges(part, self.cutoff, self.classes, self.exclusions)

    def _sizes(self) -> NDArray[np.int64]:
        """Atoms of the conformations of each group, `[n_groups]`."""
        return np.asarray([len(numbers) for numbers in self.group_numbers], dtype=np.int64)

    def _atoms(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return ranges(self.starts[rows], self._sizes()[self.group_idx[rows]])

    def _numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        none = np.empty(0, dtype=np.int64)
        return np.concatenate([none, *(self.group_numbers[g] for g in self.group_idx[rows])])


def spool(
    dataset: Dataset, files: Sequence[Path], settings: SpoolSettings, folder: Path
) -> StreamedStore:
    """Writes the compact copy of a data set, or opens the one that lies there already.

    Args:
        dataset: what to read.
        files: that it was opened from; their names, sizes and times tell whether the copy is old.
        settings: what else decides the content.
        folder: of the copy; appears under its name when complete, replaces an old one.

    Raises:
        DataError: as `build_store`.
    """
    fingerprint = local_fingerprint(files, settings)
    if read_header(folder).get("fingerprint") != fingerprint:
        for left_by_a_kill in partial_folders(folder):
            shutil.rmtree(left_by_a_kill)
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        partial.mkdir(parents=True)
        fingerprints = {"fingerprint": fingerprint, "content": content_of(files, settings)}
        try:
            _write(dataset, settings, fingerprints, partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return open_spool(folder)


@dataclass(frozen=True)
class _Index:
    """Columns of the index for the kept conformations of one slice."""

    energies: NDArray[np.float64]
    n_edges: NDArray[np.int64]
    dataset_idx: NDArray[np.int64]


def _write(
    dataset: Dataset, settings: SpoolSettings, fingerprints: Mapping[str, str], folder: Path
) -> None:
    columns: list[_Index] = []
    owners: list[NDArray[np.int32]] = []
    exclusions = Exclusions()
    digest = hashlib.sha256()
    first = 0
    with (folder / POSITIONS).open("wb") as positions, (folder / FORCES).open("wb") as forces:
        for number, group in enumerate(dataset.groups):
            step = max(1, _SLICE_ATOMS // max(len(group.atomic_numbers), 1))
            for start in range(0, group.n_conformations, step):
                rows = slice(start, min(start + step, group.n_conformations))
                index, lost = _write_slice(group, rows, settings, (positions, forces), digest)
                exclusions += lost
                columns.append(replace(index, dataset_idx=index.dataset_idx + first))
                owners.append(np.full(len(index.energies), number, dtype=np.int32))
            first += group.n_conformations
    if not any(len(index.energies) for index in columns):
        raise DataError(
            "the data files hold no conformation with energy and forces; label some with "
            "`trip-mm label`"
        )
    np.savez(
        folder / INDEX,
        group_idx=np.concatenate(owners),
        energies=np.concatenate([index.energies for index in columns]),
        n_edges=np.concatenate([index.n_edges for index in columns]).astype(np.int32),
        dataset_idx=np.concatenate([index.dataset_idx for index in columns]),
    )
    header = {
        **fingerprints,
        "groups": [[g.system_class, g.atomic_numbers.tolist()] for g in dataset.groups],
        "exclusions": asdict(exclusions),
        "cutoff": settings.cutoff,
        "digest": digest.hexdigest(),
    }
    (folder / HEADER).write_text(json.dumps(header) + "\n", encoding="utf-8")


def _write_slice(
    group: Group,
    rows: slice,
    settings: SpoolSettings,
    files: tuple[BinaryIO, BinaryIO],
    digest: "hashlib._Hash",
) -> tuple[_Index, Exclusions]:
    block = group.read(rows)
    check_block(group, block, settings.lone_atom_energies, rows.start)
    keep, lost = usable(block, settings.max_force)
    own = sum(settings.lone_atom_energies[int(z)] for z in group.atomic_numbers)
    positions, energies = block.positions[keep], block.energies[keep] - own
    for file, values in zip(files, (positions, block.forces[keep]), strict=True):
        data = values.astype(np.float32).tobytes()
        file.write(data)
        digest.update(data)
    for column in (group.atomic_numbers, energies):
        digest.update(np.ascontiguousarray(column).tobytes())
    kept = np.arange(rows.start, rows.stop)[keep]
    return _Index(energies, _count_edges(positions, settings.cutoff), kept), lost


def _count_edges(positions: NDArray[np.float64], cutoff: float) -> NDArray[np.int64]:
    """Counts the edges of conformations `[n_conf, n_atoms, 3]`: what a minibatch is sized by."""
    squares = np.square(positions).sum(axis=2)
    distances = squares[:, :, None] + squares[:, None, :]
    distances -= 2.0 * positions @ positions.transpose(0, 2, 1)  # [n_conf, n_atoms, n_atoms]
    near = np.count_nonzero(distances < cutoff**2, axis=(1, 2))
    return np.asarray(near - positions.shape[1], dtype=np.int64)


def open_spool(folder: Path) -> StreamedStore:
    """Opens a complete copy."""
    header = read_header(folder)
    with np.load(folder / INDEX) as index:
        columns = {name: index[name] for name in index.files}
    numbers = tuple(np.asarray(group[1], dtype=np.int64) for group in header["groups"])
    classes = tuple(sorted({str(group[0]) for group in header["groups"]}))
    sizes = np.asarray([len(group) for group in numbers], dtype=np.int64)
    counts = sizes[columns["group_idx"]]
    shape = (int(counts.sum()), 3)
    return StreamedStore(
        np.memmap(folder / POSITIONS, np.float32, "r", shape=shape),
        np.memmap(folder / FORCES, np.float32, "r", shape=shape),
        numbers,
        columns["group_idx"],
        np.cumsum(counts) - counts,
        columns["energies"],
        columns["n_edges"].astype(np.int64),
        np.asarray([classes.index(str(group[0])) for group in header["groups"]], dtype=np.int64),
        classes,
        columns["dataset_idx"],
        Exclusions(**header["exclusions"]),
        float(header["cutoff"]),
        str(header["digest"]),
    )
