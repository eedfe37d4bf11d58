"""Markdown on the command line, such as the cards of models."""

from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.table import Table

from trip_mm.cli.console import console


def print_document(text: str) -> None:
    """Prints Markdown, laid out on a terminal and as it is elsewhere; no cell is cut off."""
    if not console.is_terminal:
        console.print(text, end="", markup=False, soft_wrap=True)
        return
    console.print(_Document(text))


class _Table(TableElement):
    """A table of a document; what is too long for a cell goes on in its next line."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in super().__rich_console__(console, options):
            if isinstance(part, Table):
                for column in part.columns:
                    column.overflow = "fold"
            yield part


class _Document(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "table_open": _Table,
    }
