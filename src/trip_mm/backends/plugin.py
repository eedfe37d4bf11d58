"""Loading of the OpenMM plugins that hold TorchForce, and what to say when they do not load."""

import functools
import logging
import re
from types import ModuleType

import openmm

from trip_mm.backends.openmm_platforms import load_failures
from trip_mm.errors import BackendError

_TORCH_PLUGIN = re.compile(r"Error loading library (?P<path>.*OpenMMTorch[^:]*): (?P<reason>.*)")
_ADVICE = (
    "openmmtorch 1.5 needs Linux on x86-64 and the CUDA build of torch 2.9 (which also runs "
    "without a GPU); use backend='python' otherwise"
)


@functools.cache
def import_openmmtorch() -> ModuleType:
    """Imports openmmtorch and makes sure that its platform plugins are loaded.

    OpenMM loads its plugins when it is first imported. Those of openmmtorch need libraries that
    come with torch, so they fail if torch was not there before; they are loaded here once more.

    Returns:
        The module openmmtorch.

    Raises:
        BackendError: openmmtorch is missing or cannot be loaded.
    """
    try:
        import torch  # noqa: F401  (its libraries must be there before those of openmmtorch)

        openmmtorch = _import_module()
    except (ImportError, OSError) as error:
        raise BackendError(f"openmmtorch cannot be imported: {error}; {_ADVICE}") from error
    for path, problem in _load_torch_plugins().items():
        if "Reference" in path:  # that of another platform is missed only on that platform
            raise BackendError(f"{problem}; {_ADVICE}")
    return openmmtorch


def plugin_failures() -> tuple[str, ...]:
    """Returns what is not loaded, one line each, with what openmmtorch has loaded since left out.

    Without openmmtorch, these are the libraries that OpenMM could not load.
    """
    lines = load_failures()
    try:
        import_openmmtorch()
    except BackendError:
        return lines
    still = _load_torch_plugins()
    matches = ((line, _TORCH_PLUGIN.match(line)) for line in lines)
    return tuple(line for line, match in matches if match is None or match["path"] in still)


@functools.cache
def _load_torch_plugins() -> dict[str, str]:
    """Loads the libraries of openmmtorch that failed; returns the problems of those that still do.

    To be called after the import of torch.
    """
    problems = {}
    for path in _failed_torch_plugins():
        try:
            openmm.Platform.loadPluginLibrary(path)
        except openmm.OpenMMException as error:
            problems[path] = str(error)
    return problems


def _import_module() -> ModuleType:
    """Imports openmmtorch without its warning about the old name of OpenMM, which is not ours."""

    def other_than_rename(record: logging.LogRecord) -> bool:
        return "simtk.openmm" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(other_than_rename)
    try:
        import openmmtorch
    finally:
        root.removeFilter(other_than_rename)
    return openmmtorch  # type: ignore[no-any-return]


def _failed_torch_plugins() -> list[str]:
    """Paths of the libraries of openmmtorch that OpenMM could not load when it was imported."""
    matches = (_TORCH_PLUGIN.match(line) for line in load_failures())
    return [match["path"] for match in matches if match is not None]
