"""What training asks of its conformations, whether they lie in memory or on disk."""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from trip_mm.training.conformations import Batch, Exclusions


class TrainingStore(Protocol):
    """A `ConformationStore` or a `StreamedStore`; arrays are over the conformations."""

    def __len__(self) -> int: ...

    @property
    def energies(self) -> NDArray[np.float64]: ...  # noqa: D102

    @property
    def n_atoms(self) -> NDArray[np.int64]: ...  # noqa: D102

    @property
    def n_edges(self) -> NDArray[np.int64]: ...  # noqa: D102

    @property
    def class_idx(self) -> NDArray[np.int64]: ...  # noqa: D102

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def exclusions(self) -> Exclusions: ...  # noqa: D102

    def compositions(self, elements: Sequence[int]) -> NDArray[np.float64]:
        """Counts the atoms of each element, `[n_conformations, n_elements]`."""
        ...

    def sha256(self) -> str:
        """Returns a digest of the labelled conformations and their order."""
        ...

    def force_rms(self) -> float:
        """Returns the root mean square of the force components, eV/A."""
        ...

    def with_energies(self, energies: NDArray[np.float64]) -> Self:
        """Returns the same conformations with other energies, eV."""
        ...

    def batch(self, rows: NDArray[np.int64], dtype: torch.dtype) -> Batch:
        """Joins some of the conformations to one graph."""
        ...
