"""The network that `model` of a training configuration asks for."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from trip_mm.elements import atomic_number
from trip_mm.errors import ConfigError, UnsupportedElementError
from trip_mm.model.config import PRESETS, TripConfig
from trip_mm.simulation.config_io import did_you_mean
from trip_mm.simulation.yaml_io import describe_type


def network_config(values: Mapping[str, Any]) -> TripConfig:
    """Resolves `model: {preset: ..., ...}`; elements may be symbols.

    Args:
        values: of `model`.

    Raises:
        ConfigError: unknown preset, unknown key or a value that does not fit.
    """
    changes = dict(values)
    preset = changes.pop("preset", "trip")
    if not isinstance(preset, str):
        raise ConfigError(f"model.preset: is {describe_type(preset)}, expected text")
    if preset not in PRESETS:
        raise ConfigError(
            f"model.preset: {preset!r} is not known{did_you_mean(preset, [*PRESETS])}"
        )
    known = [field.name for field in fields(TripConfig)]
    for key in changes:
        if key not in known:
            advice = did_you_mean(key, ["preset", *known])
            raise ConfigError(f"model.{key}: unknown key{advice}")
    if "elements" in changes:
        changes["elements"] = _atomic_numbers(changes["elements"])
    try:
        return TripConfig.from_dict({**TripConfig.preset(preset).to_dict(), **changes})
    except ConfigError as error:
        raise ConfigError(f"model.{error}") from None


def _atomic_numbers(elements: Any) -> list[int]:
    """Reads a list of symbols or atomic numbers.

    Raises:
        ConfigError: not a list, or something in it names no element.
    """
    if not isinstance(elements, list):
        raise ConfigError(
            f"model.elements: is {describe_type(elements)}, expected a list; write [H, C, N, O]"
        )
    try:
        return sorted(e if isinstance(e, int) else atomic_number(str(e)) for e in elements)
    except UnsupportedElementError as error:
        raise ConfigError(f"model.elements: {error}") from None
