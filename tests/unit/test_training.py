"""Losses, gradients, minibatches, averages, schedules, statistics and configuration of training."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from trip_mm.checkpoint import new_potential
from trip_mm.elements import formula
from trip_mm.errors import ConfigError, DataError
from trip_mm.model.config import TripConfig
from trip_mm.neighbors import batched_neighbor_list
from trip_mm.training.config import BatchConfig, load_training_config, parse_training_config
from trip_mm.training.conformations import Exclusions, build_store, join, lone_atoms
from trip_mm.training.dataset import Dataset
from trip_mm.training.ema import ExponentialMovingAverage
from trip_mm.training.evaluate import accuracies, evaluate, limit_per_class, predict
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.gradients import (
    central_difference_loss,
    double_backward_loss,
    energies_and_forces,
)
from trip_mm.training.groups import Conformation, group_conformations
from trip_mm.training.loader import BatchPlan, BatchStream
from trip_mm.training.losses import LossSettings, energy_force_loss, pseudo_huber
from trip_mm.training.module import parameter_groups
from trip_mm.training.preparation import (
    initial_potentials,
    initial_source,
    load_data,
    resolve_model_config,
)
from trip_mm.training.processes import Processes
from trip_mm.training.record import Place
from trip_mm.training.schedule import Plateau, cosine_factor, step_factor, warmup_factor
from trip_mm.training.statistics import energy_statistics, merged_self_energies, relative_to
from trip_mm.units import EV_TO_KCAL_PER_MOL

LONE = {1: -10.0, 6: -50.0, 7: -70.0, 8: -100.0}
TINY = TripConfig(
    n_channels=4,
    l_max=1,
    n_layers=2,
    n_heads=1,
    cutoff=3.0,
    radial_hidden=8,
    edge_features="bessel",
    n_scalars=4,
    readout_hidden=8,
)
SETTINGS = LossSettings(True, 1.0, 1.0, 10.0, 0.2, 0.2)


def make_conformations(n=12, seed=0):
    rng = np.random.default_rng(seed)
    molecules = [("water", [1, 1, 8]), ("organic", [1, 1, 6, 8]), ("organic", [1, 1, 1, 7])]
    conformations = []
    for i in range(n):
        name, numbers = molecules[i % 3]
        numbers = np.asarray(numbers)
        grid = np.asarray([[0, 0, 0], [1.4, 0, 0], [0, 1.5, 0], [0, 0, 1.6]])[: len(numbers)]
        positions = grid + rng.normal(scale=0.05, size=grid.shape)
        energy = sum(LONE[int(z)] for z in numbers) - 3.0 * len(numbers) + rng.normal(scale=0.1)
        forces = rng.normal(size=grid.shape)
        conformations.append(
            Conformation(numbers, positions, energy, forces, name, formula(numbers), f"t{i % 2}")
        )
    return conformations


def make_dataset(conformations=None, **arguments):
    groups = list(group_conformations(conformations or make_conformations(), {}))
    return Dataset(groups, "model", arguments.get("lone", LONE))


@pytest.fixture(scope="module")
def store():
    return build_store(make_dataset(), LONE, TINY.cutoff)


def test_pseudo_huber_by_hand():
    errors = torch.tensor([0.0, 0.2, -20.0], dtype=torch.float64)
    expected = [0.0, 0.04 * (math.sqrt(2.0) - 1.0), 0.04 * (math.sqrt(10001.0) - 1.0)]
    assert pseudo_huber(errors, 0.2).tolist() == pytest.approx(expected, rel=1e-13)


def test_pseudo_huber_keeps_small_errors_in_float32():
    small = torch.tensor([1e-6])
    assert pseudo_huber(small, 0.2).item() == pytest.approx(0.5e-12, rel=1e-6)


def test_default_loss_by_hand():
    energy_errors = torch.tensor([0.6, -0.4], dtype=torch.float64)
    n_atoms = torch.tensor([9, 1])
    force_errors = torch.zeros(10, 3, dtype=torch.float64)
    force_errors[0] = torch.tensor([0.2, 0.0, 0.0], dtype=torch.float64)
    force_errors[1] = torch.tensor([0.1, 0.2, 0.2], dtype=torch.float64)  # length 0.3
    terms = energy_force_loss(energy_errors, force_errors, n_atoms, SETTINGS)

    def h(x):
        return 0.04 * (math.sqrt(1 + (x / 0.2) ** 2) - 1)

    assert terms.energy.item() == pytest.approx((h(0.2) + h(0.4)) / 2, rel=1e-12)
    assert terms.force.item() == pytest.approx((h(0.2) + h(0.3)) / 10, rel=1e-12)
    assert terms.total.item() == pytest.approx(terms.energy.item() + 10 * terms.force.item())


def test_thesis_loss_divides_by_the_standard_deviation():
    settings = LossSettings(False, 2.0, 1.0, 0.1, 0.2, 0.2)
    energy_errors = torch.tensor([0.8], dtype=torch.float64)
    force_errors = torch.tensor([[0.0, 0.6, 0.8]], dtype=torch.float64)
    terms = energy_force_loss(energy_errors, force_errors, torch.tensor([25]), settings)
    assert terms.energy.item() == pytest.approx(0.04 * (math.sqrt(5.0) - 1))
    assert terms.force.item() == pytest.approx(0.04 * (math.sqrt(1 + 6.25) - 1))
    assert terms.total.item() == pytest.approx(terms.energy.item() + 0.1 * terms.force.item())


def test_force_loss_has_a_gradient_at_zero_error():
    errors = torch.zeros(3, 3, requires_grad=True)
    terms = energy_force_loss(torch.zeros(1), errors, torch.tensor([3]), SETTINGS)
    (gradient,) = torch.autograd.grad(terms.total, errors)
    assert torch.equal(gradient, torch.zeros(3, 3))


def flat_gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_central_difference_equals_double_backward(store):
    potential = new_potential(TINY, seed=3, dtype="float64")
    batch = join(
        store.batch(np.arange(6), torch.float64), lone_atoms({1: 0.3, 8: -1.0}, torch.float64)
    )
    gradients = []
    for loss in (double_backward_loss, central_difference_loss):
        potential.zero_grad()
        result = loss(potential.model, batch, SETTINGS)
        result.differentiable.backward()
        gradients.append((flat_gradient(potential), result.terms.total.item()))
    (exact, loss_exact), (approximate, loss_approximate) = gradients
    assert loss_approximate == pytest.approx(loss_exact, rel=1e-12)
    assert ((approximate - exact).norm() / exact.norm()).item() < 2e-3


def test_gradient_in_mixed_precision_points_the_same_way(store):
    potential = new_potential(TINY, seed=3)
    batch = store.batch(np.arange(6), torch.float32)
    gradients = []
    for enabled in (False, True):
        potential.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            result = double_backward_loss(potential.model, batch, SETTINGS)
        result.differentiable.backward()
        gradients.append((flat_gradient(potential), result.terms.total.item()))
    (exact, loss_exact), (rounded, loss_rounded) = gradients
    assert loss_rounded == pytest.approx(loss_exact, rel=0.02)
    assert loss_rounded != loss_exact
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0).item() > 0.99


def test_batch_energies_and_forces_are_those_of_the_potential(store):
    potential = new_potential(TINY, seed=1, dtype="float64")
    potential.set_energy_statistics(LONE, dict.fromkeys(LONE, -1.0), 1.3)
    batch = store.batch(np.asarray([0, 7]), torch.float64)
    energies, forces = energies_and_forces(potential.model, batch, create_graph=False)
    first = store.atom_offsets
    pieces = []
    for k, row in enumerate((0, 7)):
        atoms = slice(first[row], first[row + 1])
        numbers = store.atomic_numbers[atoms]
        energy, force = potential.energy_and_forces(store.positions[atoms], numbers)
        own = sum(LONE[int(z)] for z in numbers)
        assert energies[k].item() == pytest.approx(energy - own, abs=1e-10)
        pieces.append(force)
    np.testing.assert_allclose(forces.numpy(), np.concatenate(pieces), atol=1e-10)


def test_store_holds_every_label_and_the_edges_of_the_neighbour_search(store):
    assert len(store) == 12
    order = np.argsort(store.dataset_idx)
    dataset = make_dataset()
    for row in order[::5]:
        conformation = dataset[int(store.dataset_idx[row])]
        atoms = slice(store.atom_offsets[row], store.atom_offsets[row + 1])
        np.testing.assert_array_equal(store.forces[atoms], conformation.forces)
        own = sum(LONE[int(z)] for z in conformation.atomic_numbers)
        assert store.energies[row] == pytest.approx(conformation.energy - own)
    batch = store.batch(np.asarray([3, 0, 11]), torch.float64)
    expected = batched_neighbor_list(batch.positions, batch.system_idx, None, TINY.cutoff)
    assert torch.equal(batch.senders, expected[0])
    assert torch.equal(batch.receivers, expected[1])


def test_missing_labels_and_large_forces_are_left_out_and_counted():
    conformations = make_conformations()
    conformations[0] = replaced(conformations[0], energy=math.nan)
    conformations[1] = replaced(conformations[1], forces=conformations[1].forces * np.nan)
    conformations[2] = replaced(conformations[2], forces=conformations[2].forces + 100.0)
    found = build_store(make_dataset(conformations), LONE, 3.0, max_force=20.0)
    assert len(found) == 9
    assert found.exclusions == Exclusions(1, 1, 1)


def replaced(conformation, **changes):
    return Conformation(**{**vars(conformation), **changes})


def test_a_position_that_is_nan_names_the_group():
    conformations = make_conformations()
    positions = conformations[1].positions.copy()
    positions[0, 0] = math.nan
    conformations[1] = replaced(conformations[1], positions=positions)
    with pytest.raises(DataError, match=r"organic/CH2O: positions"):
        build_store(make_dataset(conformations), LONE, 3.0)


def test_an_infinite_label_names_the_group():
    conformations = make_conformations()
    conformations[2] = replaced(conformations[2], energy=math.inf)
    with pytest.raises(DataError, match=r"organic/H3N: infinite"):
        build_store(make_dataset(conformations), LONE, 3.0)


def test_an_element_without_lone_atom_energy_names_the_group():
    with pytest.raises(DataError, match=r"organic/H3N: no lone-atom energy for N"):
        build_store(make_dataset(), {z: e for z, e in LONE.items() if z != 7}, 3.0)


def test_data_without_any_label_are_refused():
    conformations = [replaced(c, energy=math.nan) for c in make_conformations()]
    with pytest.raises(DataError, match="trip-mm label"):
        build_store(make_dataset(conformations), LONE, 3.0)


def test_batches_cover_every_epoch_once_at_similar_cost():
    costs = np.random.default_rng(0).integers(1, 300, 500)
    plan = BatchPlan(costs, 1000, seed=4)
    for epoch in range(2):
        start = epoch * plan.batches_per_epoch
        batches = [plan.rows(start + i) for i in range(plan.batches_per_epoch)]
        assert sorted(np.concatenate(batches)) == list(range(500))
        assert min(map(len, batches)) > 0
        assert max(costs[b].sum() for b in batches) < 1000 * 1.1 + 300
    first, again = BatchPlan(costs, 1000, seed=4).rows(7), plan.rows(7)
    np.testing.assert_array_equal(first, again)
    other_epoch = plan.rows(7 + plan.batches_per_epoch)
    assert len(first) != len(other_epoch) or (first != other_epoch).any()


def test_one_conformation_above_the_budget_still_gets_a_batch():
    plan = BatchPlan(np.asarray([1, 1, 5000, 1]), 10, seed=0)
    assert sorted(np.concatenate([plan.rows(i) for i in range(plan.batches_per_epoch)])) == [
        0,
        1,
        2,
        3,
    ]


def test_stream_continues_where_it_was_saved(store):
    def fresh():
        return BatchStream(
            store, BatchConfig(n_conformations=4), 5, 8, torch.float32, {1: 0.5, 8: 0.0}
        )

    everything = list(fresh())
    stream = fresh()
    iterator = iter(stream)
    for _ in range(5):
        next(iterator)
    continued = fresh()
    continued.load_state_dict(stream.state_dict())
    rest = list(continued)
    assert len(everything) == 8
    assert len(rest) == 3
    for one, other in zip(everything[5:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert everything[0].class_idx[-2:].tolist() == [-1, -1]
    assert everything[0].atomic_numbers[-2:].tolist() == [1, 8]
    assert everything[0].energies[-2:].tolist() == [0.5, 0.0]


def test_average_follows_and_swaps():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = ExponentialMovingAverage(module, 0.5)
    module.weight.data.fill_(1.0)
    average.update(module)  # (1 + 0) / (10 + 0) = 0.1 of the past
    assert average.averages["weight"].item() == pytest.approx(0.9)
    with average.applied(module):
        assert module.weight.item() == pytest.approx(0.9)
    assert module.weight.item() == 1.0


def test_schedules():
    assert warmup_factor(0, 9) == pytest.approx(0.1)
    assert warmup_factor(50, 9) == 1.0
    assert cosine_factor(0.0, 0.1) == 1.0
    assert cosine_factor(0.5, 0.0) == pytest.approx(0.5)
    assert cosine_factor(2.0, 0.1) == pytest.approx(0.1)
    assert step_factor(3, 0.5) == 0.125
    plateau = Plateau(0.5, patience=1)
    for loss in (3.0, 2.0, 2.5, 2.4, 1.0):
        plateau.update(loss)
    assert plateau.value == 0.5
    assert plateau.best == 1.0


def test_decay_groups():
    model = new_potential(TINY).model
    decayed, exempt = parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed_names = {names[id(p)] for p in decayed["params"]}
    exempt_names = {names[id(p)] for p in exempt["params"]}
    assert decayed_names | exempt_names == set(names.values())
    assert not decayed_names & exempt_names
    assert {"embedding.weight", "readout.4.weight", "readout.4.bias", "norms.0.weight"} <= (
        exempt_names
    )
    assert "readout.0.weight" in decayed_names
    assert not any(name.endswith("bias") for name in decayed_names)
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)


BINDING = {1: -2.0, 6: -7.0, 7: -5.0, 8: -4.0}


def bound_store(potential):
    """Conformations whose energies are those of a potential with a network of zeros."""
    potential.set_energy_statistics(LONE, BINDING, 0.0)
    conformations = [
        replaced(c, energy=potential.energy_and_forces(c.positions, c.atomic_numbers)[0])
        for c in make_conformations(30)
    ]
    numbers, positions = np.asarray([1, 8]), np.asarray([[0.0, 0.0, 0.0], [1.1, 0.0, 0.0]])
    energy, forces = potential.energy_and_forces(positions, numbers)
    conformations.append(Conformation(numbers, positions, energy, forces, "x", "HO", "s"))
    return build_store(make_dataset(conformations), LONE, TINY.cutoff)


def test_binding_energies_are_recovered_beside_repulsion_and_switches():
    potential = new_potential(TINY, dtype="float64")
    found = energy_statistics(bound_store(potential), LONE, potential.model)
    assert found.binding_energies == pytest.approx(BINDING, abs=1e-8)
    assert found.self_energies == LONE
    assert set(found.lone_labels.values()) == {0.0}
    assert found.energy_std == pytest.approx(1e-6)


def test_trained_lone_atoms_move_binding_into_the_self_energies(store):
    potential = new_potential(replace(TINY, lone_atoms="trained"))
    found = energy_statistics(store, LONE, potential.model)
    assert set(found.binding_energies.values()) == {0.0}
    moved = relative_to(store, LONE, found)
    for z in LONE:
        assert found.self_energies[z] + found.lone_labels[z] == pytest.approx(LONE[z])
    own = [
        sum(found.self_energies[int(z)] - LONE[int(z)] for z in numbers_of(store, r))
        for r in (0, 7)
    ]
    assert moved.energies[[0, 7]] == pytest.approx(store.energies[[0, 7]] - own)


def numbers_of(store, row):
    return store.atomic_numbers[store.atom_offsets[row] : store.atom_offsets[row + 1]]


def test_self_energies_of_the_configuration_win():
    assert merged_self_energies({1: -1.0, 8: -2.0}, {"O": -3.0}, (1, 8)) == {1: -1.0, 8: -3.0}
    with pytest.raises(ConfigError, match=r"data.lone_atom_energies.N"):
        merged_self_energies({1: -1.0}, {}, (1, 7))


def test_evaluation_by_hand(store):
    potential = new_potential(TINY, seed=2, dtype="float64")
    potential.set_energy_statistics(LONE, dict.fromkeys(LONE, -3.0), 1.0)
    predictions = predict(potential, store)
    found = accuracies(predictions)
    water = store.class_idx == store.classes.index("water")
    error = np.abs(predictions.energies - store.energies)[water].mean() * EV_TO_KCAL_PER_MOL
    assert found["water"].energy_mae_kcal_per_mol == pytest.approx(error)
    assert found["water"].energy_mae_kcal_per_mol_per_atom == pytest.approx(error / 3)
    components = (predictions.forces - store.forces) * EV_TO_KCAL_PER_MOL
    assert found["all"].force_rmse_kcal_per_mol_per_angstrom == pytest.approx(
        np.sqrt((components**2).mean())
    )
    assert found["all"].n_conformations == 12
    assert evaluate(potential, make_dataset()) == found


def test_limit_per_class(store):
    limited = limit_per_class(store, 2, seed=0)
    assert [int((limited.class_idx == c).sum()) for c in range(2)] == [2, 2]
    again = limit_per_class(store, 2, seed=0)
    np.testing.assert_array_equal(limited.dataset_idx, again.dataset_idx)


VALID = {"name": "x", "data": {"files": ["a.h5"]}, "budget": {"max_steps": 3}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": {}}, "budget: give max_time"),
        ({"budget": {"max_time": 90}}, r"budget.max_time: 90 has no unit"),
        ({"budget": {"max_time": "90 parsecs"}}, r"budget.max_time: '90 parsecs' is not"),
        ({"budget": {"max_steps": 0}}, r"budget.max_steps"),
        ({"data": {"files": []}}, r"data.files"),
        ({"data": {"files": ["a"], "max_force": 30}}, r"data.max_force: 30 has no unit"),
        ({"data": {"files": ["a"], "splt": {}}}, r"data.splt: unknown key"),
        ({"optimizer": {"learning_rate": -1}}, r"optimizer.learning_rate"),
        ({"optimizer": {"force_gradient": "magic"}}, r"optimizer.force_gradient"),
        ({"loss": "huber"}, r"loss.preset"),
        ({"loss": {"force_delta": 0}}, r"loss.force_delta"),
        ({"schedule": {"kind": "linear"}}, r"schedule.kind"),
        ({"batch": {"n_conformations": 2, "max_edges": 5}}, r"batch: give either"),
        ({"ema_decay": 1.0}, r"ema_decay"),
        ({"name": "a/b"}, r"name"),
        ({"colour": "red"}, r"colour: unknown key"),
        ({"preset": "these"}, r"train.yaml: preset: 'these' is not known; did you mean 'thesis'"),
        ({"frozen": ["embedding"]}, r"frozen: random weights"),
        ({"precision": "float16"}, r"precision"),
        ({"committee": 1}, r"committee"),
        ({"seed": -1}, r"seed"),
        ({"data": {"files": ["a"], "split": {"seed": -1}}}, r"data.split.seed"),
        ({"optimizer": {"weight_decay": 7}}, r"optimizer.weight_decay"),
        ({"optimizer": {"clip": 0}}, r"optimizer.clip"),
        ({"validation": {"every_steps": 0}}, r"validation.every_steps"),
        ({"data": {"files": ["a"], "split": {"by": "size"}}}, r"data.split.by"),
        ({"data": {"files": ["a"], "split": {"validation_fraction": 1.5}}}, r"data.split.val"),
        (
            {
                "precision": "bf16-mixed",
                "optimizer": {"force_gradient": "central-difference"},
            },
            r"precision: differences",
        ),
    ],
)
def test_configuration_errors_name_the_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_training_config({**VALID, **changes}, "train.yaml")


def test_the_thesis_preset_and_what_overrides_it():
    config = parse_training_config({**VALID, "budget": {}, "preset": "thesis"}, "train.yaml")
    assert (config.batch.n_conformations, config.budget.max_epochs) == (25, 10)
    assert (config.schedule.kind, config.schedule.factor, config.schedule.warmup_steps) == (
        "step",
        0.5,
        0,
    )
    assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (1e-3, 0.1)
    assert (config.optimizer.clip, config.loss.preset, config.precision) == (
        10.0,
        "thesis",
        "bf16-mixed",
    )
    model = resolve_model_config(config)
    assert (model.lone_atoms, model.n_layers, model.edge_features) == ("trained", 7, "distance")
    changed = parse_training_config(
        {
            **VALID,
            "preset": "thesis",
            "model": "trip-one-head",
            "batch": {"max_edges": 100},
            "optimizer": {"clip": 1.0},
        },
        "train.yaml",
    )
    assert changed.batch == BatchConfig(max_edges=100)
    assert (changed.optimizer.clip, changed.optimizer.learning_rate) == (1.0, 1e-3)
    found = resolve_model_config(changed)
    assert (found.n_heads, found.lone_atoms) == (1, "trained")


RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(RECIPES.rglob("*.yaml"))
     if {"budget", "preset"} & yaml.safe_load(path.read_text("utf-8")).keys()],
    ids=lambda path: str(path.relative_to(RECIPES)),
)  # fmt: skip
def test_training_recipes_are_valid(path):
    config = load_training_config(path)
    potentials = initial_potentials(config, resolve_model_config(config))
    assert len(potentials) == (config.committee or 1)


def test_configuration_files(tmp_path: Path):
    path = tmp_path / "train.yaml"
    path.write_text("name: x\ndata: {files: [a.h5]}\nbudget: {max_time: 2 min}\nloss: thesis\n")
    config = load_training_config(path)
    assert config.budget.max_time_s == 120.0
    assert config.data.files == (tmp_path / "a.h5",)
    assert config.loss.preset == "thesis"
    path.write_text("name: x\ndata: {files: [., ..]}\nbudget: {max_time: 2 min}\n")
    assert load_training_config(path).data.files == (tmp_path, tmp_path.parent)
    path.write_text("name: [")
    with pytest.raises(ConfigError, match=r"train\.yaml: line 1, column 8"):
        load_training_config(path)
    path.write_text("name: x\ndata: {files: [a.h5]}\nbudget: {max_steps: 1, max_steps: 2}\n")
    with pytest.raises(ConfigError, match="the key 'max_steps' occurs twice"):
        load_training_config(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ConfigError, match=r"train\.yaml: byte 0 is not UTF-8"):
        load_training_config(path)
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_training_config(tmp_path / "nowhere.yaml")
    with pytest.raises(DataError, match="no such file"):
        load_data(config, TINY, Place(tmp_path, False, Processes(), print))


def test_test_files_of_another_level_are_refused(tmp_path: Path):
    levels = {"a": "wb97x/6-31g*", "b": "GFN2-xTB", "c": "df-wB97X/6-31G(d)", "d": ""}
    for name, level in levels.items():
        header = FileHeader("made", level, LONE)
        write_conformations(tmp_path / f"{name}.h5", make_conformations(), header)
    place = Place(tmp_path, False, Processes(), print)

    def loaded(test_file: str):
        data = {
            "files": [str(tmp_path / "a.h5")],
            "test_files": [str(tmp_path / test_file)],
            "split": {"by": "random", "validation_fraction": 0.2},
        }
        return load_data(parse_training_config({**VALID, "data": data}, "t.yaml"), TINY, place)

    with pytest.raises(DataError, match=r"data\.test_files: level of theory GFN2-xTB, but"):
        loaded("b.h5")
    for name in ("c.h5", "d.h5"):
        assert loaded(name).level_of_theory == "wb97x/6-31g*"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"preset": "trip-xl"}, "preset: 'trip-xl'"),
        ({"n_chanels": 4}, "n_chanels: unknown key"),
        ({"preset": "trip-s", "n_heads": 3}, "n_heads"),
        ({"elements": ["H", "Qq"]}, "elements"),
    ],
)
def test_model_settings_are_checked(model, message):
    with pytest.raises(ConfigError, match=rf"^train\.yaml: model\.{message}"):
        parse_training_config({**VALID, "model": model}, "train.yaml")


def test_a_missing_checkpoint_is_not_replaced_by_one_of_its_name(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.safetensors").touch()
    missing = tmp_path / "runs" / "a.safetensors"
    assert initial_source(missing) == str(missing)
    assert initial_source(tmp_path / "runs" / "trip-gfn2-s") == "trip-gfn2-s"
    (tmp_path / "trip-gfn2-s").mkdir()
    assert initial_source(tmp_path / "trip-gfn2-s") == "trip-gfn2-s"


def test_a_preset_leaves_the_network_to_the_weights_it_starts_from():
    values = {**VALID, "preset": "thesis", "initial": "trip-gfn2-s"}
    config = parse_training_config(values, "train.yaml")
    found = resolve_model_config(config)
    assert found == initial_potentials(config, found)[0].config
    assert config.precision == "bf16-mixed"
    own = parse_training_config({**values, "model": {"n_layers": 2}}, "train.yaml")
    assert resolve_model_config(own).lone_atoms == "trained"


def test_elements_may_be_symbols():
    config = parse_training_config({**VALID, "model": {"elements": ["O", "H"]}}, "train.yaml")
    assert resolve_model_config(config).elements == (1, 8)
