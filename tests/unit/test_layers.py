"""The layers of the package: imports point down, never up, never in a circle."""

import ast
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import trip_mm

ROOT = Path(trip_mm.__file__).parent
FACADE = "trip_mm"

LAYER_OF = {
    "units": 0,
    "elements": 0,
    "errors": 0,
    "suggestions": 0,
    "dependencies": 1,
    "files": 1,
    "locking": 1,
    "edge_padding": 1,
    "lattice": 1,
    "neighbors": 1,
    "workers": 1,
    "model": 2,
    "potential": 3,
    "published": 3,
    "checkpoint": 3,
    "export": 3,
    "committee": 3,
    "precision": 3,
    "backends": 4,
    "benchmark": 5,
    "geometry": 5,
    "simulation": 5,
    "surfaces": 5,
    "torsion": 5,
    "training": 5,
    "analysis": 6,
    "evaluation": 6,
    "workflow": 6,
    "active_learning": 6,
    "cli": 7,
    "__main__": 8,
}


@dataclass(frozen=True)
class Import:
    """One imported module; `at_top` where importing the importer runs it."""

    importer: str
    target: str
    line: int
    at_top: bool

    def __str__(self) -> str:
        return f"{self.importer} imports {self.target} (line {self.line})"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def layer(module: str) -> int:
    return LAYER_OF[module.split(".")[1]]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports_of(module: str, path: Path) -> list[Import]:
    found: list[Import] = []

    def visit(node: ast.AST, at_top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(module, a.name, node.lineno, at_top) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                target = whole if whole in SOURCES else node.module
                if not (node.module == FACADE and alias.name == "__version__"):
                    found.append(Import(module, target, node.lineno, at_top))
        late = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        inner = at_top and not isinstance(node, late)
        for child in ast.iter_child_nodes(node):
            visit(child, inner and not is_type_checking(node))

    visit(ast.parse(path.read_text(encoding="utf-8")), at_top=True)
    return found


IMPORTS = [found for module, path in SOURCES.items() for found in imports_of(module, path)]
INTERNAL = [
    found for found in IMPORTS if found.importer != FACADE and found.target.split(".")[0] == FACADE
]


def external(prefix: str, packages: set[str], at_top_only: bool = False) -> list[str]:
    return [
        str(found)
        for found in IMPORTS
        if (found.importer == prefix or found.importer.startswith(prefix + "."))
        and found.target.split(".")[0] in packages
        and (found.at_top or not at_top_only)
    ]


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from trip_mm.cli import main\n"
        "def late():\n    import trip_mm.potential\n"
        "from trip_mm.errors import TripError\n"
        "from trip_mm import __version__, run\n"
    )
    found = {f.target: f.at_top for f in imports_of("trip_mm.model.fake", source)}
    assert found == {
        "typing": True,
        "trip_mm.cli.main": False,
        "trip_mm.potential": False,
        "trip_mm.errors": True,
        "trip_mm": True,
    }


def test_every_module_has_a_layer() -> None:
    unknown = {m for m in SOURCES if m != FACADE and m.split(".")[1] not in LAYER_OF}
    assert not unknown, "give them a layer in LAYER_OF"


def test_no_import_points_up() -> None:
    upward = [
        str(found)
        for found in INTERNAL
        if found.target == FACADE or layer(found.target) > layer(found.importer)
    ]
    assert not upward


def test_no_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in SOURCES}
    for found in INTERNAL:
        if found.target != found.importer:
            graph[found.importer].add(found.target)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_below_imports_the_command_line() -> None:
    allowed = {"cli", "__main__"}
    assert not [
        str(found)
        for found in INTERNAL
        if found.target.startswith("trip_mm.cli") and found.importer.split(".")[1] not in allowed
    ]


def test_the_network_knows_neither_engines_nor_configuration_files() -> None:
    assert not external("trip_mm.model", {"openmm", "openmmml", "ase", "pydantic", "yaml"})


def test_the_openmm_ml_entry_point_imports_torch_late() -> None:
    module = "trip_mm.backends.openmm_ml"
    if module not in SOURCES:
        pytest.skip("no openmm-ml entry point")
    assert not external(module, {"torch"}, at_top_only=True)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("trip_mm", ("torch", "openmm", "pydantic")),
        ("trip_mm.simulation.schema", ("torch",)),
        ("trip_mm.cli.main", ("torch", "openmm", "MDAnalysis", "matplotlib", "rdkit", "pydantic")),
    ],
)
def test_importing_stays_light(module: str, forbidden: tuple[str, ...]) -> None:
    if module not in SOURCES:
        pytest.skip(f"no {module}")
    script = (
        f"import sys, {module}; print(*[m for m in {forbidden!r} if m in sys.modules], sep=' ')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
