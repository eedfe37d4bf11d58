"""Where a result comes from: versions, revision, and the models a run keeps beside itself."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trip_mm import __version__
from trip_mm.errors import RunDirectoryError
from trip_mm.files import make_directory, write_atomically
from trip_mm.simulation.plan import ModelRecord, RunPlan
from trip_mm.simulation.run_directory import MODEL_DIRECTORY
from trip_mm.simulation.schema import PotentialConfig, ResolvedStage

_PACKAGES = (
    "openmm",
    "openmmtorch",
    "openmmml",
    "torch",
    "e3nn",
    "numpy",
    "scipy",
    "MDAnalysis",
    "rdkit",
    "pdbfixer",
)
RUN_FORMAT_VERSION = 1
PACKAGE = Path(__file__).resolve().parents[1]
"""The code that runs."""


def versions() -> dict[str, str]:
    """Returns the versions of Python, trip-mm and the packages that decide the numbers."""
    found = {"python": platform.python_version(), "trip-mm": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> dict[str, Any] | None:
    """Returns commit and cleanliness of the code, None where neither git nor pip knows them.

    A package that runs from a checkout asks git; one that pip installed from a repository has the
    commit in its `direct_url.json`. `pip install .` leaves no trace of the commit.
    """
    source = PACKAGE.parents[1]
    if not (source / ".git").exists():
        return _installed_revision()
    try:
        commit = _git(source, "rev-parse", "HEAD")
        changed = _git(source, "status", "--porcelain", "--untracked-files=no", "--", "src")
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return {"commit": commit.strip(), "modified": bool(changed.strip())}


def _installed_revision() -> dict[str, Any] | None:
    try:
        installed = importlib.metadata.distribution("trip-mm")
        is_this = Path(str(installed.locate_file(PACKAGE.name))).resolve() == PACKAGE
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return None
    version_control = origin.get("vcs_info", {})
    if not is_this or version_control.get("vcs") != "git":
        return None
    return {"commit": version_control["commit_id"], "modified": False}


def source_sha256() -> str:
    """Returns a digest of the names and texts of all modules, equal in every copy of the code."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py"), key=lambda file: file.relative_to(PACKAGE).parts):
        name = file.relative_to(PACKAGE).as_posix()
        text = file.read_bytes()
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def _git(source: Path, *arguments: str) -> str:
    completed = subprocess.run(
        ["git", "-C", str(source), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return completed.stdout


def run_record(plan: RunPlan, n_atoms: int) -> dict[str, Any]:
    """Returns the content of run.json: the plan and what it ran with; nothing of the host."""
    return {
        "format_version": RUN_FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_atoms": n_atoms,
        "versions": versions(),
        "git": git_revision(),
        "source_sha256": source_sha256(),
        **plan.to_dict(),
    }


def keep_models(plan: RunPlan, run_path: Path) -> RunPlan:
    """Copies model files that are not registered into the run directory.

    Returns:
        The plan with potentials that name the copies, so that the run directory is complete.

    Raises:
        RunDirectoryError: a copy cannot be written.
        OSError: a model file cannot be read any more.
    """
    renamed: dict[str, PotentialConfig] = {}
    records: dict[str, ModelRecord] = {}
    for potential in plan.potentials_and_committees():
        record = plan.models.get(str(potential))
        if record is None:
            continue
        from trip_mm.checkpoint import registry

        if potential.name in registry():
            records[str(potential)] = record
            continue
        source = Path(potential.name)
        file = f"{MODEL_DIRECTORY}/{source.stem}-{record.sha256[:8]}{source.suffix}"
        make_directory(run_path / MODEL_DIRECTORY)
        write_atomically(run_path / file, source.read_bytes())
        copied = potential.model_copy(update={"name": file})
        renamed[str(potential)] = copied
        records[str(copied)] = replace(record, file=file)
    stages = tuple(_with_kept_models(stage, renamed) for stage in plan.stages)
    potential = renamed.get(str(plan.potential), plan.potential)
    checks = {str(renamed.get(key, key)): check for key, check in plan.precision_checks.items()}
    return replace(
        plan, potential=potential, stages=stages, models=records, precision_checks=checks
    )


def _with_kept_models(
    stage: ResolvedStage, renamed: Mapping[str, PotentialConfig]
) -> ResolvedStage:
    potential, committee, split = stage.potential, stage.committee, stage.multiple_timesteps
    if potential is not None:
        potential = renamed.get(str(potential), potential)
    if committee is not None:
        kept = [renamed.get(f"trip:{name}") for name in committee.models]
        names = [
            name if copy is None else copy.name
            for name, copy in zip(committee.models, kept, strict=True)
        ]
        committee = replace(committee, models=tuple(names))
    if split is not None:
        split = replace(split, inner=renamed.get(str(split.inner), split.inner))
    return replace(stage, potential=potential, committee=committee, multiple_timesteps=split)


def loadable(potential: PotentialConfig, plan: RunPlan, run_path: Path) -> PotentialConfig:
    """Returns a potential of a plan with the path that its model has here, if it is a file."""
    record = plan.models.get(str(potential))
    if record is None or record.file is None:
        return potential
    return potential.model_copy(update={"name": str(run_path / record.file)})


def check_models(plan: RunPlan, run_path: Path) -> None:
    """Checks that the models are still those that the run began with.

    Raises:
        RunDirectoryError: a model has changed.
        CheckpointError: it cannot be read any more.
    """
    for potential in plan.potentials_and_committees():
        record = plan.models.get(str(potential))
        if record is None:
            continue
        from trip_mm.checkpoint import load_potential

        found = load_potential(loadable(potential, plan, run_path).name).sha256
        if found != record.sha256:
            raise RunDirectoryError(
                f"{run_path}: the model {record.name} is not the one the run began with (sha256 "
                f"{found}, was {record.sha256}); restore it, or start a new run"
            )
