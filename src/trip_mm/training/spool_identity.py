"""What a compact copy of the data (`trip_mm.training.streaming`) was made of, and where it lies."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trip_mm.training.dataset import expand_files

HEADER, INDEX, POSITIONS, FORCES = "header.json", "index.npz", "positions.bin", "forces.bin"
"""Names of the files of a copy."""

_FORMAT_VERSION = 1
_SAMPLED_BYTES = 1 << 16


@dataclass(frozen=True)
class SpoolSettings:
    """What decides the content of a spool besides the files.

    Attributes:
        lone_atom_energies: eV, by atomic number.
        cutoff: range of the edges, A.
        max_force: conformations with a larger force on any atom are left out, eV/A.
    """

    lone_atom_energies: Mapping[int, float]
    cutoff: float
    max_force: float | None = None


def read_header(folder: Path) -> dict[str, Any]:
    """Returns the header of a copy; empty where none is complete."""
    try:
        return dict(json.loads((folder / HEADER).read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError):
        return {}


def partial_folders(folder: Path) -> list[Path]:
    """Returns copies that are being written, or were left by a kill."""
    return sorted(folder.parent.glob(f".{folder.name}.*.partial"))


def local_fingerprint(files: Sequence[Path], settings: SpoolSettings) -> str:
    """Returns a digest of settings and of names, sizes and times of the files of this machine."""
    facts = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in expand_files(files)
    ]
    return _digest_of(facts, settings)


def content_of(files: Sequence[Path], settings: SpoolSettings) -> str:
    """Returns a digest that another machine's own copies of the files have, too.

    Of settings, and of name, size, first, middle and last block of each file.
    """
    facts: list[tuple[str, int, str]] = []
    for path in expand_files(files):
        size = path.stat().st_size
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            for start in (0, size // 2, max(0, size - _SAMPLED_BYTES)):
                stream.seek(start)
                digest.update(stream.read(_SAMPLED_BYTES))
        facts.append((path.name, size, digest.hexdigest()))
    return _digest_of(facts, settings)


def _digest_of(facts: Sequence[Sequence[str | int]], settings: SpoolSettings) -> str:
    lone = sorted(settings.lone_atom_energies.items())
    described = json.dumps([_FORMAT_VERSION, facts, lone, settings.cutoff, settings.max_force])
    return hashlib.sha256(described.encode("utf-8")).hexdigest()
