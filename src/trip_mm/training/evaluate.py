"""Errors of a potential on labelled conformations, for each class of systems and all together."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from trip_mm.elements import SYMBOLS
from trip_mm.errors import UnsupportedElementError
from trip_mm.potential import TripPotential
from trip_mm.training.conformations import ConformationStore, build_store
from trip_mm.training.dataset import Dataset
from trip_mm.training.gradients import energies_and_forces
from trip_mm.units import EV_TO_KCAL_PER_MOL

ALL = "all"
_BATCH_EDGES = 20_000


@dataclass(frozen=True)
class Predictions:
    """Labels and predictions; energies are relative to the isolated atoms.

    Attributes:
        energies: predicted, eV, `[n_conformations]`.
        forces: predicted, eV/A, `[n_atoms_total, 3]`.
        store: the labels, in the same order.
    """

    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    store: ConformationStore


@dataclass(frozen=True)
class Accuracy:
    """Errors over a set of conformations, in kcal/mol and A.

    Attributes:
        n_conformations: number of conformations.
        energy_mae_kcal_per_mol: mean absolute error per conformation.
        energy_rmse_kcal_per_mol: root of the mean square error per conformation.
        energy_mae_kcal_per_mol_per_atom: mean of absolute error / n_atoms.
        force_mae_kcal_per_mol_per_angstrom: mean absolute error per component.
        force_rmse_kcal_per_mol_per_angstrom: root of the mean square error per component.
    """

    n_conformations: int
    energy_mae_kcal_per_mol: float
    energy_rmse_kcal_per_mol: float
    energy_mae_kcal_per_mol_per_atom: float
    force_mae_kcal_per_mol_per_angstrom: float
    force_rmse_kcal_per_mol_per_angstrom: float

    def to_dict(self) -> dict[str, float]:
        """Returns the numbers by name."""
        return asdict(self)


def evaluate(potential: TripPotential, dataset: Dataset) -> dict[str, Accuracy]:
    """Computes the errors of a potential on a data set.

    Args:
        potential: the potential; its self energies must be of the level of the labels.
        dataset: labelled conformations; those without energy or forces are left out.

    Returns:
        Accuracy for every class of systems and, under `all`, pooled.

    Raises:
        UnsupportedElementError: the data hold an element that the potential does not know.
        DataError: see `build_store`.
    """
    unknown = [SYMBOLS[z] for z in dataset.elements() if z not in potential.supported_elements]
    if unknown:
        raise UnsupportedElementError(
            f"{potential.name}: does not know {', '.join(unknown)}; leave such data out"
        )
    self_energies = {z: float(potential.self_energies[z]) for z in potential.supported_elements}
    store = build_store(dataset, self_energies, potential.cutoff)
    return accuracies(predict(potential, store))


def predict(potential: TripPotential, store: ConformationStore) -> Predictions:
    """Computes energies and forces of every conformation, in batches of similar size."""
    parameter = next(potential.model.parameters())
    energies = np.empty(len(store))
    forces = np.empty_like(store.forces)
    for rows in _batches(store):
        batch = store.batch(rows, parameter.dtype)
        batch = type(batch)(*(tensor.to(parameter.device) for tensor in batch))
        batch_energies, batch_forces = energies_and_forces(
            potential.model, batch, create_graph=False
        )
        energies[rows] = batch_energies.cpu().numpy()
        atoms = np.concatenate(
            [np.arange(store.atom_offsets[row], store.atom_offsets[row + 1]) for row in rows]
        )
        forces[atoms] = batch_forces.cpu().numpy()
    return Predictions(energies, forces, store)


def _batches(store: ConformationStore) -> Iterator[NDArray[np.int64]]:
    order = np.argsort(store.n_edges, kind="stable")
    filled = (np.cumsum(store.n_edges[order]) - 1).clip(min=0) // _BATCH_EDGES
    for number in np.unique(filled):
        yield order[filled == number]


def accuracies(predictions: Predictions) -> dict[str, Accuracy]:
    """Computes the errors for every class that occurs, and pooled under `all`."""
    store = predictions.store
    found: dict[str, Accuracy] = {}
    for number, name in enumerate(store.classes):
        if (store.class_idx == number).any():
            found[name] = _accuracy(predictions, store.class_idx == number)
    found[ALL] = _accuracy(predictions, np.ones(len(store), dtype=bool))
    return found


def _accuracy(predictions: Predictions, chosen: NDArray[np.bool_]) -> Accuracy:
    store = predictions.store
    energy = (predictions.energies - store.energies)[chosen] * EV_TO_KCAL_PER_MOL
    atoms = np.repeat(chosen, store.n_atoms)
    force = (predictions.forces - store.forces)[atoms] * EV_TO_KCAL_PER_MOL
    return Accuracy(
        int(chosen.sum()),
        float(np.abs(energy).mean()),
        float(np.sqrt(np.square(energy).mean())),
        float((np.abs(energy) / store.n_atoms[chosen]).mean()),
        float(np.abs(force).mean()),
        float(np.sqrt(np.square(force).mean())),
    )


def validation_loss(predictions: Predictions) -> float:
    """Returns one number to compare two states of a model by: lower is better.

    Mean over the classes of force MAE (eV/A) plus energy MAE per atom (eV) times 10, so that no
    class decides by its size.
    """
    by_class = {k: v for k, v in accuracies(predictions).items() if k != ALL}
    scores = [
        a.force_mae_kcal_per_mol_per_angstrom + 10.0 * a.energy_mae_kcal_per_mol_per_atom
        for a in by_class.values()
    ]
    return float(np.mean(scores)) / EV_TO_KCAL_PER_MOL


def limit_per_class(store: ConformationStore, n_per_class: int, seed: int) -> ConformationStore:
    """Draws at most `n_per_class` conformations of each class, reproducibly."""
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.flatnonzero(store.class_idx == number))[:n_per_class]
        for number in range(len(store.classes))
    ]
    return store.subset(np.sort(np.concatenate(chosen)))


def format_accuracies(found: dict[str, Accuracy]) -> list[str]:
    """Formats the errors as lines of a table in kcal/mol."""
    width = max(len(name) for name in found)
    lines = [
        f"{'class':<{width}}       n   force MAE  RMSE (kcal/mol/A)   energy MAE/atom (kcal/mol)"
    ]
    lines += [
        f"{name:<{width}}  {a.n_conformations:6d}   {a.force_mae_kcal_per_mol_per_angstrom:9.3f}"
        f" {a.force_rmse_kcal_per_mol_per_angstrom:5.3f}"
        f"              {a.energy_mae_kcal_per_mol_per_atom:9.4f}"
        for name, a in found.items()
    ]
    return lines
