"""Evaluation of several potentials on one data set: what is computed, in one object."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from trip_mm.evaluation.collection import (
    Advance,
    LabelledSet,
    PredictedSet,
    collect,
)
from trip_mm.evaluation.dimers import (
    DimerScan,
    InteractionCurve,
    find_dimer_scans,
    interaction_curves,
    labelled_scans,
    relabelled_scans,
)
from trip_mm.evaluation.journal import PredictionJournal
from trip_mm.evaluation.literature import PublishedTable, comp6_table, is_comp6
from trip_mm.evaluation.metrics import (
    NO_OFFSETS,
    ElementOffsets,
    SetErrors,
    errors_by_subset,
    fitted_offsets,
    within_window,
)
from trip_mm.evaluation.predictors import Predictor, TripPredictor
from trip_mm.evaluation.seen import describe_seen
from trip_mm.training.dataset import Dataset
from trip_mm.training.levels import same_level


class Offsets(StrEnum):
    """When predicted energies are shifted by one fitted offset per element."""

    AUTO = "auto"
    """Where the level of theory of potential and labels differs, or one is unknown."""
    NONE = "none"
    ELEMENT = "element"


@dataclass(frozen=True)
class PotentialResult:
    """One potential on the data set.

    Attributes:
        predicted: its predictions.
        offsets: that were added to its energies.
        errors: of all conformations, by subset.
        window_errors: of those below 100 kcal/mol, by subset.
        curves: its dimer scans.
        notes: what a reader of its figures must know.
    """

    predicted: PredictedSet
    offsets: ElementOffsets
    errors: dict[str, SetErrors]
    window_errors: dict[str, SetErrors]
    curves: tuple[InteractionCurve, ...]
    notes: tuple[str, ...]

    @property
    def predictor(self) -> Predictor:
        """The potential."""
        return self.predicted.predictor

    @property
    def label(self) -> str:
        """Name for tables and pictures."""
        return self.predictor.spec.label


@dataclass(frozen=True)
class Evaluation:
    """Several potentials on one data set.

    Attributes:
        labelled: the labels.
        level_of_theory: of the labels, empty where unknown.
        reference: the potential whose predictions took the place of the labels, None without one.
        results: one for each potential.
        scans: dimer scans found in the data, with a label at every separation.
        n_scans_left_out: dimer scans without a label at some separation.
        published: rows to print beside; None where the labels are not COMP6's.
        n_above_window: conformations more than 100 kcal/mol above the lowest of their formula.
        notes: what concerns all potentials.
    """

    labelled: LabelledSet
    level_of_theory: str
    reference: Predictor | None
    results: tuple[PotentialResult, ...]
    scans: tuple[DimerScan, ...]
    n_scans_left_out: int
    published: PublishedTable | None
    n_above_window: int
    notes: tuple[str, ...]


def evaluate_potentials(
    dataset: Dataset,
    predictors: Sequence[Predictor],
    journal: PredictionJournal,
    offsets: Offsets = Offsets.AUTO,
    advance: Advance = lambda count: None,
    reference: Predictor | None = None,
) -> Evaluation:
    """Computes all errors of potentials on a data set.

    Args:
        dataset: labelled conformations of neutral systems in open boundaries.
        predictors: the potentials.
        journal: keeps predictions.
        offsets: whether predicted energies are shifted per element.
        advance: is told of progress, once per conformation and potential.
        reference: a potential whose predictions take the place of the labels, which may then be
            missing: against its own teacher a model shows its error without that of the level.

    Raises:
        DataError: nothing usable in the data.
        TripError: a potential refuses the data.
    """
    labelled, predicted = collect(dataset, predictors, journal, advance, reference)
    keep = within_window(labelled)
    found = find_dimer_scans(dataset)
    if reference is None:
        level, scans = dataset.level_of_theory, labelled_scans(found)
    else:
        level, scans = reference.level, relabelled_scans(found, reference, journal)
    results = []
    for own in predicted:
        shift, notes = _offsets(level, labelled, own, offsets)
        notes += _seen(own.predictor, dataset)
        results.append(
            PotentialResult(
                own,
                shift,
                errors_by_subset(labelled, own, shift),
                errors_by_subset(labelled, own, shift, keep),
                tuple(interaction_curves(scans, own.predictor, journal)),
                tuple(notes),
            )
        )
    notes = [
        *_label_notes(labelled, reference),
        *_common_notes(labelled, predicted, keep),
        *_dimer_notes(len(found), len(scans), results),
    ]
    return Evaluation(
        labelled,
        level,
        reference,
        tuple(results),
        tuple(scans),
        len(found) - len(scans),
        comp6_table() if reference is None and is_comp6(dataset) else None,
        int((~keep).sum()),
        tuple(notes),
    )


def _seen(predictor: Predictor, dataset: Dataset) -> list[str]:
    if not isinstance(predictor, TripPredictor):
        return []
    return describe_seen(predictor.spec.label, predictor.training, dataset)


def _offsets(
    level: str, labelled: LabelledSet, predicted: PredictedSet, offsets: Offsets
) -> tuple[ElementOffsets, list[str]]:
    """Returns the offsets to apply and what has to be said of them."""
    predictor = predicted.predictor
    label = predictor.spec.label
    notes = [
        f"{label}: {count} conformations failed ({reason})"
        for reason, count in predicted.failures.items()
    ]
    same = same_level(predictor.level, level)
    if not same:
        notes.append(
            f"{label}: level of theory {predictor.level or 'unknown'}, labels "
            f"{level or 'unknown'}. Total energies are not comparable, and every error contains "
            "the difference of the levels."
        )
    if offsets is Offsets.NONE or (offsets is Offsets.AUTO and same):
        return NO_OFFSETS, notes
    notes.append(
        f"{label}: energies after one offset per element, fitted to these conformations; "
        "relative energies, forces and interaction energies do not depend on it."
    )
    return fitted_offsets(labelled, predicted), notes


def _label_notes(labelled: LabelledSet, reference: Predictor | None) -> list[str]:
    if reference is None:
        return []
    label = reference.spec.label
    return [f"Labels: {label} instead of those in the data."] + [
        f"Labels: {label} failed on {count} conformations ({reason}), which are left out."
        for reason, count in labelled.reference_failures.items()
    ]


def _dimer_notes(n_found: int, n_labelled: int, results: Sequence[PotentialResult]) -> list[str]:
    notes = []
    if n_labelled < n_found:
        notes.append(
            f"{n_found - n_labelled} of {n_found} dimers left out: a separation has no label."
        )
    if n_labelled and not any(result.curves for result in results):
        notes.append(f"No interaction energies: a separation failed in all {n_labelled} dimers.")
    return notes


def _common_notes(
    labelled: LabelledSet, predicted: Sequence[PredictedSet], keep: NDArray[np.bool_]
) -> list[str]:
    notes = []
    if labelled.n_unlabelled:
        notes.append(f"{labelled.n_unlabelled} conformations without energy or forces left out.")
    if any(own.failures for own in predicted) and len(predicted) > 1:
        notes.append("Conformations that one potential failed on are left out for all of them.")
    if keep.all():
        notes.append("No conformation lies 100 kcal/mol above the lowest of its formula.")
    return notes
