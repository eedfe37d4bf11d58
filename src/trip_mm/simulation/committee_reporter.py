"""Reports how far a committee of models disagrees along a simulation.

The forces of all models are compared at the current frame every so many steps. The disagreement
on an atom is the standard deviation of its force vector over the models (`trip_mm.committee`); a
frame is as uncertain as its worst atom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from openmm import app, unit

from trip_mm.simulation.platforms import PlatformChoice
from trip_mm.simulation.reporters import read_table
from trip_mm.simulation.solute import atom_label
from trip_mm.units import EV_TO_KCAL_PER_MOL, KCAL_PER_MOL_TO_KJ_PER_MOL, NM_TO_ANGSTROM

if TYPE_CHECKING:
    from trip_mm.committee import Committee

FloatArray = NDArray[np.float64]

LARGEST_COLUMN = "Largest Force Disagreement (kcal/mol/A)"
ATOM_COLUMN = "Largest Force Disagreement Atom"
COMMITTEE_COLUMNS = (
    "Step",
    "Time (ps)",
    LARGEST_COLUMN,
    ATOM_COLUMN,
    "Mean Force Disagreement (kcal/mol/A)",
)

_LISTED = 3


@dataclass(frozen=True)
class Disagreement:
    """How far a committee disagrees on one frame.

    Attributes:
        step: of the simulation.
        per_atom: kcal/mol/A, `[n_atoms]`.
    """

    step: int
    per_atom: FloatArray

    @property
    def atom(self) -> int:
        """The atom on which the models disagree most."""
        return int(np.argmax(self.per_atom))

    @property
    def largest(self) -> float:
        """Disagreement on that atom, kcal/mol/A."""
        return float(self.per_atom[self.atom])


class CommitteeReporter:
    """Writes the disagreement of a committee as CSV; a reporter of any `openmm.app.Simulation`.

    Args:
        path: the file; extended if it holds rows already.
        interval: steps between two comparisons.
        committee: the models.
        topology: names the elements.

    Attributes:
        latest: the last comparison of this session, None before the first.
    """

    def __init__(
        self, path: Path, interval: int, committee: "Committee", topology: app.Topology
    ) -> None:
        self._interval = interval
        self._committee = committee
        self._atomic_numbers = np.asarray(
            [atom.element.atomic_number for atom in topology.atoms()], dtype=np.int64
        )
        written = read_table(path)
        self._recent = (
            list(zip(written["Step"].astype(int).tolist(), written[LARGEST_COLUMN], strict=True))
            if written
            else []
        )
        self._stream: IO[str] = path.open("a", encoding="utf-8", newline="")
        if not written:
            self._write([f'"{column}"' for column in COMMITTEE_COLUMNS])
        self.latest: Disagreement | None = None

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:  # noqa: N802
        """Tells OpenMM when the next comparison is due and that it needs positions."""
        steps = self._interval - simulation.currentStep % self._interval
        return {"steps": steps, "periodic": None, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: Any) -> None:
        """Compares the models at one frame and writes a row.

        Raises:
            ValueError: a position is not finite, as OpenMM's own reporters do.
        """
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        if not np.isfinite(positions).all():
            raise ValueError("Particle position is NaN")
        cell = None
        if simulation.system.usesPeriodicBoundaryConditions():
            box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
            cell = np.asarray(box) * NM_TO_ANGSTROM
        found = self._committee.predict(positions, self._atomic_numbers, cell)
        per_atom = found.force_disagreement * EV_TO_KCAL_PER_MOL
        latest = self.latest = Disagreement(simulation.currentStep, per_atom)
        self._recent.append((latest.step, latest.largest))
        self._write(
            [
                str(latest.step),
                f"{state.getTime().value_in_unit(unit.picosecond):.6g}",
                f"{latest.largest:.4f}",
                str(latest.atom),
                f"{per_atom.mean():.4f}",
            ]
        )

    def largest_after(self, step: int) -> float:
        """Returns the largest disagreement of the comparisons after a step; NaN without one.

        NaN also where one of them is not a number, so that a log does not hide it.

        Args:
            step: comparisons up to this step are forgotten.
        """
        self._recent = [row for row in self._recent if row[0] > step]
        return float(np.max([largest for _, largest in self._recent] or [np.nan]))

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def _write(self, cells: list[str]) -> None:
        self._stream.write(",".join(cells) + "\n")
        self._stream.flush()


class CommitteeLogReporter(app.StateDataReporter):
    """OpenMM's state reporter with one more column: the largest disagreement since the last row.

    Attributes:
        committee: where the column comes from; it stands before this one in the simulation's list.
    """

    committee: CommitteeReporter

    def _constructHeaders(self) -> list[str]:  # noqa: N802
        return [*super()._constructHeaders(), LARGEST_COLUMN]

    def _constructReportValues(  # noqa: N802
        self, simulation: app.Simulation, state: Any
    ) -> list[Any]:
        largest = self.committee.largest_after(simulation.currentStep - self._reportInterval)
        return [*super()._constructReportValues(simulation, state), f"{largest:.4f}"]


def load_stage_committee(models: Sequence[str], platform: PlatformChoice) -> "Committee":
    """Loads the models of a committee where the stage computes.

    Args:
        models: names of registered models, or files.
        platform: OpenMM platform of the stage; its GPU serves the committee where torch sees one.

    Raises:
        TripError: a model cannot be loaded, or the models do not fit together.
    """
    import torch

    from trip_mm.committee import load_committee

    if platform.on_gpu and torch.cuda.is_available():
        return load_committee(models, "cuda", platform.dtype)
    return load_committee(models, "cpu", platform.dtype).with_kernels()


def describe_disagreement(
    found: Disagreement, limit: float, atoms: Sequence[app.topology.Atom]
) -> str:
    """Says on which atoms a committee disagrees by more than a limit (kcal/mol/A).

    A disagreement that is not a number is above every limit.
    """
    size = np.where(np.isfinite(found.per_atom), found.per_atom, np.inf)
    above = [int(i) for i in np.argsort(-size, kind="stable") if size[i] > limit]
    named = "; ".join(
        f"{atom_label(atoms[i])} by {found.per_atom[i]:.2f} kcal/mol/A" for i in above[:_LISTED]
    )
    more = f"; and {len(above) - _LISTED} more atoms" if len(above) > _LISTED else ""
    return (
        f"the committee disagrees by more than {limit:.4g} kcal/mol/A on the force on {named}{more}"
    )


def kcal_per_mol_angstrom(kj_per_mol_nm: float) -> float:
    """Converts a force from OpenMM's unit to the one that people read."""
    return kj_per_mol_nm / (KCAL_PER_MOL_TO_KJ_PER_MOL * NM_TO_ANGSTROM)
