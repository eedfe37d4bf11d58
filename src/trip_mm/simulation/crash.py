"""What a simulation that stops leaves behind: the frames of a crash, or the uncertain frame."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from trip_mm.errors import BackendError, UnstableSimulationError
from trip_mm.files import write_atomically
from trip_mm.simulation.monitor import Frame
from trip_mm.simulation.run_directory import StageDirectory

_CELL_TEXTS = ("cell too small for the cutoff", "periodic box size has decreased")
_NOT_FINITE = re.compile(
    r"\bnan\b|\binfinite\b|not finite|not a number|position is too large", re.IGNORECASE
)


@dataclass(frozen=True)
class Crash:
    """The last frames of a simulation.

    Attributes:
        before: the last frame that passed every check, None if there was none.
        after: the frame of the crash.
    """

    before: Frame | None
    after: Frame


def is_cell_too_small(error: Exception) -> bool:
    """Whether OpenMM stopped because the box shrank below twice the cutoff."""
    return any(text in str(error) for text in _CELL_TEXTS)


def is_not_finite(error: Exception) -> bool:
    """Whether OpenMM stopped because a number became NaN, infinite or too large to be written."""
    return _NOT_FINITE.search(str(error)) is not None


def is_technical(error: Exception) -> bool:
    """Whether the device or the backend failed: nothing is wrong with the frame then."""
    return not (
        isinstance(error, UnstableSimulationError)
        or is_cell_too_small(error)
        or is_not_finite(error)
    )


def technical_failure(where: str, error: Exception, run_dir: Path) -> BackendError:
    """Returns the error of a technical failure.

    Args:
        where: place and, in dynamics, step.
        error: what OpenMM raised.
        run_dir: of the run, which can be resumed.
    """
    return BackendError(
        f"{where}: OpenMM stopped: {error}; fix the cause, then continue with "
        f"`trip-mm resume {run_dir}`"
    )


def save_crash(directory: StageDirectory, topology: app.Topology, crash: Crash) -> None:
    """Writes `crash/before.{pdb,xml}` and `crash/crash.{pdb,xml}` into a stage directory.

    Atoms of the crash frame whose coordinates are not finite are drawn where they were before,
    with occupancy 0; the XML holds what OpenMM had.
    """
    directory.crash.mkdir(exist_ok=True)
    after = crash.after.positions
    finite = np.asarray(np.isfinite(after).all(axis=1))
    fallback = np.zeros_like(after) if crash.before is None else crash.before.positions
    drawn = np.where(finite[:, None], after, fallback)
    frames = [("crash", crash.after, drawn, finite)]
    if crash.before is not None:
        everywhere = np.ones(len(after), dtype=bool)
        frames.append(("before", crash.before, crash.before.positions, everywhere))
    for name, frame, positions, known in frames:
        text = _pdb(topology, frame, positions, known)
        write_atomically(directory.crash / f"{name}.pdb", text.encode())
        xml = openmm.XmlSerializer.serialize(frame.state)
        write_atomically(directory.crash / f"{name}.xml", xml.encode())


def save_uncertain(directory: StageDirectory, topology: app.Topology, frame: Frame) -> None:
    """Writes `uncertain/frame.{pdb,xml}` into a stage directory; every position is finite."""
    directory.uncertain.mkdir(exist_ok=True)
    everywhere = np.ones(len(frame.positions), dtype=bool)
    text = _pdb(topology, frame, frame.positions, everywhere)
    write_atomically(directory.uncertain / "frame.pdb", text.encode())
    xml = openmm.XmlSerializer.serialize(frame.state)
    write_atomically(directory.uncertain / "frame.xml", xml.encode())


def _pdb(
    topology: app.Topology,
    frame: Frame,
    positions: NDArray[np.float64],
    known: NDArray[np.bool_],
) -> str:
    """Writes a frame as PDB text; positions too large for its columns are cut to them."""
    text = io.StringIO()
    text.write(f"REMARK   1 STEP {frame.step} OF THE STAGE\n")
    for atom in np.flatnonzero(~known)[:1000]:
        text.write(f"REMARK   1 ATOM {atom} (FROM 0) HAS NO FINITE POSITION\n")
    limited = np.clip(positions, -99.0, 999.0) * unit.nanometer
    app.PDBFile.writeHeader(topology, text)
    app.PDBFile.writeModel(topology, limited, text)
    app.PDBFile.writeFooter(topology, text)
    if known.all():
        return text.getvalue()
    lines, index = [], 0
    for line in text.getvalue().splitlines():
        if line.startswith(("ATOM", "HETATM")):
            lines.append(line if known[index] else line[:54] + "  0.00" + line[60:])
            index += 1
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
