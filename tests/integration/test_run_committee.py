"""A committee that watches a run: its columns, its stop rule, its place in the run directory."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

import trip_mm
from trip_mm.committee import load_committee, save_committee
from trip_mm.errors import ConfigError, DisagreementError, UnsupportedElementError
from trip_mm.simulation.committee_reporter import (
    ATOM_COLUMN,
    COMMITTEE_COLUMNS,
    LARGEST_COLUMN,
    CommitteeReporter,
)
from trip_mm.simulation.interruption import RunInterrupted
from trip_mm.simulation.plan import RunOptions
from trip_mm.simulation.reporters import read_table
from trip_mm.simulation.structure_file import load_structure
from trip_mm.units import EV_TO_KCAL_PER_MOL
from trip_mm.workflow import prepare_run, start

SYSTEM = """
solvent: {edge: 10 A, n_waters: 20}
potential: {amber14: tip3pfb}
"""
PROTOCOL = """
defaults: {temperature: 298 K, timestep: 1 fs, trajectory_interval: 6 fs, log_interval: 10 fs,
           checkpoint_interval: 13 fs}
stages:
  - {kind: minimize, max_iterations: 20}
  - {kind: nvt, duration: 60 fs, committee: {models: MODELS, every: 6 fs}}
"""
N_MEMBERS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("committee")
    config = dataclasses.replace(
        trip_mm.TripConfig.preset("trip-s"), n_layers=1, n_channels=4, l_max=1, n_heads=2, cutoff=3
    )
    members = [
        trip_mm.save_potential(
            trip_mm.new_potential(config, seed=seed), folder / f"m{seed}.safetensors"
        )
        for seed in range(N_MEMBERS)
    ]
    save_committee(members, folder / "three.json")
    (folder / "water.yaml").write_text(SYSTEM)
    (folder / "watched.yaml").write_text(PROTOCOL.replace("MODELS", str(folder / "three.json")))
    return folder


def run(folder: Path, out: Path, *overrides: str) -> Path:
    return trip_mm.run(
        folder / "water.yaml",
        folder / "watched.yaml",
        out,
        platform="Reference",
        overrides=overrides,
    )


@pytest.fixture(scope="module")
def watched(folder: Path) -> Path:
    return run(folder, folder / "watched")


def test_every_comparison_is_a_row_and_the_log_has_the_largest(watched: Path) -> None:
    rows = read_table(watched / "02-nvt" / "committee.csv")
    assert tuple(rows) == COMMITTEE_COLUMNS
    assert rows["Step"].tolist() == list(range(6, 61, 6))
    np.testing.assert_allclose(rows["Time (ps)"], rows["Step"] / 1000.0)
    log = read_table(watched / "02-nvt" / "log.csv")
    for step, largest in zip(log["Step"], log[LARGEST_COLUMN], strict=True):
        since = (rows["Step"] > step - 10) & (rows["Step"] <= step)
        assert largest == rows[LARGEST_COLUMN][since].max()
    record = json.loads((watched / "02-nvt" / "done.json").read_text())
    assert record["largest_force_disagreement_kcal_per_mol_per_angstrom"] == pytest.approx(
        rows[LARGEST_COLUMN].max()
    )


def test_the_disagreement_is_that_of_the_frame(watched: Path, folder: Path) -> None:
    structure = load_structure(watched / "structure.json")
    state = openmm.XmlSerializer.deserialize((watched / "02-nvt" / "state.xml").read_text())
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    cell = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
    numbers = np.asarray([atom.element.atomic_number for atom in structure.topology.atoms()])
    found = load_committee(folder / "three.json").predict(positions, numbers, np.asarray(cell))
    expected = found.force_disagreement * EV_TO_KCAL_PER_MOL
    rows = read_table(watched / "02-nvt" / "committee.csv")
    assert rows[LARGEST_COLUMN][-1] == pytest.approx(expected.max(), rel=1e-3)
    assert rows[ATOM_COLUMN][-1] == expected.argmax()
    assert rows[COMMITTEE_COLUMNS[-1]][-1] == pytest.approx(expected.mean(), rel=1e-3)


def test_the_members_are_kept_beside_the_run_and_named(watched: Path) -> None:
    record = json.loads((watched / "run.json").read_text())
    names = record["stages"][1]["committee"]["models"]
    assert len(names) == N_MEMBERS
    assert all((watched / name).is_file() for name in names)
    methods = (watched / "methods.md").read_text()
    assert "the forces of 3 TrIP models" in methods
    assert all(record["models"][f"trip:{name}"]["sha256"] in methods for name in names)


def test_a_run_stops_at_the_frame_and_goes_on_beyond_it(
    watched: Path, folder: Path, tmp_path: Path
) -> None:
    free = read_table(watched / "02-nvt" / "committee.csv")
    values = free[LARGEST_COLUMN]
    first = int(np.argmax(values >= np.sort(values)[-2]))  # of the two largest, the earlier
    limit = 0.5 * (np.sort(values)[-3] + np.sort(values)[-2])
    out = tmp_path / "stopped"
    with pytest.raises(DisagreementError) as stop:
        run(folder, out, f"stages.1.committee.stop_above={limit:.5f} kcal/mol/A")
    text = str(stop.value)
    step, atom = int(free["Step"][first]), int(free[ATOM_COLUMN][first])
    assert f"02-nvt: step {step} " in text
    assert f"(atom {atom}) by {values[first]:.2f} kcal/mol/A" in text
    assert f"trip-mm resume {out}" in text
    assert (out / "02-nvt" / "uncertain" / "frame.pdb").stat().st_size > 0
    frame = openmm.XmlSerializer.deserialize(
        (out / "02-nvt" / "uncertain" / "frame.xml").read_text()
    )
    assert frame.getTime().value_in_unit(unit.femtosecond) == pytest.approx(step)
    assert read_table(out / "02-nvt" / "committee.csv")["Step"][-1] == step
    with pytest.raises(DisagreementError):  # the second of the two
        trip_mm.resume(out)
    trip_mm.resume(out)
    for name in ("committee.csv", "monitor.csv", "trajectory.xtc", "state.xml"):
        ours, theirs = (path / "02-nvt" / name for path in (out, watched))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_resumed_log_has_the_column_of_an_uninterrupted_one(
    watched: Path, folder: Path, tmp_path: Path
) -> None:
    class Stopper:
        def message(self, text: str) -> None: ...

        def stage_started(self, label: str, n_steps: int, step: int, unit: str = "") -> None:
            self.stop_from = 26 if label == "02-nvt" else 1_000_000

        def stage_advanced(self, step: int, ns_per_day: float, detail: str) -> None:
            if step >= self.stop_from:  # after a comparison at 24, before the row of the log at 30
                signal.raise_signal(signal.SIGINT)

        def stage_finished(self, text: str) -> None: ...

        def stopped(self) -> None: ...

    prepared = prepare_run(
        folder / "water.yaml", folder / "watched.yaml", RunOptions(platform="Reference")
    )
    with pytest.raises(RunInterrupted):
        start(prepared, tmp_path / "run", Stopper())
    done = read_table(tmp_path / "run" / "02-nvt" / "committee.csv")["Step"]
    assert done[-1] == 24
    trip_mm.resume(tmp_path / "run")
    logs = [read_table(path / "02-nvt" / "log.csv") for path in (watched, tmp_path / "run")]
    assert logs[0][LARGEST_COLUMN].tolist() == logs[1][LARGEST_COLUMN].tolist()


def test_a_committee_of_copies_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copyfile(folder / "m0.safetensors", tmp_path / "copy.safetensors")
    models = f"[{folder / 'm0.safetensors'}, {tmp_path / 'copy.safetensors'}]"
    with pytest.raises(ConfigError, match=r"stage nvt: committee.models: .* are the same model"):
        run(folder, tmp_path / "out", f"stages.1.committee.models={models}")
    assert not (tmp_path / "out").exists()


def test_an_element_that_the_committee_does_not_know_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    ions = ["solvent.ions={neutralize: false, concentration: 3 mol/l}"]
    with pytest.raises(UnsupportedElementError, match="sodium"):
        run(folder, tmp_path / "out", "solvent.edge=13 A", "solvent.n_waters=60", *ions)


def test_the_reporter_serves_any_simulation(folder: Path, tmp_path: Path) -> None:
    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    for symbol in ("O", "H", "H"):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    system = openmm.System()
    for mass in (16.0, 1.0, 1.0):
        system.addParticle(mass)
    simulation = app.Simulation(topology, system, openmm.VerletIntegrator(0.001))
    simulation.context.setPositions(np.asarray([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]]))
    committee = load_committee(folder / "three.json")
    for _ in range(2):
        reporter = CommitteeReporter(tmp_path / "c.csv", 2, committee, topology)
        assert reporter.latest is None
        simulation.reporters = [reporter]
        simulation.step(5)
        assert reporter.latest.per_atom.shape == (3,)
        reporter.close()
    assert read_table(tmp_path / "c.csv")["Step"].tolist() == [2, 4, 6, 8, 10]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
