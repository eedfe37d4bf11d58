"""What is refused in labelled conformations, whether they are trained on or evaluated on."""

from collections.abc import Mapping

import numpy as np

from trip_mm.elements import SYMBOLS
from trip_mm.errors import DataError
from trip_mm.training.groups import Block, Group, group_place


def check_block(
    group: Group, block: Block, lone_atom_energies: Mapping[int, float], first: int = 0
) -> None:
    """Refuses what cannot be trained on.

    Args:
        group: that the conformations belong to; it is named.
        block: the conformations.
        lone_atom_energies: eV, by atomic number.
        first: number of the first conformation of the block in the group.

    Raises:
        DataError: as `check_labels`, or an element has no lone-atom energy.
    """
    where = group_place(group)
    for number in sorted({int(z) for z in group.atomic_numbers}):
        if number not in lone_atom_energies:
            raise DataError(
                f"{where}: no lone-atom energy for {SYMBOLS[number]}; give it as "
                f"data.lone_atom_energies.{SYMBOLS[number]}"
            )
    check_labels(where, block, first)


def check_labels(where: str, block: Block, first: int = 0) -> None:
    """Refuses numbers that are neither values nor wholly missing.

    An energy or the forces of a conformation are missing where they are NaN altogether, as in
    ANI-1x. Forces that are NaN in part are damage.

    Args:
        where: names the group.
        block: some of its conformations.
        first: number of the first of them in the group, counted from 0.

    Raises:
        DataError: a position is not finite, a label is infinite, or forces are NaN in part.
    """
    if not np.isfinite(block.positions).all():
        raise DataError(f"{where}: positions that are not finite; remove these conformations")
    if np.isinf(block.energies).any() or np.isinf(block.forces).any():
        raise DataError(f"{where}: infinite energies or forces; remove these conformations")
    n_components = 3 * block.forces.shape[1]
    n_missing = np.isnan(block.forces).sum(axis=(1, 2))  # [n_conf]
    damaged = np.flatnonzero((n_missing > 0) & (n_missing < n_components))
    if len(damaged):
        row = int(damaged[0])
        raise DataError(
            f"{where}: conformation {first + row} (counted from 0): {n_missing[row]} of "
            f"{n_components} force components are NaN; remove the conformation, or set "
            "all of its forces to NaN to have it left out"
        )
