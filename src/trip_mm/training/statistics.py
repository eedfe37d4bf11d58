"""What a potential is told about energies before training: self energies, binding, unit.

A `TripModel` with exact lone atoms computes

    E = E_ZBL + sum_u b_{Z_u} (1 - exp(-sum_w phi)) + sigma sum_u network_u

relative to the isolated atoms. The binding energies b come from a linear regression of
E - E_ZBL on the switches, so that the network starts from what composition explains. With
trained lone atoms the switches are 1, and b becomes part of the self energies (TrIP thesis 4.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from trip_mm.elements import SYMBOLS, atomic_number
from trip_mm.errors import ConfigError
from trip_mm.model.trip import TripModel
from trip_mm.training.conformations import ConformationStore

_CHUNK_EDGES = 500_000


@dataclass(frozen=True)
class EnergyStatistics:
    """What a potential is told about energies before training.

    Attributes:
        self_energies: eV, by atomic number.
        binding_energies: mean change of energy per atom of an element in a molecule, eV; zero
            where they are part of the self energies.
        lone_labels: energies of the isolated atoms relative to the self energies, eV.
        energy_std: standard deviation of the energies about the regression, eV.
        force_rms: root mean square of the force components, eV/A.
    """

    self_energies: dict[int, float]
    binding_energies: dict[int, float]
    lone_labels: dict[int, float]
    energy_std: float
    force_rms: float


def energy_statistics(
    store: ConformationStore, lone_energies: Mapping[int, float], model: TripModel
) -> EnergyStatistics:
    """Regresses energies relative to the isolated atoms on composition, in float64.

    Systems are weighted by 1 / n_atoms, as the default loss does. Where the data cannot tell
    elements apart (pure water), the smallest coefficients are taken.

    Args:
        store: conformations to train on.
        lone_energies: of the isolated atoms, eV.
        model: for its repulsion, envelope and way to treat lone atoms.
    """
    elements = model.config.elements
    repulsion, features = composition_features(store, model)
    targets = store.energies - repulsion
    weights = 1.0 / np.sqrt(store.n_atoms)
    solution, *_ = np.linalg.lstsq(features * weights[:, None], targets * weights, rcond=None)
    binding = dict(zip(elements, map(float, solution), strict=True))
    lone = {z: float(lone_energies[z]) for z in elements}
    zero = dict.fromkeys(elements, 0.0)
    exact = model.config.lone_atoms == "exact"
    return EnergyStatistics(
        lone if exact else {z: lone[z] + binding[z] for z in elements},
        binding if exact else zero,
        zero if exact else {z: -binding[z] for z in elements},
        max(float((targets - features @ solution).std()), 1e-6),
        float(np.sqrt(np.square(store.forces).mean())),
    )


def composition_features(
    store: ConformationStore, model: TripModel
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes what the energy of a model contains besides its network.

    Returns:
        ZBL energy, eV, `[n_conformations]`, and the sum of the binding switches of each element,
        `[n_conformations, n_elements]`.
    """
    elements = model.config.elements
    repulsion = np.zeros(len(store))
    features = np.zeros((len(store), len(elements)))
    chunk_of = np.cumsum(store.n_edges) // _CHUNK_EDGES
    for chunk in np.unique(chunk_of):
        rows = np.flatnonzero(chunk_of == chunk)
        batch = store.batch(rows, torch.float64)
        vectors = batch.positions[batch.receivers] - batch.positions[batch.senders]
        lengths = torch.linalg.norm(vectors, dim=-1)
        with torch.no_grad():
            envelope = model.envelope(lengths)[0]
            atomic = model.repulsion(
                batch.atomic_numbers, batch.senders, batch.receivers, lengths, envelope
            )
            crowding = torch.zeros_like(atomic).index_add(0, batch.receivers, envelope)
        switches = np.ones(len(atomic))
        if model.config.lone_atoms == "exact":
            switches = -np.expm1(-crowding.numpy())
        owner = batch.system_idx.numpy()
        repulsion[rows] = np.bincount(owner, atomic.numpy(), len(rows))
        for column, number in enumerate(elements):
            chosen = switches * (batch.atomic_numbers.numpy() == number)
            features[rows, column] = np.bincount(owner, chosen, len(rows))
    return repulsion, features


def relative_to(
    store: ConformationStore, lone_energies: Mapping[int, float], statistics: EnergyStatistics
) -> ConformationStore:
    """Returns the store with energies relative to the self energies in place of lone atoms."""
    elements = sorted(statistics.self_energies)
    shifts = np.asarray([statistics.self_energies[z] - lone_energies[z] for z in elements])
    return replace(store, energies=store.energies - store.compositions(elements) @ shifts)


def merged_self_energies(
    of_files: Mapping[int, float], of_config: Mapping[str, float], elements: Sequence[int]
) -> dict[int, float]:
    """Joins the lone-atom energies of files and configuration; the configuration wins.

    Raises:
        ConfigError: an element of the model has none, or a key is no element.
    """
    merged = dict(of_files)
    merged.update({atomic_number(symbol): energy for symbol, energy in of_config.items()})
    for number in elements:
        if number not in merged:
            raise ConfigError(
                f"no lone-atom energy for {SYMBOLS[number]} in the data files; give it as "
                f"data.lone_atom_energies.{SYMBOLS[number]}, or take it out of model.elements"
            )
    return merged
