"""Labelling: values against finite differences, resuming after a kill, counted failures."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from trip_mm.errors import ConfigError, DataError, RunDirectoryError
from trip_mm.locking import locked
from trip_mm.training.dataset import Dataset
from trip_mm.training.formats import read_failed_ids
from trip_mm.training.formats_write import FileHeader, write_geometries
from trip_mm.training.groups import Conformation
from trip_mm.training.labels import LabelJob, label
from trip_mm.training.labels_methods import LabelError, find_method, lone_atom_energies
from trip_mm.training.sampling_geometry import unlabelled
from trip_mm.workers import Workers, results

WATER = np.array([[0.0, 0.0, 0.0], [0.97, 0.0, 0.0], [-0.25, 0.93, 0.1]])
NUMBERS = np.array([8, 1, 1])


def write_waters(path: Path, n_geometries: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    items = []
    for number in range(n_geometries):
        positions = WATER + rng.normal(0.0, 0.03, WATER.shape)
        item = unlabelled(NUMBERS, positions, "water", "test")
        items.append(type(item)(**{**item.__dict__, "geometry_id": number}))
    write_geometries(path, items, FileHeader("test", split_by={"water": "source"}))


@pytest.fixture
def tblite() -> None:
    pytest.importorskip("tblite", reason="labels by GFN2-xTB need tblite")


@pytest.mark.usefixtures("tblite")
def test_forces_are_the_negative_derivative() -> None:
    method = find_method("gfn2")
    forces = method.calculate(NUMBERS, WATER, 0).forces
    step = 1e-3
    for atom, axis in ((0, 1), (1, 0), (2, 2)):
        shift = np.zeros_like(WATER)
        shift[atom, axis] = step
        upper = method.calculate(NUMBERS, WATER + shift, 0).energy
        lower = method.calculate(NUMBERS, WATER - shift, 0).energy
        assert forces[atom, axis] == pytest.approx(-(upper - lower) / (2 * step), abs=1e-4)


@pytest.mark.usefixtures("tblite")
def test_lone_atoms_in_their_ground_state() -> None:
    method = find_method("gfn2")
    energies = lone_atom_energies(method, (1, 6, 7, 8))
    # -0.39348 Ha and -3.76761 Ha at an electronic temperature of 300 K.
    assert energies[1] == pytest.approx(-10.70721, abs=1e-4)
    assert energies[8] == pytest.approx(-102.5218, abs=1e-3)
    # Two hydrogens far apart cost no more than two lone ones.
    apart = method.calculate(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 9.0]]), 2)
    assert apart.energy == pytest.approx(2 * energies[1], abs=1e-3)
    with pytest.raises(DataError, match="multiplicity"):
        lone_atom_energies(method, (26,))


@pytest.mark.usefixtures("tblite")
def test_every_geometry_is_labelled_once(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 12)
    job = LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "gfn2", chunk=5)
    dataset = Dataset.open(label(job))
    assert sorted(item.geometry_id for item in dataset) == list(range(12))
    assert dataset.level_of_theory == "GFN2-xTB"
    assert dataset.groups[0].split_by == "source"
    item = dataset[7]
    expected = find_method("gfn2").calculate(item.atomic_numbers, item.positions, 0)
    assert item.energy == pytest.approx(expected.energy, abs=1e-9)
    np.testing.assert_allclose(item.forces, expected.forces, atol=1e-5)


@pytest.mark.usefixtures("tblite")
def test_failures_are_counted_with_their_reason(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 6)
    forces = [
        np.linalg.norm(item.forces, axis=1).max()
        for item in Dataset.open(label(LabelJob(tmp_path / "g.h5", tmp_path / "all.h5", "gfn2")))
    ]
    limit = float(np.median(forces))
    job = LabelJob(tmp_path / "g.h5", tmp_path / "some.h5", "gfn2", chunk=4, max_force=limit)
    dataset = Dataset.open(label(job))
    assert len(dataset) == 3
    assert dataset.failures == {f"water: force above {limit:g} eV/A": 3}
    kept = {item.geometry_id for item in dataset}
    assert kept | set(read_failed_ids(job.out)) == set(range(6))


@pytest.mark.usefixtures("tblite")
def test_multiplicity_is_that_of_every_label_and_part(tmp_path: Path) -> None:
    atoms = [(np.array([8, 1]), WATER[:2]), (NUMBERS, WATER), (np.array([8]), WATER[:1])]
    items = [unlabelled(numbers, positions, "test", "test") for numbers, positions in atoms]
    items = [replace(item, geometry_id=number) for number, item in enumerate(items)]
    write_geometries(tmp_path / "g.h5", items, FileHeader("test"))
    job = LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "gfn2", max_force=100.0, multiplicity=3)
    dataset = Dataset.open(label(job))
    found = {item.formula: item for item in dataset}
    assert {name: item.n_unpaired for name, item in found.items()} == {"H2O": 2, "O": 2}
    assert found["O"].energy == pytest.approx(dataset.lone_atom_energies[8], abs=1e-6)
    assert dataset.failures == {"test: 9 electrons cannot have 2 unpaired ones": 1}
    with pytest.raises(DataError, match="multiplicity 3, now None"):
        label(replace(job, multiplicity=None))
    with pytest.raises(ConfigError, match="multiplicity 0"):
        replace(job, multiplicity=0)


@pytest.mark.usefixtures("tblite")
def test_two_processes_do_not_write_the_same_labels(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 2)
    job = LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "gfn2")
    job.parts.mkdir()
    with locked(job.parts), pytest.raises(RunDirectoryError, match="is in use by process"):
        label(job)
    assert len(Dataset.open(label(job))) == 2


@pytest.mark.usefixtures("tblite")
def test_killed_job_resumes_without_losing_or_doubling(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 400)
    code = (
        "from pathlib import Path\n"
        "from trip_mm.training.labels import LabelJob, label\n"
        f"label(LabelJob(Path({str(tmp_path / 'g.h5')!r}), Path({str(tmp_path / 'l.h5')!r}), "
        "'gfn2', chunk=10))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    parts = tmp_path / "l.h5.parts"
    deadline = time.monotonic() + 60
    while len(list(parts.glob("part-*.h5"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in parts.glob("part-*.h5")}
    assert len(finished) >= 2
    path = label(LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "gfn2", chunk=10))
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    assert sorted(item.geometry_id for item in Dataset.open(path)) == list(range(400))


@pytest.mark.usefixtures("tblite")
def test_parts_of_another_job_are_refused(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 6)
    job = LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "gfn2", chunk=3)
    label(job)
    first = job.parts / "part-00000000.h5"
    with pytest.raises(DataError, match=r"part-00000000.*another --chunk or number of geometries"):
        label(replace(job, chunk=2))
    with pytest.raises(DataError, match=r"max_force_ev_per_angstrom 30\.0, now 2\.5; repeat what"):
        label(replace(job, max_force=2.5))
    with pytest.raises(DataError, match="method GFN2-xTB, now GFN1-xTB"):
        label(replace(job, method="gfn1"))
    write_waters(tmp_path / "g.h5", 6, seed=1)
    with pytest.raises(DataError, match=r"other geometries under the same ids.*--out"):
        label(job)
    write_waters(tmp_path / "g.h5", 6)
    label(job)
    with h5py.File(first, "r+") as file:
        del file.attrs["labelling"]
    with pytest.raises(DataError, match="an earlier trip-mm wrote it"):
        label(job)


@pytest.mark.usefixtures("tblite")
def test_the_first_geometries_and_then_the_others(tmp_path: Path) -> None:
    """Labels accumulate: a longer job takes over what an earlier one labelled, and no more."""
    write_waters(tmp_path / "g.h5", 12)
    whole = LabelJob(tmp_path / "g.h5", tmp_path / "whole.h5", "gfn2", chunk=4)
    short = replace(whole, out=tmp_path / "short.h5", first=6)
    assert sorted(item.geometry_id for item in Dataset.open(label(short))) == list(range(6))
    with h5py.File(short.out, "r+") as file:  # a mark by which to know them
        file["water/H2O/energies"][:] -= 1.0
    label(whole)
    longer = replace(whole, out=tmp_path / "longer.h5", first=8, known=(short.out,))
    found = {item.geometry_id: item for item in Dataset.open(label(longer))}
    expected = {item.geometry_id: item for item in Dataset.open(whole.out)}
    assert sorted(found) == list(range(8))
    for number, item in found.items():
        shift = -1.0 if number < 6 else 0.0
        assert item.energy == pytest.approx(expected[number].energy + shift, abs=1e-6)
        np.testing.assert_allclose(item.forces, expected[number].forces, atol=1e-5)
    assert label(replace(longer, first=None)) == longer.out
    assert len(Dataset.open(longer.out)) == 12


@pytest.mark.usefixtures("tblite")
def test_a_finished_file_is_neither_computed_again_nor_replaced(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 6)
    job = LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "gfn2", chunk=2)
    label(replace(job, first=4))
    label(job)
    shutil.rmtree(job.parts)
    before = job.out.read_bytes()
    assert label(job) == job.out
    for other, message in (
        (replace(job, method="gfn1"), "method GFN2-xTB, now GFN1-xTB; .*choose another --out, or"),
        (replace(job, max_force=2.5), r"max_force_ev_per_angstrom 30\.0, now 2\.5"),
        (replace(job, first=4), "6 geometries, now 4"),
    ):
        with pytest.raises(DataError, match=rf"l\.h5: is there already.*{message}"):
            label(other)
    write_waters(tmp_path / "g.h5", 6, seed=1)
    with pytest.raises(DataError, match=r"l\.h5: is there already.*other geometries"):
        label(job)
    assert job.out.read_bytes() == before
    assert not job.parts.exists()
    job.out.write_text("something else\n")
    with pytest.raises(DataError, match="no file of trip-mm label"):
        label(job)


@pytest.mark.usefixtures("tblite")
def test_a_file_grows_only_beside_its_parts(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 4)
    job = LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "gfn2", chunk=2, first=2)
    label(job)
    shutil.rmtree(job.parts)
    with pytest.raises(DataError, match=r"holds the first 2 of .*--known .*l\.h5 and another"):
        label(replace(job, first=None))
    longer = replace(job, out=tmp_path / "longer.h5", first=None, known=(job.out,))
    assert len(Dataset.open(label(longer))) == 4


@pytest.mark.usefixtures("tblite")
def test_missing_geometries_are_asked_for_as_such(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"g\.h5: no such file; make geometries with"):
        label(LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "gfn2"))


@pytest.mark.usefixtures("tblite")
def test_labels_do_not_replace_their_geometries(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 1)
    (tmp_path / "link.h5").symlink_to(tmp_path / "g.h5")
    for out in ("g.h5", "link.h5"):
        with pytest.raises(ConfigError, match="holds the geometries"):
            label(LabelJob(tmp_path / "g.h5", tmp_path / out, "gfn2"))


@pytest.mark.usefixtures("tblite")
def test_known_labels_must_be_of_the_same_method_and_spin(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 3)
    job = LabelJob(tmp_path / "g.h5", tmp_path / "gfn1.h5", "gfn1")
    label(job)
    other = replace(job, out=tmp_path / "gfn2.h5", method="gfn2", known=(job.out,))
    with pytest.raises(DataError, match=r"gfn1.h5: labels at GFN1-xTB cannot be taken over into"):
        label(other)
    forces = [np.linalg.norm(item.forces, axis=1).max() for item in Dataset.open(job.out)]
    limit = float(np.median(forces))
    fewer = replace(job, out=tmp_path / "fewer.h5", max_force=limit, known=(job.out,))
    assert Dataset.open(label(fewer)).failures == {f"water: force above {limit:g} eV/A": 1}
    triplet = replace(job, out=tmp_path / "triplet.h5", multiplicity=3, known=(job.out,))
    singlets = Dataset.open(job.out)
    for one, three in zip(singlets, Dataset.open(label(triplet)), strict=True):
        assert three.n_unpaired == 2
        assert three.energy > one.energy + 1.0
    with h5py.File(job.out, "r+") as file:
        file["water/H2O/energies"][0] = np.nan
    again = replace(job, out=tmp_path / "missing.h5", known=(job.out,))
    assert np.isfinite([item.energy for item in Dataset.open(label(again))]).all()
    with h5py.File(job.out, "r+") as file:
        energies = json.loads(file.attrs["lone_atom_energies"])
        file.attrs["lone_atom_energies"] = json.dumps({k: v - 1.0 for k, v in energies.items()})
    with pytest.raises(DataError, match=r"gfn1.h5: isolated atoms have other energies"):
        label(replace(job, out=tmp_path / "again.h5", known=(job.out,)))
    with h5py.File(job.out, "r+") as file:
        file.attrs["lone_atom_energies"] = "{}"
    with pytest.raises(DataError, match=r"gfn1.h5: isolated atoms have other energies there, or"):
        label(replace(job, out=tmp_path / "again.h5", known=(job.out,)))
    with pytest.raises(ConfigError, match="first 0"):
        replace(job, first=0)


def test_parts_with_other_functions_of_the_basis_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyscf", reason="labels by density functionals need pyscf")
    write_waters(tmp_path / "g.h5", 1)
    job = LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "hf/sto-3g")
    label(job)
    with h5py.File(job.parts / "part-00000000.h5", "r+") as file:
        labelling = json.loads(file.attrs["labelling"])
        assert labelling.pop("functions") == "spherical"
        file.attrs["labelling"] = json.dumps(labelling)
    with pytest.raises(DataError, match="functions None, now spherical"):
        label(job)


@pytest.mark.usefixtures("tblite")
def test_processes_give_the_same_labels(tmp_path: Path) -> None:
    write_waters(tmp_path / "g.h5", 8)
    one = label(LabelJob(tmp_path / "g.h5", tmp_path / "one.h5", "gfn2", chunk=4))
    two = label(LabelJob(tmp_path / "g.h5", tmp_path / "two.h5", "gfn2", chunk=4), processes=2)
    for first, second in zip(Dataset.open(one), Dataset.open(two), strict=True):
        assert first.geometry_id == second.geometry_id
        assert first.energy == pytest.approx(second.energy, abs=1e-9)


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed", reason="labels across machines need Dask")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as found:
        yield found


class InterruptedHereError(RuntimeError):
    pass


@pytest.mark.usefixtures("tblite")
def test_a_cluster_labels_each_geometry_once_over_an_interruption(tmp_path, cluster) -> None:
    write_waters(tmp_path / "g.h5", 11)
    address = cluster.scheduler_address
    here = label(LabelJob(tmp_path / "g.h5", tmp_path / "here.h5", "gfn2", chunk=3))
    job = LabelJob(tmp_path / "g.h5", tmp_path / "there.h5", "gfn2", chunk=3)

    def interrupt(progress):
        raise InterruptedHereError

    with pytest.raises(InterruptedHereError):
        label(job, report=interrupt, scheduler=address)
    (finished,) = job.parts.glob("part-*.h5")
    written = finished.stat().st_mtime_ns
    counts = []
    there = label(job, report=lambda p: counts.append(p.n_done), scheduler=address)
    assert finished.stat().st_mtime_ns == written
    assert (len(counts), counts[-1]) == (3, 11)
    assert sorted(item.geometry_id for item in Dataset.open(there)) == list(range(11))
    for first, second in zip(Dataset.open(here), Dataset.open(there), strict=True):
        assert first.geometry_id == second.geometry_id
        assert first.energy == pytest.approx(second.energy, abs=1e-9)


def slow_square(number: int) -> int:
    time.sleep(0.05)
    return number**2


def dies(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_a_task_that_kills_the_workers_of_a_cluster_is_named() -> None:
    dask = pytest.importorskip("dask", reason="labels across machines need Dask")
    distributed = pytest.importorskip("distributed", reason="labels across machines need Dask")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
    ):
        workers = Workers(scheduler=cluster.scheduler_address)
        found = results(workers, dies, [(7, 7)], lambda key: f"task {key}")
        with pytest.raises(DataError, match=r"^task 7: .* died on it .* what is finished is kept"):
            list(found)


@pytest.mark.slow
def test_a_lost_worker_costs_its_task_once_more() -> None:
    distributed = pytest.importorskip("distributed", reason="labels across machines need Dask")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        tasks = ((n, n) for n in range(60))
        come = results(Workers(scheduler=cluster.scheduler_address), slow_square, tasks)
        found = [next(come) for _ in range(5)]
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        found += list(come)
    assert sorted(found) == [(n, n**2) for n in range(60)]


def test_a_scheduler_that_does_not_answer_is_an_error(monkeypatch) -> None:
    pytest.importorskip("distributed", reason="labels across machines need Dask")
    monkeypatch.setattr("trip_mm.workers._CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(ConfigError, match=r"tcp://127.0.0.1:1: no answer"):
        list(results(Workers(scheduler="tcp://127.0.0.1:1"), slow_square, [(0, 0)]))
    with pytest.raises(ConfigError, match="no answer"):
        list(results(Workers(scheduler="nonsense://x"), slow_square, [(0, 0)]))


def test_processes_beside_a_scheduler_are_refused(tmp_path) -> None:
    job = LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "gfn2")
    with pytest.raises(ConfigError, match="leave --processes out"):
        label(job, processes=2, scheduler="tcp://127.0.0.1:1")


def test_processes_get_tasks_as_they_finish() -> None:
    found = results(Workers(processes=2), slow_square, ((n, n) for n in range(9)))
    assert sorted(found) == [(n, n**2) for n in range(9)]


def test_pyscf_reproduces_the_published_level() -> None:
    pytest.importorskip("pyscf", reason="density functional labels need pyscf")
    fixture = Path(__file__).parents[1] / "data" / "comp6_fixture.h5"
    item = Dataset.open(fixture)[7]
    found = find_method("wb97x/6-31g*").calculate(item.atomic_numbers, item.positions, 0)
    assert found.energy == pytest.approx(item.energy, abs=2e-3)
    np.testing.assert_allclose(found.forces, item.forces, atol=5e-3)


def write_one_bad_water(path: Path, bad: Conformation) -> None:
    good = unlabelled(NUMBERS, WATER, "water", "test")
    items = [replace(item, geometry_id=number) for number, item in enumerate([good, bad, good])]
    write_geometries(path, items, FileHeader("test"))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (unlabelled(NUMBERS, WATER[[0, 1, 1]], "bad", "test"), "pyscf: "),
        (unlabelled(NUMBERS, WATER * np.nan, "bad", "test"), "pyscf: A singular matrix detected"),
        (
            replace(unlabelled(NUMBERS, WATER, "bad", "test"), n_unpaired=1),
            "10 electrons cannot have 1 unpaired ones",
        ),
    ],
    ids=["coincident", "nan", "spin"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:An ill-conditioned")
def test_a_bad_geometry_costs_its_own_label_only(tmp_path, bad: Conformation, reason: str) -> None:
    pytest.importorskip("pyscf", reason="density functional labels need pyscf")
    write_one_bad_water(tmp_path / "g.h5", bad)
    found = Dataset.open(label(LabelJob(tmp_path / "g.h5", tmp_path / "l.h5", "lda,vwn/sto-3g")))
    assert [item.geometry_id for item in found] == [0, 2]
    ((counted, count),) = found.failures.items()
    assert counted.startswith(f"bad: {reason}")
    assert count == 1


@pytest.mark.filterwarnings("ignore:Basis may be available")
def test_an_element_outside_the_basis_is_a_failure_with_its_name() -> None:
    pytest.importorskip("pyscf", reason="density functional labels need pyscf")
    with pytest.raises(LabelError, match=r"pyscf: Basis set not found for Fr in 6-31g\*"):
        find_method("wb97x/6-31g*").calculate(np.array([87]), np.zeros((1, 3)), 1)


def test_functionals_that_pyscf_lacks_are_refused() -> None:
    pytest.importorskip("pyscf", reason="density functional labels need pyscf")
    with pytest.raises(ConfigError, match="'wb97x-d3/sto-3g': pyscf knows no such functional"):
        find_method("wb97x-d3/sto-3g")
    with pytest.raises(DataError, match="isolated H at b3lyp-d3foo/sto-3g: pyscf: "):
        lone_atom_energies(find_method("b3lyp-d3foo/sto-3g"), (1,))


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="gfn7"):
        find_method("gfn7")
