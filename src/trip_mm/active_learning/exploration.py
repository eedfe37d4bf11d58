"""Dynamics of a round: every trajectory is an ordinary run that the committee watches."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trip_mm.active_learning.layout import ENDED_FILE, RoundDirectory, done, mark_done, start_over
from trip_mm.active_learning.recipe import ActiveRecipe
from trip_mm.errors import (
    CellTooSmallError,
    ConfigError,
    DisagreementError,
    UnstableSimulationError,
)
from trip_mm.files import read_json, write_json
from trip_mm.simulation.catalog import find_config
from trip_mm.simulation.plan import RunOptions
from trip_mm.simulation.progress import LineProgress
from trip_mm.simulation.quantities import DURATION, FORCE, format_quantity
from trip_mm.simulation.run_directory import (
    CRASH_DIRECTORY,
    RUN_FILE,
    UNCERTAIN_DIRECTORY,
)
from trip_mm.simulation.schema import load_protocol
from trip_mm.simulation.seeds import derive_seed
from trip_mm.workflow import PreparedRun, prepare_run, resume, start

Report = Callable[[str], None]

FINISHED = "finished"
DISAGREEMENT = "disagreement"
UNSTABLE = "unstable"


@dataclass(frozen=True)
class Machine:
    """What the work runs on; it does not belong to the recipe.

    Attributes:
        backend: force backend of TrIP.
        platform: OpenMM platform; None for the fastest.
        threads: CPU threads of the dynamics; None for all.
        processes: that label.
    """

    backend: str = "auto"
    platform: str | None = None
    threads: int | None = None
    processes: int = 1


@dataclass(frozen=True)
class TrajectoryEnd:
    """How a trajectory ended.

    Attributes:
        reason: `finished`, `disagreement` (its stop rule) or `unstable`.
        message: what the run said; empty where it finished.
        driver: number of the member that drove it, from 1.
    """

    reason: str
    message: str
    driver: int


def watched_stages(recipe: ActiveRecipe) -> dict[int, bool]:
    """Returns which stages of dynamics the committee watches: those on the potential of the run.

    Raises:
        ConfigError: the protocol has none.
    """
    path = find_config("protocols", recipe.protocol)
    stages = load_protocol(path).stages
    found = {
        index: stage.potential is None
        for index, stage in enumerate(stages)
        if stage.kind != "minimize"
    }
    if not any(found.values()):
        raise ConfigError(
            f"{path}: has no dynamics on the potential of the run; add a stage of kind nvt"
        )
    return found


def prepare_trajectory(
    recipe: ActiveRecipe, committee: Sequence[Path], machine: Machine, place: tuple[int, int]
) -> PreparedRun:
    """Builds a trajectory's run without writing a file.

    Args:
        recipe: system, protocol and the rest.
        committee: checkpoints of the members.
        machine: platform and threads.
        place: round and number of the trajectory, from 1.

    Raises:
        TripError: something of it does not fit.
    """
    number, trajectory = place
    interval = format_quantity(recipe.dynamics.compare_every_ps, DURATION)
    watch = {"models": [str(path) for path in committee], "every": interval}
    if recipe.dynamics.stop_above_kj_per_mol_nm is not None:
        watch["stop_above"] = format_quantity(recipe.dynamics.stop_above_kj_per_mol_nm, FORCE)
    overrides = [f"seed={derive_seed(recipe.seed, 'round', number, 'trajectory', trajectory)}"]
    for index, watched in watched_stages(recipe).items():
        if not watched:  # whatever the protocol says: its frames are not those of the trajectory
            overrides.append(f"stages.{index}.committee=null")
            continue
        overrides.append(f"stages.{index}.committee={json.dumps(watch)}")
        overrides.append(f"stages.{index}.trajectory_interval={interval}")
    options = RunOptions(
        potential=str(committee[driver_of(recipe, place, len(committee)) - 1]),
        backend=machine.backend,
        platform=machine.platform,
        threads=machine.threads,
        overrides=tuple(overrides),
    )
    return prepare_run(recipe.system, recipe.protocol, options)


def driver_of(recipe: ActiveRecipe, place: tuple[int, int], n_members: int) -> int:
    """Returns the member, from 1, whose potential drives a trajectory; they take turns.

    Args:
        recipe: tells the number of trajectories of a round.
        place: round and number of the trajectory, from 1.
        n_members: of the committee.
    """
    return ((place[0] - 1) * recipe.dynamics.trajectories + place[1] - 1) % n_members + 1


def explore(
    recipe: ActiveRecipe,
    committee: Sequence[Path],
    directory: RoundDirectory,
    machine: Machine,
    report: Report,
) -> list[TrajectoryEnd]:
    """Runs every trajectory of a round that has not ended yet.

    Raises:
        RunInterrupted: a signal asked to stop; call again to continue.
        TripError: a run cannot be made at all.
    """
    directory.dynamics.mkdir(exist_ok=True)
    numbers = range(1, recipe.dynamics.trajectories + 1)
    ends = []
    for trajectory in numbers:
        path = directory.trajectory(trajectory)
        end = _read_end(path)
        if end is None:
            end = _run(recipe, committee, machine, (directory.number, trajectory), path, report)
            write_json(path / ENDED_FILE, asdict(end))
        if end.reason != FINISHED:
            report(f"trajectory {trajectory} ended early: {end.message}")
        ends.append(end)
    if done(directory.dynamics) is None:
        mark_done(directory.dynamics, {"ends": [asdict(end) for end in ends]})
    return ends


def _run(
    recipe: ActiveRecipe,
    committee: Sequence[Path],
    machine: Machine,
    place: tuple[int, int],
    path: Path,
    report: Report,
) -> TrajectoryEnd:
    """Runs or continues one trajectory to its end, whatever that is."""
    driver = driver_of(recipe, place, len(committee))
    before = _left_behind(path)
    if before is not None:
        return TrajectoryEnd(before, f"{path}: ended in the session before", driver)
    listener = LineProgress(report)
    try:
        if (path / RUN_FILE).exists():
            resume(
                path,
                backend=None if machine.backend == "auto" else machine.backend,
                platform=machine.platform,
                threads=machine.threads,
                progress=listener,
            )
        else:
            prepared = prepare_trajectory(recipe, committee, machine, place)
            start_over(path)
            start(prepared, path, listener)
    except DisagreementError as error:
        return TrajectoryEnd(DISAGREEMENT, str(error), driver)
    except (UnstableSimulationError, CellTooSmallError) as error:
        return TrajectoryEnd(UNSTABLE, str(error), driver)
    return TrajectoryEnd(FINISHED, "", driver)


def _read_end(path: Path) -> TrajectoryEnd | None:
    file = path / ENDED_FILE
    return TrajectoryEnd(**read_json(file)) if file.exists() else None


def _left_behind(path: Path) -> str | None:
    """Why a trajectory ended whose end was not recorded any more; None where it can go on."""
    for folder, reason in ((CRASH_DIRECTORY, UNSTABLE), (UNCERTAIN_DIRECTORY, DISAGREEMENT)):
        if any(path.glob(f"*/{folder}/*.xml")):
            return reason
    return None
