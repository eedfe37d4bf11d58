"""Commands without the optional packages that they need: one line that names the extra."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trip_mm.training.formats_write import FileHeader, write_geometries
from trip_mm.training.sampling_geometry import unlabelled

DATA = Path(__file__).parents[1] / "data"
RECIPES = Path(__file__).parents[2] / "recipes"
WATER = np.array([[0.0, 0.0, 0.0], [0.97, 0.0, 0.0], [-0.25, 0.93, 0.1]])

OPTIONAL = (
    "lightning", "tensorboard", "tensorboardX", "tblite", "pyscf", "geometric", "pyarrow",
    "qcportal", "ase", "distributed", "torchani", "mace", "nequip",
)  # fmt: skip

# Runs each case with some packages absent; None in sys.modules makes an import fail as if the
# package were not there. Modules of trip-mm that are loaded once would hide a hole from the cases
# after it, so those that lack everything come first.
RUNNER = """
import json, os, shutil, sys, traceback
cases = json.load(sys.stdin)
from typer.testing import CliRunner
from trip_mm.cli.main import app
found, present = [], set(os.listdir())
for absent, arguments in cases:
    hidden = {name: sys.modules.pop(name, "never loaded") for name in absent}
    sys.modules.update(dict.fromkeys(absent))
    done = CliRunner().invoke(app, arguments)
    for name in absent:
        del sys.modules[name]
    sys.modules.update({n: m for n, m in hidden.items() if m != "never loaded"})
    error = done.exception
    trace = "" if error is None or isinstance(error, SystemExit) else "".join(
        traceback.format_exception(error)
    )
    left = sorted(set(os.listdir()) - present)
    for name in left:
        shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)
    found.append([done.exit_code, done.stderr, trace, left])
json.dump(found, sys.__stdout__)
"""

TRAINING = "error: training needs {}; pip install 'trip-mm[train]'"
GFN2 = "error: GFN2-xTB needs tblite; pip install 'trip-mm[qm]'"
HF = "error: hf/sto-3g needs pyscf; pip install 'trip-mm[qm]'"
RELAX = "error: relaxation needs geomeTRIC; pip install 'trip-mm[geometry]'"
CLUSTER = "error: --scheduler needs Dask; pip install 'trip-mm[cluster]'"
XYZ = "reading extended XYZ needs ASE; pip install 'trip-mm[ase]'"
COMMANDS = [
    ("train t.yaml", TRAINING.format("Lightning")),
    ("ablate t.yaml --out o", TRAINING.format("Lightning")),
    ("active-learn a.yaml --out o", TRAINING.format("Lightning")),
    ("label g.h5 --out o.h5", GFN2),
    ("label g.h5 --out o.h5 --method hf/sto-3g", HF),
    ("label g.h5 --out o.h5 --scheduler tcp://localhost:1", CLUSTER),
    ("evaluate gfn2 d.h5", GFN2),
    ("evaluate hf/sto-3g d.h5", HF),
    ("evaluate trip-gfn2-s x.xyz", XYZ),
    ("minimize OO", RELAX),
    ("minimize O --potential gfn2", RELAX),
    ("frequencies O", RELAX),
    ("frequencies O --as-is --potential gfn2", GFN2),
    ("frequencies O --as-is --potential hf/sto-3g", HF),
    ("frequencies O --as-is --reference gfn2", GFN2),
    ("scan water --potential gfn2 --out o", GFN2),
    ("scan diatomic O-H --out o", GFN2),
    ("scan diatomic O-H --potential hf/sto-3g --out o", "pyscf; pip install 'trip-mm[qm]'"),
    ("scan dimer O O --out o", GFN2),
    ("scan bond O --potential hf/sto-3g --out o", HF),
    ("torsion scan OO --dihedral 2,0,1,3 --out o", RELAX),
    ("torsion scan OO --dihedral 2,0,1,3 --strategy batched --potential gfn2 --out o", GFN2),
    ("torsion scan OO --dihedral 2,0,1,3 --strategy batched --single-point gfn2 --out o", GFN2),
    (
        "torsion drive reference-wb97x --out o",
        "tables need pyarrow; pip install 'trip-mm[torsion]'",
    ),
    ("torsion reference r.yaml --out o", RELAX),
    (
        "run w.yaml --potential openmm-ml:ani2x --protocol gas --out o",
        "; pip install torchani, or use",
    ),
]
ONE_ABSENT = [
    ("geometric", "torsion drive reference --out o", RELAX),
    ("tensorboard", "train s.yaml", TRAINING.format("TensorBoard")),
]
"""Packages that are looked for after another one of the same extra."""

Result = tuple[int, str, str, list[str]]
"""Status, stderr, traceback and what is left in the directory."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What every command does, by its text."""
    folder = tmp_path_factory.mktemp("commands")
    header = FileHeader("test")
    write_geometries(folder / "g.h5", [unlabelled([8, 1, 1], WATER, "water", "test")], header)
    shutil.copy(DATA / "comp6_fixture.h5", folder / "d.h5")
    for name, copy in (("gfn2.yaml", "r.yaml"), ("molecules.csv", "molecules.csv")):
        shutil.copy(RECIPES / "torsion-reference" / name, folder / copy)
    (folder / "x.xyz").write_text("1\nenergy=-1.0\nO 0 0 0\n")
    (folder / "w.yaml").write_text("structure: {smiles: O}\n")
    cases = [(OPTIONAL, command) for command, _ in COMMANDS]
    cases += [([package], command) for package, command, _ in ONE_ABSENT]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([(absent, command.split()) for absent, command in cases]),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    results = json.loads(done.stdout)
    return {command: tuple(result) for (_, command), result in zip(cases, results, strict=True)}


@pytest.mark.parametrize(
    ("command", "message"), [*COMMANDS, *((command, text) for _, command, text in ONE_ABSENT)]
)
def test_one_line_names_the_extra(command: str, message: str, found: dict[str, Result]) -> None:
    status, stderr, trace, left = found[command]
    assert trace == ""
    assert left == [], "a refusal leaves nothing behind"
    assert message in stderr
    assert stderr.count("\n") == 1
    assert status == 2
