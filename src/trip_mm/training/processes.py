"""The processes of one training run: started by torchrun or SLURM, as Lightning recognises them.

Nothing in the configuration names their number: `torchrun --nproc-per-node 2 ...` trains on two,
`srun` on as many tasks as it starts. Each takes its own minibatch of every step; the gradients are
averaged (torch's DistributedDataParallel, by NCCL on GPUs and gloo on CPUs).
"""

import os
from dataclasses import dataclass

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from torch import Tensor

from trip_mm.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        n_processes: in all.
        n_nodes: machines that they are spread over.
        rank: number of this one, 0 ... n_processes - 1.
    """

    n_processes: int = 1
    n_nodes: int = 1
    rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    @property
    def n_per_node(self) -> int:
        """Processes on each machine."""
        return self.n_processes // self.n_nodes


def launched_processes() -> Processes:
    """Returns what torchrun or SLURM says of this process; a single one where neither started it.

    Raises:
        ConfigError: the processes are not spread evenly over the machines.
    """
    if TorchElasticEnvironment.detect():
        elastic = TorchElasticEnvironment()
        n_per_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return _checked(elastic.world_size(), n_per_node, elastic.global_rank())
    if SLURMEnvironment.detect():
        slurm = SLURMEnvironment()
        n_nodes = int(os.environ.get("SLURM_NNODES", "1"))
        n_per_node = slurm.world_size() // n_nodes
        return _checked(slurm.world_size(), n_per_node, slurm.global_rank())
    return Processes()


def _checked(n_processes: int, n_per_node: int, rank: int) -> Processes:
    if n_per_node < 1 or n_processes % n_per_node:
        raise ConfigError(
            f"{n_processes} processes, {n_per_node} on this machine: start the same number on each"
        )
    return Processes(n_processes, n_processes // n_per_node, rank)


def from_first(values: Tensor, device: torch.device) -> Tensor:
    """Returns the values that the first process has; without other processes, the given ones."""
    if not _is_distributed():
        return values
    shared = values.to(device)
    torch.distributed.broadcast(shared, src=0)
    return shared.to(values.device)


def summed(values: Tensor, device: torch.device) -> Tensor:
    """Returns the sum over the processes; without other processes, the given values."""
    if not _is_distributed():
        return values
    shared = values.to(device, copy=True)
    torch.distributed.all_reduce(shared)
    return shared.to(values.device)


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
