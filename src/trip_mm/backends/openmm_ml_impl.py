"""The openmm-ml implementation of TrIP potentials: an adapter of `add_trip_force`."""

import copy
from collections.abc import Iterable
from typing import Any

import openmm
from openmm import app
from openmmml.mlpotential import MLPotentialImpl

from trip_mm.backends.openmm_force import Backend, Precision, add_trip_force
from trip_mm.errors import BackendError, ConfigError, UnsupportedSystemError
from trip_mm.precision import PrecisionCheck

# Options of MLPotential.createMixedSystem that openmm-ml hands through to every potential.
_OPTIONS_OF_EMBEDDINGS = frozenset({"linkAtomDistances"})


class TripPotentialImpl(MLPotentialImpl):
    """A TrIP potential for the whole of a System or, in a mixed one, for some of its atoms.

    Attributes:
        potential: name of a registered model, or path of a checkpoint.
    """

    def __init__(self, potential: str) -> None:
        self.potential = potential

    def addForces(  # noqa: N802
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        backend: Backend = "auto",
        precision: Precision | PrecisionCheck | None = None,
        charge: int = 0,
        **args: Any,
    ) -> None:
        """Adds the potential, and the bonds that make OpenMM count molecules, to a System.

        Args:
            topology: topology of the particles.
            system: the System to change. For `interpolate=True` openmm-ml passes one without
                particles and copies its forces.
            atoms: indices of the atoms to act on; None for all.
            forceGroup: force group of the new forces.
            backend: as `add_trip_force`.
            precision: as `add_trip_force`.
            charge: net charge, as other models take it; TrIP knows 0 only.
            args: options of embeddings, without a meaning here.

        Raises:
            ConfigError: an option that neither TrIP nor an embedding knows.
            UnsupportedSystemError: a net charge.
            BackendError: the backend does not work here, or not with `interpolate=True`.
            TripError: whatever else `add_trip_force` refuses.
        """
        unknown = sorted(set(args) - _OPTIONS_OF_EMBEDDINGS)
        if unknown:
            raise ConfigError(
                f"TrIP potentials have no option {', '.join(unknown)}; they know backend and "
                "precision"
            )
        if charge != 0:
            raise UnsupportedSystemError(
                f"net charge {charge:+d}, and TrIP knows no charge; use a neutral form or another "
                "potential"
            )
        ml_atoms = None if atoms is None else list(atoms)
        if system.getNumParticles() > 0:
            add_trip_force(
                system,
                topology,
                self.potential,
                backend=backend,
                ml_atoms=ml_atoms,
                precision=precision,
                force_group=forceGroup,
            )
            return
        if backend not in ("auto", "python"):
            raise BackendError(
                f"interpolate=True does not work with backend={backend!r}: openmm-ml copies the "
                "force, and openmmtorch cannot be copied; use backend='python'"
            )
        shadow = _system_of(topology)  # owns the force that is copied below
        force = add_trip_force(
            shadow,
            topology,
            self.potential,
            backend="python",
            ml_atoms=ml_atoms,
            precision=precision,
            force_group=forceGroup,
        )
        system.addForce(copy.deepcopy(force))

    def getMLLongRange(self) -> bool | None:  # noqa: N802
        """TrIP has a cutoff: its interactions are local."""
        return False


def _system_of(topology: app.Topology) -> openmm.System:
    """A System of the particles of a topology, without forces."""
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(0.0 if atom.element is None else atom.element.mass)
    if topology.getPeriodicBoxVectors() is not None:
        system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    return system
