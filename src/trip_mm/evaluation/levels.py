"""Levels of theory that potentials other than TrIP stand for."""

from trip_mm.geometry.potentials import TIGHT_BINDING, PotentialSpec

FORCE_FIELD = "Amber14 force field"

_OPENMM_ML_LEVELS = {
    "ani1ccx": "ccsd(t)*/cbs",
    "ani2x": "wb97x/6-31g*",
    "mace-off23-small": "wb97m-d3bj/def2-tzvppd",
    "mace-off23-medium": "wb97m-d3bj/def2-tzvppd",
    "mace-off23-large": "wb97m-d3bj/def2-tzvppd",
    "mace-off24-medium": "wb97m-d3bj/def2-tzvppd",
    "aimnet2": "wb97m-d3bj/def2-tzvpp",
}
"""Of the labels that the models of openmm-ml were trained on, as their authors state it."""


def level_of_method(spec: PotentialSpec) -> str:
    """Returns the level of theory of a potential other than TrIP, empty where unknown."""
    if spec.kind == "qm":
        return TIGHT_BINDING.get(spec.name, spec.name)
    if spec.kind == "amber14":
        return FORCE_FIELD
    return _OPENMM_ML_LEVELS.get(spec.name.lower(), "")
