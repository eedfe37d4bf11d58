"""What a potential is told about energies before training: self energies, binding, unit.

A `TripModel` with exact lone atoms computes

    E = E_ZBL + sum_u b_{Z_u} (1 - exp(-sum_w phi)) + sigma sum_u network_u

relative to the isolated atoms. The binding energies b come from a linear regression of
E - E_ZBL on the switches, so that the network starts from what composition explains. With
trained lone atoms the switches are 1, and b becomes part of the self energies (TrIP thesis 4.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from trip_mm.elements import SYMBOLS, atomic_number
from trip_mm.errors import ConfigError
from trip_mm.model.trip import TripModel
from trip_mm.potential import TripPotential
from trip_mm.training.store import TrainingStore

S = TypeVar("S", bound=TrainingStore)

_CHUNK_EDGES = 500_000
_MOST_CONFORMATIONS = 200_000


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

    def with_self_energies_of(
        self, potentials: Sequence[TripPotential], lone_energies: Mapping[int, float]
    ) -> "EnergyStatistics":
        """Keeps the self energies that trained isolated atoms have come to know.

        Args:
            potentials: of one training, or copies of one potential.
            lone_energies: of the isolated atoms, eV.

        Raises:
            ConfigError: the potentials differ in them.
        """
        own = [p.self_energies[list(p.supported_elements)] for p in potentials]
        if any(not torch.equal(energies, own[0]) for energies in own):
            raise ConfigError(
                "initial: the members of the committee have different self energies; train them "
                "further one by one"
            )
        kept = dict(zip(potentials[0].supported_elements, own[0].tolist(), strict=True))
        return replace(
            self,
            self_energies=kept,
            lone_labels={z: float(lone_energies[z]) - energy for z, energy in kept.items()},
        )


def energy_statistics(
    store: TrainingStore, lone_energies: Mapping[int, float], model: TripModel
) -> EnergyStatistics:
    """Regresses energies relative to the isolated atoms on composition, in float64.

    Systems are weighted by 1 / n_atoms, as the default loss does. Where the data cannot tell
    elements apart (pure water), the smallest coefficients are taken. Of more than 200,000
    conformations, that many are drawn for the regression, always the same.

    Args:
        store: conformations to train on.
        lone_energies: of the isolated atoms, eV.
        model: for its repulsion, envelope and way to treat lone atoms.
    """
    elements = model.config.elements
    rows = np.arange(len(store))
    if len(store) > _MOST_CONFORMATIONS:
        drawn = np.random.default_rng(0).permutation(len(store))[:_MOST_CONFORMATIONS]
        rows = np.sort(drawn)
    repulsion, features = composition_features(store, model, rows)
    targets = store.energies[rows] - repulsion
    weights = 1.0 / np.sqrt(store.n_atoms[rows])
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
        store.force_rms(),
    )


def composition_features(
    store: TrainingStore, model: TripModel, chosen: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes what the energy of a model contains besides its network.

    Args:
        store: conformations.
        model: for its repulsion and envelope.
        chosen: of which conformations, `[n_chosen]`.

    Returns:
        ZBL energy, eV, `[n_chosen]`, and the sum of the binding switches of each element,
        `[n_chosen, n_elements]`.
    """
    elements = model.config.elements
    repulsion = np.zeros(len(chosen))
    features = np.zeros((len(chosen), len(elements)))
    chunk_of = np.cumsum(store.n_edges[chosen]) // _CHUNK_EDGES
    for chunk in np.unique(chunk_of):
        rows = np.flatnonzero(chunk_of == chunk)
        batch = store.batch(chosen[rows], torch.float64)
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
            own = switches * (batch.atomic_numbers.numpy() == number)
            features[rows, column] = np.bincount(owner, own, len(rows))
    return repulsion, features


def relative_to(store: S, lone_energies: Mapping[int, float], statistics: EnergyStatistics) -> S:
    """Returns the store with energies relative to the self energies in place of lone atoms."""
    elements = sorted(statistics.self_energies)
    shifts = np.asarray([statistics.self_energies[z] - lone_energies[z] for z in elements])
    return store.with_energies(store.energies - store.compositions(elements) @ shifts)


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
