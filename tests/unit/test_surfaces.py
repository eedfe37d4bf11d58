"""Rigid paths, curves, their figures, terms switched off, and the scan of water."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from trip_mm.checkpoint import load_potential, new_potential, save_potential
from trip_mm.cli.scan import app
from trip_mm.errors import (
    ConfigError,
    DataError,
    EvaluationError,
    UnsupportedElementError,
    UnsupportedSystemError,
)
from trip_mm.geometry.molecule import read_molecule
from trip_mm.geometry.potentials import parse_potential
from trip_mm.model.config import TripConfig
from trip_mm.potential import TripPotential
from trip_mm.surfaces import subjects as subjects_module
from trip_mm.surfaces import water as water_module
from trip_mm.surfaces.ablations import TERMS, StepEnvelope, switch_off
from trip_mm.surfaces.bond import bond_path, parse_atoms
from trip_mm.surfaces.curve import Curve, compute_curves
from trip_mm.surfaces.diatomic import diatomic_path
from trip_mm.surfaces.dimer import dimer_path
from trip_mm.surfaces.path import RigidPath, distance_grid
from trip_mm.surfaces.plots import surfaces_figure
from trip_mm.surfaces.smoothness import (
    Well,
    false_wells,
    find_wells,
    mean_absolute_error,
    smoothness,
)
from trip_mm.surfaces.subjects import Subject, subjects_of
from trip_mm.surfaces.water import (
    Surface,
    compare,
    compute_surfaces,
    reference_surfaces,
    water_molecule,
    water_positions,
)
from trip_mm.units import EV_TO_KCAL_PER_MOL

MODEL = "trip-gfn2-s"
GRID = distance_grid(0.5, 5.0, 0.05)


def distances_in(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(positions[:, None] - positions[None], axis=-1)


def morse(distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    decay = np.exp(-2.0 * (distances - 1.0))
    return 4.0 * (1.0 - decay) ** 2, -16.0 * (1.0 - decay) * decay


def curve(energies: NDArray[np.float64], forces: NDArray[np.float64] | None = None) -> Curve:
    return Curve("made up", GRID, energies, forces)


@pytest.fixture(scope="module")
def potential() -> TripPotential:
    return load_potential(MODEL, dtype="float64").requires_grad_(False)


class TestPaths:
    def test_grid_ends_where_it_should(self) -> None:
        grid = distance_grid(0.5, 4.5, 0.1)
        assert len(grid) == 41
        assert grid[-1] == 4.5
        np.testing.assert_allclose(np.diff(grid), 0.1)

    @pytest.mark.parametrize(
        ("first", "last", "step"), [(0.0, 4, 0.1), (2, 1, 0.1), (1, 2, 0), (1, 2, 0.3), (1, 2, 0.5)]
    )
    def test_senseless_grids_are_refused(self, first: float, last: float, step: float) -> None:
        with pytest.raises(ConfigError):
            distance_grid(first, last, step)

    def test_bond_moves_one_side_only(self) -> None:
        molecule = read_molecule("CO")
        path = bond_path(molecule, (0, 1), GRID)
        for index in (0, 40):
            positions = path.positions(index)
            assert distances_in(positions)[0, 1] == pytest.approx(GRID[index])
            for side in ([0, 2, 3, 4], [1, 5]):
                np.testing.assert_allclose(
                    distances_in(positions[side]), distances_in(molecule.positions[side])
                )

    def test_rings_and_missing_bonds_are_refused(self) -> None:
        with pytest.raises(UnsupportedSystemError, match="ring"):
            bond_path(read_molecule("C1CC1"), (0, 1), GRID)
        with pytest.raises(UnsupportedSystemError, match=r"0,1 \(O-H\)"):
            bond_path(read_molecule("O"), (1, 2), GRID)

    def test_dimer_faces_its_contact_atoms(self) -> None:
        water, ammonia = read_molecule("O"), read_molecule("N")
        path = dimer_path(water, ammonia, (1, 0), GRID)
        positions = path.positions(30)
        assert distances_in(positions)[1, 3] == pytest.approx(GRID[30])
        np.testing.assert_allclose(distances_in(positions[:3]), distances_in(water.positions))
        np.testing.assert_allclose(distances_in(positions[3:]), distances_in(ammonia.positions))
        line = [positions[:3].mean(axis=0), positions[1], positions[3], positions[3:].mean(axis=0)]
        along = np.array([b - a for a, b in pairwise(line)])
        np.testing.assert_allclose(along[:, 1:], 0.0, atol=1e-9)
        assert (along[:, 0] > 0).all()

    def test_chirality_survives_the_turning(self) -> None:
        molecule = read_molecule("C[C@H](N)O")
        path = dimer_path(molecule, read_molecule("O"), (0, 0), GRID)
        n = molecule.n_atoms
        centred = [x - x.mean(axis=0) for x in (molecule.positions, path.positions(0)[:n])]
        rotation, *_ = np.linalg.lstsq(centred[0], centred[1], rcond=None)
        assert np.linalg.det(rotation) == pytest.approx(1.0)

    @pytest.mark.parametrize("text", ["OH", "O-", "O-H-H", "Xx-H", ""])
    def test_pairs_that_are_none(self, text: str) -> None:
        with pytest.raises((ConfigError, UnsupportedElementError)):
            diatomic_path(text, GRID)

    def test_pair_has_the_parity_of_its_electrons(self) -> None:
        assert diatomic_path("O-H", GRID).molecule.n_unpaired == 1
        assert diatomic_path("c-c", GRID).molecule.n_unpaired == 0

    @pytest.mark.parametrize("text", ["0", "0,1,2", "a,b", "-1,0", ""])
    def test_atoms_that_are_none(self, text: str) -> None:
        with pytest.raises(ConfigError, match="indices"):
            parse_atoms(text)


class TestSmoothness:
    def test_a_single_well_is_smooth(self) -> None:
        found = smoothness(curve(*morse(GRID)))
        assert found.tortuosity == pytest.approx(1.0)
        assert found.force_flips == 1
        assert found.repulsion == pytest.approx(-1.0)
        assert [well.distance_angstrom for well in found.wells] == [1.0]
        assert found.wells[0].depth_kcal_per_mol == pytest.approx(
            curve(morse(GRID)[0]).kcal_per_mol_above(1.0)[-1]
        )
        assert found.conservation_kcal_per_mol is not None
        assert found.conservation_kcal_per_mol < 0.01 * found.shortest_kcal_per_mol

    def test_a_bump_costs_all_figures(self) -> None:
        energies, forces = morse(GRID)
        bump = 2.0 * np.exp(-(((GRID - 3.0) / 0.2) ** 2))
        found = smoothness(curve(energies + bump, forces + bump * 50.0 * (GRID - 3.0)))
        assert found.tortuosity > 1.0
        assert found.force_flips == 3
        # The Morse curve still rises beyond the bump.
        assert [well.distance_angstrom for well in found.wells] == [1.0, 3.5]

    def test_conservation_sees_forces_of_another_energy(self) -> None:
        energies, forces = morse(GRID)
        plain = smoothness(curve(energies, forces)).conservation_kcal_per_mol
        tilted = smoothness(curve(energies, forces + 0.1)).conservation_kcal_per_mol
        assert plain is not None
        assert tilted is not None
        assert tilted == pytest.approx(0.45 * EV_TO_KCAL_PER_MOL, abs=2 * plain + 0.05)

    def test_a_jump_shows_where_the_slope_turns(self) -> None:
        energies, _ = morse(GRID)
        energies[60:] -= 0.5
        jump = smoothness(curve(energies)).energy_jump_kcal_per_mol
        assert jump > 0.5 * EV_TO_KCAL_PER_MOL
        assert smoothness(curve(energies)).force_flips is None

    def test_a_hole_in_the_wall_is_a_well(self) -> None:
        energies, _ = morse(GRID)
        energies[:4] = energies[4] - 0.5 * np.arange(4, 0, -1)
        wells = smoothness(curve(energies)).wells
        assert [well.distance_angstrom for well in wells] == [0.5, 1.0]
        assert false_wells(wells, (Well(1.05, 3.0),)) == wells[:1]
        assert wells[0].depth_kcal_per_mol == pytest.approx(2.0 * EV_TO_KCAL_PER_MOL)
        energies[0] -= 10.0  # now below the well of the molecule
        deepest = smoothness(curve(energies)).wells[0]
        assert deepest.distance_angstrom == 0.5
        assert deepest.depth_kcal_per_mol > 10.0 * EV_TO_KCAL_PER_MOL

    def test_depth_decides_on_a_line_and_on_a_grid(self) -> None:
        line = np.array([3.0, 0.0, 2.0, 1.5, 4.0, np.nan, 9.0])
        assert find_wells(line, 0.4) == [((1,), np.inf), ((3,), 0.5), ((6,), np.inf)]
        assert [cell for cell, _ in find_wells(line, 0.6)] == [(1,), (6,)]
        x = np.linspace(-2, 2, 41)
        grid = (x[:, None] ** 2 - 1) ** 2 + x[None] ** 2 + 0.1 * x[:, None]
        assert [cell for cell, _ in find_wells(grid, 0.5)] == [(10, 20), (30, 20)]
        assert [cell for cell, _ in find_wells(grid, 1.0)] == [(10, 20)]

    def test_errors_count_within_the_window(self) -> None:
        energies, _ = morse(GRID)
        shifted = curve(energies + 3.0)
        assert mean_absolute_error(shifted, curve(energies), 1.0) == pytest.approx(0.0)
        wrong = energies + np.where(GRID < 0.55, 50.0, 0.0)  # beyond 100 kcal/mol
        assert mean_absolute_error(curve(wrong), curve(energies), 1.0) == pytest.approx(0.0)
        wrong = energies + np.where(GRID > 1.5, 1.0, 0.0)
        assert 0.5 < mean_absolute_error(curve(wrong), curve(energies), 1.0) < 24.0  # type: ignore[operator]


class TestAblations:
    def test_the_original_stays(self, potential: TripPotential) -> None:
        x, z = water_positions(1.0, 1.0), [8, 1, 1]
        before = potential.energy_and_forces(x, np.array(z))[0]
        for term in TERMS:
            assert switch_off(potential, term).energy_and_forces(x, np.array(z))[0] != before
        assert potential.energy_and_forces(x, np.array(z))[0] == before

    @pytest.mark.parametrize("term", list(TERMS))
    def test_forces_stay_the_gradient_and_kernels_agree(
        self, potential: TripPotential, term: str
    ) -> None:
        changed = switch_off(potential, term)
        x, z, h = water_positions(1.0, 1.3), np.array([8, 1, 1]), 1e-4
        energy, forces = changed.energy_and_forces(x, z)
        fast = changed.with_kernels().energy_and_forces(x, z)
        assert fast[0] == pytest.approx(energy, abs=1e-9)
        up, down = (changed.energy_and_forces(x + s * h * np.eye(9)[3].reshape(3, 3), z)[0]
                    for s in (1, -1))  # fmt: skip
        assert forces[1, 0] == pytest.approx(-(up - down) / (2 * h), abs=1e-5)

    def test_zbl_is_what_is_missing(self, potential: TripPotential) -> None:
        z, x = torch.tensor([8, 1]), torch.tensor([[0.0, 0, 0], [0.7, 0, 0]], dtype=torch.float64)
        lengths = torch.tensor([0.7, 0.7], dtype=torch.float64)
        ends = torch.tensor([0, 1]), torch.tensor([1, 0])
        envelope = potential.model.envelope(lengths)[0]
        expected = potential.model.repulsion(z, *ends, lengths, envelope).sum()
        without = switch_off(potential, "zbl").energy_and_forces(x, z)[0]
        assert float(potential.energy_and_forces(x, z)[0] - without) == pytest.approx(
            float(expected)
        )
        assert float(expected) > 5.0

    def test_lone_atoms_take_the_regressed_energy(self, potential: TripPotential) -> None:
        lone = np.zeros((1, 3)), np.array([8])
        row = potential.supported_elements.index(8)
        shift = (
            switch_off(potential, "lone-atoms").energy_and_forces(*lone)[0]
            - potential.energy_and_forces(*lone)[0]
        )
        assert shift == pytest.approx(float(potential.model.binding_energies[row]))
        assert abs(shift) > 0.1

    def test_the_step_is_a_step(self) -> None:
        envelope, log_envelope = StepEnvelope(4.6)(torch.tensor([0.5, 4.59, 4.61]))
        assert envelope.tolist() == [1.0, 1.0, 0.0]
        assert log_envelope.tolist() == [0.0, 0.0, -1e9]

    def test_what_is_not_there_cannot_be_switched_off(self) -> None:
        bare = TripConfig.from_dict(
            {**TripConfig.preset("trip-s").to_dict(), "repulsion": "none", "lone_atoms": "trained"}
        )
        with pytest.raises(ConfigError, match="no ZBL"):
            switch_off(new_potential(bare), "zbl")
        with pytest.raises(ConfigError, match="constraint"):
            switch_off(new_potential(bare), "lone-atoms")
        with pytest.raises(ConfigError, match="zbl, bump, lone-atoms"):
            switch_off(new_potential(bare), "attention")


class TestCurves:
    def test_model_and_tight_binding_agree_on_a_bond(self, tmp_path: Path) -> None:
        path = bond_path(read_molecule("O"), (0, 1), distance_grid(0.6, 4.4, 0.1))
        subjects = subjects_of([parse_potential("gfn2"), parse_potential(MODEL)], [])
        reference, own = compute_curves(path, subjects, tmp_path, lambda line: None)
        assert reference.failures == ()
        gaps = own.kcal_per_mol_above(path.zero) - reference.kcal_per_mol_above(path.zero)
        assert np.abs(gaps).max() < 40.0
        assert np.abs(gaps[3:8]).max() < 5.0
        assert own.forces is not None
        slope = np.gradient(own.energies, own.distances)
        assert own.forces[20] == pytest.approx(-slope[20], abs=0.2)

    def test_failures_are_left_out_and_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = diatomic_path("H-H", distance_grid(0.5, 1.5, 0.1))

        def evaluate(positions: NDArray[np.float64]) -> tuple[float, None]:
            distance = float(positions[1, 0] - positions[0, 0])
            if distance > 1.35:
                raise EvaluationError("too far")
            return -1.0 / distance, None

        monkeypatch.setattr(
            "trip_mm.surfaces.curve.bind_subject", lambda subject, molecule: evaluate
        )
        subject = Subject(parse_potential("gfn2"))
        (found,) = compute_curves(path, [subject], tmp_path, lambda line: None)
        assert len(found.energies) == 9
        assert found.failures == ("1.4 A: too far", "1.5 A: too far")
        assert found.forces is None

    def test_a_density_functional_is_not_repeated(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = diatomic_path("H-H", distance_grid(0.5, 1.5, 0.1))
        calls: list[float] = []

        def bind_energy(spec: object, molecule: object) -> object:
            def energy(positions: NDArray[np.float64]) -> float:
                calls.append(float(positions[1, 0]))
                if len(calls) == 6:
                    raise KeyboardInterrupt
                return float(positions[1, 0])

            return energy

        monkeypatch.setattr(subjects_module, "bind_energy", bind_energy)
        subjects = [Subject(parse_potential("wb97x/6-31g*"))]
        with pytest.raises(KeyboardInterrupt):
            compute_curves(path, subjects, tmp_path, lambda line: None)
        (found,) = compute_curves(path, subjects, tmp_path, lambda line: None)
        assert len(calls) == 12
        assert len(found.energies) == 11
        other = diatomic_path("H-H", distance_grid(0.5, 1.5, 0.2))
        with pytest.raises(ConfigError, match="other settings"):
            compute_curves(other, subjects, tmp_path, lambda line: None)

    def test_a_potential_that_never_works_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def evaluate(positions: object) -> tuple[float, None]:
            raise EvaluationError("never")

        monkeypatch.setattr(
            "trip_mm.surfaces.curve.bind_subject", lambda subject, molecule: evaluate
        )
        with pytest.raises(DataError, match=r"0\.5 A: never"):
            compute_curves(
                diatomic_path("H-H", GRID),
                [Subject(parse_potential("gfn2"))],
                tmp_path,
                lambda line: None,
            )

    def test_terms_follow_their_model(self) -> None:
        specs = [parse_potential("gfn2"), parse_potential(MODEL)]
        assert [s.label for s in subjects_of(specs, ["zbl"])] == [
            "GFN2-xTB",
            f"TrIP {MODEL}",
            f"TrIP {MODEL}, no ZBL",
        ]
        with pytest.raises(ConfigError, match="no potential is a TrIP"):
            subjects_of(specs[:1], ["zbl"])
        with pytest.raises(ConfigError, match="twice"):
            subjects_of(specs + specs[:1], [])

    def test_two_models_of_one_name_keep_apart(self, tmp_path: Path) -> None:
        files = [tmp_path / folder / "m.safetensors" for folder in ("a", "b")]
        for file in files:
            save_potential(new_potential("trip-s"), file)
        names = {Subject(parse_potential(str(file))).file_name for file in files}
        assert len(names) == 2
        # Their figures are kept by label: one would stand in the rows of both.
        with pytest.raises(ConfigError, match=r"both called TrIP m in tables"):
            subjects_of([parse_potential(str(file)) for file in files], [])


class TestWater:
    def test_geometry(self) -> None:
        x = water_positions(0.9, 1.7)
        assert distances_in(x)[0].tolist() == pytest.approx([0.0, 0.9, 1.7])
        cosine = x[1] @ x[2] / (0.9 * 1.7)
        assert np.degrees(np.arccos(cosine)) == pytest.approx(104.5)

    def test_only_half_is_computed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []

        def evaluate(positions: NDArray[np.float64]) -> tuple[float, None]:
            calls.append(distances_in(positions)[0, 1:])
            return float((calls[-1] ** 2).sum()), None

        monkeypatch.setattr(
            "trip_mm.surfaces.water.bind_subject", lambda subject, molecule: evaluate
        )
        grid = distance_grid(0.5, 1.5, 0.25)
        (found,) = compute_surfaces(
            grid, [Subject(parse_potential("gfn2"))], tmp_path, lambda line: None
        )
        assert len(calls) == 15
        np.testing.assert_allclose(found.energies, grid[:, None] ** 2 + grid[None] ** 2)

    def test_the_reference_is_whole_and_sensible(self) -> None:
        singlet, ground = reference_surfaces()
        for surface in (singlet, ground):
            assert len(surface.distances) == 21
            assert np.isfinite(surface.energies).all()
            np.testing.assert_array_equal(surface.energies, surface.energies.T)
            i, j = np.unravel_index(surface.energies.argmin(), surface.energies.shape)
            assert surface.distances[[i, j]].tolist() == pytest.approx([1.0, 1.0], abs=0.11)
        assert (ground.energies <= singlet.energies).all()
        # Torn bonds: paired electrons cost a lot, the ground state tends to H + OH and O + 2 H.
        relative = ground.kcal_per_mol_above_minimum
        assert 100 < relative[5, -1] < 150  # De of H-OH is 125 kcal/mol
        assert 200 < relative[-1, -1] < 260  # atomization, De 232 kcal/mol
        assert singlet.kcal_per_mol_above_minimum[-1, -1] > relative[-1, -1] + 100

    @pytest.mark.slow
    def test_reference_is_reproduced(self) -> None:
        from trip_mm.surfaces.spin_states import FunctionalSettings, solve_spin_state

        singlet, ground = reference_surfaces()
        for i, j in ((4, 5), (5, 13)):
            x = water_positions(singlet.distances[i], singlet.distances[j])
            states = [
                solve_spin_state(water_molecule().atomic_numbers, x, FunctionalSettings(), n).energy
                for n in (0, 2)
            ]
            assert states[0] == pytest.approx(singlet.energies[i, j], abs=1e-4)
            assert min(states) == pytest.approx(ground.energies[i, j], abs=1e-4)

    def test_comparison_knows_regions_and_false_wells(self) -> None:
        _, reference = reference_surfaces()
        same = compare(reference, reference)
        assert same.mae == 0.0
        assert same.false_wells == ()
        assert set(same.mae_by_region) == {"close", "bound", "one torn", "both torn"}
        energies = reference.energies.copy()
        far = reference.distances > 2.0
        energies[np.ix_(far, far)] -= 1.0
        energies[0, 0] -= 25.0
        worse = compare(Surface("worse", reference.distances, energies), reference)
        assert worse.mae_by_region["both torn"] > 0.5 * EV_TO_KCAL_PER_MOL
        assert worse.mae_by_region["bound"] == pytest.approx(0.0)
        assert worse.false_wells == ((0.5, 0.5),)

    def test_the_picture_explains_its_lines_and_its_grey(self) -> None:
        whole, _ = reference_surfaces()
        energies = whole.energies.copy()
        energies[-3:, -3:] = np.nan
        torn = Surface("torn", whole.distances, energies)
        figure = surfaces_figure([whole, torn])
        assert "white lines every 50" in figure.axes[-1].get_ylabel()
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == ["no energy: the method failed"]
        assert surfaces_figure([whole]).legends == []

    def test_grids_that_never_meet(self) -> None:
        _, reference = reference_surfaces()
        other = Surface("other", reference.distances + 0.03, reference.energies)
        with pytest.raises(DataError, match="share 0 distances"):
            compare(other, reference)

    def test_grids_that_never_meet_are_refused_before_anything_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: object) -> None:
            raise AssertionError("nothing may be computed")

        monkeypatch.setattr(water_module, "compute_surfaces", refuse)
        options = ["--from", "0.53", "--to", "1.03", "--out", str(tmp_path / "out")]
        found = CliRunner().invoke(app, ["water", "--potential", "gfn2", *options])
        assert found.exit_code == 2
        assert "share 0 distances" in " ".join(found.output.split())


def test_force_along_a_path_is_minus_the_slope(potential: TripPotential) -> None:
    path: RigidPath = dimer_path(read_molecule("O"), read_molecule("C"), (1, 0), GRID)
    numbers = path.molecule.atomic_numbers
    energies = [potential.energy_and_forces(path.positions(i), numbers)[0] for i in (30, 32)]
    force = path.force_along(potential.energy_and_forces(path.positions(31), numbers)[1])
    assert force == pytest.approx(-(energies[1] - energies[0]) / 0.1, abs=0.01)
