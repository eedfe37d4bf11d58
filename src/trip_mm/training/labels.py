"""Labelling a file of geometries: resumable, parallel over processes or machines, failures counted.

While it works, finished chunks lie in `<out>.parts/part-<first id>.h5`, each a complete file in
our own layout that readers can open (`Dataset.open("<out>.parts")`). A chunk appears under its
name only when it is complete, so that a kill at any time loses at most the chunks in work and
never leaves a label twice. When every chunk is there they are joined into `<out>`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from trip_mm.errors import DataError
from trip_mm.training.dataset import Dataset
from trip_mm.training.formats import read_failed_ids
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.groups import Conformation
from trip_mm.training.labels_methods import LabelError, Labels, find_method, lone_atom_energies
from trip_mm.workers import Workers, results

DEFAULT_MAX_FORCE = 30.0
"""Conformations with a larger force on an atom (eV/A) are dropped, and counted."""


@dataclass(frozen=True)
class LabelJob:
    """What to label and how.

    Attributes:
        geometries: file of geometries in our own layout.
        out: file of labels to write.
        method: `gfn2`, or `functional/basis` for pyscf.
        chunk: geometries in one part.
        max_force: eV/A; a conformation with a larger force on an atom is dropped and counted.
    """

    geometries: Path
    out: Path
    method: str
    chunk: int = 100
    max_force: float = DEFAULT_MAX_FORCE

    @property
    def parts(self) -> Path:
        """Directory of finished chunks."""
        return self.out.with_name(f"{self.out.name}.parts")


@dataclass(frozen=True)
class LabelProgress:
    """How far a job has come.

    Attributes:
        n_done: geometries with a label or a failure.
        n_total: geometries of the file.
        failures: number of failures by reason, of the parts written by this call.
    """

    n_done: int
    n_total: int
    failures: dict[str, int]


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


def label(
    job: LabelJob,
    processes: int = 1,
    report: Callable[[LabelProgress], None] = lambda progress: None,
    scheduler: str | None = None,
) -> Path:
    """Labels what is not labelled yet, joins the parts and returns the finished file.

    Call it again with the same job after an interruption: finished parts are kept. Only this
    process writes.

    Args:
        job: what to label.
        processes: of this machine to work with.
        report: receives the progress after every part.
        scheduler: address of a Dask scheduler whose workers compute in place of processes here.

    Raises:
        ConfigError: the method is unknown, or both processes and a scheduler are given.
        MissingDependencyError: the program behind the method, or Dask, is not installed.
        DataError: the geometries cannot be read, parts there belong to another job, or the
            scheduler was lost.
    """
    workers = Workers(processes, scheduler)
    method = find_method(job.method)
    dataset = Dataset.open(job.geometries)
    header = _header(job, dataset, method.name, lone_atom_energies(method, dataset.elements()))
    job.parts.mkdir(parents=True, exist_ok=True)
    order = _by_geometry_id(dataset)
    chunks = _chunks(len(order), job.chunk)
    done = _finished_parts(job, header, chunks)
    waiting = [first for first in chunks if first not in done]
    n_done = sum(len(chunks[first]) for first in done)
    failures: Counter[str] = Counter()
    tasks = ((first, [dataset[int(i)] for i in order[list(chunks[first])]]) for first in waiting)
    compute = partial(label_chunk, job.method, job.max_force)
    for first, found in results(workers, compute, tasks):
        _write_part(job, header, first, found)
        failures.update(found.failures)
        n_done += len(chunks[first])
        report(LabelProgress(n_done, len(order), dict(failures)))
    return join_parts(job, header)


def _header(
    job: LabelJob, dataset: Dataset, level: str, lone_atoms: dict[int, float]
) -> FileHeader:
    split_by = {group.system_class: group.split_by for group in dataset.groups}
    return FileHeader(job.geometries.name, level, lone_atoms, {}, split_by)


def _by_geometry_id(dataset: Dataset) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Returns the position in the dataset of each geometry id, `[n_conformations]`."""
    ids = np.concatenate([g.read(slice(0, g.n_conformations)).geometry_ids for g in dataset.groups])
    if not np.array_equal(np.sort(ids), np.arange(len(ids))):
        raise DataError("geometry ids are not 0 ... n - 1; write the file with trip-mm sample")
    return np.argsort(ids)


def _chunks(n_geometries: int, size: int) -> dict[int, range]:
    return {
        first: range(first, min(first + size, n_geometries))
        for first in range(0, n_geometries, size)
    }


def part_path(job: LabelJob, first: int) -> Path:
    """Returns the path of the part whose first geometry id is `first`."""
    return job.parts / f"part-{first:08d}.h5"


def _finished_parts(job: LabelJob, header: FileHeader, chunks: dict[int, range]) -> set[int]:
    """Checks the parts that lie there and returns the first id of each."""
    done = set()
    for path in sorted(job.parts.glob("part-*.h5")):
        first = int(path.stem.removeprefix("part-"))
        part = Dataset.open(path)
        ids = {int(i) for g in part.groups for i in g.read(slice(0, None)).geometry_ids}
        ids |= set(read_failed_ids(path))
        if part.level_of_theory != header.level_of_theory or ids != set(chunks.get(first, [])):
            raise DataError(
                f"{path}: was made from other geometries, chunk size or method; "
                f"remove {job.parts} or choose another --out"
            )
        done.add(first)
    return done


def _write_part(job: LabelJob, header: FileHeader, first: int, found: LabelledChunk) -> None:
    write_conformations(
        part_path(job, first),
        found.labelled,
        replace(header, failures=found.failures, failed_ids=found.failed_ids),
    )


def label_chunk(method: str, max_force: float, geometries: Sequence[Conformation]) -> LabelledChunk:
    """Labels some geometries.

    Args:
        method: as in `LabelJob`.
        max_force: eV/A; a conformation with a larger force on an atom is dropped and counted.
        geometries: what to label.
    """
    calculation = find_method(method)
    labelled: list[Conformation] = []
    failures: Counter[str] = Counter()
    failed_ids: list[int] = []
    for item in geometries:
        try:
            found = calculation.calculate(item.atomic_numbers, item.positions, item.n_unpaired)
            _check_label(found, max_force)
        except LabelError as error:
            failures[f"{item.system_class}: {error}"] += 1
            failed_ids.append(item.geometry_id)
            continue
        labelled.append(
            replace(item, energy=found.energy, forces=found.forces, n_unpaired=found.n_unpaired)
        )
    return LabelledChunk(tuple(labelled), dict(failures), tuple(failed_ids))


def _check_label(found: Labels, max_force: float) -> None:
    if not (np.isfinite(found.energy) and np.isfinite(found.forces).all()):
        raise LabelError("energy or forces are not finite")
    if np.linalg.norm(found.forces, axis=-1).max() > max_force:
        raise LabelError(f"force above {max_force:g} eV/A")


def join_parts(job: LabelJob, header: FileHeader) -> Path:
    """Joins the parts into the finished file; the parts stay until they are removed."""
    parts = Dataset.open(job.parts)
    failed = [i for path in sorted(job.parts.glob("part-*.h5")) for i in read_failed_ids(path)]
    write_conformations(
        job.out,
        list(parts),
        replace(header, failures=parts.failures, failed_ids=tuple(sorted(failed))),
    )
    return job.out
