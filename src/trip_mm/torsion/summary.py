"""Statistics of a torsion benchmark over the records of a set, with bootstrap intervals.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). What is
drawn again is the molecule, with all its records, because torsions of one molecule are not
independent.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem

from trip_mm.torsion.drive import DriveResult, Outcome
from trip_mm.torsion.metrics import SCORES
from trip_mm.torsion.records import mol_from_mapped_smiles

INTERVAL = 0.95
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
SHARES_KCAL_PER_MOL = (0.5, 1.0)
COMPARED = ("rmse_kcal_per_mol", "rmsd_angstrom")
"""Scores of which the difference between two potentials is estimated."""


@dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """One potential against the references of one level of theory.

    Attributes:
        level: of the references, energies//geometries.
        potential: label.
        n_records: with scores.
        n_molecules: different ones among them.
        scores: score to statistic (`mean`, `median`, `q05` ...) to estimate.
        shares: threshold in kcal/mol to the share of records whose profile RMSE is at most that.
    """

    level: str
    potential: str
    n_records: int
    n_molecules: int
    scores: dict[str, dict[str, Estimate]]
    shares: dict[str, Estimate]

    def to_dict(self) -> dict[str, object]:
        """Returns the numbers by name."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """Mean of a score of one potential minus that of another, on the records both have.

    Attributes:
        level: of the references.
        first: label of the one.
        second: label of the other.
        score: its name.
        n_records: common ones.
        mean: first minus second.
    """

    level: str
    first: str
    second: str
    score: str
    n_records: int
    mean: Estimate


def levels(result: DriveResult) -> list[str]:
    """Returns the levels of theory of the records that were tried, most frequent first."""
    found = [outcome.record.level for outcome in result.outcomes]
    return sorted(set(found), key=lambda level: (-found.count(level), level))


def summarize(result: DriveResult) -> list[Summary]:
    """Summarizes every potential at every level of theory; levels are never mixed."""
    return [
        _summary(result, level, spec.label, _done(result.of(spec), level))
        for level in levels(result)
        for spec in result.settings.potentials
    ]


def differences(result: DriveResult) -> list[Difference]:
    """Compares every two potentials on the records that both finished."""
    found = []
    for level in levels(result):
        for first, second in combinations(result.settings.potentials, 2):
            one = {o.record.record_id: o for o in _done(result.of(first), level)}
            two = {o.record.record_id: o for o in _done(result.of(second), level)}
            common = [key for key in one if key in two]
            for name in COMPARED:
                values = _values([one[k] for k in common], name) - _values(
                    [two[k] for k in common], name
                )
                if not np.isfinite(values).any():
                    continue
                draws = _draws(result, [one[key] for key in common])
                mean = _estimates(values, draws)["mean"]
                found.append(Difference(level, first.label, second.label, name, len(common), mean))
    return found


def _done(outcomes: Sequence[Outcome], level: str) -> list[Outcome]:
    return [o for o in outcomes if o.is_done and o.record.level == level]


def _values(outcomes: Sequence[Outcome], name: str) -> NDArray[np.float64]:
    return np.array([float(getattr(o.scores, name)) for o in outcomes], dtype=np.float64)


def _summary(result: DriveResult, level: str, label: str, done: list[Outcome]) -> Summary:
    draws = _draws(result, done)
    scores = {name: _estimates(_values(done, name), draws) for name in SCORES}
    rmse = _values(done, "rmse_kcal_per_mol")
    shares = {
        f"{threshold:g}": _estimates((rmse <= threshold).astype(np.float64), draws)["mean"]
        for threshold in SHARES_KCAL_PER_MOL
    }
    n_molecules = len({plain_smiles(o.record.smiles) for o in done})
    return Summary(level, label, len(done), n_molecules, scores, shares)


def plain_smiles(mapped: str) -> str:
    """Returns canonical SMILES without map numbers and explicit hydrogens."""
    mol = mol_from_mapped_smiles(mapped)
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    return str(Chem.MolToSmiles(Chem.RemoveHs(mol)))


def _draws(result: DriveResult, outcomes: Sequence[Outcome]) -> list[NDArray[np.int64]]:
    """Draws molecules with replacement; returns the indices of their outcomes for each draw."""
    members: dict[str, list[int]] = {}
    for index, outcome in enumerate(outcomes):
        members.setdefault(plain_smiles(outcome.record.smiles), []).append(index)
    groups = [np.array(indices, dtype=np.int64) for indices in members.values()]
    if len(groups) < 2:
        return []
    generator = np.random.default_rng(result.settings.seed)
    drawn = generator.integers(len(groups), size=(result.settings.n_resamples, len(groups)))
    return [np.concatenate([groups[group] for group in row]) for row in drawn]


def _estimates(
    values: NDArray[np.float64], draws: Sequence[NDArray[np.int64]]
) -> dict[str, Estimate]:
    """Estimates mean and quantiles of the finite values; no interval from a single molecule."""
    exact = _statistics(values)
    again = np.array([_statistics(values[draw]) for draw in draws]).reshape(-1, len(exact))
    names = ("mean", *QUANTILES)
    if len(again) == 0 or np.isnan(exact).all():
        nan = float("nan")
        return {n: Estimate(float(v), nan, nan) for n, v in zip(names, exact, strict=True)}
    tail = (1.0 - INTERVAL) / 2.0
    low, high = np.nanquantile(again, [tail, 1.0 - tail], axis=0)
    return {
        name: Estimate(float(v), float(lo), float(hi))
        for name, v, lo, hi in zip(names, exact, low, high, strict=True)
    }


def _statistics(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns mean and quantiles of the finite values, `[1 + n_quantiles]`."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return np.full(1 + len(QUANTILES), np.nan)
    return np.concatenate([[finite.mean()], np.quantile(finite, list(QUANTILES.values()))])
