"""Multiple time steps of a stage: which cheap potential takes the short steps, and how many.

    timestep: 1 fs
    multiple_timesteps: {inner: amber14, steps: 2}

`timestep` is the outer step; the cheap potential takes `steps` steps in each.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from trip_mm.simulation.config_io import problems
from trip_mm.simulation.stage import MultipleTimesteps
from trip_mm.simulation.system_config import PotentialConfig, PotentialKind, Settings


class MultipleTimestepsConfig(Settings):
    """Multiple time steps of a stage.

    Attributes:
        inner: the cheap potential: `amber14` (with flexible bonds and water) or a small TrIP.
        steps: inner steps in an outer step.
    """

    inner: PotentialConfig
    steps: Annotated[int, Field(ge=2, le=100)]

    @model_validator(mode="after")
    def _known_inner(self) -> Self:
        if self.inner.kind == "openmm-ml":
            advice = "use amber14, or a small TrIP (trip: MODEL)"
            raise problems([("inner", f"{self.inner} cannot be the inner potential; {advice}")])
        return self

    def resolve(self) -> MultipleTimesteps:
        """Returns the settings as plain values."""
        return MultipleTimesteps(self.inner, self.steps)

    def problems_on(self, outer: PotentialKind) -> list[tuple[str, str]]:
        """Says what makes multiple time steps pointless on a kind of potential: key and reason."""
        if outer != "amber14":
            return []
        reason = (
            "does not apply to amber14, which is cheap and has rigid bonds; remove it, or run a "
            f"machine-learned potential with {self.inner} inside"
        )
        return [("multiple_timesteps", reason)]
