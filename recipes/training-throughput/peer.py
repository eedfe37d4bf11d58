"""Training step of MACE or NequIP on a minibatch in extended XYZ, as measure.py writes it.

Architectures as in `trip-mm bench` (MACE-OFF23-small; NequIP with 4 layers, l_max 2, 32 features,
5 A), random weights. Runs in an environment with mace-torch 0.3 or nequip 0.19, without trip-mm.
Neighbours are searched once, before. The loss has mean squared errors of energies and forces.

    OMP_NUM_THREADS=1 python recipes/training-throughput/peer.py mace minibatch.xyz
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from ase.io import read

ELEMENTS = [1, 6, 7, 8]
Step = Callable[[], None]


def mace_step(frames: list[Atoms]) -> tuple[Step, int]:
    """Returns a step, and the number of edges."""
    torch.serialization.add_safe_globals([slice])  # e3nn 0.4.4 reads its constants with it
    from e3nn import o3
    from mace import data, modules
    from mace.tools import AtomicNumberTable, torch_geometric

    cutoff = 4.5
    model = modules.ScaleShiftMACE(
        atomic_inter_scale=1.0, atomic_inter_shift=0.0, r_max=cutoff, num_bessel=8,
        num_polynomial_cutoff=5, max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2, num_elements=len(ELEMENTS), hidden_irreps=o3.Irreps("96x0e"),
        MLP_irreps=o3.Irreps("16x0e"), atomic_energies=np.zeros(len(ELEMENTS)),
        avg_num_neighbors=40.0, atomic_numbers=ELEMENTS, correlation=3,
        gate=torch.nn.functional.silu, radial_MLP=[64, 64, 64],
    )  # fmt: skip
    table = AtomicNumberTable(ELEMENTS)
    items = [
        data.AtomicData.from_config(data.config_from_atoms(atoms), z_table=table, cutoff=cutoff)
        for atoms in frames
    ]
    loader = torch_geometric.dataloader.DataLoader(items, batch_size=len(items))
    batch = next(iter(loader)).to_dict()
    energies, forces = labels(frames)
    parameters = list(model.parameters())

    def step() -> None:
        found = model(dict(batch), training=True, compute_force=True)
        loss = (found["energy"] - energies).square().mean()
        loss = loss + (found["forces"] - forces).square().mean()
        torch.autograd.grad(loss, parameters, allow_unused=True)

    return step, batch["edge_index"].shape[1]


def nequip_step(frames: list[Atoms]) -> tuple[Step, int]:
    """Returns a step, and the number of edges."""
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_dict
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    model = NequIPGNNModel(
        seed=0, model_dtype="float32", r_max=5.0, type_names=["H", "C", "N", "O"], num_layers=4,
        l_max=2, num_features=32, parity=False, avg_num_neighbors=40.0,
    )  # fmt: skip
    model.train()
    items = []
    for atoms in frames:
        numbers = torch.tensor(atoms.numbers)
        item = {
            "pos": torch.tensor(atoms.positions, dtype=torch.float32),
            "atom_types": torch.tensor([ELEMENTS.index(z) for z in atoms.numbers]),
            "atomic_numbers": numbers,
            "pbc": torch.full((3,), False),
            "num_atoms": torch.tensor([len(atoms)]),
        }
        items.append(compute_neighborlist_(from_dict(item), r_max=5.0))
    batch = AtomicDataDict.batched_from_list(items)
    energies, forces = labels(frames)
    parameters = list(model.parameters())

    def step() -> None:
        found = model(dict(batch))
        loss = (found["total_energy"].flatten() - energies).square().mean()
        loss = loss + (found["forces"] - forces).square().mean()
        torch.autograd.grad(loss, parameters, allow_unused=True)

    return step, batch["edge_index"].shape[1]


def labels(frames: list[Atoms]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns energies and forces, float32."""
    energies = [atoms.get_potential_energy() for atoms in frames]
    forces = np.concatenate([atoms.get_forces() for atoms in frames])
    return torch.tensor(energies, dtype=torch.float32), torch.tensor(forces, dtype=torch.float32)


def main() -> None:
    """Measures and prints a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["mace", "nequip"])
    parser.add_argument("minibatch")
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    frames = read(arguments.minibatch, index=":", format="extxyz")
    step, n_edges = {"mace": mace_step, "nequip": nequip_step}[arguments.peer](frames)
    times = []
    for _ in range(arguments.steps + 1):
        begin = time.process_time()
        step()
        times.append(time.process_time() - begin)
    median = statistics.median(times[1:])
    print(f"{arguments.peer}: {len(frames)} conformations, {n_edges} edges")
    print(f"  {1e3 * median:.0f} ms, {len(frames) / median:.2f} conformations/s")


if __name__ == "__main__":
    main()
