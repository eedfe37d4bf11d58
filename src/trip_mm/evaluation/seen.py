"""Whether a model was trained on the data that it is evaluated on, as far as its header tells."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trip_mm.training.config import SplitConfig
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import Group
from trip_mm.training.splits import draw_split


def describe_seen(label: str, training: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """Names the files that have the name of a training file, and what is held out in them.

    A header records names of files (or directories), not their content, so that nothing more than
    the name is claimed.

    Args:
        label: of the model.
        training: record of the training in its header, empty where there is none.
        dataset: that it is evaluated on.
    """
    files = training.get("data_files")
    recorded = {str(name) for name in files} if isinstance(files, list) else set()
    groups_of: dict[Path, list[Group]] = {}
    for group in dataset.groups:
        path = group.path
        if path is not None and {path.name, path.parent.name} & recorded:
            groups_of.setdefault(path, []).append(group)
    return [
        f"{label}: was trained on {path.name if path.name in recorded else path.parent.name}. If "
        f"that is {path}, {_held_out(training, Dataset(groups))}; errors of the others are those "
        "of training data."
        for path, groups in groups_of.items()
    ]


def _held_out(training: Mapping[str, Any], dataset: Dataset) -> str:
    rule = _at(training, "config", "data", "split", "by")
    keys = _at(training, "split", "held_out")
    if rule != "formula" or not isinstance(keys, list):
        return f"an unrecorded part of its {len(dataset)} conformations was held out"
    held_out = draw_split(dataset, SplitConfig(validation_fraction=0.0), frozenset(keys))
    return f"{len(held_out.validation)} of its {len(dataset)} conformations were held out"


def _at(record: object, *keys: str) -> object:
    """Returns what stands at a path in a record, None where it is of another shape."""
    for key in keys:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record
