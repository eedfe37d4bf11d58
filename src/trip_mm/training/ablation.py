"""The thesis's ablations: its four networks, trained alike, in a table of the form of Table 5."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trip_mm.checkpoint import read_checkpoint
from trip_mm.errors import ConfigError
from trip_mm.files import write_json
from trip_mm.model.config import PRESETS
from trip_mm.training.config import TrainingConfig, check_data_files, load_training_config
from trip_mm.training.evaluate import ALL, Accuracy
from trip_mm.training.processes import launched_processes
from trip_mm.training.progress import Tell, tell_nobody
from trip_mm.training.record import Report, has_run
from trip_mm.training.trainer import train_config

VARIANTS = {
    "trip": "TrIP (equivariant & multi-head attention)",
    "trip-one-head": "TrIP (equivariant & one-head attention)",
    "trip-equivariant": "TrIP (equivariant)",
    "trip-invariant": "TrIP (invariant)",
}
"""Presets of the network and what the thesis calls them (section 4.2)."""

THESIS_TABLE_5 = {
    "trip": ("1.04/1.71", "1.41/2.80"),
    "trip-one-head": ("1.07/1.68", "1.50/2.94"),
    "trip-equivariant": ("1.27/2.86", "1.75/6.65"),
    "trip-invariant": ("5.30/8.05", "7.56/11.6"),
}
"""MAE/RMSE of energies (kcal/mol) and forces (kcal/mol/A) on COMP6, trained on ANI-1x."""


@dataclass(frozen=True)
class VariantResult:
    """One trained variant.

    Attributes:
        variant: preset of the network.
        n_parameters: of the network.
        steps: optimizer steps.
        elapsed_s: time of training.
        evaluated_on: `test files`, or `held out` where the configuration names none.
        accuracy: over all conformations evaluated.
    """

    variant: str
    n_parameters: int
    steps: int
    elapsed_s: float
    evaluated_on: str
    accuracy: Accuracy


def ablate(
    config_path: str | Path,
    out_dir: str | Path,
    *,
    resume: bool = False,
    report: Report = print,
    tell: Tell = tell_nobody,
) -> list[VariantResult]:
    """Trains the four networks with one configuration and compares them.

    `model` of the configuration changes all four; what a variant stands for (one head, no
    attention, degree 0) stays. Each is a run of its own in `OUT/<variant>`, with the same seed,
    data, split, order of the minibatches and budget.

    Args:
        config_path: of the training.
        out_dir: directory of the four runs; receives `ablations.json` and `ablations.md`.
        resume: continue the runs that lie there.
        report: receives the lines of progress and the table.
        tell: receives where the present run stands.

    Returns:
        One result for each variant, in the first process; nothing in the others.

    Raises:
        ConfigError: the configuration asks for a committee or starts from a checkpoint.
        TripError: as `training.trainer.train`.
    """
    base = load_training_config(config_path)
    if base.committee is not None or base.initial is not None:
        raise ConfigError(
            f"{config_path}: ablations start from random weights, one model each; remove "
            "`committee` and `initial`"
        )
    check_data_files(base, config_path)
    out = Path(out_dir)
    is_first = launched_processes().is_first
    models = {}
    for variant, title in VARIANTS.items():
        config = variant_config(base, variant)
        folder = out / variant
        if is_first:
            report(f"{variant}: {title}")
        models[variant] = train_config(
            config, folder, resume=resume and has_run(folder), report=report, tell=tell
        )
    if not is_first:
        return []
    results = [_result(variant, model) for variant, model in models.items()]
    lines = format_table(results)
    write_json(out / "ablations.json", [asdict(result) for result in results])
    (out / "ablations.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in lines:
        report(line)
    return results


def variant_config(base: TrainingConfig, variant: str) -> TrainingConfig:
    """Returns the configuration of one variant.

    Args:
        base: what all variants share.
        variant: preset of the network; its own settings win over those of `base.model`.
    """
    named = PRESETS.get(str(base.model.get("preset")), {})
    shared = {k: v for k, v in {**named, **base.model}.items() if k not in PRESETS[variant]}
    return base.model_copy(
        update={"name": f"{base.name}-{variant}", "model": {**shared, "preset": variant}}
    )


def _result(variant: str, model: Path) -> VariantResult:
    header, _ = read_checkpoint(model)
    training: dict[str, Any] = header["metadata"]["training"]
    accuracy = training["accuracy"]
    evaluated_on = "test files" if "test files" in accuracy else "held out"
    return VariantResult(
        variant,
        int(training["n_parameters"]),
        int(training["steps"]),
        float(training["elapsed_s"]),
        evaluated_on,
        Accuracy(**accuracy[evaluated_on][ALL]),
    )


def format_table(results: Sequence[VariantResult]) -> list[str]:
    """Formats the results as a Markdown table in the form of the thesis's Table 5."""
    header = [
        "Potential",
        "Energy error (kcal/mol), MAE/RMSE",
        "Force (kcal/mol/A), MAE/RMSE",
        "Thesis, COMP6: energy",
        "force",
        "Parameters",
        "Steps",
        "Time (s)",
    ]
    rows = [header, ["---"] * len(header)]
    for result in results:
        a = result.accuracy
        rows.append(
            [
                VARIANTS[result.variant],
                f"{a.energy_mae_kcal_per_mol:.2f}/{a.energy_rmse_kcal_per_mol:.2f}",
                f"{a.force_mae_kcal_per_mol_per_angstrom:.2f}/"
                f"{a.force_rmse_kcal_per_mol_per_angstrom:.2f}",
                *THESIS_TABLE_5[result.variant],
                str(result.n_parameters),
                str(result.steps),
                f"{result.elapsed_s:.0f}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines[1] = "| " + " | ".join("-" * width for width in widths) + " |"
    counted = ", ".join(f"{r.accuracy.n_conformations} conformations" for r in results[:1])
    evaluated = ", ".join(sorted({result.evaluated_on for result in results}))
    return [*lines, "", f"Errors over the {evaluated}: {counted}."]
