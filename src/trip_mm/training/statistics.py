"""Energies that depend on composition only, and the unit of energy of the readout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trip_mm.elements import SYMBOLS, atomic_number
from trip_mm.errors import ConfigError
from trip_mm.training.conformations import ConformationStore


@dataclass(frozen=True)
class EnergyStatistics:
    """What a potential is told about energies before training.

    Attributes:
        self_energies: of the isolated atom, eV, by atomic number.
        binding_energies: mean change of energy per atom of an element in a molecule, eV.
        energy_std: standard deviation of the energies about the regression, eV.
        force_rms: root mean square of the force components, eV/A.
    """

    self_energies: dict[int, float]
    binding_energies: dict[int, float]
    energy_std: float
    force_rms: float


def energy_statistics(
    store: ConformationStore, self_energies: Mapping[int, float], elements: Sequence[int]
) -> EnergyStatistics:
    """Regresses energies relative to the isolated atoms on composition, in float64.

    Where the data cannot tell elements apart (pure water), the smallest coefficients are taken.

    Args:
        store: conformations to train on.
        self_energies: of the isolated atoms, eV.
        elements: of the model.
    """
    counts = store.compositions(elements)
    coefficients, *_ = np.linalg.lstsq(counts, store.energies, rcond=None)
    residuals = store.energies - counts @ coefficients
    return EnergyStatistics(
        {z: self_energies[z] for z in elements},
        dict(zip(elements, map(float, coefficients), strict=True)),
        max(float(residuals.std()), 1e-6),
        float(np.sqrt(np.square(store.forces).mean())),
    )


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
