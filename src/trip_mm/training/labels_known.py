"""Labels that exist already, taken over by a new labelling of the same geometries."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trip_mm.errors import DataError
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import Conformation
from trip_mm.training.labels_parts import same_energies


@dataclass(frozen=True)
class KnownLabels:
    """Labelled conformations by their geometry.

    Attributes:
        by_geometry: conformations by atomic numbers and float32 positions.
    """

    by_geometry: dict[bytes, Conformation]

    def take(
        self, geometries: Sequence[Conformation], multiplicity: int | None
    ) -> tuple[list[Conformation], list[Conformation]]:
        """Divides geometries into those whose label is known, with it, and the others.

        Args:
            geometries: without labels.
            multiplicity: of the labels; that of each geometry if None.
        """
        known, others = [], []
        for item in geometries:
            found = self.by_geometry.get(_key(item))
            n_unpaired = item.n_unpaired if multiplicity is None else multiplicity - 1
            if found is None or found.n_unpaired != n_unpaired:
                others.append(item)
            else:
                known.append(
                    replace(item, energy=found.energy, forces=found.forces, n_unpaired=n_unpaired)
                )
        return known, others


def read_known_labels(
    paths: Sequence[Path], level: str, lone_atom_energies: dict[int, float], max_force: float
) -> KnownLabels:
    """Reads the labels of earlier jobs, but for those that the new job would drop.

    Args:
        paths: files of labels, or directories of parts.
        level: method of the new labels.
        lone_atom_energies: of the new labels, eV by atomic number.
        max_force: eV/A; conformations with a larger force on an atom are left out.

    Raises:
        DataError: a file cannot be read, or its labels were made with another method or version.
    """
    found: dict[bytes, Conformation] = {}
    for path in paths:
        dataset = Dataset.open(path)
        if dataset.level_of_theory != level:
            raise DataError(
                f"{path}: labels at {dataset.level_of_theory or 'no stated level'} cannot be taken "
                f"over into labels at {level}"
            )
        expected = {z: lone_atom_energies[z] for z in dataset.elements() if z in lone_atom_energies}
        stated = {z: e for z, e in dataset.lone_atom_energies.items() if z in expected}
        if not same_energies(stated, expected):
            raise DataError(
                f"{path}: isolated atoms have other energies there, or none, as of another program "
                "or version; label these geometries again"
            )
        found.update((_key(item), item) for item in dataset if _is_kept(item, max_force))
    return KnownLabels(found)


def _is_kept(item: Conformation, max_force: float) -> bool:
    """Missing labels, which are NaN, are not."""
    largest = np.linalg.norm(item.forces, axis=-1).max()
    return bool(np.isfinite(item.energy) and largest <= max_force)


def _key(item: Conformation) -> bytes:
    positions = np.asarray(item.positions, dtype="<f4")
    return np.asarray(item.atomic_numbers, dtype="<i8").tobytes() + positions.tobytes()
