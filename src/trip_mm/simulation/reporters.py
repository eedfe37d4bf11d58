"""Reporters of a stage: OpenMM's own, and one for what they lack.

All of them report at multiples of their interval, so that a report of several needs a single
evaluation of the potential, and a resumed stage reports at the steps an uninterrupted one would.
"""

import errno
import struct
from pathlib import Path
from typing import IO, Any

import MDAnalysis.lib.distances as mda_distances
import MDAnalysis.lib.mdamath as mda_math
import numpy as np
from numpy.typing import NDArray
from openmm import app, unit

from trip_mm.simulation.monitor import BondWatch
from trip_mm.units import NM_TO_ANGSTROM

FloatArray = NDArray[np.float64]

MONITOR_COLUMNS = (
    "Step",
    "Time (ps)",
    "Largest Force (kJ/mole/nm)",
    "Largest Force Atom",
    "Shortest Distance (A)",
    "Shortest Distance Atom 1",
    "Shortest Distance Atom 2",
    "Largest Bond Stretch (ratio)",
    "Torn Bonds",
    "Transferred Protons",
)

_XTC_HEADER_BYTES = 56
"""Magic number, atoms, step, time, box, atoms."""
_XTC_DETAIL_BYTES = 36
"""Precision, bounds, size of the compressed coordinates in bytes."""
_XTC_LARGEST_PLAIN = 9
"""Up to so many atoms coordinates are not compressed."""

_SEARCH_RADII = (1.3, 3.0, 12.0)
"""Distances in A within which the closest pair is looked for, one after the other."""


class MonitorReporter:
    """Writes largest force, shortest distance and the state of the bonds as CSV.

    Args:
        path: the file; extended if it holds rows already.
        interval: steps between two rows.
        watch: the bonds to look at.
    """

    def __init__(self, path: Path, interval: int, watch: BondWatch) -> None:
        self._interval = interval
        self._watch = watch
        exists = path.exists() and path.stat().st_size > 0
        self._stream: IO[str] = path.open("a", encoding="utf-8", newline="")
        if not exists:
            self._write([f'"{column}"' for column in MONITOR_COLUMNS])

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:  # noqa: N802
        """Tells OpenMM when the next row is due and that it needs positions and forces."""
        steps = self._interval - simulation.currentStep % self._interval
        return {"steps": steps, "periodic": None, "include": ["positions", "forces", "energy"]}

    def report(self, simulation: app.Simulation, state: Any) -> None:
        """Writes one row.

        Raises:
            ValueError: a position is not finite, as OpenMM's own reporters do.
        """
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        if not np.isfinite(positions).all():
            raise ValueError("Particle position is NaN")
        forces = state.getForces(asNumpy=True).value_in_unit(
            unit.kilojoule_per_mole / unit.nanometer
        )
        box = None
        if simulation.system.usesPeriodicBoundaryConditions():
            box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        magnitudes = np.linalg.norm(forces, axis=1)
        largest = int(np.argmax(magnitudes))
        distance, first, second = shortest_distance(positions, box)
        findings = self._watch.inspect(positions, box)
        self._write(
            [
                str(simulation.currentStep),
                f"{state.getTime().value_in_unit(unit.picosecond):.6g}",
                f"{magnitudes[largest]:.3f}",
                str(largest),
                f"{distance:.4f}",
                str(first),
                str(second),
                f"{findings.largest_stretch:.4f}",
                str(len(findings.torn)),
                str(len(findings.transferred)),
            ]
        )

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def _write(self, cells: list[str]) -> None:
        self._stream.write(",".join(cells) + "\n")
        self._stream.flush()


def shortest_distance(
    positions: FloatArray, box_vectors: FloatArray | None
) -> tuple[float, int, int]:
    """Finds the closest two atoms, periodic images included.

    Args:
        positions: nm, `[n_atoms, 3]`.
        box_vectors: nm, `[3, 3]`, or None.

    Returns:
        Distance in A and the two atoms; NaN and -1 where no two atoms are within 12 A.
    """
    coordinates = np.ascontiguousarray(positions * NM_TO_ANGSTROM, dtype=np.float32)
    dimensions = None
    if box_vectors is not None:
        dimensions = mda_math.triclinic_box(*(np.asarray(box_vectors) * NM_TO_ANGSTROM))
        coordinates = mda_distances.apply_PBC(coordinates, dimensions)
    for radius in _SEARCH_RADII:
        pairs, distances = mda_distances.self_capped_distance(
            coordinates, max_cutoff=radius, box=dimensions
        )
        if len(distances):
            nearest = int(np.argmin(distances))
            return float(distances[nearest]), int(pairs[nearest, 0]), int(pairs[nearest, 1])
    return float("nan"), -1, -1


def log_reporter(
    path: Path,
    interval: int,
    periodic: bool,
    kind: type[app.StateDataReporter] = app.StateDataReporter,
) -> app.StateDataReporter:
    """Returns OpenMM's state reporter with the columns of `log.csv`, extending an existing file.

    Args:
        path: the file.
        interval: steps between two rows.
        periodic: whether there is a box, hence volume and density.
        kind: class of the reporter, OpenMM's own or one derived from it.
    """
    return kind(
        str(path),
        interval,
        step=True,
        time=True,
        potentialEnergy=True,
        kineticEnergy=True,
        totalEnergy=True,
        temperature=True,
        volume=periodic,
        density=periodic,
        speed=True,
        append=path.exists() and path.stat().st_size > 0,
    )


class CheckedXTCReporter(app.XTCReporter):
    """OpenMM's XTC reporter, which makes sure that each frame reached the file whole.

    OpenMM ignores what the operating system says about a write; on a full disk frames would be
    missing without a word.
    """

    def report(self, simulation: app.Simulation, state: Any) -> None:
        """Writes one frame.

        Raises:
            OSError: the frame is not whole in the file.
        """
        path = Path(self._fileName)
        begin = path.stat().st_size
        super().report(simulation, state)
        if path.stat().st_size != frame_end(path, begin):
            raise OSError(errno.ENOSPC, "the disk is full or a quota is exceeded", str(path))


def frame_end(path: Path, begin: int) -> int | None:
    """Returns where a frame of an XTC file ends, None where its header is not whole.

    Args:
        path: the file.
        begin: offset of the frame in bytes.
    """
    with path.open("rb") as stream:
        stream.seek(begin)
        header = stream.read(_XTC_HEADER_BYTES)
        if len(header) < _XTC_HEADER_BYTES:
            return None
        (n_atoms,) = struct.unpack(">i", header[4:8])
        if n_atoms <= _XTC_LARGEST_PLAIN:
            return begin + _XTC_HEADER_BYTES + 12 * int(n_atoms)
        details = stream.read(_XTC_DETAIL_BYTES)
        if len(details) < _XTC_DETAIL_BYTES:
            return None
        (n_bytes,) = struct.unpack(">i", details[-4:])
    padded = -(-int(n_bytes) // 4) * 4
    return begin + _XTC_HEADER_BYTES + _XTC_DETAIL_BYTES + padded


def trajectory_reporter(path: Path, interval: int) -> CheckedXTCReporter:
    """Returns the XTC reporter, extending an existing file.

    Args:
        path: the file.
        interval: steps between two frames.
    """
    return CheckedXTCReporter(str(path), interval, append=path.exists() and path.stat().st_size > 0)


def read_table(path: Path) -> dict[str, FloatArray]:
    """Reads `log.csv` or `monitor.csv` as columns by name.

    A last row that was cut off while being written (it has no end of line) is left out.

    Returns:
        One array per column, empty where there are no rows; cells that are no numbers are NaN.
    """
    if not path.exists() or path.stat().st_size == 0:
        return {}
    header, *rows = path.read_text(encoding="utf-8").split("\n")
    del rows[-1:]  # what follows the last end of line
    names = [name.strip('#"') for name in header.split(",")]
    cells = [[_number(cell) for cell in row.split(",")] for row in rows if row]
    table = np.asarray(cells, dtype=np.float64).reshape(-1, len(names))
    return {name: table[:, column] for column, name in enumerate(names)}


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
