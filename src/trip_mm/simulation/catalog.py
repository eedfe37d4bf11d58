"""Systems and protocols by file or by the bare name of one that comes with trip-mm."""

from pathlib import Path
from typing import Literal

from trip_mm.errors import ConfigError

Kind = Literal["systems", "protocols"]
DEFAULT_PROTOCOL = "quick"


def find_config(kind: Kind, name: str | Path) -> Path:
    """Returns the YAML file that a name or path means.

    Args:
        kind: `systems` or `protocols`.
        name: a file, or the name of one that comes with trip-mm, without folder and suffix.

    Raises:
        ConfigError: neither exists.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) != 1:
        return path  # a missing file is reported by the loader
    known = shipped(kind)
    if str(name) in known:
        return known[str(name)]
    if path.is_file():
        return path
    raise ConfigError(
        f"{name}: neither a file nor one of the {kind} that come with trip-mm: "
        f"{', '.join(known) or 'none'}"
    )


def shipped(kind: Kind) -> dict[str, Path]:
    """Returns the YAML files that come with trip-mm, by name."""
    return {path.stem: path for path in sorted(_folder(kind).glob("*.yaml"))}


def _folder(kind: Kind) -> Path:
    """A wheel carries the folders inside the package; a checkout has them at its top."""
    package = Path(__file__).parents[1]
    installed = package / "data" / kind
    return installed if installed.is_dir() else package.parents[1] / kind
