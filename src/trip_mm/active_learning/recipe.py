"""The recipe of active learning: a YAML file; paths in it are relative to it.

name: water-hexamer
system: hexamer.yaml                     # or the name of one that comes with trip-mm
protocol: explore.yaml
committee: runs/start/start.json         # or a list of checkpoints
data: [labels.h5]                        # what they were trained on
dynamics: {trajectories: 3, compare_every: 10 fs, stop_above: 20 kcal/mol/A}
selection: {above: 3 kcal/mol/A, max_frames: 30, spacing: 50 fs}
labels: {method: gfn2}
training: {optimizer: {learning_rate: 1.0e-3}, batch: {max_edges: 4000}, budget: {max_time: 10 min}}
max_rounds: 5
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from trip_mm.errors import ConfigError
from trip_mm.simulation.config_io import problems, validate
from trip_mm.simulation.quantities import Duration, ForceMagnitude
from trip_mm.simulation.system_config import Settings
from trip_mm.simulation.yaml_io import describe_type, read_yaml
from trip_mm.training.config import parse_training_config

_OWN_TRAINING_KEYS = ("name", "seed", "model", "initial", "committee")
_OWN_SPLIT_KEYS = ("hold_out", "train_only")
_COMMITTEE_SUFFIX = ".json"


class DynamicsConfig(Settings):
    """How a round looks for frames.

    Attributes:
        trajectories: in each round, driven by one member after the other.
        compare_every_ps: time between two comparisons, and between two frames.
        stop_above_kj_per_mol_nm: a trajectory ends at a disagreement above this; None never ends
            it.
    """

    trajectories: Annotated[int, Field(ge=1, le=1000)] = 2
    compare_every_ps: Duration = Field(alias="compare_every")
    stop_above_kj_per_mol_nm: ForceMagnitude | None = Field(default=None, alias="stop_above")


class SelectionConfig(Settings):
    """Which frames are labelled, and what is cut from them.

    Attributes:
        above_kj_per_mol_nm: frames with a larger disagreement on an atom are candidates.
        max_frames: at most so many in a round, those with the largest disagreement first.
        spacing_ps: least time between two frames of one trajectory.
        n_waters: smallest and largest number of waters of a cluster; None keeps whole frames, for
            systems without a box.
        system_class: class of the new geometries in the data.
    """

    above_kj_per_mol_nm: ForceMagnitude = Field(alias="above")
    max_frames: Annotated[int, Field(ge=1)] = 50
    spacing_ps: Duration | None = Field(default=None, alias="spacing")
    n_waters: (
        Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] | None
    ) = None
    system_class: Annotated[str, Field(alias="class", pattern=r"^[a-z0-9][a-z0-9-]*$")] = "visited"

    @field_validator("n_waters")
    @classmethod
    def _ascending(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"{value[0]} to {value[1]} is no range; write the smaller one first")
        return value


class LabelsConfig(Settings):
    """How geometries are labelled.

    Attributes:
        method: `gfn2`, or `functional/basis` for pyscf; that of the data.
        max_force: geometries with a larger force on an atom are dropped and counted, eV/A.
        chunk: geometries that are finished together.
    """

    method: str = "gfn2"
    max_force: Annotated[float, Field(gt=0)] = 30.0
    chunk: Annotated[int, Field(ge=1)] = 10


class ActiveRecipe(Settings):
    """What active learning does.

    Attributes:
        name: for people and for the record.
        seed: every random number derives from it.
        system: system file, or the name of one that comes with trip-mm.
        protocol: protocol file, or the name of one that comes with trip-mm; the committee watches
            its dynamics stages without a potential of their own.
        committee: the file of a committee, or checkpoints of its members.
        data: labelled data that the committee was trained on.
        dynamics: how a round looks for frames.
        selection: which frames are labelled.
        labels: how.
        training: settings of `trip-mm train` for the retraining of each member.
        max_rounds: at most so many.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1
    system: str
    protocol: str
    committee: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    data: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    dynamics: DynamicsConfig
    selection: SelectionConfig
    labels: LabelsConfig = LabelsConfig()
    training: dict[str, Any]
    max_rounds: Annotated[int, Field(ge=1, le=1000)] = 10

    @field_validator("committee", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        found = [
            (f"training.{key}", "is set by active learning; remove it")
            for key in _OWN_TRAINING_KEYS
            if key in self.training
        ]
        data = self.training.get("data", {})
        if isinstance(data, dict) and "files" in data:
            found.append(("training.data.files", "are those of `data`; remove them here"))
        found += _problems_of_split(data)
        if len(self.committee) == 1 and not self.committee[0].endswith(_COMMITTEE_SUFFIX):
            found.append(
                (
                    "committee",
                    "names one model; name at least two, or the JSON file of a committee",
                )
            )
        stop, above = self.dynamics.stop_above_kj_per_mol_nm, self.selection.above_kj_per_mol_nm
        if stop is not None and stop < above:
            found.append(
                (
                    "dynamics.stop_above",
                    "is smaller than selection.above, so that nothing could be selected; make it "
                    "several times larger",
                )
            )
        if found:
            raise problems(found)
        return self


def _problems_of_split(data: Any) -> list[tuple[str, str]]:
    split = data.get("split", {}) if isinstance(data, dict) else {}
    if not isinstance(split, dict):
        return [("training.data.split", f"is {describe_type(split)}, expected `key: value` lines")]
    found = [
        (f"training.data.split.{key}", "is set by active learning; remove it")
        for key in _OWN_SPLIT_KEYS
        if key in split
    ]
    if split.get("by", "formula") != "formula":
        found.append(
            (
                "training.data.split.by",
                "would hold out what earlier rounds have trained on; remove it, and whole formulas "
                "and trajectories are held out",
            )
        )
    return found


def load_active_recipe(path: Path) -> ActiveRecipe:
    """Reads and checks a recipe; the paths in it come out relative to the working directory.

    Raises:
        ConfigError: one line per problem, `file: key.path: what; what to do`.
    """
    document = read_yaml(path)
    recipe = validate(ActiveRecipe, {"name": path.stem, **document}, str(path))
    folder = path.parent
    resolved = recipe.model_copy(
        update={
            "system": _beside(recipe.system, folder),
            "protocol": _beside(recipe.protocol, folder),
            "committee": [_beside(name, folder) for name in recipe.committee],
            "data": [str(folder / name) for name in recipe.data],
            "training": _with_test_files(recipe.training, folder),
        }
    )
    training_document(resolved, resolved.data, {"name": recipe.name}, f"{path}: training")
    missing = [name for name in resolved.data if not Path(name).exists()]
    if missing:
        raise ConfigError(f"{path}: data: {missing[0]}: no such file; label it with trip-mm label")
    missing = [name for name in files_to_evaluate(resolved) if not Path(name).exists()]
    if missing:
        raise ConfigError(
            f"{path}: training.data.test_files: {missing[0]}: no such file; correct or remove it"
        )
    return resolved


def files_to_evaluate(recipe: ActiveRecipe) -> list[str]:
    """Returns the files that the members are evaluated on at the end of each retraining."""
    return list(recipe.training.get("data", {}).get("test_files", []))


def _with_test_files(training: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Looks for the test files beside the recipe; what is no list is refused with the rest."""
    data = training.get("data")
    named = data.get("test_files") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(named, list):
        return dict(training)
    return {**training, "data": {**data, "test_files": [str(folder / str(n)) for n in named]}}


def training_document(
    recipe: ActiveRecipe, files: Sequence[str], own: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Returns the content of a training configuration for `trip-mm train`.

    Args:
        recipe: its `training`.
        files: data files.
        own: what active learning sets: name, seed, model, initial, and of `data` the test files as
            the configuration sees them, and what is fixed of the split.
        where: origin, for messages.

    Raises:
        ConfigError: `training` holds something that means nothing.
    """
    data = recipe.training.get("data", {})
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: data: is {describe_type(data)}, expected `key: value` lines")
    fixed = own.get("data", {})
    split = {**data.get("split", {}), **fixed.get("split", {})}
    data = {**data, **fixed, "split": split, "files": list(files)}
    document = {**recipe.training, **own, "data": data}
    parse_training_config(document, where)
    return document


def _beside(name: str, folder: Path) -> str:
    """A file is looked for beside the recipe; a bare name stays one of those that are shipped."""
    path = folder / name
    return str(path) if path.exists() or len(Path(name).parts) > 1 or Path(name).suffix else name
