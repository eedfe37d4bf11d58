"""Mistakes in the YAML of sampling, training and reference sets, as in that of systems."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trip_mm.errors import ConfigError
from trip_mm.torsion.reference import load_recipe as load_reference
from trip_mm.training.config import load_training_config
from trip_mm.training.sampling_recipe import load_recipe

MOLECULES = "kind: molecules, class: m, smiles: a.smi"
WATER = "kind: liquid-water, class: w, snapshots: 1"
TRAINING = "name: x\ndata: {files: [a.h5]}\nbudget: {max_steps: 3}\n"


def sampling(source: str) -> str:
    return (
        f"name: x\nseed: 1\nsources: [{{kind: water-scan, class: c, conformations: 1}}, {source}]\n"
    )


SAMPLING = {
    "unknown key": (
        sampling(f"{{{MOLECULES}, conformation: 240}}"),
        "sources[1].conformation: unknown key; did you mean 'conformations'?",
    ),
    "unknown key of the recipe": (
        "name: x\nsede: 1\nsources: [{kind: water-scan, class: c, conformations: 1}]\n",
        "sede: unknown key; did you mean 'seed'?",
    ),
    "unknown kind": (
        sampling("{kind: pear, class: c}"),
        "sources[1].kind: 'pear' is not known; did you mean 'pairs'?",
    ),
    "no kind": (sampling("{class: c}"), "sources[1].kind: is required but missing; add it"),
    "kind of a list": (sampling("{kind: [a]}"), "sources[1].kind: is a list, expected one of mol"),
    "missing key": (
        sampling(f"{{{MOLECULES}}}"),
        "sources[1].conformations: is required but missing; add it",
    ),
    "unit": (
        sampling(f"{{{WATER}, temperatures_k: [300 K]}}"),
        "sources[1].temperatures_k[0]: is the text '300 K', expected a number without a unit",
    ),
    "no list": (
        sampling(f"{{{WATER}, temperatures_k: 300}}"),
        "sources[1].temperatures_k: is the number 300, expected a list",
    ),
    "empty list": (
        sampling(f"{{{WATER}, temperatures_k: []}}"),
        "sources[1].temperatures_k: holds 0 items, expected at least 1",
    ),
    "long list": (
        sampling(f"{{{WATER}, temperatures_k: [300.0], oh_length: [0.9, 1.0, 1.1]}}"),
        "sources[1].oh_length: holds 3 items, expected at most 2",
    ),
    "no mapping": (sampling("molecules"), "sources[1]: is the text 'molecules', expected `key: "),
}
TRAININGS = {
    "unknown key": (
        TRAINING + "optimizer: {learnin_rate: 1.0e-3}\n",
        "optimizer.learnin_rate: unknown key; did you mean 'learning_rate'?",
    ),
    "unknown key of the split": (
        TRAINING.replace("[a.h5]", "[a.h5], split: {validation_fracton: 0.1}"),
        "data.split.validation_fracton: unknown key; did you mean 'validation_fraction'?",
    ),
    "alias": (
        TRAINING.replace("[a.h5]", "[a.h5], max_forc: 30 eV/A"),
        "data.max_forc: unknown key; did you mean 'max_force'?",
    ),
    "unit": (
        TRAINING + "validation: {every_steps: 50 fs}\n",
        "validation.every_steps: is the text '50 fs', expected a whole number without a unit",
    ),
    "text": (
        TRAINING + "validation: {every_steps: often}\n",
        "validation.every_steps: is the text 'often', expected a whole number",
    ),
    "choice": (
        TRAINING + "schedule: {kind: cosin}\n",
        "schedule.kind: 'cosin' is not known; did you mean 'cosine'?",
    ),
    "file": (
        TRAINING.replace("[a.h5]", "[7]"),
        "data.files[0]: is the number 7, expected the name of a file",
    ),
    "preset": (
        TRAINING + "model: {preset: trip-small}\n",
        "model.preset: 'trip-small' is not known; did you mean 'trip-s'?",
    ),
    "preset alone": (
        TRAINING + "model: trip-small\n",
        "model.preset: 'trip-small' is not known; did you mean 'trip-s'?",
    ),
    "preset of a training": (
        TRAINING + "preset: these\n",
        "preset: 'these' is not known; did you mean 'thesis'?",
    ),
    "network": (
        TRAINING + "model: {n_chanels: 4}\n",
        "model.n_chanels: unknown key; did you mean 'n_channels'?",
    ),
    "network value": (TRAINING + "model: {n_heads: 3}\n", "model.n_heads: 3 does not divide the"),
    "elements": (TRAINING + "model: {elements: HCNO}\n", "model.elements: is the text 'HCNO', exp"),
    "element": (TRAINING + "model: {elements: [H, Qq]}\n", "model.elements: 'Qq' is"),
}
REFERENCES = {
    "unknown key": (
        "name: x\nmolecules: a.csv\ngeometrys: gfn2\n",
        "geometrys: unknown key; did you mean 'geometries'?",
    ),
    "missing key": ("name: x\n", "molecules: is required but missing; add it"),
    "key twice": ("name: x\nname: y\n", "line 2, column 1: the key 'name' occurs twice"),
}


def message_of(load: Callable[[Path], object], path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    return str(raised.value)


@pytest.mark.parametrize(
    ("load", "text", "expected"),
    [
        pytest.param(load, *case, id=f"{load.__module__.split('.')[-1]}: {name}")
        for load, cases in (
            (load_recipe, SAMPLING),
            (load_training_config, TRAININGS),
            (load_reference, REFERENCES),
        )
        for name, case in cases.items()
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, load: Callable[[Path], object], text: str, expected: str
) -> None:
    path = tmp_path / "x.yaml"
    message = message_of(load, path, text)
    assert message.startswith(f"{path}: ")
    assert message.removeprefix(f"{path}: ").startswith(expected)
    assert "\n" not in message


def test_every_mistake_is_a_line(tmp_path: Path) -> None:
    text = sampling(f"{{{MOLECULES}, conformations: -1, displacment: [0, 1]}}")
    lines = message_of(load_recipe, tmp_path / "x.yaml", text).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "sources[1].conformations",
        "sources[1].displacment",
    ]


def test_only_the_key_that_was_meant_is_not_missed(tmp_path: Path) -> None:
    text = "name: x\nscale: 1.0\nsede: 1\n"
    lines = message_of(load_recipe, tmp_path / "x.yaml", text).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["sources", "sede"]
