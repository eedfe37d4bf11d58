"""`trip-mm doctor`: what it prints, and its exit status."""

import dataclasses

import pytest
from typer.testing import CliRunner

from trip_mm.backends import diagnostics, openmm_platforms
from trip_mm.cli.main import app
from trip_mm.simulation import platforms
from trip_mm.simulation.platforms import choose_platform

runner = CliRunner(env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def diagnosis():
    return diagnostics.diagnose()


def test_checks_every_working_backend_on_every_platform(diagnosis):
    working = [name for name, reason in diagnosis.backends.items() if reason is None]
    expected = {(platform, name) for platform in diagnosis.platforms for name in working}
    assert {(check.platform, check.backend) for check in diagnosis.checks} == expected
    for check in diagnosis.checks:
        assert check.problem is None
        assert check.force_difference < diagnostics.TOLERANCE


def test_reports_versions(diagnosis):
    assert diagnosis.versions["trip-mm"]
    for name in diagnostics.REQUIRED_PACKAGES:
        assert diagnosis.versions[name] is not None


def test_prints_and_succeeds_where_the_default_works(diagnosis, monkeypatch):
    monkeypatch.setattr(diagnostics, "diagnose", lambda: diagnosis)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "Reference" in result.output
    assert "PythonTorchForce" in result.output or diagnosis.backends["pythontorch"] is None
    assert "works" in result.output


def test_fails_where_the_default_is_wrong(diagnosis, monkeypatch):
    wrong = [
        dataclasses.replace(check, problem="differs from the eager potential")
        for check in diagnosis.checks
    ]
    broken = dataclasses.replace(diagnosis, checks=tuple(wrong))
    monkeypatch.setattr(diagnostics, "diagnose", lambda: broken)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1
    for word in ("differs", "from", "the", "eager", "potential"):  # the table wraps the sentence
        assert word in result.output
    assert "does not work" in result.output


def test_the_default_is_a_platform_that_works(monkeypatch):
    """OpenCL is loaded wherever its library is, and counts as faster than the CPU."""
    assert diagnostics._default()[1] == choose_platform().name
    fastest = diagnostics.platforms_by_speed()[0].getName()
    original = openmm_platforms.platform_problem

    def no_device(platform):
        return "no device" if platform.getName() == fastest else original(platform)

    for module in (diagnostics, platforms):
        monkeypatch.setattr(module, "platform_problem", no_device)
    assert diagnostics._default()[1] == choose_platform().name != fastest


def test_fails_without_any_backend(diagnosis, monkeypatch):
    none = dataclasses.replace(
        diagnosis, backends={"torch": "no [libnvrtc]"}, default=None, checks=()
    )
    monkeypatch.setattr(diagnostics, "diagnose", lambda: none)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "no [libnvrtc]" in result.output


def test_a_plugin_that_works_is_not_listed_as_failed(diagnosis):
    """OpenMM reports what failed at its import; those of openmmtorch load once torch is there."""
    for check in diagnosis.checks:
        if check.backend == "torch":
            library = f"OpenMMTorch{check.platform}."
            assert not any(library in failure for failure in diagnosis.plugin_failures)


@pytest.mark.parametrize(
    ("library", "said"), [("libOpenMMOpenCL.so", True), ("libOpenMMPME.so", False)]
)
def test_says_what_plugins_of_gpus_mean(diagnosis, monkeypatch, library, said):
    failures = (
        "Error loading library /p/libOpenMMTorchCUDA.so: libcuda.so.1: cannot open",
        f"Error loading library /p/{library}: libx.so.1: cannot open",
    )
    failed = dataclasses.replace(diagnosis, plugin_failures=failures)
    monkeypatch.setattr(diagnostics, "diagnose", lambda: failed)
    result = runner.invoke(app, ["doctor"])
    assert ("serves CUDA and OpenCL only" in result.output) is said
    assert library in result.output
