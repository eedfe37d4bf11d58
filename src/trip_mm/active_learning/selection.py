"""From a round's trajectories to geometries: uncertain frames, cut to clusters."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trip_mm.active_learning.layout import RoundDirectory, done, mark_done, start_over
from trip_mm.active_learning.recipe import ActiveRecipe, SelectionConfig
from trip_mm.files import json_number, write_atomically
from trip_mm.simulation.committee_reporter import (
    ATOM_COLUMN,
    LARGEST_COLUMN,
    kcal_per_mol_angstrom,
)
from trip_mm.simulation.reporters import read_table
from trip_mm.simulation.run_directory import (
    COMMITTEE_FILE,
    TRAJECTORY_FILE,
)
from trip_mm.simulation.seeds import derive_seed
from trip_mm.training.formats_write import FileHeader, write_geometries
from trip_mm.training.groups import Conformation
from trip_mm.training.sampling_clusters import cut_cluster, waters_by_distance
from trip_mm.training.sampling_dynamics import Liquid
from trip_mm.training.sampling_geometry import Positions, unlabelled
from trip_mm.training.sampling_trajectory import FrameReader

TOPOLOGY_FILE = "topology.pdb"


@dataclass(frozen=True)
class Frame:
    """A frame that the committee has looked at.

    Attributes:
        trajectory: number of its trajectory, from 1.
        stage: directory name of its stage.
        step: of the stage.
        time_ps: since the start of the stage.
        atom: on which the models disagree most, from 0.
        disagreement_kcal_per_mol_per_angstrom: on that atom.
    """

    trajectory: int
    stage: str
    step: int
    time_ps: float
    atom: int
    disagreement_kcal_per_mol_per_angstrom: float

    @property
    def uncertainty(self) -> float:
        """Disagreement; infinite where it is not a number: nobody can be less sure."""
        value = self.disagreement_kcal_per_mol_per_angstrom
        return value if np.isfinite(value) else float("inf")


def read_frames(directory: RoundDirectory, n_trajectories: int) -> list[Frame]:
    """Returns every frame of a round that the committee has looked at, in order of time."""
    frames: list[Frame] = []
    for trajectory in range(1, n_trajectories + 1):
        for path in sorted(directory.trajectory(trajectory).glob(f"*/{COMMITTEE_FILE}")):
            table = read_table(path)
            if not table:
                continue
            columns = (table[name] for name in ("Step", "Time (ps)", ATOM_COLUMN, LARGEST_COLUMN))
            for step, time_ps, atom, largest in zip(*columns, strict=True):
                frames.append(
                    Frame(
                        trajectory, path.parent.name, int(step), time_ps, int(atom), float(largest)
                    )
                )
    return frames


def choose(frames: Sequence[Frame], config: SelectionConfig) -> list[Frame]:
    """Chooses the frames to label: the most uncertain first, not too close in time.

    Args:
        frames: of a round.
        config: threshold, number and spacing.

    Returns:
        At most `max_frames` frames above the threshold, in order of trajectory and time. A
        disagreement that is not a number is above every threshold.
    """
    limit = kcal_per_mol_angstrom(config.above_kj_per_mol_nm)
    candidates = [f for f in frames if f.uncertainty > limit]
    candidates.sort(key=lambda f: -f.uncertainty)
    chosen: list[Frame] = []
    for frame in candidates:
        if len(chosen) == config.max_frames:
            break
        if not any(_too_close(frame, other, config.spacing_ps) for other in chosen):
            chosen.append(frame)
    return sorted(chosen, key=lambda f: (f.trajectory, f.stage, f.step))


def _too_close(one: Frame, other: Frame, spacing_ps: float | None) -> bool:
    if spacing_ps is None or (one.trajectory, one.stage) != (other.trajectory, other.stage):
        return False
    return abs(one.time_ps - other.time_ps) < spacing_ps * (1.0 - 1e-6)


def select(recipe: ActiveRecipe, directory: RoundDirectory) -> dict[str, Any]:
    """Chooses frames of a round, cuts them and writes their geometries, unless that is done.

    Returns:
        What `selected/done.json` holds: numbers of frames and statistics of the disagreement.

    Raises:
        DataError: a trajectory cannot be read.
    """
    record = done(directory.selected)
    if record is not None:
        return record
    start_over(directory.selected)
    frames = read_frames(directory, recipe.dynamics.trajectories)
    trajectories = _Trajectories(directory)
    limit = kcal_per_mol_angstrom(recipe.selection.above_kj_per_mol_nm)
    above = [f for f in frames if f.uncertainty > limit and trajectories.can_label(f)]
    chosen = choose(above, recipe.selection)
    rng = np.random.default_rng(derive_seed(recipe.seed, "round", directory.number, "clusters"))
    conformations = [
        replace(item, geometry_id=number)
        for number, item in enumerate(_cut_all(chosen, recipe, trajectories, rng))
    ]
    write_atomically(directory.selected / "frames.csv", _table(chosen).encode())
    if conformations:
        system_class = recipe.selection.system_class
        header = FileHeader(
            f"{recipe.name}, round {directory.number}", split_by={system_class: "source"}
        )
        write_geometries(directory.geometries, conformations, header)
    return mark_done(directory.selected, _statistics(frames, len(chosen), recipe.selection))


def _statistics(
    frames: Sequence[Frame], n_selected: int, config: SelectionConfig
) -> dict[str, Any]:
    """Median, 95 % and largest are those of the frames whose disagreement is a number."""
    values = np.asarray([frame.uncertainty for frame in frames])
    finite = values[np.isfinite(values)]
    limit = kcal_per_mol_angstrom(config.above_kj_per_mol_nm)
    quantiles = np.quantile(finite, (0.5, 0.95)) if len(finite) else (np.nan, np.nan)
    return {
        "n_frames": len(frames),
        "n_above": int((values > limit).sum()),
        "n_not_finite": len(values) - len(finite),
        "n_selected": n_selected,
        "threshold_kcal_per_mol_per_angstrom": limit,
        "median_kcal_per_mol_per_angstrom": json_number(quantiles[0]),
        "p95_kcal_per_mol_per_angstrom": json_number(quantiles[1]),
        "largest_kcal_per_mol_per_angstrom": json_number(finite.max(initial=-np.inf)),
    }


class _Trajectories:
    """The frames of a round as they were written, read on demand."""

    def __init__(self, directory: RoundDirectory) -> None:
        self._directory = directory
        self._readers: dict[Path, tuple[FrameReader, dict[int, int]]] = {}

    def can_label(self, frame: Frame) -> bool:
        """Whether the geometry of a frame was written and is one.

        Forces that are not a number may have torn it, or stopped the run before it was written.
        """
        reader, row_of = self._open(frame)
        row = row_of.get(frame.step)
        if row is None:
            return False
        return bool(np.isfinite(frame.uncertainty)) or bool(
            np.isfinite(reader.liquid(row).start).all()
        )

    def liquid(self, frame: Frame) -> Liquid:
        """Reads a frame."""
        reader, row_of = self._open(frame)
        return reader.liquid(row_of[frame.step])

    def source(self, frame: Frame) -> str:
        """Names round and trajectory of a frame."""
        return f"{self._directory.path.name}/trajectory-{frame.trajectory:02d}"

    def _open(self, frame: Frame) -> tuple[FrameReader, dict[int, int]]:
        run = self._directory.trajectory(frame.trajectory)
        file = run / frame.stage / TRAJECTORY_FILE
        if file not in self._readers:
            reader = FrameReader(run / TOPOLOGY_FILE, file)
            self._readers[file] = reader, {step: row for row, step in enumerate(reader.steps())}
        return self._readers[file]


def _cut_all(
    frames: Sequence[Frame],
    recipe: ActiveRecipe,
    trajectories: _Trajectories,
    rng: np.random.Generator,
) -> list[Conformation]:
    conformations = []
    for frame in frames:
        liquid = trajectories.liquid(frame)
        numbers, positions = cut(liquid, frame.atom, recipe.selection.n_waters, rng)
        source = f"{recipe.name}/{trajectories.source(frame)}"
        conformations.append(unlabelled(numbers, positions, recipe.selection.system_class, source))
    return conformations


def cut(
    liquid: Liquid, atom: int, n_waters: Sequence[int] | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Positions]:
    """Cuts what surrounds an atom from a frame.

    Around an atom of the solute, or of one of the waters nearest to it: the solute with these
    waters. Around any other water: that water with its nearest ones.

    Args:
        liquid: the frame.
        atom: centre of interest.
        n_waters: smallest and largest number of waters, of which one is drawn; None keeps the
            whole frame.
        rng: draws it.

    Returns:
        Atomic numbers `[n_atoms]` and positions, A, `[n_atoms, 3]`.
    """
    if n_waters is None or not len(liquid.waters):
        return liquid.atomic_numbers, liquid.start
    wanted = int(rng.integers(n_waters[0], n_waters[1] + 1))
    (own,) = np.nonzero((liquid.waters == atom).any(axis=1))
    near: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    if len(liquid.solute):
        near = waters_by_distance(liquid, liquid.start, liquid.solute)[0][:wanted]
    if len(own) == 0 or np.isin(own, near).any():
        cluster = cut_cluster(liquid, liquid.start, liquid.solute, wanted)
    else:
        cluster = cut_cluster(liquid, liquid.start, liquid.waters[own[0]], wanted - 1)
    return cluster.atomic_numbers, cluster.positions


def _table(frames: Sequence[Frame]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Frame)])
    writer.writerows(astuple(frame) for frame in frames)
    return text.getvalue()
