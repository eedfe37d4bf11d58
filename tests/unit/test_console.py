"""Tables on the command line: nothing is cut off, whatever the width."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trip_mm.cli import console as module
from trip_mm.cli import document

DIGEST = "9ee69c646d7621ac389fff241deffdd89f68c0c69658f5bc823efed98009814b"
PROSE = "fast: peptides in water, small molecules"


def printed(
    monkeypatch: pytest.MonkeyPatch, shown: Table | str, *, width: int, terminal: bool
) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, no_color=True)
    for one in (module, document):
        monkeypatch.setattr(one, "console", console)
    if isinstance(shown, str):
        document.print_document(shown)
    else:
        module.print_table(shown)
    return Text.from_ansi(stream.getvalue()).plain


def a_table() -> Table:
    table = Table(title=f"sha256 of {DIGEST}", caption=f"of {DIGEST}")
    table.add_column("name", no_wrap=True)
    table.add_column("description")
    table.add_column("why not")
    table.add_column("energy difference (kJ/mol)", justify="right", no_wrap=True)
    table.add_row("trip-gfn2-s", PROSE, "needs libOpenMMTorchReference.so", "-9.2e-04")
    table.add_row(DIGEST, "small", "[red]no[/]", "-1234.567890")
    return table


@pytest.mark.parametrize("width", [20, 80, 400])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_cell_is_cut_off_and_no_word_broken(
    monkeypatch: pytest.MonkeyPatch, width: int, terminal: bool
) -> None:
    text = printed(monkeypatch, a_table(), width=width, terminal=terminal)
    assert "…" not in text
    assert text.count(DIGEST) == 3  # also in title and caption
    for word in (*PROSE.split(), "libOpenMMTorchReference.so", "-1234.567890", "(kJ/mol)"):
        assert word in text


def test_rows_stay_lines_where_nobody_reads_along(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PROSE in printed(monkeypatch, a_table(), width=80, terminal=False)


def test_prose_wraps_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    table.add_column("name", no_wrap=True)
    table.add_column("description")
    table.add_row("trip-gfn2-s", PROSE)
    text = printed(monkeypatch, table, width=40, terminal=True)
    assert PROSE not in text
    assert max(map(len, text.splitlines())) <= 40


CARD = f"""# A model

| | |
|---|---|
| force MAE (kcal/mol/A) | 1.2345 |
| sha256 | {DIGEST} |
"""


def test_document_is_left_as_it_is_where_nobody_reads_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert printed(monkeypatch, CARD, width=40, terminal=False) == CARD


def test_tables_of_a_document_are_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, CARD, width=40, terminal=True)
    assert "…" not in text
    assert DIGEST in "".join(text.split())
    assert "(kcal/mol/A)" in text
