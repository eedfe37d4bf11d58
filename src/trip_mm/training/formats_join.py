"""Joining files of our own layout to one, a file at a time: memory for the largest of them.

The conformations of a group follow each other in the order of the files, as if all had been read
and written together.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import DataError
from trip_mm.training.formats_write import FileHeader, new_file

_SOURCES = "sources"
_NUMBERS = "atomic_numbers"


def join_files(paths: Sequence[Path], out: Path, header: FileHeader) -> None:
    """Writes the conformations of several files to one, which appears when it is complete.

    Args:
        paths: files of our own layout, all with labels or all without.
        out: file to write.
        header: of the joined file; its `split_by` is written to the groups.

    Raises:
        DataError: a group of one file lacks a data set that it has in another.
    """
    sources: set[str] = set()
    counts: Counter[str] = Counter()
    home: dict[str, Path] = {}
    for path in paths:
        with h5py.File(path, "r") as file:
            sources.update(_source_names(file))
            for key, group in _groups(file):
                counts[key] += len(group["coordinates"])
                home.setdefault(key, path)
    names = sorted(sources)
    index = {name: number for number, name in enumerate(names)}
    with new_file(out, header, names) as joined:
        targets = _allocated(joined, counts, home)
        for key in counts:
            joined[key].attrs["split_by"] = header.split_by.get(key.split("/")[0], "formula")
        filled: Counter[str] = Counter()
        for path in paths:
            with h5py.File(path, "r") as file:
                table = np.asarray([index[name] for name in _source_names(file)], dtype=np.int32)
                for key, group in _groups(file):
                    filled[key] += _copy_rows(path, group, targets[key], filled[key], table)


def _source_names(file: h5py.File) -> list[str]:
    return list(json.loads(file.attrs["source_names"]))


def _groups(file: h5py.File) -> Iterator[tuple[str, h5py.Group]]:
    for class_name, members in file.items():
        if isinstance(members, h5py.Group):
            for name, group in members.items():
                yield f"{class_name}/{name}", group


def _allocated(
    joined: h5py.File, counts: Mapping[str, int], home: Mapping[str, Path]
) -> dict[str, dict[str, h5py.Dataset]]:
    """Creates every group with room for its rows; returns the data sets to fill, by name.

    Args:
        joined: file to write to.
        counts: conformations of each group.
        home: a file that holds the group, whose shapes and attributes it takes over.
    """
    found: dict[str, dict[str, h5py.Dataset]] = {}
    for key, n_rows in counts.items():
        group = joined.create_group(key)
        found[key] = {}
        with h5py.File(home[key], "r") as file:
            for name, column in file[key].items():
                if name == _NUMBERS:
                    group[name] = column[:]
                    continue
                shape = (n_rows, *column.shape[1:])
                found[key][name] = group.create_dataset(name, shape, column.dtype)
                found[key][name].attrs.update(column.attrs)
    return found


def _copy_rows(
    path: Path,
    group: h5py.Group,
    targets: Mapping[str, h5py.Dataset],
    first: int,
    source_table: NDArray[np.int32],
) -> int:
    """Copies the rows of a group and returns how many."""
    n_rows = 0
    for name, target in targets.items():
        if name not in group:
            raise DataError(f"{path}: {group.name} lacks {name}; remove the file, make it again")
        rows = group[name][:]
        n_rows = len(rows)
        target[first : first + n_rows] = source_table[rows] if name == _SOURCES else rows
    return n_rows
