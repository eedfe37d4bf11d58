"""Files of an evaluation: JSON, Markdown, the curves of dimers as CSV, pictures."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trip_mm import __version__
from trip_mm.evaluation.dimers import errors_by_separation, interaction_errors
from trip_mm.evaluation.evaluation import Evaluation, PotentialResult
from trip_mm.evaluation.plots import interaction_figure, parity_figure, write_picture
from trip_mm.evaluation.predictors import Predictor
from trip_mm.evaluation.tables import all_tables
from trip_mm.files import make_directory, write_atomically

REPORT_VERSION = 1
JSON_FILE = "evaluation.json"
MARKDOWN_FILE = "evaluation.md"
PARITY_FILE = "parity.png"
CURVES_FILE = "interactions.csv"
INTERACTIONS_FILE = "interactions.png"
JOURNAL_FILE = "predictions.sqlite"

_CURVE_COLUMNS = (
    "potential",
    "group",
    "dimer",
    "interaction",
    "closest_distance_angstrom",
    "labelled_relative_kcal_per_mol",
    "predicted_relative_kcal_per_mol",
    "predicted_interaction_kcal_per_mol",
)


def write_report(evaluation: Evaluation, directory: Path, data_files: list[str]) -> list[Path]:
    """Writes every file of an evaluation; each appears whole or not at all.

    Without dimers the files of an earlier evaluation's dimers are removed.

    Args:
        evaluation: the results.
        directory: where to write, made if missing.
        data_files: names of the data, for the record.

    Returns:
        The files written.

    Raises:
        RunDirectoryError: a file cannot be written.
    """
    make_directory(directory)
    text = json.dumps(document(evaluation, data_files), indent=2, ensure_ascii=False)
    write_atomically(directory / JSON_FILE, (text + "\n").encode())
    write_atomically(directory / MARKDOWN_FILE, markdown(evaluation, data_files).encode())
    write_picture(parity_figure(evaluation), directory / PARITY_FILE)
    written = [JSON_FILE, MARKDOWN_FILE, PARITY_FILE]
    if any(result.curves for result in evaluation.results):
        write_atomically(directory / CURVES_FILE, _curves(evaluation).encode())
        write_picture(interaction_figure(evaluation), directory / INTERACTIONS_FILE)
        written += [CURVES_FILE, INTERACTIONS_FILE]
    else:
        for name in (CURVES_FILE, INTERACTIONS_FILE):
            (directory / name).unlink(missing_ok=True)
    return [directory / name for name in written]


def markdown(evaluation: Evaluation, data_files: list[str]) -> str:
    """Returns the tables as a page of Markdown."""
    head = [
        "# Evaluation",
        "",
        f"Data: {', '.join(data_files)}; {len(evaluation.labelled):,} conformations; level of "
        f"theory {evaluation.level_of_theory or 'unknown'}. trip-mm {__version__}.",
        "",
    ]
    return (
        "\n".join(head) + "\n" + "\n".join(table.to_markdown() for table in all_tables(evaluation))
    )


def document(evaluation: Evaluation, data_files: list[str]) -> dict[str, Any]:
    """Returns the content of evaluation.json."""
    published = evaluation.published
    return {
        "version": REPORT_VERSION,
        "trip_mm": __version__,
        "data": {
            "files": data_files,
            "level_of_theory": evaluation.level_of_theory,
            "n_conformations": len(evaluation.labelled),
            "n_unlabelled": evaluation.labelled.n_unlabelled,
            "subsets": list(evaluation.labelled.subsets),
            "n_dimer_scans": len(evaluation.scans),
            "n_dimer_scans_left_out": evaluation.n_scans_left_out,
            "n_above_100_kcal_per_mol": evaluation.n_above_window,
        },
        "reference": _reference(evaluation),
        "notes": list(evaluation.notes),
        "potentials": [_potential(result) for result in evaluation.results],
        "published": None if published is None else asdict(published),
    }


def _named(predictor: Predictor) -> dict[str, Any]:
    return {
        "label": predictor.spec.label,
        "potential": str(predictor.spec),
        "identity": predictor.identity,
        "level_of_theory": predictor.level,
    }


def _reference(evaluation: Evaluation) -> dict[str, Any] | None:
    if evaluation.reference is None:
        return None
    failures = evaluation.labelled.reference_failures
    return {**_named(evaluation.reference), "failures": failures}


def _potential(result: PotentialResult) -> dict[str, Any]:
    return {
        **_named(result.predictor),
        "failures": result.predicted.failures,
        "notes": list(result.notes),
        "offsets_ev": result.offsets.to_dict(),
        "errors": {name: own.to_dict() for name, own in result.errors.items()},
        "errors_below_100_kcal_per_mol": {
            name: own.to_dict() for name, own in result.window_errors.items()
        },
        "interactions_kcal_per_mol": _interactions(result),
    }


def _interactions(result: PotentialResult) -> dict[str, Any] | None:
    if not result.curves:
        return None
    by_kind = {kind: asdict(own) for kind, own in interaction_errors(result.curves).items()}
    for own in by_kind.values():
        if own["remaining"] != own["remaining"]:  # a molecule alone failed
            own["remaining"] = None
    separations = errors_by_separation(result.curves)
    return {
        "relative_to": "largest separation",
        "by_kind": by_kind,
        "by_separation": {f"{factor:.2f}": asdict(own) for factor, own in separations.items()},
    }


def _curves(evaluation: Evaluation) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CURVE_COLUMNS)
    for result in evaluation.results:
        for curve in result.curves:
            scan = curve.scan
            for row, distance in enumerate(scan.closest):
                writer.writerow(
                    (
                        result.label,
                        scan.name,
                        scan.label,
                        scan.kind,
                        f"{distance:.4f}",
                        f"{scan.relative_energies[row]:.4f}",
                        f"{curve.relative[row]:.4f}",
                        f"{curve.interaction[row]:.4f}",
                    )
                )
    return text.getvalue()
