"""The recipe of a set of geometries: a YAML file with a list of sources.

`scale` multiplies the number of conformations of every source, so that a bigger machine repeats a
recipe with one changed number.
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from trip_mm.errors import ConfigError
from trip_mm.simulation.config_io import problems, validate
from trip_mm.simulation.yaml_io import read_yaml

Bound = TypeVar("Bound", int, float)


def _ascending(value: tuple[Bound, Bound]) -> tuple[Bound, Bound]:
    low, high = value
    if low > high:
        raise ValueError(f"{low} to {high} is not an ascending range; write the smaller one first")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
Counts = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(_ascending)]
CountsFromZero = Annotated[tuple[NonNegativeInt, NonNegativeInt], AfterValidator(_ascending)]


class _Source(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )

    system_class: str = Field(alias="class", pattern=r"^[a-z0-9][a-z0-9-]*$")
    split_by: Literal["formula", "source"] = "formula"


class MoleculesSource(_Source):
    """Conformers of molecules, displaced and with torsions turned."""

    kind: Literal["molecules"]
    smiles: str
    conformations: int = Field(gt=0)
    conformers: int = Field(default=4, gt=0)
    displacement: Range = (0.03, 0.12)
    turned_share: float = Field(default=0.3, ge=0.0, le=1.0)


class StretchedBondsSource(_Source):
    """Conformers with single bonds stretched or compressed."""

    kind: Literal["stretched-bonds"]
    smiles: str
    conformations: int = Field(gt=0)
    conformers: int = Field(default=2, gt=0)
    factor: Range = (0.7, 2.5)
    two_bonds_share: float = Field(default=0.15, ge=0.0, le=1.0)
    displacement: Range = (0.0, 0.05)


class TwoMoleculesSource(_Source):
    """What sources of two molecules share: each of `pairs` in turn, in drawn conformers."""

    kind: str
    pairs: tuple[tuple[str, str], ...] = Field(min_length=1)
    conformers: int = Field(default=2, gt=0)


class PairsSource(TwoMoleculesSource):
    """Pairs of molecules at drawn contact distances."""

    kind: Literal["pairs"]
    conformations: int = Field(gt=0)
    distance: Range = (0.8, 5.0)
    displacement: Range = (0.0, 0.05)


class DimerScansSource(TwoMoleculesSource):
    """Pairs of rigid molecules in random orientation, pulled apart in equal steps from a contact.

    `contact` is the distance of the nearest atoms at the start of a scan, drawn from the range.
    In a `stacked_share` of the scans the molecules lie flat on each other.
    """

    kind: Literal["dimer-scans"]
    scans: int = Field(gt=0)
    contact: Range = (1.6, 2.6)
    step: float = Field(default=0.3, gt=0.0)
    points: int = Field(default=8, gt=1)
    stacked_share: float = Field(default=0.0, ge=0.0, le=1.0)


class ProtonTransfersSource(TwoMoleculesSource):
    """A donor, an acceptor, and a proton between them, in the order of each of `pairs`.

    `distance` is that of the donating N or O from the accepting atom, one of the elements
    `acceptors`; `progress` is 0 where the proton is on the donor and 1 where it has the same
    distance from the acceptor. The charges are those of the molecules before the transfer.
    """

    kind: Literal["proton-transfers"]
    conformations: int = Field(gt=0)
    distance: Range = (2.3, 3.0)
    progress: Range = (0.0, 1.0)
    acceptors: tuple[int, ...] = Field(default=(7, 8), min_length=1)
    displacement: Range = (0.0, 0.05)

    @field_validator("distance")
    @classmethod
    def _leaves_room(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < 2.0:
            raise ValueError(f"a proton has no room within {value[0]:g} A; start at 2 A or more")
        return value

    @field_validator("progress")
    @classmethod
    def _between_the_two(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1.0:
            raise ValueError(f"progress ends at {value[1]:g}; 1 is a proton on the acceptor")
        return value


class DiatomicsSource(_Source):
    """Every pair of the elements at equally spaced distances."""

    kind: Literal["diatomics"]
    elements: tuple[int, ...] = (1, 6, 7, 8)
    distance: Range = (0.5, 5.0)
    step: float = Field(default=0.05, gt=0.0)


class WaterScanSource(_Source):
    """Single waters with drawn O-H lengths and angle."""

    kind: Literal["water-scan"]
    conformations: int = Field(gt=0)
    distance: Range = (0.5, 4.5)
    angle: Range = (60.0, 180.0)


class _DynamicsSource(_Source):
    temperatures_k: tuple[float, ...] = Field(min_length=1)
    snapshots: int = Field(gt=0)
    interval_ps: float = Field(default=1.0, gt=0.0)
    equilibration_ps: float = Field(default=10.0, ge=0.0)
    oh_length: Range = (0.94, 1.01)
    displacement: Range = (0.02, 0.08)


class PeptidesSource(_DynamicsSource):
    """Clusters of a peptide and its nearest waters, cut from Amber14/TIP3P-FB dynamics.

    A peptide is written as residues joined by hyphens: `ALA-ALA-ALA` is a zwitterion,
    `ACE-ALA-NME` is capped. `snapshots` counts per trajectory: one for each peptide and
    temperature and `trajectories`.
    """

    kind: Literal["solvated-peptides"]
    peptides: tuple[str, ...] = Field(min_length=1)
    trajectories: int = Field(default=1, gt=0)
    clusters_per_snapshot: int = Field(default=1, gt=0)
    n_atoms: Counts = (60, 100)
    padding_nm: float = Field(default=0.9, gt=0.0)


class LiquidWaterSource(_DynamicsSource):
    """Clusters of waters around a random one, cut from TIP3P-FB dynamics of the liquid."""

    kind: Literal["liquid-water"]
    box_edge_nm: float = Field(default=1.9, gt=1.8)
    trajectories: int = Field(default=1, gt=0)
    clusters_per_snapshot: int = Field(default=4, gt=0)
    n_waters: Counts = (8, 32)


class SpiceSource(_Source):
    """Neutral H, C, N, O conformations of a SPICE geometry file, cut and displaced.

    `n_waters` are kept around what is not water, as far as `max_atoms` allows; a molecule that
    exceeds `max_atoms` without them is left out and counted. Of a droplet at least one is kept.
    """

    kind: Literal["spice-file"]
    file: str
    conformations: int = Field(gt=0)
    elements: tuple[int, ...] = (1, 6, 7, 8)
    max_atoms: int = Field(default=100, gt=0)
    n_waters: CountsFromZero | None = None
    oh_length: Range | None = None
    displacement: Range = (0.0, 0.08)


class TrajectorySource(_Source):
    """Clusters cut from a trajectory, such as the XTC of a `trip-mm run` on a model.

    Dynamics on the model goes where the model is wrong; labelling what it visits is what makes it
    stable. Files are relative to the data directory. With a solute in the topology a cluster is
    the solute with its nearest waters, otherwise a random water with its nearest ones.
    """

    kind: Literal["trajectory"]
    topology: str
    trajectory: str
    first_frame: int = Field(default=0, ge=0)
    conformations: int = Field(gt=0)
    n_waters: CountsFromZero = (12, 22)
    around: Literal["solute", "water"] = "solute"
    oh_length: Range | None = None
    displacement: Range = (0.0, 0.03)

    @model_validator(mode="after")
    def _centre_is_kept(self) -> "TrajectorySource":
        if self.around == "water" and self.n_waters[0] < 1:
            message = (
                f"{list(self.n_waters)} with around: water, which counts the central one; start "
                "at 1 or more"
            )
            raise problems([("n_waters", message)])
        return self


Source = Annotated[
    MoleculesSource
    | StretchedBondsSource
    | PairsSource
    | DimerScansSource
    | ProtonTransfersSource
    | DiatomicsSource
    | WaterScanSource
    | PeptidesSource
    | LiquidWaterSource
    | SpiceSource
    | TrajectorySource,
    Field(discriminator="kind"),
]


class Recipe(BaseModel):
    """A recipe: seed, scale, formulas kept out, sources.

    Attributes:
        name: for people and for the header of the file.
        seed: of every random number; each source draws from a stream of its own.
        scale: factor on the number of conformations of each source.
        keep_out: file of SMILES whose formulas must not occur in molecules (a test set).
        sources: where geometries come from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    seed: int = Field(ge=0)
    scale: float = Field(default=1.0, gt=0.0)
    keep_out: str | None = None
    sources: tuple[Source, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_split_rule_for_a_class(self) -> "Recipe":
        rules: dict[str, str] = {}
        for number, source in enumerate(self.sources):
            rule = rules.setdefault(source.system_class, source.split_by)
            if rule != source.split_by:
                message = (
                    f"class {source.system_class} is split by {source.split_by} here and by {rule} "
                    "in an earlier source; write one of them in both, or name another class"
                )
                raise problems([(f"sources.{number}.split_by", message)])
        return self

    def scaled(self) -> "Recipe":
        """Returns the recipe with `scale` applied to the counts and set to 1."""
        sources = []
        for source in self.sources:
            changes: dict[str, object] = {
                name: max(1, round(getattr(source, name) * self.scale))
                for name in ("conformations", "snapshots", "scans")
                if name in type(source).model_fields
            }
            sources.append(source.model_copy(update=changes))
        return self.model_copy(update={"sources": tuple(sources), "scale": 1.0})


def load_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not fit the schema.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such recipe; see recipes/ for examples")
    return validate(Recipe, read_yaml(path), str(path))
