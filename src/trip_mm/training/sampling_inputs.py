"""What the sources of a recipe need, checked before the first is sampled."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rdkit import Chem

from trip_mm.elements import formula
from trip_mm.errors import ConfigError, DataError
from trip_mm.training.sampling_dynamics import check_sequence
from trip_mm.training.sampling_molecules import parse_smiles, read_smiles
from trip_mm.training.sampling_recipe import (
    MoleculesSource,
    PeptidesSource,
    Recipe,
    Source,
    SpiceSource,
    StretchedBondsSource,
    TrajectorySource,
    TwoMoleculesSource,
)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Names the place in a recipe in front of what is wrong there."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(f"{place}: {error}") from error


def check_inputs(recipe: Recipe, recipe_path: Path, data: Path) -> None:
    """Refuses missing files, unknown residues and SMILES that cannot be read.

    Args:
        recipe: whose sources.
        recipe_path: its file; files of SMILES are beside it.
        data: directory that files of geometries are relative to.

    Raises:
        ConfigError: naming the recipe and the key.
        DataError: likewise, a file of geometries is missing.
    """
    with naming(f"{recipe_path}: keep_out"):
        excluded_formulas(recipe, recipe_path.parent)
    for number, source in enumerate(recipe.sources):
        for key, check in _checks(source, recipe_path.parent, data):
            with naming(f"{recipe_path}: sources[{number}].{key}"):
                check()


def excluded_formulas(recipe: Recipe, directory: Path) -> frozenset[str]:
    """Returns the formulas of the molecules in the recipe's `keep_out` file.

    Raises:
        ConfigError: the file is missing, or a SMILES in it cannot be read.
    """
    if recipe.keep_out is None:
        return frozenset()
    path = directory / recipe.keep_out
    formulas = set()
    found = read_smiles(path)
    with naming(str(path)):
        for smiles in found:
            atoms = Chem.AddHs(parse_smiles(smiles)).GetAtoms()
            formulas.add(formula(atom.GetAtomicNum() for atom in atoms))
    return frozenset(formulas)


def _checks(
    source: Source, directory: Path, data: Path
) -> Iterator[tuple[str, Callable[[], object]]]:
    if isinstance(source, MoleculesSource | StretchedBondsSource):
        yield "smiles", partial(_check_file_of_smiles, directory / source.smiles)
    elif isinstance(source, TwoMoleculesSource):
        yield "pairs", partial(_check_smiles, [name for pair in source.pairs for name in pair])
    elif isinstance(source, PeptidesSource):
        yield "peptides", partial(_check_peptides, source.peptides)
    elif isinstance(source, SpiceSource):
        yield "file", partial(_refuse_missing, data / source.file)
    elif isinstance(source, TrajectorySource):
        yield "topology", partial(_refuse_missing, data / source.topology)
        yield "trajectory", partial(_refuse_missing, data / source.trajectory)


def _check_file_of_smiles(path: Path) -> None:
    found = read_smiles(path)
    with naming(str(path)):
        _check_smiles(found)


def _check_smiles(found: Iterable[str]) -> None:
    for smiles in found:
        parse_smiles(smiles)


def _check_peptides(peptides: Iterable[str]) -> None:
    for sequence in peptides:
        check_sequence(sequence)


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file; give its directory with --data")
