"""Torsion sets in our own layout: HDF5 for size, JSON for reading; both hold the same."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np

from trip_mm.errors import DataError
from trip_mm.files import replacing, write_atomically
from trip_mm.torsion.records import NOT_STATED, DrivenPoints, TorsionRecord

FORMAT_NAME = "trip-mm torsion set"
FORMAT_VERSION = 1

_TEXTS = ("record_id", "source", "smiles", "level_of_theory", "geometry_level", "name")


def write_hdf5(path: Path, records: Sequence[TorsionRecord], description: str = "") -> None:
    """Writes records that have points; the file appears under its name when complete.

    Positions are stored as float32 (errors below 1e-6 A for molecules), energies as float64.

    Raises:
        DataError: a record without dihedral or points.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        file.attrs["format"] = FORMAT_NAME
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["units"] = "degrees, eV, A"
        file.attrs["description"] = description
        for number, record in enumerate(records):
            points, dihedral = _complete(record)
            group = file.create_group(f"{number:05d}")
            for key in _TEXTS:
                group.attrs[key] = getattr(record, key)
            group.attrs["dihedral"] = np.array(dihedral, dtype=np.int32)
            group["angles_deg"] = points.angles_deg
            group["energies_ev"] = points.energies
            group.create_dataset(
                "positions_angstrom",
                data=points.positions.astype(np.float32),
                compression="gzip",
                compression_opts=9,
                shuffle=True,
            )


def write_json(path: Path, records: Sequence[TorsionRecord], description: str = "") -> None:
    """Writes records that have points as JSON, atomically.

    Raises:
        DataError: a record without dihedral or points.
    """
    document = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "units": "degrees, eV, A",
        "description": description,
        "records": [_to_dict(record) for record in records],
    }
    write_atomically(path, (json.dumps(document) + "\n").encode())


def _to_dict(record: TorsionRecord) -> dict[str, object]:
    points, dihedral = _complete(record)
    return {
        **{key: getattr(record, key) for key in _TEXTS},
        "dihedral": list(dihedral),
        "angles_deg": points.angles_deg.tolist(),
        "energies_ev": points.energies.tolist(),
        "positions_angstrom": np.round(points.positions, 7).tolist(),
    }


def _complete(record: TorsionRecord) -> tuple[DrivenPoints, tuple[int, int, int, int]]:
    if record.points is None or record.dihedral is None:
        raise DataError(f"record {record.record_id}: has no points or no dihedral to write")
    return record.points, record.dihedral


def read_hdf5(path: Path) -> list[TorsionRecord]:
    """Reads a torsion set that `write_hdf5` wrote.

    Raises:
        DataError: another kind of file, or a damaged one.
    """
    try:
        with h5py.File(path, "r") as file:
            _check_format(path, dict(file.attrs))
            return [_from_group(group) for _, group in sorted(file.items())]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a torsion set ({error})") from error


def _from_group(group: h5py.Group) -> TorsionRecord:
    texts = {key: str(group.attrs[key]) for key in _TEXTS}
    return _record(
        texts,
        group.attrs["dihedral"].tolist(),
        DrivenPoints(
            np.array(group["angles_deg"], dtype=np.float64),
            np.array(group["energies_ev"], dtype=np.float64),
            np.array(group["positions_angstrom"], dtype=np.float64),
        ),
    )


def read_json(path: Path) -> list[TorsionRecord]:
    """Reads a torsion set that `write_json` wrote.

    Raises:
        DataError: another kind of file, or a damaged one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a torsion set ({error})") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: not a torsion set")
    return records_from_json(path, document)


def records_from_json(path: Path, document: dict[str, object]) -> list[TorsionRecord]:
    """Takes records from the parsed JSON that `write_json` wrote.

    Raises:
        DataError: another format version, or a record that lacks something.
    """
    _check_format(path, document)
    entries = document.get("records")
    if not isinstance(entries, list):
        raise DataError(f"{path}: records: not a list")
    records = []
    for number, entry in enumerate(entries):
        try:
            points = DrivenPoints(
                np.array(entry["angles_deg"], dtype=np.float64),
                np.array(entry["energies_ev"], dtype=np.float64),
                np.array(entry["positions_angstrom"], dtype=np.float64),
            )
            texts = {
                "source": path.name,
                "level_of_theory": NOT_STATED,
                "geometry_level": NOT_STATED,
                "name": "",
                **{key: str(entry[key]) for key in _TEXTS if key in entry},
            }
            records.append(_record(texts, entry["dihedral"], points))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: records[{number}]: {error!r}; docs/torsion-drives.md has the fields"
            ) from error
    return records


def _check_format(path: Path, attributes: dict[str, object]) -> None:
    if attributes.get("format") != FORMAT_NAME:
        raise DataError(f"{path}: not a torsion set; format is {attributes.get('format')!r}")
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(f"{path}: format version {version}, this trip-mm reads {FORMAT_VERSION}")


def _record(texts: dict[str, str], dihedral: Iterable[int], points: DrivenPoints) -> TorsionRecord:
    a, b, c, d = (int(index) for index in dihedral)
    shape = (points.n_points, len(points.energies), *points.positions.shape[:1])
    if len(set(shape)) != 1 or points.positions.ndim != 3:
        raise DataError(f"record {texts['record_id']}: angles, energies and positions differ")
    return TorsionRecord(dihedral=(a, b, c, d), points=points.sorted(), **texts)
