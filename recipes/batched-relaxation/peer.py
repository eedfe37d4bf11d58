"""Evaluations per minute of an equivariant network of another package, alone and in batches.

MACE with the architecture of MACE-OFF23 small (Kovacs et al., arXiv:2312.15211) and random weights:
the speed does not depend on the weights. Runs in an environment with mace-torch 0.3; no
trip-mm is needed. Neighbours are searched once and reused, which favours it. Times are CPU times.

    OMP_NUM_THREADS=1 python recipes/batched-relaxation/peer.py ephedrine.xyz
"""

import argparse
import time

import numpy as np
import torch
from ase.io import read

torch.serialization.add_safe_globals([slice])  # e3nn 0.4.4 reads its constants with it
from e3nn import o3  # noqa: E402
from mace import modules  # noqa: E402
from mace.data.neighborhood import get_neighborhood  # noqa: E402

CUTOFF = 4.5
ELEMENTS = [1, 6, 7, 8, 9, 15, 16, 17, 35, 53]


def network() -> torch.nn.Module:
    """Builds MACE."""
    model = modules.ScaleShiftMACE(
        atomic_inter_scale=1.0, atomic_inter_shift=0.0, r_max=CUTOFF, num_bessel=8,
        num_polynomial_cutoff=5, max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2, num_elements=len(ELEMENTS), hidden_irreps=o3.Irreps("96x0e"),
        MLP_irreps=o3.Irreps("16x0e"), atomic_energies=np.zeros(len(ELEMENTS)),
        avg_num_neighbors=20.0, atomic_numbers=ELEMENTS, correlation=3,
        gate=torch.nn.functional.silu, radial_MLP=[64, 64, 64],
    )  # fmt: skip
    return model.eval().requires_grad_(False)


def batch(numbers: np.ndarray, positions: np.ndarray, n: int) -> dict[str, torch.Tensor]:
    """Returns n copies of a molecule as one input."""
    edges, shifts, unit_shifts, cell = get_neighborhood(positions, CUTOFF, (False,) * 3, None)
    dtype = torch.get_default_dtype()
    n_atoms = len(numbers)
    one_hot = torch.eye(len(ELEMENTS))[[ELEMENTS.index(int(z)) for z in numbers]]
    offset = torch.arange(n).repeat_interleave(edges.shape[1]) * n_atoms
    return {
        "positions": torch.tensor(positions, dtype=dtype).repeat(n, 1),
        "node_attrs": one_hot.repeat(n, 1),
        "edge_index": torch.tensor(edges).repeat(1, n) + offset,
        "shifts": torch.tensor(shifts, dtype=dtype).repeat(n, 1),
        "unit_shifts": torch.tensor(unit_shifts, dtype=dtype).repeat(n, 1),
        "cell": torch.tensor(cell, dtype=dtype).repeat(n, 1),
        "batch": torch.arange(n).repeat_interleave(n_atoms),
        "ptr": torch.arange(n + 1) * n_atoms,
    }


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("xyz")
    parser.add_argument("--sizes", default="1,36")
    arguments = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    atoms = read(arguments.xyz)
    torch.set_num_threads(1)
    model = network()
    for size in map(int, arguments.sizes.split(",")):
        data = batch(atoms.numbers, atoms.positions, size)
        model(dict(data), compute_force=True)
        begin, n = time.process_time(), 0
        while time.process_time() - begin < 10.0:
            model(dict(data), compute_force=True)
            n += 1
        rate = 60.0 * n * size / (time.process_time() - begin)
        print(f"MACE-OFF23 small, random weights, float64, {size} at once: {rate:.0f} a CPU minute")


if __name__ == "__main__":
    main()
