"""Loading of `systems/*.yaml` and `protocols/*.yaml`, and the names of their settings models.

The models are in `system_config` and `protocol_config`, resolved stages in `stage`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trip_mm.simulation.config_io import validate
from trip_mm.simulation.overrides import apply_overrides
from trip_mm.simulation.protocol_config import (
    ProtocolConfig,
    StageConfig,
    TemperatureRamp,
    TimestepConfig,
)
from trip_mm.simulation.stage import ResolvedStage
from trip_mm.simulation.system_config import (
    IonsConfig,
    PotentialConfig,
    PotentialKind,
    SolventConfig,
    StructureConfig,
    SystemConfig,
)
from trip_mm.simulation.yaml_io import Document, read_yaml

__all__ = [
    "IonsConfig",
    "PotentialConfig",
    "PotentialKind",
    "ProtocolConfig",
    "ResolvedStage",
    "SolventConfig",
    "StageConfig",
    "StructureConfig",
    "SystemConfig",
    "TemperatureRamp",
    "TimestepConfig",
    "load_protocol",
    "load_system",
    "parse_protocol",
    "parse_system",
    "to_document",
]


def load_system(path: str | Path, overrides: Sequence[str] = ()) -> SystemConfig:
    """Loads a `systems/*.yaml` file.

    Args:
        path: the file; its structure file is looked up beside it.
        overrides: `key.path=value` texts, applied before validation.

    Raises:
        ConfigError: one line per problem, `file: key.path: what; what to do`.
    """
    document = apply_overrides(read_yaml(Path(path)), overrides, SystemConfig, str(path))
    return parse_system(document, str(path))


def load_protocol(path: str | Path, overrides: Sequence[str] = ()) -> ProtocolConfig:
    """Loads a `protocols/*.yaml` file.

    Args:
        path: the file.
        overrides: `key.path=value` texts, applied before validation.

    Raises:
        ConfigError: one line per problem, `file: key.path: what; what to do`.
    """
    document = apply_overrides(read_yaml(Path(path)), overrides, ProtocolConfig, str(path))
    return parse_protocol(document, str(path))


def parse_system(document: Document, source: str) -> SystemConfig:
    """Validates the content of a system file; `source` is its path, for messages and look-up."""
    return validate(SystemConfig, {"name": Path(source).stem, **document}, source)


def parse_protocol(document: Document, source: str) -> ProtocolConfig:
    """Validates the content of a protocol file; `source` is its path, for messages."""
    return validate(ProtocolConfig, {"name": Path(source).stem, **document}, source)


def to_document(config: SystemConfig | ProtocolConfig | PotentialConfig) -> dict[str, Any]:
    """Returns settings as JSON values that `parse_system` or `parse_protocol` read back.

    Quantities are texts with units. Only what was set is written, defaults of the schema are not.
    """
    return config.model_dump(mode="json", by_alias=True, exclude_unset=True)
