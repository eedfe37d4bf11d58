"""From a recipe to a file of geometries: every source in turn, each with its own random stream."""

from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

import numpy as np

from trip_mm.files import make_directory
from trip_mm.training.formats_write import FileHeader, write_geometries
from trip_mm.training.groups import Conformation
from trip_mm.training.sampling_clusters import sample_liquid_water, sample_peptides
from trip_mm.training.sampling_inputs import check_inputs, excluded_formulas, naming
from trip_mm.training.sampling_molecules import (
    read_smiles,
    sample_diatomics,
    sample_dimer_scans,
    sample_molecules,
    sample_pairs,
    sample_stretched_bonds,
    sample_water_scan,
)
from trip_mm.training.sampling_protons import sample_proton_transfers
from trip_mm.training.sampling_recipe import (
    DiatomicsSource,
    DimerScansSource,
    LiquidWaterSource,
    MoleculesSource,
    PairsSource,
    PeptidesSource,
    ProtonTransfersSource,
    Recipe,
    Source,
    SpiceSource,
    StretchedBondsSource,
    TrajectorySource,
    load_recipe,
)
from trip_mm.training.sampling_spice import sample_spice
from trip_mm.training.sampling_trajectory import sample_trajectory


def sample_recipe(
    recipe_path: Path,
    out: Path,
    data: Path | None = None,
    report: Callable[[str, int], None] = lambda kind, count: None,
) -> int:
    """Samples every source of a recipe and writes the geometries, shuffled, to one file.

    The same recipe and seed give the same file on the same versions of OpenMM and RDKit. The
    order is shuffled so that the first labels already cover every class. Conformations of a file
    that do not fit their source are counted by reason, in the header of the file as `failures`.

    Args:
        recipe_path: recipe; files of SMILES in it are looked up beside it.
        out: file to write, in our own layout without labels.
        data: directory that files of geometries in the recipe are relative to; the recipe's own
            directory if None.
        report: called with the kind of each source and how many geometries it gave, and with each
            reason for which it left some out and how many.

    Returns:
        Number of geometries written.

    Raises:
        ConfigError: the recipe, or a SMILES in it, is wrong.
        DataError: a file of geometries that it names is missing or malformed.
    """
    recipe = load_recipe(recipe_path).scaled()
    directories = (recipe_path.parent, data or recipe_path.parent)
    check_inputs(recipe, recipe_path, directories[1])
    make_directory(out.parent)
    conformations: list[Conformation] = []
    all_left_out: Counter[str] = Counter()
    for index, source in enumerate(recipe.sources):
        rng = np.random.default_rng([recipe.seed, index])
        left_out: dict[str, int] = {}
        with naming(f"{recipe_path}: sources[{index}]"):
            found = list(iterate_source(recipe, source, directories, rng, left_out))
        report(source.kind, len(found))
        for reason, count in left_out.items():
            report(f"left out, {reason}", count)
        all_left_out.update(left_out)
        conformations += found
    order = np.random.default_rng([recipe.seed, len(recipe.sources)]).permutation(
        len(conformations)
    )
    numbered = [
        Conformation(
            item.atomic_numbers,
            item.positions,
            item.energy,
            item.forces,
            item.system_class,
            item.formula,
            item.source,
            item.n_unpaired,
            number,
        )
        for number, item in enumerate(conformations[int(i)] for i in order)
    ]
    split_by = {source.system_class: source.split_by for source in recipe.sources}
    header = FileHeader(
        f"{recipe.name} (seed {recipe.seed})", failures=all_left_out, split_by=split_by
    )
    write_geometries(out, numbered, header)
    return len(numbered)


def iterate_source(
    recipe: Recipe,
    source: Source,
    directories: tuple[Path, Path],
    rng: np.random.Generator,
    left_out: MutableMapping[str, int],
) -> Iterator[Conformation]:
    """Yields the geometries of one source of a recipe.

    Args:
        recipe: for the formulas that must be kept out.
        source: which source.
        directories: where files of SMILES are, and where files of geometries are.
        rng: random stream of the source.
        left_out: number of conformations of a file that do not fit, by reason; added to.
    """
    directory, data = directories
    if isinstance(source, PeptidesSource):
        return sample_peptides(source, rng)
    if isinstance(source, LiquidWaterSource):
        return sample_liquid_water(source, rng)
    if isinstance(source, DimerScansSource):
        return sample_dimer_scans(source, rng)
    if isinstance(source, ProtonTransfersSource):
        return sample_proton_transfers(source, rng)
    if isinstance(source, PairsSource):
        return sample_pairs(source, rng)
    if isinstance(source, DiatomicsSource):
        return sample_diatomics(source)
    excluded = excluded_formulas(recipe, directory)
    if isinstance(source, SpiceSource):
        return sample_spice(source, data / source.file, excluded, rng, left_out)
    if isinstance(source, TrajectorySource):
        return sample_trajectory(source, data, rng)
    if isinstance(source, MoleculesSource):
        return sample_molecules(source, read_smiles(directory / source.smiles), excluded, rng)
    if isinstance(source, StretchedBondsSource):
        return sample_stretched_bonds(source, read_smiles(directory / source.smiles), excluded, rng)
    return sample_water_scan(source, rng)
