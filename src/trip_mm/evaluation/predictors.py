"""Potentials that predict many conformations: TrIP in batches, every other one by one."""

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trip_mm import __version__
from trip_mm.elements import SYMBOLS
from trip_mm.errors import (
    BackendError,
    ConfigError,
    EvaluationError,
    UnsupportedElementError,
    UnsupportedSystemError,
)
from trip_mm.evaluation.coverage import refuse_unknown_elements
from trip_mm.evaluation.journal import Predicted
from trip_mm.evaluation.levels import level_of_method
from trip_mm.geometry.fragments import bonds_from_distances
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.potentials import EnergyFunction, PotentialSpec, bind
from trip_mm.simulation.potentials import model_packages
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import Group, group_name

if TYPE_CHECKING:
    from trip_mm.potential import TripPotential

_DEVICES = ("cpu", "cuda")
_NOT_FINITE = "energy or forces are not finite"
_PACKAGES = {"amber14": ("openmm",), "openmm-ml": ("openmmml", "openmm", "torch")}


class Predictor(Protocol):
    """A potential ready to evaluate conformations of neutral systems in open boundaries."""

    @property
    def spec(self) -> PotentialSpec:
        """Names the potential."""
        ...

    @property
    def level(self) -> str:
        """Level of theory that it stands for, empty where unknown."""
        ...

    @property
    def identity(self) -> str:
        """Name or checksum, and versions of what computes: equal ones predict equal numbers."""
        ...

    def check(self, dataset: Dataset) -> None:
        """Refuses data that the potential cannot describe, before anything is computed.

        Raises:
            TripError: naming the group or the element.
        """
        ...

    def predict(
        self,
        atomic_numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        n_unpaired: NDArray[np.int64],
    ) -> Iterable[Predicted]:
        """Evaluates conformations that share their atoms, one by one or all at once.

        Args:
            atomic_numbers: `[n_atoms]`.
            positions: A, `[n_conf, n_atoms, 3]`.
            n_unpaired: unpaired electrons, `[n_conf]`.
        """
        ...


def predictor(spec: PotentialSpec, device: str = "cpu") -> Predictor:
    """Makes the predictor of a potential.

    Args:
        spec: the potential.
        device: of a TrIP network; the others run where they run.

    Raises:
        ConfigError: there is no such device.
        BackendError: there is no CUDA device here.
        CheckpointError: the model cannot be loaded.
    """
    return TripPredictor(spec, device) if spec.kind == "trip" else SinglePredictor(spec)


class TripPredictor:
    """TrIP, with all conformations of a call in one batch.

    Attributes:
        training: record of the training in the header of the checkpoint, empty without one.
    """

    def __init__(self, spec: PotentialSpec, device: str) -> None:
        import torch

        from trip_mm.checkpoint import load_potential, trained_level

        if device not in _DEVICES:
            raise ConfigError(f"device {device!r} is unknown; use {' or '.join(_DEVICES)}")
        if device == "cuda" and not torch.cuda.is_available():
            raise BackendError("device cuda: torch finds no CUDA device here; use cpu")
        loaded = load_potential(spec.name, device=device).requires_grad_(False)
        self._potential: TripPotential = loaded.with_kernels()
        self.spec = spec
        self.level = trained_level(spec.name, loaded.metadata)
        training = loaded.metadata.get("training")
        self.training: dict[str, Any] = training if isinstance(training, dict) else {}
        self.identity = f"trip:{loaded.sha256} {loaded.dtype} trip-mm {__version__}"

    def check(self, dataset: Dataset) -> None:
        """Refuses elements that the model has never seen."""
        known = self._potential.supported_elements
        unknown = [SYMBOLS[z] for z in dataset.elements() if z not in known]
        if unknown:
            raise UnsupportedElementError(
                f"{self.spec.label}: does not know {', '.join(unknown)}; leave such data out"
            )

    def predict(
        self,
        atomic_numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        n_unpaired: NDArray[np.int64],
    ) -> list[Predicted]:
        """Evaluates conformations that share their atoms; see `Predictor`."""
        import torch

        n_conf, n_atoms = positions.shape[:2]
        device = self._potential.device
        energies, forces = self._potential.energy_and_forces_batch(
            torch.as_tensor(positions.reshape(-1, 3), device=device),
            torch.as_tensor(np.tile(atomic_numbers, n_conf), device=device),
            torch.arange(n_conf, device=device).repeat_interleave(n_atoms),
            n_conf,
        )
        by_system = forces.cpu().numpy().astype(np.float64).reshape(n_conf, n_atoms, 3)
        return [
            Predicted(float(energy), own)
            if np.isfinite(energy) and np.isfinite(own).all()
            else Predicted.failed(n_atoms, _NOT_FINITE)
            for energy, own in zip(energies.cpu().numpy(), by_system, strict=True)
        ]


class SinglePredictor:
    """Any potential of `geometry.potentials`, one conformation after the other."""

    def __init__(self, spec: PotentialSpec) -> None:
        self.spec = spec
        self.level = level_of_method(spec)
        self.identity = f"{spec} {_versions(spec)}"
        self._bound: tuple[tuple[object, ...], EnergyFunction] | None = None

    def check(self, dataset: Dataset) -> None:
        """Tries the potential on the first conformation of every set of elements.

        Of every group for Amber14, which knows molecules and not elements.
        """
        seen = set()
        for group in dataset.groups:
            elements = frozenset(group.atomic_numbers.tolist())
            if group.n_conformations and (elements not in seen or self.spec.kind == "amber14"):
                seen.add(elements)
                self._check_group(group)

    def _check_group(self, group: Group) -> None:
        block = group.read(slice(0, 1))
        numbers, positions = group.atomic_numbers, block.positions[0]
        where = f"{self.spec.label}: {group_name(group)}"
        try:
            if self.spec.kind == "openmm-ml":
                self._try(numbers, positions)
                return
            self._bind(numbers, positions, int(block.n_unpaired[0]))
            if self.spec.kind == "qm":
                refuse_unknown_elements(self.spec, numbers)
        except UnsupportedSystemError as error:
            raise UnsupportedSystemError(f"{where}: {error}") from error
        except UnsupportedElementError as error:
            raise UnsupportedElementError(f"{where}: {error}") from error

    def _try(self, atomic_numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> None:
        """Evaluates once: some models notice an element that they lack only then.

        Raises:
            UnsupportedElementError: the model does not take the molecule.
            TripError: as `bind`.
        """
        import openmm

        try:
            self._bind(atomic_numbers, positions, 0)(positions)
        except EvaluationError:
            return  # of this geometry, and counted when its turn comes
        except (openmm.OpenMMException, ValueError, LookupError, RuntimeError) as error:
            raise self._not_taken(atomic_numbers, error) from error
        except ConfigError as error:
            if not isinstance(error.__cause__, ValueError):
                raise
            raise self._not_taken(atomic_numbers, error.__cause__) from error

    def _not_taken(
        self, atomic_numbers: NDArray[np.int64], error: Exception
    ) -> UnsupportedElementError:
        symbols = ", ".join(SYMBOLS[z] for z in np.unique(atomic_numbers))
        return UnsupportedElementError(
            f"the model does not take a molecule of {symbols} ({error}); leave such data out, or "
            "see the models that openmm-ml documents"
        )

    def predict(
        self,
        atomic_numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        n_unpaired: NDArray[np.int64],
    ) -> Iterator[Predicted]:
        """Evaluates conformations that share their atoms; see `Predictor`."""
        for own, unpaired in zip(positions, n_unpaired, strict=True):
            try:
                energy, forces = self._bind(atomic_numbers, own, int(unpaired))(own)
                found = Predicted(float(energy), np.asarray(forces, dtype=np.float64))
            except (EvaluationError, UnsupportedSystemError) as error:
                reason = str(error).removeprefix(f"{self.spec.label}: ")
                found = Predicted.failed(len(own), reason)
            yield found

    def _bind(
        self, atomic_numbers: NDArray[np.int64], positions: NDArray[np.float64], n_unpaired: int
    ) -> EnergyFunction:
        """Returns the energy function, made anew only when atoms, spin or needed bonds change."""
        needs_bonds = self.spec.kind == "amber14"
        bonds = bonds_from_distances(atomic_numbers, positions) if needs_bonds else ()
        key = (atomic_numbers.tobytes(), n_unpaired, bonds)
        if self._bound is None or self._bound[0] != key:
            molecule = Molecule(atomic_numbers, positions, bonds, n_unpaired=n_unpaired)
            self._bound = (key, bind(self.spec, molecule))
        return self._bound[1]


def _versions(spec: PotentialSpec) -> str:
    names = _PACKAGES.get(spec.kind, ("pyscf",) if spec.is_quantum else ("tblite",))
    if spec.kind == "openmm-ml":
        names += model_packages(spec.name)
    found = [f"trip-mm {__version__}"]
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
