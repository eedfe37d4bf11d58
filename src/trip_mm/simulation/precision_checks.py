"""The check that a reduced precision must pass before a run, and its place in the run's record."""

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from trip_mm.errors import ConfigError, RunDirectoryError
from trip_mm.precision.record import PrecisionCheck
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.plan import RunPlan
from trip_mm.simulation.platforms import apply_threads
from trip_mm.simulation.progress import ProgressListener
from trip_mm.simulation.system_config import PotentialConfig
from trip_mm.units import NM_TO_ANGSTROM

if TYPE_CHECKING:
    from trip_mm.model.reduced import ReducedPrecision
    from trip_mm.potential import TripPotential


def with_precision_checks(
    plan: RunPlan, structure: BuiltStructure, progress: ProgressListener
) -> RunPlan:
    """Checks every potential of reduced precision on the structure of a run.

    Args:
        plan: of the run.
        structure: what it runs on.
        progress: is told what happens.

    Returns:
        The plan with the checks in its record.

    Raises:
        PrecisionError: one is not accurate enough.
        BackendError: `tf32` where torch finds no GPU that has it.
        TripError: the structure cannot be computed in float32.
    """
    checks = dict(plan.precision_checks)
    for potential in plan.reduced_potentials():
        check = check_potential(plan, potential, structure, progress)
        check.require_passed()
        checks[str(potential)] = check.to_dict()
    return replace(plan, precision_checks=checks)


class _Parts:
    """Shows the parts of a check as stages."""

    def __init__(self, progress: ProgressListener) -> None:
        self._progress = progress
        self._part = ""

    def tell(self, part: str, n_done: int, n_total: int) -> None:
        """Starts the part, or says how far it is."""
        if part == self._part:
            self._progress.stage_advanced(n_done, 0.0, "")
            return
        self.finish()
        self._part = part
        self._progress.stage_started(part, n_total, 0, "force evaluations")

    def finish(self) -> None:
        """Ends the last part."""
        if self._part:
            self._progress.stage_finished("done")


def check_potential(
    plan: RunPlan, potential: PotentialConfig, structure: BuiltStructure, progress: ProgressListener
) -> PrecisionCheck:
    """Measures one potential of reduced precision against float32, where the run computes.

    Raises:
        BackendError: `tf32` where torch finds no GPU that has it.
        TripError: the structure cannot be computed in float32.
    """
    from trip_mm.precision.check import check_precision

    apply_threads(plan.platform)
    device = device_of(plan, potential)
    progress.message(f"checking {potential} against float32 on {device}")
    box = structure.box_vectors
    parts = _Parts(progress)
    check = check_precision(
        _load(potential, device),
        structure.positions * NM_TO_ANGSTROM,
        np.array([atom.element.atomic_number for atom in structure.topology.atoms()]),
        cast("ReducedPrecision", potential.precision),
        None if box is None else np.asarray(box) * NM_TO_ANGSTROM,
        tell=parts.tell,
    )
    parts.finish()
    progress.message(check.force_sentence())
    progress.message(check.drift_sentence())
    progress.message(
        f"{potential.precision} takes {1 / check.speedup:.2f} times the time of float32 on {device}"
    )
    return check


def load_reduced(plan: RunPlan, potential: PotentialConfig) -> "TripPotential":
    """Loads the unchecked potential of reduced precision, to time it.

    Raises:
        BackendError: `tf32` where torch finds no GPU that has it.
        CheckpointError: the model cannot be loaded.
    """
    precision = cast("ReducedPrecision", potential.precision)
    return _load(potential, device_of(plan, potential)).with_precision(precision)


def _load(potential: PotentialConfig, device: str) -> "TripPotential":
    """Loads the weights of a potential in float32."""
    from trip_mm.checkpoint import load_potential

    return load_potential(potential.name, device=device).requires_grad_(False)


def device_of(plan: RunPlan, potential: PotentialConfig) -> str:
    """Returns where the network of a run computes, as torch names it.

    Raises:
        BackendError: `tf32` where torch finds no GPU that has it.
        ConfigError: `tf32` in a run whose network computes on the CPU.
    """
    import torch

    from trip_mm.model.reduced import check_available

    check_available(potential.precision)
    on_gpu = plan.platform.name == "CUDA" or plan.backend == "python"
    device = "cuda" if torch.cuda.is_available() and on_gpu else "cpu"
    if potential.precision == "tf32" and device == "cpu":
        raise ConfigError(
            f"{potential}: the {plan.backend} backend computes on the CPU with OpenMM's "
            f"{plan.platform.name} platform, which has no tf32; use --platform CUDA or --backend "
            "python, or leave precision out"
        )
    return device


def recorded_check(plan: RunPlan, index: int) -> PrecisionCheck | None:
    """Returns the check in the record of a run for the potential of a stage, None without one.

    Raises:
        RunDirectoryError: the record is damaged.
    """
    record = plan.precision_checks.get(str(plan.stage_potential(index)))
    if record is None:
        return None
    try:
        return PrecisionCheck.from_dict(record)
    except (KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"run.json: precision_checks is damaged ({error!r}); restore it"
        ) from error
