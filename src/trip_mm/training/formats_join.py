"""Joining files of our own layout to one, a file at a time: memory for the largest of them.

The conformations of a group follow each other in the order of the files, as if all had been read
and written together.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import DataError
from trip_mm.training.formats_write import FileHeader, new_file

_SOURCES = "sources"
_NUMBERS = "atomic_numbers"


@dataclass(frozen=True)
class _Column:
    """One data set of a group without its rows."""

    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class _Layout:
    """One group without its rows."""

    atomic_numbers: NDArray[np.int64]
    columns: dict[str, _Column]


def join_files(paths: Sequence[Path], out: Path, header: FileHeader) -> None:
    """Writes the conformations of several files to one, which appears when it is complete.

    Args:
        paths: files of our own layout, all with labels or all without.
        out: file to write.
        header: of the joined file; its `split_by` is written to the groups.

    Raises:
        DataError: two files hold different data sets under one class and formula.
    """
    sources: set[str] = set()
    counts: Counter[str] = Counter()
    layouts: dict[str, _Layout] = {}
    for path in paths:
        with h5py.File(path, "r") as file:
            sources.update(_source_names(file))
            for key, group in _groups(file):
                counts[key] += len(group["coordinates"])
                found = _layout(group)
                _check_layout(path, key, layouts.setdefault(key, found), found)
    names = sorted(sources)
    index = {name: number for number, name in enumerate(names)}
    with new_file(out, header, names) as joined:
        targets = {key: _allocated(joined, key, layouts[key], counts[key]) for key in layouts}
        for key, target in targets.items():
            target.attrs["split_by"] = header.split_by.get(key.split("/")[0], "formula")
        filled: Counter[str] = Counter()
        for path in paths:
            with h5py.File(path, "r") as file:
                table = np.asarray([index[name] for name in _source_names(file)], dtype=np.int32)
                for key, group in _groups(file):
                    _copy_rows(group, targets[key], filled[key], table)
                    filled[key] += len(group["coordinates"])


def _source_names(file: h5py.File) -> list[str]:
    return list(json.loads(file.attrs["source_names"]))


def _groups(file: h5py.File) -> Iterator[tuple[str, h5py.Group]]:
    for class_name, members in file.items():
        if isinstance(members, h5py.Group):
            for name, group in members.items():
                yield f"{class_name}/{name}", group


def _layout(group: h5py.Group) -> _Layout:
    columns = {
        name: _Column(column.shape[1:], column.dtype, dict(column.attrs))
        for name, column in group.items()
        if name != _NUMBERS
    }
    return _Layout(group[_NUMBERS][:], columns)


def _check_layout(path: Path, key: str, first: _Layout, found: _Layout) -> None:
    same_atoms = np.array_equal(first.atomic_numbers, found.atomic_numbers)
    if not same_atoms or first.columns != found.columns:
        raise DataError(f"{path}: {key}: holds other data sets than the files before; remove it")


def _allocated(file: h5py.File, key: str, layout: _Layout, n_rows: int) -> h5py.Group:
    group = file.create_group(key)
    group[_NUMBERS] = layout.atomic_numbers
    for name, column in layout.columns.items():
        target = group.create_dataset(name, (n_rows, *column.row_shape), column.dtype)
        for attribute, value in column.attributes.items():
            target.attrs[attribute] = value
    return group


def _copy_rows(
    group: h5py.Group, target: h5py.Group, first: int, source_table: NDArray[np.int32]
) -> None:
    for name, column in group.items():
        if name != _NUMBERS:
            rows = column[:]
            rows = source_table[rows] if name == _SOURCES else rows
            target[name][first : first + len(rows)] = rows
