"""Reference sets of torsion drives: relaxed at one level, energies at the same or another one.

A molecule without stereocentres and its mirror image are the same molecule, so that a geometry at
an angle gives one at the opposite angle for free: such a molecule is swept once around and the
lower energy of each pair counts. Others are swept both ways.
"""

import csv
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from trip_mm.errors import (
    ConfigError,
    DataError,
    EvaluationError,
    MissingDependencyError,
    TripError,
    UnsupportedSystemError,
)
from trip_mm.files import make_directory
from trip_mm.geometry.dihedral import wrapped
from trip_mm.geometry.molecule import Molecule, molecule_from_rdkit
from trip_mm.geometry.potentials import PotentialSpec, bind, bind_energy, parse_potential
from trip_mm.locking import locked
from trip_mm.simulation.config_io import validate
from trip_mm.simulation.yaml_io import read_yaml
from trip_mm.torsion.comparison import model_sha256
from trip_mm.torsion.dihedrals import Dihedral, dihedral_from_indices, dihedral_from_smarts
from trip_mm.torsion.record_files import write_hdf5
from trip_mm.torsion.records import (
    DrivenPoints,
    TorsionRecord,
    mapped_smiles,
    mol_from_mapped_smiles,
)
from trip_mm.torsion.scan import (
    Journal,
    Step,
    grid_angles,
    journaled_step,
    nearest_angle,
    require_geometric_to_begin,
    sweep_both_ways,
)
from trip_mm.workers import Workers, results

_COLUMNS = ("record_id", "smiles", "dihedral", "step_deg")

N_CONFORMERS = 20
"""Conformers embedded; the drive starts from the one that MMFF94 finds lowest."""


class ReferenceRecipe(BaseModel):
    """A recipe, as in its YAML file.

    Attributes:
        name: of the set and of the file written, so without a slash.
        description: one sentence, stored in the file.
        molecules: CSV file beside the recipe with the columns `record_id`, `smiles` (mapped, or
            plain SMILES), `dihedral` (four indices from 0, or SMARTS) and `step_deg`.
        geometries: potential that relaxes.
        energies: potential of the energies; the relaxing one where it is not given.
        seed: of the embedding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[^/]+$")
    description: str = ""
    molecules: Path
    geometries: str = "gfn2"
    energies: str | None = None
    seed: int = 1


@dataclass(frozen=True)
class ReferenceTask:
    """One molecule to drive.

    Attributes:
        record_id: identifier.
        smiles: mapped or plain.
        dihedral: indices or SMARTS.
        step_deg: grid step, degrees.
        source: of the molecule.
        geometries: potential that relaxes.
        energies: potential of the energies.
        seed: of the embedding.
        journals: directory of the journals.
    """

    record_id: str
    smiles: str
    dihedral: str
    step_deg: int
    source: str
    geometries: PotentialSpec
    energies: PotentialSpec
    seed: int
    journals: Path


@dataclass(frozen=True)
class ReferenceResult:
    """What became of the molecules of a recipe.

    Attributes:
        path: the file written.
        records: the finished ones.
        skipped: reasons by record id.
    """

    path: Path
    records: tuple[TorsionRecord, ...]
    skipped: dict[str, str]


def load_recipe(path: Path) -> ReferenceRecipe:
    """Reads a recipe.

    Raises:
        ConfigError: unreadable, or a field that is missing, unknown or of the wrong kind.
    """
    recipe = validate(ReferenceRecipe, read_yaml(path), str(path))
    return recipe.model_copy(update={"molecules": path.parent / recipe.molecules})


def make_reference(
    recipe: ReferenceRecipe, out: Path, workers: Workers, announce: Callable[[str], None]
) -> ReferenceResult:
    """Drives every molecule of a recipe and writes `<name>.h5` into `out`.

    Every relaxation and single point goes to a journal at once; the same call continues after any
    interruption. A molecule that lacks a grid point in the end is left out, with the reason.

    Raises:
        ConfigError: the list of molecules is malformed, or `out` holds other results.
        DataError: no molecule was finished.
        RunDirectoryError: another process works in `out`.
        MissingDependencyError: a relaxation is to be computed and geomeTRIC is not installed.
    """
    journals = out / "journals"
    if workers.scheduler is None:
        require_geometric_to_begin(journals)
    make_directory(journals)
    with locked(out):
        return _make_reference(recipe, out, workers, announce)


def _make_reference(
    recipe: ReferenceRecipe, out: Path, workers: Workers, announce: Callable[[str], None]
) -> ReferenceResult:
    tasks = _tasks(recipe, out / "journals")
    found: dict[str, TorsionRecord] = {}
    skipped: dict[str, str] = {}
    with closing(
        results(workers, drive_molecule, ((task, task) for task in tasks), lambda t: t.record_id)
    ) as finished:
        for task, result in finished:
            if isinstance(result, str):
                skipped[task.record_id] = result
            else:
                found[task.record_id] = result
            n_done = len(found) + len(skipped)
            state = f"skipped: {result}" if isinstance(result, str) else "done"
            announce(f"{n_done}/{len(tasks)} {task.record_id}: {state}")
    records = tuple(found[task.record_id] for task in tasks if task.record_id in found)
    if not records:
        raise DataError(f"{recipe.name}: no molecule was finished; see the reasons above")
    path = out / f"{recipe.name}.h5"
    write_hdf5(path, records, recipe.description)
    return ReferenceResult(path, records, skipped)


def _tasks(recipe: ReferenceRecipe, journals: Path) -> list[ReferenceTask]:
    geometries = parse_potential(recipe.geometries)
    energies = parse_potential(recipe.energies) if recipe.energies else geometries
    try:
        with recipe.molecules.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"{recipe.molecules}: cannot be read: {error}") from error
    tasks = []
    for number, row in enumerate(rows, start=2):
        try:
            _check_row(row)
            step = int(row["step_deg"])
            grid_angles(step)
            tasks.append(
                ReferenceTask(
                    row["record_id"],
                    row["smiles"],
                    row["dihedral"],
                    step,
                    row.get("source") or recipe.molecules.name,
                    geometries,
                    energies,
                    recipe.seed,
                    journals,
                )
            )
        except (ValueError, ConfigError) as error:
            raise ConfigError(f"{recipe.molecules}: line {number}: {error}") from error
    if len({task.record_id for task in tasks}) != len(tasks):
        raise ConfigError(f"{recipe.molecules}: a record_id occurs twice")
    return tasks


def _check_row(row: dict[str, str]) -> None:
    missing = [key for key in _COLUMNS if not row.get(key)]
    if missing:
        raise ConfigError(f"lacks {', '.join(missing)}")
    if "/" in row["record_id"]:
        raise ConfigError(
            f"record_id {row['record_id']!r} holds a slash; it names the journal, so leave it out"
        )


def drive_molecule(task: ReferenceTask) -> TorsionRecord | str:
    """Drives one molecule; returns its record, or the reason why there is none.

    Raises:
        ConfigError: its journal holds results of other settings.
        MissingDependencyError: a package that every molecule needs is not installed.
    """
    try:
        molecule = embedded(task.smiles, task.seed, task.record_id)
        dihedral = _chosen_dihedral(molecule, task.dihedral)
        points = _relaxed_points(task, molecule, dihedral)
        if task.energies != task.geometries:
            points = _single_points(task, molecule, dihedral, points)
    except (ConfigError, MissingDependencyError):
        raise
    except TripError as error:
        return str(error)
    return TorsionRecord(
        task.record_id,
        task.source,
        mapped_smiles(molecule.rdkit),
        dihedral,
        points,
        task.energies.label,
        task.geometries.label,
        str(Chem.MolToSmiles(_unmapped(molecule.rdkit))),
    )


def embedded(smiles: str, seed: int, name: str) -> Molecule:
    """Returns the conformer that MMFF94 finds lowest among several of distance geometry.

    Args:
        smiles: mapped, which fixes the order of atoms, or plain.
        seed: of distance geometry.
        name: of the molecule.

    Raises:
        DataError: not SMILES.
        UnsupportedSystemError: no geometry was found, or MMFF94 does not know the molecule.
    """
    if ":" in smiles:
        mol = mol_from_mapped_smiles(smiles)
    else:
        with rdBase.BlockLogs():
            plain = Chem.MolFromSmiles(smiles)
        if plain is None:
            raise DataError(f"{name}: {smiles!r} is not SMILES")
        mol = Chem.AddHs(plain)
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed
    ids = list(rdDistGeom.EmbedMultipleConfs(mol, N_CONFORMERS, parameters))
    if not ids or not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        raise UnsupportedSystemError(f"{name}: no starting geometry was found")
    results = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, maxIters=2000)
    best = ids[int(np.argmin([energy for _, energy in results]))]
    return molecule_from_rdkit(Chem.Mol(mol, confId=best), name)


def _chosen_dihedral(molecule: Molecule, text: str) -> Dihedral:
    if set(text) <= set("0123456789, "):
        return dihedral_from_indices(molecule, text)
    return dihedral_from_smarts(molecule, text)


def _unmapped(mol: Chem.Mol) -> Chem.Mol:
    copy = Chem.RemoveHs(mol)
    for atom in copy.GetAtoms():
        atom.SetAtomMapNum(0)
    return copy


def is_mirrored(molecule: Molecule) -> bool:
    """Tells whether the mirror image of any geometry is a geometry of the same molecule."""
    # A copy: looking for stereocentres writes properties to the molecule.
    mol = Chem.Mol(molecule.rdkit)
    found = Chem.FindPotentialStereo(mol)
    return not any(one.type == Chem.StereoType.Atom_Tetrahedral for one in found)


def _relaxed_points(task: ReferenceTask, molecule: Molecule, dihedral: Dihedral) -> DrivenPoints:
    angles = grid_angles(task.step_deg)
    identity = {
        "smiles": task.smiles,
        "dihedral": list(dihedral),
        "step_deg": task.step_deg,
        "potential": str(task.geometries),
        "seed": task.seed,
        **_model(task.geometries),
    }
    journal = Journal(task.journals / f"{task.record_id}.journal", identity)
    step = journaled_step(molecule, bind(task.geometries, molecule), dihedral, angles, journal)
    if is_mirrored(molecule):
        points, failures = _sweep_once(molecule, dihedral, angles, step)
    else:
        scan = sweep_both_ways(molecule, dihedral, angles, step)
        points = {p.angle_deg: (p.energy, p.positions) for p in scan.points}
        failures = list(scan.failures)
    if len(points) != len(angles):
        raise DataError(f"{len(angles) - len(points)} of {len(angles)} points: {failures[0]}")
    return DrivenPoints(
        np.array(angles),
        np.array([points[angle][0] for angle in angles]),
        np.array([points[angle][1] for angle in angles]),
    )


def _model(spec: PotentialSpec) -> dict[str, object]:
    """What a potential depends on beside its name: another model may come to bear the same one."""
    return {"sha256": model_sha256(spec)} if spec.kind == "trip" else {}


def _sweep_once(
    molecule: Molecule, dihedral: Dihedral, angles: list[float], step: Step
) -> tuple[dict[float, tuple[float, NDArray[np.float64]]], list[str]]:
    """Sweeps once around, up; keeps the lower of each geometry and its partner's mirror image."""
    first = nearest_angle(molecule, dihedral, angles)
    points: dict[float, tuple[float, NDArray[np.float64]]] = {}
    failures: list[str] = []
    positions = molecule.positions
    for count in range(len(angles)):
        index = (first + count) % len(angles)
        attempt = step(f"up:{count}", index, positions)
        if attempt.energy is None or attempt.positions is None:
            failures.append(attempt.error)
            continue
        positions = attempt.positions
        images = {
            angles[index]: positions,
            wrapped(-angles[index]): mirror_image(positions),
        }
        for angle, image in images.items():
            if angle not in points or attempt.energy < points[angle][0]:
                points[angle] = (attempt.energy, image)
    return points, failures


def mirror_image(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns positions `[..., 3]` reflected in the xy plane, which turns every dihedral's sign."""
    image: NDArray[np.float64] = positions * np.array([1.0, 1.0, -1.0])
    return image


def _single_points(
    task: ReferenceTask, molecule: Molecule, dihedral: Dihedral, points: DrivenPoints
) -> DrivenPoints:
    """Replaces the energies; mirror images are computed once."""
    identity = {
        "geometries": np.round(points.energies, 6).tolist(),
        "potential": str(task.energies),
        "dihedral": list(dihedral),
        **_model(task.energies),
    }
    journal = Journal(task.journals / f"{task.record_id}.single-points.journal", identity)
    evaluate = bind_energy(task.energies, molecule)
    known: dict[float, float] = {}
    once = is_mirrored(molecule)
    for angle, positions in zip(points.angles_deg.tolist(), points.positions, strict=True):
        key = f"{abs(angle) if once else angle:g}"
        entry = journal.entries.get(key)
        if entry is None:
            try:
                entry = {"energy_ev": evaluate(positions)}
            except EvaluationError as error:
                raise DataError(f"{key} degrees: {error}") from error
            journal.add(key, entry)
        known[angle] = float(str(entry["energy_ev"]))
    return replace(points, energies=np.array([known[a] for a in points.angles_deg.tolist()]))
