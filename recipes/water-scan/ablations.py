"""Trains small models of water with one physical term less each, and draws what that does.

    python recipes/water-scan/ablations.py water-ablations

All models see the same 600 geometries of one water molecule near equilibrium (O-H from 0.8 to
1.5 A, GFN2-xTB), for the same number of steps from the same seed. The picture shows them beside
GFN2-xTB where they have seen no data: at short range, where ZBL matters, and beyond, where the
envelope and the isolated atoms do. A model that exists in the directory is not trained again.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trip_mm.checkpoint import load_potential, new_potential, save_potential
from trip_mm.geometry.potentials import parse_potential
from trip_mm.model.config import TripConfig
from trip_mm.neighbors import batched_neighbor_list
from trip_mm.potential import TripPotential
from trip_mm.surfaces.ablations import StepEnvelope
from trip_mm.surfaces.bond import bond_path
from trip_mm.surfaces.curve import Curve, compute_curves
from trip_mm.surfaces.output import write_curves
from trip_mm.surfaces.path import RigidPath, distance_grid
from trip_mm.surfaces.plots import plot_curves
from trip_mm.surfaces.smoothness import smoothness
from trip_mm.surfaces.subjects import subjects_of
from trip_mm.surfaces.water import ATOMIC_NUMBERS, water_molecule, water_positions
from trip_mm.training.labels_methods import find_method, lone_atom_energies

SEEN = (0.8, 1.5)
ANGLES_DEG = (80.0, 130.0)
N_GEOMETRIES = 600
N_STEPS = 1200
BATCH = 16
LEARNING_RATE = 4e-3
FORCE_WEIGHT = 0.5
SEED = 7
ELEMENTS = (1, 8)


@dataclass(frozen=True)
class Labelled:
    """Geometries of water with energies (eV) and forces (eV/A)."""

    positions: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    lone_energies: dict[int, float]


def with_step(potential: TripPotential) -> TripPotential:
    """Puts a hard cutoff in place of the bump function, for training and afterwards."""
    potential.model.envelope = StepEnvelope(potential.cutoff)
    return potential


def unchanged(potential: TripPotential) -> TripPotential:
    """Returns the potential as it is."""
    return potential


VARIANTS: dict[str, tuple[str, dict[str, str], Callable[[TripPotential], TripPotential]]] = {
    "full": ("TrIP", {}, unchanged),
    "no-zbl": ("no ZBL", {"repulsion": "none"}, unchanged),
    "hard-cutoff": ("hard cutoff", {}, with_step),
    "no-lone-atoms": ("no lone-atom constraint", {"lone_atoms": "trained"}, unchanged),
}


def labelled() -> Labelled:
    """Draws geometries near equilibrium and labels them with GFN2-xTB."""
    rng = np.random.default_rng(SEED)
    method = find_method("gfn2")
    lengths = rng.uniform(*SEEN, size=(N_GEOMETRIES, 2))
    angles = rng.uniform(*ANGLES_DEG, size=N_GEOMETRIES)
    positions = np.array(
        [water_positions(a, b, angle) for (a, b), angle in zip(lengths, angles, strict=True)]
    )
    labels = [method.calculate(ATOMIC_NUMBERS, geometry, 0) for geometry in positions]
    return Labelled(
        positions,
        np.array([label.energy for label in labels]),
        np.array([label.forces for label in labels]),
        lone_atom_energies(method, ELEMENTS),
    )


def batch_of(
    positions: NDArray[np.float64],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns positions `[n * 3, 3]`, atomic numbers and system index of many waters."""
    n = len(positions)
    return (
        torch.as_tensor(positions.reshape(-1, 3), dtype=torch.float32),
        torch.as_tensor(np.tile(ATOMIC_NUMBERS, n)),
        torch.arange(n).repeat_interleave(3),
    )


def set_statistics(potential: TripPotential, data: Labelled) -> None:
    """Sets isolated atoms and mean binding energies, or a regression on composition.

    Water has one composition, which cannot tell its elements apart: each atom takes a share.
    """
    lone = sum(data.lone_energies[int(z)] for z in ATOMIC_NUMBERS)
    zero = dict.fromkeys(ELEMENTS, 0.0)
    potential.set_energy_statistics(data.lone_energies, zero, 1e-9)
    repulsion = energies_of(potential, data.positions) - lone
    exact = potential.config.lone_atoms == "exact"
    switched = np.full(len(data.positions), 3.0)
    if exact:
        potential.set_energy_statistics(data.lone_energies, dict.fromkeys(ELEMENTS, 1.0), 1e-9)
        switched = energies_of(potential, data.positions) - lone - repulsion
    targets = data.energies - lone - repulsion
    share = float(switched @ targets / (switched @ switched))
    scale = float((targets - share * switched).std())
    if exact:
        potential.set_energy_statistics(data.lone_energies, dict.fromkeys(ELEMENTS, share), scale)
    else:
        regressed = {z: energy + share for z, energy in data.lone_energies.items()}
        potential.set_energy_statistics(regressed, zero, scale)


def energies_of(potential: TripPotential, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the energies of many waters, eV."""
    x, numbers, system_idx = batch_of(positions)
    energies, _ = potential.energy_and_forces_batch(x, numbers, system_idx, len(positions))
    return energies.numpy()


def trained(name: str, data: Labelled) -> TripPotential:
    """Trains a variant with Adam and a cosine schedule."""
    _, settings, change = VARIANTS[name]
    values = {**TripConfig.preset("trip-s").to_dict(), "elements": list(ELEMENTS), **settings}
    potential = change(new_potential(TripConfig.from_dict(values), SEED))
    set_statistics(potential, data)
    optimizer = torch.optim.Adam(potential.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, N_STEPS)
    rng = np.random.default_rng(SEED)
    for step in range(N_STEPS):
        rows = rng.choice(N_GEOMETRIES, BATCH, replace=False)
        x, numbers, system_idx = batch_of(data.positions[rows])
        edges = batched_neighbor_list(x, system_idx, None, potential.cutoff)
        energies, forces = potential.energy_and_forces_edges(
            x, numbers, system_idx, BATCH, edges, create_graph=True
        )
        wanted = torch.as_tensor(data.energies[rows])
        pulls = torch.as_tensor(data.forces[rows].reshape(-1, 3), dtype=torch.float32)
        huber = torch.nn.functional.smooth_l1_loss
        loss = huber(energies, wanted) + FORCE_WEIGHT * huber(forces, pulls)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(potential.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == N_STEPS - 1:
            mae = float((energies.detach() - wanted).abs().mean())
            print(f"{name}: step {step}, energy MAE {1000 * mae:.1f} meV", flush=True)
    return potential


def curve_of(name: str, potential: TripPotential, path: RigidPath) -> Curve:
    """Evaluates a variant along the path, in float64."""
    label, _, change = VARIANTS[name]
    potential = change(potential.to(torch.float64))
    numbers = path.molecule.atomic_numbers
    found = [
        potential.energy_and_forces(path.positions(i), numbers) for i in range(len(path.distances))
    ]
    energies = np.array([energy for energy, _ in found])
    along = np.array([path.force_along(forces) for _, forces in found])
    return Curve(label, path.distances, energies, along)


def main() -> None:
    """Trains what is missing, scans and draws."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    data = labelled()
    path = bond_path(water_molecule(), (0, 1), distance_grid(0.5, 5.0, 0.02))
    curves = list(compute_curves(path, subjects_of([parse_potential("gfn2")], []), out, print))
    for name in VARIANTS:
        file = out / f"{name}.safetensors"
        if not file.exists():
            save_potential(trained(name, data), file)
        curves.append(curve_of(name, load_potential(file), path))
    figures = {curve.label: smoothness(curve) for curve in curves}
    write_curves(path, curves, figures, out)
    plot_curves(path, curves, out / "curves.png", shaded=SEEN)
    for label, found in figures.items():
        print(label, found)


if __name__ == "__main__":
    main()
