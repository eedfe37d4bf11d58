"""From a built structure and a potential to an OpenMM System: TrIP, Amber14, any openmm-ml model.

The same structure and protocol run on each. Machine-learned systems have no constraints; Amber14
constrains bonds to hydrogen and keeps water rigid.
"""

import inspect
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from trip_mm.errors import (
    BackendError,
    ConfigError,
    MissingDependencyError,
    UnsupportedSystemError,
)
from trip_mm.precision.record import PrecisionCheck
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.system_config import PotentialConfig

AMBER14_CUTOFF_NM = 0.9
"""Largest real-space cutoff of Amber14 with PME, in nm."""
AMBER14_CUTOFF_SHARE = 0.45
"""In a small cell the cutoff is this share of the shortest height, which leaves room to shrink."""

_MODEL_PACKAGES = {
    "aceff": "torchmd-net",
    "aimnet": "aimnet",
    "ani": "torchani",
    "mace": "mace-torch",
    "nequip": "nequip",
    "orb": "orb-models",
    "torchmdnet": "torchmd-net",
}
"""Package of a model of openmm-ml, by the start of the model's name."""

_HYDROGEN = 1


@dataclass(frozen=True)
class SystemOptions:
    """What a System needs to know beside structure and potential.

    Attributes:
        backend: force backend of TrIP: `auto`, `torch`, `python` or `pythontorch`.
        precision: `single`, `mixed` or `double`; `double` makes the network compute in float64.
        precision_asked: whether models of openmm-ml are told it; else they have their own.
        precision_check: what lets a potential of reduced precision compute; None without one.
        constraints: `h-bonds` (bonds to hydrogen and water rigid) or `none`; for Amber14.
        hydrogen_mass_u: mass of hydrogen after repartitioning; None keeps the real masses.
        total_energies: whether models of openmm-ml that count from isolated atoms, MACE, count from
            free nuclei and electrons instead. In float32 this costs digits in a large box.
    """

    backend: str = "auto"
    precision: str = "single"
    precision_asked: bool = False
    precision_check: PrecisionCheck | None = None
    constraints: str = "none"
    hydrogen_mass_u: float | None = None
    total_energies: bool = False


def create_system(
    structure: BuiltStructure, potential: PotentialConfig, options: SystemOptions
) -> openmm.System:
    """Builds the System in which a potential acts on a structure.

    No barostat and no thermostat; centre-of-mass motion is removed.

    Args:
        structure: topology, positions and box.
        potential: what computes the energy; a TrIP name is a registered model or a file.
        options: backend, precision, constraints, masses.

    Raises:
        UnsupportedSystemError: the potential has no parameters for a molecule.
        MissingDependencyError: an openmm-ml model whose package is not installed.
        BackendError: the force backend does not work here.
        CheckpointError: the TrIP model cannot be loaded.
        CellTooSmallError: the box is too small for the cutoff.
        ConfigError: an unknown model, one of openmm-ml that cannot be had in double precision,
            masses that cannot be repartitioned, or a reduced precision without its check.
        PrecisionError: the check did not pass.
    """
    if potential.kind == "amber14":
        system = _amber14_system(structure, potential.name, options)
    elif potential.kind == "trip":
        system = _trip_system(structure, potential, options)
    else:
        system = _openmm_ml_system(structure, potential.name, options)
    if options.hydrogen_mass_u is not None:
        repartition_hydrogen_mass(system, structure.topology, options.hydrogen_mass_u)
    return system


def add_inner_potential(
    system: openmm.System,
    structure: BuiltStructure,
    inner: PotentialConfig,
    options: SystemOptions,
) -> None:
    """Splits a System into a cheap inner potential and the difference of the full one to it.

    Args:
        system: of `create_system`, without constraints.
        structure: its topology and box.
        inner: `amber14`, with flexible bonds and water, or a TrIP model.
        options: those of the System; an inner Amber14 has neither constraints nor other masses.

    Raises:
        TripError: as `create_system`, of the inner potential.
    """
    from trip_mm.backends.multiple_timesteps import split_by_system, split_by_trip
    from trip_mm.backends.openmm_force import ForceSource

    if inner.kind == "amber14":
        flexible = replace(options, constraints="none", hydrogen_mass_u=None)
        split_by_system(system, create_system(structure, inner, flexible))
    else:
        precision = "double" if options.precision == "double" else "single"
        source = ForceSource(inner.name, options.backend, precision)  # type: ignore[arg-type]
        split_by_trip(system, structure.topology, source)


def _trip_system(
    structure: BuiltStructure, potential: PotentialConfig, options: SystemOptions
) -> openmm.System:
    from trip_mm.backends.openmm_force import add_trip_force

    backends = {choice: choice for choice in ("auto", "torch", "python", "pythontorch")}
    if options.backend not in backends:
        raise ConfigError(
            f"backend: {options.backend!r} is unknown; use one of {', '.join(backends)}"
        )
    system = openmm.System()
    for atom in structure.topology.atoms():
        system.addParticle(atom.element.mass)
    if structure.box_vectors is not None:
        system.setDefaultPeriodicBoxVectors(*np.asarray(structure.box_vectors))
    add_trip_force(
        system,
        structure.topology,
        potential.name,
        backend=options.backend,  # type: ignore[arg-type]
        precision=_network_precision(potential, options),  # type: ignore[arg-type]
    )
    system.addForce(openmm.CMMotionRemover())
    return system


def _network_precision(potential: PotentialConfig, options: SystemOptions) -> str | PrecisionCheck:
    """What `add_trip_force` takes; it refuses a reduced precision without a check."""
    if potential.is_reduced:
        return options.precision_check or potential.precision
    return "double" if options.precision == "double" else "single"


def amber14_cutoff(box_vectors: np.ndarray | None) -> float | None:
    """Returns the real-space cutoff of Amber14 in nm; None without a box (no cutoff)."""
    if box_vectors is None:
        return None
    box = np.asarray(box_vectors, dtype=np.float64)
    shortest = float(1.0 / np.linalg.norm(np.linalg.inv(box), axis=0).max())
    return min(AMBER14_CUTOFF_NM, AMBER14_CUTOFF_SHARE * shortest)


@cache
def _amber14(water_model: str) -> app.ForceField:
    return app.ForceField("amber14-all.xml", f"amber14/{water_model}.xml")


def _amber14_system(
    structure: BuiltStructure, water_model: str, options: SystemOptions
) -> openmm.System:
    forcefield = _amber14(water_model)
    cutoff = amber14_cutoff(structure.box_vectors)
    rigid = options.constraints == "h-bonds"
    try:
        return forcefield.createSystem(
            structure.topology,
            nonbondedMethod=app.NoCutoff if cutoff is None else app.PME,
            nonbondedCutoff=(cutoff or AMBER14_CUTOFF_NM) * unit.nanometer,
            constraints=app.HBonds if rigid else None,
            rigidWater=rigid,
            removeCMMotion=True,
        )
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UnsupportedSystemError(
            f"Amber14 has no parameters for this structure ({reason}); use a peptide in water, or "
            "a machine-learned potential"
        ) from error


def _openmm_ml_system(
    structure: BuiltStructure, name: str, options: SystemOptions
) -> openmm.System:
    from openmmml import MLPotential

    from trip_mm.backends.molecules import register_molecules

    try:
        potential = MLPotential(name)
    except KeyError as error:
        raise ConfigError(
            f"openmm-ml:{name}: the installed openmm-ml has no model of this name; its "
            "documentation lists them"
        ) from error
    try:
        # Models that know charges take the molecule for neutral unless told; others do not listen.
        told: dict[str, Any] = {"charge": structure.net_charge} if structure.net_charge else {}
        if options.total_energies and name.startswith("mace"):
            told["returnEnergyType"] = "energy"
        if options.precision_asked:
            told.update(_told_precision(potential, name, options.precision))
        system = potential.createSystem(structure.topology, **told)
    except ImportError as error:
        raise MissingDependencyError(
            f"openmm-ml:{name} needs a package that is not installed ({error}); "
            f"{_how_to_install(name)}, or use another potential"
        ) from error
    except OSError as error:
        raise BackendError(
            f"openmm-ml:{name}: its model file cannot be had ({error}); check the network or the "
            "path"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"openmm-ml:{name}: {error}; see the list of models in the documentation of openmm-ml"
        ) from error
    register_molecules(system, structure.topology)
    return system


def model_packages(name: str) -> tuple[str, ...]:
    """Returns the packages that a model of openmm-ml is known to need, as pip calls them."""
    return tuple(own for start, own in _MODEL_PACKAGES.items() if name.startswith(start))


def _how_to_install(name: str) -> str:
    packages = model_packages(name)
    return f"pip install {packages[0]}" if packages else "install it"


def _told_precision(potential: Any, name: str, precision: str) -> dict[str, str]:
    """What a model of openmm-ml is told of a precision that was asked for.

    openmm-ml hands options through to every model, and those that do not know one overlook it.

    Raises:
        ConfigError: double precision of a model without that option.
    """
    implementation = getattr(potential, "_impl", None)
    add_forces = getattr(implementation, "addForces", None)
    if add_forces is not None and "precision" in inspect.signature(add_forces).parameters:
        return {"precision": "double" if precision == "double" else "single"}
    if precision == "double":
        raise ConfigError(
            f"openmm-ml:{name}: the installed openmm-ml has no choice of precision for this model; "
            "leave --precision double out, or use another potential"
        )
    return {}


def repartition_hydrogen_mass(
    system: openmm.System, topology: app.Topology, hydrogen_mass_u: float
) -> None:
    """Makes hydrogens heavier at the expense of the atoms they are bonded to.

    The total mass of each molecule stays the same. Rigid water keeps its masses: repartitioning
    would change its dynamics for nothing, because its bonds are constrained.

    Args:
        system: the System to change.
        topology: its bonds.
        hydrogen_mass_u: the new mass of every hydrogen, in u.

    Raises:
        ConfigError: a heavy atom would become lighter than its hydrogens.
    """
    constrained = {
        frozenset(system.getConstraintParameters(index)[:2])
        for index in range(system.getNumConstraints())
    }
    for bond in topology.bonds():
        ends = sorted((bond.atom1, bond.atom2), key=lambda atom: atom.element.atomic_number)
        hydrogen, heavy = ends
        if hydrogen.element.atomic_number != _HYDROGEN or heavy.element.atomic_number == _HYDROGEN:
            continue
        is_water = heavy.residue.name in ("HOH", "WAT")
        if is_water and frozenset((hydrogen.index, heavy.index)) in constrained:
            continue
        moved = hydrogen_mass_u * unit.dalton - system.getParticleMass(hydrogen.index)
        remaining = system.getParticleMass(heavy.index) - moved
        if remaining < hydrogen_mass_u * unit.dalton:
            raise ConfigError(
                f"hydrogen_mass: {hydrogen_mass_u:g} u leaves only "
                f"{remaining.value_in_unit(unit.dalton):.2f} u for {heavy.name} of "
                f"{heavy.residue.name} {heavy.residue.id}; use a smaller mass"
            )
        system.setParticleMass(hydrogen.index, hydrogen_mass_u * unit.dalton)
        system.setParticleMass(heavy.index, remaining)


def total_mass(system: openmm.System) -> float:
    """Returns the mass of a System in u."""
    return float(
        sum(
            system.getParticleMass(index).value_in_unit(unit.dalton)
            for index in range(system.getNumParticles())
        )
    )
