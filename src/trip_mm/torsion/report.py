"""The Markdown report of a torsion benchmark."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from trip_mm import __version__
from trip_mm.torsion.drive import DriveResult, Outcome
from trip_mm.torsion.drive_tables import class_of
from trip_mm.torsion.filters import counts_by_reason
from trip_mm.torsion.records import NOT_STATED
from trip_mm.torsion.summary import Difference, Estimate, Summary, levels

N_WORST = 10
N_LISTED = 100
"""Left-out records listed by name; the table holds all of them."""

SCORE_TITLES = {
    "rmse_kcal_per_mol": "profile RMSE (kcal/mol)",
    "mae_kcal_per_mol": "profile MAE (kcal/mol)",
    "max_error_kcal_per_mol": "largest error of a profile (kcal/mol)",
    "barrier_error_kcal_per_mol": "barrier error, signed (kcal/mol)",
    "abs_barrier_error_kcal_per_mol": "barrier error, magnitude (kcal/mol)",
    "barrier_position_error_deg": "position error of the barrier (degrees)",
    "minimum_position_error_deg": "position error of the minimum (degrees)",
    "jensen_shannon_distance": "Jensen-Shannon distance of Boltzmann weights",
    "rmsd_angstrom": "RMSD of relaxed geometries (A)",
    "torsion_fingerprint_deviation": "torsion fingerprint deviation",
}

MODE_TEXT = {
    "relax": (
        "Every reference geometry was relaxed with the potential while the driven dihedral was "
        "held (geomeTRIC, Gaussian's tight criteria); energies are those of the relaxed geometries."
    ),
    "relax-batched": (
        "Every reference geometry was relaxed with the potential while the driven dihedral was "
        "held, all grid points of a record together (own relaxer, Gaussian's tight criteria); "
        "energies are those of the relaxed geometries."
    ),
    "single-point": (
        "Energies of the potential at the reference geometries; nothing was relaxed, so geometries "
        "are not compared."
    ),
}

DEFINITIONS = """\
RMSE, MAE and largest error are those of the energies over the grid after the mean difference is
removed. The barrier is the highest point of a profile above its lowest. Positions are compared
between all points within 0.1 kcal/mol of the highest (lowest). The Jensen-Shannon distance is
that of the Boltzmann weights over the grid at {temperature:g} K, 0 for equal weights and 1 for
disjoint ones. RMSD: all atoms, after superposition, mean over the grid. Torsion fingerprint
deviation: RDKit, mean over the grid, not defined without a torsion of four heavy atoms. In
brackets: 95 % percentile intervals of a bootstrap over molecules, {n_resamples} resamples, seed
{seed}. They say how much another draw of molecules of this kind would change the figures, not how
good the reference is."""


def markdown(
    result: DriveResult, summaries: Sequence[Summary], compared: Sequence[Difference], command: str
) -> str:
    """Returns the report.

    Args:
        result: of the benchmark.
        summaries: of `summarize`.
        compared: of `differences`.
        command: what repeats it; empty if it was not run from the command line.
    """
    settings = result.settings
    parts = [
        f"# Torsion benchmark on {result.dataset.name}\n",
        f"trip-mm {__version__}, mode `{settings.mode}`. {MODE_TEXT[settings.mode]}\n",
        _reference_text(result),
        _models_text(result),
        "## Records\n\n" + accounting(result),
        *(f"## Against {s}\n\n" + _level_section(result, summaries, s) for s in levels(result)),
    ]
    if compared:
        parts.append("## Differences between potentials\n\n" + _differences(compared))
    if any(outcome.is_done for outcome in result.outcomes):
        definitions = DEFINITIONS.format(
            temperature=settings.temperature, n_resamples=settings.n_resamples, seed=settings.seed
        )
        parts.append(f"## Definitions\n\n{definitions}\n")
    parts.append("## Left out\n\n" + _left_out(result))
    if command:
        parts.append(f"## Repeat\n\n```bash\n{command}\n```\n")
    return "\n".join(parts)


def _reference_text(result: DriveResult) -> str:
    found = levels(result)
    if not found:
        return "No record has reference energies, so nothing was scored.\n"
    lines = ["Level of theory of the references (energies//geometries):\n"]
    for level in found:
        ids = {o.record.record_id for o in result.outcomes if o.record.level == level}
        lines.append(f"- **{level}**: {len(ids)} records")
    if any(NOT_STATED in level for level in found):
        lines.append(
            "\nA level that is not stated makes a score meaningless: give it with `--level`."
        )
    return "\n".join(lines) + "\n"


def _models_text(result: DriveResult) -> str:
    lines = [f"- {spec.label}: `{spec}`" for spec in result.settings.potentials]
    for index, spec in enumerate(result.settings.potentials):
        if spec.label in result.models:
            lines[index] += f", sha256 {result.models[spec.label]}"
    return "Potentials:\n\n" + "\n".join(lines) + "\n"


def accounting(result: DriveResult) -> str:
    """Returns the table of what became of the records; every column adds up to all of them."""
    n_read = len(result.dataset.records)
    before = counts_by_reason(s.reason for s in result.skipped)
    specs = result.settings.potentials
    after = [counts_by_reason(o.reason for o in result.of(s) if not o.is_done) for s in specs]
    reasons = sorted({reason for counts in after for reason in counts})
    rows = [["records read", *(str(n_read) for _ in specs)]]
    rows += [[f"skipped: {r}", *(str(n) for _ in specs)] for r, n in before.items()]
    rows += [[f"skipped: {r}", *(str(c.get(r, 0)) for c in after)] for r in reasons]
    done = [sum(o.is_done for o in result.of(spec)) for spec in specs]
    rows.append(["**done**", *(f"**{n}**" for n in done)])
    return table(["", *(spec.label for spec in specs)], rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], n_text: int = 1) -> str:
    """Returns a Markdown table; the first `n_text` columns are text, the others numbers."""
    rule = "|" + "---|" * n_text + "---:|" * (len(header) - n_text)
    lines = ["| " + " | ".join(header) + " |", rule]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def interval(estimate: Estimate, decimals: int, *, percent: bool = False) -> str:
    """Returns a value with its interval, a dash where it is not defined.

    Args:
        estimate: a value with the ends of its interval.
        decimals: of each number.
        percent: the value is a share, to be printed in percent.
    """
    scale, unit = (100.0, " %") if percent else (1.0, "")
    value, low, high = (scale * x for x in (estimate.value, estimate.low, estimate.high))
    if np.isnan(value):
        return "–"
    text = f"{value:.{decimals}f}{unit}"
    if np.isnan(low):
        return text
    return f"{text} [{low:.{decimals}f}, {high:.{decimals}f}]"


def decimals_of(score: str) -> int:
    """Returns how many decimals a score is printed with."""
    if score.endswith("_deg"):
        return 1
    return 2 if score.endswith("kcal_per_mol") else 4 if score == "rmsd_angstrom" else 3


def _level_section(result: DriveResult, summaries: Sequence[Summary], level: str) -> str:
    here = [summary for summary in summaries if summary.level == level]
    scored = [n for n in SCORE_TITLES if any(not np.isnan(s.scores[n]["mean"].value) for s in here)]
    if not scored:
        return "No record was finished.\n"
    header = ["mean [95 % interval]", *(s.potential for s in here)]
    rows = [["records (molecules)", *(f"{s.n_records} ({s.n_molecules})" for s in here)]]
    for name in scored:
        cells = [interval(s.scores[name]["mean"], decimals_of(name)) for s in here]
        rows.append([SCORE_TITLES[name], *cells])
    for share in here[0].shares:
        cells = [interval(s.shares[share], 0, percent=True) for s in here]
        rows.append([f"profile RMSE within {share} kcal/mol", *cells])
    parts = [table(header, rows), _quantiles(here, scored), _by_class(result, level)]
    return "\n".join([*parts, _worst(result, level)])


def _quantiles(here: Sequence[Summary], scored: Sequence[str]) -> str:
    header = ["", "potential", "median [95 % interval]", "5 %", "25 %", "75 %", "95 %"]
    rows = []
    for name in scored:
        digits = decimals_of(name)
        for summary in here:
            found = summary.scores[name]
            cells = [interval(found["median"], digits)]
            cells += [interval(found[q], digits) for q in ("q05", "q25", "q75", "q95")]
            rows.append([SCORE_TITLES[name], summary.potential, *cells])
    return "Quantiles over the records, each with its interval:\n\n" + table(header, rows, 2)


def _by_class(result: DriveResult, level: str) -> str:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for outcome in result.outcomes:
        if outcome.scores is not None and outcome.record.level == level:
            name = class_of(outcome.record) or "unknown"
            found[name][outcome.spec.label].append(outcome.scores.rmse_kcal_per_mol)
    labels = [spec.label for spec in result.settings.potentials]
    rows = [
        [name, *(f"{np.mean(v[lb]):.2f} ({len(v[lb])})" if v[lb] else "–" for lb in labels)]
        for name, v in sorted(found.items())
    ]
    return "Mean profile RMSE (kcal/mol) by class of torsion, records in brackets:\n\n" + table(
        ["central bond", *labels], rows
    )


def _worst(result: DriveResult, level: str) -> str:
    done = [o for o in result.outcomes if o.scores is not None and o.record.level == level]

    def rmse(outcome: Outcome) -> float:
        return outcome.scores.rmse_kcal_per_mol if outcome.scores else 0.0

    rows = [
        [
            o.record.label,
            o.record.record_id,
            class_of(o.record) or "",
            o.spec.label,
            f"{rmse(o):.2f}",
        ]
        for o in sorted(done, key=rmse, reverse=True)[:N_WORST]
    ]
    header = ["molecule", "record", "central bond", "potential", "RMSE (kcal/mol)"]
    return f"The {len(rows)} largest profile RMSE:\n\n" + table(header, rows, 4)


def _differences(compared: Sequence[Difference]) -> str:
    rows = [
        [
            SCORE_TITLES[one.score],
            one.level,
            f"{one.first} minus {one.second}",
            str(one.n_records),
            interval(one.mean, decimals_of(one.score)),
        ]
        for one in compared
    ]
    return (
        "Mean difference on the records that both finished; below zero the first is closer to the "
        "reference:\n\n" + table(["", "reference", "difference", "records", "mean"], rows, 3)
    )


def _left_out(result: DriveResult) -> str:
    rows = [[s.record.record_id, "all", s.reason, s.detail] for s in result.skipped[:N_LISTED]]
    failed = [o for o in result.outcomes if not o.is_done]
    rows += [[o.record.record_id, o.spec.label, o.reason, o.detail] for o in failed[:N_LISTED]]
    if not rows:
        return "Nothing.\n"
    n_all = len(result.skipped) + len(failed)
    text = table(["record", "potential", "reason", "detail"], rows, 4)
    if n_all > len(rows):
        text += f"\n{n_all - len(rows)} more are in `results.parquet`.\n"
    return text
