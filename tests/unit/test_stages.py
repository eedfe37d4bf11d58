"""Schedules, seeds, plans and Systems of stages."""

import errno
import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
from openmm import app, unit

from trip_mm import workflow
from trip_mm.errors import BackendError, ConfigError, RunDirectoryError, UnsupportedSystemError
from trip_mm.simulation import minimization, platforms
from trip_mm.simulation.building import BuiltStructure, build_structure
from trip_mm.simulation.checks import check_velocities
from trip_mm.simulation.execution import prepare
from trip_mm.simulation.overrides import split_overrides
from trip_mm.simulation.plan import ModelRecord, RunPlan, parse_potential
from trip_mm.simulation.platforms import (
    PlatformChoice,
    Precision,
    choose_platform,
    precision_problem,
)
from trip_mm.simulation.potentials import (
    SystemOptions,
    amber14_cutoff,
    create_system,
    repartition_hydrogen_mass,
    total_mass,
)
from trip_mm.simulation.run_directory import RunDirectory
from trip_mm.simulation.schedule import TemperatureSchedule, is_check_due, next_stop
from trip_mm.simulation.schema import PotentialConfig, ResolvedStage, parse_system
from trip_mm.simulation.seeds import derive_seed
from trip_mm.simulation.structure_file import save_structure


def stage(**changes: object) -> ResolvedStage:
    values: dict[str, object] = {
        "name": "nvt",
        "kind": "nvt",
        "potential": None,
        "constraints": "none",
        "n_steps": 1000,
        "timestep_fs": 0.5,
        "temperature_start_k": 300.0,
        "temperature_end_k": 300.0,
        "friction_per_ps": 1.0,
        "trajectory_interval_steps": 100,
        "log_interval_steps": 50,
        "checkpoint_interval_steps": 130,
    }
    return ResolvedStage(**{**values, **changes})  # type: ignore[arg-type]


def plan(*stages: ResolvedStage) -> RunPlan:
    return RunPlan(
        name="test",
        potential=PotentialConfig.model_validate("amber14"),
        stages=stages,
        seed=1,
        backend="auto",
        platform=PlatformChoice("Reference", "single", 1),
        system={},
        protocol={},
        models={},
    )


@pytest.fixture(scope="module")
def ethanol() -> BuiltStructure:
    document = {"structure": {"smiles": "CCO"}, "potential": "amber14"}
    return build_structure(parse_system(document, "ethanol.yaml"), 1)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 100, 101, 999, 200_000])
def test_a_ramp_goes_from_start_to_end_in_equal_increments(n_steps: int) -> None:
    ramp = TemperatureSchedule(100.0, 300.0, n_steps)
    changes, step = [0], 0
    while step < n_steps:
        step = ramp.next_change(step)
        changes.append(step)
    assert changes[-1] == n_steps
    assert len(changes) - 1 == ramp.n_increments
    temperatures = [ramp.at(step) for step in changes[:-1]]
    assert temperatures[-1] == 300.0
    if n_steps > 1:
        assert temperatures[0] == 100.0
        np.testing.assert_allclose(np.diff(temperatures), 200.0 / (ramp.n_increments - 1))
    for begin, end in pairwise(changes):
        assert ramp.at(begin) == ramp.at(end - 1), "constant within an increment"


def test_a_constant_temperature_never_changes() -> None:
    schedule = TemperatureSchedule(298.0, 298.0, 1000)
    assert {schedule.at(step) for step in range(1000)} == {298.0}
    assert schedule.next_change(0) == 1000


@pytest.mark.parametrize("seconds_per_step", [None, 0.001, 0.3, 10.0])
def test_stops_hit_checkpoints_ramps_and_the_end(seconds_per_step: float | None) -> None:
    ramp = stage(temperature_start_k=100.0)
    step, stops = 0, []
    while step < ramp.n_steps:
        step = next_stop(step, ramp, seconds_per_step)
        stops.append(step)
    assert {130, 260, 390, 520, 650, 780, 910, 1000} <= set(stops)
    assert {10 * increment for increment in range(1, 101)} <= set(stops)
    assert stops == sorted(set(stops))
    if seconds_per_step == 10.0:
        assert stops == list(range(1, 1001))


@pytest.mark.parametrize("seconds_per_step", [0.001, 0.3, 10.0])
def test_checks_do_not_depend_on_the_speed(seconds_per_step: float) -> None:
    ramp = stage(temperature_start_k=100.0)

    def checked(start: int, seconds: float | None) -> list[int]:
        step, found = start, []
        while step < ramp.n_steps:
            step = next_stop(step, ramp, seconds)
            if is_check_due(step, ramp):
                found.append(step)
        return found

    usual = checked(0, None)
    assert {20, 40, 130, 1000} <= set(usual)
    assert checked(0, seconds_per_step) == usual
    assert checked(57, seconds_per_step) == [step for step in usual if step > 57]


def test_seeds_differ_by_purpose_and_are_stable() -> None:
    seeds = {derive_seed(seed, "stage", index) for seed in (1, 2) for index in range(50)}
    assert len(seeds) == 100
    assert all(1 <= seed < 2**31 for seed in seeds)
    assert derive_seed(7, "velocities") == derive_seed(7, "velocities")


def test_velocities_are_carried_only_between_like_stages() -> None:
    ml = PotentialConfig.model_validate("trip:x")
    run_plan = plan(
        stage(kind="minimize"),
        stage(),
        stage(kind="npt"),
        stage(potential=ml),
        stage(potential=ml, hydrogen_mass_u=2.0),
        stage(potential=ml, hydrogen_mass_u=2.0, kind="nve", temperature_start_k=None),
        stage(potential=ml, hydrogen_mass_u=2.0, kind="nve"),
    )
    drawn = [run_plan.draws_velocities(index) for index in range(len(run_plan.stages))]
    assert drawn == [True, True, False, True, True, False, True]


@pytest.mark.parametrize(
    "before",
    [
        stage(potential=PotentialConfig.model_validate("trip:x")),
        stage(kind="minimize"),
        stage(hydrogen_mass_u=2.0),
    ],
)
def test_constant_energy_needs_velocities_that_fit(before: ResolvedStage) -> None:
    keeps = stage(kind="nve", name="nve", temperature_start_k=None)
    with pytest.raises(ConfigError, match="stage nve: temperature: is required"):
        check_velocities(plan(stage(), before, keeps))
    check_velocities(plan(stage(), before, stage(kind="nve")))
    check_velocities(plan(before, stage(), keeps))


def test_a_plan_survives_the_file() -> None:
    original = plan(stage(), stage(name="b", potential=PotentialConfig.model_validate("trip:x")))
    assert RunPlan.from_dict(original.to_dict()) == original


def test_overrides_go_where_their_key_belongs() -> None:
    changes = [
        "stages.1.duration=2 ps",
        "seed=3",
        "solvent.edge=20 A",
        "system.name=a",
        "protocol.name=b",
        "stages[0].kind=nvt",
    ]
    assert split_overrides(changes) == (
        ["solvent.edge=20 A", "name=a"],
        ["stages.1.duration=2 ps", "seed=3", "name=b", "stages[0].kind=nvt"],
    )


@pytest.mark.parametrize("override", ["system=water.yaml", "protocol=thesis", "system"])
def test_an_override_without_a_key_is_refused(override: str) -> None:
    assert split_overrides(["system.ph"]) == (["ph"], [])  # refused later, for want of a value
    with pytest.raises(ConfigError, match=r"write (system|protocol)\.KEY=VALUE for a setting"):
        split_overrides([override])


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("temperature=310 K", r"stages\.NAME\.temperature or defaults\.temperature"),
        ("duration=1 ns", r"set stages\.NAME\.duration$"),
    ],
)
def test_an_override_of_stages_must_say_of_which(override: str, place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        split_overrides([override])


def test_potentials_are_named_in_several_ways() -> None:
    assert str(parse_potential("amber14")) == "amber14:tip3pfb"
    assert str(parse_potential("openmm-ml:ani2x")) == "openmm-ml:ani2x"
    assert str(parse_potential("a/b.safetensors")) == "trip:a/b.safetensors"
    with pytest.raises(ConfigError, match="charmm"):
        parse_potential("charmm")
    with pytest.raises(ConfigError, match="models that come with trip-mm: trip-gfn2-s"):
        parse_potential("trip-gfn2s")


def test_platforms_are_found_in_any_case_and_errors_name_what_there_is() -> None:
    assert choose_platform("reference", None, 1) == PlatformChoice("Reference", "single", 1)
    assert choose_platform("cpu", "double", 2).dtype == "float64"
    assert choose_platform("cpu", "double", 2).precision_asked
    with pytest.raises(BackendError, match=r"use one of .*Reference"):
        choose_platform("Cray")
    with pytest.raises(ConfigError, match="half"):
        choose_platform("CPU", "half")
    with pytest.raises(ConfigError, match="at least 1"):
        choose_platform("CPU", None, 0)


@pytest.mark.parametrize(
    ("failures", "message"),
    [
        ((), r"pip install 'trip-mm\[cuda12\]', .*'cuda13'"),
        (
            ("Error loading library /p/libOpenMMCUDA.so: libcuda.so.1: no",),
            "libcuda.so.1: no.*driver",
        ),
    ],
)
def test_a_missing_cuda_platform_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, failures: tuple[str, ...], message: str
) -> None:
    there = [p for p in platforms.platforms_by_speed() if p.getName() != "CUDA"]
    monkeypatch.setattr(platforms, "platforms_by_speed", lambda: there)
    monkeypatch.setattr(platforms, "load_failures", lambda: failures)
    with pytest.raises(BackendError, match=f"use one of .*Reference.*{message}"):
        choose_platform("cuda")


@pytest.fixture
def continued(monkeypatch: pytest.MonkeyPatch) -> list[PlatformChoice]:
    """Platforms that runs are resumed on; no stage runs."""
    platforms: list[PlatformChoice] = []
    monkeypatch.setattr(
        workflow, "execute", lambda directory, plan, *_: platforms.append(plan.platform)
    )
    return platforms


def test_a_run_keeps_its_precision_where_it_continues(
    tmp_path: Path, continued: list[PlatformChoice], ethanol: BuiltStructure
) -> None:
    """The network of a run in float64 must not go on in float32 without a word."""
    save_structure(tmp_path / "structure.json", ethanol)
    for before, platform, after in (
        (PlatformChoice("CPU", "double", 2), "cpu", PlatformChoice("CPU", "double", 2)),
        (PlatformChoice("CPU", "double", 2), "Reference", PlatformChoice("Reference", "double", 2)),
        (PlatformChoice("CUDA", "mixed", 2), "CPU", PlatformChoice("CPU", "single", 2)),
        (PlatformChoice("CPU", "single", 2), "Reference", PlatformChoice("Reference", "single", 2)),
    ):
        written = {**replace(plan(stage()), platform=before).to_dict(), "versions": {}}
        (tmp_path / "run.json").write_text(json.dumps(written))
        workflow.resume(tmp_path, platform=platform)
        assert continued.pop() == after


@pytest.mark.parametrize(
    ("platform", "precision", "networks", "advice"),
    [
        ("CPU", "double", False, "single precision only.*use --platform Reference"),
        ("CPU", "mixed", True, "single precision only; leave it out"),
        ("Reference", "single", False, "double precision only.*use --platform CPU"),
        ("Reference", "mixed", False, "double precision only; leave it out"),
        ("CPU", "double", True, None),
        ("CPU", "single", False, None),
        ("Reference", "single", True, None),
        ("Reference", "double", False, None),
        ("CUDA", "mixed", False, None),
        ("OpenCL", "double", False, None),
    ],
)
def test_a_precision_that_a_platform_has_no_use_for_is_a_problem(
    platform: str, precision: Precision, networks: bool, advice: str | None
) -> None:
    problem = precision_problem(PlatformChoice(platform, precision, 1), networks)
    if advice is None:
        assert problem is None
    else:
        assert problem is not None
        assert re.search(advice, problem)


def test_a_run_in_double_precision_does_not_go_on_in_single(
    tmp_path: Path, ethanol: BuiltStructure
) -> None:
    save_structure(tmp_path / "structure.json", ethanol)
    written = replace(plan(stage()), platform=PlatformChoice("Reference", "double", 1, True))
    (tmp_path / "run.json").write_text(json.dumps({**written.to_dict(), "versions": {}}))
    with pytest.raises(ConfigError, match="--platform CPU: the run has double precision"):
        workflow.resume(tmp_path, platform="CPU")


def test_a_run_from_a_machine_with_another_platform_says_how_to_go_on(
    tmp_path: Path, continued: list[PlatformChoice], ethanol: BuiltStructure
) -> None:
    save_structure(tmp_path / "structure.json", ethanol)
    written = replace(plan(stage()), platform=PlatformChoice("Cray", "mixed", 1)).to_dict()
    (tmp_path / "run.json").write_text(json.dumps({**written, "versions": {}}))
    with pytest.raises(BackendError, match=r"'Cray' is not installed.*name another with --plat"):
        workflow.resume(tmp_path)
    workflow.resume(tmp_path, platform="CPU")
    assert continued == [PlatformChoice("CPU", "single", 1)]


@pytest.mark.parametrize("file", ["structure.json", "models/m-00000000.safetensors", "run.json"])
def test_a_full_disk_while_a_run_is_prepared(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ethanol: BuiltStructure
) -> None:
    """No half of a model stays behind, and the next command knows what is left."""
    (tmp_path / "m.safetensors").write_bytes(b"weights")
    model = PotentialConfig(kind="trip", name=str(tmp_path / "m.safetensors"))
    run_plan = replace(
        plan(stage(potential=model)),
        models={str(model): ModelRecord("m.safetensors", "0" * 64, None, "none")},
    )
    out = tmp_path / "out"
    write_bytes = Path.write_bytes

    def onto_a_full_disk(path: Path, content: bytes) -> int:
        if path.name.startswith(f".{Path(file).name}"):
            write_bytes(path, content[:3])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", onto_a_full_disk)
        with pytest.raises(
            RunDirectoryError, match=r"out: the run cannot be prepared \(.*No space left.*delete"
        ):
            prepare(RunDirectory.create(out), run_plan, ethanol)
    left = [path for path in out.rglob("*") if path.is_file()]
    assert all(path.stat().st_size > 3 for path in left)
    assert not (out / file).exists()
    if left:
        with pytest.raises(RunDirectoryError, match="was interrupted; delete it"):
            RunDirectory.create(out)
    else:
        RunDirectory.create(out)


def test_a_model_that_vanished_is_named(tmp_path: Path, ethanol: BuiltStructure) -> None:
    model = PotentialConfig(kind="trip", name=str(tmp_path / "gone.safetensors"))
    run_plan = replace(
        plan(stage(potential=model)),
        models={str(model): ModelRecord("gone.safetensors", "0" * 64, None, "none")},
    )
    with pytest.raises(RunDirectoryError, match=r"No such file.*gone\.safetensors"):
        prepare(RunDirectory.create(tmp_path / "out"), run_plan, ethanol)


def test_rigid_bonds_carry_no_force() -> None:
    """A water whose forces are along its bonds alone, and one that is pulled as a whole."""
    water = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.024, 0.0927, 0.0]])
    positions = np.concatenate([water, water + 0.5])
    system = openmm.System()
    for mass in (16.0, 1.0, 1.0) * 2:
        system.addParticle(mass)
    for first in (0, 3):
        for one, other in ((0, 1), (0, 2), (1, 2)):
            distance = float(np.linalg.norm(water[one] - water[other]))
            system.addConstraint(first + one, first + other, distance)
    along = np.zeros((6, 3))
    for strength, (one, other) in enumerate(((0, 1), (0, 2), (1, 2)), start=1):
        bond = 500.0 * strength * (positions[one] - positions[other])
        along[one] += bond
        along[other] -= bond
    pulled = np.zeros((6, 3))
    pulled[3:] = [1.0, -2.0, 3.0]
    found = minimization._without_rigid_bonds(system, positions, along + pulled)
    np.testing.assert_allclose(found, pulled, atol=1e-9)
    assert np.abs(along).max() > 50.0


@pytest.mark.parametrize("zero_kj_per_mol", [0.0, -1e8])
def test_a_minimization_converges_whatever_the_zero_of_the_energy(zero_kj_per_mol: float) -> None:
    """A large box under density functional labels lies 1e8 kJ/mol below separate electrons."""
    system = openmm.System()
    chain = openmm.HarmonicBondForce()
    offset = openmm.CustomExternalForce(f"{zero_kj_per_mol / 100!r} + 0 * x")
    for index in range(100):
        system.addParticle(12.0)
        offset.addParticle(index)
    for index in range(99):
        chain.addBond(index, index + 1, 0.15, 1000.0)
    system.addForce(chain)
    system.addForce(offset)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(app.Topology(), system, openmm.VerletIntegrator(0.001), platform)
    simulation.context.setPositions([[0.1 * index, 0.0, 0.0] for index in range(100)])
    log = SimpleNamespace(iteration=0, interrupted=False)
    energies: list[float] = []

    def add(iterations: int, forces: minimization.Forces) -> None:
        log.iteration += iterations
        energies.append(forces.energy)

    log.add = add
    task = SimpleNamespace(stage=stage(tolerance_kj_per_mol_nm=0.01, max_iterations=0))
    minimization._minimize_in_rounds(simulation, task, log)  # type: ignore[arg-type]
    assert minimization._forces(simulation).rms <= 0.01
    assert len(energies) > 1


def test_repartitioning_keeps_the_mass_of_the_molecule(ethanol: BuiltStructure) -> None:
    from openmm import System

    system = System()
    for atom in ethanol.topology.atoms():
        system.addParticle(atom.element.mass)
    before = total_mass(system)
    repartition_hydrogen_mass(system, ethanol.topology, 3.0)
    assert total_mass(system) == pytest.approx(before, abs=1e-9)
    for atom in ethanol.topology.atoms():
        mass = system.getParticleMass(atom.index).value_in_unit(unit.dalton)
        assert mass == pytest.approx(3.0) if atom.element.symbol == "H" else mass > 3.0


def test_repartitioning_refuses_too_heavy_hydrogens(ethanol: BuiltStructure) -> None:
    from openmm import System

    system = System()
    for atom in ethanol.topology.atoms():
        system.addParticle(atom.element.mass)
    with pytest.raises(ConfigError, match="use a smaller mass"):
        repartition_hydrogen_mass(system, ethanol.topology, 5.0)


def test_amber14_refuses_molecules_it_does_not_know(ethanol: BuiltStructure) -> None:
    with pytest.raises(UnsupportedSystemError, match="no parameters"):
        create_system(ethanol, PotentialConfig.model_validate("amber14"), SystemOptions())


def test_openmm_ml_names_an_unknown_model(ethanol: BuiltStructure) -> None:
    with pytest.raises(ConfigError, match="openmm-ml:nonsense"):
        create_system(
            ethanol, PotentialConfig.model_validate("openmm-ml:nonsense"), SystemOptions()
        )


def test_models_of_openmm_ml_are_told_the_precision(
    ethanol: BuiltStructure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have a choice; what others overlook is refused, or is their own."""
    mlpotential = pytest.importorskip("openmmml.mlpotential")
    told: list[object] = []

    class Choosing(mlpotential.MLPotentialImpl):  # type: ignore[misc, name-defined]
        def addForces(self, topology, system, atoms, forceGroup, precision=None, **args):  # type: ignore[no-untyped-def]  # noqa: N802
            told.append(precision)

    class Overlooking(mlpotential.MLPotentialImpl):  # type: ignore[misc, name-defined]
        def addForces(self, topology, system, atoms, forceGroup, **args):  # type: ignore[no-untyped-def]  # noqa: N802
            assert "precision" not in args

    factories = mlpotential.MLPotential._implFactories
    for name, impl in (("choosing", Choosing), ("overlooking", Overlooking)):
        factory = SimpleNamespace(createImpl=lambda name, impl=impl: impl())
        monkeypatch.setitem(factories, name, factory)
    one = PotentialConfig.model_validate("openmm-ml:choosing")
    other = PotentialConfig.model_validate("openmm-ml:overlooking")
    for precision in ("single", "mixed", "double"):
        create_system(ethanol, one, SystemOptions(precision=precision, precision_asked=True))
    create_system(ethanol, one, SystemOptions())
    assert told == ["single", "single", "double", None]
    create_system(ethanol, other, SystemOptions(precision="single", precision_asked=True))
    with pytest.raises(ConfigError, match=r"openmm-ml:overlooking: .* no choice of precision"):
        create_system(ethanol, other, SystemOptions(precision="double", precision_asked=True))


def test_amber14_cutoff_leaves_room_in_small_boxes() -> None:
    assert amber14_cutoff(None) is None
    assert amber14_cutoff(np.eye(3) * 5.0) == 0.9
    assert amber14_cutoff(np.eye(3) * 1.0) == pytest.approx(0.45)
    tilted = np.array([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    assert amber14_cutoff(tilted) == pytest.approx(0.45 * 1.0)


def test_classical_water_is_rigid_only_with_constraints() -> None:
    structure = build_structure(
        parse_system(
            {"solvent": {"edge": "10 A", "n_waters": 20}, "potential": "amber14"}, "water.yaml"
        ),
        1,
    )
    amber = PotentialConfig.model_validate("amber14")
    assert isinstance(structure.topology, app.Topology)
    rigid = create_system(structure, amber, SystemOptions(constraints="h-bonds"))
    flexible = create_system(structure, amber, SystemOptions(constraints="none"))
    assert rigid.getNumConstraints() == 60
    assert flexible.getNumConstraints() == 0
