"""OpenFF collections of QCArchive torsion drives, and a local cache of what they refer to.

A collection file names records and mapped SMILES only. Geometries and energies lie on a server;
`fetch` gets them once through qcportal, later runs need no network.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from trip_mm.errors import BackendError, DataError, MissingDependencyError
from trip_mm.torsion.record_files import read_json, write_json
from trip_mm.torsion.records import (
    NOT_STATED,
    DrivenPoints,
    TorsionRecord,
    mol_from_mapped_smiles,
)
from trip_mm.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV

BATCH = 20
"""Records in one request."""

Announce = Callable[[str], None]
Connect = Callable[[str], Any]
"""Address of a server to a client with the interface of `qcportal.PortalClient`."""


@dataclass(frozen=True)
class CollectionEntry:
    """One line of a collection.

    Attributes:
        server: address.
        record_id: on that server.
        smiles: mapped.
    """

    server: str
    record_id: str
    smiles: str

    def cached_at(self, cache: Path) -> Path:
        """Returns where the cache keeps the record."""
        return cache / (urlparse(self.server).hostname or "server") / f"{self.record_id}.json"


def default_cache() -> Path:
    """Returns `trip-mm/torsion` under `$XDG_CACHE_HOME`, else under `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "trip-mm" / "torsion"


def is_collection(document: object) -> bool:
    """Tells whether parsed JSON is a collection of OpenFF QCSubmit."""
    return isinstance(document, dict) and isinstance(document.get("entries"), dict)


def collection_entries(path: Path, document: dict[str, Any]) -> list[CollectionEntry]:
    """Returns the torsion drives that a collection names.

    Raises:
        DataError: an entry without id or SMILES.
    """
    found = []
    for server, entries in document["entries"].items():
        for number, entry in enumerate(entries):
            try:
                found.append(CollectionEntry(server, str(entry["record_id"]), str(entry["cmiles"])))
            except (KeyError, TypeError) as error:
                raise DataError(f"{path}: entries[{server}][{number}]: {error!r}") from error
    return found


def records_from_collection(
    path: Path, document: dict[str, Any], cache: Path
) -> list[TorsionRecord]:
    """Returns one record for each entry, with geometries where the cache holds them.

    Raises:
        DataError: a malformed entry, or a damaged file in the cache.
    """
    records = []
    for entry in collection_entries(path, document):
        stored = entry.cached_at(cache)
        if stored.is_file():
            records.append(read_json(stored)[0])
        else:
            records.append(TorsionRecord(entry.record_id, path.name, entry.smiles))
    return records


def fetch(
    entries: Sequence[CollectionEntry],
    cache: Path,
    connect: Connect,
    announce: Announce,
    source: str,
) -> dict[str, str]:
    """Fetches what the cache lacks; every record is stored as soon as it has come.

    Args:
        entries: what to fetch.
        cache: directory.
        connect: opens a client.
        announce: is given lines on progress.
        source: name of the collection.

    Returns:
        Reasons of records that the server does not have in a usable form, by record id.

    Raises:
        BackendError: the server does not answer.
    """
    missing = [entry for entry in entries if not entry.cached_at(cache).is_file()]
    failed: dict[str, str] = {}
    refused: tuple[type[Exception], ...] = (OSError, *_request_errors())
    n_done = len(entries) - len(missing)
    for server in dict.fromkeys(entry.server for entry in missing):
        wanted = [entry for entry in missing if entry.server == server]
        try:
            client = connect(server)
            for entry, drive in _drives(client, wanted):
                try:
                    record = record_from_drive(entry, drive, source)
                except DataError as error:
                    failed[entry.record_id] = str(error)
                    continue
                path = entry.cached_at(cache)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, [record])
                n_done += 1
                announce(f"{n_done} of {len(entries)} in {cache}, {len(failed)} not usable")
        except refused as error:
            raise BackendError(
                f"{server}: gives no answer ({error}); {n_done} of {len(entries)} records are in "
                f"{cache}, the same command continues"
            ) from error
    return failed


def _request_errors() -> tuple[type[Exception], ...]:
    """Returns the exception of qcportal for requests that a server refuses, where it is there."""
    try:
        from qcportal.client_base import PortalRequestError
    except ImportError:
        return ()
    return (PortalRequestError,)


def _drives(client: Any, entries: Sequence[CollectionEntry]) -> Iterator[tuple[Any, Any]]:
    for start in range(0, len(entries), BATCH):
        batch = entries[start : start + BATCH]
        drives = client.get_torsiondrives(
            [int(entry.record_id) for entry in batch],
            missing_ok=True,
            include=["minimum_optimizations"],
        )
        yield from zip(batch, drives, strict=True)


def record_from_drive(entry: CollectionEntry, drive: Any, source: str) -> TorsionRecord:
    """Takes over a `qcportal` torsion drive.

    Raises:
        DataError: not there, not complete, more than one dihedral, or other atoms than the SMILES.
    """
    if drive is None:
        raise DataError(f"record {entry.record_id}: the server does not have it")
    dihedrals = drive.specification.keywords.dihedrals
    if len(dihedrals) != 1:
        raise DataError(f"record {entry.record_id}: drives {len(dihedrals)} dihedrals, not one")
    symbols = [atom.GetSymbol() for atom in mol_from_mapped_smiles(entry.smiles).GetAtoms()]
    angles, energies, positions = [], [], []
    for key, optimization in drive.minimum_optimizations.items():
        final = optimization.final_molecule
        if final is None or not optimization.energies:
            raise DataError(f"record {entry.record_id}: {key[0]} degrees is not complete")
        if list(final.symbols) != symbols:
            raise DataError(f"record {entry.record_id}: its atoms are not those of the SMILES")
        angles.append(float(key[0]))
        energies.append(float(optimization.energies[-1]) * HARTREE_TO_EV)
        positions.append(np.asarray(final.geometry).reshape(-1, 3) * BOHR_TO_ANGSTROM)
    if not angles:
        raise DataError(f"record {entry.record_id}: holds no finished grid point")
    level = _level(drive.specification.optimization_specification.qc_specification)
    a, b, c, d = (int(index) for index in dihedrals[0])
    points = DrivenPoints(np.array(angles), np.array(energies), np.array(positions)).sorted()
    return TorsionRecord(entry.record_id, source, entry.smiles, (a, b, c, d), points, level, level)


def _level(specification: Any) -> str:
    if not specification.method:
        return NOT_STATED
    method = str(specification.method).upper()
    return f"{method}/{str(specification.basis).upper()}" if specification.basis else method


def portal(server: str) -> Any:
    """Opens a client of qcportal.

    Raises:
        MissingDependencyError: qcportal is not installed.
        OSError: the server does not answer.
    """
    try:
        from qcportal import PortalClient
    except ImportError:
        raise MissingDependencyError(
            "fetching needs qcportal; pip install 'trip-mm[qcarchive]'"
        ) from None
    return PortalClient(server, show_motd=False)
