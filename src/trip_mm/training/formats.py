"""File layouts of labelled conformations: our own HDF5, ANI-1x, COMP6 and extended XYZ.

Every layout is presented as a list of `Group`: conformations that share their composition, read
in slices so that a file of millions of conformations never has to fit into memory.

Our own layout, format version 1, one group per class of system and formula::

    /                        attributes format="trip-mm-labels", format_version=1,
                             level_of_theory, lone_atom_energies (JSON: {"1": eV, ...}), source
                             source_names (JSON list), failures (JSON: {reason: count}),
                             labelling (JSON: settings, sha256 of the geometries; may be absent)
    /failed_ids              [n_failed] int64, geometries that got no label (absent if none)
    /<class>/<formula>       attribute split_by: "formula" or "source"
        atomic_numbers [n_atoms] int64, ascending
        coordinates    [n_conf, n_atoms, 3] float32, A
        energies       [n_conf] float64, eV, NaN where missing
        forces         [n_conf, n_atoms, 3] float32, eV/A, NaN where missing
        sources        [n_conf] int32, index into source_names: trajectory or molecule of origin
        n_unpaired     [n_conf] int8, unpaired electrons of the calculation
        geometry_ids   [n_conf] int64, position in the geometry file that was labelled

`energies` and `forces` are absent in a file of geometries without labels.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import atomic_number, formula
from trip_mm.errors import DataError
from trip_mm.training.formats_xyz import read_frames
from trip_mm.training.groups import Block, Group, group_conformations
from trip_mm.units import HARTREE_TO_EV

FORMAT_NAME = "trip-mm-labels"
FORMAT_VERSION = 1
SPLIT_KEYS = ("formula", "source")


@dataclass(frozen=True)
class Hdf5Keys:
    """Names of the datasets in a group, and the factors that bring them to eV and eV/A."""

    energies: str
    forces: str
    energy_factor: float = 1.0
    force_factor: float = 1.0


_OWN_KEYS = Hdf5Keys("energies", "forces")
_ANI1X_KEYS = Hdf5Keys("wb97x_dz.energy", "wb97x_dz.forces", HARTREE_TO_EV, HARTREE_TO_EV)
# COMP6 stores gradients under the name `forces`.
COMP6_KEYS = Hdf5Keys("energies", "forces", HARTREE_TO_EV, -HARTREE_TO_EV)


@dataclass(frozen=True)
class Hdf5Group:
    """A group of an HDF5 file; the file is opened for each read, so the object pickles."""

    path: Path
    name: str
    system_class: str
    formula: str
    split_by: str
    atomic_numbers: NDArray[np.int64]
    n_conformations: int
    keys: Hdf5Keys
    source_names: tuple[str, ...] = ()

    def read(self, rows: slice) -> Block:
        """Reads a contiguous slice of the conformations from the file."""
        with h5py.File(self.path, "r") as file:
            return self._read_from(file[self.name], rows)

    def _read_from(self, group: Any, rows: slice) -> Block:
        positions = np.asarray(group["coordinates"][rows], dtype=np.float64)
        n_conf = len(positions)
        energies = np.full(n_conf, np.nan)
        forces = np.full(positions.shape, np.nan)
        if self.keys.energies in group:
            energies = np.asarray(group[self.keys.energies][rows], dtype=np.float64)
        if self.keys.forces in group:
            forces = np.asarray(group[self.keys.forces][rows], dtype=np.float64)
        sources = [self.formula] * n_conf
        if self.source_names and "sources" in group:
            sources = [self.source_names[i] for i in group["sources"][rows]]
        return Block(
            positions,
            energies * self.keys.energy_factor,
            forces * self.keys.force_factor,
            sources,
            _integers(group, "n_unpaired", rows, n_conf, 0),
            _integers(group, "geometry_ids", rows, n_conf, -1),
        )


@dataclass(frozen=True)
class FileContents:
    """What a file of conformations holds.

    Attributes:
        groups: conformations of one composition each.
        level_of_theory: of the labels, empty where the file does not state it.
        lone_atom_energies: eV of the isolated atom at the same level, by atomic number.
        failures: number of conformations that got no label, by reason.
        is_labelled: whether there are energies, not geometries alone.
    """

    groups: tuple[Group, ...]
    level_of_theory: str
    lone_atom_energies: dict[int, float]
    failures: dict[str, int]
    is_labelled: bool = True


def read_contents(path: Path) -> FileContents:
    """Lists the groups of a file of any known layout without reading the conformations.

    Args:
        path: `.h5`/`.hdf5` in our own, ANI-1x or COMP6 layout, or `.xyz`/`.extxyz`.

    Raises:
        DataError: the file does not exist, is not readable or has no known layout.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a file of labelled conformations")
    if path.suffix.lower() in (".xyz", ".extxyz"):
        return _xyz_contents(path)
    try:
        with h5py.File(path, "r") as file:
            return _hdf5_layout(file, path)(file, path)
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file ({error}); check the download") from None


def read_failed_ids(path: Path) -> list[int]:
    """Returns the ids of the geometries that got no label in a file of our own layout."""
    with h5py.File(path, "r") as file:
        if "failed_ids" not in file:
            return []
        return [int(number) for number in file["failed_ids"][:]]


def read_geometry_ids(path: Path) -> list[int]:
    """Returns the ids of the geometries with a label in a file of our own layout."""
    with h5py.File(path, "r") as file:
        classes = [item for item in file.values() if isinstance(item, h5py.Group)]
        return [int(i) for item in classes for g in item.values() for i in g["geometry_ids"][:]]


def read_labelling(path: Path) -> dict[str, Any]:
    """Returns the settings and the digest of the geometries of a labelling; empty if unrecorded."""
    with h5py.File(path, "r") as file:
        return dict(json.loads(file.attrs.get("labelling", "{}")))


def _hdf5_layout(file: Any, path: Path) -> Callable[[Any, Path], FileContents]:
    if file.attrs.get("format") == FORMAT_NAME:
        return _own_contents
    first = next(iter(file.values()), None)
    if isinstance(first, h5py.Group):
        if "coordinates" in first and "atomic_numbers" in first:
            return _ani1x_contents
        inner = next(iter(first.values()), None)
        if isinstance(inner, h5py.Group) and "species" in inner and "coordinates" in inner:
            return _comp6_contents
    raise DataError(
        f"{path}: unknown HDF5 layout; known are trip-mm labels, the ANI-1x release and COMP6"
    )


def _own_contents(file: Any, path: Path) -> FileContents:
    version = int(file.attrs.get("format_version", 0))
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {version}, this trip-mm reads {FORMAT_VERSION}; "
            "write the file again or install the matching trip-mm"
        )
    sources = tuple(json.loads(file.attrs.get("source_names", "[]")))
    groups: list[Group] = []
    labelled = False
    for class_name, class_group in file.items():
        if not isinstance(class_group, h5py.Group):
            continue
        for name, group in class_group.items():
            labelled |= _OWN_KEYS.energies in group
            numbers = np.asarray(group["atomic_numbers"], dtype=np.int64)
            split_by = str(group.attrs.get("split_by", "formula"))
            if split_by not in SPLIT_KEYS:
                raise DataError(f"{path}: {class_name}/{name}: split_by {split_by!r} is unknown")
            groups.append(
                Hdf5Group(
                    path,
                    f"{class_name}/{name}",
                    class_name,
                    name,
                    split_by,
                    numbers,
                    _checked_count(group, path, numbers),
                    _OWN_KEYS,
                    sources,
                )
            )
    lone = json.loads(file.attrs.get("lone_atom_energies", "{}"))
    return FileContents(
        tuple(groups),
        str(file.attrs.get("level_of_theory", "")),
        {int(number): float(energy) for number, energy in lone.items()},
        dict(json.loads(file.attrs.get("failures", "{}"))),
        labelled,
    )


def _ani1x_contents(file: Any, path: Path) -> FileContents:
    groups: list[Group] = []
    for name, group in file.items():
        numbers = np.asarray(group["atomic_numbers"], dtype=np.int64)
        n_conf = _checked_count(group, path, numbers)
        groups.append(Hdf5Group(path, name, "ani1x", name, "formula", numbers, n_conf, _ANI1X_KEYS))
    return FileContents(tuple(groups), "wb97x/6-31g*", {}, {})


def _comp6_contents(file: Any, path: Path) -> FileContents:
    groups: list[Group] = []
    for subset, members in file.items():
        for name, group in members.items():
            symbols = [symbol.decode("ascii") for symbol in group["species"][:]]
            numbers = np.asarray([atomic_number(symbol) for symbol in symbols], dtype=np.int64)
            groups.append(
                Hdf5Group(
                    path,
                    f"{subset}/{name}",
                    subset,
                    formula(numbers),
                    "formula",
                    numbers,
                    _checked_count(group, path, numbers),
                    COMP6_KEYS,
                )
            )
    return FileContents(tuple(groups), "wb97x/6-31g*", {}, {})


def _checked_count(group: Any, path: Path, numbers: NDArray[np.int64]) -> int:
    shape = group["coordinates"].shape
    if len(shape) != 3 or shape[1:] != (len(numbers), 3):
        raise DataError(
            f"{path}: {group.name}: coordinates of shape {shape} do not fit {len(numbers)} atoms"
        )
    return int(shape[0])


def _integers(group: Any, key: str, rows: slice, n_conf: int, default: int) -> NDArray[np.int64]:
    if key not in group:
        return np.full(n_conf, default, dtype=np.int64)
    return np.asarray(group[key][rows], dtype=np.int64)


def _xyz_contents(path: Path) -> FileContents:
    frames = read_frames(path)
    labelled = any(np.isfinite(item.energy) for item in frames.conformations)
    groups = [replace(g, path=path) for g in group_conformations(frames.conformations, {})]
    return FileContents(tuple(groups), frames.level_of_theory, {}, {}, labelled)
