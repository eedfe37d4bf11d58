"""Protons on their way from one molecule to another along a hydrogen bond."""

from collections.abc import Iterator

import numpy as np

from trip_mm.errors import ConfigError
from trip_mm.training.groups import Conformation
from trip_mm.training.sampling_geometry import Positions, displaced, random_rotation, unlabelled
from trip_mm.training.sampling_molecules import Molecule, build_molecules_of_pairs
from trip_mm.training.sampling_recipe import ProtonTransfersSource

CLEARANCE = 1.4
"""A; donor and proton apart from the acceptor, the molecules come no closer than this."""
_DONORS = (7, 8)
_ATTEMPTS = 1000


def sample_proton_transfers(
    source: ProtonTransfersSource, rng: np.random.Generator
) -> Iterator[Conformation]:
    """Yields pairs of a donor and an acceptor with a proton anywhere between the two.

    Donor, proton and acceptor lie on a line; all else about the pair is drawn.

    Raises:
        ConfigError: as `build_molecules_of_pairs`, a molecule has nothing to give or to take a
            proton, or the pair overlaps whatever is drawn.
    """
    built = build_molecules_of_pairs(source, rng)
    for count in range(source.conformations):
        first, second = (built[name] for name in source.pairs[count % len(source.pairs)])
        where = f"source {source.kind} of class {source.system_class}: pair"
        where += f" {[first.smiles, second.smiles]}"
        bonds = _donor_bonds(first)
        if not bonds:
            raise ConfigError(f"{where}: {first.smiles} has no hydrogen on N or O to give")
        acceptors = [k for k, z in enumerate(second.atomic_numbers) if z in source.acceptors]
        if not acceptors:
            raise ConfigError(
                f"{where}: {second.smiles} has no atom of the elements {list(source.acceptors)} to "
                "take a proton"
            )
        positions = _with_proton_between(first, second, (bonds, acceptors), source, rng)
        if positions is None:
            raise ConfigError(
                f"{where}: atoms came closer than {CLEARANCE} A {_ATTEMPTS} times in a row; "
                f"choose a longer distance than {list(source.distance)}"
            )
        yield unlabelled(
            first.atomic_numbers + second.atomic_numbers,
            displaced(positions, rng.uniform(*source.displacement), rng),
            source.system_class,
            f"{first.smiles}.{second.smiles}",
        )


def _donor_bonds(molecule: Molecule) -> list[tuple[int, int]]:
    """Returns every bond from an N or O to a hydrogen, in this order."""
    both_ways = [bond for i, j in molecule.bonds for bond in ((i, j), (j, i))]
    numbers = molecule.atomic_numbers
    return [(i, j) for i, j in both_ways if numbers[i] in _DONORS and numbers[j] == 1]


def _with_proton_between(
    first: Molecule,
    second: Molecule,
    choices: tuple[list[tuple[int, int]], list[int]],
    source: ProtonTransfersSource,
    rng: np.random.Generator,
) -> Positions | None:
    """Returns positions of both, first above second, or None where they overlap at every draw."""
    bonds, acceptors = choices
    for _ in range(_ATTEMPTS):
        given = first.conformers[int(rng.integers(len(first.conformers)))].copy()
        taking = second.conformers[int(rng.integers(len(second.conformers)))]
        donor, proton = bonds[int(rng.integers(len(bonds)))]
        acceptor = acceptors[int(rng.integers(len(acceptors)))]
        bond = given[proton] - given[donor]
        length = float(np.linalg.norm(bond))
        distance = rng.uniform(*source.distance)
        turned = (taking - taking[acceptor]) @ random_rotation(rng).T
        placed = turned + given[donor] + bond / length * distance
        along = length + rng.uniform(*source.progress) * (distance - 2.0 * length)
        given[proton] = given[donor] + bond / length * along
        between = np.linalg.norm(given[:, None] - placed[None], axis=-1)
        between[[donor, proton], acceptor] = np.inf
        if between.min() >= CLEARANCE:
            return np.concatenate([given, placed])
    return None
