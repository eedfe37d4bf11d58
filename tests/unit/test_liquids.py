"""Correlated series, radial distributions and densities of liquids."""

import csv
import json
import math
import warnings
from pathlib import Path

import MDAnalysis
import numpy as np
import pytest
from numpy.typing import NDArray

from trip_mm.analysis.density import run_densities
from trip_mm.analysis.liquid_output import UNTRUSTED, density_figure, write_density, write_rdf
from trip_mm.analysis.radial import RadialSettings, radial_distribution
from trip_mm.analysis.series import (
    autocorrelation,
    equilibrated_mean,
    series_mean,
    statistical_inefficiency,
)
from trip_mm.errors import ConfigError, DataError, RunDirectoryError

OXYGENS = "name O"


def autoregressive(n: int, memory: float, seed: int) -> NDArray[np.float64]:
    """x_t = memory x_(t-1) + noise, whose statistical inefficiency is (1 + memory)/(1 - memory)."""
    rng = np.random.default_rng(seed)
    values = np.empty(n)
    values[0] = rng.normal() / math.sqrt(1.0 - memory**2)
    for step in range(1, n):
        values[step] = memory * values[step - 1] + rng.normal()
    return values


def test_autocorrelation_by_hand() -> None:
    # Mean 0; lag 1: (1 * -1 + -1 * 1 + 1 * -1) / 4, lag 2: (1 + 1) / 4.
    found = autocorrelation(np.array([1.0, -1.0, 1.0, -1.0]))
    np.testing.assert_allclose(found, [1.0, -0.75, 0.5, -0.25], atol=1e-12)
    np.testing.assert_array_equal(autocorrelation(np.full(3, 0.997)), [1.0, 0.0, 0.0])


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_inefficiency_of_a_process_with_known_memory(memory: float) -> None:
    found = statistical_inefficiency(autoregressive(40_000, memory, seed=3))
    assert found == pytest.approx((1.0 + memory) / (1.0 - memory), rel=0.12)


def test_standard_error_is_the_spread_of_means() -> None:
    means, errors = [], []
    for seed in range(60):
        own = series_mean(autoregressive(2000, 0.8, seed))
        means.append(own.mean)
        errors.append(own.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.25)
    # Without correlations the error would come out three times too small.
    naive = series_mean(autoregressive(2000, 0.8, 0)).standard_deviation / math.sqrt(2000)
    assert naive < 0.5 * np.std(means)


def test_equilibration_is_left_out() -> None:
    ramp = np.concatenate([np.linspace(-30.0, 0.0, 300), np.zeros(1700)])
    found = equilibrated_mean(ramp + autoregressive(2000, 0.5, seed=1))
    assert 200 <= found.n_discarded <= 500
    assert abs(found.mean) < 5.0 * found.standard_error
    assert equilibrated_mean(autoregressive(2000, 0.5, seed=2)).n_discarded < 500


def test_short_stationary_series_keep_their_error() -> None:
    """About ten independent samples; the start that leaves most would be wrong in 70 of 200."""
    wrong_whole = wrong = 0
    for seed in range(200):
        values = autoregressive(200, 0.9, seed)
        whole, found = series_mean(values), equilibrated_mean(values)
        wrong_whole += abs(whole.mean) > 2.0 * whole.standard_error
        wrong += abs(found.mean) > 2.0 * found.standard_error
    assert wrong < 50
    assert wrong <= wrong_whole + 20


def write_waters(folder: Path, frames: NDArray[np.float64], edges: list[float]) -> None:
    """Writes a run of molecules of one O and one H, from oxygens `[n_frames, n_molecules, 3]`."""
    n_molecules = frames.shape[1]
    universe = MDAnalysis.Universe.empty(
        2 * n_molecules,
        n_residues=n_molecules,
        atom_resindex=np.repeat(np.arange(n_molecules), 2),
        trajectory=True,
    )
    universe.add_TopologyAttr("names", ["O", "H1"] * n_molecules)
    universe.add_TopologyAttr("resnames", ["HOH"] * n_molecules)
    universe.add_TopologyAttr("resids", np.arange(n_molecules) + 1)
    stage = folder / "01-production"
    stage.mkdir(parents=True)
    with MDAnalysis.Writer(str(stage / "trajectory.xtc"), 2 * n_molecules) as writer:
        for number, (oxygens, edge) in enumerate(zip(frames, edges, strict=True)):
            atoms = np.repeat(oxygens, 2, axis=0)
            atoms[1::2, 0] += 1.0
            universe.atoms.positions = atoms
            universe.dimensions = [edge, edge, edge, 90.0, 90.0, 90.0]
            universe.trajectory.ts.time = float(number)
            writer.write(universe.atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # columns that the PDB file goes without
        universe.atoms.write(str(folder / "topology.pdb"))


def rdf_of(folder: Path, **settings: object):  # type: ignore[no-untyped-def]
    return radial_distribution(
        folder / "topology.pdb",
        folder / "01-production" / "trajectory.xtc",
        RadialSettings(**settings),  # type: ignore[arg-type]
    )


def test_simple_cubic_lattice_by_hand(tmp_path: Path) -> None:
    """6 neighbours at 3 A, 12 at 3 sqrt(2), 8 at 3 sqrt(3), and nothing between."""
    grid = 3.0 * np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    write_waters(tmp_path, np.stack([grid + 0.1] * 4), [12.0] * 4)
    found = rdf_of(tmp_path, bin_width=0.1, r_max=5.9)
    shells = {3.05: 6.0, 4.25: 18.0, 5.25: 26.0}
    for distance, neighbours in shells.items():
        row = int(np.argmin(np.abs(found.distances - distance)))
        assert found.coordination[row] == pytest.approx(neighbours)
    assert found.coordination[0] == 0.0
    # 64 atoms, 63 possible partners in 1728 A^3; the first shell fills bins around 3 A.
    inside = (found.distances > 2.8) & (found.distances < 3.2)
    shell = 4.0 / 3.0 * math.pi * ((found.distances + 0.05) ** 3 - (found.distances - 0.05) ** 3)
    counted = float((found.g * shell)[inside].sum() * 63 / 1728.0)
    assert counted == pytest.approx(6.0, rel=1e-6)
    assert (found.n_first, found.n_frames, found.n_blocks) == (64, 4, 4)
    np.testing.assert_allclose(found.standard_error, 0.0, atol=1e-12)


def test_the_first_alternate_location_counts(tmp_path: Path) -> None:
    """The last two of four molecules share a place; only the pairs of the first three count."""
    oxygens = np.array([[1.0, 1.0, 1.0], [4.0, 1.0, 1.0], [1.0, 4.0, 1.0], [1.0, 4.4, 1.0]])
    write_waters(tmp_path, np.stack([oxygens] * 2), [12.0] * 2)
    topology = tmp_path / "topology.pdb"
    lines = topology.read_text().splitlines()
    for number, code in ((3, "A"), (4, "B")):
        for row in (i for i, line in enumerate(lines) if line[22:26].strip() == str(number)):
            if lines[row].startswith(("ATOM", "HETATM")):
                lines[row] = f"{lines[row][:16]}{code}{lines[row][17:22]}   3{lines[row][26:]}"
    topology.write_text("\n".join(lines) + "\n")
    found = rdf_of(tmp_path, bin_width=0.1, r_max=3.5, first=OXYGENS, second=OXYGENS)
    assert found.n_first == found.n_second == 3
    assert found.coordination[-1] == pytest.approx(4.0 / 3.0)


def test_an_ideal_gas_has_no_structure(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    edges = [15.0, 15.5, 16.0] * 20
    frames = np.stack([rng.uniform(0.0, edge, size=(80, 3)) for edge in edges])
    write_waters(tmp_path, frames, edges)
    found = rdf_of(tmp_path, bin_width=0.5)
    assert found.distances[-1] < 7.5
    far = found.distances > 2.0
    np.testing.assert_allclose(found.g[far], 1.0, atol=0.06)
    assert abs(found.g[far].mean() - 1.0) < 0.01
    # Oxygens and hydrogens: the partner in the same molecule, always at 1 A, does not count.
    other = rdf_of(tmp_path, bin_width=0.5, second="name H1")
    near = other.distances < 1.6
    assert other.g[near].max() < 2.0
    assert abs(other.g[far].mean() - 1.0) < 0.02
    assert rdf_of(tmp_path, skip_ps=50.0).n_frames == 10


def test_one_solute_atom_among_waters(tmp_path: Path) -> None:
    grid = 3.0 * np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    write_waters(tmp_path, np.stack([grid + 0.1] * 2), [12.0] * 2)
    found = rdf_of(tmp_path, first="resid 1 and name O", second="name O", bin_width=0.1, r_max=5.9)
    assert (found.n_first, found.n_second) == (1, 64)
    row = int(np.argmin(np.abs(found.distances - 4.0)))
    assert found.coordination[row] == pytest.approx(6.0)
    # The solute does not count as its own neighbour: 63 partners in 1728 A^3.
    volumes = 4.0 / 3.0 * math.pi * np.diff((np.arange(len(found.g) + 1) * 0.1) ** 3)
    assert float((found.g * volumes)[: row + 1].sum() * 63 / 1728.0) == pytest.approx(6.0)


def test_refusals_of_the_radial_distribution(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    write_waters(tmp_path, rng.uniform(0.0, 12.0, size=(3, 20, 3)), [12.0, 12.0, 11.0])
    for settings, error, message in (
        ({"r_max": 5.8}, ConfigError, r"beyond half the shortest cell height \(5\.50 A\)"),
        ({"skip_ps": 9.0}, ConfigError, "the frames span 2 ps"),
        ({"bin_width": 0.0}, ConfigError, "bin width: 0 A must be positive"),
        ({"bin_width": math.nan}, ConfigError, "bin width: nan A must be positive"),
        ({"r_max": 0.0}, ConfigError, "r_max: 0 A must be positive"),
        ({"r_max": -3.0}, ConfigError, "r_max: -3 A must be positive"),
        ({"r_max": math.nan}, ConfigError, "r_max: nan A must be positive"),
        ({"skip_ps": math.nan}, ConfigError, "time to skip: nan ps must be finite"),
        ({"first": "name Q"}, DataError, "'name Q' finds no atoms"),
        ({"first": "resid 1", "second": "resid 1"}, DataError, "atoms of one residue"),
        ({"first": "nonsense ("}, ConfigError, "is not understood"),
    ):
        with pytest.raises(error, match=message):
            rdf_of(tmp_path, **settings)
    ala3 = Path(__file__).parents[1] / "data" / "ala3"
    with pytest.raises(DataError, match="no periodic cell"):
        radial_distribution(
            ala3 / "ala3.pdb", ala3 / "ala3.xtc", RadialSettings(first="name CA", second="name CA")
        )


def test_files_of_the_radial_distribution(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    write_waters(tmp_path, rng.uniform(0.0, 12.0, size=(1, 20, 3)), [12.0])
    found = rdf_of(tmp_path, bin_width=0.5)
    assert np.isnan(found.standard_error).all()
    for path in write_rdf(found, tmp_path):
        assert path.stat().st_size > 0
    rows = list(csv.DictReader((tmp_path / "rdf.csv").open()))
    assert len(rows) == len(found.distances)
    assert rows[0]["g_standard_error"] == ""
    summary = json.loads((tmp_path / "rdf.json").read_text())
    assert summary["trajectory"] == "01-production/trajectory.xtc"
    assert summary["peak"]["g"] == pytest.approx(found.g.max())


def test_a_frame_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    frames = np.random.default_rng(6).uniform(0.0, 15.0, size=(12, 30, 3))
    write_waters(tmp_path, frames, [15.0] * 12)
    path = tmp_path / "01-production" / "trajectory.xtc"
    content = bytearray(path.read_bytes())
    start = content.find(content[:4], len(content) // 2)  # every frame begins with the same number
    content[start : start + 4] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="of 12 cannot be read; the file is damaged in the middle"):
        rdf_of(tmp_path)


def write_run(folder: Path, densities: dict[str, NDArray[np.float64]]) -> None:
    stages = [{"name": "relax", "kind": "minimize"}, {"name": "nvt", "kind": "nvt"}]
    stages += [{"name": name, "kind": "npt"} for name in densities]
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"stages": stages}))
    for number, stage in enumerate(stages):
        directory = folder / f"{number + 1:02d}-{stage['name']}"
        directory.mkdir()
        values = densities.get(stage["name"], np.full(20, 5.0))
        rows = [f"{k},{0.1 * (k + 1):.6g},{rho}" for k, rho in enumerate(values)]
        header = '#"Step","Time (ps)","Density (g/mL)"'
        (directory / "log.csv").write_text("\n".join([header, *rows]) + "\n")


def test_density_of_the_stages_at_constant_pressure(tmp_path: Path) -> None:
    noise = 0.001 * autoregressive(4000, 0.5, seed=7)
    write_run(tmp_path, {"npt": 0.997 + noise, "production": np.full(40, 1.5)})
    first, second = run_densities(tmp_path)
    assert first.stage == "03-npt"
    assert first.mean.mean == pytest.approx(0.997, abs=4 * first.mean.standard_error)
    # sigma sqrt(3 / 4000) with sigma = 0.001 / sqrt(1 - 1/4)
    expected = 0.001 / math.sqrt(0.75) * math.sqrt(3.0 / 4000)
    assert first.mean.standard_error == pytest.approx(expected, rel=0.25)
    assert first.correlation_time_ps == pytest.approx(0.15, rel=0.25)
    assert first.is_converged
    assert (second.mean.mean, second.mean.standard_error) == (1.5, 0.0)
    (skipped, _) = run_densities(tmp_path, skip_ps=2.0)
    assert skipped.discarded_ps == pytest.approx(2.0)
    assert skipped.mean.n_samples == 3980
    assert run_densities(tmp_path, skip_ps=300.0)[0].is_converged
    write_density([first, second], tmp_path)
    summary = json.loads((tmp_path / "density.json").read_text())
    assert summary["stages"][0]["mean_g_per_ml"] == first.mean.mean
    rows = list(csv.DictReader((tmp_path / "density.csv").open()))
    assert len(rows) == 4040
    assert (tmp_path / "density.png").stat().st_size > 0


def test_a_density_that_drifts_is_told(tmp_path: Path) -> None:
    drift = np.linspace(1.0, 1.25, 200) + 0.002 * autoregressive(200, 0.5, seed=1)
    write_run(tmp_path, {"npt": drift, "calm": 1.0 + 0.002 * autoregressive(4000, 0.5, seed=2)})
    results = run_densities(tmp_path)
    assert [own.is_converged for own in results] == [False, True]
    drifting, calm = density_figure(results).axes
    assert UNTRUSTED in drifting.get_title()
    assert UNTRUSTED not in calm.get_title()
    assert [bool(axes.collections[0].get_hatch()) for axes in (drifting, calm)] == [True, False]


def test_refusals_of_the_density(tmp_path: Path) -> None:
    write_run(tmp_path / "short", {"npt": np.full(9, 1.0)})
    with pytest.raises(RunDirectoryError, match="no NPT stage has 10 rows"):
        run_densities(tmp_path / "short")
    write_run(tmp_path / "nvt", {})
    with pytest.raises(RunDirectoryError, match="no stage at constant pressure"):
        run_densities(tmp_path / "nvt")
    with pytest.raises(RunDirectoryError, match=r"run\.json: cannot be read"):
        run_densities(tmp_path)
    for skip_ps in (-5.0, math.nan):
        with pytest.raises(ConfigError, match=r"time to skip: .* must be finite and not negative"):
            run_densities(tmp_path / "short", skip_ps)
    with pytest.raises(RunDirectoryError, match="give the directory of a run"):
        run_densities(tmp_path / "absent")
