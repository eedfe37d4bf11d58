"""Random access to labelled conformations in one or several files, and reproducible splits."""

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import formula
from trip_mm.errors import DataError
from trip_mm.training.formats import FileContents, read_contents
from trip_mm.training.groups import Block, Conformation, Group, MemoryGroup
from trip_mm.training.levels import canonical_level

FORMULA_POOL = "formula"
"""The keys of all classes that are split by formula."""

Members = dict[str, dict[str, list[NDArray[np.int64]]]]
"""Positions of conformations in the dataset by pool and key."""

_BLOCK_CONFORMATIONS = 1024
ENERGY_TOLERANCE = 1e-6
"""eV; lone-atom energies that differ by more are of different levels of theory."""

_ALWAYS_TRAINED_ATOMS = 3
_MOST_OF_TARGET = 1.5


@dataclass(frozen=True)
class Split:
    """Conformations to train on and to validate on, and the keys that were held out.

    Attributes:
        train: positions in the dataset, `[n_train]` int64, ascending.
        validation: positions in the dataset, `[n_validation]` int64, ascending.
        held_out: `formula/<formula>` and `<class>/<source>` keys that went to validation, sorted.
        seed: seed of the draw.
        too_few: pools (`formula`, or a class that is split by source) of which nothing is held
            out because no key is small enough, with the least fraction at which one would be;
            None where there is no second key.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    held_out: tuple[str, ...]
    seed: int
    too_few: dict[str, float | None] = field(default_factory=dict)

    def to_json(self) -> str:
        """Returns seed, sizes, held-out keys and a sha256 of the membership as JSON."""
        digest = hashlib.sha256(self.validation.tobytes() + self.train.tobytes()).hexdigest()
        return json.dumps(
            {
                "seed": self.seed,
                "n_train": len(self.train),
                "n_validation": len(self.validation),
                "held_out": list(self.held_out),
                "trained_entirely": sorted(self.too_few),
                "sha256": digest,
            }
        )


@dataclass(frozen=True)
class FixedKeys:
    """What a draw does not decide: keys as in `Split.held_out`.

    Attributes:
        hold_out: are held out.
        train_only: are trained on.
    """

    hold_out: frozenset[str] = frozenset()
    train_only: frozenset[str] = frozenset()


class Dataset:
    """Labelled conformations of one or several files, read on demand.

    Conformations are numbered group by group in the order of the files. Nothing but the list of
    groups is held in memory until `preload` is called; the object pickles, so that the workers of
    a data loader open the files themselves.

    Attributes:
        groups: conformations of one composition each.
        level_of_theory: as written in the files.
        lone_atom_energies: eV of the isolated atom at the same level, by atomic number.
        failures: number of conformations that got no label, by reason.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        level_of_theory: str = "",
        lone_atom_energies: dict[int, float] | None = None,
        failures: dict[str, int] | None = None,
    ) -> None:
        self.groups: tuple[Group, ...] = tuple(groups)
        self.level_of_theory = level_of_theory
        self.lone_atom_energies = dict(lone_atom_energies or {})
        self.failures = dict(failures or {})
        counts = [group.n_conformations for group in self.groups]
        self._offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)

    @classmethod
    def open(cls, *paths: str | Path) -> "Dataset":
        """Opens files of any known layout; a directory stands for the `*.h5` files in it.

        Args:
            *paths: files in our own, ANI-1x or COMP6 layout, extended XYZ, or directories of
                finished parts (`part-*.h5`) as `trip-mm label` leaves them while it works.

        Raises:
            DataError: a file is missing, named twice or has an unknown layout, or the files are of
                different levels of theory, or one does not state that of its labels beside one
                that does.
        """
        files = expand_files(paths)
        contents = [read_contents(path) for path in files]
        failures: dict[str, int] = {}
        for content in contents:
            for reason, count in content.failures.items():
                failures[reason] = failures.get(reason, 0) + count
        return cls(
            [group for content in contents for group in content.groups],
            _common_level(files, contents),
            _merged_lone_atoms(contents),
            failures,
        )

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def __getitem__(self, index: int) -> Conformation:
        if not -len(self) <= index < len(self):
            raise IndexError(f"conformation {index} of a dataset of {len(self)}")
        group_index, row = self.locate(index % len(self))
        group = self.groups[group_index]
        return _conformation(group, group.read(slice(row, row + 1)), 0)

    def __iter__(self) -> Iterator[Conformation]:
        for group in self.groups:
            for start in range(0, group.n_conformations, _BLOCK_CONFORMATIONS):
                block = group.read(slice(start, start + _BLOCK_CONFORMATIONS))
                for row in range(len(block.energies)):
                    yield _conformation(group, block, row)

    def locate(self, index: int) -> tuple[int, int]:
        """Returns the group and the row in it of a conformation."""
        group_index = int(np.searchsorted(self._offsets, index, side="right")) - 1
        return group_index, index - int(self._offsets[group_index])

    def group_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the group of each conformation, `[n]` int64."""
        return np.asarray(np.searchsorted(self._offsets, indices, side="right") - 1, dtype=np.int64)

    def n_atoms(self) -> NDArray[np.int64]:
        """Returns the number of atoms of every conformation, `[n_conformations]` int64."""
        sizes = np.asarray([len(group.atomic_numbers) for group in self.groups], dtype=np.int64)
        return np.repeat(sizes, np.diff(self._offsets))

    def elements(self) -> tuple[int, ...]:
        """Returns the atomic numbers that occur, ascending."""
        return tuple(sorted({int(number) for g in self.groups for number in g.atomic_numbers}))

    def preload(self) -> "Dataset":
        """Returns the same dataset held in memory."""
        groups = [
            MemoryGroup(
                group.system_class,
                group.formula,
                group.split_by,
                group.atomic_numbers,
                group.read(slice(0, group.n_conformations)),
                group.path,
            )
            for group in self.groups
        ]
        return Dataset(groups, self.level_of_theory, self.lone_atom_energies, self.failures)

    def split_keys(self) -> frozenset[str]:
        """Returns every key that `split` can hold out, as in `Split.held_out`."""
        return _keys_of(self._split_members())

    def split(self, fraction: float = 0.05, seed: int = 0, fixed: FixedKeys | None = None) -> Split:
        """Holds out whole formulas, and whole trajectories for classes that ask for it.

        A formula is held out from every class that is split by formula, so that a stretched
        molecule does not give away its relaxed form. Keys (formulas, or the sources of one class)
        are drawn until `fraction` of their conformations is held out, never more than half as
        much again: a class of one source, or of a few large ones, is trained on entirely and named
        in `too_few`. So are formulas of up to three atoms: no other formula can stand for them.
        Each class is drawn by itself: data of other classes change nothing.

        Args:
            fraction: share of the conformations of each class to hold out, 0 to 1.
            seed: seed of the draw.
            fixed: keys that are held out, or trained on, whatever is drawn; those held out count
                towards `fraction`.

        Raises:
            DataError: `fraction` lies outside [0, 1), or a fixed key does not occur.
        """
        if not 0.0 <= fraction < 1.0:
            raise DataError(f"split fraction {fraction} is outside [0, 1); use 0.05, for example")
        members = self._split_members()
        fixed = fixed or FixedKeys()
        if unknown := sorted((fixed.hold_out | fixed.train_only) - _keys_of(members)):
            if unknown[0] in self._always_trained():
                raise DataError(
                    f"{unknown[0]}: formulas of up to {_ALWAYS_TRAINED_ATOMS} atoms are always "
                    "trained on; remove it from data.split"
                )
            raise DataError(
                f"{unknown[0]}: no such formula or source among the data, but data.split names it; "
                "correct or remove it, or add its data"
            )
        held_out: list[str] = []
        too_few: dict[str, float | None] = {}
        mask = np.zeros(len(self), dtype=bool)
        for pool, by_key in sorted(members.items()):
            counts = {key: sum(map(len, rows)) for key, rows in by_key.items()}
            drawn = _draw_keys(pool, counts, fraction, seed, fixed)
            if not drawn and fraction:
                too_few[pool] = _least_fraction(counts.values())
            for key in drawn:
                held_out.append(f"{pool}/{key}")
                mask[np.concatenate(by_key[key])] = True
        train, validation = np.flatnonzero(~mask), np.flatnonzero(mask)
        return Split(train, validation, tuple(sorted(held_out)), seed, too_few)

    def _always_trained(self) -> frozenset[str]:
        """Keys of the formulas that no split holds out."""
        return frozenset(
            f"{FORMULA_POOL}/{formula(group.atomic_numbers)}"
            for group in self.groups
            if group.split_by == "formula" and len(group.atomic_numbers) <= _ALWAYS_TRAINED_ATOMS
        )

    def _split_members(self) -> Members:
        members: Members = {}
        for offset, group in zip(self._offsets[:-1], self.groups, strict=True):
            rows = np.arange(offset, offset + group.n_conformations)
            if group.split_by == "formula":
                if len(group.atomic_numbers) > _ALWAYS_TRAINED_ATOMS:
                    by_key = members.setdefault(FORMULA_POOL, {})
                    by_key.setdefault(formula(group.atomic_numbers), []).append(rows)
                continue
            by_key = members.setdefault(group.system_class, {})
            sources = np.asarray(group.read(slice(0, group.n_conformations)).sources)
            for source in np.unique(sources):
                by_key.setdefault(str(source), []).append(rows[sources == source])
        return members


def _keys_of(members: Members) -> frozenset[str]:
    return frozenset(f"{pool}/{key}" for pool, by_key in members.items() for key in by_key)


def _draw_keys(
    pool: str, counts: dict[str, int], fraction: float, seed: int, fixed: FixedKeys
) -> list[str]:
    """Draws keys until their conformations make up `fraction`, at most half as much again."""
    names = {key: f"{pool}/{key}" for key in counts}
    drawn = [key for key in counts if names[key] in fixed.hold_out]
    target = fraction * sum(counts.values())
    if len(counts) < 2 or target == 0:
        return drawn
    most = _MOST_OF_TARGET * target * (1.0 + 1e-9)
    held = sum(counts[key] for key in drawn)
    decided = fixed.hold_out | fixed.train_only
    free = [key for key in counts if names[key] not in decided]
    for key in sorted(free, key=lambda key: _drawing_order(seed, pool, key)):
        if held < target and held + counts[key] <= most:
            drawn.append(key)
            held += counts[key]
    return drawn


def _least_fraction(counts: Collection[int]) -> float | None:
    """Returns the fraction, in full percent, at which the smallest key is held out."""
    if len(counts) < 2:
        return None
    return math.ceil(100.0 * min(counts) / (_MOST_OF_TARGET * sum(counts))) / 100.0


def _drawing_order(seed: int, pool: str, key: str) -> str:
    """Random by seed, but a matter of this key alone: other keys and pools cannot shift it."""
    return hashlib.sha256(json.dumps([seed, pool, key]).encode("utf-8")).hexdigest()


def expand_files(paths: Sequence[str | Path]) -> list[Path]:
    """Puts the `*.h5` files of a directory in its place.

    Raises:
        DataError: a directory holds none, nothing is named, or a file is named twice.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.h5")) if path.is_dir() else [path]
        if not found:
            raise DataError(f"{path}: the directory holds no *.h5 file; label some geometries")
        files += found
    if not files:
        raise DataError("no data file was given; name at least one")
    resolved = [path.resolve() for path in files]
    for place, path in enumerate(resolved):
        if path in resolved[:place]:
            raise DataError(
                f"{files[place]}: is named twice, so that its conformations would count twice; "
                "name each file once, alone or by its directory"
            )
    return files


def _common_level(files: Sequence[Path], contents: Sequence[FileContents]) -> str:
    stated = {content.level_of_theory for content in contents if content.level_of_theory}
    if len({canonical_level(level) for level in stated}) > 1:
        raise DataError(
            f"{', '.join(map(str, files))}: levels of theory {sorted(stated)} cannot be mixed; "
            "give files of one level"
        )
    level = min(stated, default="")
    for file, content in zip(files, contents, strict=True):
        if level and content.is_labelled and not content.level_of_theory:
            raise DataError(
                f"{file}: does not state the level of theory of its labels, and cannot be mixed "
                f"with {level}; if it is that, say so: level_of_theory={level} in the comment line "
                "of every frame of extended XYZ, the attribute level_of_theory in HDF5"
            )
    return level


def _merged_lone_atoms(contents: Sequence[FileContents]) -> dict[int, float]:
    merged: dict[int, float] = {}
    for content in contents:
        for number, energy in content.lone_atom_energies.items():
            if abs(merged.setdefault(number, energy) - energy) > ENERGY_TOLERANCE:
                raise DataError(
                    f"element {number}: lone-atom energies {merged[number]} and {energy} eV differ "
                    "between the files; they cannot be of one level of theory"
                )
    return merged


def _conformation(group: Group, block: Block, row: int) -> Conformation:
    return Conformation(
        group.atomic_numbers,
        block.positions[row],
        float(block.energies[row]),
        block.forces[row],
        group.system_class,
        group.formula,
        block.sources[row],
        int(block.n_unpaired[row]),
        int(block.geometry_ids[row]),
    )
