"""A self-contained HTML page with every profile of a torsion benchmark."""

import html
from collections.abc import Sequence

from trip_mm import __version__
from trip_mm.torsion.drawing import legend_svg, molecule_svg, profile_svg
from trip_mm.torsion.drive import DriveResult, Outcome
from trip_mm.torsion.drive_tables import class_of
from trip_mm.torsion.profile import Profile
from trip_mm.torsion.records import TorsionRecord
from trip_mm.torsion.report import MODE_TEXT, SCORE_TITLES, decimals_of, interval
from trip_mm.torsion.summary import Summary, levels

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#222;margin:2rem auto;max-width:76rem;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem}h3{font-size:.95rem;margin:0}
table{border-collapse:collapse;margin:.6rem 0;font-size:.85rem}
td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(36rem,100%),1fr));gap:1rem}
.card{border:1px solid #ddd;border-radius:6px;padding:.7rem}
.card p{margin:.1rem 0 .4rem;color:#555;font-size:.8rem;overflow-wrap:anywhere}
.row{display:flex;align-items:center;flex-wrap:wrap}
.legend span{margin-right:1.2rem;white-space:nowrap}
@media(max-width:40rem){.cards{grid-template-columns:1fr}.card svg{max-width:100%;height:auto}}
"""


def html_page(result: DriveResult, summaries: Sequence[Summary]) -> str:
    """Returns the page; pictures are inline SVG, nothing is loaded from elsewhere.

    Args:
        result: of the benchmark.
        summaries: of `summarize`.
    """
    title = html.escape(f"Torsion profiles: {result.dataset.name}")
    sections = [_section(result, summaries, level) for level in levels(result)]
    n_done = sum(outcome.is_done for outcome in result.outcomes)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        f"<h1>{title}</h1>\n"
        f"<p>trip-mm {html.escape(__version__)}, mode {html.escape(result.settings.mode)}. "
        f"{html.escape(MODE_TEXT[result.settings.mode])} {len(result.dataset.records)} records "
        f"read, {len(result.skipped)} left out before any potential, {n_done} profiles below. "
        "Each profile is drawn above its own minimum; records with the largest profile RMSE come "
        "first.</p>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _section(result: DriveResult, summaries: Sequence[Summary], level: str) -> str:
    names = [f"reference: {level}", *(spec.label for spec in result.settings.potentials)]
    legend = "".join(
        f"<span>{legend_svg(number)} {html.escape(name)}</span>"
        for number, name in enumerate(names)
    )
    records = {o.record.record_id: o.record for o in result.outcomes if o.record.level == level}
    outcomes = {key: [o for o in result.outcomes if o.record.record_id == key] for key in records}
    order = sorted(records, key=lambda key: -max(_rmse(o) for o in outcomes[key]))
    cards = "\n".join(_card(records[key], outcomes[key]) for key in order)
    return (
        f"<h2>Against {html.escape(level)}</h2>\n{_table(summaries, level)}"
        f'<p class="legend">{legend}</p>\n<div class="cards">\n{cards}\n</div>'
    )


def _rmse(outcome: Outcome) -> float:
    return outcome.scores.rmse_kcal_per_mol if outcome.scores else 0.0


def _table(summaries: Sequence[Summary], level: str) -> str:
    here = [summary for summary in summaries if summary.level == level]
    names = [
        name
        for name in SCORE_TITLES
        if any(s.scores[name]["mean"].value == s.scores[name]["mean"].value for s in here)
    ]
    head = "".join(f"<th>{html.escape(s.potential)}, {s.n_records} records</th>" for s in here)
    rows = "".join(
        f"<tr><td>{html.escape(SCORE_TITLES[name])}</td>"
        + "".join(f"<td>{interval(s.scores[name]['mean'], decimals_of(name))}</td>" for s in here)
        + "</tr>"
        for name in names
    )
    return f"<table><tr><th>mean [95 % interval]</th>{head}</tr>{rows}</table>\n"


def _card(record: TorsionRecord, outcomes: Sequence[Outcome]) -> str:
    assert record.dihedral is not None
    profiles = {0: record.profile()}
    notes = []
    for number, outcome in enumerate(outcomes, start=1):
        label = html.escape(outcome.spec.label)
        if outcome.points is None or outcome.scores is None:
            notes.append(f"{label}: skipped, {html.escape(outcome.reason)}")
            continue
        scores = outcome.scores
        text = f"{label}: RMSE {scores.rmse_kcal_per_mol:.2f} kcal/mol"
        text += f", barrier {scores.barrier_error_kcal_per_mol:+.2f} kcal/mol"
        if scores.rmsd_angstrom == scores.rmsd_angstrom:
            text += f", RMSD {scores.rmsd_angstrom:.3f} A"
        notes.append(text)
        points = outcome.points
        profiles[number] = Profile(outcome.spec.label, points.angles_deg, points.energies)
    atoms = "-".join(str(index) for index in record.dihedral)
    kind = html.escape(class_of(record) or "")
    return (
        f'<section class="card"><h3>{html.escape(record.label)}</h3>'
        f"<p>{html.escape(record.record_id)}, {kind}, atoms {atoms}</p>"
        f'<div class="row">{molecule_svg(record.smiles, record.dihedral)}'
        f"{profile_svg(profiles, record.label)}</div><p>{'<br>'.join(notes)}</p></section>"
    )
