"""Predictions that are kept: each one is paid for once, also across a kill."""

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import DataError

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS predictions "
    "(key BLOB PRIMARY KEY, energy_ev REAL, forces_ev_per_angstrom BLOB, reason TEXT)"
)


@dataclass(frozen=True)
class Predicted:
    """What a potential says of one conformation.

    Attributes:
        energy: total energy, eV; NaN where the potential failed.
        forces: eV/A, `[n_atoms, 3]`; NaN where it failed.
        reason: why it failed, empty otherwise.
    """

    energy: float
    forces: NDArray[np.float64]
    reason: str = ""

    @classmethod
    def failed(cls, n_atoms: int, reason: str) -> "Predicted":
        """Returns the outcome of a calculation that failed."""
        return cls(float("nan"), np.full((n_atoms, 3), np.nan), reason)


def prediction_key(
    identity: str,
    atomic_numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    n_unpaired: int,
) -> bytes:
    """Returns a digest of all that a prediction depends on.

    Args:
        identity: of the potential: name, version or checksum.
        atomic_numbers: `[n_atoms]`.
        positions: A, `[n_atoms, 3]`.
        n_unpaired: unpaired electrons.
    """
    digest = hashlib.sha256(f"{identity}\n{n_unpaired}\n".encode())
    digest.update(np.ascontiguousarray(atomic_numbers, dtype=np.int64).tobytes())
    digest.update(np.ascontiguousarray(positions, dtype=np.float64).tobytes())
    return digest.digest()


class PredictionJournal:
    """Predictions by key in an SQLite file, which survives a kill at any moment.

    Args:
        path: the file, made if missing; None keeps the predictions in memory.

    Raises:
        DataError: the file is no such journal or cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(":memory:" if path is None else path, timeout=30.0)
            self._connection.execute(_SCHEMA)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def find(self, key: bytes, n_atoms: int) -> Predicted | None:
        """Returns the prediction of a key, None where there is none yet."""
        try:
            row = self._connection.execute(
                "SELECT energy_ev, forces_ev_per_angstrom, reason FROM predictions WHERE key = ?",
                (key,),
            ).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        if row is None:
            return None
        energy, forces, reason = row
        if reason:
            return Predicted.failed(n_atoms, reason)
        return Predicted(energy, np.frombuffer(forces, dtype=np.float64).reshape(n_atoms, 3))

    def add(self, keys: Sequence[bytes], outcomes: Sequence[Predicted]) -> None:
        """Keeps predictions; all of them are in the file when the call returns."""
        rows = [
            (key, None, None, found.reason)
            if found.reason
            else (key, found.energy, np.asarray(found.forces, dtype=np.float64).tobytes(), "")
            for key, found in zip(keys, outcomes, strict=True)
        ]
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO predictions VALUES (?, ?, ?, ?)", rows
                )
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def _unusable(self, error: sqlite3.Error) -> DataError:
        return DataError(
            f"{self._path or 'predictions'}: cannot be used as a journal of predictions ({error}); "
            "free some space or fix the permissions, or delete the file"
        )
