"""Cases, systems, counts and reports of `trip-mm bench`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from trip_mm.benchmark.cases import Case, Settings, expand
from trip_mm.benchmark.flops import operations
from trip_mm.benchmark.report import exponents, plot_scaling, row, write_json
from trip_mm.benchmark.session import Measurement, _with_shares, interpreter_with
from trip_mm.benchmark.systems import BenchmarkSystem, build_system
from trip_mm.errors import ConfigError, MissingDependencyError
from trip_mm.model.config import TripConfig


def test_a_system_file_needs_no_name(tmp_path: Path) -> None:
    (tmp_path / "methane.yaml").write_text("structure: {smiles: C}\npotential: trip:trip-gfn2-s\n")
    assert len(build_system(str(tmp_path / "methane.yaml"), seed=1).atomic_numbers) == 5


def test_cases_of_a_system_follow_each_other() -> None:
    cases = expand(
        ["a", "b"], ["new:trip-s"], ["direct", "torch"], ["kernels", "plain"], ["nequip"]
    )
    assert [(c.system, c.backend, c.form) for c in cases[:4]] == [
        ("a", "direct", "kernels"),
        ("a", "direct", "plain"),
        ("a", "torch", "kernels"),
        ("a", "direct", "peer"),
    ]
    assert {c.system for c in cases[4:]} == {"b"}
    assert len(set(cases)) == len(cases) == 8


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((["a"], ["new:tripp"], ["direct"], ["plain"], []), "tripp"),
        ((["a"], ["nothing"], ["direct"], ["plain"], []), "nothing"),
        ((["a"], ["new:trip"], ["cuda"], ["plain"], []), "cuda"),
        ((["a"], ["new:trip"], ["direct"], ["fast"], []), "fast"),
        ((["a"], [], ["direct"], ["plain"], ["mace"]), "mace"),
        ((["a"], ["new:trip"], ["torch"], ["plain"], []), "nothing to measure"),
    ],
)
def test_unknown_names_are_refused(arguments: tuple[list[str], ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        expand(*arguments)


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="rounds"):
        Settings(threads=1, rounds=0)
    with pytest.raises(ConfigError, match="seconds"):
        Settings(threads=1, seconds=float("nan"))


def test_water_box(tmp_path: Path) -> None:
    system = build_system("water:96", seed=0)
    assert system.cell is not None
    assert len(system.atomic_numbers) == 96
    assert np.linalg.det(system.cell) == pytest.approx(32 * 29.99, rel=1e-3)
    assert len(system.bonds) == 64
    assert np.array_equal(system.displaced(0, 0.5), system.positions)
    assert np.array_equal(system.displaced(40, 0.5), system.positions)
    assert np.allclose(system.displaced(19, 0.5), system.displaced(21, 0.5))
    assert 0.0 < np.abs(system.displaced(20, 0.5) - system.positions).max() < 2.0
    system.save(tmp_path / "system.npz")
    loaded = BenchmarkSystem.load(tmp_path / "system.npz")
    assert np.array_equal(loaded.positions, system.positions)
    topology = loaded.topology()
    assert topology.getNumAtoms() == 96
    assert topology.getNumBonds() == 64
    assert topology.getPeriodicBoxVectors() is not None


@pytest.mark.parametrize("name", ["water:97", "water:-3", "water:", "water:1e3"])
def test_water_needs_whole_molecules(name: str) -> None:
    with pytest.raises(ConfigError, match="multiple of 3"):
        build_system(name, seed=0)


def test_operations_of_the_full_model() -> None:
    config = TripConfig.preset("trip")
    per_edge = (operations(config, 0, 2000) - operations(config, 0, 1000)) / 1000
    # One inner block, by hand: u, couplings and trunk; 69 columns (9, 25, 35) of 16 channels.
    inner = 69 * 16 * 32 + 16 * (9 + 3 * 25 + 5 * 35) + 32 * (16 + 32)
    assert 3 * 2 * 6 * inner < per_edge < 3 * 2 * 7 * inner * 1.3
    assert operations(config, 100, 4000) == pytest.approx(
        operations(config, 100, 0) + 4 * operations(config, 0, 1000)
    )


def measured(system: str, n_atoms: int, backend: str, seconds: float) -> Measurement:
    neighbors = 0.1 * seconds if backend == "direct" else None
    return Measurement(
        Case(system, "m", backend, "kernels"), n_atoms, (seconds, 2 * seconds, seconds / 2),
        cpu_seconds=(seconds,) * 3,
        flop=1e9, dense_flop_per_s=1e11, neighbors_s=neighbors,
    )  # fmt: skip


def test_shares_of_a_step() -> None:
    direct, inside = _with_shares(
        [measured("a", 10, "direct", 0.08), measured("a", 10, "torch", 0.1)]
    )
    assert inside.time_shares == pytest.approx({"neighbors": 0.08, "network": 0.72, "openmm": 0.2})
    assert direct.time_shares == pytest.approx({"neighbors": 0.1, "network": 0.9, "openmm": 0.0})
    assert inside.dense_share == pytest.approx(0.1)
    assert inside.ns_per_day(0.5) == pytest.approx(0.432)


def test_report(tmp_path: Path) -> None:
    failed = Measurement(Case("b", "m", "torch", "kernels"), 20, problem="broken")
    found = [measured("a", 10, "direct", 0.1), measured("b", 20, "direct", 0.4), failed]
    assert exponents(found) == pytest.approx({"m direct kernels": 2.0})
    assert row(failed, 0.5)["problem"] == "broken"
    write_json(tmp_path / "bench.json", found, Settings(threads=1))
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document["cases"][0]["ms_per_step"]["median"] == pytest.approx(100.0)
    assert document["settings"]["threads"] == 1
    assert plot_scaling(found, tmp_path / "scaling.png")
    assert not plot_scaling(found[:1], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_interpreter_of_a_peer() -> None:
    assert interpreter_with("json", [sys.executable]) == sys.executable
    with pytest.raises(MissingDependencyError, match="--peer-python"):
        interpreter_with("no_such_package", [sys.executable])
    with pytest.raises(MissingDependencyError, match="nowhere"):
        interpreter_with("json", ["/nowhere/python"])
