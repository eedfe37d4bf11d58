"""The committee of a stage: which models are compared, how often, and when the run stops.

    committee: {models: [a.safetensors, b.safetensors], every: 20 fs, stop_above: 2 kcal/mol/A}

`models: runs/train-x/x.json` names the committee that `trip-mm train` wrote. The models need not
drive the stage; a classical stage may have a committee too.
"""

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from trip_mm.simulation.config_io import problems
from trip_mm.simulation.quantities import Duration, ForceMagnitude
from trip_mm.simulation.system_config import Settings

SMALLEST_COMMITTEE = 2
COMMITTEE_SUFFIX = ".json"
"""Of the file that names the members of a trained committee."""


class CommitteeConfig(Settings):
    """A committee that watches a stage.

    Attributes:
        models: names of registered models or checkpoint files, at least two different ones, or the
            JSON file of a trained committee.
        every_ps: time between two comparisons.
        stop_above_kj_per_mol_nm: the run stops when the forces on an atom disagree by more (one
            standard deviation over the models); None never stops it.
    """

    models: list[Annotated[str, Field(min_length=1)]]
    every_ps: Duration = Field(alias="every")
    stop_above_kj_per_mol_nm: ForceMagnitude | None = Field(default=None, alias="stop_above")

    @field_validator("models", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("models")
    @classmethod
    def _names(cls, value: list[str]) -> list[str]:
        return [name.strip().removeprefix("trip:") for name in value]

    @model_validator(mode="after")
    def _different(self) -> Self:
        twice = sorted({name for name in self.models if self.models.count(name) > 1})
        if twice:
            raise problems([("models", f"{twice[0]!r} occurs twice; name each model once")])
        is_file = len(self.models) == 1 and self.models[0].endswith(COMMITTEE_SUFFIX)
        if len(self.models) < SMALLEST_COMMITTEE and not is_file:
            raise problems(
                [
                    (
                        "models",
                        f"a committee has at least {SMALLEST_COMMITTEE} models and this one has "
                        f"{len(self.models)}; name another, trained with another seed",
                    )
                ]
            )
        return self
