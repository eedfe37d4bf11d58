"""The published program's own numbers: energies, forces, intermediates, loss and gradients."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import trip_mm
from trip_mm.model.so3 import wigner_3j
from trip_mm.training.losses import LossSettings, energy_force_loss
from trip_mm.units import HARTREE_TO_EV

DATA = Path(__file__).parents[1] / "data" / "oracle"
MODELS = ["trip_small", "trip_small_partial", "trip_invariant"]
STRUCTURES = [
    "water", "water_dimer", "s66_mol10", "periodic_box", "isolated_pair", "close_pair",
    "edge_pair", "mid_pair", "water_and_far_atom", "water_dimer_jittered", "s66_mol10_jittered",
    "s66_mol10_rotated",
]  # fmt: skip
NOT_TENSORS = ("kwargs_json", "energy_std", "si_tensor", "decay_json")


@cache
def fixture(model):
    return (
        np.load(DATA / f"{model}_random.npz", allow_pickle=False),
        np.load(DATA / f"{model}_reference.npz", allow_pickle=False),
    )


@cache
def potential_of(model):
    stored, _ = fixture(model)
    arrays = {key: stored[key] for key in stored.files if key not in NOT_TENSORS}
    kwargs = json.loads(str(stored["kwargs_json"]))
    return trip_mm.import_published(
        arrays, kwargs, float(stored["energy_std"]), stored["si_tensor"]
    )


def structure(reference, name):
    box = reference[f"{name}/box"]
    cell = None if np.isinf(box).any() else np.diag(box)
    return reference[f"{name}/pos"], reference[f"{name}/species"], cell


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("model", MODELS)
def test_energies_and_forces(model, name):
    _, reference = fixture(model)
    potential = potential_of(model)
    positions, numbers, cell = structure(reference, name)
    energy, forces = potential.energy_and_forces(positions, numbers, cell)
    assert energy / HARTREE_TO_EV == pytest.approx(float(reference[f"{name}/energy"]), abs=1e-9)
    np.testing.assert_allclose(
        forces / HARTREE_TO_EV, reference[f"{name}/forces"], rtol=1e-9, atol=1e-9
    )
    xyz = torch.tensor(positions)
    edges = potential.neighbors(xyz, None if cell is None else torch.tensor(cell))
    assert len(edges[0]) == int(reference[f"{name}/num_edges"])
    vectors = xyz[edges[1]] - xyz[edges[0]]
    if cell is not None:
        vectors = vectors + edges[2] @ torch.tensor(cell)
    atomic = potential.model(torch.tensor(numbers), edges[0], edges[1], vectors)
    own = potential.self_energies[torch.tensor(numbers)]
    np.testing.assert_allclose(
        (atomic + own).detach().numpy() / HARTREE_TO_EV,
        reference[f"{name}/atom_energies"],
        rtol=1e-11, atol=1e-9,
    )  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["water_dimer_jittered", "s66_mol10_jittered"])
def test_float32(model, name):
    _, reference = fixture(model)
    potential = potential_of(model)
    single = trip_mm.TripPotential(trip_mm.TripModel(potential.config)).double()
    single.load_state_dict(potential.state_dict())
    single.float()
    positions, numbers, cell = structure(reference, name)
    energy, forces = single.energy_and_forces(positions, numbers, cell)
    assert energy / HARTREE_TO_EV == pytest.approx(float(reference[f"{name}/energy"]), abs=1e-4)
    expected = reference[f"{name}/forces"]
    error = np.linalg.norm(forces / HARTREE_TO_EV - expected) / np.linalg.norm(expected)
    assert error < 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_intermediates(model):
    """Envelope, harmonics, couplings, logits, weights, edge features and every layer's output."""
    _, reference = fixture(model)
    potential = potential_of(model)
    net = potential.model
    debug = {k.removeprefix("debug/water_dimer/"): reference[k] for k in reference.files}
    order = np.lexsort((debug["src"], debug["dst"]))
    seen: dict[str, torch.Tensor] = {}

    def keep(key):
        def hook(_module, inputs, output):
            seen[key] = (inputs, output)

        return hook

    handles = []
    for i, (block, norm) in enumerate(zip(net.blocks, net.norms, strict=True)):
        handles.append(block.register_forward_hook(keep(f"block{i}")))
        handles.append(block.attention.weights.register_forward_hook(keep(f"attention{i}")))
        handles.append(norm.register_forward_hook(keep(f"norm{i}")))
    positions, numbers, _ = structure(reference, "water_dimer")
    try:
        potential.energy_and_forces(positions, numbers)
    finally:
        for handle in handles:
            handle.remove()

    def close(actual, expected):
        np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-9, atol=1e-11)

    lengths = torch.tensor(debug["rel_pos"]).norm(dim=1)
    close(net.envelope(lengths)[0], debug["scale"])
    for i in range(potential.config.n_layers):
        mod = f"mod{2 * i:02d}"
        inputs, output = seen[f"block{i}"]
        _, edge_features, shifts, (senders, _), *_ = inputs
        close(edge_features + shifts[senders], debug[f"{mod}/edge0_in"][order])
        weights_in, weights = seen[f"attention{i}"]
        close(weights_in[0], debug[f"{mod}/logits"][order])
        close(weights, debug[f"{mod}/attention"][order])
        for l in range(potential.config.l_max + 1):
            part = slice(l * l, (l + 1) * (l + 1))
            close(output[:, :, part], debug[f"{mod}/out_deg{l}"])
            norm = seen[f"norm{i}"][1]
            close(norm[:, :, part], debug[f"mod{2 * i + 1:02d}/out_deg{l}"])


@pytest.mark.parametrize("model", MODELS)
def test_couplings_do_not_depend_on_the_installed_e3nn(model):
    _, reference = fixture(model)
    keys = [key for key in reference.files if "/cg/" in key]
    assert keys
    for key in keys:
        name = key.rsplit("/", 1)[1]  # in<l_in>_out<l_out>_J<J>_klf
        l_in, l_out, degree = int(name[2]), int(name[7]), int(name[10])
        coupling = wigner_3j(degree, l_in, l_out).numpy().transpose(2, 1, 0)
        np.testing.assert_allclose(coupling, reference[key], atol=1e-12)


@pytest.mark.parametrize(
    ("degrees", "element", "value"),
    [
        ((1, 2, 2), (0, 0, 1), 0.182574),
        ((1, 1, 1), (0, 1, 2), 0.408248),
        ((1, 1, 2), (1, 1, 2), 0.365148),
    ],
)
def test_stored_couplings(degrees, element, value):
    assert float(wigner_3j(*degrees)[element]) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_training_loss_and_gradients(model):
    """One minibatch of a water dimer, an S66 monomer and four lone atoms (thesis Eq. 22, 23)."""
    stored, reference = fixture(model)
    potential = potential_of(model)
    std = float(stored["energy_std"]) * HARTREE_TO_EV
    systems = [structure(reference, n)[:2] for n in ("water_dimer", "s66_mol10")]
    systems += [(np.zeros((1, 3)), np.array([z])) for z in (1, 6, 7, 8)]
    positions = torch.tensor(np.concatenate([p for p, _ in systems]))
    numbers = torch.tensor(np.concatenate([n for _, n in systems]))
    counts = torch.tensor([len(n) for _, n in systems])
    idx = torch.repeat_interleave(torch.arange(len(systems)), counts)
    energies, forces = potential.energy_and_forces_batch(
        positions, numbers, idx, len(systems), create_graph=True
    )
    own = torch.zeros(len(systems), dtype=torch.float64).index_add(
        0, idx, potential.self_energies[numbers]
    )
    standardised = (energies - own) / std
    np.testing.assert_allclose(
        standardised.detach(), reference["training/pred_energy_std"], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(
        forces.detach() / std, reference["training/pred_forces_std"], rtol=1e-8, atol=1e-9
    )
    errors = std * (standardised - torch.tensor(reference["training/target_energy_std"]))
    force_errors = forces - std * torch.tensor(reference["training/target_forces_std"])
    settings = LossSettings(
        per_sqrt_atom=False, scale=std, energy_weight=1.0, force_weight=0.1,
        energy_delta=0.2, force_delta=0.2,
    )  # fmt: skip
    loss, energy_loss, force_loss = energy_force_loss(errors, force_errors, counts, settings)
    assert float(energy_loss.detach()) == pytest.approx(
        float(reference["training/energy_loss"]), rel=1e-9
    )
    assert float(force_loss.detach()) == pytest.approx(
        float(reference["training/forces_loss"]), rel=1e-9
    )
    assert float(loss.detach()) == pytest.approx(float(reference["training/loss"]), rel=1e-9)
    names = ["embedding.weight", "readout.0.weight", "self_interaction.weight", "norms.0.weight"]
    originals: list[str | None] = [
        "embedding.weight",
        "mlp.0.weight",
        None,
        "graph_modules.1.group_norm.weight",
    ]
    originals[2] = f"graph_modules.{2 * potential.config.n_layers}.to_kernel_self.0"
    parameters = dict(potential.model.named_parameters())
    gradients = torch.autograd.grad(loss, [parameters[name] for name in names])
    for gradient, original in zip(gradients, originals, strict=True):
        expected = reference[f"training/grad/{original}"]
        np.testing.assert_allclose(
            gradient, expected.reshape(gradient.shape), rtol=1e-7, atol=1e-10
        )
