"""ZBL repulsion and the bump envelope against their closed forms."""

import math

import pytest
import torch

import trip_mm
from trip_mm import TripConfig
from trip_mm.model.radial import BumpEnvelope
from trip_mm.model.zbl import ZBLRepulsion
from trip_mm.units import COULOMB_CONSTANT


def closed_form(d: float, z1: int, z2: int, cutoff: float, k: float) -> float:
    a = 0.8854 * 0.529 / (z1**0.23 + z2**0.23)
    x = d / a
    screening = (
        0.1818 * math.exp(-3.2 * x)
        + 0.5099 * math.exp(-0.9423 * x)
        + 0.2802 * math.exp(-0.4028 * x)
        + 0.02817 * math.exp(-0.2016 * x)
    )
    bump = math.exp(k - k / (1 - (d / cutoff) ** 2))
    return 14.3996454785 * z1 * z2 / d * screening * bump


@pytest.mark.parametrize("d", [0.3, 0.5, 1.0, 2.2])
@pytest.mark.parametrize(("z1", "z2"), [(1, 1), (1, 8), (6, 7), (8, 8)])
def test_pair_energy_equals_closed_form(d, z1, z2):
    lengths = torch.full((2,), d, dtype=torch.float64)
    phi, _ = BumpEnvelope(4.6, 3.0, 3.0)(lengths)
    energies = ZBLRepulsion(COULOMB_CONSTANT).double()(
        torch.tensor([z1, z2]), torch.tensor([0, 1]), torch.tensor([1, 0]), lengths, phi
    )
    assert float(energies.sum()) == pytest.approx(closed_form(d, z1, z2, 4.6, 3.0), rel=1e-9)
    assert float(energies[0]) == pytest.approx(float(energies[1]), rel=1e-12)


def test_repulsion_is_what_the_switch_removes():
    """With and without ZBL differ by the closed form and nothing else."""
    pair = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]], dtype=torch.float64)
    numbers = torch.tensor([8, 8])
    settings = {"n_layers": 1, "n_channels": 4, "n_heads": 2, "n_scalars": 4}
    on = trip_mm.new_potential(TripConfig(**settings), dtype="float64")
    off = trip_mm.new_potential(TripConfig(**settings, repulsion="none"), dtype="float64")
    difference = on.energy_and_forces(pair, numbers)[0] - off.energy_and_forces(pair, numbers)[0]
    assert float(difference) == pytest.approx(closed_form(0.5, 8, 8, 4.6, 3.0), rel=1e-9)


@pytest.mark.parametrize(("offset", "at_zero"), [(3.0, 1.0), (1.0, math.exp(-2.0))])
def test_envelope_is_one_at_contact_and_vanishes_smoothly(offset, at_zero):
    envelope = BumpEnvelope(4.6, 3.0, offset)
    lengths = torch.tensor([1e-9, 4.6 - 1e-6, 4.6, 5.0], dtype=torch.float64, requires_grad=True)
    phi, log_phi = envelope(lengths)
    assert float(phi[0]) == pytest.approx(at_zero, rel=1e-12)
    assert phi[1:].tolist() == [0.0, 0.0, 0.0]
    assert float(log_phi[3]) == -1e9
    first = torch.autograd.grad(phi.sum(), lengths, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), lengths)[0]
    assert bool(torch.isfinite(first).all())
    assert bool(torch.isfinite(second).all())
