"""Names of levels of theory, which of them mean the same level, and the functions of a basis."""

import re

_CARTESIAN = re.compile(r"[,(-]*(?:cartesian|cart|6d)\)?$")
_SPHERICAL = re.compile(r"[,(-]*(?:spherical|pure|5d)\)?$")
_FAMILY_OF_6_31G = re.compile(r"(?:321|621|431|631)\+{0,2}g(?:\*{0,2}|s{0,2}|\(.*\))")


def has_cartesian_functions(basis: str) -> bool:
    """Returns whether the d functions of a basis are the six Cartesian ones, not five spherical.

    They are in 3-21G, 6-21G, 4-31G and 6-31G with any polarization and diffuse functions, which
    were made that way and which Gaussian computes so unless told otherwise (as for ANI-1x). Every
    other basis is spherical: 6-311G, def2, cc-pVXZ and so on. pyscf takes one kind for a whole
    molecule, so f functions on 6-31G are Cartesian too, while Gaussian's are spherical.

    Args:
        basis: its name in any spelling of pyscf, such as `6-31G*`, `6-31g(d,p)` or `def2-tzvpp`.
    """
    plain = re.sub(r"[-_\s]", "", basis.lower())
    return _FAMILY_OF_6_31G.fullmatch(plain) is not None


def canonical_level(level: str) -> str:
    """Returns one spelling for all spellings of a level: `wB97X/6-31G(d)` is `wb97x/6-31g*`.

    That functions are Cartesian or spherical is kept only where it is not what the basis has anyway
    (`has_cartesian_functions`), which is how every calculation of trip-mm is done:
    `wb97x/6-31g*-cartesian` is `wb97x/6-31g*`, and `b3lyp/def2-svp (6D)` is
    `b3lyp/def2-svp(cartesian)`.
    """
    lowered = "".join(level.lower().split()).replace("ω", "w")
    plain = _SPHERICAL.sub("", _CARTESIAN.sub("", lowered))
    is_cartesian = has_cartesian_functions(plain.rpartition("/")[2])
    kind = ""
    if is_cartesian and _SPHERICAL.search(lowered):
        kind = "(spherical)"
    elif not is_cartesian and _CARTESIAN.search(lowered):
        kind = "(cartesian)"
    return plain.replace("(d,p)", "**").replace("(d)", "*").removesuffix("-xtb") + kind


def same_level(first: str, second: str) -> bool:
    """Returns whether two names mean one level of theory; an unknown one (empty) never does.

    Fitted densities (`df-`) make no other level: they change energies by less than any model errs.
    """
    one, other = (canonical_level(level).removeprefix("df-") for level in (first, second))
    return bool(one) and one == other
