"""The potentials of a scan: energies of one molecule, torn bonds included, and why they fail."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trip_mm.errors import ConfigError, EvaluationError, UnsupportedSystemError
from trip_mm.geometry.molecule import Molecule
from trip_mm.geometry.potentials import PotentialSpec, bind, bind_energy, check_distinct
from trip_mm.torsion.scan import Journal


@dataclass(frozen=True)
class Subject:
    """A potential in a scan.

    Attributes:
        spec: the potential.
        switched_off: term of TrIP that is switched off, a key of `ablations.TERMS`, or empty.
    """

    spec: PotentialSpec
    switched_off: str = ""

    @property
    def label(self) -> str:
        """Name for tables and pictures."""
        if not self.switched_off:
            return self.spec.label
        from trip_mm.surfaces.ablations import TERMS

        return f"{self.spec.label}, {TERMS[self.switched_off][0]}"

    @property
    def file_name(self) -> str:
        """Name for files, distinct for distinct subjects."""
        text = str(self.spec)
        name = Path(self.spec.name).stem if self.spec.kind == "trip" else text
        parts = [re.sub(r"[^\w.-]", "-", name)]
        if self.spec.kind == "trip" and name != self.spec.name:
            parts.append(hashlib.sha256(text.encode()).hexdigest()[:6])
        if self.switched_off:
            parts.append(f"no-{self.switched_off}")
        return "-".join(parts)


Evaluator = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64] | None]]
"""Positions in A `[n_atoms, 3]` to energy in eV and forces in eV/A, or None where the potential
gives none; raises `EvaluationError`. May start from the geometry before, so call it in order."""


def subjects_of(specs: Sequence[PotentialSpec], switched_off: Sequence[str]) -> tuple[Subject, ...]:
    """Lists the potentials, each TrIP model followed by itself without each of the terms.

    Raises:
        ConfigError: a potential or term twice, two models of one name, no such term, or terms but
            no TrIP model.
    """
    from trip_mm.surfaces.ablations import check_term

    for term in switched_off:
        check_term(term)
    if switched_off and not any(spec.kind == "trip" for spec in specs):
        raise ConfigError("--switch-off: terms belong to TrIP, and no potential is a TrIP model")
    check_distinct(specs)
    subjects: list[Subject] = []
    for spec in specs:
        subjects.append(Subject(spec))
        if spec.kind == "trip":
            subjects.extend(Subject(spec, term) for term in switched_off)
    if len(set(subjects)) < len(subjects):
        raise ConfigError("a term is given twice")
    return tuple(subjects)


def bind_subject(subject: Subject, molecule: Molecule) -> Evaluator:
    """Prepares a potential for one composition, at any distances.

    Density functionals give energies only. Quantum methods stay in the spin state of the molecule.

    Args:
        subject: the potential.
        molecule: composition, charge and unpaired electrons; its positions do not matter.

    Raises:
        TripError: as `geometry.potentials.bind`.
    """
    spec = subject.spec
    if spec.kind == "trip":
        return _bind_trip(subject, molecule)
    if spec.is_quantum:
        energy = bind_energy(spec, molecule)
        return lambda positions: (energy(positions), None)
    if spec.kind == "qm":
        from trip_mm.surfaces.tight_binding import FollowedTightBinding

        _check_neutral(molecule, "calculations of ions are not offered")
        return FollowedTightBinding(spec, molecule)
    return bind(spec, molecule)


def journal_of(subject: Subject, out: Path, scanned: dict[str, object]) -> Journal | None:
    """Opens the journal of a potential; None for those that are done again in seconds.

    Args:
        subject: the potential.
        out: directory.
        scanned: what was scanned, in plain JSON values.

    Raises:
        ConfigError: the journal belongs to another scan.
    """
    if not subject.spec.is_quantum:
        return None
    return Journal(
        out / f"{subject.file_name}.journal", {"potential": str(subject.spec), **scanned}
    )


def evaluated(
    evaluate: Callable[[], dict[str, object]], key: str, journal: Journal | None
) -> dict[str, object]:
    """Returns the journal's entry of a point, or computes and adds it; failures are entries."""
    if journal is not None and key in journal.entries:
        return journal.entries[key]
    try:
        entry = evaluate()
    except EvaluationError as error:
        entry = {"error": str(error)}
    if journal is not None:
        journal.add(key, entry)
    return entry


def _bind_trip(subject: Subject, molecule: Molecule) -> Evaluator:
    import torch

    from trip_mm.checkpoint import load_potential
    from trip_mm.surfaces.ablations import switch_off

    _check_neutral(molecule, "TrIP knows no charge")
    potential = load_potential(subject.spec.name, dtype="float64").requires_grad_(False)
    potential.check_elements(torch.as_tensor(molecule.atomic_numbers))
    if subject.switched_off:
        potential = switch_off(potential, subject.switched_off)
    fast = potential.with_kernels()

    def evaluate(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        energy, forces = fast.energy_and_forces(positions, molecule.atomic_numbers)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise EvaluationError("energy or forces are not finite")
        return energy, forces

    return evaluate


def _check_neutral(molecule: Molecule, reason: str) -> None:
    if molecule.charge != 0:
        raise UnsupportedSystemError(
            f"{molecule.name}: net charge {molecule.charge:+d}, and {reason}; use a neutral form"
        )
