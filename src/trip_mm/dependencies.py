"""Optional packages: whether one is installed, and the extra that brings it."""

import importlib.util

from trip_mm.errors import MissingDependencyError


def require(package: str, need: str, extra: str) -> None:
    """Refuses what needs a package that is not installed; imports nothing.

    Args:
        package: module that is imported later.
        need: what needs which program, such as `relaxation needs geomeTRIC`.
        extra: of trip-mm, which installs it.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(f"{need}; pip install 'trip-mm[{extra}]'")
