"""Parts of a labelling: joining them changes nothing and needs no memory for all of them."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from trip_mm.errors import DataError
from trip_mm.training.dataset import Dataset
from trip_mm.training.formats_join import join_files
from trip_mm.training.formats_write import FileHeader, write_conformations, write_geometries
from trip_mm.training.groups import Conformation
from trip_mm.training.labels_parts import LabelledChunk, Parts, index_geometries
from trip_mm.training.sampling_geometry import unlabelled

SPLIT_BY = {"cluster": "source", "molecule": "formula"}
LONE = {1: -10.0, 6: -50.0, 8: -100.0}


def labelled(numbers: list[int], kind: str, source: str, number: int) -> Conformation:
    rng = np.random.default_rng(number)
    item = unlabelled(numbers, rng.normal(size=(len(numbers), 3)), kind, source)
    return replace(
        item, energy=rng.normal(), forces=rng.normal(size=(len(numbers), 3)), geometry_id=number
    )


def parts_of(folder: Path, items: list[Conformation], chunk: int, failed: set[int]) -> Parts:
    """Writes the parts of a labelling in which some geometries got no label."""
    write_geometries(folder / "g.h5", items, FileHeader("test", split_by=SPLIT_BY))
    (folder / "parts").mkdir()
    header = FileHeader("g.h5", "GFN2-xTB", LONE, split_by=SPLIT_BY, labelling={"max_force": 30.0})
    parts = Parts(folder / "parts", header, index_geometries(Dataset.open(folder / "g.h5")), chunk)
    for first, ids in parts.chunks().items():
        lost = tuple(sorted(failed & set(ids)))
        kept = tuple(items[i] for i in ids if i not in failed)
        parts.write(first, LabelledChunk(kept, {"SCF": len(lost)} if lost else {}, lost))
    return parts


def content(path: Path) -> dict[str, Any]:
    """Everything a file holds, by the name of the object."""
    found: dict[str, Any] = {}

    def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
        values = (item.dtype, item[:].tolist()) if isinstance(item, h5py.Dataset) else None
        found[name] = (values, dict(item.attrs))

    with h5py.File(path) as file:
        found["/"] = dict(file.attrs)
        file.visititems(note)
    return found


def test_joined_parts_are_as_if_written_together(tmp_path: Path) -> None:
    kinds = [
        ([8, 1, 1], "cluster", "run b"),
        ([6, 1, 1, 1, 1], "molecule", "C"),
        ([8, 1, 1], "molecule", "O"),
        ([8, 1, 1], "cluster", "run a"),
    ]
    items = [labelled(*kinds[number % 4 if number < 12 else 0], number) for number in range(15)]
    parts = parts_of(tmp_path, items, chunk=4, failed={2, 8, 9, 10, 11})
    parts.join(tmp_path / "joined.h5")
    found = content(tmp_path / "joined.h5")
    together = Dataset.open(tmp_path / "parts")
    header = replace(
        parts.header,
        failures={"SCF": 5},
        failed_ids=(2, 8, 9, 10, 11),
        labelling={"max_force": 30.0, "geometries_sha256": parts.geometries.sha256()},
    )
    write_conformations(tmp_path / "expected.h5", list(together), header)
    assert found == content(tmp_path / "expected.h5")
    assert len(found) > 15


def test_joining_needs_memory_for_one_part(tmp_path: Path) -> None:
    items = [labelled([6] * 10 + [1] * 20, "molecule", "C", number) for number in range(3000)]
    parts = parts_of(tmp_path, items, chunk=100, failed=set())
    tracemalloc.start()
    parts.join(tmp_path / "joined.h5")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = (tmp_path / "joined.h5").stat().st_size
    assert size > 2_000_000
    assert peak < size / 4


def test_an_interrupted_join_leaves_nothing(tmp_path: Path) -> None:
    items = [labelled([8, 1, 1], "cluster", "run", number) for number in range(4)]
    parts = parts_of(tmp_path, items, chunk=2, failed=set())
    with h5py.File(parts.path(2), "r+") as file:
        del file["cluster/H2O/forces"]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"part-00000002.h5: /cluster/H2O lacks forces"):
        parts.join(tmp_path / "joined.h5")
    with h5py.File(parts.path(2), "r+") as file:
        file["cluster/H2O"].create_dataset("forces", data=np.zeros((2, 3, 3), dtype=np.float32))
        file["cluster/H2O/forces"].attrs["units"] = "eV/A"
        file["cluster/H2O/sources"][:] = 7
    with pytest.raises(IndexError):
        join_files(sorted(parts.directory.iterdir()), tmp_path / "joined.h5", parts.header)
    assert sorted(tmp_path.iterdir()) == before


def test_parts_with_other_energies_of_isolated_atoms_are_refused(tmp_path: Path) -> None:
    items = [labelled([8, 1, 1], "cluster", "run", number) for number in range(4)]
    parts = parts_of(tmp_path, items, chunk=2, failed={1})
    assert parts.finished() == {0: {"SCF": 1}, 2: {}}
    other = replace(parts.header, lone_atom_energies={**LONE, 1: -10.1})
    with pytest.raises(DataError, match="other energies of isolated atoms"):
        replace(parts, header=other).finished()
