"""Portable TorchScript: same numbers, no trip-mm needed, checked before it is used."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import trip_mm
from trip_mm.cli.main import app
from trip_mm.errors import ExportError
from trip_mm.export import check, save_torchscript, script
from trip_mm.model.trip import TripConfig
from trip_mm.potential import TripPotential

CONFIG = TripConfig(
    n_channels=4, l_max=1, n_layers=1, n_heads=1, cutoff=3.0, radial_hidden=4, n_scalars=4
)
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])

WITHOUT_TRIP_MM = """
import sys
sys.modules["trip_mm"] = None
import torch
module = torch.jit.load(sys.argv[1])
positions = torch.tensor({positions}, dtype=torch.float64, requires_grad=True)
energy = module(positions, torch.tensor([8, 1, 1]), None)
(gradient,) = torch.autograd.grad(energy, positions)
print(float(energy).hex(), float(gradient.abs().sum()).hex())
"""


@pytest.fixture
def potential() -> TripPotential:
    return trip_mm.new_potential(CONFIG, seed=3, dtype="float64")


def test_file_computes_the_same_in_a_process_without_trip_mm(
    potential: TripPotential, tmp_path: Path
) -> None:
    path = save_torchscript(potential, tmp_path / "model.pt")
    code = WITHOUT_TRIP_MM.format(positions=WATER.tolist())
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    energy, total = (float.fromhex(word) for word in done.stdout.split())
    expected, forces = potential.energy_and_forces(WATER, np.array([8, 1, 1]))
    assert energy == pytest.approx(expected, rel=1e-12)
    assert total == pytest.approx(np.abs(forces).sum(), rel=1e-10)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("form", ["eager", "kernels", "scripted"])
def test_an_element_that_the_model_lacks_is_not_taken_for_another(
    form: str, potential: TripPotential
) -> None:
    """Nobody checks the elements of an exported file but the file itself."""
    module = {
        "eager": lambda: potential,
        "kernels": potential.with_kernels,
        "scripted": lambda: script(potential),
    }[form]()
    positions = torch.tensor(WATER)
    assert torch.isfinite(module(positions, torch.tensor([8, 1, 1]), None))
    for numbers in ([16, 1, 1], [8, 1, 9]):
        with pytest.raises((IndexError, RuntimeError), match="index out of range"):
            module(positions, torch.tensor(numbers), None)


def test_compilation_does_not_warn(potential: TripPotential) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The TorchScript type system")
        script(potential)


def test_float32_passes_its_check(potential: TripPotential) -> None:
    script(potential.to(torch.float32))


class Wrong(torch.nn.Module):
    def __init__(self, potential: TripPotential, energy_error: float, force_error: float) -> None:
        super().__init__()
        self.potential, self.errors = potential, (energy_error, force_error)

    def forward(self, positions, atomic_numbers, cell):
        scale, slope = self.errors
        ramp = slope * (positions - positions.detach()).sum()
        return self.potential(positions, atomic_numbers, cell) * (1.0 + scale) + ramp


@pytest.mark.parametrize(("errors", "named"), [((1e-8, 0.0), "energy"), ((0.0, 1e-3), "forces")])
def test_check_finds_a_wrong_form(
    potential: TripPotential, errors: tuple[float, float], named: str
) -> None:
    with pytest.raises(ExportError, match=named):
        check(Wrong(potential, *errors), potential)


def test_command_keeps_an_existing_file(potential: TripPotential, tmp_path: Path) -> None:
    model = trip_mm.save_potential(potential, tmp_path / "model.safetensors")
    out = tmp_path / "model.pt"
    out.write_bytes(b"precious")
    refused = CliRunner().invoke(app, ["export", str(model), str(out)])
    assert refused.exit_code != 0
    assert out.read_bytes() == b"precious"
    replaced = CliRunner().invoke(app, ["export", str(model), str(out), "--force"])
    assert replaced.exit_code == 0, replaced.output
    assert torch.jit.load(out)(torch.tensor(WATER), torch.tensor([8, 1, 1]), None).ndim == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--precision", "half"], "precision"), ([], "no such directory")],
)
def test_command_refuses(tmp_path: Path, arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(
        app, ["export", "trip-gfn2-s", str(tmp_path / "absent" / "m.pt"), *arguments]
    )
    assert result.exit_code == 2 or result.exit_code == 1
    assert named in result.output
