"""Any potential on one molecule: TrIP, GFN2-xTB, density functionals, openmm-ml models, Amber14.

A potential is named by a short text, as on the command line:

| text | potential |
|---|---|
| `trip:NAME`, `trip-gfn2-s`, `model.safetensors` | a TrIP model |
| `gfn2`, `gfn1` | extended tight binding by tblite |
| `FUNCTIONAL/BASIS`, such as `wb97x/6-31g*` | density functional theory by pyscf |
| `df-FUNCTIONAL/BASIS` | the same with fitted densities, several times faster |
| `openmm-ml:NAME` | a model of the installed openmm-ml |
| `amber14` | the force field, for molecules that it has templates for |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import ConfigError, EvaluationError, UnsupportedSystemError
from trip_mm.geometry.molecule import Molecule
from trip_mm.units import ANGSTROM_TO_NM, KJ_PER_MOL_TO_EV, NM_TO_ANGSTROM

if TYPE_CHECKING:
    from trip_mm.training.labels_methods import Method

EnergyFunction = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]
"""Positions in A `[n_atoms, 3]` to energy in eV and forces in eV/A; raises `EvaluationError`."""

TIGHT_BINDING = {"gfn1": "GFN1-xTB", "gfn2": "GFN2-xTB"}
"""Hamiltonians of tblite by the names that potentials have here."""

_NAMES = (*TIGHT_BINDING, "amber14")
"""Potentials with no model or method to name."""


@dataclass(frozen=True)
class PotentialSpec:
    """Names a potential.

    Attributes:
        kind: `trip`, `qm`, `openmm-ml` or `amber14`.
        name: of the model, the method or the water model.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return self.name if self.kind in ("qm", "amber14") else f"{self.kind}:{self.name}"

    @property
    def label(self) -> str:
        """Name for tables and pictures."""
        if self.kind == "trip":
            return f"TrIP {Path(self.name).stem}"
        if self.kind == "amber14":
            return "Amber14"
        if self.kind == "openmm-ml":
            return self.name
        functional, slash, basis = self.name.partition("/")
        if not slash:
            return TIGHT_BINDING[self.name]
        functional = functional.replace("df-", "DF-").replace("wb97", "ωB97")
        return f"{functional}/{basis.upper()}"

    @property
    def is_quantum(self) -> bool:
        """Whether one evaluation is an electronic-structure calculation at a density functional."""
        return self.kind == "qm" and "/" in self.name


def parse_potential(text: str) -> PotentialSpec:
    """Reads the name of a potential as on the command line.

    Raises:
        ConfigError: it means nothing.
    """
    stripped = text.strip()
    lowered = stripped.lower()
    kind, colon, name = stripped.partition(":")
    if colon and kind in ("trip", "openmm-ml"):
        if not name:
            raise ConfigError(f"potential {text!r}: no model is named; write {kind}:NAME")
        return PotentialSpec(kind, name)
    if lowered in TIGHT_BINDING:
        return PotentialSpec("qm", lowered)
    if lowered == "amber14":
        return PotentialSpec("amber14", "amber14")
    if lowered.endswith(".safetensors"):
        return PotentialSpec("trip", stripped)
    if lowered.count("/") == 1 and not Path(stripped).exists():
        return PotentialSpec("qm", lowered)
    from trip_mm.checkpoint import registry, suggest_model

    if stripped in registry():
        return PotentialSpec("trip", stripped)
    raise ConfigError(
        f"potential {text!r} is unknown; use trip:MODEL, gfn2, FUNCTIONAL/BASIS such as "
        f"wb97x/6-31g*, openmm-ml:MODEL or amber14{suggest_model(stripped, _NAMES)}"
    )


def check_distinct(specs: Sequence[PotentialSpec]) -> None:
    """Refuses potentials that tables and files could not tell apart.

    Raises:
        ConfigError: one is given twice, or two model files have the same name.
    """
    known: dict[str, PotentialSpec] = {}
    for spec in specs:
        other = known.get(spec.label)
        known[spec.label] = spec
        if other == spec:
            raise ConfigError(f"potential {spec} is given twice; name each once")
        if other is not None:
            raise ConfigError(
                f"{other} and {spec} are both called {spec.label} in tables and files; rename or "
                "copy one of them"
            )


def bind(spec: PotentialSpec, molecule: Molecule) -> EnergyFunction:
    """Prepares a potential for one molecule.

    Args:
        spec: the potential.
        molecule: composition, bonds and charge; its positions do not matter.

    Raises:
        ConfigError: there is no such model or method.
        UnsupportedSystemError: the potential cannot know the molecule (charge, spin, no
            parameters).
        UnsupportedElementError: an element that it does not know.
        MissingDependencyError: a package that is not installed.
        CheckpointError: the model cannot be loaded.
    """
    if spec.kind == "trip":
        return _bind_trip(spec, molecule)
    if spec.kind == "qm":
        return _bind_quantum(spec, molecule)
    return _bind_openmm(spec, molecule)


def bind_energy(spec: PotentialSpec, molecule: Molecule) -> Callable[[NDArray[np.float64]], float]:
    """Prepares a potential for energies alone, which is cheaper for a density functional.

    Returns:
        Positions in A `[n_atoms, 3]` to energy in eV; raises `EvaluationError`.

    Raises:
        TripError: as `bind`.
    """
    if not spec.is_quantum:
        energy_function = bind(spec, molecule)
        return lambda positions: energy_function(positions)[0]
    from trip_mm.training.labels_methods import LabelError

    method = _method(spec, molecule)

    def energy(positions: NDArray[np.float64]) -> float:
        try:
            return method.energy(molecule.atomic_numbers, positions, molecule.n_unpaired)
        except LabelError as error:
            raise EvaluationError(f"{spec.label}: {error}") from error

    return energy


def _bind_trip(spec: PotentialSpec, molecule: Molecule) -> EnergyFunction:
    import torch

    from trip_mm.checkpoint import load_potential

    if molecule.charge != 0:
        raise UnsupportedSystemError(
            f"{molecule.name}: net charge {molecule.charge:+d}, and TrIP knows no charge; use a "
            "neutral form or another potential"
        )
    # Relaxation compares energies of 1e-6 eV between steps: float64 costs nothing on a molecule.
    potential = load_potential(spec.name, dtype="float64").requires_grad_(False).with_kernels()
    potential.check_elements(torch.as_tensor(molecule.atomic_numbers))

    def evaluate(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return potential.energy_and_forces(positions, molecule.atomic_numbers)

    return _checked(evaluate, spec)


def _method(spec: PotentialSpec, molecule: Molecule) -> "Method":
    from trip_mm.training.labels_methods import find_method

    if molecule.charge != 0:
        raise UnsupportedSystemError(
            f"{molecule.name}: net charge {molecule.charge:+d}; calculations of ions are not "
            "offered; use a neutral form"
        )
    try:
        return find_method(spec.name)
    except ConfigError as error:
        # Where data are named beside potentials, a missing directory with one slash comes here.
        raise ConfigError(f"{error}; and there is no such file or directory") from error


def _bind_quantum(spec: PotentialSpec, molecule: Molecule) -> EnergyFunction:
    from trip_mm.training.labels_methods import LabelError

    method = _method(spec, molecule)

    def evaluate(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        try:
            labels = method.calculate(molecule.atomic_numbers, positions, molecule.n_unpaired)
        except LabelError as error:
            raise EvaluationError(f"{spec.label}: {error}") from error
        if labels.n_unpaired != molecule.n_unpaired:
            raise EvaluationError(
                f"{spec.label}: only a state with {labels.n_unpaired} unpaired electrons converged"
            )
        return labels.energy, labels.forces

    return _checked(evaluate, spec)


def _bind_openmm(spec: PotentialSpec, molecule: Molecule) -> EnergyFunction:
    import openmm
    from openmm import unit

    from trip_mm.geometry.openmm_topology import built_structure
    from trip_mm.simulation.potentials import SystemOptions, create_system
    from trip_mm.simulation.system_config import PotentialConfig

    if spec.kind == "openmm-ml" and molecule.n_unpaired:
        electrons = "electron" if molecule.n_unpaired == 1 else "electrons"
        raise UnsupportedSystemError(
            f"{molecule.name or molecule.formula}: {molecule.n_unpaired} unpaired {electrons}, and "
            "models of openmm-ml are not told the spin; use a closed-shell molecule or another "
            "potential"
        )
    name = "tip3pfb" if spec.kind == "amber14" else spec.name
    config = PotentialConfig.model_validate({spec.kind: name})
    system = create_system(built_structure(molecule), config, SystemOptions(total_energies=True))
    context = openmm.Context(
        system,
        openmm.VerletIntegrator(0.001 * unit.picosecond),
        openmm.Platform.getPlatformByName("Reference"),
    )

    def evaluate(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        context.setPositions(positions * ANGSTROM_TO_NM)
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(
            unit.kilojoule_per_mole / unit.nanometer
        )
        return energy * KJ_PER_MOL_TO_EV, np.asarray(forces) * (KJ_PER_MOL_TO_EV / NM_TO_ANGSTROM)

    return _checked(evaluate, spec)


def _checked(evaluate: EnergyFunction, spec: PotentialSpec) -> EnergyFunction:
    """Refuses results that are not finite."""

    def checked(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        energy, forces = evaluate(positions)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise EvaluationError(f"{spec.label}: energy or forces are not finite")
        return energy, forces

    return checked
