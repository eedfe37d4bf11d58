"""Conformations and groups of them that share their composition, in memory or in a file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """Consecutive conformations of one group.

    Attributes:
        positions: A, `[n_conf, n_atoms, 3]` float64.
        energies: eV, `[n_conf]` float64, NaN where missing.
        forces: eV/A, `[n_conf, n_atoms, 3]` float64, NaN where missing.
        sources: name of the trajectory or molecule of origin of each conformation.
        n_unpaired: unpaired electrons, `[n_conf]` int64.
        geometry_ids: position in the geometry file, `[n_conf]` int64; -1 where unknown.
    """

    positions: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    sources: list[str]
    n_unpaired: NDArray[np.int64]
    geometry_ids: NDArray[np.int64]


class Group(Protocol):
    """Conformations of one composition; `read(rows)` returns a slice of them.

    `path` is the file that they came from, None where they were made in memory.
    """

    @property
    def path(self) -> Path | None: ...  # noqa: D102

    @property
    def system_class(self) -> str: ...  # noqa: D102

    @property
    def formula(self) -> str: ...  # noqa: D102

    @property
    def split_by(self) -> str: ...  # noqa: D102

    @property
    def atomic_numbers(self) -> NDArray[np.int64]: ...  # noqa: D102

    @property
    def n_conformations(self) -> int: ...  # noqa: D102

    def read(self, rows: slice) -> Block:
        """Reads a contiguous slice of the conformations."""
        ...


def fits_electrons(n_unpaired: float, n_electrons: int) -> bool:
    """Returns whether a neutral molecule can have so many unpaired electrons."""
    return 0 <= n_unpaired <= n_electrons and (n_electrons - n_unpaired) % 2 == 0


def group_name(group: Group) -> str:
    """Returns what a file calls a group: its path in an HDF5 file, else class and formula."""
    return str(getattr(group, "name", f"{group.system_class}/{group.formula}"))


def group_place(group: Group) -> str:
    """Returns the name of a group behind that of its file, where it came from one."""
    name = group_name(group)
    return name if group.path is None else f"{group.path}: {name}"


@dataclass(frozen=True)
class MemoryGroup:
    """A group whose conformations are held in memory."""

    system_class: str
    formula: str
    split_by: str
    atomic_numbers: NDArray[np.int64]
    block: Block
    path: Path | None = None

    @property
    def n_conformations(self) -> int:
        """Number of conformations."""
        return len(self.block.energies)

    def read(self, rows: slice) -> Block:
        """Returns a contiguous slice of the conformations (views, not copies)."""
        block = self.block
        return Block(
            block.positions[rows],
            block.energies[rows],
            block.forces[rows],
            block.sources[rows],
            block.n_unpaired[rows],
            block.geometry_ids[rows],
        )


@dataclass(frozen=True)
class Conformation:
    """One conformation with its labels.

    Attributes:
        atomic_numbers: `[n_atoms]` int64.
        positions: A, `[n_atoms, 3]` float64.
        energy: total energy in eV, NaN if missing.
        forces: eV/A, `[n_atoms, 3]` float64, NaN if missing.
        system_class: class of system, such as `peptide-cluster`.
        formula: molecular formula.
        source: name of the trajectory or molecule it came from.
        n_unpaired: unpaired electrons of the calculation.
        geometry_id: position in the geometry file, -1 if unknown.
    """

    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    energy: float
    forces: NDArray[np.float64]
    system_class: str
    formula: str
    source: str
    n_unpaired: int = 0
    geometry_id: int = -1


def sorted_by_element(conformation: Conformation) -> Conformation:
    """Returns the conformation with its atoms in ascending atomic number (stable)."""
    order = np.argsort(conformation.atomic_numbers, kind="stable")
    return Conformation(
        conformation.atomic_numbers[order],
        conformation.positions[order],
        conformation.energy,
        conformation.forces[order],
        conformation.system_class,
        conformation.formula,
        conformation.source,
        conformation.n_unpaired,
        conformation.geometry_id,
    )


def group_conformations(
    conformations: Sequence[Conformation], split_by: Mapping[str, str]
) -> Iterator[MemoryGroup]:
    """Gathers conformations by class and formula, atoms sorted by element.

    Args:
        conformations: any mixture, labelled or not.
        split_by: `formula` or `source` for each class; `formula` where absent.

    Yields:
        One group for each class and formula, sorted by both.
    """
    members: dict[tuple[str, str], list[Conformation]] = {}
    for conformation in conformations:
        key = (conformation.system_class, conformation.formula)
        members.setdefault(key, []).append(sorted_by_element(conformation))
    for (system_class, formula_name), items in sorted(members.items()):
        block = Block(
            np.stack([item.positions for item in items]),
            np.asarray([item.energy for item in items], dtype=np.float64),
            np.stack([item.forces for item in items]),
            [item.source for item in items],
            np.asarray([item.n_unpaired for item in items], dtype=np.int64),
            np.asarray([item.geometry_id for item in items], dtype=np.int64),
        )
        rule = split_by.get(system_class, "formula")
        yield MemoryGroup(system_class, formula_name, rule, items[0].atomic_numbers, block)
