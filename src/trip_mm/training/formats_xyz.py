"""Reading labelled conformations from extended XYZ, where keys of the comment line say the rest.

| key | meaning |
|---|---|
| `energy`, `forces` | labels in eV and eV/A, as ASE reads them |
| `spin_multiplicity`, `multiplicity`, `spin` | 2 S + 1 |
| `charge`, `total_charge` | net charge; anything but 0 is refused |
| `level_of_theory` | of the labels, the same in every frame, or in none |
| `class`, `source` | class of system, without `/`; trajectory or molecule of origin |

`spin` is the multiplicity, as in OMol25, not the number of unpaired electrons; the two differ in
parity, so that the wrong one is refused. Without any of these keys the state is the lowest that the
number of electrons allows: a singlet or a doublet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trip_mm.elements import formula
from trip_mm.errors import DataError, MissingDependencyError
from trip_mm.training.groups import Conformation, fits_electrons

if TYPE_CHECKING:
    from ase import Atoms

_MULTIPLICITY_KEYS = ("spin_multiplicity", "multiplicity", "spin")
_CHARGE_KEYS = ("charge", "total_charge")
_LEVEL_KEY = "level_of_theory"
_NOT_CLASSES = ("", ".", "failed_ids")
"""Classes name groups of an HDF5 file, where these mean something else."""


@dataclass(frozen=True)
class XyzFrames:
    """Conformations of an extended XYZ file, in its order.

    Attributes:
        conformations: neutral systems in open boundaries.
        level_of_theory: of the labels, empty where the file does not state it.
    """

    conformations: tuple[Conformation, ...]
    level_of_theory: str


def read_frames(path: Path) -> XyzFrames:
    """Reads all frames of an extended XYZ file; frames are counted from 0 in messages.

    Raises:
        MissingDependencyError: ASE is not installed.
        DataError: no extended XYZ; or a frame is periodic, charged, of an impossible multiplicity
            or class, or of another level of theory than the first.
    """
    try:
        from ase.io import iread
        from ase.io.extxyz import XYZError
    except ImportError:
        raise MissingDependencyError(
            f"{path}: reading extended XYZ needs ASE; pip install 'trip-mm[ase]'"
        ) from None
    conformations = []
    levels: list[str] = []
    try:
        for frame, atoms in enumerate(iread(str(path), format="extxyz")):
            where = f"{path}: frame {frame}"
            conformations.append(_conformation(atoms, where, frame, path.name))
            levels.append(str(atoms.info.get(_LEVEL_KEY, "")).strip())
            if levels[-1] != levels[0]:
                first, own = levels[0] or "none", levels[-1] or "none"
                raise DataError(
                    f"{where}: {_LEVEL_KEY} is {own}, but {first} in the first frame; write the "
                    "same in every frame, and other levels to other files"
                )
    except (XYZError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a readable extended XYZ file ({error})") from error
    return XyzFrames(tuple(conformations), levels[0] if levels else "")


def _conformation(atoms: "Atoms", where: str, frame: int, file_name: str) -> Conformation:
    if atoms.pbc.any():
        raise DataError(
            f"{where}: is periodic, and labelled conformations have open boundaries; cut clusters "
            'out of the cell and label these, or write pbc="F F F" where the Lattice is only '
            "left over"
        )
    for key in _CHARGE_KEYS:
        charge = _number(atoms.info, key, where)
        if charge:
            raise DataError(
                f"{where}: {key} is {charge:+g}, and only neutral systems are known; leave ions out"
            )
    results = atoms.calc.results if atoms.calc is not None else {}
    missing = np.full((len(atoms), 3), np.nan)
    return Conformation(
        np.asarray(atoms.numbers, dtype=np.int64),
        np.asarray(atoms.positions, dtype=np.float64),
        float(results.get("energy", np.nan)),
        np.asarray(results.get("forces", missing), dtype=np.float64),
        _system_class(atoms, where),
        formula(atoms.numbers),
        str(atoms.info.get("source", file_name)),
        _unpaired_electrons(atoms, where),
        frame,
    )


def _system_class(atoms: "Atoms", where: str) -> str:
    name = str(atoms.info.get("class", "xyz"))
    if name in _NOT_CLASSES or "/" in name:
        raise DataError(f"{where}: class {name!r} is no name; write one without /, such as water")
    return name


def _unpaired_electrons(atoms: "Atoms", where: str) -> int:
    """Returns 2 S from the multiplicity 2 S + 1, else the least that the electrons allow."""
    n_electrons = int(atoms.numbers.sum())
    given = {
        key: value
        for key in _MULTIPLICITY_KEYS
        if (value := _number(atoms.info, key, where)) is not None
    }
    if not given:
        return n_electrons % 2
    if len(set(given.values())) > 1:
        raise DataError(f"{where}: {', '.join(given)} contradict each other; write one of them")
    key, multiplicity = next(iter(given.items()))
    n_unpaired = multiplicity - 1
    if not fits_electrons(n_unpaired, n_electrons):
        raise DataError(
            f"{where}: {key} {multiplicity:g} does not fit {n_electrons} electrons; write the "
            "multiplicity, number of unpaired electrons + 1"
        )
    return int(n_unpaired)


def _number(info: Mapping[str, Any], key: str, where: str) -> float | None:
    if key not in info:
        return None
    try:
        return float(info[key])
    except (TypeError, ValueError):
        raise DataError(f"{where}: {key} {info[key]!r} is no number; write one") from None
