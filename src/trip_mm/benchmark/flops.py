"""Floating-point operations that one energy-and-forces evaluation of TrIP needs.

Counted is the order of the kernels: the radial output layer contracted with the sender's features
once per atom. A multiply-add counts as two. The gradient counts the two products that mirror each
product of the forward pass; what the backward pass computes a second time to save memory does not
count, nor do exponentials, norms and attention (below 5 % of the rest). So the share of the dense
rate falls where a program computes twice.
"""

from trip_mm.model.config import TripConfig
from trip_mm.model.so3 import kernel_couplings, n_paths


def _convolution(
    l_in_max: int, n_in: int, n_out: list[int], n_hidden: int, n_edge_features: int, n_trunks: int
) -> tuple[float, float]:
    """Multiply-adds of the forward pass of one convolution, per atom and per edge."""
    per_atom = 0.0
    per_edge = float(n_trunks * n_hidden * (n_edge_features + n_hidden))
    for l_out, channels in enumerate(n_out):
        columns = sum(n_paths(l_out, l_in) * (2 * l_in + 1) for l_in in range(l_in_max + 1))
        per_atom += columns * channels * n_in * n_hidden
        per_edge += columns * channels * n_hidden  # sender matrix times hidden features
        per_edge += columns * channels * (2 * l_out + 1)  # couplings
        for l_in in range(l_in_max + 1):
            per_edge += float((kernel_couplings(l_in, l_out).abs() > 1e-12).sum())
    return per_atom, per_edge


def operations(config: TripConfig, n_atoms: int, n_edges: int) -> float:
    """Returns the operations of energy and forces of a system.

    Args:
        config: of the network.
        n_atoms: number of atoms.
        n_edges: ordered pairs within the cutoff.
    """
    attention = config.interaction == "attention"
    per_atom = per_edge = 0.0
    for block in range(config.n_layers):
        l_in_max = 0 if block == 0 else config.l_max
        n_out = [
            config.n_message_channels * (2 if attention and l <= l_in_max else 1)
            for l in range(config.l_max + 1)
        ]
        separate = config.l_max > 0 and (block == 0 or config.radial_networks == "per-degree")
        found = _convolution(
            l_in_max, config.n_channels, n_out, config.radial_hidden, config.n_channels,
            config.l_max + 1 if separate else 1,
        )  # fmt: skip
        per_atom, per_edge = per_atom + found[0], per_edge + found[1]
    last = _convolution(
        config.l_max, config.n_channels, [config.n_scalars], config.radial_hidden,
        config.n_channels, 1,
    )  # fmt: skip
    forward = (per_atom + last[0]) * n_atoms + (per_edge + last[1]) * n_edges
    # Gradients of the per-atom products are taken to the features only, not to the weights.
    backward = (per_atom + last[0]) * n_atoms + 2.0 * (per_edge + last[1]) * n_edges
    return 2.0 * (forward + backward)
