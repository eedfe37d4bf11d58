"""Results of a torsion benchmark as tables: one row a record and potential, one row a point."""

import io
import json
import math
from pathlib import Path
from typing import Any

from trip_mm.errors import DataError, MissingDependencyError
from trip_mm.files import write_atomically
from trip_mm.torsion.classes import torsion_class
from trip_mm.torsion.drive import DriveResult, Outcome
from trip_mm.torsion.metrics import SCORES
from trip_mm.torsion.profile import Profile
from trip_mm.torsion.records import TorsionRecord, mol_from_mapped_smiles
from trip_mm.torsion.summary import Difference, Summary

Row = dict[str, object]


def require_parquet() -> None:
    """Checks for pyarrow before anything is computed.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError(
            "the tables need pyarrow; pip install 'trip-mm[torsion]'"
        ) from None
    del pyarrow


def write_tables(
    result: DriveResult, summaries: list[Summary], compared: list[Difference], out: Path
) -> None:
    """Writes `results.parquet`, `points.parquet` and `summary.json`, each complete or not at all.

    In `summary.json` what is not defined is null.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    require_parquet()
    _write_parquet(out / "results.parquet", record_rows(result))
    points = point_rows(result)
    if points:
        _write_parquet(out / "points.parquet", points)
    document = {
        "dataset": result.dataset.name,
        "mode": result.settings.mode,
        "models_sha256": result.models,
        "temperature_kelvin": result.settings.temperature,
        "bootstrap": {"seed": result.settings.seed, "n_resamples": result.settings.n_resamples},
        "summaries": [summary.to_dict() for summary in summaries],
        "differences": [vars(one) | {"mean": vars(one.mean)} for one in compared],
    }
    text = json.dumps(_without_nan(document), indent=2, allow_nan=False)
    write_atomically(out / "summary.json", (text + "\n").encode())


def _without_nan(value: Any) -> Any:
    """Returns JSON values with null for what is not defined; NaN is no JSON."""
    if isinstance(value, dict):
        return {key: _without_nan(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(own) for own in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    write_atomically(path, stream.getvalue())


def record_rows(result: DriveResult) -> list[Row]:
    """Returns one row for each record and potential, and one for each record left out before."""
    rows = []
    empty = dict.fromkeys(SCORES)
    for skipped in result.skipped:
        rows.append(
            {
                **_describe(skipped.record),
                "potential": None,
                "mode": result.settings.mode,
                "status": "skipped",
                "reason": skipped.reason,
                "detail": skipped.detail,
                "n_evaluations": 0,
                **empty,
            }
        )
    for outcome in result.outcomes:
        rows.append(
            {
                **_describe(outcome.record),
                "potential": outcome.spec.label,
                "mode": result.settings.mode,
                "status": "done" if outcome.is_done else "skipped",
                "reason": outcome.reason or None,
                "detail": outcome.detail or None,
                "n_evaluations": outcome.n_evaluations,
                **(outcome.scores.to_dict() if outcome.scores else empty),
            }
        )
    return rows


def _describe(record: TorsionRecord) -> Row:
    return {
        "record_id": record.record_id,
        "name": record.name or None,
        "source": record.source,
        "smiles": record.smiles,
        "dihedral": list(record.dihedral) if record.dihedral else None,
        "torsion_class": class_of(record),
        "n_points": record.points.n_points if record.points else None,
        "level_of_theory": record.level_of_theory,
        "geometry_level": record.geometry_level,
    }


def class_of(record: TorsionRecord) -> str | None:
    """Returns the class of the driven torsion; None where the record does not name it."""
    if record.dihedral is None:
        return None
    try:
        mol = mol_from_mapped_smiles(record.smiles)
    except DataError:
        return None  # left out before any potential, with this reason
    if not all(0 <= atom < mol.GetNumAtoms() for atom in record.dihedral):
        return None
    return torsion_class(mol, record.dihedral)


def point_rows(result: DriveResult) -> list[Row]:
    """Returns one row for each grid point of every finished record and potential."""
    return [row for outcome in result.outcomes if outcome.is_done for row in _points(outcome)]


def _points(outcome: Outcome) -> list[Row]:
    assert outcome.points is not None
    reference = outcome.record.profile()
    own = Profile(outcome.spec.label, outcome.points.angles_deg, outcome.points.energies)
    columns = zip(
        own.angles_deg.tolist(),
        own.energies.tolist(),
        own.relative_kcal_per_mol.tolist(),
        reference.relative_kcal_per_mol.tolist(),
        strict=True,
    )
    return [
        {
            "record_id": outcome.record.record_id,
            "potential": outcome.spec.label,
            "angle_deg": angle,
            "energy_ev": energy,
            "relative_energy_kcal_per_mol": relative,
            "reference_relative_energy_kcal_per_mol": expected,
            "reference_level": outcome.record.level,
        }
        for angle, energy, relative, expected in columns
    ]
