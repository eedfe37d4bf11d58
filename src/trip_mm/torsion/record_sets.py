"""Opening a torsion set of any known form: shipped by name, file, or directory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trip_mm.errors import DataError
from trip_mm.torsion.forcebalance import is_target, read_target
from trip_mm.torsion.qcarchive import (
    CollectionEntry,
    collection_entries,
    default_cache,
    is_collection,
    records_from_collection,
)
from trip_mm.torsion.record_files import read_hdf5, records_from_json
from trip_mm.torsion.records import NOT_STATED, TorsionRecord
from trip_mm.torsion.sdf import read_sdf


@dataclass(frozen=True)
class RecordSet:
    """Records and where they came from.

    Attributes:
        name: as given by the user.
        records: all of them, also those that no benchmark can use.
        collection: path of a QCArchive collection whose records can be fetched; else None.
    """

    name: str
    records: tuple[TorsionRecord, ...]
    collection: Path | None = None


def shipped_sets() -> dict[str, Path]:
    """Returns the sets of the package by the name under which they are opened."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "data").glob("*.h5"))}


def open_set(name: str, level: str = "", cache: Path | None = None) -> RecordSet:
    """Opens a torsion set.

    Args:
        name: of a shipped set, such as `reference` (`./reference` is a path of that name); an HDF5
            or JSON file of ours, an OpenFF collection (JSON), SDF with tags; a directory with
            `scan.xyz` and `qdata.txt`, or a directory of such directories.
        level: level of theory of records whose source states none.
        cache: of fetched records; the default place if None.

    Raises:
        DataError: not there, not readable, or nothing in it.
    """
    path = Path(name)
    collection = None
    shipped = shipped_sets()
    if name in shipped:
        records = read_hdf5(shipped[name])
    elif path.is_dir():
        records = _targets(path)
    elif not path.is_file():
        raise DataError(
            f"torsion set {name!r}: no such file or directory; shipped are {', '.join(shipped)}"
        )
    elif path.suffix in (".h5", ".hdf5"):
        records = read_hdf5(path)
    elif path.suffix == ".sdf":
        records = read_sdf(path)
    elif path.suffix == ".json":
        document = _load_json(path)
        if is_collection(document):
            collection = path
            records = records_from_collection(path, document, cache or default_cache())
        else:
            records = records_from_json(path, document)
    else:
        raise DataError(f"{path}: ends in none of .h5, .hdf5, .json and .sdf")
    if not records:
        raise DataError(f"{name}: holds no records")
    return RecordSet(name, tuple(_with_level(records, level)), collection)


def open_collection(path: Path) -> list[CollectionEntry]:
    """Returns the entries of an OpenFF collection.

    Raises:
        DataError: another kind of file.
    """
    document = _load_json(path)
    if not is_collection(document):
        raise DataError(f"{path}: not a collection of OpenFF QCSubmit (no mapping `entries`)")
    return collection_entries(path, document)


def _load_json(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}: not a mapping")
    return document


def _targets(directory: Path) -> list[TorsionRecord]:
    if is_target(directory):
        return [read_target(directory)]
    found = [path for path in sorted(directory.iterdir()) if path.is_dir() and is_target(path)]
    if not found:
        raise DataError(f"{directory}: no scan.xyz with qdata.txt in it or one level below")
    return [read_target(path) for path in found]


def _with_level(records: Sequence[TorsionRecord], level: str) -> list[TorsionRecord]:
    if not level:
        return list(records)
    return [
        replace(
            record,
            level_of_theory=_stated(record.level_of_theory, level),
            geometry_level=_stated(record.geometry_level, level),
        )
        for record in records
    ]


def _stated(found: str, level: str) -> str:
    return level if found == NOT_STATED else found
