"""Malformed settings files: one clear error with file and key path, never a traceback."""

from pathlib import Path

import pytest

from trip_mm.errors import ConfigError
from trip_mm.simulation.schema import load_protocol, load_system

STAGE = "kind: nvt, duration: 1 ps, timestep: 0.5 fs, temperature: 298 K"
SYSTEM = "structure: {sequence: AAA}\npotential: amber14\n"
PROTOCOL = f"stages:\n- {{{STAGE}}}\n"


def nested(levels):
    return "seed: " + "[" * levels + "]" * levels


def stage(**changes):
    """A protocol of one good stage with some settings replaced (None removes one)."""
    settings = {
        "kind": "nvt",
        "duration": "1 ps",
        "timestep": "0.5 fs",
        "temperature": "298 K",
        **changes,
    }
    text = ", ".join(f"{key}: {value}" for key, value in settings.items() if value is not None)
    return f"stages:\n- {{{text}}}\n"


SYNTAX = {
    "empty": ("", "the file is empty"),
    "comment-only": ("# nothing here\n", "the file is empty"),
    "root-list": ("- a\n- b\n", "the top level is a list"),
    "root-text": ("just words\n", "the top level is the text"),
    "root-number": ("42\n", "the top level is the number 42"),
    "open-bracket": ("stages: [\n", "line 2, column 1"),
    "open-quote": ("name: 'x\n", "line 2, column 1"),
    "tab-indent": ("stages:\n\t- kind: nvt\n", "line 2, column 1"),
    "two-colons": ("name: a: b\n", "line 1, column 8"),
    "bad-indent": ("stages:\n  - kind: nvt\n duration: 1 ps\n", "line 3, column 2"),
    "duplicate-key": ("seed: 1\nseed: 2\n", "line 2, column 1: the key 'seed' occurs twice"),
    "duplicate-nested-key": (
        f"stages:\n- {{{STAGE}, kind: npt}}\n",
        "the key 'kind' occurs twice",
    ),
    "python-tag": ("seed: !!python/object/apply:os.system [ls]\n", "is not allowed; remove it"),
    "own-tag": ("seed: !seed 1\n", "the tag '!seed' is not allowed"),
    "self-reference": ("stages: &s\n- *s\n", "refers to itself"),
    "undefined-alias": ("stages: *nowhere\n", "undefined alias 'nowhere'"),
    "two-documents": ("seed: 1\n---\nseed: 2\n", "expected a single document"),
    "number-key": ("1: x\n", "a key is the number 1"),
    "list-key": ("? [a]\n: x\n", "unhashable key"),
    "nul-character": ("seed: \x00\n", "special characters are not allowed"),
    "deep": (nested(100), "nested deeper than"),
    "very-deep": (nested(5000), "nested deeper than"),
    "huge-number": ("seed: " + "9" * 5000, "a value cannot be read"),
}

PROTOCOLS = {
    "no-stages": ("seed: 1\n", "stages: is required but missing"),
    "stages-empty": ("stages: []\n", "stages: "),
    "stages-null": ("stages:\n", "stages: is empty, expected a list"),
    "stages-mapping": (f"stages: {{{STAGE}}}\n", "stages: is a mapping, expected a list"),
    "stage-text": ("stages: [nvt]\n", "stages[0]: is the text 'nvt'"),
    "unknown-key": ("seeed: 1\n" + PROTOCOL, "seeed: unknown key; did you mean 'seed'?"),
    "unknown-stage-key": (stage(fricton="1/ps"), "stages[0].fricton: unknown key; did you mean"),
    "unknown-kind": (
        stage(kind="nvtt"),
        "stages[0].kind: 'nvtt' is not known; did you mean 'nvt'?",
    ),
    "kind-case": (stage(kind="NVT"), "stages[0].kind: 'NVT' is not known; did you mean 'nvt'?"),
    "kind-missing": (stage(kind=None), "stages[0].kind: is required but missing"),
    "kind-list": (stage(kind="[nvt]"), "stages[0].kind: is a list"),
    "bare-duration": (stage(duration="100"), "stages[0].duration: 100 has no unit; write 100 ps"),
    "bare-timestep": (stage(timestep="0.5"), "stages[0].timestep: 0.5 has no unit; write 0.5 fs"),
    "bare-temperature": (stage(temperature="298"), "stages[0].temperature: 298 has no unit"),
    "bare-friction": (stage(friction="1"), "stages[0].friction: 1 has no unit; write 1/ps"),
    "bare-pressure": (stage(kind="npt", pressure="1"), "stages[0].pressure: 1 has no unit"),
    "wrong-dimension": (stage(duration="10 K"), "stages[0].duration: 'K' is not a unit"),
    "unit-case": (stage(timestep="0.5 FS"), "stages[0].timestep: 'FS' is not a unit"),
    "celsius": (stage(temperature="25 C"), "stages[0].temperature: 'C' is not a unit"),
    "negative-duration": (stage(duration="-1 ps"), "stages[0].duration: -1 ps must be greater"),
    "zero-timestep": (stage(timestep="0 fs"), "stages[0].timestep: 0 fs must be greater"),
    "nan-temperature": (stage(temperature=".nan"), "stages[0].temperature: "),
    "duration-list": (stage(duration="[1 ps]"), "stages[0].duration: expected a duration"),
    "duration-true": (stage(duration="yes"), "stages[0].duration: expected a duration"),
    "duration-missing": (stage(duration=None), "stages[0].duration: is required"),
    "duration-null": (stage(duration="null"), "stages[0].duration: is required"),
    "pressure-missing": (stage(kind="npt"), "stages[0].pressure: is required"),
    "pressure-in-nvt": (stage(pressure="1 bar"), "stages[0].pressure: does not apply"),
    "duration-in-minimize": (
        "stages: [{kind: minimize, duration: 1 ps}]\n",
        "stages[0].duration: does not apply to a stage of kind minimize",
    ),
    "uneven-duration": (stage(duration="1.0002 ps"), "stages[0].duration: 1.0002 ps is no whole"),
    "uneven-interval": (stage(log_interval="0.7 fs"), "stages[0].log_interval: 0.0007 ps is no"),
    "long-timestep": (stage(timestep="4 fs"), "stages[0].timestep: 4 fs is too long"),
    "empty-timestep": (stage(timestep="{}"), "stages[0].timestep: names nothing"),
    "timestep-key": (stage(timestep="{mll: 1 fs}"), "stages[0].timestep.mll: unknown key"),
    "half-ramp": (stage(temperature="{start: 50 K}"), "stages[0].temperature.end: is required"),
    "ramp-bare": (
        stage(temperature="{start: 50, end: 298 K}"),
        "stages[0].temperature.start: 50 has no unit",
    ),
    "iterations-fraction": (
        "stages: [{kind: minimize, max_iterations: 1.5}]\n",
        "stages[0].max_iterations: is the number 1.5, expected a whole number",
    ),
    "iterations-negative": (
        "stages: [{kind: minimize, max_iterations: -1}]\n",
        "stages[0].max_iterations: ",
    ),
    "barostat-zero": (
        stage(kind="npt", pressure="1 bar", barostat_interval=0),
        "stages[0].barostat_interval: ",
    ),
    "seed-text": ("seed: one\n" + PROTOCOL, "seed: is the text 'one', expected a whole number"),
    "seed-true": ("seed: true\n" + PROTOCOL, "seed: is the truth value true"),
    "seed-negative": ("seed: -1\n" + PROTOCOL, "seed: "),
    "name-slash": ("name: a/b\n" + PROTOCOL, "name: 'a/b' does not match ^[A-Za-z0-9]"),
    "name-number": ("name: 7\n" + PROTOCOL, "name: is the number 7, expected text"),
    "stage-name-dots": (stage(name=".."), "stages[0].name: "),
    "same-stage-name": (
        f"stages:\n- {{{STAGE}}}\n- {{{STAGE}}}\n",
        "stages[1].name: 'nvt' occurs twice",
    ),
    "nve-without-velocities": (
        "stages: [{kind: nve, duration: 1 ps, timestep: 0.5 fs}]\n",
        "stages[0].temperature: is required in the first stage with dynamics",
    ),
    "stage-potential": (stage(potential="amber99"), "stages[0].potential: 'amber99' is not a kind"),
    "committee-text": (stage(committee="yes"), "stages[0].committee: is the truth value true"),
    "committee-alone": (
        stage(committee="{models: [a], every: 1 fs}"),
        "stages[0].committee.models: a committee has at least 2 models and this one has 1",
    ),
    "committee-twice": (
        stage(committee="{models: [a, 'trip:a'], every: 1 fs}"),
        "stages[0].committee.models: 'a' occurs twice",
    ),
    "committee-bare": (
        stage(committee="{models: [a, b], every: 20}"),
        "stages[0].committee.every: 20 has no unit",
    ),
    "committee-never": (
        stage(committee="{models: [a, b]}"),
        "stages[0].committee.every: is required but missing",
    ),
    "committee-uneven": (
        stage(committee="{models: [a, b], every: 0.7 fs}"),
        "stages[0].committee.every: 0.0007 ps is no whole number of 0.5 fs steps",
    ),
    "committee-energy": (
        stage(committee="{models: [a, b], every: 1 fs, stop_above: 2 kcal/mol}"),
        "stages[0].committee.stop_above: 'kcal/mol' is not a unit of a force",
    ),
    "committee-key": (
        stage(committee="{models: [a, b], every: 1 fs, stop_abov: 2 eV/A}"),
        "stages[0].committee.stop_abov: unknown key; did you mean 'stop_above'?",
    ),
    "committee-in-minimize": (
        "stages: [{kind: minimize, committee: {models: [a, b], every: 1 fs}}]\n",
        "stages[0].committee: does not apply to a stage of kind minimize; remove it",
    ),
    "committee-of-defaults": (
        "defaults: {committee: {models: [a], every: 1 fs}}\n" + PROTOCOL,
        "defaults.committee.models: a committee has at least 2 models",
    ),
    "split-text": (
        stage(multiple_timesteps="amber14"),
        "stages[0].multiple_timesteps: is the text 'amber14'",
    ),
    "split-no-steps": (
        stage(multiple_timesteps="{inner: amber14}"),
        "stages[0].multiple_timesteps.steps: is required but missing",
    ),
    "split-no-inner": (
        stage(multiple_timesteps="{steps: 2}"),
        "stages[0].multiple_timesteps.inner: is required but missing",
    ),
    "split-one-step": (
        stage(multiple_timesteps="{inner: amber14, steps: 1}"),
        "stages[0].multiple_timesteps.steps: ",
    ),
    "split-fraction": (
        stage(multiple_timesteps="{inner: amber14, steps: 2.5}"),
        "stages[0].multiple_timesteps.steps: is the number 2.5",
    ),
    "split-key": (
        stage(multiple_timesteps="{inner: amber14, steps: 2, innr: amber14}"),
        "stages[0].multiple_timesteps.innr: unknown key; did you mean 'inner'?",
    ),
    "split-inner-kind": (
        stage(multiple_timesteps="{inner: amber99, steps: 2}"),
        "stages[0].multiple_timesteps.inner: 'amber99' is not a kind of potential",
    ),
    "split-inner-ml": (
        stage(multiple_timesteps="{inner: 'openmm-ml:ani2x', steps: 2}"),
        "stages[0].multiple_timesteps.inner: openmm-ml:ani2x cannot be the inner potential",
    ),
    "split-on-amber": (
        stage(potential="amber14", multiple_timesteps="{inner: amber14, steps: 2}"),
        "stages[0].multiple_timesteps: does not apply to amber14",
    ),
    "split-long-outer": (
        stage(timestep="2 fs", multiple_timesteps="{inner: amber14, steps: 4}"),
        "stages[0].timestep: 2 fs is too long for the outer step with amber14:tip3pfb inside; "
        "use at most 1 fs",
    ),
    "split-longer-outer": (
        stage(timestep="4 fs", multiple_timesteps="{inner: 'trip:a', steps: 8}"),
        "stages[0].timestep: 4 fs is too long for the outer step with trip:a inside; use at most "
        "2 fs",
    ),
    "split-long-inner": (
        stage(timestep="4 fs", multiple_timesteps="{inner: amber14, steps: 2}"),
        "stages[0].timestep: 4 fs in 2 inner steps: 2 fs is too long for unconstrained C-H bonds",
    ),
    "split-in-minimize": (
        "stages: [{kind: minimize, multiple_timesteps: {inner: amber14, steps: 2}}]\n",
        "stages[0].multiple_timesteps: does not apply to a stage of kind minimize; remove it",
    ),
    "defaults-list": ("defaults: []\n" + PROTOCOL, "defaults: is a list"),
    "defaults-key": ("defaults: {presure: 1 bar}\n" + PROTOCOL, "defaults.presure: unknown key"),
    "defaults-duration": ("defaults: {duration: 1 ps}\n" + PROTOCOL, "defaults.duration: unknown"),
}

SYSTEMS = {
    "no-potential": ("structure: {sequence: A}\n", "potential: is required but missing"),
    "potential-kind": ("structure: {sequence: A}\npotential: {tripp: x}\n", "potential: 'tripp'"),
    "potential-two": (
        "structure: {sequence: A}\npotential: {trip: x, amber14: tip3p}\n",
        "potential: has 2 keys, expected exactly one potential",
    ),
    "potential-list": ("structure: {sequence: A}\npotential: [trip]\n", "potential: is a list"),
    "potential-no-name": ("structure: {sequence: A}\npotential: trip\n", "potential: trip needs"),
    "potential-number": (
        "structure: {sequence: A}\npotential: {trip: 2}\n",
        "potential: trip needs",
    ),
    "water-model": ("structure: {sequence: A}\npotential: {amber14: tip3}\n", "potential: 'tip3'"),
    "nothing": ("potential: amber14\n", "has neither structure nor solvent"),
    "structure-empty": ("structure: {}\npotential: amber14\n", "structure: names nothing"),
    "structure-two": (
        "structure: {sequence: A, smiles: C}\npotential: amber14\n",
        "structure: has sequence and smiles",
    ),
    "structure-text": ("structure: AAA\npotential: amber14\n", "structure: is the text 'AAA'"),
    "sequence-letter": (
        "structure: {sequence: AXA}\npotential: amber14\n",
        "structure.sequence: 'X'",
    ),
    "sequence-lower": (
        "structure: {sequence: aaa}\npotential: amber14\n",
        "structure.sequence: 'a'",
    ),
    "sequence-no": (
        "structure: {sequence: NO}\npotential: amber14\n",
        "structure.sequence: is the truth",
    ),
    "sequence-empty": (
        "structure: {sequence: ''}\npotential: amber14\n",
        "structure.sequence: is empty",
    ),
    "termini": (
        "structure: {sequence: A, termini: caped}\npotential: amber14\n",
        "structure.termini: 'caped' is not known; did you mean 'capped'?",
    ),
    "termini-of-smiles": (
        "structure: {smiles: C, termini: capped}\npotential: amber14\n",
        "structure.termini: does not apply",
    ),
    "file-missing": (
        "structure: {file: no.pdb}\npotential: amber14\n",
        "structure.file: no such file",
    ),
    "file-format": ("structure: {file: a.xyz}\npotential: amber14\n", "structure.file: 'a.xyz'"),
    "file-number": (
        "structure: {file: 1}\npotential: amber14\n",
        "structure.file: is the number 1",
    ),
    "ph-text": (SYSTEM + "ph: neutral\n", "ph: is the text 'neutral', expected a number"),
    "ph-range": (SYSTEM + "ph: 15\n", "ph: "),
    "ph-nan": (SYSTEM + "ph: .nan\n", "ph: "),
    "solvent-text": (SYSTEM + "solvent: water\n", "solvent: is the text 'water'"),
    "solvent-size-missing": (
        SYSTEM + "solvent: {shape: cube}\n",
        "solvent: has neither padding nor",
    ),
    "solvent-both": (SYSTEM + "solvent: {edge: 18 A, padding: 10 A}\n", "solvent: has both"),
    "solvent-bare": (SYSTEM + "solvent: {edge: 18}\n", "solvent.edge: 18 has no unit; write 18 A"),
    "solvent-shape": (SYSTEM + "solvent: {edge: 18 A, shape: cubic}\n", "solvent.shape: 'cubic'"),
    "solvent-huge": (SYSTEM + "solvent: {edge: 1 m}\n", "solvent.edge: 'm' is not a unit"),
    "solvent-too-long": (SYSTEM + "solvent: {edge: 500 nm}\n", "solvent.edge: 5000 A is no box"),
    "n-waters-padding": (
        SYSTEM + "solvent: {padding: 9 A, n_waters: 5}\n",
        "solvent.n_waters: needs",
    ),
    "n-waters-zero": (SYSTEM + "solvent: {edge: 18 A, n_waters: 0}\n", "solvent.n_waters: "),
    "ions-on-trip": (
        "structure: {sequence: A}\nsolvent: {edge: 18 A, ions: {}}\npotential: {trip: x}\n",
        "solvent.ions: TrIP knows neither ions nor charge",
    ),
    "ions-true": (
        SYSTEM + "solvent: {edge: 18 A, ions: yes}\n",
        "solvent.ions: is the truth value",
    ),
    "unknown-key": (SYSTEM + "forcefield: amber\n", "forcefield: unknown key"),
}


def one_error(load, path, expected):
    with pytest.raises(ConfigError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: "), message
    assert expected in message
    assert message.count("\n") == 0, message
    assert "Traceback" not in message
    assert "pydantic" not in message.lower()
    assert len(message) < 700
    return message


@pytest.mark.parametrize("load", [load_system, load_protocol])
@pytest.mark.parametrize(("text", "expected"), SYNTAX.values(), ids=SYNTAX.keys())
def test_syntax(tmp_path, text, expected, load):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    one_error(load, path, expected)


@pytest.mark.parametrize(("text", "expected"), PROTOCOLS.values(), ids=PROTOCOLS.keys())
def test_protocol(tmp_path, text, expected):
    path = tmp_path / "protocol.yaml"
    path.write_text(text)
    message = one_error(load_protocol, path, expected)
    assert f"{path}: {expected}" in message


@pytest.mark.parametrize(("text", "expected"), SYSTEMS.values(), ids=SYSTEMS.keys())
def test_system(tmp_path, text, expected):
    path = tmp_path / "system.yaml"
    path.write_text(text)
    message = one_error(load_system, path, expected)
    assert f"{path}: {expected}" in message


def test_good_files_are_good(tmp_path):
    (tmp_path / "s.yaml").write_text(SYSTEM)
    (tmp_path / "p.yaml").write_text(PROTOCOL)
    load_system(tmp_path / "s.yaml")
    load_protocol(tmp_path / "p.yaml")


def test_missing_file(tmp_path):
    one_error(load_protocol, tmp_path / "none.yaml", "no such file")


def test_folder(tmp_path):
    one_error(load_protocol, tmp_path, "is a folder")


def test_not_utf8(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: a\nseed: é\n".encode("latin-1"))
    one_error(load_protocol, path, "byte 14 is not UTF-8")


def test_binary(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(bytes(range(256)))
    one_error(load_system, path, "not UTF-8")


def test_too_large(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("# padding\n" * 200_000)
    one_error(load_system, path, "too long for a settings file")


def test_exponential_aliases_end_quickly(tmp_path):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 15)]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join(levels) + "\nname: *a14\n")
    with pytest.raises(ConfigError) as raised:
        load_protocol(path)
    assert "name: is a list, expected text" in str(raised.value)
    assert len(str(raised.value)) < 5000


CLI_CASES = {
    **{f"syntax-{name}": (SYSTEM, case[0]) for name, case in SYNTAX.items()},
    **{f"protocol-{name}": (SYSTEM, case[0]) for name, case in PROTOCOLS.items()},
    **{f"system-{name}": (case[0], PROTOCOL) for name, case in SYSTEMS.items()},
}


@pytest.mark.parametrize(("system", "protocol"), CLI_CASES.values(), ids=CLI_CASES.keys())
def test_command_line(tmp_path: Path, system, protocol):
    main = pytest.importorskip("trip_mm.cli.main", exc_type=ImportError)
    from typer.testing import CliRunner

    (tmp_path / "s.yaml").write_text(system)
    (tmp_path / "p.yaml").write_text(protocol)
    out = tmp_path / "out"
    arguments = ["run", str(tmp_path / "s.yaml"), "--protocol", str(tmp_path / "p.yaml")]
    result = CliRunner().invoke(main.app, [*arguments, "--out", str(out), "--dry-run"])
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.output.count("error: ") == 1
    assert "Traceback" not in result.output
    assert not out.exists()
