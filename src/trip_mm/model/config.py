"""Hyper-parameters of TrIP: one frozen dataclass, stored as plain JSON in a checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, get_args

from trip_mm.elements import MAX_ATOMIC_NUMBER
from trip_mm.errors import ConfigError

Numerics = Literal["thesis", "published"]
EdgeFeatures = Literal["distance", "bessel"]
Interaction = Literal["attention", "convolution"]
LoneAtoms = Literal["exact", "trained"]
Repulsion = Literal["zbl", "none"]
RadialNetworks = Literal["fused", "per-degree"]


@dataclass(frozen=True)
class TripConfig:
    """Hyper-parameters of the network; the defaults are the thesis's full model.

    Attributes:
        numerics: the thesis's equations, or what the published program computes.
        elements: atomic numbers that the model knows, ascending.
        n_channels: channels of every degree, and of the edges.
        l_max: largest degree of the features.
        n_layers: attention blocks.
        n_heads: attention heads; divides the message channels.
        channels_div: message channels are `n_channels // channels_div`.
        cutoff: interaction range in A.
        envelope_k: shape of the bump function (thesis Eq. 13).
        radial_hidden: width of the radial networks.
        radial_networks: one radial network per block, or one per output degree; the first block
            always has one per output degree.
        edge_features: what the radial networks see of the distance.
        n_scalars: scalars per atom before the readout.
        readout_hidden: width of the readout.
        interaction: attention, or plain Tensor Field convolution (ablation).
        lone_atoms: isolated atoms exact by construction, or only trained towards.
        repulsion: ZBL nuclear repulsion or none.
        norm_floor: length below which the norm layer lets features fade; in thesis numerics it
            rounds off the kink that |f| has where a scalar changes sign.

    Raises:
        ConfigError: a value is out of range or does not fit another.
    """

    numerics: Numerics = "thesis"
    elements: tuple[int, ...] = (1, 6, 7, 8)
    n_channels: int = 16
    l_max: int = 2
    n_layers: int = 7
    n_heads: int = 8
    channels_div: int = 2
    cutoff: float = 4.6
    envelope_k: float = 3.0
    radial_hidden: int = 32
    radial_networks: RadialNetworks = "fused"
    edge_features: EdgeFeatures = "distance"
    n_scalars: int = 48
    readout_hidden: int = 48
    interaction: Interaction = "attention"
    lone_atoms: LoneAtoms = "exact"
    repulsion: Repulsion = "zbl"
    norm_floor: float = 0.05

    def __post_init__(self) -> None:
        """Checks every value once."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                allowed = ", ".join(get_args(choices))
                raise ConfigError(f"{name}: {getattr(self, name)!r} is not one of {allowed}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name}: {value!r} is not an integer of at least {least}")
        for name in ("cutoff", "envelope_k", "norm_floor"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 < value < float("inf"):
                raise ConfigError(f"{name}: {value!r} is not a positive number")
        numbers = tuple(self.elements)
        if not numbers or list(numbers) != sorted(set(numbers)):
            raise ConfigError(f"elements: {numbers} are not distinct ascending atomic numbers")
        if numbers[0] < 1 or numbers[-1] > MAX_ATOMIC_NUMBER:
            raise ConfigError(f"elements: atomic numbers run from 1 to {MAX_ATOMIC_NUMBER}")
        if self.n_channels % self.channels_div:
            raise ConfigError(
                f"channels_div: {self.channels_div} does not divide n_channels {self.n_channels}"
            )
        if self.interaction == "attention" and self.n_message_channels % self.n_heads:
            raise ConfigError(
                f"n_heads: {self.n_heads} does not divide the {self.n_message_channels} message "
                "channels (n_channels / channels_div)"
            )
        if self.numerics == "published" and self.lone_atoms == "exact":
            raise ConfigError("lone_atoms: published numerics has trained lone atoms only")

    @property
    def n_message_channels(self) -> int:
        """Channels of values and of keys."""
        return self.n_channels // self.channels_div

    @classmethod
    def preset(cls, name: str) -> Self:
        """Returns a named configuration.

        Raises:
            ConfigError: no preset has that name.
        """
        if name not in PRESETS:
            raise ConfigError(f"no model preset {name!r}; there are {', '.join(sorted(PRESETS))}")
        return replace(cls(), **PRESETS[name])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a configuration from plain JSON values.

        Raises:
            ConfigError: a key is unknown or a value out of range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"unknown model setting {unknown[0]!r}; known: {', '.join(sorted(known))}"
            )
        arguments = dict(values)
        if "elements" in arguments:
            arguments["elements"] = tuple(int(number) for number in arguments["elements"])
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        values = asdict(self)
        values["elements"] = list(self.elements)
        return values


PRESETS: dict[str, dict[str, Any]] = {
    "trip": {},
    "trip-one-head": {"n_heads": 1},
    "trip-equivariant": {"interaction": "convolution"},
    "trip-invariant": {"l_max": 0, "n_scalars": 16, "readout_hidden": 16},
    "trip-s": {
        "n_channels": 8,
        "n_layers": 2,
        "n_heads": 2,
        "radial_hidden": 16,
        "edge_features": "bessel",
        "n_scalars": 8,
        "readout_hidden": 24,
    },
}
"""The full model, the thesis's three ablations (section 4.2), and a small fast model."""

_CHOICES = {
    "numerics": Numerics,
    "radial_networks": RadialNetworks,
    "edge_features": EdgeFeatures,
    "interaction": Interaction,
    "lone_atoms": LoneAtoms,
    "repulsion": Repulsion,
}
_LEAST = {
    "n_channels": 1,
    "l_max": 0,
    "n_layers": 1,
    "n_heads": 1,
    "channels_div": 1,
    "radial_hidden": 1,
    "n_scalars": 1,
    "readout_hidden": 1,
}
