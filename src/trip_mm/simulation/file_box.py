"""The periodic box of a PDB or mmCIF file, and whether its atoms fill it."""

import io
import re
from pathlib import Path

import numpy as np
from openmm import app, unit
from openmm.app.internal.pdbx.reader.PdbxReader import PdbxReader

from trip_mm.errors import UnsupportedSystemError
from trip_mm.simulation.solute import FloatArray
from trip_mm.units import ANGSTROM_TO_NM

_PLACE_HOLDER_NM = 1.1 * ANGSTROM_TO_NM
"""Entries without a crystal (NMR, microscopy) have a cell of 1 x 1 x 1 A; OpenMM drops zeros."""

_SPACE_GROUP_COLUMNS = slice(55, 66)
_SPACE_GROUP_KEYS = (("symmetry", "space_group_name_H-M"), ("space_group", "name_H-M_alt"))
_NO_SYMMETRY = re.compile(r"P ?1( 1)*|[.?]?", re.IGNORECASE)
"""`P 1`, `P1`, `P 1 1 1`, or not given."""


def box_of(topology: app.Topology) -> FloatArray | None:
    """Returns the box of a structure file, nm `[3, 3]`; None without one or for a place-holder."""
    vectors = topology.getPeriodicBoxVectors()
    if vectors is None:
        return None
    box = np.asarray(vectors.value_in_unit(unit.nanometer), dtype=np.float64)
    return box if float(np.linalg.norm(box, axis=1).max()) > _PLACE_HOLDER_NM else None


def refuse_symmetry(path: Path, where: str) -> None:
    """Refuses a cell that holds more than the atoms of the file: images by symmetry.

    OpenMM reads the lengths and angles of a cell and not its space group.

    Args:
        path: PDB or mmCIF file that OpenMM has read.
        where: names the file in the message.

    Raises:
        UnsupportedSystemError: the space group is not P 1.
    """
    text = path.read_text()
    group = _of_pdb(text) if path.suffix.lower() == ".pdb" else _of_mmcif(text)
    if not _NO_SYMMETRY.fullmatch(group):
        raise UnsupportedSystemError(
            f"{where}: its box is the unit cell of a crystal of space group {group}, which holds "
            "images of these atoms that the file does not list; write all atoms of the cell with "
            "space group P 1, remove the cell (CRYST1), or give a solvent, which brings its own box"
        )


def _of_pdb(text: str) -> str:
    """Returns the space group of the last CRYST1 record, the one that OpenMM reads."""
    records = [line for line in text.splitlines() if line.startswith("CRYST1")]
    return " ".join(records[-1][_SPACE_GROUP_COLUMNS].split()) if records else ""


def _of_mmcif(text: str) -> str:
    """Returns the space group of the first data block."""
    blocks: list[PdbxReader] = []
    PdbxReader(io.StringIO(text)).read(blocks)
    for category, item in _SPACE_GROUP_KEYS:
        table = blocks[0].getObj(category)
        column = -1 if table is None else table.getAttributeIndex(item)
        if column >= 0 and table.getRowCount():
            return " ".join(str(table.getRow(0)[column]).split())
    return ""
