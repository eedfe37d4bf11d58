"""Named training settings: `preset: thesis` in a training configuration."""

from collections.abc import Mapping
from typing import Any

from trip_mm.errors import ConfigError
from trip_mm.simulation.config_io import did_you_mean
from trip_mm.simulation.yaml_io import describe_type

PRESETS: dict[str, dict[str, Any]] = {
    "thesis": {
        "model": {"preset": "trip", "lone_atoms": "trained"},
        "data": {"split": {"by": "formula", "validation_fraction": 0.05}},
        "loss": {"preset": "thesis"},
        "optimizer": {
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "clip": 10.0,
            "force_gradient": "double-backward",
        },
        "schedule": {"kind": "step", "factor": 0.5, "warmup_steps": 0},
        "batch": {"n_conformations": 25},
        "budget": {"max_epochs": 10},
        "ema_decay": 0.0,
        "precision": "bf16-mixed",
    }
}
"""TrIP thesis section 4.1: ANI-1x, the four isolated atoms in every minibatch, no averaging.

The minibatch is that of one process: with N processes, 25 N conformations go into a step."""

_ALTERNATIVES = ({"n_conformations", "max_edges"},)


def with_preset(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the values with those of their preset where they say nothing themselves.

    The network of a preset does not replace that of the weights which `initial` names.

    Args:
        values: as read from YAML; the key `preset` is taken out.
        where: name of their origin for messages.

    Raises:
        ConfigError: no preset has that name.
    """
    own = dict(values)
    name = own.pop("preset", None)
    if name is None:
        return own
    if not isinstance(name, str):
        raise ConfigError(f"{where}: preset: is {describe_type(name)}, expected text")
    if name not in PRESETS:
        raise ConfigError(f"{where}: preset: {name!r} is not known{did_you_mean(name, [*PRESETS])}")
    preset = dict(PRESETS[name])
    if own.get("initial") is not None and "model" not in own:
        preset.pop("model", None)
    return _merged(preset, own)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in base.items()
        if not any(key in group and group & set(own) for group in _ALTERNATIVES)
    }
    merged = {**kept, **own}
    for key in base.keys() & own.keys():
        named = key in ("model", "loss") and isinstance(own[key], str)
        inner = {"preset": own[key]} if named else own[key]
        if isinstance(base[key], dict) and isinstance(inner, dict):
            merged[key] = _merged(base[key], inner)
    return merged
