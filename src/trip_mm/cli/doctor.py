"""`trip-mm doctor`: what works here, and why the rest does not."""

from pathlib import PurePath
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from trip_mm.cli.console import console, print_table

if TYPE_CHECKING:
    from trip_mm.backends.diagnostics import Diagnosis

_GPU_PLATFORMS = ("CUDA", "HIP", "OpenCL")


def command() -> None:
    """Print versions, platforms and force backends, and check one energy through each.

    Exits with 0 if the default backend works on the default platform, else with 1.
    """
    from trip_mm.backends.diagnostics import diagnose

    diagnosis = diagnose()
    print_table(_versions(diagnosis))
    print_table(_platforms(diagnosis))
    if note := _note_on_plugins(diagnosis):
        console.print(note, soft_wrap=True)
    print_table(_backends(diagnosis))
    console.print(f"torch: {escape(diagnosis.devices)}", soft_wrap=True)
    print_table(_checks(diagnosis))
    if diagnosis.default is None:
        console.print("[bold red]No force backend works here.[/]")
        raise typer.Exit(1)
    backend, platform = diagnosis.default
    if not diagnosis.default_works:
        console.print(f"[bold red]The default, {backend} on {platform}, does not work.[/]")
        raise typer.Exit(1)
    console.print(f"[green]The default, {backend} on {platform}, works.[/]")


def _versions(diagnosis: "Diagnosis") -> Table:
    table = Table("package", "version", title="Versions")
    for name, version in diagnosis.versions.items():
        table.add_row(name, "[dim]not installed[/]" if version is None else version)
    return table


def _platforms(diagnosis: "Diagnosis") -> Table:
    table = Table("platform or plugin", "relative speed", title="OpenMM platforms")
    for name, speed in diagnosis.platforms.items():
        table.add_row(name, f"{speed:g}")
    for failure in diagnosis.plugin_failures:
        library, reason = _library_and_reason(failure)
        table.add_row(f"[dim]{escape(library)}[/]", f"[dim]not loaded: {escape(reason)}[/]")
    return table


def _note_on_plugins(diagnosis: "Diagnosis") -> str:
    """Says what failures mean that concern platforms of GPUs only; empty where others failed."""
    libraries = [_library_and_reason(failure)[0] for failure in diagnosis.plugin_failures]
    served = [next((p for p in _GPU_PLATFORMS if p in name), None) for name in libraries]
    if not served or None in served:
        return ""
    names = " and ".join(name for name in _GPU_PLATFORMS if name in served)
    there = " and ".join(diagnosis.platforms)
    return (
        f"What is not loaded serves {names} only: without a GPU nothing is missing, and {there} "
        "work without it. With a GPU, its driver brings what they lack."
    )


def _library_and_reason(failure: str) -> tuple[str, str]:
    """Splits OpenMM's `Error loading library PATH: REASON` into file name and reason."""
    path, _, reason = failure.removeprefix("Error loading library ").partition(": ")
    return PurePath(path).name, reason


def _backends(diagnosis: "Diagnosis") -> Table:
    table = Table("backend", "works", "why not", title="Force backends")
    for name, reason in diagnosis.backends.items():
        works = "[green]yes[/]" if reason is None else "[yellow]no[/]"
        table.add_row(name, works, escape(reason or ""))
    return table


def _checks(diagnosis: "Diagnosis") -> Table:
    title = f"Against the eager potential, {escape(diagnosis.model)}"
    columns = ("platform", "backend", "energy difference (kJ/mol)", "relative force difference", "")
    table = Table(*columns, title=title)
    for check in diagnosis.checks:
        energy = "" if check.energy_difference is None else f"{check.energy_difference:.1e}"
        force = "" if check.force_difference is None else f"{check.force_difference:.1e}"
        verdict = "[green]ok[/]" if check.problem is None else f"[red]{escape(check.problem)}[/]"
        table.add_row(check.platform, check.backend, energy, force, verdict)
    return table
