"""Committees: several potentials of one task, whose scatter tells where none of them is sure.

A committee is a JSON file beside its members' checkpoints (`save_committee`); `trip-mm train` with
`committee: N` writes one. Members differ in their random weights and in the order of their data.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trip_mm.checkpoint import file_sha256, load_potential
from trip_mm.elements import SYMBOLS
from trip_mm.errors import CheckpointError, ConfigError
from trip_mm.files import write_json
from trip_mm.lattice import check_cell
from trip_mm.neighbors import VerletList
from trip_mm.potential import TripPotential

FORMAT_NAME = "trip-mm-committee"
FORMAT_VERSION = 1
_SELF_ENERGY_TOLERANCE = 1e-6


@dataclass(frozen=True)
class CommitteePrediction:
    """What the members of a committee say of one system.

    Attributes:
        energies: eV, by member, `[n_members]` float64.
        member_forces: eV/A, by member, `[n_members, n_atoms, 3]` float64.
    """

    energies: NDArray[np.float64]
    member_forces: NDArray[np.float64]

    @property
    def energy(self) -> float:
        """Mean energy, eV."""
        return float(self.energies.mean())

    @property
    def forces(self) -> NDArray[np.float64]:
        """Mean forces, eV/A, `[n_atoms, 3]`: minus the gradient of the mean energy."""
        return np.asarray(self.member_forces.mean(axis=0))

    @property
    def energy_disagreement(self) -> float:
        """Standard deviation of the energies over the members (divisor n_members), eV."""
        return float(self.energies.std())

    @property
    def force_disagreement(self) -> NDArray[np.float64]:
        """Force disagreement of each atom, eV/A, `[n_atoms]`.

        sqrt(mean over the members |F_i - mean F|^2), the model deviation of Zhang et al., Phys.
        Rev. Materials 3, 023804 (2019), Eq. 7.
        """
        deviations = self.member_forces - self.member_forces.mean(axis=0)
        return np.asarray(np.sqrt(np.square(deviations).sum(axis=2).mean(axis=0)))

    @property
    def max_force_disagreement(self) -> float:
        """Largest force disagreement of any atom, eV/A; 0 without atoms."""
        return float(self.force_disagreement.max(initial=0.0))


class Committee:
    """Potentials that are asked together; the edges are searched once for all.

    Attributes:
        members: the potentials.
        cutoff: interaction range, A.
        supported_elements: atomic numbers that the members know.
        name: file stem of the committee, or the names of its members.
        sha256: digest of each member's checkpoint; empty for new potentials.

    Raises:
        ConfigError: fewer than two members, or members that do not fit together: other elements,
            cutoff, self energies, dtype or device.
    """

    def __init__(self, members: Sequence[TripPotential], name: str = "") -> None:
        if len(members) < 2:
            raise ConfigError(f"a committee of {len(members)}: give at least two potentials")
        self.members = tuple(members)
        first = self.members[0]
        for member in self.members[1:]:
            _check_fit(first, member)
        self.cutoff = first.cutoff
        self.supported_elements = first.supported_elements
        self.name = name or ", ".join(member.name for member in self.members)
        self.sha256 = tuple(member.sha256 for member in self.members)
        self._neighbors = VerletList(first.cutoff, first.neighbors.skin)

    def __len__(self) -> int:
        return len(self.members)

    def with_kernels(self) -> "Committee":
        """Returns a twin that computes with the compiled kernels and shares all parameters.

        Raises:
            ConfigError: the potentials are neither on a CPU nor on a CUDA device.
        """
        return Committee([member.with_kernels() for member in self.members], self.name)

    def predict(
        self,
        positions: NDArray[np.floating[Any]],
        atomic_numbers: NDArray[np.integer[Any]],
        cell: NDArray[np.floating[Any]] | None = None,
    ) -> CommitteePrediction:
        """Computes energy and forces of one system by every member.

        Args:
            positions: `[n_atoms, 3]`, A.
            atomic_numbers: `[n_atoms]`.
            cell: `[3, 3]`, A, rows are lattice vectors; None for open boundaries.

        Raises:
            ConfigError: shapes do not fit.
            UnsupportedElementError: an element that the members have never seen.
            CellTooSmallError: a cell whose shortest height is less than twice the cutoff.
        """
        device = self.members[0].device
        leaf = torch.tensor(np.asarray(positions, dtype=np.float64), device=device)
        numbers = torch.tensor(np.asarray(atomic_numbers, dtype=np.int64), device=device)
        if leaf.ndim != 2 or leaf.shape[1] != 3 or numbers.shape != leaf.shape[:1]:
            raise ConfigError(
                f"positions of shape {tuple(leaf.shape)} and {numbers.numel()} atomic numbers; "
                "give [n_atoms, 3] and n_atoms"
            )
        self.members[0].check_elements(numbers)
        lattice = None
        if cell is not None:
            lattice = torch.tensor(np.asarray(cell, dtype=np.float64), device=device)
            check_cell(lattice, self.cutoff)
        leaf.requires_grad_(True)
        with torch.enable_grad():
            senders, receivers, shifts = self._neighbors(leaf.detach(), lattice)
            edge_vectors = leaf.index_select(0, receivers) - leaf.index_select(0, senders)
            if lattice is not None:
                edge_vectors = edge_vectors + shifts @ lattice
            found = [
                _energy_and_gradient(member, numbers, (senders, receivers), edge_vectors, leaf)
                for member in self.members
            ]
        energies = np.asarray([energy for energy, _ in found])
        forces = np.stack([-gradient.cpu().numpy() for _, gradient in found])
        return CommitteePrediction(energies, forces)

    def energy_and_forces(
        self,
        positions: NDArray[np.floating[Any]],
        atomic_numbers: NDArray[np.integer[Any]],
        cell: NDArray[np.floating[Any]] | None = None,
    ) -> tuple[float, NDArray[np.float64]]:
        """Returns mean energy, eV, and mean forces, eV/A; arguments as of `predict`."""
        prediction = self.predict(positions, atomic_numbers, cell)
        return prediction.energy, prediction.forces


def _energy_and_gradient(
    member: TripPotential,
    atomic_numbers: Tensor,
    ends: tuple[Tensor, Tensor],
    edge_vectors: Tensor,
    positions: Tensor,
) -> tuple[float, Tensor]:
    atomic = member.model(atomic_numbers, ends[0], ends[1], edge_vectors.to(member.dtype))
    own = member.self_energies.index_select(0, atomic_numbers)
    energy = (atomic.to(torch.float64) + own).sum()
    (gradient,) = torch.autograd.grad(
        energy, positions, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return float(energy.detach()), gradient


def _check_fit(first: TripPotential, other: TripPotential) -> None:
    reasons = {
        "elements": first.supported_elements != other.supported_elements,
        "cutoff": first.cutoff != other.cutoff,
        "dtype": first.dtype != other.dtype,
        "device": first.device != other.device,
    }
    for name, differs in reasons.items():
        if differs:
            raise ConfigError(
                f"committee: {first.name or 'a member'} and {other.name or 'another'} differ in "
                f"{name}; train all members with the same settings"
            )
    for number in first.supported_elements:
        one, another = float(first.self_energies[number]), float(other.self_energies[number])
        if abs(one - another) > _SELF_ENERGY_TOLERANCE:
            raise ConfigError(
                f"committee: self energies of {SYMBOLS[number]} are {one} and {another} eV; the "
                "members must be of one level of theory"
            )


def save_committee(members: Sequence[str | Path], path: str | Path) -> Path:
    """Writes the file of a committee atomically.

    Args:
        members: checkpoints, in or below the directory of `path`.
        path: `.json` file to write.

    Raises:
        CheckpointError: a member is missing or lies outside the directory.
    """
    path = Path(path)
    entries = []
    for member in map(Path, members):
        if not member.is_file():
            raise CheckpointError(f"{member}: no such checkpoint; train the member first")
        if not member.resolve().is_relative_to(path.parent.resolve()):
            raise CheckpointError(
                f"{member}: lies outside {path.parent}; keep the members beside their committee"
            )
        relative = member.resolve().relative_to(path.parent.resolve())
        entries.append({"file": relative.as_posix(), "sha256": file_sha256(member)})
    document = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION, "members": entries}
    write_json(path, document)
    return path


def load_committee(
    source: str | Path | Sequence[str | Path],
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
) -> Committee:
    """Loads a committee.

    Args:
        source: the file of a committee, a directory with one, or the names or checkpoints of the
            members.
        device: of the networks.
        dtype: of the networks, float32 or float64.

    Raises:
        CheckpointError: the file is missing or damaged, or a member is not what it was.
        ConfigError: the members do not fit together.
    """
    if not isinstance(source, str | Path):
        return Committee([load_potential(member, device, dtype) for member in source])
    path = _committee_file(Path(source))
    members = []
    for file, digest in _entries(path):
        member = load_potential(path.parent / file, device, dtype)
        if member.sha256 != digest:
            raise CheckpointError(
                f"{path.parent / file}: sha256 is {member.sha256}, that of the committee is "
                f"{digest}; write the committee again"
            )
        members.append(member)
    return Committee(members, path.stem)


def _committee_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [file for file in sorted(path.glob("*.json")) if FORMAT_NAME in file.read_text("utf-8")]
    if len(found) != 1:
        raise CheckpointError(
            f"{path}: holds {len(found)} committees; name the file of one (NAME.json)"
        )
    return found[0]


def _entries(path: Path) -> list[tuple[str, str]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT_NAME or document["format_version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: {document['format']!r} of version {document['format_version']}; this "
                f"trip-mm reads {FORMAT_NAME!r} of version {FORMAT_VERSION}"
            )
        return [(str(entry["file"]), str(entry["sha256"])) for entry in document["members"]]
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; give a committee's JSON file") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not the file of a committee ({error!r})") from None
