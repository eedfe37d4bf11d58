"""The record of a run that goes on elsewhere than it began."""

from dataclasses import asdict
from datetime import UTC, datetime

from trip_mm.files import read_json, write_atomically, write_json
from trip_mm.simulation.building import BuiltStructure
from trip_mm.simulation.checkpoints import read_checkpoint
from trip_mm.simulation.methods import methods_text
from trip_mm.simulation.plan import RunPlan
from trip_mm.simulation.platforms import PlatformChoice
from trip_mm.simulation.provenance import versions
from trip_mm.simulation.run_directory import METHODS_FILE, RUN_FILE, RunDirectory


def record_continuation(
    directory: RunDirectory, plan: RunPlan, chosen: RunPlan, structure: BuiltStructure
) -> None:
    """Adds to run.json and methods.md what a run continues on, if that is not what it last ran on.

    Args:
        directory: of the run. The caller holds the lock.
        plan: as run.json records it.
        chosen: the same with platform and force backend of the continuation.
        structure: of the run.
    """
    record = read_json(directory.path / RUN_FILE)
    earlier = list(record.get("continuations", []))
    if earlier:
        platform, backend = PlatformChoice(**earlier[-1]["platform"]), earlier[-1]["backend"]
    else:
        platform, backend = plan.platform, plan.backend
    if (platform, backend) == (chosen.platform, chosen.backend):
        return
    stage, step = _position(directory, plan)
    continuation = {
        "stage": stage,
        "step": step,
        "platform": asdict(chosen.platform),
        "backend": chosen.backend,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    continuations = [*earlier, continuation]
    methods = methods_text(plan, structure, record["versions"], continuations)
    write_atomically(directory.path / METHODS_FILE, methods.encode())
    write_json(directory.path / RUN_FILE, {**record, "continuations": continuations})


def _position(directory: RunDirectory, plan: RunPlan) -> tuple[str, int]:
    """Returns the stage that comes next and how many of its steps are done."""
    for index, stage in enumerate(plan.stages):
        stage_directory = directory.stage(index, stage.name)
        if not stage_directory.finished:
            checkpoint = read_checkpoint(stage_directory) if stage.kind != "minimize" else None
            return stage.name, 0 if checkpoint is None else checkpoint.progress.step
    return plan.stages[-1].name, plan.stages[-1].n_steps
