"""Multiple time steps: a cheap potential at short steps, the rest of the full one at long ones.

    U = U_inner + (U_full - U_inner)

The reversible scheme of Tuckerman, Berne and Martyna (J. Chem. Phys. 97, 1990 (1992)), r-RESPA,
kicks with the force of the second bracket once at each end of an outer step and integrates U_inner
between in n shorter steps. The sum of both is the full potential whatever U_inner is: a poor one
costs stability at long outer steps, not the ensemble that short ones converge to.

    force group 0 (`INNER_GROUP`)   U_inner
    force group 1 (`OUTER_GROUP`)   U_full - U_inner

    system = openmm.System()                     # particles as usual
    add_trip_force(system, topology, "trip-gfn2-s")
    split_by_system(system, force_field.createSystem(topology, ...))   # or split_by_trip
    integrator = MultipleTimestepLangevinIntegrator(
        298 * unit.kelvin, 1 / unit.picosecond, 1 * unit.femtosecond, 2
    )
"""

import copy
from typing import TYPE_CHECKING

import openmm
from openmm import app, unit
from openmm.mtsintegrator import MTSIntegrator, MTSLangevinIntegrator

from trip_mm.errors import ConfigError, UnsupportedSystemError

if TYPE_CHECKING:
    from trip_mm.backends.openmm_force import ForceSource

INNER_GROUP = 0
OUTER_GROUP = 1

_WITHOUT_ENERGY = (
    openmm.CMMotionRemover,
    openmm.AndersenThermostat,
    openmm.MonteCarloBarostat,
    openmm.MonteCarloAnisotropicBarostat,
    openmm.MonteCarloMembraneBarostat,
    openmm.MonteCarloFlexibleBarostat,
)


def split_by_system(system: openmm.System, inner: openmm.System) -> None:
    """Makes the forces of another System the inner potential of a System.

    Args:
        system: holds the full potential, which moves to `OUTER_GROUP` together with the negative of
            the inner one. Forces added later belong to the group that they name.
        inner: the same particles under a cheap potential, such as a force field with flexible
            bonds; it is copied, without thermostats and barostats.

    Raises:
        UnsupportedSystemError: a System has constraints, their particles differ, or `inner` has
            no forces.
    """
    _check_no_constraints(system, "the full potential")
    _check_no_constraints(inner, "the inner potential")
    if system.getNumParticles() != inner.getNumParticles():
        raise UnsupportedSystemError(
            f"the inner potential has {inner.getNumParticles()} particles and the full one "
            f"{system.getNumParticles()}; make both from the same topology"
        )
    forces = [force for force in inner.getForces() if not isinstance(force, _WITHOUT_ENERGY)]
    if not forces:
        raise UnsupportedSystemError(
            "the inner potential has no forces; add those of a force field"
        )
    _move_to_outer_group(system)
    negative = openmm.CustomCVForce("-(" + " + ".join(f"v{i}" for i in range(len(forces))) + ")")
    negative.setName("negative inner potential")
    for index, force in enumerate(forces):
        negative.addCollectiveVariable(f"v{index}", copy.deepcopy(force))
        own = copy.deepcopy(force)
        _set_group(own, INNER_GROUP)
        system.addForce(own)
    negative.setForceGroup(OUTER_GROUP)
    system.addForce(negative)


def split_by_trip(system: openmm.System, topology: app.Topology, inner: "ForceSource") -> None:
    """Makes a small TrIP potential the inner potential of a System.

    Args:
        system: as in `split_by_system`.
        topology: of the System.
        inner: the small potential, its backend and precision.

    Raises:
        UnsupportedSystemError: the System has constraints.
        TripError: the potential cannot act on the System; see `add_trip_force`.
    """
    from trip_mm.backends.openmm_force import make_trip_force

    _check_no_constraints(system, "the full potential")
    positive = make_trip_force(system, topology, inner)
    negative = make_trip_force(system, topology, inner, scale=-1.0)
    _move_to_outer_group(system)
    positive.setName("inner TrIP")
    positive.setForceGroup(INNER_GROUP)
    negative.setName("negative inner TrIP")
    negative.setForceGroup(OUTER_GROUP)
    system.addForce(positive)
    system.addForce(negative)


def _check_no_constraints(system: openmm.System, what: str) -> None:
    if system.getNumConstraints():
        raise UnsupportedSystemError(
            f"{what} has {system.getNumConstraints()} constraints, and the fast motion that "
            "multiple time steps are for is gone with them; build it with constraints=None and "
            "rigidWater=False"
        )


def _move_to_outer_group(system: openmm.System) -> None:
    for force in system.getForces():
        _set_group(force, OUTER_GROUP)


def _set_group(force: openmm.Force, group: int) -> None:
    """Puts all of a force into a group, also the reciprocal space of an Ewald sum."""
    force.setForceGroup(group)
    if isinstance(force, openmm.NonbondedForce):
        force.setReciprocalSpaceForceGroup(-1)


def _groups(n_inner_steps: int) -> list[tuple[int, int]]:
    """Force groups and how often each acts in an outer step."""
    if n_inner_steps < 1:
        raise ConfigError(f"{n_inner_steps} inner steps mean nothing; use at least 1")
    return [(OUTER_GROUP, 1), (INNER_GROUP, n_inner_steps)]


class MultipleTimestepIntegrator(MTSIntegrator):
    """r-RESPA at constant energy; OpenMM's `MTSIntegrator` for the two groups of this module."""

    def __init__(self, timestep: unit.Quantity, n_inner_steps: int) -> None:
        """Takes the outer timestep and the number of inner steps in it."""
        super().__init__(timestep, _groups(n_inner_steps))


class MultipleTimestepLangevinIntegrator(MTSLangevinIntegrator):
    """BAOAB-RESPA for the two groups of this module, with a temperature that can change.

    OpenMM's `MTSLangevinIntegrator` (Lagardere et al., J. Phys. Chem. Lett. 10, 2593 (2019)): the
    thermostat acts in every inner step.
    """

    def __init__(
        self,
        temperature: unit.Quantity,
        friction: unit.Quantity,
        timestep: unit.Quantity,
        n_inner_steps: int,
    ) -> None:
        """Takes the outer timestep and the number of inner steps in it."""
        super().__init__(temperature, friction, timestep, _groups(n_inner_steps))

    def setTemperature(self, temperature: unit.Quantity) -> None:  # noqa: N802 (as in OpenMM)
        """Sets the temperature of the heat bath."""
        self.temperature = temperature
        thermal = unit.MOLAR_GAS_CONSTANT_R * temperature
        self.setGlobalVariableByName("kT", thermal.value_in_unit(unit.kilojoule_per_mole))

    def getTemperature(self) -> unit.Quantity:  # noqa: N802 (as in OpenMM)
        """Returns the temperature of the heat bath."""
        return self.temperature
