"""TrIP as an OpenMM force: TorchForce, PythonForce and PythonTorchForce behind one function."""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import openmm
import torch
from openmm import app

from trip_mm.backends.atoms import AtomSelection, select_atoms
from trip_mm.backends.evaluator import OpenMMEvaluator
from trip_mm.backends.molecules import register_molecules
from trip_mm.backends.plugin import import_openmmtorch
from trip_mm.backends.python_callable import (
    TripComputation,
    TripTensorComputation,
    checkpoint_of,
)
from trip_mm.checkpoint import fingerprint, load_potential
from trip_mm.errors import BackendError, ConfigError
from trip_mm.model.reduced import REDUCED_PRECISIONS, ReducedPrecision
from trip_mm.potential import TripPotential, new_model
from trip_mm.precision import PrecisionCheck

Backend = Literal["auto", "torch", "python", "pythontorch"]
Precision = Literal["single", "double"]

FORCE_NAME = "TrIP"

_DTYPES: dict[str, torch.dtype] = {"single": torch.float32, "double": torch.float64}
_logger = logging.getLogger("trip_mm")


class _SquaredNorm(torch.nn.Module):
    """Sum of squared coordinates: the smallest module that shows whether TorchForce works."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        """Sum of the squares of positions [n_particles, 3]."""
        return (positions * positions).sum()


@functools.cache
def _why_not_torch() -> str | None:
    """Reason why TorchForce does not work here; None if it does."""
    try:
        openmmtorch = import_openmmtorch()
    except BackendError as error:
        return str(error)
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(openmmtorch.TorchForce(torch.jit.script(_SquaredNorm())))
    platform = openmm.Platform.getPlatformByName("Reference")
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions([openmm.Vec3(1.0, 2.0, 3.0)])
        context.getState(getEnergy=True)
    except openmm.OpenMMException as error:
        return f"TorchForce imports but does not run: {error}"
    return None


def _why_not_python() -> str | None:
    """Reason why PythonForce does not work here; None if it does."""
    if hasattr(openmm, "PythonForce"):
        return None
    return f"OpenMM {openmm.__version__} has no PythonForce; install openmm 8.4 or newer"


def _why_not_pythontorch() -> str | None:
    """Reason why PythonTorchForce does not work here; None if it does."""
    try:
        openmmtorch = import_openmmtorch()
    except BackendError as error:
        return str(error)
    if hasattr(openmmtorch, "PythonTorchForce"):
        return None
    return (
        "the installed openmmtorch has no PythonTorchForce (1.5 does not); install a later release "
        "of openmmtorch, or use backend='torch'"
    )


_WHY_NOT: dict[str, Callable[[], str | None]] = {
    "torch": _why_not_torch,
    "python": _why_not_python,
    "pythontorch": _why_not_pythontorch,
}


def available_backends() -> dict[str, str | None]:
    """Tells which force backends work here.

    Returns:
        None for a backend that works, else the reason why it does not, by name.
    """
    return {name: why_not() for name, why_not in _WHY_NOT.items()}


def resolve_backend(backend: Backend) -> Literal["torch", "python", "pythontorch"]:
    """Chooses the backend that `auto` stands for, and checks any other.

    Raises:
        BackendError: the backend does not work here.
        ConfigError: there is no backend of that name.
    """
    if backend not in get_args(Backend):
        raise ConfigError(
            f"backend {backend!r} is unknown; choose one of {', '.join(get_args(Backend))}"
        )
    if backend == "auto":
        reason = _WHY_NOT["torch"]()
        if reason is None:
            return "torch"
        _logger.warning("using PythonForce, because TorchForce does not work here: %s", reason)
        backend = "python"
    reason = _WHY_NOT[backend]()
    if reason is not None:
        raise BackendError(f"backend {backend!r} does not work here: {reason}")
    return backend


def _copy(potential: TripPotential) -> TripPotential:
    """The same potential on the CPU, sharing nothing; `copy.deepcopy` fails on scripted parts."""
    copied = TripPotential(new_model(potential.config, seed=0), potential.neighbors.skin)
    copied.to(potential.dtype).load_state_dict(potential.state_dict())
    copied.name, copied.path, copied.sha256 = potential.name, potential.path, potential.sha256
    return copied


def _as_potential(
    potential: TripPotential | str | Path, precision: Precision | PrecisionCheck | None
) -> TripPotential:
    """A potential of our own on the CPU, without gradients of weights; products not yet reduced."""
    if isinstance(precision, PrecisionCheck):
        precision = "single"
    if isinstance(potential, TripPotential):
        dtype = potential.dtype if precision is None else _DTYPES[precision]
        own = _copy(potential).to(dtype)
    else:
        dtype = _DTYPES["single"] if precision is None else _DTYPES[precision]
        own = load_potential(potential, dtype=dtype)
    return own.requires_grad_(False).eval()


def _torch_force(potential: TripPotential, atoms: AtomSelection, scale: float) -> openmm.Force:
    """TorchForce: returns the energy only, so a barostat trial costs no gradient."""
    indices = None if atoms.indices is None else torch.tensor(atoms.indices)
    evaluator = OpenMMEvaluator(potential, torch.tensor(atoms.atomic_numbers), indices, scale=scale)
    return import_openmmtorch().TorchForce(_inlined(torch.jit.script(evaluator)))


def _inlined(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The module with all calls of its forward method replaced by what they call.

    openmmtorch freezes a temporary copy of the module. The frozen code keeps pointers to the
    functions that were called in the copy, and TorchScript follows them when it reports an error:
    without calls an error reaches Python instead of crashing the process.
    """
    torch._C._jit_pass_inline(module.graph)
    return module


def _python_force(potential: TripPotential, atoms: AtomSelection, scale: float) -> openmm.Force:
    """PythonForce: OpenMM selects the particles, the callable loads the potential."""
    checkpoint = checkpoint_of(potential)
    computation = TripComputation(checkpoint, atoms.atomic_numbers, atoms.periodic, scale)
    force = openmm.PythonForce(computation)
    if atoms.indices is not None:
        force.setParticles(atoms.indices)
    return force


def _pythontorch_force(
    potential: TripPotential, atoms: AtomSelection, scale: float
) -> openmm.Force:
    """PythonTorchForce: as PythonForce, with tensors on the device of the context."""
    checkpoint = checkpoint_of(potential)
    computation = TripTensorComputation(checkpoint, atoms.atomic_numbers, atoms.periodic, scale)
    force = import_openmmtorch().PythonTorchForce(computation)
    if atoms.indices is not None:
        force.setParticles(atoms.indices)
    return force


def _check_precision_argument(
    potential: TripPotential | str | Path, precision: Precision | PrecisionCheck | None
) -> None:
    """Refuses unknown precisions, and reduced ones without a check.

    Raises:
        ConfigError: says what to give.
    """
    if isinstance(precision, PrecisionCheck):
        return
    own = potential.reduced_precision if isinstance(potential, TripPotential) else ""
    reduced = own or (precision if precision in REDUCED_PRECISIONS else "")
    if reduced:
        raise ConfigError(
            f"precision {reduced!r} must pass a check on your structure first: check = "
            f"trip_mm.check_precision(potential, positions, atomic_numbers, {reduced!r}, cell), "
            "then add_trip_force(..., potential, precision=check) with the potential in float32"
        )
    if precision is not None and precision not in _DTYPES:
        raise ConfigError(
            f"precision {precision!r} is unknown; choose single or double, or give the check of "
            f"{' or '.join(REDUCED_PRECISIONS)}"
        )


_MAKERS = {"torch": _torch_force, "python": _python_force, "pythontorch": _pythontorch_force}


@dataclass(frozen=True)
class ForceSource:
    """What a force is made from; the arguments of `add_trip_force` of the same names."""

    potential: TripPotential | str | Path
    backend: Backend = "auto"
    precision: Precision | PrecisionCheck | None = None


def make_trip_force(
    system: openmm.System,
    topology: app.Topology,
    source: ForceSource,
    ml_atoms: Sequence[int] | None = None,
    scale: float = 1.0,
) -> openmm.Force:
    """Makes the force of a TrIP potential for a System, without adding it.

    Args:
        system: holds the particles of the topology.
        topology: names elements and whether the box is periodic.
        source: potential, backend and precision.
        ml_atoms: indices of the atoms the potential acts on; None for all.
        scale: factor of energy and forces; -1 takes the potential away again.

    Raises:
        TripError: as `add_trip_force`.
    """
    precision = source.precision
    _check_precision_argument(source.potential, precision)
    chosen = resolve_backend(source.backend)
    loaded = _as_potential(source.potential, precision)
    atoms = select_atoms(system, topology, ml_atoms, loaded.supported_elements, loaded.cutoff)
    if isinstance(precision, PrecisionCheck):
        precision.require_for(fingerprint(loaded), tuple(atoms.atomic_numbers))
        loaded = loaded.with_precision(cast(ReducedPrecision, precision.precision))
    force = _MAKERS[chosen](loaded, atoms, scale)
    force.setName(FORCE_NAME)
    force.setUsesPeriodicBoundaryConditions(atoms.periodic)
    return force


def add_trip_force(
    system: openmm.System,
    topology: app.Topology,
    potential: TripPotential | str | Path,
    *,
    backend: Backend = "auto",
    ml_atoms: Sequence[int] | None = None,
    precision: Precision | PrecisionCheck | None = None,
    force_group: int = 0,
) -> openmm.Force:
    """Adds the energy of a TrIP potential to an OpenMM System.

    The bonds of the topology that the System lacks are registered with zero strength
    (`register_molecules`), so that a Monte Carlo barostat moves molecules whole. The box is read at
    every call.

    A Python force refers to a checkpoint file: that of the name or path given; a `TripPotential`
    object that was not loaded from one is saved to `python_callable.cache_directory()` first.

    A System with a Python force can be copied and written to XML; the process that reads the XML
    loads the checkpoint. With TorchForce it cannot: openmmtorch 1.5 crashes the process that reads
    or copies it under OpenMM 8.6. TorchForce computes no gradient where OpenMM asks for the energy
    only, as in a barostat trial.

    Args:
        system: the System to change; it holds the particles of the topology.
        topology: names elements, bonds and whether the box is periodic.
        potential: a potential, the name of a registered model, or the path of a checkpoint.
        backend: "torch" (TorchForce), "python" (PythonForce), "pythontorch" (PythonTorchForce), or
            "auto": TorchForce where it works, else PythonForce, which is logged with the reason.
        ml_atoms: indices of the atoms the potential acts on; None for all.
        precision: "single" or "double" for the network; None for the dtype of the potential.
            Positions, edge vectors and the sum of the energies are in double in either. A
            `PrecisionCheck` of `trip_mm.check_precision` that passed makes the network run in the
            reduced precision that was checked ("tf32", "bf16").
        force_group: force group of the new forces.

    Returns:
        The added force.

    Raises:
        BackendError: the backend, or tf32, does not work here.
        CheckpointError: the potential cannot be loaded.
        ConfigError: an argument does not mean anything; a reduced precision without its check.
        PrecisionError: a check that did not pass.
        UnsupportedSystemError: System and topology differ, or a particle is no atom.
        UnsupportedElementError: an element that the potential does not know.
        CellTooSmallError: the periodic box is too small for the cutoff.
    """
    source = ForceSource(potential, backend, precision)
    force = make_trip_force(system, topology, source, ml_atoms)
    force.setForceGroup(force_group)
    system.addForce(force)
    bonds = register_molecules(system, topology)
    if bonds is not None:
        bonds.setForceGroup(force_group)
    return force
