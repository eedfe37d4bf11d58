"""Potentials under contract: both numerics, every interaction, both precisions, two forms."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

import trip_mm
from trip_mm import TripConfig, TripPotential

SMALL = {
    "n_channels": 8,
    "n_layers": 2,
    "n_heads": 2,
    "radial_hidden": 8,
    "n_scalars": 8,
    "readout_hidden": 8,
}
CONFIGS: dict[str, TripConfig] = {
    "thesis": TripConfig(**SMALL),
    "thesis-bessel-trained": TripConfig(**SMALL, edge_features="bessel", lone_atoms="trained"),
    "thesis-one-head": replace(TripConfig(**SMALL), n_heads=1),
    "thesis-convolution": TripConfig(**SMALL, interaction="convolution"),
    "thesis-invariant": replace(TripConfig(**SMALL), l_max=0),
    "published": TripConfig(
        **SMALL, numerics="published", lone_atoms="trained", norm_floor=2.0**-12
    ),
    "published-invariant": replace(
        TripConfig(**SMALL, numerics="published", lone_atoms="trained", norm_floor=2.0**-12),
        l_max=0,
    ),
}
DTYPES = {"float64": torch.float64, "float32": torch.float32}
Evaluate = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def build(name: str, dtype: str = "float64", seed: int = 3) -> TripPotential:
    """A potential with random weights and plausible energy statistics."""
    potential = trip_mm.new_potential(CONFIGS[name], seed=seed, dtype=dtype)
    elements = CONFIGS[name].elements
    potential.set_energy_statistics(
        {z: -13.6 * z**1.3 for z in elements}, {z: -1.0 - 0.2 * z for z in elements}, 1.7
    )
    return potential


@pytest.fixture(params=list(CONFIGS))
def config_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(DTYPES))
def dtype_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def potentials() -> Callable[[str, str, str], tuple[TripPotential, Evaluate]]:
    """Factory of (potential, energy-and-forces function), cached over the session."""
    cache: dict[tuple[str, str, str], tuple[TripPotential, Evaluate]] = {}

    def make(name: str, dtype: str, form: str) -> tuple[TripPotential, Evaluate]:
        key = (name, dtype, form)
        if key not in cache:
            potential = build(name, dtype)
            module = torch.jit.script(potential) if form == "scripted" else potential

            def evaluate(positions, numbers, cell=None):  # type: ignore[no-untyped-def]
                leaf = positions.detach().clone().requires_grad_(True)
                energy = module(leaf, numbers, cell)
                (gradient,) = torch.autograd.grad(energy, leaf)
                return energy.detach(), -gradient

            cache[key] = (potential, evaluate)
        return cache[key]

    return make
