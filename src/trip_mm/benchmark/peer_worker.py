"""Worker for networks of other packages, built by architecture with random weights.

Run as a script by any interpreter that has the package; needs no trip-mm. Each call searches the
neighbours anew with the package's own search, as its ASE calculator does.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

import protocol  # type: ignore[import-not-found]

_STEPS_ONE_WAY = 20


def _mace(size: str, numbers: Any, n_neighbors: float) -> Any:
    """MACE-OFF23 (Kovacs et al. 2023, arXiv:2312.15211, table of hyper-parameters)."""
    torch.serialization.add_safe_globals([slice])  # e3nn 0.4.4 reads its constants with it
    from e3nn import o3
    from mace import modules
    from mace.data.neighborhood import get_neighborhood
    from mace.tools import AtomicNumberTable

    cutoff = {"small": 4.5, "medium": 5.0}[size]
    hidden = {"small": "96x0e", "medium": "128x0e + 128x1o"}[size]
    elements = [1, 6, 7, 8, 9, 15, 16, 17, 35, 53]
    table = AtomicNumberTable(elements)
    model = modules.ScaleShiftMACE(
        atomic_inter_scale=1.0, atomic_inter_shift=0.0, r_max=cutoff, num_bessel=8,
        num_polynomial_cutoff=5, max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2, num_elements=len(elements), hidden_irreps=o3.Irreps(hidden),
        MLP_irreps=o3.Irreps("16x0e"), atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=n_neighbors, atomic_numbers=elements, correlation=3,
        gate=torch.nn.functional.silu, radial_MLP=[64, 64, 64],
    )  # fmt: skip
    model = model.eval().requires_grad_(False)
    one_hot = torch.eye(len(elements))[[table.z_to_index(int(z)) for z in numbers]]

    def evaluate(positions: Any, cell: Any) -> tuple[float, Any, int]:
        periodic = cell is not None
        edges, shifts, unit_shifts, used_cell = get_neighborhood(
            positions, cutoff, (periodic,) * 3, cell
        )
        data = {
            "positions": torch.tensor(positions, dtype=torch.get_default_dtype()),
            "node_attrs": one_hot,
            "edge_index": torch.tensor(edges, dtype=torch.int64),
            "shifts": torch.tensor(shifts, dtype=torch.get_default_dtype()),
            "unit_shifts": torch.tensor(unit_shifts, dtype=torch.get_default_dtype()),
            "cell": torch.tensor(used_cell, dtype=torch.get_default_dtype()),
            "batch": torch.zeros(len(positions), dtype=torch.int64),
            "ptr": torch.tensor([0, len(positions)]),
        }
        found = model(data, compute_force=True)
        return float(found["energy"]), found["forces"].detach().numpy(), edges.shape[1]

    return evaluate


def _nequip(numbers: Any, n_neighbors: float) -> Any:
    """NequIP with 4 layers, l_max 2, 32 features and a cutoff of 5 A."""
    from nequip.data import compute_neighborlist_, from_dict
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    cutoff, dtype = 5.0, str(torch.get_default_dtype()).removeprefix("torch.")
    set_global_state()
    elements = [1, 6, 7, 8]
    symbols = ["H", "C", "N", "O"]
    model = NequIPGNNModel(
        seed=0, model_dtype=dtype, r_max=cutoff,
        type_names=symbols, num_layers=4, l_max=2, num_features=32, parity=False,
        avg_num_neighbors=n_neighbors,
    )  # fmt: skip
    model = model.eval().requires_grad_(False)
    types = torch.tensor([elements.index(int(z)) for z in numbers])

    def evaluate(positions: Any, cell: Any) -> tuple[float, Any, int]:
        data = {
            "pos": torch.tensor(positions),
            "atom_types": types,
            "atomic_numbers": torch.tensor(numbers),
            "pbc": torch.full((3,), cell is not None),
            "num_atoms": torch.tensor([len(positions)]),
        }
        if cell is not None:
            data["cell"] = torch.tensor(cell)
        data = compute_neighborlist_(from_dict(data), r_max=cutoff)
        found = model(data)
        n_edges = data["edge_index"].shape[1]
        return float(found["total_energy"]), found["forces"].detach().numpy(), n_edges

    return evaluate


def main() -> None:
    """Reads the task named on the command line and serves it."""
    pipe = protocol.claim_output()
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(task["threads"])
    torch.set_default_dtype(torch.float64 if task["precision"] == "double" else torch.float32)
    torch.manual_seed(task["seed"])
    with np.load(task["system_file"]) as data:
        numbers, start, velocities = data["atomic_numbers"], data["positions"], data["velocities"]
        cell = data["cell"] if len(data["cell"]) else None
    name = task["model"]
    n_neighbors = 50.0
    if name == "nequip":
        evaluate = _nequip(numbers, n_neighbors)
    else:
        evaluate = _mace(name.removeprefix("mace-off23-"), numbers, n_neighbors)
    done = 0

    def displaced(step: int) -> Any:
        phase = step % (2 * _STEPS_ONE_WAY)
        flown = min(phase, 2 * _STEPS_ONE_WAY - phase) * task["timestep_fs"]
        return start + flown * velocities

    def step() -> None:
        nonlocal done
        evaluate(displaced(done), cell)
        done += 1

    for _ in range(task["warm_up"]):
        step()
    energy, forces, n_edges = evaluate(start, cell)
    if not np.isfinite(forces).all():
        raise FloatingPointError(f"{name}: forces are not finite")
    ready = {"n_edges": n_edges, "energy_ev": energy}
    protocol.serve(ready, step, pipe)


if __name__ == "__main__":
    main()
