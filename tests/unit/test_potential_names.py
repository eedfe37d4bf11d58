"""Names of potentials and models: what an error suggests in place of an unknown one."""

from collections.abc import Callable

import pytest

from trip_mm.checkpoint import load_potential
from trip_mm.errors import CheckpointError, ConfigError
from trip_mm.geometry import potentials as geometry_potentials
from trip_mm.simulation.plan import parse_potential
from trip_mm.simulation.system_config import PotentialConfig


@pytest.mark.parametrize("parse", [parse_potential, geometry_potentials.parse_potential])
@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("trip-wb97", "trip-wb97x"),
        ("trip-gfn3", "trip-gfn2"),
        ("Trip-GFN2-S", "trip-gfn2-s"),
        ("amber", "amber14"),
    ],
)
def test_unknown_potentials_suggest_the_nearest_name(
    parse: Callable[[str], object], text: str, meant: str
) -> None:
    known = "models that come with trip-mm: trip-gfn2-s, trip-gfn2, trip-wb97x"
    message = f"potential '{text}'.* did you mean '{meant}'\\? {known}"
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_a_bare_name_in_a_file_is_shown_as_it_is_written_there() -> None:
    with pytest.raises(ValueError, match="the TrIP model of this name is `trip: trip-wb97x`"):
        PotentialConfig.model_validate("trip-wb97x")
    with pytest.raises(ValueError, match=r"'tirp' is not a kind.*did you mean 'trip'\? \["):
        PotentialConfig.model_validate({"tirp": "trip-wb97x"})


def test_models_are_offered_to_trip_alone() -> None:
    with pytest.raises(ConfigError, match="trip-wb97x"):
        parse_potential("trip")
    with pytest.raises(ConfigError) as raised:
        parse_potential("openmm-ml")
    assert "trip-wb97x" not in str(raised.value)


def test_unknown_models_suggest_the_nearest_name() -> None:
    with pytest.raises(CheckpointError, match="did you mean 'trip-gfn2'\\? models that come"):
        load_potential("trip-gfn3")
    with pytest.raises(CheckpointError, match="nor a file; models that come"):
        load_potential("nothing-like-it.safetensors")
