"""Molecules as OpenMM sees them: what a Monte Carlo barostat moves as one.

OpenMM derives molecules from bonds and constraints. A System that holds only a machine-learned
force has neither, so the barostat would take every atom for a molecule, scale bond lengths with the
box and use the number of atoms in place of the number of molecules in its acceptance.
"""

import openmm
from openmm import app

from trip_mm.errors import UnsupportedSystemError

BOND_FORCE_NAME = "topology bonds (zero strength)"


def _joined_pairs(system: openmm.System) -> list[tuple[int, int]]:
    """Pairs of particles that OpenMM already counts to one molecule."""
    pairs: list[tuple[int, int]] = []
    for i in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(i)
        pairs.append((first, second))
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
            for i in range(force.getNumBonds()):
                first, second = force.getBondParameters(i)[:2]
                pairs.append((first, second))
    for particle in range(system.getNumParticles()):
        if system.isVirtualSite(particle):
            site = system.getVirtualSite(particle)
            pairs.extend((particle, site.getParticle(i)) for i in range(site.getNumParticles()))
    return pairs


def _molecule_labels(n_particles: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Label of the molecule of each particle: the smallest index that the pairs join it to."""
    parents = list(range(n_particles))

    def root(particle: int) -> int:
        while parents[particle] != particle:
            parents[particle] = parents[parents[particle]]
            particle = parents[particle]
        return particle

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parents[high] = low
    return [root(particle) for particle in range(n_particles)]


def register_molecules(system: openmm.System, topology: app.Topology) -> openmm.Force | None:
    """Adds the bonds of a topology that a System lacks, with zero strength.

    They exert no force; they make OpenMM count molecules, so that a Monte Carlo barostat moves each
    of them whole. Bonds between particles that bonds, constraints or virtual sites of the System
    already join are left out, so that a second call adds nothing.

    Args:
        system: the System to change.
        topology: the topology of the same particles.

    Returns:
        The added force, or None if the System already defines these molecules.

    Raises:
        UnsupportedSystemError: System and topology differ in their number of particles.
    """
    n_particles = system.getNumParticles()
    if n_particles != topology.getNumAtoms():
        raise UnsupportedSystemError(
            f"the System has {n_particles} particles and the topology {topology.getNumAtoms()} "
            "atoms; pass the topology from which the System was made"
        )
    labels = _molecule_labels(n_particles, _joined_pairs(system))
    bonds = [(bond.atom1.index, bond.atom2.index) for bond in topology.bonds()]
    missing = [(i, j) for i, j in bonds if labels[i] != labels[j]]
    if not missing:
        return None
    force = openmm.HarmonicBondForce()
    force.setName(BOND_FORCE_NAME)
    for first, second in missing:
        force.addBond(first, second, 0.0, 0.0)
    periodic = topology.getPeriodicBoxVectors() is not None
    force.setUsesPeriodicBoundaryConditions(periodic or system.usesPeriodicBoundaryConditions())
    system.addForce(force)
    return force
