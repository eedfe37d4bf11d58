"""Names of levels of theory, and which of them mean the same level."""

import re

_CARTESIAN = re.compile(r"[,(-]*(?:cartesian|cart|6d)\)?$")


def canonical_level(level: str) -> str:
    """Returns one spelling for all spellings of a level: `wB97X/6-31G(d)` is `wb97x/6-31g*`.

    That the d functions are Cartesian is not kept: every calculation of trip-mm has them.
    """
    lowered = "".join(level.lower().split()).replace("ω", "w")
    lowered = _CARTESIAN.sub("", lowered)
    return lowered.replace("(d,p)", "**").replace("(d)", "*").removesuffix("-xtb")


def same_level(first: str, second: str) -> bool:
    """Returns whether two names mean one level of theory; an unknown one (empty) never does.

    Fitted densities (`df-`) make no other level: they change energies by less than any model errs.
    """
    one, other = (canonical_level(level).removeprefix("df-") for level in (first, second))
    return bool(one) and one == other
