"""States tile the torus, statistics are circular, torsions survive periodic wrapping."""

import csv
import json
import math
import shutil
import warnings
from pathlib import Path

import MDAnalysis
import numpy as np
import pytest
from MDAnalysis.coordinates.XTC import XTCWriter
from MDAnalysis.lib.mdamath import triclinic_vectors
from numpy.typing import NDArray

from trip_mm.analysis.output import summary
from trip_mm.analysis.plots import free_energy_surface, ramachandran_figure, write_picture
from trip_mm.analysis.ramachandran import (
    NoBackboneTorsionsError,
    RamachandranResult,
    analyze_run,
    ramachandran,
)
from trip_mm.analysis.run_directory import stage_directories, stage_trajectory
from trip_mm.analysis.states import THESIS, TILED, Interval, state_set
from trip_mm.analysis.statistics import (
    circular_mean,
    circular_standard_deviation,
    torsion_statistics,
)
from trip_mm.errors import ConfigError, DataError, RunDirectoryError

pytestmark = [
    # MDAnalysis' readers complain while they are deleted after a failed opening.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:MDAnalysis"),
    pytest.mark.filterwarnings("ignore:Reader has no dt information"),
]

DATA = Path(__file__).parents[1] / "data" / "ala3"


@pytest.fixture
def ala3(tmp_path: Path) -> tuple[Path, Path]:
    """Topology and trajectory in a folder where MDAnalysis may leave its index files."""
    return (
        Path(shutil.copy(DATA / "ala3.pdb", tmp_path)),
        Path(shutil.copy(DATA / "ala3.xtc", tmp_path)),
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    for stage in ("01-minimize", "02-nvt", "04-production"):
        (directory / stage).mkdir(parents=True)
    shutil.copy(DATA / "ala3.pdb", directory / "topology.pdb")
    shutil.copy(DATA / "ala3.xtc", directory / "04-production" / "trajectory.xtc")
    return directory


def made_of(phi: NDArray[np.float64], psi: NDArray[np.float64]) -> RamachandranResult:
    names = tuple(f"ALA{index + 2}" for index in range(phi.shape[1]))
    times = np.arange(len(phi), dtype=np.float64)
    return RamachandranResult(names, times, phi, psi, Path("a.pdb"), Path("a.xtc"))


# --- states ---


def torus_points() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Random points, all whole degrees, and the neighbours of every boundary in floating point."""
    rng = np.random.default_rng(0)
    random = rng.uniform(-180, 180, size=(50_000, 2))
    bounds = np.array([-180.0, -110.0, -90.0, -40.0, 20.0, 50.0, 120.0, 130.0, 180.0])
    edges = np.concatenate([bounds, np.nextafter(bounds, -999), np.nextafter(bounds, 999)])
    axes = (np.arange(-360.0, 361.0, 5.0), edges)
    grids = [np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2) for axis in axes]
    points = np.concatenate([random, *grids])
    return points[:, 0], points[:, 1]


def test_the_tiled_states_hold_every_point_exactly_once() -> None:
    assert (TILED.membership(*torus_points()).sum(axis=0) == 1).all()


def test_the_thesis_states_overlap_only_where_the_printed_table_does() -> None:
    phi, psi = torus_points()
    counts = THESIS.membership(phi, psi).sum(axis=0)
    overlap = Interval(-90, 20).contains(phi) & Interval(-110, -40).contains(psi)
    assert (counts == np.where(overlap, 2, 1)).all()
    assert THESIS.labels(np.array([-60.0]), np.array([-60.0])) == ["P_II+alpha_R"]
    assert TILED.labels(np.array([-60.0]), np.array([-60.0])) == ["alpha_R"]


def test_areas_add_up_to_the_torus() -> None:
    areas = [
        math.prod(sum(b - a for a, b in arc.pieces()) for arc in (state.phi, state.psi))
        for state in TILED.states
    ]
    assert sum(areas) == 360.0**2


@pytest.mark.parametrize(
    ("phi", "psi", "name"),
    [
        (-120, 140, "beta"),
        (170, -170, "beta"),
        (-70, 150, "P_II"),
        (-70, -150, "P_II"),
        (-65, -40, "alpha_R"),
        (150, 0, "alpha_R"),
        (57, 40, "alpha_L"),
        (60, -120, "P"),
        (60, 180, "P"),
        (-90, 50, "P_II"),
        (130, 50, "beta"),
        (20, -90, "alpha_L"),
    ],
)
def test_well_known_points(phi: float, psi: float, name: str) -> None:
    for turn in (-360.0, 0.0, 720.0):
        assert TILED.labels(np.array([phi + turn]), np.array([psi - turn])) == [name]


def test_not_a_number_is_unassigned() -> None:
    nan, zero = np.array([math.nan]), np.array([0.0])
    assert TILED.labels(nan, zero) == TILED.labels(zero, nan) == [""]
    assert torsion_statistics(nan, zero, TILED).unassigned == 1.0


def test_unknown_state_set() -> None:
    assert state_set("tiled") is TILED
    with pytest.raises(ConfigError, match="tiled, thesis"):
        state_set("lovell")


# --- circular statistics ---


def test_mean_and_spread_across_the_seam() -> None:
    angles = np.array([170.0, -170.0, 175.0, -175.0])
    assert abs(circular_mean(angles)) == pytest.approx(180.0)
    assert circular_standard_deviation(angles) == pytest.approx(np.std([-10, 10, -5, 5]), rel=0.01)


@pytest.mark.parametrize("turn", [0.0, 33.0, 179.0, 1234.5])
def test_statistics_turn_with_the_angles(turn: float) -> None:
    angles = np.random.default_rng(1).normal(10.0, 8.0, 5000)
    mean, spread = circular_mean(angles + turn), circular_standard_deviation(angles + turn)
    assert math.remainder(mean - turn - circular_mean(angles), 360.0) == pytest.approx(0, abs=1e-9)
    assert spread == pytest.approx(circular_standard_deviation(angles), rel=1e-9)
    assert spread == pytest.approx(angles.std(), rel=0.01)


def test_statistics_without_a_meaning() -> None:
    assert math.isnan(circular_mean(np.array([])))
    assert math.isnan(circular_standard_deviation(np.array([])))
    assert math.isnan(circular_mean(np.array([0.0, 180.0])))
    assert circular_standard_deviation(np.array([0.0, 180.0])) == math.inf
    assert circular_standard_deviation(np.array([42.0, 42.0])) == 0.0


def test_error_of_a_population_grows_with_the_correlation_of_frames() -> None:
    """A chain of two states with hopping rate k has the inefficiency (1 - k) / k."""
    rng = np.random.default_rng(7)
    n_frames, hop = 100_000, 0.05
    inside = np.cumsum(rng.random(n_frames) < hop) % 2 == 1
    psi = np.where(inside, -40.0, 150.0)
    row = next(
        row
        for row in torsion_statistics(np.full(n_frames, -65.0), psi, TILED).states
        if row.state == "alpha_R"
    )
    assert row.population == inside.mean()
    assert row.standard_error == pytest.approx(0.5 * np.sqrt((1 - hop) / hop / n_frames), rel=0.1)


def test_error_of_a_population_pools_residues_and_knows_its_limits() -> None:
    inside = np.random.default_rng(8).random((20_000, 4)) < 0.3
    psi = np.where(inside, -40.0, 150.0)
    statistics = torsion_statistics(np.full(psi.shape, -65.0), psi, TILED)
    rows = {row.state: row for row in statistics.states}
    assert rows["alpha_R"].standard_error == pytest.approx(np.sqrt(0.21 / 80_000), rel=0.1)
    assert np.isnan(rows["alpha_L"].standard_error)  # never entered
    one = torsion_statistics(np.array([-65.0]), np.array([-40.0]), TILED)
    assert all(np.isnan(row.standard_error) for row in one.states)


def test_populations() -> None:
    phi = np.array([-120.0, -70.0, -70.0, -60.0])
    psi = np.array([140.0, 150.0, 170.0, -45.0])
    tiled, thesis = (torsion_statistics(phi, psi, states) for states in (TILED, THESIS))
    assert [row.population for row in tiled.states] == [0.25, 0.5, 0.25, 0.0, 0.0]
    assert (tiled.n_points, tiled.unassigned, tiled.overlapping) == (4, 0.0, 0.0)
    assert [row.population for row in thesis.states] == [0.25, 0.75, 0.25, 0.0, 0.0]
    assert (thesis.unassigned, thesis.overlapping) == (0.0, 0.25)
    polyproline = tiled.states[1]
    assert (polyproline.phi_mean_deg, polyproline.psi_mean_deg) == pytest.approx((-70.0, 160.0))
    assert math.isnan(tiled.states[3].phi_mean_deg)


# --- torsions ---


def torsion(points: NDArray[np.float64]) -> float:
    """The IUPAC torsion of four points in degrees, written down independently."""
    b1, b2, b3 = np.diff(points, axis=0)
    n1, n2 = np.cross(b1, b2), np.cross(b2, b3)
    return math.degrees(math.atan2(np.linalg.norm(b2) * (b1 @ n2), n1 @ n2))


def open_quietly(*files: Path) -> MDAnalysis.Universe:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MDAnalysis.Universe(*map(str, files))


def test_zwitterionic_trialanine_has_one_residue_with_both(ala3: tuple[Path, Path]) -> None:
    result = ramachandran(*ala3)
    assert result.residues == ("ALA2",)
    assert result.n_frames == 60
    assert result.times_ps[:2] == pytest.approx([2.0, 4.0])
    universe = open_quietly(*ala3)
    picks = [
        universe.select_atoms(*text.split(","))
        for text in (
            "resid 1 and name C,resid 2 and name N,resid 2 and name CA,resid 2 and name C",
            "resid 2 and name N,resid 2 and name CA,resid 2 and name C,resid 3 and name N",
        )
    ]
    for frame in universe.trajectory:
        phi, psi = (torsion(pick.positions.astype(np.float64)) for pick in picks)
        assert result.phi_deg[frame.frame, 0] == pytest.approx(phi, abs=0.01)
        assert result.psi_deg[frame.frame, 0] == pytest.approx(psi, abs=0.01)


CELLS = {
    "cube": (9.0, 9.0, 9.0, 90.0, 90.0, 90.0),
    "dodecahedron": (9.0, 9.0, 9.0, 60.0, 60.0, 90.0),
    "octahedron": (9.0, 9.0, 9.0, 70.528779, 109.471221, 70.528779),
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("reach", [0, 10])
def test_wrapped_atoms_give_the_same_torsions(
    ala3: tuple[Path, Path], tmp_path: Path, cell: tuple[float, ...], reach: int
) -> None:
    """Atom by atom into the cell (reach 0), or scattered over images up to ten cells away."""
    topology, trajectory = ala3
    vectors = triclinic_vectors(cell)
    universe = open_quietly(topology, trajectory)
    rng = np.random.default_rng(2)
    wrapped = tmp_path / "wrapped.xtc"
    with XTCWriter(str(wrapped), n_atoms=len(universe.atoms)) as writer:
        for frame in universe.trajectory:
            frame.dimensions = cell
            fractional = frame.positions @ np.linalg.inv(vectors)
            images = rng.integers(-reach, reach + 1, fractional.shape)
            frame.positions = (fractional - np.floor(fractional) + images) @ vectors
            writer.write(universe.atoms)
    reference, result = ramachandran(topology, trajectory), ramachandran(topology, wrapped)
    assert result.residues == ("ALA2",)
    for ours, theirs in (
        (result.phi_deg, reference.phi_deg),
        (result.psi_deg, reference.psi_deg),
    ):
        # Coordinates have three decimals in nm, rounded twice: about a degree.
        assert np.abs((ours - theirs + 180) % 360 - 180).max() < 2.0


def rewritten(source: Path, target: Path, change: dict[tuple[int, str], str | None]) -> Path:
    """Copies a PDB file, renaming atoms by (residue number, name); None drops the atom."""
    lines = []
    for line in source.read_text().splitlines(keepends=True):
        if line.startswith("ATOM"):
            key = (int(line[22:26]), line[12:16].strip())
            if key in change:
                if change[key] is None:
                    continue
                line = f"{line[:12]}{change[key]:>4}{line[16:]}"
        lines.append(line)
    target.write_text("".join(lines))
    return target


def test_caps_count_as_neighbours(ala3: tuple[Path, Path], tmp_path: Path) -> None:
    topology, trajectory = ala3
    change: dict[tuple[int, str], str | None] = {
        (1, "CA"): "CH3", (1, "N"): "X1", (3, "CA"): "CH3", (3, "C"): "X2",
    }  # fmt: skip
    capped = rewritten(topology, tmp_path / "capped.pdb", change)
    assert ramachandran(capped, trajectory).residues == ("ALA2",)


def test_the_first_alternate_location_counts(ala3: tuple[Path, Path], tmp_path: Path) -> None:
    lines = [line for line in ala3[0].read_text().splitlines(True) if line.startswith("ATOM")]
    doubled = []
    for line in lines:
        if line[22:26].strip() == "2" and line[12:16].strip() in ("N", "CA", "CB"):
            doubled.append(f"{line[:16]}A{line[17:]}")
            doubled.append(f"{line[:16]}B{line[17:30]}{float(line[30:38]) + 0.4:8.3f}{line[38:]}")
        else:
            doubled.append(line)
    crystal = tmp_path / "crystal.pdb"
    crystal.write_text("".join(doubled) + "END\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a PDB file has no times
        found, plain = (ramachandran(file, file) for file in (crystal, ala3[0]))
    assert found.residues == ("ALA2",)
    np.testing.assert_allclose(found.phi_deg, plain.phi_deg)
    np.testing.assert_allclose(found.psi_deg, plain.psi_deg)


def test_two_chains_with_the_same_numbers(ala3: tuple[Path, Path], tmp_path: Path) -> None:
    universe = open_quietly(ala3[0])
    other = universe.copy()
    universe.segments.segids = ["A"]
    other.segments.segids = ["B"]
    other.atoms.chainIDs = "B"
    other.atoms.positions += 30.0
    both = MDAnalysis.Merge(universe.atoms, other.atoms)
    path = tmp_path / "both.pdb"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both.atoms.write(str(path))
    result = ramachandran(path, path)
    assert result.residues == ("A:ALA2", "B:ALA2")
    assert result.phi_deg[0, 0] == pytest.approx(result.phi_deg[0, 1], abs=0.1)


def test_no_residue_with_both(ala3: tuple[Path, Path], tmp_path: Path) -> None:
    topology, trajectory = ala3
    broken = rewritten(topology, tmp_path / "broken.pdb", {(3, "N"): "NX"})
    with pytest.raises(NoBackboneTorsionsError, match="no residue has both phi and psi"):
        ramachandran(broken, trajectory)


def test_different_atoms(ala3: tuple[Path, Path], tmp_path: Path) -> None:
    topology, trajectory = ala3
    fewer = rewritten(topology, tmp_path / "fewer.pdb", {(3, "OXT"): None})
    with pytest.raises(DataError, match=r"ala3.xtc: cannot be read with the 32 atoms of .*fewer"):
        ramachandran(fewer, trajectory)


def test_files_that_are_not_there_or_not_what_they_say(
    ala3: tuple[Path, Path], tmp_path: Path
) -> None:
    topology, trajectory = ala3
    with pytest.raises(DataError, match="no such file"):
        ramachandran(tmp_path / "none.pdb", trajectory)
    empty = tmp_path / "empty.xtc"
    empty.touch()
    with pytest.raises(DataError, match="the file is empty"):
        ramachandran(topology, empty)
    garbage = tmp_path / "garbage.xtc"
    garbage.write_bytes(b"not a trajectory" * 50)
    with pytest.raises(DataError, match="cannot be read"):
        ramachandran(topology, garbage)
    for name in ("garbage.pdb", "garbage.cif", "garbage.gro"):
        (tmp_path / name).write_text("no atoms in here\n")
        with pytest.raises(DataError, match=name):
            ramachandran(tmp_path / name, trajectory)


def test_a_frame_cut_off_at_the_end_is_left_out(ala3: tuple[Path, Path]) -> None:
    topology, trajectory = ala3
    whole = ramachandran(topology, trajectory)
    trajectory.write_bytes(trajectory.read_bytes()[:-20])
    cut = ramachandran(topology, trajectory)
    assert cut.n_frames == whole.n_frames - 1
    np.testing.assert_array_equal(cut.phi_deg, whole.phi_deg[:-1])


# --- run directories and files ---


def test_analyze_run_writes_three_files(run_dir: Path) -> None:
    result = analyze_run(run_dir)
    assert {path.name for path in run_dir.iterdir() if path.is_file()} == {
        "topology.pdb",
        "ramachandran.csv",
        "ramachandran.json",
        "ramachandran.png",
    }
    with (run_dir / "ramachandran.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == [
        "time_ps", "residue", "phi_deg", "psi_deg", "state_tiled", "state_thesis",
    ]  # fmt: skip
    assert [float(row["phi_deg"]) for row in rows] == pytest.approx(
        list(result.phi_deg[:, 0]), abs=5e-4
    )
    assert [row["state_tiled"] for row in rows] == TILED.labels(result.phi_deg, result.psi_deg)
    summary = json.loads((run_dir / "ramachandran.json").read_text())
    assert summary["trajectory"] == str(Path("04-production/trajectory.xtc"))
    assert (summary["n_frames"], summary["residues"]) == (60, ["ALA2"])
    pooled = summary["state_sets"]["tiled"]["pooled"]
    assert pooled == summary["state_sets"]["tiled"]["per_residue"]["ALA2"]
    shares = [state["population_percent"] for state in pooled["states"].values()]
    assert sum(shares) + pooled["unassigned_percent"] == pytest.approx(100.0)
    counted = {name: s["n_points"] for name, s in pooled["states"].items()}
    assert counted == {name: sum(row["state_tiled"] == name for row in rows) for name in counted}
    assert pooled["states"]["P"]["phi_mean_deg"] is None


def test_analyze_run_replaces_its_files_and_leaves_the_same(run_dir: Path) -> None:
    analyze_run(run_dir)
    before = {p.name: p.read_bytes() for p in run_dir.glob("ramachandran.*")}
    analyze_run(run_dir)
    assert before == {p.name: p.read_bytes() for p in run_dir.glob("ramachandran.*")}


def test_the_last_stage_that_wrote_frames_is_analysed(run_dir: Path) -> None:
    for number in ("10-extension", "11-not-started"):
        (run_dir / number).mkdir()
    (run_dir / "11-not-started" / "trajectory.xtc").touch()
    (run_dir / "9-notes").mkdir()
    (run_dir / "analysis-2").mkdir()
    extension = run_dir / "10-extension" / "trajectory.xtc"
    shutil.copy(DATA / "ala3.xtc", extension)
    assert stage_trajectory(run_dir) == extension
    assert stage_trajectory(run_dir, "extension") == extension
    assert stage_trajectory(run_dir, "10-extension") == extension
    with pytest.raises(RunDirectoryError, match="has written no frame"):
        stage_trajectory(run_dir, "not-started")
    with pytest.raises(RunDirectoryError, match=r"no stage 'absent' \(stages: .*10-extension"):
        stage_trajectory(run_dir, "absent")
    assert [path.name for path in stage_directories(run_dir)][-2:] == [
        "10-extension",
        "11-not-started",
    ]


def test_run_directories_without_what_is_needed(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "04-production" / "trajectory.xtc").unlink()
    with pytest.raises(RunDirectoryError, match=r"no stage has written a frame.*trip-mm resume"):
        analyze_run(run_dir)
    (run_dir / "topology.pdb").unlink()
    with pytest.raises(RunDirectoryError, match=r"holds no topology\.pdb"):
        analyze_run(run_dir)
    with pytest.raises(RunDirectoryError, match="no such directory"):
        analyze_run(tmp_path / "nowhere")


# --- pictures ---


@pytest.mark.parametrize(
    ("n_frames", "n_residues", "n_panels"), [(1, 1, 1), (50, 5, 5), (2500, 2, 2), (200, 13, 1)]
)
@pytest.mark.parametrize("states", [TILED, THESIS], ids=["tiled", "thesis"])
def test_figure(n_frames: int, n_residues: int, n_panels: int, states: object) -> None:
    rng = np.random.default_rng(3)
    phi, psi = rng.uniform(-180, 180, size=(2, n_frames, n_residues))
    figure = ramachandran_figure(made_of(phi, psi), states)  # type: ignore[arg-type]
    panels = [axes for axes in figure.axes if axes.get_xlabel().startswith(r"$\phi$")]
    shown = [axes for axes in panels if axes.get_visible()]
    assert len(shown) == n_panels
    for axes in shown:
        assert axes.get_xlim() == axes.get_ylim() == (-180, 180)
        assert list(axes.get_xticks()) == list(axes.get_yticks()) == list(range(-180, 181, 60))
        assert axes.get_aspect() == 1.0
        assert f"{n_frames:,} frames" in axes.get_title()
        assert len([text for text in axes.texts if "%" in text.get_text()]) == 5


def test_points_at_the_border_of_the_map_are_not_cut() -> None:
    phi, psi = np.array([[-180.0], [60.0], [179.9]]), np.array([[179.9], [-179.9], [180.0]])
    (axes, _) = ramachandran_figure(made_of(phi, psi), TILED).axes
    (points,) = axes.collections
    assert not points.get_clip_on()
    assert points.get_zorder() > max(spine.get_zorder() for spine in axes.spines.values())


@pytest.mark.parametrize("n_changes", [0, 1, 9, 10])
def test_few_changes_of_state_are_called_too_short_for_populations(n_changes: int) -> None:
    """A point that jitters across a border gives an error, of no worth."""
    psi = np.full((30, 1), 150.0)
    for start in range(1, n_changes + 1):
        psi[start:] = -40.0 if start % 2 else 150.0
    result = made_of(np.full((30, 1), -70.0), psi)
    too_short = n_changes < 10
    assert result.pooled_statistics(TILED).n_changes == n_changes
    assert result.pooled_statistics(TILED).is_too_short == too_short
    written = summary(result, Path())["state_sets"]["tiled"]
    for statistics in (written["pooled"], *written["per_residue"].values()):
        assert statistics["n_changes_of_state"] == n_changes
        assert statistics["too_short_for_populations"] == too_short
    title = ramachandran_figure(result, TILED).axes[0].get_title()
    assert "30 frames, 0 to 29 ps" in title
    assert ("too short for populations" in title) == too_short


def test_changes_of_all_residues_count() -> None:
    phi = np.full((8, 2), -70.0)
    psi = np.stack([np.resize([150.0, -40.0], 8), np.full(8, 150.0)], axis=1)
    result = made_of(phi, psi)
    assert result.pooled_statistics(TILED).n_changes == 7
    assert [own.n_changes for own in result.residue_statistics(TILED).values()] == [7, 0]


def pooled(n_frames: int, residues_change: bool) -> RamachandranResult:
    """13 residues, alpha and P_II in turn, which may all change at every frame."""
    psi = np.where(np.arange(13) % 2, 150.0, -40.0) + np.zeros((n_frames, 1))
    if residues_change:
        psi[1::2] = 110.0 - psi[1::2]
    return made_of(np.full((n_frames, 13), -70.0), psi)


@pytest.mark.parametrize("residues_change", [False, True])
@pytest.mark.parametrize("n_frames", [20, 200], ids=["points", "surface"])
def test_pooled_picture_and_table_agree_on_what_is_too_short(
    n_frames: int, residues_change: bool
) -> None:
    """Residues that differ from their neighbours have not changed."""
    result = pooled(n_frames, residues_change)
    assert result.pooled_statistics(TILED).is_too_short is not residues_change
    title = ramachandran_figure(result, TILED).axes[0].get_title()
    assert "13 residues pooled" in title
    assert ("too short for populations" in title) is not residues_change


def test_pooled_picture_shows_all_points_and_their_populations() -> None:
    result = pooled(20, residues_change=False)
    axes = ramachandran_figure(result, TILED).axes[0]
    (points,) = axes.collections
    drawn = np.stack([result.phi_deg.ravel(), result.psi_deg.ravel()], axis=1)
    np.testing.assert_array_equal(points.get_offsets(), drawn)
    np.testing.assert_array_equal(points.get_array(), np.repeat(result.times_ps, 13))
    shares = [text.get_text().split("  ")[1] for text in axes.texts]
    assert shares == ["0.0 %", "46.2 %", "53.8 %", "0.0 %", "0.0 %"]


def test_pooled_surface_is_that_of_all_points() -> None:
    phi, psi = np.random.default_rng(5).normal(size=(2, 200, 13)) * 40.0 - 70.0
    found, expected = (
        ramachandran_figure(made_of(p, q), TILED).axes[0]
        for p, q in ((phi, psi), (phi.reshape(-1, 1), psi.reshape(-1, 1)))
    )
    assert [t.get_text() for t in found.texts] == [t.get_text() for t in expected.texts]
    for one, other in zip(found.collections, expected.collections, strict=True):
        for path, same in zip(one.get_paths(), other.get_paths(), strict=True):
            np.testing.assert_array_equal(path.vertices, same.vertices)


def test_picture_is_written_in_the_format_of_its_suffix(tmp_path: Path) -> None:
    result = made_of(np.full((3, 1), -70.0), np.full((3, 1), 150.0))
    write_picture(result, tmp_path / "a.png", TILED)
    write_picture(result, tmp_path / "a.pdf", TILED)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_free_energy_is_periodic_and_zero_at_its_minimum() -> None:
    rng = np.random.default_rng(4)
    phi, psi = rng.normal([-175.0, 178.0], 15.0, size=(4000, 2)).T
    centres, surface = free_energy_surface(phi, psi)
    assert np.nanmin(surface) == 0.0
    _, turned = free_energy_surface(phi + 60.0, psi - 90.0)
    shift = (round(-90.0 / (centres[1] - centres[0])), round(60.0 / (centres[1] - centres[0])))
    np.testing.assert_allclose(turned, np.roll(surface, shift, axis=(0, 1)), atol=1e-9)
    assert np.isnan(surface[len(centres) // 2, len(centres) // 2])
