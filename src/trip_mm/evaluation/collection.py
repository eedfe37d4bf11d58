"""Labels and predictions of a data set, side by side."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import DataError
from trip_mm.evaluation.journal import Predicted, PredictionJournal, prediction_key
from trip_mm.evaluation.molecules import by_molecule
from trip_mm.evaluation.predictors import Predictor
from trip_mm.training.checks import check_labels
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import Block, Group, group_place

_BATCH_ATOMS = 2000
_KEEP_EVERY_S = 1.0

Advance = Callable[[int], None]
"""Is given the number of conformations that have just been done."""


@dataclass(frozen=True)
class LabelledSet:
    """Labelled conformations; n_conf of them with n_total atoms in all.

    Attributes:
        subsets: names of the classes that occur, sorted.
        subset_idx: `[n_conf]` int64, into `subsets`.
        molecule_idx: `[n_conf]` int64, the same for the same molecule (see `by_molecule`).
        formula_idx: `[n_conf]` int64, the same for the same formula.
        elements: atomic numbers that occur, ascending.
        compositions: atoms of each element, `[n_conf, n_elements]` float64.
        energies: total energies, eV, `[n_conf]`.
        forces: eV/A, `[n_total, 3]`.
        n_unlabelled: conformations without energy or without any forces, which are left out.
        reference_failures: number of conformations that the potential in the place of the labels
            could not evaluate, by reason; they are left out.
    """

    subsets: tuple[str, ...]
    subset_idx: NDArray[np.int64]
    molecule_idx: NDArray[np.int64]
    formula_idx: NDArray[np.int64]
    elements: tuple[int, ...]
    compositions: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    n_unlabelled: int = 0
    reference_failures: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.energies)

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Atoms of each conformation, `[n_conf]`."""
        return np.asarray(self.compositions.sum(axis=1), dtype=np.int64)

    def chosen(self, mask: NDArray[np.bool_]) -> "LabelledSet":
        """Returns some of the conformations, `mask` `[n_conf]`."""
        atoms = np.repeat(mask, self.n_atoms)
        return replace(
            self,
            subset_idx=self.subset_idx[mask],
            molecule_idx=self.molecule_idx[mask],
            formula_idx=self.formula_idx[mask],
            compositions=self.compositions[mask],
            energies=self.energies[mask],
            forces=self.forces[atoms],
        )


@dataclass(frozen=True)
class PredictedSet:
    """Predictions of one potential for a `LabelledSet`, in its order.

    Attributes:
        predictor: the potential.
        energies: total energies, eV, `[n_conf]`.
        forces: eV/A, `[n_total, 3]`.
        failures: number of conformations that the potential could not evaluate, by reason.
    """

    predictor: Predictor
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    failures: dict[str, int]


def predictions(
    predictor: Predictor,
    journal: PredictionJournal,
    atomic_numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    n_unpaired: NDArray[np.int64],
) -> list[Predicted]:
    """Predicts conformations that share their atoms, computing only what the journal lacks.

    What is computed is kept every second: one conformation may take minutes.

    Args:
        predictor: the potential.
        journal: is asked first, and keeps what is computed.
        atomic_numbers: `[n_atoms]`.
        positions: A, `[n_conf, n_atoms, 3]`.
        n_unpaired: `[n_conf]`.
    """
    keys = [
        prediction_key(predictor.identity, atomic_numbers, own, int(unpaired))
        for own, unpaired in zip(positions, n_unpaired, strict=True)
    ]
    found = [journal.find(key, len(atomic_numbers)) for key in keys]
    missing = [row for row, outcome in enumerate(found) if outcome is None]
    if missing:
        computed = predictor.predict(atomic_numbers, positions[missing], n_unpaired[missing])
        waiting: dict[bytes, Predicted] = {}
        since = time.monotonic()
        for row, outcome in zip(missing, computed, strict=True):
            found[row] = waiting[keys[row]] = outcome
            if time.monotonic() - since >= _KEEP_EVERY_S:
                journal.add(list(waiting), list(waiting.values()))
                waiting, since = {}, time.monotonic()
        journal.add(list(waiting), list(waiting.values()))
    return [outcome for outcome in found if outcome is not None]


def collect(
    dataset: Dataset,
    predictors: Sequence[Predictor],
    journal: PredictionJournal,
    advance: Advance = lambda count: None,
    reference: Predictor | None = None,
) -> tuple[LabelledSet, list[PredictedSet]]:
    """Evaluates every labelled conformation with every potential.

    A conformation that one potential fails on is left out for all of them, and counted, so that
    all figures are about the same conformations.

    Args:
        dataset: what to evaluate on.
        predictors: the potentials; they are asked to check the data first.
        journal: keeps the predictions.
        advance: is told of progress, once per conformation and potential.
        reference: a potential whose predictions take the place of the labels.

    Raises:
        DataError: positions that are not finite, labels that are infinite or partly NaN, or
            nothing that has labels and predictions.
        TripError: a potential refuses the data.
    """
    everyone = [*predictors, *([] if reference is None else [reference])]
    for predictor in everyone:
        predictor.check(dataset)
    labels: list[tuple[Group, int, Block]] = []
    outcomes: list[list[Predicted]] = [[] for _ in everyone]
    n_unlabelled = 0
    for number, parts in enumerate(by_molecule(dataset.groups)):
        for group, block in ((part, block) for part in parts for block in _labelled_blocks(part)):
            usable = np.isfinite(block.energies) & np.isfinite(block.forces).all(axis=(1, 2))
            if reference is not None:
                usable[:] = True
            block = _rows(block, usable)
            n_unlabelled += int((~usable).sum())
            labels.append((group, number, block))
            for predictor, own in zip(everyone, outcomes, strict=True):
                own += predictions(
                    predictor, journal, group.atomic_numbers, block.positions, block.n_unpaired
                )
                advance(len(usable))
    if not any(len(block.energies) for _, _, block in labels):
        raise DataError("the data hold no conformation with energy and forces; label some first")
    labelled, predicted = _joined(dataset, labels, n_unlabelled, everyone, outcomes)
    if reference is None:
        return labelled, predicted
    *others, last = predicted
    relabelled = replace(
        labelled,
        energies=last.energies,
        forces=last.forces,
        reference_failures=last.failures,
    )
    return relabelled, others


def _labelled_blocks(group: Group) -> Iterator[Block]:
    """Reads a group in slices of about `_BATCH_ATOMS` atoms and checks them."""
    step = max(1, _BATCH_ATOMS // len(group.atomic_numbers))
    for start in range(0, group.n_conformations, step):
        block = group.read(slice(start, start + step))
        check_labels(group_place(group), block, start)
        yield block


def _rows(block: Block, mask: NDArray[np.bool_]) -> Block:
    return Block(
        block.positions[mask],
        block.energies[mask],
        block.forces[mask],
        [source for source, keep in zip(block.sources, mask, strict=True) if keep],
        block.n_unpaired[mask],
        block.geometry_ids[mask],
    )


def _joined(
    dataset: Dataset,
    labels: list[tuple[Group, int, Block]],
    n_unlabelled: int,
    predictors: Sequence[Predictor],
    outcomes: list[list[Predicted]],
) -> tuple[LabelledSet, list[PredictedSet]]:
    elements = dataset.elements()
    subsets = tuple(sorted({group.system_class for group, _, _ in labels}))
    formulas = sorted({group.formula for group, _, _ in labels})
    counts = np.array([len(block.energies) for _, _, block in labels])

    def spread(values: list[int]) -> NDArray[np.int64]:
        return np.repeat(np.array(values, dtype=np.int64), counts)

    compositions = [[int((g.atomic_numbers == z).sum()) for z in elements] for g, _, _ in labels]
    whole = LabelledSet(
        subsets,
        spread([subsets.index(group.system_class) for group, _, _ in labels]),
        spread([number for _, number, _ in labels]),
        spread([formulas.index(group.formula) for group, _, _ in labels]),
        elements,
        np.repeat(np.array(compositions, dtype=np.float64), counts, axis=0),
        np.concatenate([block.energies for _, _, block in labels]),
        np.concatenate([block.forces.reshape(-1, 3) for _, _, block in labels]),
        n_unlabelled,
    )
    succeeded = np.array([[not found.reason for found in own] for own in outcomes])
    everyone = np.asarray(succeeded.all(axis=0))
    if not everyone.any():
        reasons = sorted({found.reason for own in outcomes for found in own if found.reason})
        raise DataError(f"no conformation could be evaluated by all potentials: {reasons[0]}")
    chosen = np.flatnonzero(everyone)
    return whole.chosen(everyone), [
        PredictedSet(
            predictor,
            np.array([own[row].energy for row in chosen]),
            np.concatenate([own[row].forces for row in chosen]),
            _failures(own),
        )
        for predictor, own in zip(predictors, outcomes, strict=True)
    ]


def _failures(outcomes: list[Predicted]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for found in outcomes:
        if found.reason:
            counts[found.reason] = counts.get(found.reason, 0) + 1
    return counts
