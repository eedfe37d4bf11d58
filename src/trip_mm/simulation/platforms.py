"""Which OpenMM platform a run uses, with how many threads and at which precision."""

import os
from dataclasses import dataclass, replace
from typing import Literal

from trip_mm.backends.openmm_platforms import (
    load_failures,
    platform_problem,
    platforms_by_speed,
)
from trip_mm.errors import BackendError, ConfigError

Precision = Literal["single", "mixed", "double"]
PRECISIONS: tuple[Precision, ...] = ("single", "mixed", "double")

_GPU_PLATFORMS = ("CUDA", "HIP", "OpenCL")


@dataclass(frozen=True)
class PlatformChoice:
    """A platform and its properties, as they go into run.json and into every Context.

    Attributes:
        name: OpenMM's name of the platform.
        precision: on GPUs the arithmetic of integrator and classical forces; everywhere `double`
            makes the network compute in float64.
        threads: CPU threads of OpenMM and of torch.
        precision_asked: whether the precision was asked for, and is not the platform's usual one.
    """

    name: str
    precision: Precision
    threads: int
    precision_asked: bool = False

    def properties(self, classical: bool) -> dict[str, str]:
        """Returns the properties of a Context.

        Args:
            classical: whether OpenMM computes the forces itself. If a network does, a single
                thread integrates, so that OpenMM's threads do not compete with torch's.
        """
        if self.name in _GPU_PLATFORMS:
            return {"Precision": self.precision}
        if self.name == "CPU":
            threads = self.threads if classical else 1
            return {"Threads": str(threads), "DeterministicForces": "true"}
        return {}

    @property
    def on_gpu(self) -> bool:
        """Whether OpenMM computes on a GPU."""
        return self.name in _GPU_PLATFORMS

    @property
    def dtype(self) -> str:
        """Name of the floating-point type of the network."""
        return "float64" if self.precision == "double" else "float32"

    def describe(self, trip_acts: bool) -> str:
        """Names the platform with the precision that it has; the CPU platform has none to choose.

        Args:
            trip_acts: whether a TrIP network computes too.
        """
        text = f"{self.name} platform"
        if self.on_gpu:
            text += f" in {self.precision} precision"
        elif self.name == "Reference":
            text += " in double precision"
        return text + (f" (TrIP network: {self.dtype})" if trip_acts else "")


def choose_platform(
    name: str | None = None, precision: str | None = None, threads: int | None = None
) -> PlatformChoice:
    """Settles platform, precision and threads, and tries the platform out.

    Args:
        name: platform in any case; None takes the fastest one that works here.
        precision: `single`, `mixed` or `double`; None takes `mixed` on GPUs, else `single`.
        threads: CPU threads; None takes all that this process may use.

    Raises:
        BackendError: the platform is not known here, or does not start.
        ConfigError: another precision or number of threads.
    """
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(f"precision: {precision!r} is not one of {', '.join(PRECISIONS)}")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads: {threads} is not possible; use at least 1")
    available = {platform.getName(): platform for platform in platforms_by_speed()}
    if name is None:
        problems = {candidate: platform_problem(available[candidate]) for candidate in available}
        working = [candidate for candidate in available if problems[candidate] is None]
        if not working:
            raise BackendError(f"no OpenMM platform works here: {problems}")
        chosen = working[0]
    else:
        by_lower_case = {candidate.lower(): candidate for candidate in available}
        if name.lower() not in by_lower_case:
            raise BackendError(
                f"platform {name!r} is not installed here; use one of {', '.join(available)}"
                + _how_to_get(name)
            )
        chosen = by_lower_case[name.lower()]
        problem = platform_problem(available[chosen])
        if problem is not None:
            raise BackendError(f"platform {chosen} does not work here: {problem}")
    default: Precision = "mixed" if chosen in _GPU_PLATFORMS else "single"
    return PlatformChoice(
        name=chosen,
        precision=next((p for p in PRECISIONS if p == precision), default),
        threads=threads or usable_cpus(),
        precision_asked=precision is not None,
    )


def _how_to_get(name: str) -> str:
    """Says what a platform that is not there needs; empty for others than CUDA."""
    if name.lower() != "cuda":
        return ""
    failed = [line for line in load_failures() if "OpenMMCUDA" in line]
    if failed:
        return f"; it does not load ({failed[0]}): check the driver of the GPU"
    return "; CUDA comes with pip install 'trip-mm[cuda12]', for a driver that wants it 'cuda13'"


def precision_problem(choice: PlatformChoice, networks: bool) -> str | None:
    """Says why a platform has no use for a precision that was asked for, None if it has one.

    Args:
        choice: platform and precision.
        networks: whether a network computes too, whose precision it is.
    """
    if choice.on_gpu:
        return None
    own, other = ("double", "CPU") if choice.name == "Reference" else ("single", "Reference")
    if choice.precision == "mixed":
        return f"OpenMM's {choice.name} platform has {own} precision only; leave it out"
    if networks or choice.precision == own:
        return None
    return (
        f"OpenMM's {choice.name} platform has {own} precision only, and no network computes in "
        f"this run; use --platform {other}, or leave it out"
    )


def moved_platform(choice: PlatformChoice, name: str | None, threads: int | None) -> PlatformChoice:
    """Returns the choice of a run that continues on another platform or with other threads.

    Double precision stays double, and that of the same platform stays as it is; another platform
    takes its usual one.

    Args:
        choice: of the run so far.
        name: platform in any case; None keeps it.
        threads: CPU threads; None keeps them.

    Raises:
        BackendError: as `choose_platform`; also where the platform of the run is not that of this
            machine.
        ConfigError: as `choose_platform`.
    """
    same = name is None or name.lower() == choice.name.lower()
    precision = choice.precision if same or choice.precision == "double" else None
    threads = choice.threads if threads is None else threads
    try:
        moved = choose_platform(name or choice.name, precision, threads)
    except BackendError as error:
        if name is not None:
            raise
        raise BackendError(f"run.json: {error}; name another with --platform") from error
    return replace(moved, precision_asked=choice.precision_asked)


def apply_threads(choice: PlatformChoice) -> None:
    """Limits torch's threads in this process to those of the run."""
    import torch

    torch.set_num_threads(choice.threads)


def usable_cpus() -> int:
    """Returns the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
