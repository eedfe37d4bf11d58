"""Runs from YAML to analysed trajectory, on Amber14 and on TrIP, and what goes wrong on the way."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from openmm import XmlSerializer, unit
from typer.testing import CliRunner

import trip_mm
from trip_mm.cli.console import console
from trip_mm.cli.main import app
from trip_mm.errors import (
    CellTooSmallError,
    CheckpointError,
    ConfigError,
    RunDirectoryError,
    UnstableSimulationError,
)
from trip_mm.simulation.reporters import read_table
from trip_mm.simulation.structure_file import load_structure

PEPTIDE = """
structure: {sequence: AAA, termini: zwitterion}
potential: {amber14: tip3pfb}
"""
WATER = """
solvent: {edge: 10 A, n_waters: 20}
potential: {amber14: tip3pfb}
"""
PROTOCOL = """
defaults: {temperature: 298 K, timestep: 1 fs, trajectory_interval: 10 fs, log_interval: 10 fs}
stages:
  - {kind: minimize, max_iterations: 30}
  - {kind: nvt, name: heat, duration: 60 fs, temperature: {start: 50 K, end: 298 K}}
  - {kind: nve, name: production, duration: 40 fs}
"""
ML_PROTOCOL = """
defaults: {temperature: 298 K, timestep: {ml: 0.25 fs, classical: 1 fs}, trajectory_interval: 1 fs,
           log_interval: 1 fs, checkpoint_interval: 1 fs}
stages:
  - {kind: minimize, potential: amber14, max_iterations: 50, name: relax}
  - {kind: nvt, name: soak, potential: amber14, duration: 20 fs}
  - {kind: minimize, max_iterations: 2}
  - {kind: nvt, duration: 2 fs, hydrogen_mass: 2 u}
  - {kind: npt, duration: 2 fs, pressure: 1 bar, barostat_interval: 1}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "peptide.yaml").write_text(PEPTIDE)
    (tmp_path / "water.yaml").write_text(WATER)
    (tmp_path / "short.yaml").write_text(PROTOCOL)
    (tmp_path / "ml.yaml").write_text(ML_PROTOCOL)
    return tmp_path


@pytest.fixture(scope="module")
def peptide_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peptide")
    (folder / "peptide.yaml").write_text(PEPTIDE)
    (folder / "short.yaml").write_text(PROTOCOL)
    return trip_mm.run(
        folder / "peptide.yaml",
        folder / "short.yaml",
        folder / "out",
        platform="Reference",
        threads=1,
    )


@pytest.fixture(scope="module")
def calm_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny TrIP whose forces are weak: atoms fly nearly freely for a few femtoseconds."""
    config = dataclasses.replace(
        trip_mm.TripConfig.preset("trip-s"),
        n_layers=1,
        n_channels=4,
        l_max=1,
        n_heads=2,
        cutoff=3.0,
        repulsion="none",
    )
    potential = trip_mm.new_potential(config, seed=1)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.mul_(0.3)
    return trip_mm.save_potential(potential, tmp_path_factory.mktemp("model") / "calm.safetensors")


@pytest.mark.parametrize(("tolerance", "limit"), [(50, 0), (1, 3)])
def test_a_minimization_says_whether_it_converged(
    tolerance: int, limit: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Forces along the rigid bonds of the water, hundreds of kJ/mol/nm, do not count."""
    (folder / "min.yaml").write_text(
        f"stages: [{{kind: minimize, tolerance: {tolerance} kJ/mol/nm, max_iterations: {limit}}}]"
    )
    with caplog.at_level("INFO", logger="trip_mm"):
        out = trip_mm.run(
            folder / "water.yaml", folder / "min.yaml", folder / "out", platform="Reference"
        )
    done = json.loads((out / "01-minimize" / "done.json").read_text())
    log = read_table(out / "01-minimize" / "log.csv")
    assert done["converged"] == (limit == 0)
    assert (done["rms_force_kj_per_mol_nm"] <= tolerance) == (limit == 0)
    assert done["largest_force_kj_per_mol_nm"] < 2.0 * log["Largest Force (kJ/mole/nm)"][-1]
    said = (
        f"stopped after {done['iterations']} iterations ({done['passes']} passes of at most 3: "
        "rigid bonds are tightened from pass to pass) at a root-mean-square force of"
    )
    assert (said in caplog.text) == (limit > 0)
    assert ("raise it with `--set stages.minimize.max_iterations=N`" in caplog.text) == (limit > 0)


def test_every_place_counts_the_iterations_of_a_minimization_alike(folder: Path) -> None:
    """OpenMM minimizes with rigid bonds in passes, and the limit holds for each of them."""
    (folder / "min.yaml").write_text("stages: [{kind: minimize, max_iterations: 3}]")
    arguments = (folder / "water.yaml", folder / "min.yaml", folder / "out")
    out = trip_mm.run(*arguments, platform="Reference")
    done = json.loads((out / "summary.json").read_text())["stages"][0]
    log = read_table(out / "01-minimize" / "log.csv")
    assert done["passes"] > 1
    assert 3 < done["iterations"] <= 3 * done["passes"]
    assert done["iterations"] == log["Iteration"][-1] == len(log["Iteration"]) - 1
    assert "in passes of at most 3 iterations" in (out / "methods.md").read_text()


def test_the_quick_protocol_reaches_the_tolerances_of_its_minimizations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A first run has nothing to warn of; the stage on TrIP is left out."""
    from trip_mm.simulation.catalog import find_config

    protocol = yaml.safe_load(find_config("protocols", "quick").read_text())
    protocol["stages"] = protocol["stages"][:1]
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(protocol))
    with caplog.at_level("INFO", logger="trip_mm"):
        out = trip_mm.run("trialanine", tmp_path / "first.yaml", tmp_path / "out", platform="CPU")
    assert json.loads((out / "summary.json").read_text())["stages"][0]["converged"]
    assert "root-mean-square" not in caplog.text


@pytest.mark.parametrize("file", ["01-minimize/log.csv", "02-heat/monitor.csv"])
def test_a_full_disk_is_said_with_the_way_on(
    file: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are still in the buffer when the file is closed, which fails once more."""
    open_file = Path.open

    def onto_a_full_disk(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if path.name == Path(file).name and path.parent.name == Path(file).parent.name:
            return open_file(Path("/dev/full"), "w", *args, **kwargs)
        return open_file(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", onto_a_full_disk)
    with pytest.raises(
        RunDirectoryError, match=r"cannot be written \(No space left.*trip-mm resume"
    ):
        trip_mm.run(
            folder / "water.yaml", folder / "short.yaml", folder / "out", platform="Reference"
        )


def test_a_run_leaves_its_products(peptide_run: Path) -> None:
    for name in (
        "trajectory.xtc",
        "log.csv",
        "monitor.csv",
        "ramachandran.csv",
        "ramachandran.png",
        "ramachandran.json",
        "run.json",
        "methods.md",
        "topology.pdb",
        "summary.json",
    ):
        assert (peptide_run / name).stat().st_size > 0, name
    assert (peptide_run / "trajectory.xtc").resolve().parent.name == "03-production"
    stages = sorted(path.name for path in peptide_run.iterdir() if path.is_dir())
    assert stages == ["01-minimize", "02-heat", "03-production"]
    summary = json.loads((peptide_run / "summary.json").read_text())
    assert [stage["stage"] for stage in summary["stages"]] == ["minimize", "heat", "production"]
    assert summary["ramachandran"]["n_frames"] == 4
    assert summary["stages"][1]["frames"] == 6
    minimized = summary["stages"][0]
    assert minimized["final_energy_kj_per_mol"] < minimized["initial_energy_kj_per_mol"]


def test_run_json_says_what_ran_and_names_no_host(peptide_run: Path) -> None:
    text = (peptide_run / "run.json").read_text()
    record = json.loads(text)
    assert record["potential"] == "amber14:tip3pfb"
    assert record["platform"]["name"] == "Reference"
    assert record["platform"]["threads"] == 1
    assert record["seed"] == 1
    assert record["n_atoms"] == 33
    assert len(record["source_sha256"]) == 64
    assert [stage["n_steps"] for stage in record["stages"]] == [0, 60, 40]
    assert {"python", "trip-mm", "openmm", "torch"} <= set(record["versions"])
    assert str(peptide_run.parent) not in text
    assert str(Path.home()) not in text


def test_methods_name_protocol_versions_and_citations(peptide_run: Path) -> None:
    text = (peptide_run / "methods.md").read_text()
    for words in ("ALA-ALA-ALA", "ff14SB", "50 K to 298 K", "OpenMM 8", "MDAnalysis", "openmm 8."):
        assert words in text


def test_the_temperature_follows_the_ramp_and_velocities_are_drawn_cold(peptide_run: Path) -> None:
    heat = read_table(peptide_run / "02-heat" / "log.csv")
    assert heat["Step"].tolist() == [10, 20, 30, 40, 50, 60]
    assert heat["Temperature (K)"][0] < 150.0
    assert "Density (g/mL)" not in heat


def test_the_same_seed_gives_the_same_run(peptide_run: Path, folder: Path) -> None:
    arguments = (folder / "peptide.yaml", folder / "short.yaml")
    again = trip_mm.run(*arguments, folder / "again", platform="Reference")
    other = trip_mm.run(*arguments, folder / "other", platform="Reference", overrides=["seed=2"])
    final = "03-production/state.xml"
    assert (again / final).read_bytes() == (peptide_run / final).read_bytes()
    assert (other / final).read_bytes() != (peptide_run / final).read_bytes()


@pytest.mark.parametrize("backend", ["torch", "python"])
def test_trip_minimizes_and_runs_after_classical_relaxation(
    backend: str, folder: Path, calm_model: Path
) -> None:
    out = trip_mm.run(
        folder / "water.yaml",
        folder / "ml.yaml",
        folder / "out",
        potential=str(calm_model),
        backend=backend,
        platform="CPU",
    )
    record = json.loads((out / "run.json").read_text())
    (model,) = record["models"].values()
    assert model["name"] == "calm.safetensors"
    assert len(model["sha256"]) == 64
    assert (out / model["file"]).exists(), "the model is kept beside the run"
    assert record["backend"] == backend
    assert model["sha256"] in (out / "methods.md").read_text()
    assert len(np.unique(read_table(out / "log.csv")["Density (g/mL)"])) > 1, "the box moves"
    monitor = read_table(out / "monitor.csv")
    assert (monitor["Torn Bonds"] == 0).all()
    assert (monitor["Largest Bond Stretch (ratio)"] < 1.3).all(), "molecules move whole"
    soaked = XmlSerializer.deserialize((out / "02-soak" / "state.xml").read_text())
    moved = XmlSerializer.deserialize((out / "04-nvt" / "state.xml").read_text())
    shift = (moved.getPositions(asNumpy=True) - soaked.getPositions(asNumpy=True)) / unit.angstrom
    assert 0.0 < np.abs(shift).max() < 0.3, "positions are carried over the switch"


def test_an_unstable_run_names_atoms_and_keeps_its_last_frames(folder: Path) -> None:
    with pytest.raises(UnstableSimulationError) as failure:
        trip_mm.run(
            folder / "peptide.yaml",
            folder / "short.yaml",
            folder / "out",
            platform="Reference",
            overrides=["stages.heat.temperature=90000 K", "stages.heat.duration=2 ps"],
        )
    text = str(failure.value)
    assert "02-heat: step " in text
    assert "ALA" in text
    assert "(atom " in text
    crash = folder / "out" / "02-heat" / "crash"
    assert (crash / "crash.pdb").stat().st_size > 0
    assert "position" in (crash / "crash.xml").read_text().lower()
    assert not (folder / "out" / "02-heat" / "done.json").exists()


def test_a_box_that_shrinks_too_far_stops_cleanly(folder: Path) -> None:
    with pytest.raises(CellTooSmallError) as failure:
        trip_mm.run(
            folder / "water.yaml",
            folder / "short.yaml",
            folder / "out",
            platform="Reference",
            overrides=[
                "stages=[{kind: npt, duration: 4 ps, timestep: 1 fs, temperature: 600 K, "
                "pressure: 100000 bar, barostat_interval: 1}]"
            ],
        )
    assert "the box has become too small; its last heights were" in str(failure.value)
    assert (folder / "out" / "01-npt" / "crash" / "before.xml").exists()


def test_an_existing_run_is_not_overwritten(peptide_run: Path, folder: Path) -> None:
    with pytest.raises(RunDirectoryError, match="finished run already"):
        trip_mm.run(folder / "peptide.yaml", folder / "short.yaml", peptide_run)


def test_a_changed_model_is_noticed(folder: Path, calm_model: Path) -> None:
    out = trip_mm.run(
        folder / "water.yaml",
        folder / "ml.yaml",
        folder / "out",
        potential=str(calm_model),
        overrides=["stages=[{kind: minimize, max_iterations: 1}]"],
    )
    (out / "summary.json").unlink()
    (out / "01-minimize" / "done.json").unlink()
    (model,) = (out / "models").iterdir()
    trip_mm.save_potential(trip_mm.new_potential("trip-s", seed=9), model)
    with pytest.raises(RunDirectoryError, match="not the one the run began with"):
        trip_mm.resume(out)
    model.unlink()
    with pytest.raises(CheckpointError):
        trip_mm.resume(out)


@pytest.mark.parametrize(
    ("failure", "options", "message"),
    [
        (ImportError("No module named 'weights'"), (), "needs a package that is not installed"),
        (OSError("no route to host"), (), "its model file cannot be had"),
        (None, ("--precision", "double"), "has no choice of precision"),
    ],
)
def test_a_model_of_openmm_ml_is_tried_before_the_stages_on_amber14(
    failure: Exception | None,
    options: tuple[str, ...],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlpotential = pytest.importorskip("openmmml.mlpotential")

    class Impl(mlpotential.MLPotentialImpl):  # type: ignore[misc, name-defined]
        def addForces(self, topology, system, atoms, forceGroup, **args):  # type: ignore[no-untyped-def]  # noqa: N802
            if failure is not None:
                raise failure

    factory = SimpleNamespace(createImpl=lambda name: Impl())
    monkeypatch.setitem(mlpotential.MLPotential._implFactories, "tried", factory)
    monkeypatch.chdir(folder)
    arguments = ["run", "water.yaml", "--protocol", "ml.yaml", "--potential", "openmm-ml:tried"]
    result = CliRunner().invoke(app, [*arguments, "--out", "out", "--platform", "CPU", *options])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.yaml"], "missing.yaml: no such file"),
        (["nosuchsystem"], "neither a file nor one of the systems"),
        (["peptide.yaml", "--protocol", "nosuch"], "neither a file nor one of the protocols"),
        (["peptide.yaml", "--potential", "charmm"], "charmm"),
        (["peptide.yaml", "--potential", "trip:nosuch"], "nosuch: neither a registered model"),
        (["water.yaml", "--potential", "openmm-ml:ani2xx"], "no model of this name"),
        (["peptide.yaml", "--platform", "Cray"], "'Cray' is not installed"),
        (["peptide.yaml", "--precision", "half"], "'half' is not one of"),
        (
            ["peptide.yaml", "--platform", "CPU", "--precision", "mixed"],
            "has single precision only",
        ),
        (["water.yaml", "--platform", "CPU", "--precision", "double"], "use --platform Reference"),
        (["peptide.yaml", "--threads", "0"], "at least 1"),
        (["peptide.yaml", "--set", "defaults.hydrogen_mass=4 u"], "hydrogen_mass: 4 u leaves only"),
        (["peptide.yaml", "--set", "stages.9.duration=2 ps"], "there are"),
        (["peptide.yaml", "--set", "nonsense"], "write key.path=value"),
    ],
)
def test_mistakes_are_one_line_without_a_traceback(
    arguments: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ["run", *arguments, "--out", "out"])
    text = " ".join(result.output.split())
    assert result.exit_code == 2, text
    assert message in text
    assert "Traceback" not in text
    assert not (folder / "out").exists()


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(console, "_width", 200)
    arguments = ["run", "peptide.yaml", "--protocol", "short.yaml", "--dry-run"]
    arguments += ["--platform", "Reference"]
    result = CliRunner().invoke(app, [*arguments, "--set", 'stages.heat.duration="2 ps"'])
    assert result.exit_code == 0, result.output
    assert "33 atoms, no periodic box" in result.output
    assert "Reference platform in double precision, " in " ".join(result.output.split())
    assert "2000" in result.output
    assert "up to 30 a pass" in result.output
    assert "estimated time of the steps alone: " in result.output
    on_top = (
        "building, starting the potentials, further passes of minimizations, output and analysis"
    )
    assert f"{on_top} come on top" in result.output
    assert "without minimizations" not in result.output
    endless = CliRunner().invoke(app, [*arguments, "--set", "stages.minimize.max_iterations=0"])
    assert "without minimizations until converged" in " ".join(endless.output.split())
    assert not (folder / "runs").exists()


def test_the_command_prints_a_summary_and_resume_knows_it_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    arguments = ["run", "peptide.yaml", "--protocol", "short.yaml", "--platform", "Reference"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "runs/peptide-amber14-short" in result.output
    assert "Ramachandran populations (4 frames, 0.01 to 0.04 ps)" in result.output
    assert "too short for populations" in " ".join(result.output.split())
    again = CliRunner().invoke(app, ["resume", "runs/peptide-amber14-short"])
    assert again.exit_code == 0
    assert "nothing to resume" in again.output


def test_bare_names_mean_what_comes_with_the_package() -> None:
    from trip_mm.simulation.catalog import find_config, shipped

    assert "trialanine" in shipped("systems")
    assert {"quick", "thesis"} <= set(shipped("protocols"))
    assert find_config("systems", "trialanine").is_file()
    with pytest.raises(ConfigError, match="neither a file nor"):
        find_config("protocols", "nosuch")


def test_the_structure_of_a_run_is_the_one_that_was_built(peptide_run: Path) -> None:
    structure = load_structure(peptide_run / "structure.json")
    assert structure.topology.getNumAtoms() == 33
    assert structure.net_charge == 0
