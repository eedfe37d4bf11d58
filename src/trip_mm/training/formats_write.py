"""Writing conformations to our own HDF5 layout, each file complete or absent."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from trip_mm.files import replacing
from trip_mm.training.formats import FORMAT_NAME, FORMAT_VERSION
from trip_mm.training.groups import Conformation, MemoryGroup, group_conformations


@dataclass(frozen=True)
class FileHeader:
    """Root attributes of a file: what was computed, how, and what failed.

    Attributes:
        source: recipe or geometry file that the conformations came from.
        level_of_theory: method of the labels; empty for geometries.
        lone_atom_energies: eV of the isolated atom at the same level, by atomic number.
        failures: number of conformations that got no label, by reason.
        split_by: `formula` or `source` for each class of system.
        failed_ids: ids of the geometries that got no label.
        labelling: settings and digest of the geometries of a labelling; goes into JSON.
    """

    source: str
    level_of_theory: str = ""
    lone_atom_energies: Mapping[int, float] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    split_by: Mapping[str, str] = field(default_factory=dict)
    failed_ids: tuple[int, ...] = ()
    labelling: Mapping[str, object] = field(default_factory=dict)


def write_conformations(
    path: Path, conformations: Sequence[Conformation], header: FileHeader
) -> None:
    """Writes conformations with their labels; the file appears under its name when complete."""
    _write(path, conformations, header, labelled=True)


def write_geometries(path: Path, conformations: Sequence[Conformation], header: FileHeader) -> None:
    """Writes conformations without energies and forces."""
    _write(path, conformations, header, labelled=False)


def _write(
    path: Path, conformations: Sequence[Conformation], header: FileHeader, labelled: bool
) -> None:
    sources = sorted({conformation.source for conformation in conformations})
    source_index = {name: index for index, name in enumerate(sources)}
    with new_file(path, header, sources) as file:
        for group in group_conformations(conformations, header.split_by):
            _write_group(file, group, source_index, labelled)


@contextmanager
def new_file(path: Path, header: FileHeader, sources: Sequence[str]) -> Iterator[h5py.File]:
    """Opens a file of our own layout with its header written, for the groups to be added.

    It appears under its name when the block is left, and not at all after an exception.

    Args:
        path: of the file.
        header: root attributes.
        sources: names that `sources` of the groups point to.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        _write_header(file, header, sources)
        yield file


def _write_header(file: h5py.File, header: FileHeader, sources: Sequence[str]) -> None:
    file.attrs["format"] = FORMAT_NAME
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["source"] = header.source
    file.attrs["source_names"] = json.dumps(list(sources))
    file.attrs["failures"] = json.dumps(dict(header.failures))
    file.attrs["units"] = "A, eV, eV/A"
    file.attrs["level_of_theory"] = header.level_of_theory
    file.attrs["lone_atom_energies"] = json.dumps(
        {str(number): energy for number, energy in header.lone_atom_energies.items()}
    )
    if header.labelling:
        file.attrs["labelling"] = json.dumps(dict(header.labelling))
    if header.failed_ids:
        file["failed_ids"] = np.asarray(header.failed_ids, dtype=np.int64)


def _write_group(
    file: h5py.File, group: MemoryGroup, source_index: Mapping[str, int], labelled: bool
) -> None:
    target = file.create_group(f"{group.system_class}/{group.formula}")
    target.attrs["split_by"] = group.split_by
    block = group.block
    target["atomic_numbers"] = group.atomic_numbers
    target["coordinates"] = block.positions.astype(np.float32)
    target["sources"] = np.asarray([source_index[name] for name in block.sources], dtype=np.int32)
    target["n_unpaired"] = block.n_unpaired.astype(np.int8)
    target["geometry_ids"] = block.geometry_ids
    if labelled:
        target["energies"] = block.energies
        target["forces"] = block.forces.astype(np.float32)
        target["energies"].attrs["units"] = "eV"
        target["forces"].attrs["units"] = "eV/A"
    target["coordinates"].attrs["units"] = "A"
