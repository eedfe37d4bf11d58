"""The torsion benchmark: every record of a set with every potential, resumable, all accounted for.

Every finished grid point goes to a journal (one for each potential) before the next is asked for,
so that a kill at any time loses at most the points in work. Keys name the record's content, not
its place in the set: a set that grows, or a potential that is added, repeats nothing.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trip_mm.errors import ConfigError, DataError
from trip_mm.files import make_directory
from trip_mm.geometry.potentials import PotentialSpec, check_distinct
from trip_mm.locking import locked
from trip_mm.torsion.comparison import model_sha256, potential_file_name
from trip_mm.torsion.drive_tasks import BY_POINT, MODES, RELAXED_MODES, DriveTask, Entry, run_task
from trip_mm.torsion.filters import Skipped, admit
from trip_mm.torsion.metrics import RecordScore, score
from trip_mm.torsion.record_sets import RecordSet
from trip_mm.torsion.records import DrivenPoints, TorsionRecord
from trip_mm.torsion.scan import Journal, require_geometric_to_begin
from trip_mm.workers import Workers, results

DEFAULT_TEMPERATURE = 298.15
"""K, of the Boltzmann weights."""


@dataclass(frozen=True)
class DriveSettings:
    """What a benchmark does.

    Attributes:
        potentials: at least one.
        mode: a key of `MODES`.
        elements: atomic numbers that records may hold.
        temperature: of the Boltzmann weights, K.
        seed: of the bootstrap.
        n_resamples: of the bootstrap.
    """

    potentials: tuple[PotentialSpec, ...]
    mode: str
    elements: frozenset[int]
    temperature: float = DEFAULT_TEMPERATURE
    seed: int = 1
    n_resamples: int = 2000


@dataclass(frozen=True)
class Outcome:
    """What became of one record with one potential: done with scores, or skipped with a reason.

    Attributes:
        record: the record.
        spec: the potential.
        points: of the potential, at all grid angles; None if skipped.
        scores: None if skipped.
        reason: one of a few, under which it is counted; empty if done.
        detail: what exactly.
        n_evaluations: evaluations of the potential that the points took.
    """

    record: TorsionRecord
    spec: PotentialSpec
    points: DrivenPoints | None = None
    scores: RecordScore | None = None
    reason: str = ""
    detail: str = ""
    n_evaluations: int = 0

    @property
    def is_done(self) -> bool:
        """Whether there are scores."""
        return self.scores is not None


@dataclass(frozen=True)
class DriveResult:
    """Everything that a report needs.

    Attributes:
        dataset: the set as opened.
        settings: of the benchmark.
        skipped: records that no potential was tried on.
        outcomes: one for each admitted record and potential.
        models: sha256 of every TrIP model, by label.
    """

    dataset: RecordSet
    settings: DriveSettings
    skipped: tuple[Skipped, ...]
    outcomes: tuple[Outcome, ...]
    models: dict[str, str] = field(default_factory=dict)

    def of(self, spec: PotentialSpec) -> list[Outcome]:
        """Returns the outcomes of one potential."""
        return [outcome for outcome in self.outcomes if outcome.spec == spec]


def run_benchmark(
    dataset: RecordSet,
    settings: DriveSettings,
    out: Path,
    workers: Workers,
    announce: Callable[[str], None],
) -> DriveResult:
    """Computes what the journals in `out` lack and scores every record.

    Raises:
        ConfigError: an unknown mode, two potentials of one name, record ids that are not unique,
            or journals of other settings.
        DataError: the outcomes do not add up to the records.
        RunDirectoryError: another process works in `out`.
        MissingDependencyError: a relaxation is to be computed and geomeTRIC is not installed.
        TripError: a potential that cannot be used at all.
    """
    if settings.mode not in MODES:
        raise ConfigError(f"mode {settings.mode!r} is unknown; use {' or '.join(MODES)}")
    check_distinct(settings.potentials)
    if settings.mode in BY_POINT and workers.scheduler is None:
        require_geometric_to_begin(out, f"*.{settings.mode}.journal")
    admitted, skipped = admit(dataset.records, settings.elements)
    admitted.sort(key=lambda record: len(record.molecule().atomic_numbers))
    found: list[Outcome] = []
    digests = {spec.label: model_sha256(spec) for spec in settings.potentials}
    if admitted:
        make_directory(out)
        with locked(out):
            for spec in settings.potentials:
                journal = _journal(out, spec, settings.mode, digests[spec.label])
                _compute(admitted, spec, settings.mode, journal, workers, announce)
                found += [_outcome(record, spec, settings, journal) for record in admitted]
    models = {label: digest for label, digest in digests.items() if digest}
    result = DriveResult(dataset, settings, tuple(skipped), tuple(found), models)
    for spec in settings.potentials:
        _check_sum(result, spec)
    return result


def _check_sum(result: DriveResult, spec: PotentialSpec) -> None:
    n_outcomes = len(result.of(spec)) if result.outcomes else 0
    if n_outcomes + len(result.skipped) != len(result.dataset.records):
        raise DataError(
            f"{spec.label}: {n_outcomes} outcomes and {len(result.skipped)} records left out do "
            f"not add up to {len(result.dataset.records)}; please report this"
        )


def _journal(out: Path, spec: PotentialSpec, mode: str, digest: str) -> Journal:
    identity: dict[str, object] = {"potential": str(spec), "sha256": digest, "mode": mode}
    return Journal(out / f"{potential_file_name(spec)}.{mode}.journal", identity)


def record_digest(record: TorsionRecord) -> str:
    """Returns a short digest of what the results of a record depend on."""
    assert record.points is not None
    digest = hashlib.sha256(f"{record.smiles} {record.dihedral}".encode())
    digest.update(np.round(record.points.angles_deg, 6).tobytes())
    digest.update(np.round(record.points.positions, 5).tobytes())
    return digest.hexdigest()[:12]


def _key(record: TorsionRecord, digest: str, index: int) -> str:
    return f"{record.record_id} {digest} {index}"


def _compute(
    records: Sequence[TorsionRecord],
    spec: PotentialSpec,
    mode: str,
    journal: Journal,
    workers: Workers,
    announce: Callable[[str], None],
) -> None:
    """Fills the journal; a relaxation is a task of its own, single points go by record."""
    digests = {record.record_id: record_digest(record) for record in records}
    tasks: list[DriveTask] = []
    waiting: dict[str, int] = {}
    for record in records:
        assert record.points is not None
        digest = digests[record.record_id]
        missing = [
            index
            for index in range(record.points.n_points)
            if _key(record, digest, index) not in journal.entries
        ]
        waiting[record.record_id] = len(missing)
        if mode in BY_POINT:
            tasks += [DriveTask(record, spec, mode, (index,)) for index in missing]
        elif missing:
            tasks.append(DriveTask(record, spec, mode, tuple(missing)))
    n_done = sum(count == 0 for count in waiting.values())
    announce(f"{spec.label}: {n_done} of {len(records)} records are at hand")
    with closing(
        results(workers, run_task, ((task, task) for task in tasks), lambda t: t.record.label)
    ) as finished:
        for task, entries in finished:
            digest = digests[task.record.record_id]
            for index, entry in zip(task.indices, entries, strict=True):
                journal.add(_key(task.record, digest, index), entry)
            waiting[task.record.record_id] -= len(entries)
            if waiting[task.record.record_id] == 0:
                n_done += 1
                announce(f"{spec.label}: {n_done} of {len(records)}: {task.record.label}")


def _outcome(
    record: TorsionRecord, spec: PotentialSpec, settings: DriveSettings, journal: Journal
) -> Outcome:
    """Judges a record: it is done only if every grid point is."""
    assert record.points is not None
    digest = record_digest(record)
    entries: list[Entry] = [
        journal.entries[_key(record, digest, index)] for index in range(record.points.n_points)
    ]
    n_evaluations = sum(int(str(entry.get("n_evaluations", 1))) for entry in entries)
    failed = [entry for entry in entries if "reason" in entry]
    if failed:
        detail = f"{len(failed)} of {len(entries)} points; first: {failed[0]['detail']}"
        reason = str(failed[0]["reason"])
        return Outcome(record, spec, None, None, reason, detail, n_evaluations)
    relaxed = settings.mode in RELAXED_MODES
    points = DrivenPoints(
        record.points.angles_deg,
        np.array([float(str(entry["energy_ev"])) for entry in entries]),
        np.array([entry["positions_angstrom"] for entry in entries], dtype=np.float64)
        if relaxed
        else record.points.positions,
    )
    scores = score(record, points, settings.temperature, relaxed)
    return Outcome(record, spec, points, scores, n_evaluations=n_evaluations)
