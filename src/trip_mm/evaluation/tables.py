"""The tables of an evaluation, as text cells that a terminal and Markdown share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trip_mm.evaluation.dimers import (
    InteractionErrors,
    errors_by_separation,
    interaction_errors,
)
from trip_mm.evaluation.evaluation import Evaluation
from trip_mm.evaluation.literature import PublishedRow
from trip_mm.evaluation.metrics import POOLED, Deviation, SetErrors

UNREPORTED = "..."
"""As the TrIP thesis marks it."""

_ERROR_HEADERS = (
    "potential",
    "subset",
    "n",
    "energy",
    "per atom",
    "relative",
    "force",
)


@dataclass(frozen=True)
class Table:
    """Cells under headings; the first two columns are text, the others numbers.

    Attributes:
        title: one line.
        headers: of the columns.
        rows: cells.
        notes: to be printed below.
        n_text: columns on the left that are text.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    n_text: int = 2

    def to_markdown(self) -> str:
        """Returns the table in Markdown with its title and notes."""
        rule = ["---"] * self.n_text + ["---:"] * (len(self.headers) - self.n_text)
        lines = [f"## {self.title}", ""]
        lines += [_row(cells) for cells in (self.headers, tuple(rule), *self.rows)]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def all_tables(evaluation: Evaluation) -> list[Table]:
    """Returns every table that the data allow, the one of COMP6 first."""
    tables = [error_table(evaluation)]
    if evaluation.n_above_window:
        tables += [window_table(evaluation)]
    if any(result.curves for result in evaluation.results):
        tables += [interaction_table(evaluation)]
        separations = separation_table(evaluation)
        tables += [separations] if separations.rows else []
    return tables


def error_table(evaluation: Evaluation) -> Table:
    """Returns energy, relative-energy and force errors, and published rows where they belong."""
    rows = [
        _error_row(result.label, subset, errors)
        for result in evaluation.results
        for subset, errors in _shown(result.errors).items()
    ]
    notes = [note for result in evaluation.results for note in result.notes]
    notes += evaluation.notes
    if evaluation.published is not None:
        rows += [_published_row(row) for row in evaluation.published.rows]
        covered = ", ".join(evaluation.labelled.subsets)
        notes.append(
            f"Published rows: {evaluation.published.source}, {evaluation.published.note}. The "
            f"other rows cover {covered} ({len(evaluation.labelled):,} conformations)."
        )
        notes += [
            f"* {row.potential}: {row.note}." for row in evaluation.published.rows if row.note
        ]
    notes.append(
        "energy: per conformation; relative: differences between conformations of one molecule, "
        "all pairs; per atom: MAE."
    )
    title = "Errors, MAE/RMSE: energies in kcal/mol, force components in kcal/mol/A"
    return Table(title, _ERROR_HEADERS, tuple(rows), tuple(notes))


def window_table(evaluation: Evaluation) -> Table:
    """Returns the same errors below 100 kcal/mol."""
    rows = [
        _error_row(result.label, subset, errors)
        for result in evaluation.results
        for subset, errors in _shown(result.window_errors).items()
    ]
    title = "The same below 100 kcal/mol above the lowest conformation of each formula"
    return Table(title, _ERROR_HEADERS, tuple(rows))


def _shown(errors: dict[str, SetErrors]) -> dict[str, SetErrors]:
    """Leaves out the pooled row where there is one subset."""
    return errors if len(errors) > 2 else {k: v for k, v in errors.items() if k != POOLED}


def _error_row(label: str, subset: str, errors: SetErrors) -> tuple[str, ...]:
    return (
        label,
        subset,
        f"{errors.n_conformations:,}",
        pair(errors.energy, 2),
        f"{errors.energy_mae_per_atom:.3f}",
        pair(errors.relative_energy, 2),
        pair(errors.force, 2),
    )


def pair(deviation: Deviation, digits: int) -> str:
    """Returns `MAE/RMSE`, `-` where there is nothing to compare."""
    if deviation.n == 0:
        return "-"
    return f"{deviation.mae:.{digits}f}/{deviation.rmse:.{digits}f}"


def _published_row(row: PublishedRow) -> tuple[str, ...]:
    energy = f"{_published(row.energy_mae)}/{_published(row.energy_rmse)}"
    force = f"{_published(row.force_mae)}/{_published(row.force_rmse)}"
    name = f"{row.potential}{'*' if row.note else ''}"
    return name, "published", "101,352", energy, UNREPORTED, UNREPORTED, force


def _published(value: float | None) -> str:
    if value is None:
        return UNREPORTED
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def interaction_table(evaluation: Evaluation) -> Table:
    """Returns the errors of interaction energies relative to the largest separation."""
    rows = [
        _interaction_row(result.label, kind, errors)
        for result in evaluation.results
        if result.curves
        for kind, errors in interaction_errors(result.curves).items()
    ]
    headers = (
        "potential",
        "interaction",
        "dimers",
        "energy",
        "mean error",
        "well depth",
        "at largest",
    )
    labels = np.concatenate([scan.relative_energies[:-1] for scan in evaluation.scans])
    notes: tuple[str, ...] = (
        f"The labels have a mean absolute value of {np.abs(labels).mean():.2f} kcal/mol.",
        "Relative to the largest separation of each dimer: the molecules are rigid, so that their "
        "own energies, which the data lack, cancel. A negative mean error is too attractive.",
        "at largest: mean absolute interaction energy that the potential itself has at the largest "
        "separation, from its energies of the two molecules as they are in the dimer.",
    )
    notes += tuple(
        f"{result.label}: {len(evaluation.scans) - len(result.curves)} dimers left out, a "
        "separation failed."
        for result in evaluation.results
        if len(result.curves) < len(evaluation.scans)
    )
    return Table(
        "Interaction energies along the dimers, MAE/RMSE (kcal/mol)",
        headers,
        tuple(rows),
        notes,
    )


def _interaction_row(label: str, kind: str, errors: InteractionErrors) -> tuple[str, ...]:
    return (
        label,
        kind,
        str(errors.n_dimers),
        pair(errors.points, 2),
        f"{errors.mean_error:+.2f}",
        pair(errors.well_depth, 2),
        f"{errors.remaining:.2f}",
    )


def separation_table(evaluation: Evaluation) -> Table:
    """Returns the errors at each separation of S66x8; no rows for other dimers."""
    rows = []
    headers: tuple[str, ...] = ("potential",)
    for result in evaluation.results:
        found = errors_by_separation(result.curves)
        if found:
            headers = ("potential", *(f"{factor:.2f}" for factor in found))
            rows.append((result.label, *(f"{own.mae:.2f}" for own in found.values())))
    title = "MAE of interaction energies (kcal/mol) by separation / equilibrium separation"
    return Table(title, headers, tuple(rows), n_text=1)
