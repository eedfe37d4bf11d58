"""Which settings each kind of stage has."""

OUTPUT_INTERVALS = ("trajectory_interval", "log_interval", "checkpoint_interval")
_DYNAMICS = frozenset(
    {"name", "kind", "potential", "duration", "timestep", "hydrogen_mass", "committee"}
    | {"multiple_timesteps", *OUTPUT_INTERVALS}
)
KEYS_OF_KIND: dict[str, frozenset[str]] = {
    "minimize": frozenset({"name", "kind", "potential", "tolerance", "max_iterations"}),
    "nve": _DYNAMICS | {"temperature"},
    "nvt": _DYNAMICS | {"temperature", "friction"},
    "npt": _DYNAMICS | {"temperature", "friction", "pressure", "barostat_interval"},
}
"""YAML keys that mean something in each kind of stage."""

REQUIRED_OF_KIND = {
    "minimize": (),
    "nve": ("duration", "timestep"),
    "nvt": ("duration", "timestep", "temperature"),
    "npt": ("duration", "timestep", "temperature", "pressure"),
}
"""YAML keys that each kind of stage must have."""
EXAMPLES = {
    "duration": "100 ps",
    "timestep": "0.5 fs",
    "temperature": "298 K",
    "pressure": "1 bar",
}
"""Values of required keys, for messages."""
