"""Every physical constant and unit conversion of the package, from CODATA through scipy.

Inside the package: A, eV, fs, u, K. OpenMM's nm, kJ/mol and ps appear only in `backends` and
`simulation`; people see kcal/mol where the field prints kcal/mol.
"""

from scipy import constants

NM_TO_ANGSTROM: float = 10.0
ANGSTROM_TO_NM: float = 0.1

EV_TO_KJ_PER_MOL: float = constants.e * constants.N_A / constants.kilo
KJ_PER_MOL_TO_EV: float = 1.0 / EV_TO_KJ_PER_MOL
KCAL_PER_MOL_TO_KJ_PER_MOL: float = constants.calorie
EV_TO_KCAL_PER_MOL: float = EV_TO_KJ_PER_MOL / KCAL_PER_MOL_TO_KJ_PER_MOL
KCAL_PER_MOL_TO_EV: float = 1.0 / EV_TO_KCAL_PER_MOL

ATMOSPHERE_TO_BAR: float = constants.atm / constants.bar

HARTREE_TO_EV: float = constants.value("Hartree energy in eV")
EV_TO_HARTREE: float = 1.0 / HARTREE_TO_EV
BOHR_TO_ANGSTROM: float = constants.value("Bohr radius") / constants.angstrom
ANGSTROM_TO_BOHR: float = 1.0 / BOHR_TO_ANGSTROM

COULOMB_CONSTANT: float = constants.e / (
    4.0 * constants.pi * constants.epsilon_0 * constants.angstrom
)
"""e^2 / (4 pi epsilon_0) in eV A (14.3996)."""

BOLTZMANN_CONSTANT: float = constants.k / constants.e
"""k_B in eV / K."""

AMU_ANGSTROM2_PER_FS2_TO_EV: float = (
    constants.atomic_mass * (constants.angstrom / constants.femto) ** 2 / constants.e
)
"""One u A^2 / fs^2 in eV: kinetic energy from masses in u and velocities in A / fs."""

EV_TO_INVERSE_CM: float = constants.e / (constants.h * constants.c) * constants.centi
"""Wavenumber of a photon of 1 eV in cm^-1 (8065.54)."""

SQRT_EV_PER_AMU_ANGSTROM2_TO_INVERSE_CM: float = (
    (constants.e / constants.atomic_mass) ** 0.5
    / constants.angstrom
    / (2.0 * constants.pi * constants.c)
    * constants.centi
)
"""Wavenumber in cm^-1 of an oscillator with k / m = 1 eV / (A^2 u) (521.47)."""
