"""What PythonForce and PythonTorchForce call: small objects that name a checkpoint.

OpenMM pickles the callable of a Python force into the XML of a System. These hold the path of a
checkpoint, its sha256 and a few options, never weights, and load the potential when they are first
called.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit
from torch import Tensor

from trip_mm.backends.evaluator import OpenMMEvaluator, energy_and_forces
from trip_mm.checkpoint import file_sha256, fingerprint, load_potential, registry, save_potential
from trip_mm.errors import CheckpointError
from trip_mm.potential import TripPotential


@dataclass(frozen=True)
class CheckpointReference:
    """A checkpoint that another process can find: a path, and what its content must be.

    Attributes:
        path: the safetensors file.
        sha256: hexadecimal digest of the file.
        dtype: dtype that the network runs in, "float32" or "float64".
        precision: "tf32" or "bf16" for products of reduced precision, else empty.
    """

    path: str
    sha256: str
    dtype: str
    precision: Literal["", "tf32", "bf16"] = ""

    def load(self, device: torch.device) -> TripPotential:
        """Loads the potential onto a device.

        If there is no file at the path, as on another machine, a registered model with the same
        sha256 takes its place.

        Raises:
            CheckpointError: there is no such file, or its sha256 differs.
        """
        potential = load_potential(self._existing_path(), device=str(device), dtype=self.dtype)
        if potential.sha256 != self.sha256:
            raise CheckpointError(
                f"{self.path}: sha256 is {potential.sha256}, but the force was made with "
                f"{self.sha256}; restore that file, or make the force again"
            )
        return potential.with_precision(self.precision) if self.precision else potential

    def _existing_path(self) -> str:
        if Path(self.path).is_file():
            return self.path
        for card in registry().values():
            if card.sha256 == self.sha256:
                return str(card.path)
        raise CheckpointError(
            f"{self.path}: no such file, and no registered model has the sha256 {self.sha256}; "
            "restore the checkpoint that the force was made with"
        )


def cache_directory() -> Path:
    """Directory of the checkpoints that forces of unsaved potentials refer to.

    `$TRIP_MM_CACHE/potentials`, or `trip-mm/potentials` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    own = os.environ.get("TRIP_MM_CACHE")
    if own:
        return Path(own).expanduser() / "potentials"
    shared = os.environ.get("XDG_CACHE_HOME")
    parent = Path(shared) if shared else Path.home() / ".cache"
    return parent / "trip-mm" / "potentials"


def _is_in_file(potential: TripPotential) -> bool:
    """Whether the file that a potential was loaded from still holds it, weight for weight."""
    if not potential.path or not Path(potential.path).is_file():
        return False
    stored = load_potential(potential.path, dtype=potential.dtype)
    return fingerprint(stored) == fingerprint(potential)


def checkpoint_of(potential: TripPotential) -> CheckpointReference:
    """Names a checkpoint that holds a potential: the one it was loaded from, or a new one.

    A potential that was made or changed since is saved into `cache_directory()`, under a name made
    from its content. To have the checkpoint elsewhere, save it with `trip_mm.save_potential` and
    make the force from that path.
    """
    if _is_in_file(potential):
        path = Path(potential.path)
    else:
        path = cache_directory() / f"{fingerprint(potential)}.safetensors"
        if not path.is_file():
            save_potential(potential, path)
    dtype = str(potential.dtype).removeprefix("torch.")
    precision = cast(Literal["", "tf32", "bf16"], potential.reduced_precision)
    return CheckpointReference(str(path.resolve()), file_sha256(path), dtype, precision)


class TripComputation:
    """Callable of an `openmm.PythonForce`: a State to energy and forces.

    It runs on the GPU if torch sees one (choose it with CUDA_VISIBLE_DEVICES), else on the CPU: a
    PythonForce is not told which platform it serves, and OpenMM hands over positions in host memory
    on every platform.
    """

    scale = 1.0
    """Of a callable that was written to XML before there was a scale."""

    def __init__(
        self,
        checkpoint: CheckpointReference,
        atomic_numbers: tuple[int, ...],
        periodic: bool,
        scale: float = 1.0,
    ) -> None:
        self.checkpoint = checkpoint
        self.scale = scale
        self.atomic_numbers = atomic_numbers
        self.periodic = periodic
        self._evaluator: OpenMMEvaluator | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the loaded potential."""
        return self.__dict__ | {"_evaluator": None}

    def evaluator(self, device: torch.device) -> OpenMMEvaluator:
        """The evaluator on a device, loaded when it is first asked for."""
        if self._evaluator is None or self._evaluator.atomic_numbers.device != device:
            potential = self.checkpoint.load(_CPU)
            potential.requires_grad_(False)
            atomic_numbers = torch.tensor(self.atomic_numbers)
            self._evaluator = OpenMMEvaluator(potential, atomic_numbers, scale=self.scale).to(
                device
            )
        return self._evaluator

    def box_vectors(self, state: openmm.State, device: torch.device) -> Tensor | None:
        """Box vectors of a State, nm, [3, 3]; None for open boundaries."""
        if not self.periodic:
            return None
        vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        return torch.as_tensor(vectors, device=device)

    def __call__(self, state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        """Energy, kJ/mol, and forces, kJ/mol/nm, [n_atoms, 3], of the positions of a State."""
        device = torch.device("cuda", torch.cuda.current_device()) if _sees_gpu() else _CPU
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        energy, forces = energy_and_forces(
            self.evaluator(device),
            torch.as_tensor(positions, dtype=torch.float64, device=device),
            self.box_vectors(state, device),
        )
        return energy.item(), forces.cpu().numpy()


class TripTensorComputation(TripComputation):
    """Callable of an `openmmtorch.PythonTorchForce`: positions arrive as a tensor on its device."""

    def __call__(  # type: ignore[override]
        self, state: openmm.State, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Energy, kJ/mol, and forces, kJ/mol/nm, [n_atoms, 3], of positions in nm, as tensors."""
        device = positions.device
        box_vectors = self.box_vectors(state, device)
        return energy_and_forces(self.evaluator(device), positions, box_vectors)


_CPU = torch.device("cpu")


def _sees_gpu() -> bool:
    return bool(torch.cuda.is_available())
