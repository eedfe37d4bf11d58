"""Pieces of work of a torsion benchmark: a potential on some grid points of a record."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from trip_mm.errors import (
    EvaluationError,
    RelaxationError,
    UnsupportedElementError,
    UnsupportedSystemError,
)
from trip_mm.geometry.batch_evaluation import bind_batch
from trip_mm.geometry.batched import BatchRelaxer, Outcome, Start
from trip_mm.geometry.potentials import EnergyFunction, PotentialSpec, bind, bind_energy
from trip_mm.geometry.relax import HeldDihedral, Relaxed, relax
from trip_mm.torsion.records import TorsionRecord, mol_from_mapped_smiles, placed

Entry = dict[str, object]

UNSUPPORTED = "not supported by the potential"
NO_ENERGY = "no energy"
NOT_RELAXED = "relaxation failed"
_RELAXATION_REASONS = ("did not converge", "connectivity changed")


@dataclass(frozen=True)
class DriveTask:
    """Some grid points of a record, to be computed with one potential.

    Attributes:
        record: with reference points.
        spec: the potential.
        mode: a key of `MODES`.
        indices: of the grid points.
    """

    record: TorsionRecord
    spec: PotentialSpec
    mode: str
    indices: tuple[int, ...]


def single_points(task: DriveTask) -> list[Entry]:
    """Evaluates the potential at the reference geometries."""
    evaluate = _bound_energy(task.spec, task.record.smiles)
    assert task.record.points is not None
    entries: list[Entry] = []
    for index in task.indices:
        try:
            entries.append({"energy_ev": evaluate(task.record.points.positions[index])})
        except EvaluationError as error:
            entries.append({"reason": NO_ENERGY, "detail": str(error)})
    return entries


def relaxations(task: DriveTask) -> list[Entry]:
    """Relaxes each reference geometry with the potential, the driven dihedral held."""
    energy_function = _bound(task.spec, task.record.smiles)
    assert task.record.points is not None
    assert task.record.dihedral is not None
    entries: list[Entry] = []
    for index in task.indices:
        held = HeldDihedral(task.record.dihedral, float(task.record.points.angles_deg[index]))
        try:
            found = relax(task.record.molecule(index), energy_function, held)
        except EvaluationError as error:
            entries.append({"reason": NO_ENERGY, "detail": str(error)})
        except RelaxationError as error:
            entries.append({"reason": _relaxation_reason(str(error)), "detail": str(error)})
        else:
            entries.append(_relaxed_entry(found))
    return entries


def batched_relaxations(task: DriveTask) -> list[Entry]:
    """Relaxes as `relaxations` does, all grid points together."""
    assert task.record.points is not None
    assert task.record.dihedral is not None
    relaxer = BatchRelaxer(bind_batch(task.spec, [task.record.molecule()]))
    tickets = []
    for index in task.indices:
        held = HeldDihedral(task.record.dihedral, float(task.record.points.angles_deg[index]))
        tickets.append(relaxer.submit(Start(task.record.molecule(index), held)))
    outcomes = dict(relaxer.results())
    return [_entry(outcomes[ticket]) for ticket in tickets]


def _entry(outcome: Outcome) -> Entry:
    if outcome.relaxed is None:
        return {"reason": _relaxation_reason(outcome.error), "detail": outcome.error}
    return _relaxed_entry(outcome.relaxed)


def _relaxed_entry(found: Relaxed) -> Entry:
    return {
        "energy_ev": found.energy,
        "positions_angstrom": np.round(found.positions, 7).tolist(),
        "n_evaluations": found.n_evaluations,
    }


MODES: dict[str, Callable[[DriveTask], list[Entry]]] = {
    "relax": relaxations,
    "relax-batched": batched_relaxations,
    "single-point": single_points,
}
"""How a potential is driven: on its own relaxed geometries, or on the reference's."""

RELAXED_MODES = ("relax", "relax-batched")
BY_POINT = ("relax",)
"""Modes in which every grid point is a piece of work of its own."""


def run_task(task: DriveTask) -> list[Entry]:
    """Computes a task; returns one entry for each of its grid points.

    An entry holds an energy, or the reason why there is none. Errors that concern the potential as
    a whole (no such model, a package that is missing) are raised.
    """
    try:
        return MODES[task.mode](task)
    except (UnsupportedSystemError, UnsupportedElementError) as error:
        return [{"reason": UNSUPPORTED, "detail": str(error)} for _ in task.indices]


def _relaxation_reason(message: str) -> str:
    return next((r for r in _RELAXATION_REASONS if message.startswith(r)), NOT_RELAXED)


# The points of a record come one after the other, and loading a network takes longer than a point.
@lru_cache(maxsize=4)
def _bound(spec: PotentialSpec, smiles: str) -> EnergyFunction:
    mol = mol_from_mapped_smiles(smiles)
    return bind(spec, placed(mol, np.zeros((mol.GetNumAtoms(), 3)), smiles))


@lru_cache(maxsize=4)
def _bound_energy(spec: PotentialSpec, smiles: str) -> Callable[[np.ndarray], float]:
    mol = mol_from_mapped_smiles(smiles)
    return bind_energy(spec, placed(mol, np.zeros((mol.GetNumAtoms(), 3)), smiles))
