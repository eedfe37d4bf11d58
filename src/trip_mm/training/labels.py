"""Labelling a file of geometries: resumable, parallel over processes or machines, failures counted.

While it works, finished chunks lie in `<out>.parts/part-<first id>.h5`, each a complete file in
our own layout that readers can open (`Dataset.open("<out>.parts")`). A chunk appears under its
name only when it is complete, so that a kill at any time loses at most the chunks in work and
never leaves a label twice. When every chunk is there they are joined into `<out>`. A part records
a digest of its geometries and the settings; one that does not belong to the job is refused.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from trip_mm.errors import ConfigError, DataError
from trip_mm.files import make_directory
from trip_mm.locking import locked
from trip_mm.training.dataset import Dataset, expand_files
from trip_mm.training.formats_write import FileHeader
from trip_mm.training.groups import Conformation
from trip_mm.training.labels_known import KnownLabels, read_known_labels
from trip_mm.training.labels_methods import LabelError, Labels, find_method, lone_atom_energies
from trip_mm.training.labels_parts import LabelledChunk, Parts, index_geometries
from trip_mm.training.levels import has_cartesian_functions
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
        multiplicity: spin multiplicity of every geometry, 1 or more; that of the file if None.
        first: geometries to label, from the begin of the file; all if None.
        known: files with labels of the same method, which are taken over where the geometry is
            the same.

    Raises:
        ConfigError: the multiplicity or the number of geometries is not positive.
    """

    geometries: Path
    out: Path
    method: str
    chunk: int = 100
    max_force: float = DEFAULT_MAX_FORCE
    multiplicity: int | None = None
    first: int | None = None
    known: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Refuses a multiplicity that no state has, and to label nothing."""
        if self.first is not None and self.first < 1:
            raise ConfigError(f"first {self.first}: give at least 1 geometry to label")
        if self.multiplicity is not None and self.multiplicity < 1:
            raise ConfigError(
                f"multiplicity {self.multiplicity}: give 1 (singlet), 2 (doublet) or more"
            )

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
        failures: number of failures by reason, those before an interruption included.
    """

    n_done: int
    n_total: int
    failures: dict[str, int]


def label(
    job: LabelJob,
    processes: int = 1,
    report: Callable[[LabelProgress], None] = lambda progress: None,
    scheduler: str | None = None,
) -> Path:
    """Labels what is not labelled yet, joins the parts and returns the finished file.

    Call it again with the same job after an interruption: finished parts are kept. A finished file
    of the same job stays as it is; one of another is never replaced. Only this process writes.

    Args:
        job: what to label.
        processes: of this machine to work with.
        report: receives the progress after every part.
        scheduler: address of a Dask scheduler whose workers compute in place of processes here.

    Raises:
        ConfigError: the method is unknown, both processes and a scheduler are given, or the labels
            would replace the geometries.
        MissingDependencyError: the program behind the method, or Dask, is not installed.
        DataError: the geometries cannot be read, parts or labels there were made from other
            geometries or with other settings, or the scheduler was lost.
        RunDirectoryError: another process works on the same labels.
    """
    workers = Workers(processes, scheduler)
    method = find_method(job.method)
    if not job.geometries.exists():
        raise DataError(
            f"{job.geometries}: no such file; make geometries with trip-mm sample, or correct the "
            "name"
        )
    _refuse_to_replace_geometries(job)
    dataset = Dataset.open(job.geometries)
    geometries = index_geometries(dataset)
    if job.first is not None:
        geometries = geometries.first(job.first)
    lone_atoms = lone_atom_energies(method, dataset.elements())
    known = read_known_labels(job.known, method.name, lone_atoms, job.max_force)
    header = _header(job, dataset, method.name, lone_atoms)
    parts = Parts(job.parts, header, geometries, job.chunk)
    if parts.is_finished(job.out):
        return job.out
    make_directory(job.parts)
    with locked(job.parts):
        _label_parts(job, parts, dataset, known, workers, report)
        parts.join(job.out)
    return job.out


def _refuse_to_replace_geometries(job: LabelJob) -> None:
    if job.out.exists() and any(job.out.samefile(f) for f in expand_files([job.geometries])):
        raise ConfigError(
            f"{job.out}: holds the geometries, which the labels would replace; choose another --out"
        )


def _label_parts(
    job: LabelJob,
    parts: Parts,
    dataset: Dataset,
    known: KnownLabels,
    workers: Workers,
    report: Callable[[LabelProgress], None],
) -> None:
    """Labels the chunks that have no part yet."""
    chunks = parts.chunks()
    done = parts.finished()
    waiting = [first for first in chunks if first not in done]
    n_done = sum(len(chunks[first]) for first in done)
    failures: Counter[str] = Counter()
    for earlier in done.values():
        failures.update(earlier)
    taken_over: dict[int, list[Conformation]] = {}

    def tasks() -> Iterator[tuple[int, list[Conformation]]]:
        for first in waiting:
            items = [dataset[int(i)] for i in parts.geometries.rows[list(chunks[first])]]
            taken_over[first], others = known.take(items, job.multiplicity)
            yield first, others

    compute = partial(label_chunk, job.method, job.max_force, job.multiplicity)
    with closing(results(workers, compute, tasks(), parts.name)) as finished:
        for first, found in finished:
            labelled = (*taken_over.pop(first), *found.labelled)
            parts.write(first, replace(found, labelled=labelled))
            failures.update(found.failures)
            n_done += len(chunks[first])
            report(LabelProgress(n_done, len(parts.geometries.rows), dict(failures)))


def _header(
    job: LabelJob, dataset: Dataset, level: str, lone_atoms: dict[int, float]
) -> FileHeader:
    return FileHeader(
        job.geometries.name,
        level,
        lone_atoms,
        split_by={group.system_class: group.split_by for group in dataset.groups},
        labelling={
            "max_force_ev_per_angstrom": job.max_force,
            "multiplicity": job.multiplicity,
            **_functions(level),
        },
    )


def _functions(level: str) -> dict[str, str]:
    """Marks spherical bases: earlier versions computed Cartesian functions in every basis."""
    _, slash, basis = level.partition("/")
    return {"functions": "spherical"} if slash and not has_cartesian_functions(basis) else {}


def label_chunk(
    method: str, max_force: float, multiplicity: int | None, geometries: Sequence[Conformation]
) -> LabelledChunk:
    """Labels some geometries.

    Args:
        method: as in `LabelJob`.
        max_force: eV/A; a conformation with a larger force on an atom is dropped and counted.
        multiplicity: as in `LabelJob`.
        geometries: what to label.
    """
    calculation = find_method(method)
    labelled: list[Conformation] = []
    failures: Counter[str] = Counter()
    failed_ids: list[int] = []
    for item in geometries:
        n_unpaired = item.n_unpaired if multiplicity is None else multiplicity - 1
        try:
            found = calculation.calculate(item.atomic_numbers, item.positions, n_unpaired)
            if multiplicity is not None and found.n_unpaired != n_unpaired:
                raise LabelError(f"SCF did not converge at multiplicity {multiplicity}")
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
