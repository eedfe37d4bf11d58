"""Clusters of files in SPICE's layout: their size, and what is left out of a file."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from trip_mm.errors import ConfigError, DataError
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import Conformation
from trip_mm.training.sampling import sample_recipe
from trip_mm.training.sampling_clusters import cut_cluster, cut_water_cluster
from trip_mm.training.sampling_dynamics import Liquid
from trip_mm.training.sampling_recipe import SpiceSource
from trip_mm.training.sampling_spice import read_spice, sample_spice
from trip_mm.units import BOHR_TO_ANGSTROM

METHANE = "[C:1]([H:2])([H:3])([H:4])[H:5]"
ETHANE = "[C:1]([H:3])([H:4])([H:5])[C:2]([H:6])([H:7])[H:8]"
AMMONIUM = "[N+:1]([H:2])([H:3])([H:4])[H:5]"
FLUORINE = "[F:1][F:2]"


def with_waters(smiles: str, n_waters: int) -> str:
    first = smiles.count(":")
    waters = [f"[O:{n + 1}]([H:{n + 2}])[H:{n + 3}]" for n in range(first, first + 3 * n_waters, 3)]
    return ".".join([smiles, *waters] if smiles else waters)


def write_spice(
    path: Path,
    molecules: dict[str, str],
    n_conformations: int = 3,
    units: str | bytes | None = "nanometers",
) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name, smiles in molecules.items():
            positions = rng.normal(0.0, 0.5, (n_conformations, smiles.count(":"), 3))
            file[f"{name}/smiles"] = [smiles]
            conformations = file.create_dataset(f"{name}/conformations", data=positions)
            if units is not None:
                conformations.attrs["units"] = units
    return path


def sampled(path: Path, left_out: dict[str, int] | None = None, **changes) -> list[Conformation]:
    source = SpiceSource.model_validate(
        {"kind": "spice-file", "class": "c", "file": path.name, "conformations": 6, **changes}
    )
    counts = {} if left_out is None else left_out
    return list(sample_spice(source, path, frozenset(), np.random.default_rng(0), counts))


@pytest.mark.parametrize(
    ("units", "factor"),
    [
        ("nanometers", 10.0),
        (b"nanometers", 10.0),
        ("bohr", BOHR_TO_ANGSTROM),
        (np.bytes_(b"bohr"), BOHR_TO_ANGSTROM),
    ],
)
def test_conformations_are_converted_from_the_unit_they_state(
    tmp_path: Path, units: str | bytes, factor: float
) -> None:
    path = write_spice(tmp_path / "s.hdf5", {"methane": METHANE}, units=units)
    (found,) = read_spice(path)
    with h5py.File(path) as file:
        np.testing.assert_allclose(
            found.conformations, factor * file["methane/conformations"][:], rtol=1e-12
        )


@pytest.mark.parametrize(("units", "named"), [(None, "nothing"), ("angstrom", "angstrom")])
def test_conformations_of_an_unknown_unit_are_refused(
    tmp_path: Path, units: str | None, named: str
) -> None:
    path = write_spice(tmp_path / "s.hdf5", {"methane": METHANE}, units=units)
    with pytest.raises(DataError, match=rf"s\.hdf5: methane: .*says {named}; write nanometers or"):
        sampled(path)


@pytest.mark.parametrize(("max_atoms", "n_waters"), [(5, 0), (7, 0), (8, 1), (11, 2), (100, 4)])
def test_no_cluster_exceeds_max_atoms(tmp_path: Path, max_atoms: int, n_waters: int) -> None:
    path = write_spice(tmp_path / "s.hdf5", {"methane": with_waters(METHANE, 4)})
    found = sampled(path, max_atoms=max_atoms)
    assert {len(item.atomic_numbers) for item in found} == {5 + 3 * n_waters}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    molecules = {
        "methane": with_waters(METHANE, 4),
        "ethane": with_waters(ETHANE, 4),
        "ammonium": AMMONIUM,
        "fluorine": FLUORINE,
    }
    path = write_spice(tmp_path / "s.hdf5", molecules)
    left_out: dict[str, int] = {}
    found = sampled(path, left_out, max_atoms=7)
    assert {item.formula for item in found} == {"CH4"}
    assert left_out == {
        "c: more than 7 atoms without the waters around it": 3,
        "c: carries a net charge": 3,
        "c: other elements": 3,
    }
    with pytest.raises(DataError, match=r"nothing of s\.hdf5 is left.*more than 4 atoms"):
        sampled(path, max_atoms=4)


def test_a_droplet_keeps_at_least_one_water(tmp_path: Path) -> None:
    path = write_spice(tmp_path / "s.hdf5", {"water": with_waters("", 5)})
    found = sampled(path, n_waters=[0, 1])
    assert [len(item.atomic_numbers) for item in found] == [3] * 6
    assert {len(item.atomic_numbers) for item in sampled(path, max_atoms=8)} == {6}
    with pytest.raises(DataError, match="more than 2 atoms"):
        sampled(path, max_atoms=2)


def test_the_file_of_geometries_says_what_was_left_out(tmp_path: Path) -> None:
    write_spice(tmp_path / "s.hdf5", {"methane": METHANE, "ethane": ETHANE})
    (tmp_path / "recipe.yaml").write_text(
        "name: x\nseed: 1\nkeep_out: out.smi\nsources:\n"
        "  - {kind: spice-file, class: c, file: s.hdf5, conformations: 4}\n"
    )
    (tmp_path / "out.smi").write_text("CC\n")
    lines: list[tuple[str, int]] = []
    sample_recipe(
        tmp_path / "recipe.yaml",
        tmp_path / "g.h5",
        report=lambda kind, count: lines.append((kind, count)),
    )
    assert Dataset.open(tmp_path / "g.h5").failures == {"c: formula of keep_out": 3}
    assert lines == [("spice-file", 4), ("left out, c: formula of keep_out", 3)]


def test_clusters_of_a_negative_number_of_waters_are_refused() -> None:
    waters = np.arange(3, 12).reshape(3, 3)
    positions = np.random.default_rng(0).normal(0.0, 3.0, (12, 3))
    liquid = Liquid(None, positions, np.tile([8, 1, 1], 4), np.arange(3), waters, None)
    assert len(cut_cluster(liquid, positions, np.arange(3), 0).oxygens) == 0
    with pytest.raises(ConfigError, match="-1 waters"):
        cut_cluster(liquid, positions, np.arange(3), -1)
    with pytest.raises(ConfigError, match="0 waters"):
        cut_water_cluster(liquid, positions, 0, np.random.default_rng(0))
