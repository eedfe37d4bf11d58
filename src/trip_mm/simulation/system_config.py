"""What is simulated: the settings of a `systems/*.yaml` file.

name: trialanine
structure: {sequence: AAA, termini: zwitterion}   # or {file: ...}, or {smiles: ...}
ph: 7.0
solvent: {edge: 17.8 A, n_waters: 175}            # or {padding: 10 A}; leave out for gas phase
potential: {trip: trip-gfn2-s}                    # or {amber14: tip3pfb}, {openmm-ml: ani2x}
                                                  # or {trip: trip-gfn2-s, precision: bf16}
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from trip_mm.simulation.config_io import did_you_mean, problems
from trip_mm.simulation.quantities import Concentration, Length
from trip_mm.simulation.yaml_io import describe_type

PotentialKind = Literal["trip", "amber14", "openmm-ml"]
POTENTIAL_KINDS: tuple[PotentialKind, ...] = ("trip", "amber14", "openmm-ml")
NetworkPrecision = Literal["single", "tf32", "bf16"]
NETWORK_PRECISIONS: tuple[str, ...] = get_args(NetworkPrecision)
REDUCED_PRECISIONS = NETWORK_PRECISIONS[1:]
WATER_MODELS = ("tip3pfb", "tip3p", "spce", "opc3")
"""Three-site water models of OpenMM's amber14 files; the first is the default."""

STRUCTURE_SUFFIXES = (".pdb", ".cif", ".mmcif", ".sdf", ".mol")
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
_EXAMPLE = "write for example {trip: trip-gfn2-s}, {amber14: tip3pfb} or {openmm-ml: ani2x}"


class Settings(BaseModel):
    """Base of every settings model: unknown keys are refused, objects do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PotentialConfig(Settings):
    """The potential energy function of a system or of one stage.

    Attributes:
        kind: `trip`, `amber14` or `openmm-ml`.
        name: model name or checkpoint path; for `amber14` the water model.
        precision: of the products of a TrIP network: `single`, or `tf32` or `bf16`, which must pass
            a check against float32 before the run.
    """

    kind: PotentialKind
    name: str
    precision: NetworkPrecision = "single"

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        """Reads `{trip: NAME}` (with `precision`), `trip:NAME`, `trip:NAME@bf16`, `amber14`."""
        precision: Any = "single"
        if isinstance(value, dict) and "kind" in value:
            return value
        if isinstance(value, dict) and "precision" in value:
            precision = value["precision"]
            value = {key: item for key, item in value.items() if key != "precision"}
        if isinstance(value, str):
            kind, _, name = (part.strip() for part in value.partition(":"))
            model, _, suffix = name.rpartition("@")
            if suffix in NETWORK_PRECISIONS:
                name, precision = model, suffix
        elif isinstance(value, dict) and len(value) == 1:
            kind, name = next(iter(value.items()))
            name = "" if name is None else name
        else:
            found = (
                f"has {len(value)} keys"
                if isinstance(value, dict)
                else f"is {describe_type(value)}"
            )
            raise ValueError(f"{found}, expected exactly one potential; {_EXAMPLE}")
        if kind not in POTENTIAL_KINDS:
            hint = did_you_mean(kind, POTENTIAL_KINDS)
            if kind == value:
                hint += f"; the TrIP model of this name is `trip: {kind[:40]}`"
            raise ValueError(f"{kind[:40]!r} is not a kind of potential{hint}")
        if kind == "amber14":
            name = name or WATER_MODELS[0]
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{kind} needs the name of a model as text; {_EXAMPLE}")
        if kind == "amber14" and name not in WATER_MODELS:
            hint = did_you_mean(name, WATER_MODELS)
            raise ValueError(f"{name[:40]!r} is not a three-site water model of amber14{hint}")
        if precision not in NETWORK_PRECISIONS:
            known = ", ".join(NETWORK_PRECISIONS)
            raise ValueError(
                f"precision {str(precision)[:40]!r} is not one of {known} (float64 throughout: "
                "trip-mm run --precision double)"
            )
        if precision != "single" and kind != "trip":
            raise ValueError(f"precision {precision} is one of trip potentials, not of {kind}")
        return {"kind": kind, "name": name.strip(), "precision": precision}

    @model_serializer
    def _short_form(self) -> dict[str, str]:
        short: dict[str, str] = {self.kind: self.name}
        return short | ({"precision": self.precision} if self.is_reduced else {})

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" + (f"@{self.precision}" if self.is_reduced else "")

    @property
    def is_reduced(self) -> bool:
        """Whether products of the network have less than single precision."""
        return self.precision != "single"

    @property
    def is_classical(self) -> bool:
        """Whether bonds to hydrogen are constrained and classical timesteps apply."""
        return self.kind == "amber14"


class StructureConfig(Settings):
    """The solute: exactly one of `file`, `sequence` and `smiles`.

    Attributes:
        file: PDB, mmCIF or SDF file, absolute after loading (relative to the YAML in it).
        sequence: one-letter amino acid codes, N to C terminus.
        termini: charged ends (`zwitterion`) or ACE and NME caps (`capped`); with a sequence only.
        smiles: one molecule.
    """

    file: Path | None = Field(default=None, strict=False)
    sequence: str | None = None
    termini: Literal["zwitterion", "capped"] = "zwitterion"
    smiles: str | None = None

    @field_validator("file", mode="before")
    @classmethod
    def _existing_file(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError(f"is {describe_type(value)}, expected the name of a structure file")
        folder = (info.context or {}).get("folder", Path())
        path = (folder / value).resolve()
        if path.suffix.lower() not in STRUCTURE_SUFFIXES:
            raise ValueError(
                f"{value!r} is not of a known format; use one of {', '.join(STRUCTURE_SUFFIXES)}"
            )
        if not path.is_file():
            raise ValueError(
                f"no such file: {value!r} (looked in {folder or Path()}); correct the name"
            )
        return path

    @field_validator("sequence")
    @classmethod
    def _known_residues(cls, value: str | None) -> str | None:
        if value is None:
            return None
        sequence = "".join(value.split())
        unknown = sorted(set(sequence) - set(AMINO_ACIDS))
        if unknown:
            raise ValueError(
                f"{', '.join(repr(letter) for letter in unknown)} in {sequence[:40]!r} is not a "
                f"one-letter amino acid code; use capitals of {AMINO_ACIDS}"
            )
        if not sequence:
            raise ValueError("is empty; write one-letter amino acid codes such as AAA")
        return sequence

    @field_validator("smiles")
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty; write a SMILES string such as CCO")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("file", "sequence", "smiles") if getattr(self, key) is not None]
        if len(given) != 1:
            found = f"has {' and '.join(given)}" if given else "names nothing"
            raise ValueError(f"{found}; give exactly one of file, sequence and smiles")
        if self.sequence is None and "termini" in self.model_fields_set:
            raise problems([("termini", f"does not apply to a {given[0]}; remove it")])
        return self


class IonsConfig(Settings):
    """Ions in the solvent; only for potentials that know sodium and chlorine.

    Attributes:
        neutralize: replace waters by ions until the net charge is zero.
        concentration_mol_per_l: salt beyond neutralization.
    """

    neutralize: bool = True
    concentration_mol_per_l: Concentration = Field(default=0.0, alias="concentration")


class SolventConfig(Settings):
    """A periodic box of water around the solute.

    Attributes:
        model: geometry of the inserted molecules; any potential can take over from there.
        shape: box shape.
        padding_angstrom: the box is as wide as the sphere around the solute plus this, and at
            least twice this; excludes `edge`.
        edge_angstrom: length of the lattice vectors; excludes `padding`.
        n_waters: exact number of waters, with `edge` only; otherwise as many as fit.
        ions: counter-ions and salt, if wanted.
    """

    model: Literal["tip3p", "spce"] = "tip3p"
    shape: Literal["cube", "dodecahedron", "octahedron"] = "cube"
    padding_angstrom: Length | None = Field(default=None, alias="padding")
    edge_angstrom: Length | None = Field(default=None, alias="edge")
    n_waters: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    ions: IonsConfig | None = None

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.padding_angstrom is None) == (self.edge_angstrom is None):
            found = "has neither padding nor edge" if self.edge_angstrom is None else "has both"
            raise ValueError(f"{found}; give padding: 10 A or edge: 18 A")
        if self.n_waters is not None and self.edge_angstrom is None:
            raise problems([("n_waters", "needs a fixed box; give edge instead of padding")])
        size = self.padding_angstrom or self.edge_angstrom or 0.0
        if size > 1000.0:
            key = "edge" if self.edge_angstrom is not None else "padding"
            raise problems([(key, f"{size:g} A is no box one can fill; use less than 1000 A")])
        return self


class SystemConfig(Settings):
    """A system: what it is made of and the potential that acts in it.

    Attributes:
        name: used for the run directory; the file's name if not given.
        structure: the solute; None for pure solvent.
        ph: pH at which hydrogens are added to amino acids.
        solvent: water around the solute; None for an isolated molecule, or for the periodic box
            of a structure file that holds one.
        potential: the energy function.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    structure: StructureConfig | None = None
    ph: Annotated[float, Field(ge=0.0, le=14.0)] = 7.0
    solvent: SolventConfig | None = None
    potential: PotentialConfig

    @model_validator(mode="after")
    def _something_there(self) -> Self:
        if self.structure is None and self.solvent is None:
            raise ValueError("has neither structure nor solvent; give at least one of them")
        if self.solvent is not None and self.solvent.ions and self.potential.kind == "trip":
            raise problems(
                [("solvent.ions", "TrIP knows neither ions nor charge; remove it or use amber14")]
            )
        return self
