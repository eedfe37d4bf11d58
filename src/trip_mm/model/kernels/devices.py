"""Which kernels a device has: numba on CPUs, Triton on CUDA devices, none elsewhere."""

import functools
import importlib.util
import logging

from trip_mm.errors import MissingDependencyError

_logger = logging.getLogger("trip_mm")


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed. It comes with torch's CUDA wheels for Linux."""
    return importlib.util.find_spec("triton") is not None


def has_kernels(device_type: str) -> bool:
    """Whether the operators of `trip_mm` compute on this type of device."""
    return device_type == "cpu" or (device_type == "cuda" and has_triton())


@functools.cache
def announce_plain_form() -> None:
    """Says once that networks on CUDA devices compute without kernels."""
    _logger.warning(
        "Triton is not installed: on CUDA devices the network runs in plain PyTorch, slower and "
        "with more memory; `pip install triton` in the version that fits torch brings the kernels"
    )


def require_triton() -> None:
    """Refuses to launch a kernel that cannot be compiled.

    Raises:
        MissingDependencyError: Triton is not installed.
    """
    if not has_triton():
        raise MissingDependencyError(
            "the kernels for CUDA devices need Triton: install it in the version that fits torch, "
            "or use the potential without `with_kernels()`"
        )
