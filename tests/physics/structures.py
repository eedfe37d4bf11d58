"""Small structures that the physics contracts are checked on."""

import numpy as np
import torch
from torch import Tensor

WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.05, -0.02], [-0.25, 0.92, 0.11]])
WATER_NUMBERS = np.array([8, 1, 1])


def cluster(seed: int = 0, n_waters: int = 4) -> tuple[Tensor, Tensor]:
    """Waters and one formamide-like fragment, jittered: all four elements, no symmetry."""
    rng = np.random.default_rng(seed)
    fragment = np.array(
        [[0.0, 0.0, 0.0], [1.22, 0.1, 0.0], [-0.7, 1.15, 0.1], [-0.6, -0.95, 0.2], [-1.7, 1.1, 0.0],
         [-0.2, 2.05, -0.1]]
    )  # fmt: skip
    positions = [fragment]
    numbers = [np.array([6, 8, 7, 1, 1, 1])]
    for i in range(n_waters):
        offset = np.array([3.0 + 0.3 * i, 2.6 * (i % 2), 2.7 * (i // 2) - 1.0])
        positions.append(WATER + offset)
        numbers.append(WATER_NUMBERS)
    xyz = np.concatenate(positions) + rng.normal(0.0, 0.05, (6 + 3 * n_waters, 3))
    return torch.tensor(xyz), torch.tensor(np.concatenate(numbers))


def periodic_box(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """27 jittered waters in a triclinic cell whose shortest height exceeds 9.2 A."""
    rng = np.random.default_rng(seed)
    cell = np.array([[9.9, 0.0, 0.0], [2.1, 9.7, 0.0], [-1.3, 1.7, 9.6]])
    grid = np.stack(np.meshgrid(*[np.arange(3) / 3] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = (grid @ cell)[:, None] + WATER[None]
    xyz = positions.reshape(-1, 3) + rng.normal(0.0, 0.06, (81, 3))
    return torch.tensor(xyz), torch.tensor(np.tile(WATER_NUMBERS, 27)), torch.tensor(cell)


def random_rotation(seed: int = 2) -> Tensor:
    """A proper rotation matrix, float64."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return torch.tensor(q * np.sign(np.linalg.det(q)))
