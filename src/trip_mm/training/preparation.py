"""What a training run starts from: the network's configuration, the data, the initial weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.checkpoint import load_potential, new_potential, registry, trained_level
from trip_mm.committee import load_committee
from trip_mm.elements import SYMBOLS
from trip_mm.errors import ConfigError, DataError
from trip_mm.model.config import TripConfig
from trip_mm.potential import TripPotential
from trip_mm.training.checks import check_block
from trip_mm.training.config import TrainingConfig
from trip_mm.training.conformations import ConformationStore, build_store, usable
from trip_mm.training.dataset import Dataset
from trip_mm.training.groups import group_place
from trip_mm.training.levels import same_level
from trip_mm.training.network import network_config
from trip_mm.training.record import Place, TrainingData, recorded_held_out
from trip_mm.training.splits import advise_to_hold_out, describe_too_few, draw_split
from trip_mm.training.spool_identity import SpoolSettings
from trip_mm.training.spool_waiting import failure_told, wait_for_spool
from trip_mm.training.statistics import (
    EnergyStatistics,
    energy_statistics,
    merged_self_energies,
    relative_to,
)
from trip_mm.training.store import TrainingStore
from trip_mm.training.streaming import SPOOL, spool


@dataclass(frozen=True)
class Prepared:
    """Data with energies relative to the self energies, and what the potential is told of them.

    Attributes:
        data: what to train and validate on.
        statistics: of the energies.
    """

    data: TrainingData
    statistics: EnergyStatistics


def prepare(
    config: TrainingConfig,
    model_config: TripConfig,
    place: Place,
    initial: Sequence[TripPotential] = (),
) -> Prepared:
    """Reads, checks and splits the data, and regresses the energies.

    Args:
        config: of the run.
        model_config: of the network.
        place: directory of the run, and whom it tells.
        initial: potentials whose weights are trained further.

    Raises:
        ConfigError: `initial` has trained isolated atoms of another level of theory.
        DataError: the data files are missing or inconsistent, or nothing, or everything, is held
            out.
    """
    data = load_data(config, model_config, place)
    for line in _describe(data):
        place.report(line)
    if len(data.validation) == 0:
        raise DataError(advise_to_hold_out(data.split))
    if len(data.train) == 0:
        raise DataError(
            "every conformation with energy and forces is held out; lower "
            "data.split.validation_fraction, or name less in data.split.hold_out"
        )
    # Repulsion and envelope only: random weights do.
    statistics = energy_statistics(
        data.train, data.self_energies, new_potential(model_config).model
    )
    if initial and model_config.lone_atoms == "trained":
        _refuse_another_initial_level(initial, data.level_of_theory)
        statistics = statistics.with_self_energies_of(initial, data.self_energies)
    data = replace(
        data,
        train=relative_to(data.train, data.self_energies, statistics),
        validation=relative_to(data.validation, data.self_energies, statistics),
    )
    return Prepared(data, statistics)


def resolve_model_config(config: TrainingConfig) -> TripConfig:
    """Returns the network of `model`, or of the checkpoint where `model` is left out.

    Raises:
        ConfigError: `model` means nothing.
    """
    if config.initial is not None and "model" not in config.model_fields_set:
        return _initial_members(config)[0].config
    return network_config(config.model)


def load_data(config: TrainingConfig, model_config: TripConfig, place: Place) -> TrainingData:
    """Reads, checks and splits the data; with `data.storage: disk` into a copy beside the run.

    Test files are read too: what is wrong with them must show before the training, not after it.

    Raises:
        DataError: see `Dataset.open` and `build_store`; also an element the model lacks, or test
            files of another level of theory. Of test files it begins with `data.test_files`.
    """
    dataset = Dataset.open(*config.data.files)
    _refuse_unknown_elements(dataset, model_config)
    self_energies = merged_self_energies(
        dataset.lone_atom_energies, config.data.lone_atom_energies_ev, model_config.elements
    )
    if config.data.test_files:
        try:
            test = _checked_test_data(config.data.test_files, model_config, self_energies)
        except DataError as error:
            raise DataError(f"data.test_files: {error}") from None
        _refuse_another_level(test.level_of_theory, dataset.level_of_theory)
    recorded = recorded_held_out(place.out) if place.resume else None
    split = draw_split(dataset, config.data.split, recorded)
    held_out = np.zeros(len(dataset), dtype=bool)
    held_out[split.validation] = True
    settings = SpoolSettings(
        self_energies, model_config.cutoff, config.data.max_force_ev_per_angstrom
    )
    train, validation = _STORAGES[config.data.storage](dataset, config, settings, place, held_out)
    return TrainingData(
        train,
        validation,
        split,
        self_energies,
        dataset.level_of_theory,
        (train.sha256(), validation.sha256()),
    )


def _checked_test_data(
    files: Sequence[Path], model_config: TripConfig, self_energies: Mapping[int, float]
) -> Dataset:
    """Opens test files and refuses what they could not be evaluated on.

    Raises:
        DataError: as `build_store`, whose edges are not searched here; also an element the model
            lacks.
    """
    test = Dataset.open(*files)
    _refuse_unknown_elements(test, model_config)
    n_usable = 0
    for group in test.groups:
        block = group.read(slice(0, group.n_conformations))
        check_block(group, block, self_energies)
        n_usable += int(usable(block, None)[0].sum())
    if not n_usable:
        raise DataError("no conformation has energy and forces; label some, or leave them out")
    return test


def _refuse_unknown_elements(dataset: Dataset, model_config: TripConfig) -> None:
    for group in dataset.groups:
        unknown = sorted({int(z) for z in group.atomic_numbers} - set(model_config.elements))
        if unknown:
            raise DataError(
                f"{group_place(group)}: holds {SYMBOLS[unknown[0]]}, which model.elements lacks; "
                "add it there or leave the file out"
            )


def _refuse_another_initial_level(initial: Sequence[TripPotential], level: str) -> None:
    for potential in initial:
        found = trained_level(potential.name, potential.metadata)
        if found and level and not same_level(found, level):
            raise ConfigError(
                f"initial: its isolated atoms were trained at {found}, the labels are of {level}; "
                "start from a model with `lone_atoms: exact`, or without initial"
            )


def _refuse_another_level(tested: str, trained: str) -> None:
    if tested and trained and not same_level(tested, trained):
        raise DataError(
            f"data.test_files: level of theory {tested}, but data.files are {trained}; errors "
            "would be those of the levels: label both at one, or leave test_files out and use "
            "`trip-mm evaluate`"
        )


def _stored_in_memory(
    dataset: Dataset,
    config: TrainingConfig,
    settings: SpoolSettings,
    place: Place,
    held_out: NDArray[np.bool_],
) -> tuple[TrainingStore, ConformationStore]:
    store = build_store(dataset, settings.lone_atom_energies, settings.cutoff, settings.max_force)
    chosen = held_out[store.dataset_idx]
    return store.subset(np.flatnonzero(~chosen)), store.subset(np.flatnonzero(chosen))


def _stored_on_disk(
    dataset: Dataset,
    config: TrainingConfig,
    settings: SpoolSettings,
    place: Place,
    held_out: NDArray[np.bool_],
) -> tuple[TrainingStore, ConformationStore]:
    files, folder = config.data.files, place.out / SPOOL
    if place.processes.is_first:
        with failure_told(folder):
            store = spool(dataset, files, settings, folder)
    else:
        store = wait_for_spool(files, settings, folder)
    chosen = held_out[store.dataset_idx]
    validation = store.subset(np.flatnonzero(chosen)).in_memory()
    return store.subset(np.flatnonzero(~chosen)), validation


_STORAGES = {"memory": _stored_in_memory, "disk": _stored_on_disk}


def _describe(data: TrainingData) -> list[str]:
    lines = [f"labels: {data.level_of_theory or 'level of theory not stated'}"]
    for number, name in enumerate(data.train.classes):
        n_train = int((data.train.class_idx == number).sum())
        n_validation = int((data.validation.class_idx == number).sum())
        lines.append(f"  {name}: {n_train} to train on, {n_validation} held out")
    lines += [f"  {line}" for line in describe_too_few(data.split)]
    lost = data.train.exclusions
    if lost.total:
        lines.append(
            f"  left out: {lost.missing_energy} without energy, {lost.missing_forces} without "
            f"forces, {lost.large_force} above data.max_force"
        )
    return lines


def initial_potentials(config: TrainingConfig, model_config: TripConfig) -> list[TripPotential]:
    """Builds what training starts from: one potential, or one for each member of a committee.

    Members start from random weights of their own seeds; from the members of the committee that
    `initial` names; or all from the one model that it names.

    Returns:
        Potentials in float32 on the CPU, their frozen parts without `requires_grad`.

    Raises:
        ConfigError: `initial` does not fit `model` or `committee`, or `frozen` names no part.
    """
    n_members = config.committee or 1
    if config.initial is None:
        return [new_potential(model_config, seed=config.seed + k) for k in range(n_members)]
    found = _initial_members(config)
    if len(found) not in (1, n_members):
        raise ConfigError(
            f"initial: {config.initial.name} is a committee of {len(found)}; set committee to "
            f"{len(found)}, or name one member"
        )
    if len(found) < n_members:
        found += tuple(_initial_members(config)[0] for _ in range(n_members - 1))
    for potential in found:
        if potential.config != model_config:
            raise ConfigError(
                f"initial: {config.initial.name} has another model configuration than `model`; "
                "make `model` the same, or leave it out"
            )
        freeze(potential, config.frozen)
    return list(found)


def _initial_members(config: TrainingConfig) -> tuple[TripPotential, ...]:
    assert config.initial is not None
    if config.initial.suffix == ".json":
        return load_committee(config.initial).members
    return (load_potential(initial_source(config.initial)),)


def initial_source(initial: Path) -> str:
    """Returns the checkpoint's path, or the name of a registered model where no such file is."""
    named = not initial.is_file() and initial.name in registry()
    return initial.name if named else str(initial)


def freeze(potential: TripPotential, parts: tuple[str, ...]) -> None:
    """Takes parts of the network out of training.

    Args:
        potential: its network's parameters lose `requires_grad`.
        parts: names of modules or parameters, such as `embedding` or `blocks.0.convolution`.

    Raises:
        ConfigError: a name fits nothing, or nothing is left to train.
    """
    named = dict(potential.model.named_parameters())
    for part in parts:
        chosen = [name for name in named if name == part or name.startswith(f"{part}.")]
        if not chosen:
            known = ", ".join(sorted({_part_of(name) for name in named}))
            raise ConfigError(f"frozen: the network has no part {part!r}; it has {known}")
        for name in chosen:
            named[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise ConfigError("frozen: nothing is left to train; freeze fewer parts")


def _part_of(name: str) -> str:
    """Names the part of a parameter in messages: `blocks.0` of `blocks.0.query.maps.0.weight`."""
    words = name.split(".")
    return ".".join(words[:2]) if len(words) > 1 and words[1].isdigit() else words[0]


def set_statistics(
    potential: TripPotential, config: TrainingConfig, statistics: EnergyStatistics
) -> None:
    """Sets self energies; binding energies and unit too, unless they came with the weights."""
    binding = statistics.binding_energies
    thesis = config.loss.preset == "thesis"
    scale = statistics.energy_std if thesis else statistics.force_rms
    if config.initial is not None:
        model = potential.model
        binding = dict(
            zip(potential.supported_elements, model.binding_energies.tolist(), strict=True)
        )
        scale = float(model.energy_scale)
    potential.set_energy_statistics(statistics.self_energies, binding, scale)
