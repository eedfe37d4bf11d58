"""The finished chunks of a labelling: what each was made from, writing one, joining all."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import DataError
from trip_mm.training.dataset import ENERGY_TOLERANCE, Dataset
from trip_mm.training.formats import (
    FileContents,
    read_contents,
    read_failed_ids,
    read_geometry_ids,
    read_labelling,
)
from trip_mm.training.formats_join import join_files
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.groups import Conformation

_DIGEST_BYTES = 16
_ROWS = 1024
GEOMETRIES_SHA256 = "geometries_sha256"


@dataclass(frozen=True)
class LabelledChunk:
    """What became of the geometries of one chunk.

    Attributes:
        labelled: conformations with energies and forces.
        failures: number of failures by reason.
        failed_ids: ids of the geometries that got no label.
    """

    labelled: tuple[Conformation, ...]
    failures: dict[str, int]
    failed_ids: tuple[int, ...]


@dataclass(frozen=True)
class GeometryIndex:
    """The geometries of a file by id, without their coordinates.

    Attributes:
        rows: position in the data set of each geometry id, `[n_geometries]` int64.
        digests: of atomic numbers, float32 positions and unpaired electrons of each geometry id,
            `[n_geometries, 16]` uint8.
    """

    rows: NDArray[np.int64]
    digests: NDArray[np.uint8]

    def first(self, n_geometries: int) -> "GeometryIndex":
        """Returns the index of the geometries whose ids are below `n_geometries`."""
        return GeometryIndex(self.rows[:n_geometries], self.digests[:n_geometries])

    def sha256(self, ids: Sequence[int] | slice = slice(None)) -> str:
        """Returns one digest of some geometries in the order of `ids`; of all by default."""
        return hashlib.sha256(self.digests[ids].tobytes()).hexdigest()


def index_geometries(dataset: Dataset) -> GeometryIndex:
    """Reads a file of geometries once and returns its index.

    Raises:
        DataError: the geometry ids are not 0 ... n - 1.
    """
    ids = np.empty(len(dataset), dtype=np.int64)
    digests = np.empty((len(dataset), _DIGEST_BYTES), dtype=np.uint8)
    row = 0
    for group in dataset.groups:
        composition = hashlib.blake2b(
            np.asarray(group.atomic_numbers, dtype="<i8").tobytes(), digest_size=_DIGEST_BYTES
        )
        for start in range(0, group.n_conformations, _ROWS):
            block = group.read(slice(start, start + _ROWS))
            ids[row : row + len(block.positions)] = block.geometry_ids
            positions = block.positions.astype("<f4")
            for own, n_unpaired in zip(positions, block.n_unpaired, strict=True):
                digest = composition.copy()
                digest.update(own.tobytes() + int(n_unpaired).to_bytes(8, "little", signed=True))
                digests[row] = np.frombuffer(digest.digest(), dtype=np.uint8)
                row += 1
    order = np.argsort(ids)
    if not np.array_equal(ids[order], np.arange(len(ids))):
        raise DataError("geometry ids are not 0 ... n - 1; write the file with trip-mm sample")
    return GeometryIndex(order, digests[order])


@dataclass(frozen=True)
class Parts:
    """The parts of one labelling, finished or not.

    Attributes:
        directory: where the finished ones lie.
        header: of every part, without failures.
        geometries: what is labelled.
        chunk: geometries in one part.
    """

    directory: Path
    header: FileHeader
    geometries: GeometryIndex
    chunk: int

    def chunks(self) -> dict[int, range]:
        """Returns the geometry ids of every part by their first."""
        n_geometries = len(self.geometries.rows)
        return {
            first: range(first, min(first + self.chunk, n_geometries))
            for first in range(0, n_geometries, self.chunk)
        }

    def path(self, first: int) -> Path:
        """Returns the path of the part whose first geometry id is `first`."""
        return self.directory / f"part-{first:08d}.h5"

    def name(self, first: int) -> str:
        """Returns what a part is called in messages."""
        ids = self.chunks()[first]
        return f"geometries {ids[0]} to {ids[-1]} ({self.path(first).name})"

    def finished(self) -> dict[int, dict[str, int]]:
        """Checks the parts that lie there; returns the failures by reason of each, by its first id.

        Raises:
            DataError: a part was made from other geometries or with other settings.
        """
        chunks = self.chunks()
        done = {}
        for path in sorted(self.directory.glob("part-*.h5")):
            first = int(path.stem.removeprefix("part-"))
            part = read_contents(path)
            found = self._differences(path, part, chunks.get(first, range(0)))
            if found:
                raise DataError(
                    f"{path}: does not belong to this labelling: {'; '.join(found)}; repeat what "
                    f"it was made with, or remove {self.directory}, or choose another --out"
                )
            done[first] = part.failures
        return done

    def _differences(self, path: Path, part: FileContents, expected_ids: range) -> list[str]:
        """Says in which respects a part is not one of this labelling."""
        labelling = read_labelling(path)
        if not labelling:
            return ["an earlier trip-mm wrote it, without a record of geometries and settings"]
        found = self._other_settings(labelling, part)
        if {*read_geometry_ids(path), *read_failed_ids(path)} != set(expected_ids):
            found.append("another --chunk or number of geometries")
        elif labelling.get(GEOMETRIES_SHA256) != self.geometries.sha256(expected_ids):
            found.append("other geometries under the same ids")
        return found

    def _other_settings(self, labelling: Mapping[str, object], part: FileContents) -> list[str]:
        found = []
        if part.level_of_theory != self.header.level_of_theory:
            found.append(f"method {part.level_of_theory}, now {self.header.level_of_theory}")
        for name, value in self.header.labelling.items():
            if labelling.get(name) != value:
                found.append(f"{name} {labelling.get(name)}, now {value}")
        if not same_energies(part.lone_atom_energies, self.header.lone_atom_energies):
            found.append("other energies of isolated atoms, as of another version of the program")
        return found

    def is_finished(self, out: Path) -> bool:
        """Returns whether the finished file is there already, with all that is to be labelled.

        It may grow, from the first geometries to more of them, while its parts are there.

        Args:
            out: where the finished file would be.

        Raises:
            DataError: what lies there are not labels of these geometries with these settings, or
                fewer of them without their parts.
        """
        if not out.exists():
            return False
        parts = self.finished()
        ids = range(0)
        found = ["no file of trip-mm label, or of an earlier trip-mm"]
        if h5py.is_hdf5(out) and (labelling := read_labelling(out)):
            found = self._other_settings(labelling, read_contents(out))
            ids = range(len({*read_geometry_ids(out), *read_failed_ids(out)}))
            if len(ids) > len(self.geometries.rows):
                found.append(f"{len(ids)} geometries, now {len(self.geometries.rows)}")
            elif labelling.get(GEOMETRIES_SHA256) != self.geometries.sha256(ids):
                found.append("other geometries")
        if found:
            raise DataError(
                f"{out}: is there already, and would be replaced: {'; '.join(found)}; choose "
                "another --out, or delete it"
            )
        is_whole = len(ids) == len(self.geometries.rows)
        if not is_whole and not parts:
            raise DataError(
                f"{out}: holds the first {len(ids)} of these geometries, and its parts in "
                f"{self.directory} are gone; take them over: --known {out} and another --out"
            )
        return is_whole

    def write(self, first: int, found: LabelledChunk) -> None:
        """Writes a part; it appears under its name when it is complete."""
        write_conformations(
            self.path(first),
            found.labelled,
            replace(
                self.header,
                failures=found.failures,
                failed_ids=found.failed_ids,
                labelling=self._labelling(self.geometries.sha256(self.chunks()[first])),
            ),
        )

    def _labelling(self, sha256: str) -> Mapping[str, object]:
        return {**self.header.labelling, GEOMETRIES_SHA256: sha256}

    def join(self, out: Path) -> None:
        """Joins the parts into the finished file; the parts stay until they are removed."""
        paths = sorted(self.directory.glob("part-*.h5"))
        failures: Counter[str] = Counter()
        for path in paths:
            failures.update(read_contents(path).failures)
        failed = [i for path in paths for i in read_failed_ids(path)]
        header = replace(
            self.header,
            failures=failures,
            failed_ids=tuple(sorted(failed)),
            labelling=self._labelling(self.geometries.sha256()),
        )
        join_files(paths, out, header)


def same_energies(first: Mapping[int, float], second: Mapping[int, float]) -> bool:
    """Returns whether two sets of energies in eV are those of the same elements, and equal."""
    if first.keys() != second.keys():
        return False
    return all(abs(first[number] - second[number]) <= ENERGY_TOLERANCE for number in first)
