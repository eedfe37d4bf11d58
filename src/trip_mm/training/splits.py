"""Which conformations of a data set are held out: whole formulas, random ones, or the last ones."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import DataError
from trip_mm.training.config import SplitConfig
from trip_mm.training.dataset import FORMULA_POOL, Dataset, FixedKeys, Split

Splitter = Callable[[Dataset, float, int], Split]


def draw_split(
    dataset: Dataset, config: SplitConfig, recorded: frozenset[str] | None = None
) -> Split:
    """Holds out what a configuration says.

    Args:
        dataset: what to split.
        config: how.
        recorded: keys that the run to resume has held out; nothing else is drawn then, so that a
            run keeps its split. None draws.

    Raises:
        DataError: see `Dataset.split`.
    """
    fraction, seed = config.validation_fraction, config.seed
    if config.by != "formula":
        return SPLITTERS[config.by](dataset, fraction, seed)
    if recorded is None:
        fixed = FixedKeys(frozenset(config.hold_out), frozenset(config.train_only))
    else:
        keys = dataset.split_keys()
        fixed = FixedKeys(keys & recorded, keys - recorded)
    return split_by_formula(dataset, fraction, seed, fixed)


def split_by_formula(
    dataset: Dataset, fraction: float, seed: int, fixed: FixedKeys | None = None
) -> Split:
    """As `Dataset.split`; a held-out formula is held out from every class that is split by it."""
    drawn = dataset.split(fraction, seed, fixed)
    held_out = np.zeros(len(dataset), dtype=bool)
    held_out[drawn.validation] = True
    held_out |= _same_formula(dataset, held_out)
    train, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    return replace(drawn, train=train, validation=validation)


def split_randomly(dataset: Dataset, fraction: float, seed: int) -> Split:
    """Holds out conformations drawn one by one.

    Neighbours in a trajectory and conformers of one molecule fall on both sides: the errors say
    how well the model interpolates, no more.
    """
    _check(fraction)
    n_held = round(fraction * len(dataset))
    held_out = np.zeros(len(dataset), dtype=bool)
    held_out[np.random.default_rng(seed).permutation(len(dataset))[:n_held]] = True
    return _split(held_out, seed)


def split_sequentially(dataset: Dataset, fraction: float, seed: int) -> Split:
    """Holds out the last conformations of every group in the order of the file."""
    _check(fraction)
    parts = []
    for group in dataset.groups:
        rows = np.arange(group.n_conformations)
        parts.append(rows >= group.n_conformations - round(fraction * group.n_conformations))
    return _split(np.concatenate(parts), seed)


SPLITTERS: dict[str, Splitter] = {
    "formula": split_by_formula,
    "random": split_randomly,
    "sequential": split_sequentially,
}
"""By the names that `data.split.by` takes."""


def describe_too_few(split: Split) -> list[str]:
    """Says of which classes nothing is held out, a line for each."""
    return [
        f"{pool}: too few {'formulas' if pool == FORMULA_POOL else 'sources'} to hold any out; all "
        "are trained on"
        for pool in sorted(split.too_few)
    ]


def advise_to_hold_out(split: Split) -> str:
    """Says how to hold out something where a split holds out nothing."""
    enough = [fraction for fraction in split.too_few.values() if fraction is not None]
    reasons = "; ".join(["no conformation is held out", *describe_too_few(split)])
    if enough:
        return f"{reasons}; set data.split.validation_fraction to {min(enough):.2f} or more"
    return (
        f"{reasons}; raise data.split.validation_fraction, add data of other formulas or sources, "
        "or set data.split.by to random"
    )


def _check(fraction: float) -> None:
    if not 0.0 <= fraction < 1.0:
        raise DataError(f"split fraction {fraction} is outside [0, 1); use 0.05, for example")


def _split(held_out: NDArray[np.bool_], seed: int) -> Split:
    return Split(np.flatnonzero(~held_out), np.flatnonzero(held_out), (), seed)


def _same_formula(dataset: Dataset, held_out: NDArray[np.bool_]) -> NDArray[Any]:
    """Marks conformations whose formula is held out as a whole in another class."""
    owner = dataset.group_of(np.arange(len(dataset)))
    formulas = {
        dataset.groups[number].formula
        for number in np.unique(owner[held_out])
        if dataset.groups[number].split_by == "formula"
    }
    marked = np.asarray(
        [group.split_by == "formula" and group.formula in formulas for group in dataset.groups]
    )
    return np.asarray(marked[owner])
