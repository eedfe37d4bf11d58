"""A torsion scan with several potentials, compared, and written to a directory."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm import __version__
from trip_mm.errors import DataError, EvaluationError
from trip_mm.files import make_directory
from trip_mm.geometry.molecule import Molecule, to_xyz
from trip_mm.geometry.potentials import PotentialSpec, bind, bind_energy, check_distinct
from trip_mm.locking import locked
from trip_mm.torsion.batched import BATCHED, batched_scan
from trip_mm.torsion.dihedrals import Dihedral, describe
from trip_mm.torsion.plots import plot_profiles
from trip_mm.torsion.profile import Deviation, Profile, deviation
from trip_mm.torsion.scan import (
    STRATEGIES,
    Journal,
    Scan,
    grid_angles,
    journaled_step,
    require_geometric_to_begin,
)
from trip_mm.units import EV_TO_KCAL_PER_MOL

Announce = Callable[[str], None]


@dataclass(frozen=True)
class ScanSettings:
    """What a scan does.

    Attributes:
        dihedral: atom indices, from 0.
        relaxed: potentials that relax their own profile.
        single_points: potentials evaluated at the geometries of the first relaxed one.
        step_deg: grid step, whole degrees.
        strategy: `both`, `wavefront` or `batched`.
        n_conformers: embedded as further starts at every angle; `batched` only.
    """

    dihedral: Dihedral
    relaxed: tuple[PotentialSpec, ...]
    single_points: tuple[PotentialSpec, ...]
    step_deg: int = 10
    strategy: str = "both"
    n_conformers: int = 0


@dataclass(frozen=True)
class ScanResult:
    """Profiles in the order of the settings, and how they differ from the reference.

    Attributes:
        profiles: relaxed ones first.
        deviations: of every other profile from the reference, by label.
        reference: label of the reference.
        failures: reasons of what failed, by label.
    """

    profiles: tuple[Profile, ...]
    deviations: dict[str, Deviation]
    reference: str
    failures: dict[str, tuple[str, ...]]


def compare_potentials(
    molecule: Molecule, settings: ScanSettings, out: Path, announce: Announce
) -> ScanResult:
    """Scans a dihedral with every potential and writes the results.

    Every finished relaxation and single point goes to a journal in `out` at once; the same call
    continues after any interruption. The reference is the last single-point potential, else the
    last relaxed one. `out` receives `profiles.csv`, `scan.json`, `profiles.png` and one XYZ
    trajectory for each relaxed potential.

    Args:
        molecule: starting geometry.
        settings: dihedral, potentials, grid.
        out: directory, made if missing.
        announce: is given lines on progress.

    Raises:
        ConfigError: an unknown potential, two of one name, or a directory that holds another scan.
        UnsupportedSystemError: a potential that cannot know the molecule.
        DataError: a potential failed at all but one angle.
        MissingDependencyError: a package that is not installed.
        RunDirectoryError: another process writes to the same directory.
    """
    for specs in (settings.relaxed, settings.single_points):
        check_distinct(specs)
    if settings.strategy != BATCHED:
        require_geometric_to_begin(out)
    for spec in (*settings.relaxed, *settings.single_points):
        bind(spec, molecule)  # refuses before anything runs
    make_directory(out)
    with locked(out):
        return _compare(molecule, settings, out, announce)


def _compare(
    molecule: Molecule, settings: ScanSettings, out: Path, announce: Announce
) -> ScanResult:
    """Runs what a scan lacks and writes its results."""
    profiles: list[Profile] = []
    failures: dict[str, tuple[str, ...]] = {}
    scans: list[Scan] = []
    for spec in settings.relaxed:
        scan = _relaxed_scan(molecule, settings, spec, out)
        announce(f"{spec.label}: {len(scan.points)} points, {scan.n_evaluations} evaluations")
        if scan.failures:
            failures[spec.label] = scan.failures
            announce(f"{spec.label}: {len(scan.failures)} relaxations failed: {scan.failures[0]}")
        if len(scan.points) < 2:
            raise DataError(f"{spec.label}: no profile; first failure: {scan.failures[0]}")
        scans.append(scan)
        angles = np.array([point.angle_deg for point in scan.points])
        energies = np.array([point.energy for point in scan.points])
        profiles.append(Profile(spec.label, angles, energies))
        _write_trajectory(out / f"{potential_file_name(spec)}.xyz", molecule, spec, scan)
    for spec in settings.single_points:
        profile, failed = _single_points(molecule, settings, spec, scans[0], out, announce)
        profiles.append(profile)
        if failed:
            failures[profile.label] = failed
    reference = profiles[-1]
    others = profiles[:-1]
    deviations = {profile.label: deviation(profile, reference) for profile in others}
    result = ScanResult(tuple(profiles), deviations, reference.label, failures)
    _write(result, molecule, settings, out)
    return result


def _relaxed_scan(
    molecule: Molecule, settings: ScanSettings, spec: PotentialSpec, out: Path
) -> Scan:
    angles = grid_angles(settings.step_deg)
    journal = Journal(
        out / f"{potential_file_name(spec)}.journal", _identity(molecule, settings, spec)
    )
    if settings.strategy == BATCHED:
        return batched_scan(
            molecule, spec, settings.dihedral, angles, journal, settings.n_conformers
        )
    step = journaled_step(molecule, bind(spec, molecule), settings.dihedral, angles, journal)
    return STRATEGIES[settings.strategy](molecule, settings.dihedral, angles, step)


def _single_points(
    molecule: Molecule,
    settings: ScanSettings,
    spec: PotentialSpec,
    scan: Scan,
    out: Path,
    announce: Announce,
) -> tuple[Profile, tuple[str, ...]]:
    """Evaluates a potential at the geometries of a scan."""
    identity = _identity(molecule, settings, spec)
    identity["geometries"] = [round(point.energy, 6) for point in scan.points]
    journal = Journal(out / f"{potential_file_name(spec)}.single-points.journal", identity)
    evaluate = bind_energy(spec, molecule)
    angles, energies, failed = [], [], []
    for point in scan.points:
        key = f"{point.angle_deg:g}"
        entry = journal.entries.get(key)
        if entry is None:
            try:
                entry = {"energy_ev": evaluate(point.positions)}
            except EvaluationError as error:
                entry = {"error": f"{key} degrees: {error}"}
            journal.add(key, entry)
            announce(f"{spec.label}: {key} degrees ({len(journal.entries)}/{len(scan.points)})")
        if "error" in entry:
            failed.append(str(entry["error"]))
            continue
        angles.append(point.angle_deg)
        energies.append(float(str(entry["energy_ev"])))
    if len(angles) < 2:
        raise DataError(f"{spec.label}: no profile; first failure: {failed[0]}")
    label = f"{spec.label} at {settings.relaxed[0].label} geometries"
    return Profile(label, np.array(angles), np.array(energies)), tuple(failed)


def _identity(molecule: Molecule, settings: ScanSettings, spec: PotentialSpec) -> dict[str, object]:
    """What the results of one potential depend on."""
    identity = {
        "potential": str(spec),
        "sha256": model_sha256(spec),
        "atomic_numbers": molecule.atomic_numbers.tolist(),
        "positions_angstrom": np.round(molecule.positions, 6).tolist(),
        "dihedral": list(settings.dihedral),
        "step_deg": settings.step_deg,
        "strategy": settings.strategy,
    }
    return identity | ({"n_conformers": settings.n_conformers} if settings.n_conformers else {})


def model_sha256(spec: PotentialSpec) -> str:
    """Returns the digest of a TrIP model; empty for other potentials."""
    if spec.kind != "trip":
        return ""
    from trip_mm.checkpoint import load_potential

    return load_potential(spec.name).sha256


def potential_file_name(spec: PotentialSpec) -> str:
    """Returns the name of a potential with nothing that a file name cannot hold."""
    name = Path(spec.name).stem if spec.kind == "trip" else str(spec)
    return "".join(c if c.isalnum() or c in "-." else "-" for c in name)


def _write_trajectory(path: Path, molecule: Molecule, spec: PotentialSpec, scan: Scan) -> None:
    frames = [
        to_xyz(
            molecule.at(point.positions),
            f"angle_deg={point.angle_deg:g} energy_ev={point.energy:.8f} potential={spec}",
        )
        for point in scan.points
    ]
    path.write_text("".join(frames), encoding="utf-8")


def _write(result: ScanResult, molecule: Molecule, settings: ScanSettings, out: Path) -> None:
    axis = describe(molecule, settings.dihedral)
    _write_csv(out / "profiles.csv", result.profiles)
    document = {
        "trip_mm": __version__,
        "molecule": molecule.name,
        "formula": molecule.formula,
        "dihedral": list(settings.dihedral),
        "dihedral_atoms": axis,
        "step_deg": settings.step_deg,
        "strategy": settings.strategy,
        "n_conformers": settings.n_conformers,
        "reference": result.reference,
        "deviations": {label: d.to_dict() for label, d in result.deviations.items()},
        "barrier_kcal_per_mol": {
            p.label: float(np.ptp(p.energies) * EV_TO_KCAL_PER_MOL) for p in result.profiles
        },
        "failures": {label: list(reasons) for label, reasons in result.failures.items()},
    }
    text = json.dumps(document, indent=2, ensure_ascii=False)
    (out / "scan.json").write_text(text + "\n", encoding="utf-8")
    title = f"{molecule.name} ({molecule.formula})"
    grid = grid_angles(settings.step_deg)
    plot_profiles(result.profiles, grid, axis, title, out / "profiles.png")


def _write_csv(path: Path, profiles: Sequence[Profile]) -> None:
    """Writes one row for each angle; a profile without that angle leaves its cells empty."""
    angles = sorted({float(angle) for profile in profiles for angle in profile.angles_deg})
    columns: list[dict[float, tuple[float, float]]] = []
    for profile in profiles:
        rows: NDArray[np.float64] = np.stack(
            [profile.relative_kcal_per_mol, profile.energies], axis=1
        )
        columns.append(
            {float(a): (r[0], r[1]) for a, r in zip(profile.angles_deg, rows, strict=True)}
        )
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        header = [f"{p.label} {what}" for p in profiles for what in ("(kcal/mol)", "total (eV)")]
        writer.writerow(["angle (degrees)", *header])
        for angle in angles:
            cells: list[str] = []
            for column in columns:
                relative, total = column.get(angle, (None, None))
                cells += ["" if relative is None else f"{relative:.5f}"]
                cells += ["" if total is None else f"{total:.8f}"]
            writer.writerow([f"{angle:g}", *cells])
