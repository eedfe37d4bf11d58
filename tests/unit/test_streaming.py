"""Data on disk give the minibatches that data in memory give; splits hold out what they say."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from trip_mm.elements import formula
from trip_mm.errors import DataError
from trip_mm.training.conformations import Exclusions, build_store
from trip_mm.training.dataset import Dataset
from trip_mm.training.formats_write import FileHeader, write_conformations
from trip_mm.training.groups import Conformation
from trip_mm.training.splits import split_by_formula, split_randomly, split_sequentially
from trip_mm.training.spool_identity import SpoolSettings
from trip_mm.training.spool_waiting import Patience, failure_told, wait_for_spool
from trip_mm.training.streaming import spool

LONE = {1: -10.0, 6: -50.0, 8: -100.0}
CUTOFF = 1.6
RECIPES = Path(__file__).parents[2] / "recipes" / "thesis"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "labels.h5"
    rng = np.random.default_rng(0)
    conformations = []
    for i in range(60):
        numbers = np.asarray([[1, 1, 8], [1, 1, 6, 8], [6, 8], [1]][i % 4])
        positions = rng.normal(size=(len(numbers), 3)).astype(np.float32)
        forces = rng.normal(size=positions.shape).astype(np.float32)
        if i == 5:
            forces[:] = np.nan
        if i == 6:
            forces[1, 1] = 50.0
        energy = np.nan if i == 4 else float(rng.normal())
        kind = "odd" if i % 2 else "even"
        conformations.append(
            Conformation(numbers, positions, energy, forces, kind, formula(numbers), "s")
        )
    write_conformations(path, conformations, FileHeader("t", "t", LONE))
    return path


@pytest.fixture
def stores(file, tmp_path):
    dataset = Dataset.open(file)
    settings = SpoolSettings(LONE, CUTOFF, 20.0)
    streamed = spool(dataset, [file], settings, tmp_path / "run" / "conformations")
    return build_store(dataset, LONE, CUTOFF, 20.0), streamed


def assert_same_batches(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_streamed_conformations_are_those_in_memory(stores):
    memory, streamed = stores
    assert len(streamed) == len(memory) == 57
    assert streamed.exclusions == memory.exclusions == Exclusions(1, 1, 1)
    np.testing.assert_array_equal(streamed.n_edges, memory.n_edges)
    np.testing.assert_array_equal(streamed.energies, memory.energies)
    np.testing.assert_array_equal(streamed.compositions((1, 8)), memory.compositions((1, 8)))
    assert streamed.force_rms() == pytest.approx(memory.force_rms(), rel=1e-6)
    assert streamed.classes == memory.classes
    rows = np.asarray([40, 3, 56, 0, 17])
    assert_same_batches(streamed.batch(rows, torch.float32), memory.batch(rows, torch.float32))
    chosen = np.asarray([50, 2, 31])
    one, other = streamed.subset(chosen), memory.subset(chosen)
    rows = np.asarray([2, 0])
    assert_same_batches(one.batch(rows, torch.float64), other.batch(rows, torch.float64))
    loaded = one.in_memory()
    for name in ("atomic_numbers", "positions", "forces", "energies", "senders", "dataset_idx"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(other, name))
    moved = one.with_energies(one.energies + 1.0)
    np.testing.assert_allclose(moved.batch(rows, torch.float32).energies, one.energies[rows] + 1)


def test_a_copy_is_reused_until_files_or_settings_change(file, tmp_path):
    dataset = Dataset.open(file)
    folder = tmp_path / "conformations"
    first = spool(dataset, [file], SpoolSettings(LONE, CUTOFF), folder)
    written = (folder / "header.json").stat().st_mtime_ns
    again = spool(dataset, [file], SpoolSettings(LONE, CUTOFF), folder)
    assert (folder / "header.json").stat().st_mtime_ns == written
    assert again.sha256() == first.sha256()
    assert first.subset(np.arange(3)).sha256() != first.sha256()
    (tmp_path / ".conformations.1.partial").mkdir()  # of a killed run
    other = spool(dataset, [file], SpoolSettings(LONE, CUTOFF, 20.0), folder)
    assert len(other) == len(first) - 1
    assert other.sha256() != first.sha256()
    assert [path.name for path in tmp_path.iterdir()] == ["conformations"]


AT_ONCE = Patience(settle_s=0.0, timeout_s=0.0)


def test_another_process_opens_the_copy_also_with_data_files_of_its_own(file, tmp_path):
    settings, folder = SpoolSettings(LONE, CUTOFF), tmp_path / "run" / "conformations"
    first = spool(Dataset.open(file), [file], settings, folder)
    assert wait_for_spool([file], settings, folder, AT_ONCE).sha256() == first.sha256()
    own = tmp_path / file.name
    shutil.copyfile(file, own)
    os.utime(own, ns=(1, 1))
    never_settled = Patience(settle_s=60.0, timeout_s=0.0)
    with pytest.raises(DataError, match="of other files or settings"):
        wait_for_spool([own], settings, folder, never_settled)
    assert wait_for_spool([own], settings, folder, AT_ONCE).sha256() == first.sha256()
    data = bytearray(own.read_bytes())
    data[-1] ^= 1
    own.write_bytes(data)
    with pytest.raises(DataError, match="of other files or settings; give all processes the same"):
        wait_for_spool([own], settings, folder, AT_ONCE)


def test_waiting_for_a_copy_ends_with_a_reason(file, tmp_path):
    settings, folder = SpoolSettings(LONE, CUTOFF), tmp_path / "run" / "conformations"
    with pytest.raises(DataError, match=r"waited for the copy .* nothing was written for 0 s"):
        wait_for_spool([file], settings, folder, AT_ONCE)
    lacking = SpoolSettings({1: 0.0, 6: 0.0}, CUTOFF)
    with pytest.raises(DataError, match="no lone-atom energy for O"), failure_told(folder):
        spool(Dataset.open(file), [file], lacking, folder)
    with pytest.raises(DataError, match=r"first process could not .*: .*no lone-atom energy for O"):
        wait_for_spool([file], settings, folder, AT_ONCE)
    with failure_told(folder):  # the next run forgets it
        spool(Dataset.open(file), [file], settings, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["conformations"]


def test_who_waits_sees_the_copy_grow_and_then_opens_it(file, tmp_path):
    settings, folder = SpoolSettings(LONE, CUTOFF), tmp_path / "conformations"
    partial = tmp_path / ".conformations.1.partial"
    partial.mkdir()

    def write() -> None:
        for size in range(3):  # longer than the timeout, but never without a change for so long
            (partial / "positions.bin").write_bytes(bytes(size))
            time.sleep(1.5)
        spool(Dataset.open(file), [file], settings, folder)

    writer = threading.Thread(target=write)
    writer.start()
    found = wait_for_spool([file], settings, folder, Patience(settle_s=0.0, timeout_s=3.5))
    writer.join()
    assert len(found) == 58


def test_bad_data_are_refused_and_leave_nothing(tmp_path, file):
    with h5py.File(tmp_path / "bad.h5", "w") as out, h5py.File(file) as source:
        for key, value in source.attrs.items():
            out.attrs[key] = value
        source.copy("odd", out)
        group = next(iter(out["odd"].values()))
        group["coordinates"][0, 0, 0] = np.inf
    dataset = Dataset.open(tmp_path / "bad.h5")
    with pytest.raises(DataError, match=r"odd/\w+: positions that are not finite"):
        spool(dataset, [tmp_path / "bad.h5"], SpoolSettings(LONE, CUTOFF), tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.h5"]
    with pytest.raises(DataError, match="no lone-atom energy for O"):
        spool(Dataset.open(file), [file], SpoolSettings({1: 0.0, 6: 0.0}, CUTOFF), tmp_path / "c")


@pytest.mark.parametrize("n_missing", [1, 3])
def test_forces_that_are_partly_nan_are_refused(tmp_path, n_missing):
    items = []
    for i in range(5):
        forces = np.zeros((2, 3))
        if i == 1:
            forces[:] = np.nan  # missing altogether, as in ANI-1x
        if i == 3:
            forces[1, :n_missing] = np.nan
        positions = np.asarray([[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]])
        items.append(Conformation(np.asarray([1, 1]), positions, -20.0, forces, "odd", "H2", "s"))
    file = tmp_path / "x.h5"
    write_conformations(file, items, FileHeader("t", "t", LONE))
    dataset = Dataset.open(file)
    message = rf"odd/H2: conformation 3 \(counted from 0\): {n_missing} of 6 force components"
    with pytest.raises(DataError, match=message):
        build_store(dataset, LONE, CUTOFF)
    with pytest.raises(DataError, match=message):
        spool(dataset, [file], SpoolSettings(LONE, CUTOFF), tmp_path / "c")


def test_the_number_of_a_damaged_conformation_counts_from_the_start_of_its_group(
    tmp_path, file, monkeypatch
):
    monkeypatch.setattr("trip_mm.training.streaming._SLICE_ATOMS", 4)  # a conformation or two
    with h5py.File(tmp_path / "bad.h5", "w") as out, h5py.File(file) as source:
        for key, value in source.attrs.items():
            out.attrs[key] = value
        source.copy("even", out)
        out["even/H2O/forces"][11, 2, 1] = np.nan
    bad = Dataset.open(tmp_path / "bad.h5")
    with pytest.raises(DataError, match="even/H2O: conformation 11 "):
        spool(bad, [tmp_path / "bad.h5"], SpoolSettings(LONE, CUTOFF), tmp_path / "c")


def test_missing_properties_of_ani1x_are_left_out(tmp_path):
    path = tmp_path / "ani1x.h5"
    with h5py.File(path, "w") as out:
        group = out.create_group("H2O1")
        group["atomic_numbers"] = np.asarray([8, 1, 1], dtype=np.uint8)
        grid = np.asarray([[0.0, 0.0, 0.0], [0.9, 0.0, 0.0], [0.0, 0.9, 0.0]], dtype=np.float32)
        group["coordinates"] = np.stack([grid] * 4)
        group["wb97x_dz.energy"] = np.asarray([-76.0, np.nan, -76.0, np.nan])
        forces = np.zeros((4, 3, 3), dtype=np.float32)
        forces[2:] = np.nan
        group["wb97x_dz.forces"] = forces
    dataset = Dataset.open(path)
    memory = build_store(dataset, LONE, CUTOFF)
    streamed = spool(dataset, [path], SpoolSettings(LONE, CUTOFF), tmp_path / "c")
    assert len(memory) == len(streamed) == 1
    assert memory.exclusions == streamed.exclusions == Exclusions(2, 1, 0)


def test_splits(file):
    dataset = Dataset.open(file)
    by_formula = split_by_formula(dataset, 0.2, 0)
    formulas = [
        {dataset[int(i)].formula for i in rows if dataset[int(i)].formula not in ("H2O", "CO", "H")}
        for rows in (by_formula.train, by_formula.validation)
    ]
    assert not formulas[0] & formulas[1]
    drawn = split_randomly(dataset, 0.2, 1)
    assert len(drawn.validation) == 12
    assert sorted([*drawn.train, *drawn.validation]) == list(range(60))
    np.testing.assert_array_equal(drawn.validation, split_randomly(dataset, 0.2, 1).validation)
    assert (drawn.validation != split_randomly(dataset, 0.2, 2).validation).any()
    last = split_sequentially(dataset, 0.2, 0)
    groups = dataset.group_of(last.validation)
    for number, group in enumerate(dataset.groups):
        rows = last.validation[groups == number]
        assert len(rows) == round(0.2 * group.n_conformations)
        assert [dataset.locate(int(i))[1] for i in rows] == list(
            range(group.n_conformations - len(rows), group.n_conformations)
        )
    assert json.loads(last.to_json())["n_validation"] == len(last.validation)
    for split in (split_randomly, split_sequentially):
        with pytest.raises(DataError, match="outside"):
            split(dataset, 1.0, 0)


@pytest.mark.slow
def test_many_conformations_need_little_memory(tmp_path):
    """A tenth of ANI-1x, loaded with the thesis's settings, takes less than 2 GiB."""
    data, config = tmp_path / "like.h5", tmp_path / "train.yaml"
    subprocess.run(
        [sys.executable, RECIPES / "ani1x_like.py", data, "--conformations", "440000"], check=True
    )
    text = (RECIPES / "train.yaml").read_text().replace("ani1x-release.h5", str(data))
    config.write_text(text)
    command = [sys.executable, RECIPES / "loader_speed.py", config, "--out", tmp_path / "run"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    speed = float(done.stdout.split("loader: ")[1].split()[0])
    own = float(done.stdout.split("now ")[1].split()[0])
    assert speed > 500.0
    assert own < 2.0


def test_the_generated_file_has_the_published_layout(tmp_path, monkeypatch):
    path = tmp_path / "like.h5"
    monkeypatch.setattr(sys, "argv", ["x", str(path), "--conformations", "640"])
    runpy.run_path(str(RECIPES / "ani1x_like.py"), run_name="__main__")
    dataset = Dataset.open(path)
    assert len(dataset) == 640
    assert len(dataset.groups) == 64
    assert dataset.level_of_theory == "wb97x/6-31g*"
    assert 14 < dataset.n_atoms().mean() < 17
    missing = np.isnan([item.energy for item in dataset]).mean()
    assert 0.0 < missing < 0.06
