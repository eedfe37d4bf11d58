"""Training steps per minute: our forms of the network, and MACE and NequIP on the same minibatch.

A step is energies, forces, the loss on both, and its gradient by all weights (no optimizer). All
cases see the same labelled clusters; ours first, then a peer in the interpreter that has it. Times
are CPU times of one thread, which other work on the machine does not disturb; the median of the
steps counts.

    export OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
    python recipes/training-throughput/measure.py minibatch.xyz
    PEER/bin/python recipes/training-throughput/peer.py mace minibatch.xyz
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import trip_mm
from trip_mm.model.fused import fused_model
from trip_mm.training.conformations import build_store
from trip_mm.training.dataset import Dataset
from trip_mm.training.gradients import central_difference_loss, double_backward_loss
from trip_mm.training.losses import LossSettings

DATA = Path(__file__).parents[1] / "trip-gfn2-s" / "test.h5"
LOSS = LossSettings(
    energy_weight=1.0,
    force_weight=10.0,
    energy_delta=0.2,
    force_delta=0.2,
    per_sqrt_atom=True,
    scale=1.0,
)


def choose(n_conformations: int) -> tuple[Dataset, np.ndarray]:
    """Opens the data and takes the first peptide clusters."""
    dataset = Dataset.open(DATA)
    rows = [i for i, c in enumerate(dataset) if c.system_class.startswith("peptide")]
    return dataset, np.asarray(rows[:n_conformations])


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("minibatch", type=Path, help="extended XYZ to write for the peers")
    parser.add_argument("--conformations", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--presets", default="trip,trip-s")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset, rows = choose(arguments.conformations)
    frames = []
    for row in rows:
        conformation = dataset[int(row)]
        atoms = Atoms(conformation.atomic_numbers, conformation.positions)
        atoms.calc = SinglePointCalculator(
            atoms, energy=conformation.energy, forces=conformation.forces
        )
        frames.append(atoms)
    write(arguments.minibatch, frames, format="extxyz")
    for preset in arguments.presets.split(","):
        potential = trip_mm.new_potential(preset, seed=0)
        store = build_store(dataset, dataset.lone_atom_energies, potential.cutoff)
        batch = store.batch(np.flatnonzero(np.isin(store.dataset_idx, rows)), torch.float32)
        cases = {
            "plain, double backward": (potential.model, double_backward_loss),
            "plain, central difference": (potential.model, central_difference_loss),
            "kernels, central difference": (fused_model(potential.model), central_difference_loss),
        }
        parameters = [p for p in potential.model.parameters() if p.requires_grad]
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        for step in range(arguments.steps + 1):  # the first compiles
            for name, (model, loss) in cases.items():
                begin = time.process_time()
                torch.autograd.grad(
                    loss(model, batch, LOSS).differentiable, parameters, allow_unused=True
                )
                if step:
                    seconds[name].append(time.process_time() - begin)
        print(f"{preset}: {len(rows)} conformations, {len(batch.senders)} edges", flush=True)
        for name, times in seconds.items():
            median = statistics.median(times)
            print(f"  {name}: {1e3 * median:.0f} ms, {len(rows) / median:.2f} conformations/s")


if __name__ == "__main__":
    main()
