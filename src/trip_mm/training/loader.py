"""The order of the minibatches: a stream in which every batch is a function of its number."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from trip_mm.training.config import BatchConfig
from trip_mm.training.conformations import Batch, join, lone_atoms
from trip_mm.training.processes import Processes
from trip_mm.training.store import TrainingStore

_ALONE = Processes()


class BatchPlan:
    """Divides every epoch's shuffled conformations into the same number of minibatches.

    The boundaries are set so that all minibatches of an epoch cost about the same, where the cost
    is the number of edges or the number of conformations. Batch `index` depends on the seed and
    on `index` only, so that training can continue anywhere.

    Args:
        costs: cost of each conformation, `[n_conformations]` int64.
        budget: cost of a minibatch; raised to the largest single cost if that is larger.
        seed: of the shuffling.
    """

    def __init__(self, costs: NDArray[np.int64], budget: int, seed: int) -> None:
        # A conformation without edges still costs something.
        self._costs = np.maximum(costs, 1)
        self._total = int(self._costs.sum())
        self._seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)
        self._bounds = np.empty(0, dtype=np.int64)
        # No batch is empty as long as no single cost exceeds total / n_batches.
        self.batches_per_epoch = max(1, self._total // max(budget, int(self._costs.max())))

    def epoch_of(self, index: int) -> int:
        """Returns the epoch that batch `index` belongs to."""
        return index // self.batches_per_epoch

    def rows(self, index: int) -> NDArray[np.int64]:
        """Returns the conformations of batch `index`, counted from the start of training."""
        epoch, position = divmod(index, self.batches_per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        return self._order[self._bounds[position] : self._bounds[position + 1]]

    def _shuffle(self, epoch: int) -> None:
        rng = np.random.default_rng([self._seed, epoch])
        self._order = rng.permutation(len(self._costs))
        costs = self._costs[self._order]
        before = np.cumsum(costs) - costs
        owner = before * self.batches_per_epoch // self._total
        self._bounds = np.searchsorted(owner, np.arange(self.batches_per_epoch + 1))
        self._epoch = epoch


class BatchStream:
    """All minibatches of a training run, first to last, resumable between any two.

    With several processes, step `i` of process `rank` takes minibatch `i * n_processes + rank`.

    Args:
        store: conformations to train on.
        config: size of a minibatch.
        seed: of the shuffling.
        n_batches: length of the run in steps.
        dtype: of positions and forces.
        lone_labels: energy of each isolated atom that every minibatch carries, eV, by element.
        processes: of the run.
    """

    def __init__(
        self,
        store: TrainingStore,
        config: BatchConfig,
        seed: int,
        n_batches: int,
        dtype: torch.dtype,
        lone_labels: Mapping[int, float] | None = None,
        processes: Processes = _ALONE,
    ) -> None:
        self.plan = make_plan(store, config, seed)
        self.n_batches = n_batches
        self._store = store
        self._dtype = dtype
        self._lone = lone_atoms(lone_labels, dtype) if lone_labels else None
        self._processes = processes
        self._next = 0

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        while self._next < self.n_batches:
            index = self._next * self._processes.n_processes + self._processes.rank
            batch = self._store.batch(self.plan.rows(index), self._dtype)
            self._next += 1
            yield batch if self._lone is None else join(batch, self._lone)

    def state_dict(self) -> dict[str, int]:
        """Returns the number of the next minibatch."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues where `state_dict` was taken."""
        self._next = state["next"]


def make_plan(store: TrainingStore, config: BatchConfig, seed: int) -> BatchPlan:
    """Chooses what the minibatches are balanced by."""
    if config.max_edges is not None:
        return BatchPlan(store.n_edges, config.max_edges, seed)
    assert config.n_conformations is not None
    return BatchPlan(np.ones(len(store), dtype=np.int64), config.n_conformations, seed)
