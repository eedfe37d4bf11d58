"""Units, settings models, overrides, timestep rules and exact step counts."""

import subprocess
import sys
from pathlib import Path

import pytest

from trip_mm.errors import ConfigError
from trip_mm.simulation import quantities as q
from trip_mm.simulation.overrides import apply_overrides
from trip_mm.simulation.protocol_config import ProtocolConfig
from trip_mm.simulation.schema import (
    PotentialConfig,
    load_protocol,
    load_system,
    parse_protocol,
    parse_system,
    to_document,
)

ROOT = Path(__file__).parents[2]
SYSTEMS = sorted((ROOT / "systems").glob("*.yaml"))
PROTOCOLS = sorted((ROOT / "protocols").glob("*.yaml"))

DYNAMICS = {"kind": "nvt", "duration": "1 ps", "timestep": "0.5 fs", "temperature": "298 K"}


def stage(**changes):
    return {"stages": [{**DYNAMICS, **changes}]}


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("0.5 fs", q.TIMESTEP, 0.5),
        ("0.5fs", q.TIMESTEP, 0.5),
        ("5e-4 ps", q.TIMESTEP, 0.5),
        (".5 fs", q.TIMESTEP, 0.5),
        ("100 ps", q.DURATION, 100.0),
        ("20 ns", q.DURATION, 20000.0),
        ("80 fs", q.DURATION, 0.08),
        ("298 K", q.TEMPERATURE, 298.0),
        ("0 K", q.TEMPERATURE, 0.0),
        ("1/ps", q.FRICTION, 1.0),
        ("1 /ps", q.FRICTION, 1.0),
        ("1 ps^-1", q.FRICTION, 1.0),
        ("1 ps**-1", q.FRICTION, 1.0),
        ("30 1/ps", q.FRICTION, 30.0),
        ("0.01/fs", q.FRICTION, 10.0),
        ("1 bar", q.PRESSURE, 1.0),
        ("1 atm", q.PRESSURE, 1.01325),
        ("100 kPa", q.PRESSURE, 1.0),
        ("10 A", q.LENGTH, 10.0),
        ("1.78 nm", q.LENGTH, 17.8),
        ("1.5 u", q.MASS, 1.5),
        ("1.5 amu", q.MASS, 1.5),
        ("1.5 Da", q.MASS, 1.5),
        ("1 kcal/mol/A", q.FORCE, 41.84),
        ("10 kJ/mol/nm", q.FORCE, 10.0),
        ("150 mM", q.CONCENTRATION, 0.15),
    ],
)
def test_quantity_in_canonical_unit(text, dimension, value):
    assert q.parse_quantity(text, dimension) == value


@pytest.mark.parametrize(
    ("value", "dimension", "message"),
    [
        (0.5, q.TIMESTEP, "write 0.5 fs"),
        ("0.5", q.TIMESTEP, "write 0.5 fs"),
        (1, q.FRICTION, "write 1/ps"),
        ("1 FS", q.TIMESTEP, "did you mean 'fs'"),
        ("25 C", q.TEMPERATURE, "not a unit of a temperature"),
        ("1 ps", q.FRICTION, "not a unit of a friction"),
        ("1/ps", q.DURATION, "not a unit of a duration"),
        ("fast", q.DURATION, "not a duration"),
        ("nan ps", q.DURATION, "not a duration"),
        ("inf ps", q.DURATION, "not a duration"),
        ("1,5 ps", q.DURATION, "not a unit"),
        ("-1 ps", q.DURATION, "greater than zero"),
        ("0 ps", q.DURATION, "greater than zero"),
        ("-1 K", q.TEMPERATURE, "not be negative"),
        ("1e999 ps", q.DURATION, "out of any sensible range"),
        ("", q.DURATION, "not a duration"),
        (True, q.DURATION, "expected a duration"),
        (None, q.DURATION, "expected a duration"),
        (["1 ps"], q.DURATION, "expected a duration"),
        ("1" * 1000 + " ps", q.DURATION, "not a duration"),
    ],
)
def test_quantity_refused(value, dimension, message):
    with pytest.raises(ValueError, match=r"\w") as raised:
        q.parse_quantity(value, dimension)
    assert message in str(raised.value)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 298.0, 1e-5, 41.84, 12345.678])
def test_quantity_round_trip_is_exact(value):
    for dimension in (q.DURATION, q.FRICTION, q.FORCE):
        assert q.parse_quantity(q.format_quantity(value, dimension), dimension) == value


def test_schema_does_not_import_torch_or_openmm():
    code = (
        "import sys, trip_mm.simulation.schema;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'openmm', 'rdkit')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_shipped_system_loads(path):
    config = load_system(path)
    assert config.name == path.stem
    assert parse_system(to_document(config), str(path)) == config


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_shipped_protocol_loads_for_every_kind_of_potential(path):
    config = load_protocol(path)
    assert config.name == path.stem
    assert parse_protocol(to_document(config), str(path)) == config
    for kind in ("trip", "amber14", "openmm-ml"):
        for resolved in config.resolve(kind):
            assert (resolved.n_steps == 0) == (resolved.kind == "minimize")


def test_thesis_protocol():
    stages = {s.name: s for s in load_protocol(ROOT / "protocols/thesis.yaml").resolve("trip")}
    assert stages["nvt"].n_steps == 200_000
    assert stages["npt"].n_steps == 200_000
    assert stages["production"].n_steps == 40_000_000
    assert stages["production"].timestep_fs == 0.5
    assert stages["production"].temperature_start_k == 298.0
    assert stages["production"].friction_per_ps == 1.0
    assert stages["production"].pressure_bar == 1.0
    assert stages["nvt"].pressure_bar is None
    assert stages["nvt"].barostat_interval == 0
    classical = {
        s.name: s for s in load_protocol(ROOT / "protocols/thesis.yaml").resolve("amber14")
    }
    assert classical["production"].n_steps == 10_000_000
    assert classical["production"].constraints == "h-bonds"


def test_quick_protocol_fits_five_minutes_and_has_every_kind():
    stages = load_protocol(ROOT / "protocols/quick.yaml").resolve("trip")
    on_ml = [s for s in stages if s.potential is None]
    assert sum(s.n_steps for s in on_ml) + 3 * sum(s.max_iterations for s in on_ml) <= 700
    assert {s.kind for s in on_ml} == {"minimize", "nvt", "npt", "nve"}
    assert sum(s.n_steps // s.trajectory_interval_steps for s in on_ml if s.n_steps) >= 50


def test_classical_stage_override():
    first = load_protocol(ROOT / "protocols/quick.yaml").resolve("trip")[1]
    assert first.potential == PotentialConfig.model_validate("amber14")
    assert first.timestep_fs == 2.0
    assert first.constraints == "h-bonds"
    assert (first.temperature_start_k, first.temperature_end_k) == (100.0, 298.0)
    assert first.to_dict()["potential"] == "amber14:tip3pfb"


@pytest.mark.parametrize(
    ("value", "kind", "name"),
    [
        ({"trip": "trip-gfn2-s"}, "trip", "trip-gfn2-s"),
        ("trip:trip-gfn2-s", "trip", "trip-gfn2-s"),
        ("trip:/models/a:b.safetensors", "trip", "/models/a:b.safetensors"),
        ("amber14", "amber14", "tip3pfb"),
        ({"amber14": None}, "amber14", "tip3pfb"),
        ({"amber14": "opc3"}, "amber14", "opc3"),
        ("openmm-ml:ani2x", "openmm-ml", "ani2x"),
        ({"openmm-ml": "mace-off23-small"}, "openmm-ml", "mace-off23-small"),
    ],
)
def test_potential_forms(value, kind, name):
    config = PotentialConfig.model_validate(value)
    assert (config.kind, config.name) == (kind, name)
    assert PotentialConfig.model_validate(to_document(config)) == config
    assert PotentialConfig.model_validate(str(config)) == config


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"timestep": "0.5 fs"}, None),
        ({"timestep": "1 fs"}, None),
        ({"timestep": "2 fs"}, "2 fs is too long for unconstrained C-H bonds; use at most 1 fs"),
        ({"timestep": "2 fs", "hydrogen_mass": "2 u"}, None),
        ({"timestep": "4 fs", "hydrogen_mass": "4 u"}, "4 fs is too long"),
        ({"timestep": {"ml": "1 fs", "classical": "2 fs"}}, None),
        ({"timestep": {"classical": "4 fs"}}, "rigid bonds to hydrogen; use at most 2 fs"),
        ({"timestep": {"ml": "2 fs", "classical": "4 fs"}, "hydrogen_mass": "3 u"}, None),
        ({"timestep": "2 fs", "potential": "amber14"}, None),
        ({"timestep": "4 fs", "potential": "amber14"}, "use at most 2 fs"),
        ({"timestep": "4 fs", "potential": "amber14", "hydrogen_mass": "3 u"}, None),
    ],
)
def test_timestep_rules(changes, problem):
    if problem is None:
        parse_protocol(stage(**changes), "p.yaml")
        return
    with pytest.raises(ConfigError, match=r"^p\.yaml: stages\[0\]\.timestep: ") as raised:
        parse_protocol(stage(**changes), "p.yaml")
    assert problem in str(raised.value)


def test_nothing_heats_at_constant_energy():
    nve = {"kind": "nve", "duration": "1 ps", "timestep": "0.5 fs"}
    ramp = {"start": "100 K", "end": "298 K"}
    with pytest.raises(ConfigError, match=r"stages\[0\].temperature: goes up or down, but nothing"):
        parse_protocol({"stages": [{**nve, "temperature": ramp}]}, "p.yaml")
    flat = {"start": "298 K", "end": "298 K"}
    assert parse_protocol({"stages": [{**nve, "temperature": flat}]}, "p.yaml")


def test_hydrogen_cannot_become_lighter():
    with pytest.raises(ConfigError, match=r"hydrogen_mass: is less than that of hydrogen"):
        parse_protocol(stage(hydrogen_mass="0.1 u"), "p.yaml")


def test_duration_must_be_whole_steps_and_names_neighbours():
    with pytest.raises(ConfigError) as raised:
        parse_protocol(stage(duration="1.0003 ps"), "p.yaml")
    assert str(raised.value) == (
        "p.yaml: stages[0].duration: 1.0003 ps is no whole number of 0.5 fs steps; "
        "use 1 ps or 1.0005 ps"
    )


@pytest.mark.parametrize("key", ["trajectory_interval", "log_interval", "checkpoint_interval"])
def test_interval_must_be_whole_steps(key):
    with pytest.raises(ConfigError, match=f"stages\\[0\\].{key}: 0.0007 ps is no whole number"):
        parse_protocol(stage(**{key: "0.7 fs"}), "p.yaml")


@pytest.mark.parametrize("timestep", ["0.1 fs", "0.25 fs", "0.3 fs", "0.5 fs", "0.7 fs", "1 fs"])
@pytest.mark.parametrize("n_steps", [1, 3, 7, 1000, 39_999_999])
def test_step_count_is_exact(timestep, n_steps):
    duration = f"{n_steps * float(timestep.split()[0]):.12g} fs"
    config = parse_protocol(stage(duration=duration, timestep=timestep), "p.yaml")
    assert config.stages[0].n_steps("trip") == n_steps
    assert config.resolve("trip")[0].n_steps == n_steps


def test_interval_longer_than_stage_means_its_end():
    config = parse_protocol(stage(trajectory_interval="10 ps"), "p.yaml")
    assert config.resolve("trip")[0].trajectory_interval_steps == 2000


def test_missing_timestep_for_a_kind_is_refused_when_resolved():
    config = parse_protocol(stage(timestep={"classical": "2 fs"}), "p.yaml")
    assert config.resolve("amber14")[0].n_steps == 500
    with pytest.raises(ConfigError, match=r"has no value for trip; add ml: 0\.5 fs"):
        config.resolve("trip")


def test_defaults_reach_only_stages_that_have_the_setting():
    document = {
        "defaults": {"timestep": "0.5 fs", "temperature": "300 K", "pressure": "1 bar"},
        "stages": [
            {"kind": "minimize"},
            {"kind": "nvt", "duration": "1 ps"},
            {"kind": "npt", "duration": "1 ps", "temperature": "310 K"},
        ],
    }
    minimize, nvt, npt = parse_protocol(document, "p.yaml").resolve("trip")
    assert minimize.temperature_start_k is None
    assert (nvt.temperature_start_k, nvt.pressure_bar) == (300.0, None)
    assert (npt.temperature_start_k, npt.pressure_bar) == (310.0, 1.0)


def test_nve_keeps_the_velocities_that_there_are():
    nve = {"kind": "nve", "duration": "1 ps"}
    defaults = {"temperature": "298 K", "timestep": "0.5 fs"}
    before = {"kind": "nvt", "duration": "1 ps"}
    protocol = parse_protocol({"defaults": defaults, "stages": [before, nve]}, "p.yaml")
    assert protocol.resolve("trip")[1].temperature_start_k is None
    drawn = {**nve, "temperature": "310 K"}
    protocol = parse_protocol({"defaults": defaults, "stages": [before, drawn]}, "p.yaml")
    assert protocol.resolve("trip")[1].temperature_start_k == 310.0
    alone = parse_protocol({"defaults": defaults, "stages": [nve]}, "p.yaml")
    assert alone.resolve("trip")[0].temperature_start_k == 298.0


def test_a_stage_with_a_name_is_called_by_it_as_set_does():
    """The path of a problem can be given to --set as it stands, names as well as indices."""
    bad = {**DYNAMICS, "duration": 5}
    document = {
        "stages": [
            {**DYNAMICS, "name": "production", "duration": "1.0003 ps"},
            bad,
            {**bad, "name": "twice"},
            {**bad, "name": "twice"},
            {**bad, "name": "7"},
        ]
    }
    with pytest.raises(ConfigError) as raised:
        parse_protocol(document, "p.yaml")
    paths = [line.split(": ")[1] for line in str(raised.value).splitlines()]
    assert [path for path in paths if path.endswith("duration")] == [
        "stages.production.duration",
        *(f"stages[{index}].duration" for index in (1, 2, 3, 4)),
    ]
    good = {"stages": [{**entry, "duration": "1 ps"} for entry in document["stages"][:2]]}
    for path in paths[:2]:
        apply_overrides(good, [f"{path}=2 ps"], ProtocolConfig, "p.yaml")


def test_problem_in_defaults_is_reported_once_where_it_is():
    document = {
        "defaults": {"timestep": "0.5 fs", "temperature": "300"},
        "stages": [{"kind": "nvt", "name": name, "duration": "1 ps"} for name in "abc"],
    }
    with pytest.raises(ConfigError) as raised:
        parse_protocol(document, "p.yaml")
    assert str(raised.value) == "p.yaml: defaults.temperature: 300 has no unit; write 300 K"


def test_every_problem_of_a_file_is_listed():
    document = {
        "sede": 1,
        "stages": [{"kind": "minimise"}, {**DYNAMICS, "duration": 5, "frictoin": "1/ps"}],
    }
    with pytest.raises(ConfigError) as raised:
        parse_protocol(document, "p.yaml")
    lines = str(raised.value).splitlines()
    assert sorted(lines) == [
        "p.yaml: sede: unknown key; did you mean 'seed'?",
        "p.yaml: stages[0].kind: 'minimise' is not known; did you mean 'minimize'?",
        "p.yaml: stages[1].duration: 5 has no unit; write 5 ps",
        "p.yaml: stages[1].frictoin: unknown key; did you mean 'friction'?",
    ]


@pytest.mark.parametrize(
    ("override", "check"),
    [
        ("stages.3.duration=2 ps", lambda p: p.stages[3].duration_ps == 2.0),
        ("stages[3].duration=2 ps", lambda p: p.stages[3].duration_ps == 2.0),
        ("stages.production.duration=2 ps", lambda p: p.stages[-1].duration_ps == 2.0),
        ("stages.npt.temperature.end=310 K", None),
        (
            "stages.npt.temperature={start: 50 K, end: 310 K}",
            lambda p: p.stages[5].temperature.end_k == 310.0,
        ),
        ("seed=7", lambda p: p.seed == 7),
        ("defaults.friction=2/ps", lambda p: p.stages[-1].kind == "nve"),
        ("stages.npt.hydrogen_mass=2 u", lambda p: p.stages[5].hydrogen_mass_u == 2.0),
    ],
)
def test_protocol_override(override, check):
    path = ROOT / "protocols/quick.yaml"
    if check is None:  # the stage inherits its temperature: no such mapping to reach into
        with pytest.raises(ConfigError):
            load_protocol(path, [override])
    else:
        assert check(load_protocol(path, [override]))


@pytest.mark.parametrize(
    ("override", "potential"),
    [
        ("potential=amber14", "amber14:tip3pfb"),
        ("potential=openmm-ml:ani2x", "openmm-ml:ani2x"),
        ("potential.trip=other", "trip:other"),
        ("potential.amber14=opc3", "amber14:opc3"),
    ],
)
def test_potential_override(override, potential):
    assert str(load_system(ROOT / "systems/trialanine.yaml", [override]).potential) == potential


def test_the_precision_of_a_potential_in_short_form(tmp_path):
    path = tmp_path / "x.yaml"
    for text, potential in (
        ("trip:trip-gfn2-s", "trip:trip-gfn2-s@bf16"),
        ("{trip: trip-gfn2-s}", "trip:trip-gfn2-s@bf16"),
        ("'trip:trip-gfn2-s@tf32'", "trip:trip-gfn2-s@bf16"),
    ):
        path.write_text(f"structure: {{smiles: O}}\npotential: {text}\n")
        assert str(load_system(path, ["potential.precision=bf16"]).potential) == potential
    path.write_text("structure: {smiles: O}\npotential: amber14\n")
    with pytest.raises(ConfigError, match="precision bf16 is one of trip potentials"):
        load_system(path, ["potential.precision=bf16"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.9.duration=2 ps", "stages has no entry 9; there are: 0 (relax-classical), 1"),
        ("stages.prod.duration=2 ps", "no entry prod; there are"),
        ("stage.1.duration=2 ps", "the file has no key 'stage'; there are: name, seed, defaults"),
        ("stages.1.duraton=2 ps", "stages[1] has no key 'duraton'; there are"),
        ("stages.1.duration.x=2 ps", "has no key 'x'"),
        ("stages.1.duration", "write key.path=value"),
        ("=2", "write key.path=value"),
        ("seed=[1", "line 1"),
        ("seed=two", "seed"),
    ],
)
def test_bad_override(override, message):
    with pytest.raises(ConfigError) as raised:
        load_protocol(ROOT / "protocols/quick.yaml", [override])
    assert message in str(raised.value)


def test_overrides_leave_the_document_alone():
    document = {"stages": [dict(DYNAMICS)]}
    from trip_mm.simulation.overrides import apply_overrides
    from trip_mm.simulation.schema import ProtocolConfig

    apply_overrides(document, ["stages.0.duration=2 ps"], ProtocolConfig, "p.yaml")
    assert document == {"stages": [DYNAMICS]}


def test_name_defaults_to_file_name(tmp_path):
    path = tmp_path / "box.yaml"
    path.write_text("solvent: {edge: 20 A}\npotential: amber14\n")
    assert load_system(path).name == "box"


def test_structure_file_is_looked_up_beside_the_yaml(tmp_path):
    (tmp_path / "m.sdf").write_text("")
    path = tmp_path / "s.yaml"
    path.write_text("structure: {file: m.sdf}\npotential: amber14\n")
    assert load_system(path).structure.file == (tmp_path / "m.sdf").resolve()
