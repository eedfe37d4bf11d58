"""Checkpoints of a running stage: one file, replaced atomically, that says all of where it stands.

A checkpoint is a zip archive with three members: `context.chk`, OpenMM's binary checkpoint (exact
continuation, random numbers included, on the same platform and version), `state.xml` (positions,
velocities and box for any machine) and `progress.json` (the step, and the size that every output
file had at that step). Because the sizes are in the same file as the state, frames and rows
written after the checkpoint can be cut off exactly when a killed run continues.

OpenMM 8.6 leaves the Monte Carlo barostat out of its checkpoints: in a stage at constant pressure
the barostat continues with new random numbers, its first trial a whole interval after the
checkpoint, its step size at the start value. Such a run samples the same ensemble on another path.
"""

import io
import json
import os
import zipfile
from dataclasses import asdict, dataclass
from typing import Any

import openmm
from openmm import app

from trip_mm.errors import RunDirectoryError
from trip_mm.files import sync_file, write_atomically
from trip_mm.simulation.run_directory import StageDirectory

_CONTEXT_MEMBER = "context.chk"
_STATE_MEMBER = "state.xml"
_PROGRESS_MEMBER = "progress.json"


@dataclass(frozen=True)
class Watched:
    """What the stability checks of a stage remember; attributes as of `Progress`."""

    hot_checks: int = 0
    transferred_protons: int = 0
    initial_temperature_k: float | None = None


@dataclass(frozen=True)
class Progress:
    """Where a stage stood when its checkpoint was written.

    Attributes:
        step: steps done, from 0 at the start of the stage.
        output_bytes: size of each output file at that step, by file name.
        wall_seconds: time spent in the stage so far.
        platform: OpenMM platform that wrote the binary checkpoint.
        openmm_version: OpenMM version that wrote it.
        hot_checks: checks in a row, up to that step, that found the system too hot.
        transferred_protons: largest number seen away from their partner up to that step.
        initial_temperature_k: of the first frame of the stage; None in files of earlier versions.
    """

    step: int
    output_bytes: dict[str, int]
    wall_seconds: float
    platform: str
    openmm_version: str
    hot_checks: int = 0
    transferred_protons: int = 0
    initial_temperature_k: float | None = None


@dataclass(frozen=True)
class StageCheckpoint:
    """The content of a checkpoint file."""

    progress: Progress
    context: bytes
    state: str


def output_files(directory: StageDirectory) -> tuple[Any, ...]:
    """Returns the paths of the files that grow while a stage runs."""
    return (directory.trajectory, directory.log, directory.monitor, directory.committee)


def write_checkpoint(
    directory: StageDirectory,
    simulation: app.Simulation,
    wall_seconds: float,
    watched: Watched | None = None,
) -> None:
    """Writes the stage's checkpoint at the current step, replacing the one before.

    Args:
        directory: of the stage.
        simulation: as it stands.
        wall_seconds: spent in the stage so far.
        watched: what the stability checks have seen so far.

    Raises:
        RunDirectoryError: the file cannot be written; the previous checkpoint is untouched.
    """
    context = simulation.context
    try:
        for path in output_files(directory):
            sync_file(path)
    except OSError as error:
        raise RunDirectoryError(f"{directory.path}: {error.strerror or error}") from error
    progress = Progress(
        step=simulation.currentStep,
        output_bytes={p.name: p.stat().st_size for p in output_files(directory) if p.exists()},
        wall_seconds=wall_seconds,
        platform=context.getPlatform().getName(),
        openmm_version=openmm.__version__,
        **asdict(watched or Watched()),
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as members:
        members.writestr(_CONTEXT_MEMBER, context.createCheckpoint())
        members.writestr(_STATE_MEMBER, state_xml(context))
        members.writestr(_PROGRESS_MEMBER, json.dumps(asdict(progress), indent=2))
    write_atomically(directory.checkpoint, archive.getvalue())


def read_checkpoint(directory: StageDirectory) -> StageCheckpoint | None:
    """Reads the stage's checkpoint, None where the stage has not written one yet.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    if not directory.checkpoint.exists():
        return None
    try:
        with zipfile.ZipFile(directory.checkpoint) as members:
            progress = Progress(**json.loads(members.read(_PROGRESS_MEMBER)))
            state = members.read(_STATE_MEMBER).decode()
            context = members.read(_CONTEXT_MEMBER)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
        raise RunDirectoryError(
            f"{directory.checkpoint}: is damaged ({error}); delete the directory {directory.path} "
            "to repeat this stage from its start with `trip-mm resume`"
        ) from error
    return StageCheckpoint(progress, context, state)


def restore_outputs(directory: StageDirectory, progress: Progress | None) -> None:
    """Cuts trajectory and tables back to what they held at a checkpoint.

    Args:
        directory: the stage.
        progress: where to cut; None empties the stage (no checkpoint was written yet).

    Raises:
        RunDirectoryError: a file is shorter than it was at the checkpoint.
    """
    if progress is not None:
        check_outputs(directory, progress)
    sizes = {} if progress is None else progress.output_bytes
    for path in output_files(directory):
        size = sizes.get(path.name, 0)
        if size == 0:
            path.unlink(missing_ok=True)
        else:
            os.truncate(path, size)


def check_outputs(directory: StageDirectory, progress: Progress) -> None:
    """Checks that trajectory and tables still hold what they held at a checkpoint.

    Raises:
        RunDirectoryError: a file is missing or shorter than it was.
    """
    for path in output_files(directory):
        size = progress.output_bytes.get(path.name, 0)
        if size and (not path.exists() or path.stat().st_size < size):
            raise RunDirectoryError(
                f"{path}: is shorter than when the checkpoint was written; restore it, or delete "
                f"the directory {directory.path} to repeat this stage with `trip-mm resume`"
            )


def restore_context(simulation: app.Simulation, checkpoint: StageCheckpoint) -> str | None:
    """Puts a simulation where a checkpoint left it.

    The binary checkpoint continues exactly, with the same random numbers (but for those of a
    barostat, see above). Written by another
    platform or version of OpenMM it cannot be read; positions, velocities and box then come from
    the portable state, and the random numbers are new ones.

    Returns:
        None after an exact restoration, else one sentence on what was done instead.
    """
    context, progress = simulation.context, checkpoint.progress
    here = (context.getPlatform().getName(), openmm.__version__)
    if (progress.platform, progress.openmm_version) == here:
        try:
            context.loadCheckpoint(checkpoint.context)
        except openmm.OpenMMException as error:
            reason = str(error)
        else:
            return None
    else:
        reason = f"it was written by OpenMM {progress.openmm_version} on {progress.platform}"
    load_state(context, checkpoint.state)
    context.setStepCount(progress.step)
    return (
        f"the binary checkpoint cannot be used here ({reason}); continuing from its portable state "
        "with new random numbers"
    )


def state_xml(context: openmm.Context) -> str:
    """Returns positions, velocities and box of a context as portable XML."""
    return str(openmm.XmlSerializer.serialize(context.getState(positions=True, velocities=True)))


def load_state(context: openmm.Context, xml: str) -> None:
    """Sets positions, velocities, box and time of a context from `state_xml`'s text.

    Raises:
        RunDirectoryError: the text is no state of this system.
    """
    try:
        state = openmm.XmlSerializer.deserialize(xml)
        if context.getSystem().usesPeriodicBoundaryConditions():
            context.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
        context.setPositions(state.getPositions(asNumpy=True))
        context.setVelocities(state.getVelocities(asNumpy=True))
        context.setTime(state.getTime())
    except openmm.OpenMMException as error:
        raise RunDirectoryError(
            f"the saved state is damaged or belongs to another system ({error}); delete this "
            "stage's directory to repeat it"
        ) from error
