"""`trip-mm label`: what it prints, over an interruption too."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from trip_mm.cli.main import app
from trip_mm.training.formats_write import FileHeader, write_geometries
from trip_mm.training.sampling_geometry import unlabelled

WATER = np.array([[0.0, 0.0, 0.0], [0.97, 0.0, 0.0], [-0.25, 0.93, 0.1]])


def test_totals_and_reasons_are_of_all_parts(tmp_path: Path) -> None:
    pytest.importorskip("tblite", reason="labels by GFN2-xTB need tblite")
    # Geometries 0, 2, 3 are compressed to a force above the limit.
    water = unlabelled([8, 1, 1], WATER, "water", "test")
    close = replace(water, positions=0.7 * WATER)
    items = [close, water, close, close, water]
    numbered = [replace(item, geometry_id=number) for number, item in enumerate(items)]
    write_geometries(tmp_path / "g.h5", numbered, FileHeader("test"))
    arguments = ["label", str(tmp_path / "g.h5"), "--out", str(tmp_path / "l.h5"), "--chunk", "2"]
    first = CliRunner().invoke(app, [*arguments, "--max-force", "20"])
    assert first.exit_code == 0, first.output
    assert "5 of 5 done, 3 without a label" in first.output
    assert first.output.endswith("l.h5.parts may be removed\n")
    (tmp_path / "l.h5").unlink()
    (tmp_path / "l.h5.parts" / "part-00000004.h5").unlink()
    again = CliRunner().invoke(app, [*arguments, "--max-force", "20"])
    assert again.exit_code == 0, again.output
    assert "5 of 5 done, 3 without a label" in again.output
    assert "2 labelled, 3 without a label\n       3  water: force above 20 eV/A\n" in again.output
