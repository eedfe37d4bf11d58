"""What is said of the libraries that OpenMM could not load at its import."""

from types import ModuleType

import pytest

from trip_mm.backends import plugin
from trip_mm.errors import BackendError

REFERENCE = "/p/libOpenMMTorchReference.so"
CUDA = "/p/libOpenMMTorchCUDA.so"
TORCH_LINES = tuple(
    f"Error loading library {path}: libtorch.so: cannot open" for path in (REFERENCE, CUDA)
)
OTHER_LINE = "Error loading library /p/libOpenMMCUDA.so: libcuda.so.1: cannot open"


@pytest.fixture(autouse=True)
def failed_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "load_failures", lambda: (*TORCH_LINES, OTHER_LINE))
    monkeypatch.setattr(plugin, "import_openmmtorch", lambda: ModuleType("openmmtorch"))


def test_libraries_loaded_since_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "_load_torch_plugins", dict)
    assert plugin.plugin_failures() == (OTHER_LINE,)


def test_a_library_that_still_fails_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "_load_torch_plugins", lambda: {CUDA: "libcuda.so.1: cannot open"})
    assert plugin.plugin_failures() == (TORCH_LINES[1], OTHER_LINE)


def test_everything_is_listed_without_openmmtorch(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> ModuleType:
        raise BackendError("openmmtorch cannot be imported")

    def load() -> dict[str, str]:
        raise AssertionError("without torch they cannot load")

    monkeypatch.setattr(plugin, "import_openmmtorch", absent)
    monkeypatch.setattr(plugin, "_load_torch_plugins", load)
    assert plugin.plugin_failures() == (*TORCH_LINES, OTHER_LINE)
