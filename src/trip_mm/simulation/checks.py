"""What a potential cannot describe is refused here, before anything runs."""

from collections.abc import Collection, Sequence

import numpy as np
import openmm
from openmm import app

from trip_mm.elements import symbols_of
from trip_mm.errors import (
    CellTooSmallError,
    ConfigError,
    UnsupportedElementError,
    UnsupportedSystemError,
)
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.contacts import cell_heights, close_pairs
from trip_mm.simulation.plan import RunPlan
from trip_mm.simulation.potentials import (
    SystemOptions,
    create_system,
    repartition_hydrogen_mass,
)
from trip_mm.simulation.solute import (
    AMINO_ACID_NAMES,
    CAP_NAMES,
    ION_CHARGES,
    WATER_NAMES,
    atom_label,
    residue_charge,
)
from trip_mm.simulation.stage import ResolvedStage
from trip_mm.simulation.system_config import PotentialKind
from trip_mm.units import ANGSTROM_TO_NM, NM_TO_ANGSTROM

CLOSEST_ANGSTROM = 0.5
"""No two nuclei of a molecule are closer than this (H2: 0.74 A)."""

_LISTED = 3


def check_structure(
    structure: BuiltStructure,
    potential_kind: PotentialKind,
    supported_elements: Collection[int] | None,
    cutoff_angstrom: float | None,
) -> None:
    """Refuses a system that a potential cannot describe.

    Args:
        structure: the finished system.
        potential_kind: of the run, or of one of its stages.
        supported_elements: atomic numbers the potential knows; None if not known beforehand.
        cutoff_angstrom: range of its interactions; None if it needs no smallest box.

    Raises:
        UnsupportedElementError: an atom of an element the potential has never seen.
        UnsupportedSystemError: no atoms, overlapping atoms, a net charge on a potential without
            charge, or residues without Amber14 parameters.
        CellTooSmallError: the box is lower than twice the cutoff.
    """
    if not len(structure.positions):
        raise UnsupportedSystemError("the system has no atoms; name a structure or a solvent")
    if supported_elements is not None:
        _check_elements(structure, supported_elements)
    _check_charge(structure, potential_kind)
    _check_overlaps(structure)
    if cutoff_angstrom is not None and structure.box_vectors is not None:
        _check_box(structure, cutoff_angstrom)
    if potential_kind == "amber14":
        _check_amber_residues(structure.topology)


def check_velocities(plan: RunPlan) -> None:
    """Refuses a stage that draws no velocities although those before it do not fit.

    After a minimization, another potential, other constraints or other masses the velocities that
    there are belong to no temperature: rigid bonds leave some degrees of freedom without any.

    Raises:
        ConfigError: names the first such stage.
    """
    for index, stage in enumerate(plan.stages):
        if (
            stage.kind == "nve"
            and stage.temperature_start_k is None
            and plan.draws_velocities(index)
        ):
            before = plan.stages[index - 1].name
            raise ConfigError(
                f"stage {stage.name}: temperature: is required, because the velocities of stage "
                f"{before} do not fit (a minimization, or another potential, other constraints or "
                "masses); write for example 298 K"
            )


def check_stages(structure: BuiltStructure, stages: Sequence[ResolvedStage]) -> None:
    """Refuses what a stage cannot do with a structure.

    That is constant pressure without a box, which OpenMM would run in a box of its own, and
    hydrogens heavier than the atoms they are bonded to can make them.

    Raises:
        UnsupportedSystemError: naming the stage.
        ConfigError: naming the stage and the atom.
    """
    for stage in stages:
        if stage.kind == "npt" and structure.box_vectors is None:
            raise UnsupportedSystemError(
                f"stage {stage.name}: constant pressure needs a periodic box and the system has "
                "none; add a solvent, or use a protocol without npt stages (--protocol gas)"
            )
        if stage.hydrogen_mass_u is not None:
            _check_hydrogen_mass(structure.topology, stage)


def check_openmm_ml(structure: BuiltStructure, plan: RunPlan) -> None:
    """Builds the System of every model of openmm-ml once, as its stage will.

    Only that shows whether the installed openmm-ml has the model, its package and its weights.

    Raises:
        ConfigError: an unknown model, or one that cannot be had in the precision asked for.
        MissingDependencyError: its package is not installed.
        BackendError: its file cannot be had.
    """
    options = SystemOptions(
        precision=plan.platform.precision, precision_asked=plan.platform.precision_asked
    )
    for potential in plan.potentials():
        if potential.kind == "openmm-ml":
            create_system(structure, potential, options)


def _check_hydrogen_mass(topology: app.Topology, stage: ResolvedStage) -> None:
    """Moves the masses of a stage in a System that has particles and rigid water only."""
    assert stage.hydrogen_mass_u is not None
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(0.0 if atom.element is None else atom.element.mass)
    if stage.constraints == "h-bonds":
        for bond in topology.bonds():
            if bond.atom1.residue.name in WATER_NAMES:
                system.addConstraint(bond.atom1.index, bond.atom2.index, 0.0)
    try:
        repartition_hydrogen_mass(system, topology, stage.hydrogen_mass_u)
    except ConfigError as error:
        raise ConfigError(f"stage {stage.name}: {error}") from error


def _check_elements(structure: BuiltStructure, supported: Collection[int]) -> None:
    foreign = [
        atom
        for atom in structure.topology.atoms()
        if atom.element is None or atom.element.atomic_number not in supported
    ]
    if not foreign:
        return
    elements = sorted({a.element.name if a.element is not None else "none" for a in foreign})
    raise UnsupportedElementError(
        f"{len(foreign)} atoms of elements the potential does not know ({', '.join(elements)}): "
        f"{_some([atom_label(atom) for atom in foreign])}; it knows "
        f"{', '.join(symbols_of(sorted(supported)))}; remove them or choose another potential"
    )


def _check_charge(structure: BuiltStructure, kind: PotentialKind) -> None:
    if kind == "trip" and structure.net_charge != 0:
        charges = _charged_residues(structure.topology)
        raise UnsupportedSystemError(
            f"the system has a net charge of {structure.net_charge:+d} e"
            + (f" ({', '.join(charges)})" if charges else "")
            + " and TrIP describes neutral systems only; change the sequence or ph so that charges "
            "cancel, or use amber14"
        )


def _charged_residues(topology: app.Topology) -> list[str]:
    """Names the standard residues that are charged: `LYS 2 +1`."""
    known = AMINO_ACID_NAMES | CAP_NAMES | set(ION_CHARGES)
    charges = {r: residue_charge(r) for r in topology.residues() if r.name in known}
    return [f"{r.name} {r.id} {charge:+d}" for r, charge in charges.items() if charge]


def _check_overlaps(structure: BuiltStructure) -> None:
    if not np.all(np.isfinite(structure.positions)):
        raise UnsupportedSystemError("a coordinate is not a finite number; correct the structure")
    pairs = close_pairs(
        structure.positions, structure.box_vectors, CLOSEST_ANGSTROM * ANGSTROM_TO_NM
    )
    if pairs:
        atoms = list(structure.topology.atoms())
        found = [
            f"{atom_label(atoms[i])} and {atom_label(atoms[j])}, {d * NM_TO_ANGSTROM:.2f} A"
            for i, j, d in pairs
        ]
        raise UnsupportedSystemError(
            f"{len(pairs)} pairs of atoms overlap (closer than {CLOSEST_ANGSTROM} A, periodic "
            f"images included): {_some(found)}; correct the structure or enlarge the box"
        )


def _check_box(structure: BuiltStructure, cutoff_angstrom: float) -> None:
    assert structure.box_vectors is not None
    heights = cell_heights(structure.box_vectors) * NM_TO_ANGSTROM
    if float(heights.min()) < 2.0 * cutoff_angstrom:
        text = " x ".join(f"{height:.2f}" for height in heights)
        raise CellTooSmallError(
            f"the box is too small for the cutoff: its heights are {text} A and each must be at "
            f"least twice the cutoff of {cutoff_angstrom:g} A; enlarge solvent.edge or "
            "solvent.padding, or correct the box of the file"
        )


def _check_amber_residues(topology: app.Topology) -> None:
    field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3pfb.xml")
    unmatched = field.getUnmatchedResidues(topology)
    if unmatched:
        names = [f"{residue.name} {residue.id}" for residue in unmatched]
        raise UnsupportedSystemError(
            f"amber14 has no parameters for {_some(names)}; it knows amino acids, water and ions: "
            "use a trip or openmm-ml potential in every stage"
        )


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return "; ".join(items[:_LISTED]) + more
