"""Published COMP6 figures of other potentials."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from trip_mm.evaluation.molecules import is_of_comp6
from trip_mm.training.dataset import Dataset
from trip_mm.training.levels import same_level


@dataclass(frozen=True)
class PublishedRow:
    """Errors of one potential over the whole of COMP6; None where unreported.

    Attributes:
        potential: name.
        energy_mae: kcal/mol per conformation.
        energy_rmse: the same.
        force_mae: kcal/mol/A per component.
        force_rmse: the same.
        note: what makes the row differ from the others.
    """

    potential: str
    energy_mae: float | None
    energy_rmse: float | None
    force_mae: float | None
    force_rmse: float | None
    note: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """Rows with their source."""

    source: str
    note: str
    rows: tuple[PublishedRow, ...]


@cache
def comp6_table() -> PublishedTable:
    """Returns the published errors on COMP6."""
    path = resources.files("trip_mm.evaluation") / "comp6_published.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = tuple(PublishedRow(**row) for row in content["rows"])
    return PublishedTable(content["source"], content["note"], rows)


def is_comp6(dataset: Dataset) -> bool:
    """Whether all groups come from files of COMP6 at its level of theory."""
    return same_level(dataset.level_of_theory, "wb97x/6-31g*") and all(
        map(is_of_comp6, dataset.groups)
    )
