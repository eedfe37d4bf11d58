"""Committees: mean and scatter by hand, one search for all, files that cannot be mistaken."""

import json

import numpy as np
import pytest

from trip_mm.checkpoint import load_potential, new_potential, save_potential
from trip_mm.committee import Committee, CommitteePrediction, load_committee, save_committee
from trip_mm.errors import CellTooSmallError, CheckpointError, ConfigError, UnsupportedElementError
from trip_mm.model.config import TripConfig

TINY = TripConfig(
    n_channels=4,
    l_max=1,
    n_layers=1,
    n_heads=1,
    cutoff=3.0,
    radial_hidden=8,
    edge_features="bessel",
    n_scalars=4,
    readout_hidden=8,
)
POSITIONS = np.asarray([[0.0, 0.0, 0.0], [1.0, 0.1, 0.0], [-0.3, 0.9, 0.2], [1.4, 1.5, 0.1]])
NUMBERS = np.asarray([8, 1, 1, 6])
SELF_ENERGIES = {1: -10.0, 6: -50.0, 7: -70.0, 8: -100.0}


def make_member(seed, self_energies=SELF_ENERGIES, config=TINY, dtype="float64"):
    potential = new_potential(config, seed=seed, dtype=dtype)
    potential.set_energy_statistics(self_energies, dict.fromkeys(self_energies, -2.0), 1.5)
    potential.name = f"m{seed}"
    return potential


@pytest.fixture(scope="module")
def committee():
    return Committee([make_member(seed) for seed in range(3)])


@pytest.mark.parametrize("cell", [None, np.diag([7.0, 8.0, 9.0])], ids=["open", "periodic"])
def test_members_say_what_they_say_alone(committee, cell):
    found = committee.predict(POSITIONS, NUMBERS, cell)
    for k, member in enumerate(committee.members):
        energy, forces = member.energy_and_forces(POSITIONS, NUMBERS, cell)
        assert found.energies[k] == pytest.approx(energy, abs=1e-10)
        np.testing.assert_allclose(found.member_forces[k], forces, atol=1e-10)
    mean_energy, mean_forces = committee.energy_and_forces(POSITIONS, NUMBERS, cell)
    assert mean_energy == pytest.approx(found.energies.mean())
    np.testing.assert_allclose(mean_forces, found.member_forces.mean(axis=0))
    assert (found.force_disagreement > 1e-3).all()


def test_disagreement_by_hand():
    forces = np.zeros((2, 2, 3))
    forces[0, 0] = [3.0, 0.0, 4.0]
    forces[1, 0] = [-3.0, 0.0, -4.0]
    forces[:, 1] = [1.0, 2.0, 3.0]
    found = CommitteePrediction(np.asarray([1.0, 3.0]), forces)
    assert found.energy == 2.0
    assert found.energy_disagreement == pytest.approx(1.0)
    np.testing.assert_allclose(found.force_disagreement, [5.0, 0.0])
    assert found.max_force_disagreement == pytest.approx(5.0)
    np.testing.assert_allclose(found.forces, [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])


def test_equal_members_agree():
    found = Committee([make_member(1), make_member(1)]).predict(POSITIONS, NUMBERS)
    assert found.max_force_disagreement == 0.0
    assert found.energy_disagreement == 0.0


def test_a_lone_atom_has_no_forces(committee):
    found = committee.predict(np.zeros((1, 3)), np.asarray([8]))
    assert found.energy == pytest.approx(-100.0)
    np.testing.assert_array_equal(found.member_forces, np.zeros((3, 1, 3)))


def test_kernels_give_the_same_numbers():
    committee = Committee([make_member(seed, dtype="float32") for seed in range(2)])
    plain = committee.predict(POSITIONS, NUMBERS)
    fast = committee.with_kernels().predict(POSITIONS, NUMBERS)
    np.testing.assert_allclose(fast.energies, plain.energies, atol=1e-4)
    np.testing.assert_allclose(fast.member_forces, plain.member_forces, atol=1e-4)


def test_input_is_checked(committee):
    with pytest.raises(ConfigError, match="3 atomic numbers"):
        committee.predict(POSITIONS, NUMBERS[:3])
    with pytest.raises(UnsupportedElementError, match="atom 0 is F"):
        committee.predict(POSITIONS, np.asarray([9, 1, 1, 1]))
    with pytest.raises(CellTooSmallError):
        committee.predict(POSITIONS, NUMBERS, np.eye(3) * 4.0)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([0], "at least two"),
        (["cutoff"], "differ in cutoff"),
        (["elements"], "differ in elements"),
        (["self"], "self energies of O are"),
        (["dtype"], "differ in dtype"),
    ],
)
def test_members_must_fit(members, message):
    others = {
        0: [],
        "cutoff": [make_member(1, config=TripConfig(**{**vars(TINY), "cutoff": 3.5}))],
        "elements": [make_member(1, config=TripConfig(**{**vars(TINY), "elements": (1, 6, 8)}))],
        "self": [make_member(1, {**SELF_ENERGIES, 8: -99.0})],
        "dtype": [make_member(1, dtype="float32")],
    }[members[0]]
    with pytest.raises(ConfigError, match=message):
        Committee([make_member(0), *others])


def test_files(tmp_path, committee):
    files = [
        save_potential(m, tmp_path / f"member-{i}" / "x") for i, m in enumerate(committee.members)
    ]
    path = save_committee(files, tmp_path / "trio.json")
    for source in (path, tmp_path, str(path), files):
        loaded = load_committee(source, dtype="float64")
        assert len(loaded) == 3
        np.testing.assert_array_equal(
            loaded.predict(POSITIONS, NUMBERS).energies,
            committee.predict(POSITIONS, NUMBERS).energies,
        )
    assert load_committee(path).name == "trio"
    assert load_committee(path).sha256[1] == load_potential(files[1]).sha256
    assert str(tmp_path) not in path.read_text()


def test_damaged_files_are_refused(tmp_path, committee):
    files = [save_potential(m, tmp_path / f"m{i}") for i, m in enumerate(committee.members[:2])]
    path = save_committee(files, tmp_path / "pair.json")
    save_potential(committee.members[2], files[1])
    with pytest.raises(CheckpointError, match="sha256"):
        load_committee(path)
    path.write_text(json.dumps({"format": "other", "format_version": 1}))
    with pytest.raises(CheckpointError, match="'other'"):
        load_committee(path)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="not the file of a committee"):
        load_committee(path)
    with pytest.raises(CheckpointError, match="holds 0 committees"):
        load_committee(tmp_path / ".")
    with pytest.raises(CheckpointError, match=r"nothing\.json"):
        load_committee(tmp_path / "nothing.json")
    with pytest.raises(CheckpointError, match="outside"):
        save_committee(files, tmp_path / "below" / "pair.json")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        save_committee([tmp_path / "absent.safetensors"], path)
