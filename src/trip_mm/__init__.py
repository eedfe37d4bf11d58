"""trip-mm: the TrIP interatomic potential as an OpenMM force, and everything around it.

The public interface is small and stable; heavy imports happen when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trip_mm.backends.openmm_force import add_trip_force
    from trip_mm.checkpoint import import_published, load_potential, new_potential, save_potential
    from trip_mm.committee import Committee, load_committee
    from trip_mm.model.trip import TripConfig, TripModel
    from trip_mm.potential import TripPotential
    from trip_mm.precision import check_precision
    from trip_mm.workflow import resume, run

__version__ = "0.1.0"

_HOME = {
    "Committee": "trip_mm.committee",
    "TripConfig": "trip_mm.model.trip",
    "TripModel": "trip_mm.model.trip",
    "TripPotential": "trip_mm.potential",
    "add_trip_force": "trip_mm.backends.openmm_force",
    "check_precision": "trip_mm.precision",
    "import_published": "trip_mm.checkpoint",
    "load_committee": "trip_mm.committee",
    "load_potential": "trip_mm.checkpoint",
    "new_potential": "trip_mm.checkpoint",
    "resume": "trip_mm.workflow",
    "run": "trip_mm.workflow",
    "save_potential": "trip_mm.checkpoint",
}

__all__ = [
    "Committee",
    "TripConfig",
    "TripModel",
    "TripPotential",
    "__version__",
    "add_trip_force",
    "check_precision",
    "import_published",
    "load_committee",
    "load_potential",
    "new_potential",
    "resume",
    "run",
    "save_potential",
]


def __getattr__(name: str) -> Any:
    """Imports a public name from its module when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'trip_mm' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names."""
    return list(__all__)
